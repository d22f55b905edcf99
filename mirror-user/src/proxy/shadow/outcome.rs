//! What a copy's end says of it, where that is not plain.

use super::copy::Watch;
use crate::{
    outcome::{CopyOutcome, DropReason, UnknownReason},
    proxy::io::WireState,
};

/// No answer came in time.
pub(super) fn timed_out(watch: &Watch) -> CopyOutcome {
    if watch.is_taken_whole() {
        CopyOutcome::Unknown(UnknownReason::Timeout)
    } else {
        CopyOutcome::Dropped(DropReason::SendTimeout)
    }
}

/// The shadow ended it. `before`: bytes that the kernel had taken when the copy was begun;
/// `unknown`: what to call it if all of it may have arrived.
pub(super) fn sent(
    wire: &WireState,
    watch: &Watch,
    before: u64,
    unknown: UnknownReason,
) -> CopyOutcome {
    if let Some(reason) = watch.cut_reason() {
        return CopyOutcome::Dropped(reason);
    }
    if wire.written.get() == before || wire.write_failed() || !watch.is_taken_whole() {
        return CopyOutcome::Dropped(DropReason::ShadowClosed);
    }
    CopyOutcome::Unknown(unknown)
}

/// The shadow has answered, and the rest of the copy is over. `in_time`: it was not cut off at the
/// end of the response timeout.
pub(super) fn answered(watch: &Watch, in_time: bool) -> CopyOutcome {
    match watch.cut_reason() {
        Some(reason) => CopyOutcome::Dropped(reason),
        // A shadow that wanted no more of it has had what it wanted.
        None if in_time || watch.is_taken_whole() => CopyOutcome::Delivered,
        None => CopyOutcome::Dropped(DropReason::SendTimeout),
    }
}

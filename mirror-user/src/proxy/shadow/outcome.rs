//! Which outcome a copy has that was sent, or was to be: delivered, dropped or unknown. Copies that
//! are never sent are dropped where that is decided (`shadow`, `pool`, `streams`), and `accounting` counts each once.

use crate::{
    outcome::{CopyOutcome, DropReason, UnknownReason},
    proxy::{http1::Written, tee::CopyStatus},
};

/// What the kernel took of what was written for a copy.
#[derive(Clone, Copy, Debug)]
pub(super) struct BytesWritten {
    pub(super) any: bool,
    /// It refused some.
    pub(super) refused: bool,
}

/// No response came in time.
pub(super) fn timed_out(status: &CopyStatus) -> CopyOutcome {
    if status.is_taken_whole() {
        CopyOutcome::Unknown(UnknownReason::Timeout)
    } else {
        CopyOutcome::Dropped(DropReason::SendTimeout)
    }
}

/// The same of a copy that was pipelined, without content.
pub(super) fn pipelined_timed_out(written: Written) -> CopyOutcome {
    match written {
        Written::All => CopyOutcome::Unknown(UnknownReason::Timeout),
        Written::Some | Written::Nothing => CopyOutcome::Dropped(DropReason::SendTimeout),
    }
}

/// The shadow ended the connection of a copy that was pipelined. None: it has none of it. `unknown`: as
/// below.
pub(super) fn pipelined_closed(written: Written, unknown: UnknownReason) -> Option<CopyOutcome> {
    match written {
        Written::Nothing => None,
        Written::Some => Some(CopyOutcome::Dropped(DropReason::ShadowClosed)),
        Written::All => Some(CopyOutcome::Unknown(unknown)),
    }
}

/// The shadow ended it. `unknown`: what to call it if all of it may have arrived.
pub(super) fn sent(
    taken: BytesWritten,
    status: &CopyStatus,
    unknown: UnknownReason,
) -> CopyOutcome {
    if let Some(reason) = status.cut_reason() {
        return CopyOutcome::Dropped(reason);
    }
    if !taken.any || taken.refused || !status.is_taken_whole() {
        return CopyOutcome::Dropped(DropReason::ShadowClosed);
    }
    CopyOutcome::Unknown(unknown)
}

/// The shadow has answered, and the rest of the copy is over. `in_time`: it was not cut off at the
/// end of the response timeout.
pub(super) fn responded(status: &CopyStatus, in_time: bool) -> CopyOutcome {
    match status.cut_reason() {
        Some(reason) => CopyOutcome::Dropped(reason),
        // A shadow that wanted no more of it has had what it wanted.
        None if in_time || status.is_taken_whole() => CopyOutcome::Delivered,
        None => CopyOutcome::Dropped(DropReason::SendTimeout),
    }
}

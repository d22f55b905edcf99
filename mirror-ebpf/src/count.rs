//! Counts how the connect hook ended, per CPU, so that no two CPUs share a cache line.

use mirror_common::Reason;

use crate::maps::COUNTERS;

/// Adds one connection.
#[inline(always)]
pub(crate) fn count(reason: Reason) {
    if let Some(counter) = COUNTERS.get_ptr_mut(reason.index()) {
        // SAFETY: the pointer is to this CPU's own value of the map; a program that interrupts
        // this one can at worst lose an increment.
        unsafe { *counter += 1 };
    }
}

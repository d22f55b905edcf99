//! Looks for live workers in their heartbeats.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use mirror_common::{MAX_WORKERS, Reason, WorkerState, worker_state};

use crate::maps::{HEARTBEATS, WORKERS};

/// The clock that heartbeats are compared against, ns.
#[inline(always)]
pub(crate) fn now() -> u64 {
    // SAFETY: takes no argument.
    unsafe { bpf_ktime_get_ns() }
}

/// How many workers there are, within what the verifier can see is a bound.
#[inline(always)]
pub(crate) fn workers() -> u32 {
    let workers = WORKERS.load();
    if workers == 0 || workers > MAX_WORKERS { MAX_WORKERS } else { workers }
}

/// The state of one worker.
#[inline(always)]
pub(crate) fn state(worker: u32, now: u64) -> WorkerState {
    HEARTBEATS.get(worker).map_or(WorkerState::Stale, |beat| worker_state(beat, now))
}

/// Why the lookup found no worker. Off the fast path: nothing is captured then.
#[inline(never)]
pub(crate) fn no_worker_reason() -> Reason {
    let now = now();
    let mut reason = Reason::NoLiveWorker;
    for worker in 0..workers() {
        if state(worker, now) == WorkerState::Full {
            reason = Reason::QueueFull;
        }
    }
    reason
}

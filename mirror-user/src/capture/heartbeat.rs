//! Heartbeats: what a worker's own loop writes so that the hook sends it connections. Each worker
//! has a separate handle, so that they share no lock.

use aya::maps::{Array, MapData};
use mirror_common::Heartbeat;
use nix::time::{ClockId, clock_gettime};

use super::programs::{Programs, ProgramsError};
use crate::{error_chain::WithCauses, heartbeat::HeartbeatSink};

/// A worker's handle of the map of heartbeats.
pub struct KernelHeartbeat(Array<MapData, Heartbeat>);

impl std::fmt::Debug for KernelHeartbeat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KernelHeart")
    }
}

impl KernelHeartbeat {
    /// Opens the map; one for each worker.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn new(programs: &Programs) -> Result<Self, ProgramsError> {
        programs.heartbeats().map(Self)
    }
}

impl HeartbeatSink for KernelHeartbeat {
    fn beat(&mut self, worker: u32, full: bool) {
        let beat = Heartbeat { ns: monotonic_ns(), full: u32::from(full), zero: 0 };
        if let Err(error) = self.0.set(worker, beat, 0) {
            // Connections go direct as long as this lasts.
            let error = WithCauses(&error);
            tracing::warn!(worker, %error, "cannot write a heartbeat");
        }
    }
}

/// CLOCK_MONOTONIC, what bpf_ktime_get_ns reads; an offset time namespace is refused at start.
fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("the kernel has this clock");
    let part = |value: i64| u64::try_from(value).expect("the clock starts at 0");
    part(now.tv_sec()) * 1_000_000_000 + part(now.tv_nsec())
}

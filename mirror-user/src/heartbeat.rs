//! The heartbeat of a worker: how often it comes, and where it goes.

use std::time::Duration;

/// Time between two heartbeats.
pub const BEAT: Duration = Duration::from_millis(100);

/// Reports to the kernel, and to the watchdog, that a worker's loop is alive.
pub trait HeartbeatSink: Send {
    /// Called by the worker's own loop every 100 ms. `full`: a listener's accept queue is over
    /// half full, or nothing can be accepted for want of descriptors.
    fn beat(&mut self, worker: u32, full: bool);
}

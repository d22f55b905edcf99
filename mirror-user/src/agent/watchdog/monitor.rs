//! Silence: bytes of beating workers and ticks go in, the first worker that was silent too long
//! comes out. Pure, and without a clock.

use std::{fmt, time::Duration};

use super::RETIRED;

/// How long a worker may take for its first beat.
const GRACE: Duration = Duration::from_secs(10);

/// How long each worker has been silent, in ticks.
#[derive(Debug)]
pub(super) struct HeartbeatMonitor {
    workers: Vec<MonitoredState>,
    tick: Duration,
    stale: u32,
    grace: u32,
}

#[derive(Clone, Copy, Debug)]
enum MonitoredState {
    /// Has not beaten yet.
    Starting(u32),
    Beating(u32),
    /// Ended on purpose.
    Retired,
}

/// A worker that was silent too long.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SilentWorker {
    worker: usize,
    length: Duration,
    started: bool,
}

impl HeartbeatMonitor {
    pub(super) fn new(workers: u32, stale: Duration, tick: Duration) -> Self {
        let ticks = |length: Duration| {
            u32::try_from(length.as_nanos().div_ceil(tick.as_nanos())).unwrap_or(u32::MAX).max(1)
        };
        let (stale, grace) = (ticks(stale), ticks(GRACE.max(stale)));
        Self { workers: vec![MonitoredState::Starting(0); workers as usize], tick, stale, grace }
    }

    /// A byte that a worker wrote; one that names no worker is ignored.
    pub(super) fn record(&mut self, byte: u8) {
        let Some(worker) = self.workers.get_mut(usize::from(byte & !RETIRED)) else { return };
        *worker = match worker {
            MonitoredState::Retired => MonitoredState::Retired,
            _ if byte & RETIRED != 0 => MonitoredState::Retired,
            _ => MonitoredState::Beating(0),
        };
    }

    /// One tick passed, and all bytes written before it were heard.
    pub(super) fn tick(&mut self) -> Option<SilentWorker> {
        let (stale, grace, tick) = (self.stale, self.grace, self.tick);
        let mut first = None;
        for (number, worker) in self.workers.iter_mut().enumerate() {
            let (ticks, limit, started) = match worker {
                MonitoredState::Starting(ticks) => (ticks, grace, false),
                MonitoredState::Beating(ticks) => (ticks, stale, true),
                MonitoredState::Retired => continue,
            };
            // The tick that follows a beat counts from the beat, hence "more than".
            *ticks += 1;
            if *ticks > limit && first.is_none() {
                first = Some(SilentWorker { worker: number, length: tick * (*ticks - 1), started });
            }
        }
        first
    }
}

impl fmt::Display for SilentWorker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { worker, length, started } = self;
        let length = humantime::format_duration(*length);
        match started {
            true => write!(f, "worker {worker} has been silent for {length}"),
            false => write!(f, "worker {worker} has not started within {length}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(100);

    fn monitor(workers: u32) -> HeartbeatMonitor {
        HeartbeatMonitor::new(workers, Duration::from_secs(3), TICK)
    }

    #[test]
    fn a_beating_worker_is_never_silent_and_a_mute_one_is_after_its_time() {
        let mut monitor = monitor(2);
        monitor.record(1);
        for _ in 0..30 {
            monitor.record(0);
            assert_eq!(monitor.tick(), None);
        }
        monitor.record(0);
        let silent = monitor.tick().expect("worker 1 was silent for 30 ticks");
        assert_eq!(silent.to_string(), "worker 1 has been silent for 3s");
    }

    #[test]
    fn a_worker_may_take_ten_seconds_to_start() {
        let mut monitor = monitor(1);
        assert!((0..100).all(|_| monitor.tick().is_none()));
        let silent = monitor.tick().expect("it has not started");
        assert_eq!(silent.to_string(), "worker 0 has not started within 10s");
    }

    #[test]
    fn a_retired_worker_is_not_waited_for_even_if_old_beats_follow() {
        let mut monitor = monitor(2);
        monitor.record(RETIRED);
        monitor.record(0);
        monitor.record(1);
        assert!((0..30).all(|_| monitor.tick().is_none()));
        let silent = monitor.tick().expect("the other worker is still watched");
        assert_eq!(silent.worker, 1);
    }

    #[test]
    fn a_byte_of_nobody_changes_nothing() {
        let mut monitor = monitor(1);
        monitor.record(63);
        monitor.record(0x7f | RETIRED);
        assert!((0..100).all(|_| monitor.tick().is_none()));
        assert!(monitor.tick().is_some());
    }
}

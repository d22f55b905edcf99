//! Silence: bytes of beating workers and ticks go in, the first worker that was silent too long
//! comes out. Pure, and without a clock.

use std::{fmt, time::Duration};

use super::RETIRED;

/// How long a worker may take for its first beat.
const GRACE: Duration = Duration::from_secs(10);

/// How long each worker has been silent, in ticks.
#[derive(Debug)]
pub(super) struct Silences {
    workers: Vec<Worker>,
    tick: Duration,
    stale: u32,
    grace: u32,
}

#[derive(Clone, Copy, Debug)]
enum Worker {
    /// Has not beaten yet.
    Starting(u32),
    Beating(u32),
    /// Ended on purpose.
    Retired,
}

/// A worker that was silent too long.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Silent {
    worker: usize,
    length: Duration,
    started: bool,
}

impl Silences {
    pub(super) fn new(workers: u32, stale: Duration, tick: Duration) -> Self {
        let ticks = |length: Duration| {
            u32::try_from(length.as_nanos().div_ceil(tick.as_nanos())).unwrap_or(u32::MAX).max(1)
        };
        let (stale, grace) = (ticks(stale), ticks(GRACE.max(stale)));
        Self { workers: vec![Worker::Starting(0); workers as usize], tick, stale, grace }
    }

    /// A byte that a worker wrote; one that names no worker is ignored.
    pub(super) fn heard(&mut self, byte: u8) {
        let Some(worker) = self.workers.get_mut(usize::from(byte & !RETIRED)) else { return };
        *worker = match worker {
            Worker::Retired => Worker::Retired,
            _ if byte & RETIRED != 0 => Worker::Retired,
            _ => Worker::Beating(0),
        };
    }

    /// One tick passed, and all bytes written before it were heard.
    pub(super) fn tick(&mut self) -> Option<Silent> {
        let (stale, grace, tick) = (self.stale, self.grace, self.tick);
        let mut first = None;
        for (number, worker) in self.workers.iter_mut().enumerate() {
            let (ticks, limit, started) = match worker {
                Worker::Starting(ticks) => (ticks, grace, false),
                Worker::Beating(ticks) => (ticks, stale, true),
                Worker::Retired => continue,
            };
            // The tick that follows a beat counts from the beat, hence "more than".
            *ticks += 1;
            if *ticks > limit && first.is_none() {
                first = Some(Silent { worker: number, length: tick * (*ticks - 1), started });
            }
        }
        first
    }
}

impl fmt::Display for Silent {
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

    fn silences(workers: u32) -> Silences {
        Silences::new(workers, Duration::from_secs(3), TICK)
    }

    #[test]
    fn a_beating_worker_is_never_silent_and_a_mute_one_is_after_its_time() {
        let mut silences = silences(2);
        silences.heard(1);
        for _ in 0..30 {
            silences.heard(0);
            assert_eq!(silences.tick(), None);
        }
        silences.heard(0);
        let silent = silences.tick().expect("worker 1 was silent for 30 ticks");
        assert_eq!(silent.to_string(), "worker 1 has been silent for 3s");
    }

    #[test]
    fn a_worker_may_take_ten_seconds_to_start() {
        let mut silences = silences(1);
        assert!((0..100).all(|_| silences.tick().is_none()));
        let silent = silences.tick().expect("it has not started");
        assert_eq!(silent.to_string(), "worker 0 has not started within 10s");
    }

    #[test]
    fn a_retired_worker_is_not_waited_for_even_if_old_beats_follow() {
        let mut silences = silences(2);
        silences.heard(RETIRED);
        silences.heard(0);
        silences.heard(1);
        assert!((0..30).all(|_| silences.tick().is_none()));
        let silent = silences.tick().expect("the other worker is still watched");
        assert_eq!(silent.worker, 1);
    }

    #[test]
    fn a_byte_of_nobody_changes_nothing() {
        let mut silences = silences(1);
        silences.heard(63);
        silences.heard(0x7f | RETIRED);
        assert!((0..100).all(|_| silences.tick().is_none()));
        assert!(silences.tick().is_some());
    }
}

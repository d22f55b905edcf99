//! When memory that was let go of is given back to the kernel. In: how much is held, as it changes. Out:
//! whether it is time. Giving back holds up every thread that allocates, for some milliseconds where
//! much is held; therefore it is rare, and little waits until nothing else happens.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// So much is given back at once, in bytes, every [`PAUSE`] at most.
const MUCH: usize = 8 << 20;
const PAUSE: Duration = Duration::from_secs(1);

/// So much is given back, every [`CALM_PAUSE`] at most, once what is held has changed by less than this
/// for [`CALM`].
const SOME: usize = 1 << 20;
const CALM_PAUSE: Duration = Duration::from_secs(5);
const CALM: Duration = Duration::from_secs(2);

/// What was held, and when memory was given back.
#[derive(Debug)]
pub(super) struct Release {
    /// The most bytes that were held since memory was given back last.
    peak: AtomicUsize,
    /// It is to be given back once more: what a connection holds besides what it is charged for is freed
    /// a little later.
    again: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// When memory was given back last.
    given_back: Instant,
    /// Bytes held, as they have been since then, more or less.
    level: usize,
    since: Instant,
}

impl Release {
    /// Nothing is held at `now`.
    pub(super) fn new(now: Instant) -> Self {
        let state = State { given_back: now, level: 0, since: now };
        Self { peak: AtomicUsize::new(0), again: AtomicBool::new(false), state: Mutex::new(state) }
    }

    /// So many bytes are held now.
    pub(super) fn holds(&self, held: usize) {
        self.peak.fetch_max(held, Relaxed);
    }

    /// Whether memory is to be given back; to be asked every 100 ms or so. Of several threads that ask at
    /// once, one gets true.
    pub(super) fn is_due(&self, held: usize, now: Instant) -> bool {
        let freed = self.peak.load(Relaxed).saturating_sub(held);
        let again = self.again.load(Relaxed);
        if freed < SOME && !again {
            return false;
        }
        let Ok(mut state) = self.state.try_lock() else { return false };
        if held.abs_diff(state.level) >= SOME {
            (state.level, state.since) = (held, now);
        }
        let calm = now.saturating_duration_since(state.since) >= CALM;
        let pause = match freed >= MUCH {
            true => PAUSE,
            false if calm => CALM_PAUSE,
            false => return false,
        };
        if now.saturating_duration_since(state.given_back) < pause {
            return false;
        }
        state.given_back = now;
        self.again.store(freed >= MUCH, Relaxed);
        self.peak.store(held, Relaxed);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: [u32; 0] = [];

    /// Asks every 100 ms of so many seconds; the tenths of seconds at which memory was given back.
    fn due(
        release: &Release,
        begun: Instant,
        tenths: std::ops::Range<u32>,
        held: usize,
    ) -> Vec<u32> {
        let at = |tenth: &u32| {
            release.holds(held);
            release.is_due(held, begun + Duration::from_millis(100) * *tenth)
        };
        tenths.filter(at).collect()
    }

    #[test]
    fn much_is_given_back_soon_and_once_more_for_what_was_freed_later() {
        let begun = Instant::now();
        let release = Release::new(begun);
        release.holds(MUCH + 1);
        assert_eq!(due(&release, begun, 0..20, MUCH + 1), NONE, "it is held still");
        assert_eq!(due(&release, begun, 20..200, 1), [20, 70]);
    }

    #[test]
    fn much_is_given_back_every_second_at_most() {
        let begun = Instant::now();
        let release = Release::new(begun);
        let mut given_back = Vec::new();
        for tenth in 0..30 {
            release.holds(2 * MUCH);
            given_back.extend(due(&release, begun, tenth..tenth + 1, 0));
        }
        assert_eq!(given_back, [10, 20]);
    }

    #[test]
    fn a_little_waits_until_nothing_happens() {
        let begun = Instant::now();
        let release = Release::new(begun);
        for tenth in 0..100 {
            release.holds(4 * SOME);
            let held = if tenth % 10 < 5 { SOME } else { 3 * SOME };
            assert_eq!(due(&release, begun, tenth..tenth + 1, held), NONE, "at {tenth}");
        }
        assert_eq!(due(&release, begun, 100..300, SOME), [120]);
    }

    #[test]
    fn less_than_that_is_kept() {
        let begun = Instant::now();
        let release = Release::new(begun);
        release.holds(SOME - 1);
        assert_eq!(due(&release, begun, 0..200, 0), NONE);
    }
}

//! When to try again. In: failures and successes. Out: how long to wait.
//!
//! Full jitter (each wait is drawn from zero to a cap), and a cap that follows how long the
//! failure lasts instead of how often was tried: a fifth of it, from 0.6 s up to 30 s. After an
//! outage of 20 s (a server that was killed for 10 s, and its start) that is 4 s, so that no agent is
//! out of date 5 s after the server is back; a server that is down for long sees each agent every
//! 15 s on average.

use std::time::Duration;

use tokio::time::Instant;

const FIRST: Duration = Duration::from_millis(600);
const LONGEST: Duration = Duration::from_secs(30);

/// Waits between attempts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backoff {
    failing_since: Option<Instant>,
}

impl Backoff {
    /// All is well again.
    pub fn reset(&mut self) {
        self.failing_since = None;
    }

    /// How long it has been failing; zero when it is not.
    #[must_use]
    pub fn failing(&self) -> Duration {
        self.failing_since.map(|since| since.elapsed()).unwrap_or_default()
    }

    /// Notes a failure, and says how long to wait: at most `most`, and never less than `least`,
    /// which a server may have asked for (Retry-After).
    #[must_use]
    pub fn after_failure(&mut self, least: Duration, most: Duration) -> Duration {
        let failing = self.failing_since.get_or_insert_with(Instant::now).elapsed();
        let cap = (failing / 5).clamp(FIRST, LONGEST).min(most);
        cap.mul_f64(rand::random()).max(least.min(LONGEST))
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const NONE: Duration = Duration::ZERO;

    fn longest(backoff: &mut Backoff) -> Duration {
        (0..200).map(|_| backoff.after_failure(NONE, LONGEST)).max().expect("200 of them")
    }

    #[tokio::test(start_paused = true)]
    async fn the_cap_follows_the_outage_and_ends_at_30_s() {
        let mut backoff = Backoff::default();
        assert!(longest(&mut backoff) <= FIRST);
        advance(Duration::from_secs(20)).await;
        let after_twenty = longest(&mut backoff);
        assert!((3..=4).contains(&after_twenty.as_secs()), "{after_twenty:?}");
        advance(Duration::from_secs(3600)).await;
        let after_an_hour = longest(&mut backoff);
        assert!((25..=30).contains(&after_an_hour.as_secs()), "{after_an_hour:?}");
        backoff.reset();
        assert_eq!(backoff.failing(), NONE);
        assert!(longest(&mut backoff) <= FIRST);
    }

    #[tokio::test(start_paused = true)]
    async fn bounds_of_the_caller_hold() {
        let mut backoff = Backoff::default();
        let _ = backoff.after_failure(NONE, LONGEST);
        advance(Duration::from_secs(3600)).await;
        assert!(backoff.after_failure(NONE, Duration::from_secs(2)) <= Duration::from_secs(2));
        assert_eq!(backoff.after_failure(Duration::from_secs(7), NONE), Duration::from_secs(7));
        let unreasonable = backoff.after_failure(Duration::from_secs(86_400), NONE);
        assert_eq!(unreasonable, LONGEST);
    }

    #[tokio::test(start_paused = true)]
    async fn a_thousand_agents_do_not_try_at_the_same_moment() {
        let mut backoff = Backoff::default();
        let _ = backoff.after_failure(NONE, LONGEST);
        advance(Duration::from_secs(100)).await;
        let early =
            (0..1000).filter(|_| backoff.after_failure(NONE, LONGEST) < Duration::from_secs(10));
        // Half of those of a cap of 20 s; far outside is no accident.
        assert!((400..600).contains(&early.count()));
    }
}

//! Exponential backoff. In: how many attempts have failed in a row. Out: how long to wait before the
//! next one. Pure: it keeps no state and reads no clock.
//!
//! The watches of the API server do not use it: their waits follow how long an outage lasts, with
//! full jitter ([`crate::kube`]).

use std::time::Duration;

/// Doublings beyond which every delay has reached [`ExponentialBackoff::longest`].
const MAX_DOUBLINGS: u32 = 16;

/// The delays after failures in a row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ExponentialBackoff {
    /// After the first failure; each further one doubles it.
    pub(crate) first: Duration,
    /// At most.
    pub(crate) longest: Duration,
}

impl ExponentialBackoff {
    /// The delay after a failure that follows `earlier` others.
    pub(crate) fn delay(&self, earlier: u32) -> Duration {
        self.first.saturating_mul(1 << earlier.min(MAX_DOUBLINGS)).min(self.longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_longest() {
        let backoff = ExponentialBackoff {
            first: Duration::from_millis(100),
            longest: Duration::from_secs(1),
        };
        let delays: Vec<_> = (0..6).map(|earlier| backoff.delay(earlier).as_millis()).collect();
        assert_eq!(delays, [100, 200, 400, 800, 1_000, 1_000]);
        assert_eq!(backoff.delay(u32::MAX), Duration::from_secs(1));
    }

    #[test]
    fn no_delay_overflows() {
        let backoff = ExponentialBackoff { first: Duration::MAX, longest: Duration::MAX };
        assert_eq!(backoff.delay(u32::MAX), Duration::MAX);
    }
}

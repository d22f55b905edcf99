//! When a request is sent to its backend again (HTTPRouteRule, `retry`; GEP-1731), and how long after the
//! attempt that failed. Pure.

use std::{fmt, sync::Arc, time::Duration};

use http::{Method, StatusCode};

/// `HTTPRouteRetry`. Attempts that got no response are retried as well as those with one of the codes; see
/// [`Retry::is_idempotent`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// `codes`: statuses of responses after which the request is sent again.
    pub codes: Arc<[u16]>,
    /// `attempts`: how often it is sent again, at least 1; no more than [`Retry::MAX_ATTEMPTS`] count.
    pub attempts: u32,
    /// `backoff`: the time before the first retry; zero for none.
    pub backoff: Duration,
}

impl Retry {
    /// Retries of a request at most, whatever a route says, so that none can multiply the requests of a
    /// client without bound.
    pub const MAX_ATTEMPTS: u32 = 10;

    /// `attempts` of a route that does not say it (the default of the CRD).
    pub const DEFAULT_ATTEMPTS: u32 = 1;

    /// `backoff` of a route that does not say it.
    pub const DEFAULT_BACKOFF: Duration = Duration::from_millis(25);

    /// How often `backoff` is waited at most, before jitter.
    const MAX_FACTOR: u32 = 10;

    /// How often a request is sent again at most.
    #[must_use]
    pub fn limit(&self) -> u32 {
        self.attempts.min(Self::MAX_ATTEMPTS)
    }

    /// Whether a response with this status is one of a failed attempt.
    #[must_use]
    pub fn retries(&self, status: StatusCode) -> bool {
        self.codes.contains(&status.as_u16())
    }

    /// Whether a request may be sent again though the backend may have processed it, because doing so twice
    /// has the effect of doing so once (RFC 9110, section 9.2.2).
    #[must_use]
    pub fn is_idempotent(method: &Method) -> bool {
        matches!(
            *method,
            Method::GET
                | Method::HEAD
                | Method::OPTIONS
                | Method::TRACE
                | Method::PUT
                | Method::DELETE
        )
    }

    /// The time between a failed attempt and the next, after `done` retries: `backoff`, doubled for each
    /// retry up to ten times itself, and up to half of that more, by the random number `draw`. It is never
    /// less than `backoff`.
    #[must_use]
    pub fn delay(&self, done: u32, draw: u64) -> Duration {
        let factor = 2_u32.saturating_pow(done).min(Self::MAX_FACTOR);
        let delay = self.backoff.saturating_mul(factor);
        let share = f64::from((draw >> 32) as u32) / f64::from(u32::MAX);
        delay.saturating_add((delay / 2).mul_f64(share))
    }
}

impl fmt::Display for Retry {
    /// `up to 2 times, on 500, 503 and connection errors, 25ms apart and more`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "up to {} times", self.limit())?;
        if self.attempts > self.limit() {
            write!(f, " (the route says {})", self.attempts)?;
        }
        f.write_str(", on ")?;
        for (at, code) in self.codes.iter().enumerate() {
            write!(f, "{}{code}", if at == 0 { "" } else { ", " })?;
        }
        if !self.codes.is_empty() {
            f.write_str(" and ")?;
        }
        f.write_str("connection errors")?;
        match self.backoff {
            Duration::ZERO => f.write_str(", at once"),
            backoff => write!(f, ", after {} or more", humantime::format_duration(backoff)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retry(codes: &[u16], attempts: u32, backoff: u64) -> Retry {
        Retry { codes: codes.into(), attempts, backoff: Duration::from_millis(backoff) }
    }

    #[test]
    fn delays_double_up_to_a_bound_and_are_never_less_than_the_backoff() {
        let retry = retry(&[], 9, 100);
        for (done, least) in [(0, 100), (1, 200), (2, 400), (3, 800), (4, 1000), (40, 1000)] {
            let (least, most) =
                (Duration::from_millis(least), Duration::from_millis(least * 3 / 2));
            assert_eq!(retry.delay(done, 0), least);
            let middle = retry.delay(done, u64::MAX / 2);
            assert!(least < middle && middle < most, "{done}: {middle:?}");
            assert_eq!(retry.delay(done, u64::MAX), most);
        }
        let longest = Retry { backoff: Duration::MAX, ..retry };
        assert_eq!(longest.delay(7, 0), Duration::MAX);
        assert_eq!(Retry { backoff: Duration::ZERO, ..longest }.delay(7, u64::MAX), Duration::ZERO);
    }

    #[test]
    fn attempts_are_bounded_and_the_text_says_so() {
        let of = |retry: Retry| (retry.limit(), retry.to_string());
        let text = "up to 2 times, on 500, 503 and connection errors, after 25ms or more";
        assert_eq!(of(retry(&[500, 503], 2, 25)), (2, text.into()));
        let text = "up to 10 times (the route says 50), on connection errors, at once";
        assert_eq!(of(retry(&[], 50, 0)), (10, text.into()));
    }

    #[test]
    fn codes_are_those_of_the_route() {
        let retry = retry(&[500, 429], 1, 0);
        assert!(retry.retries(StatusCode::TOO_MANY_REQUESTS));
        assert!(!retry.retries(StatusCode::BAD_GATEWAY) && !retry.retries(StatusCode::OK));
    }
}

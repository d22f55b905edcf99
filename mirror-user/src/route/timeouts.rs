//! How long a rule lets requests take (HTTPRouteRule, `timeouts`; GEP-1742).

use std::time::{Duration, Instant};

/// None where the rule says nothing, or `0s`: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// `request`: from the end of the request's head to the end of the response.
    pub request: Option<Duration>,
    /// `backendRequest`: the same of one attempt at a backend.
    pub backend: Option<Duration>,
}

impl Timeouts {
    /// When an exchange that began at `started`, and its attempt at `attempted`, must be over.
    #[must_use]
    pub fn deadline(&self, started: Instant, attempted: Instant) -> Option<Instant> {
        let request = self.request.map(|limit| started + limit);
        let backend = self.backend.map(|limit| attempted + limit);
        request.into_iter().chain(backend).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earlier_deadline_counts() {
        let started = Instant::now();
        let attempted = started + Duration::from_secs(3);
        let seconds = |s| Some(Duration::from_secs(s));
        for (request, backend, expected) in [
            (None, None, None),
            (seconds(5), None, Some(5)),
            (None, seconds(5), Some(8)),
            (seconds(5), seconds(1), Some(4)),
            (seconds(5), seconds(4), Some(5)),
        ] {
            let deadline = Timeouts { request, backend }.deadline(started, attempted);
            assert_eq!(deadline, expected.map(|s| started + Duration::from_secs(s)));
        }
    }
}

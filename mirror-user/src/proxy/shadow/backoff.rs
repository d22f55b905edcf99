//! Backoff: how long a shadow endpoint that fails is left alone, so that a dead shadow costs no
//! connect per request. In: whether connects, responses and connections went well. Out: whether the endpoint
//! rests.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use crate::backoff::ExponentialBackoff;

const LONGEST: Duration = Duration::from_secs(5);

const REST: ExponentialBackoff =
    ExponentialBackoff { first: Duration::from_millis(100), longest: LONGEST };

/// Of an endpoint that floods: each connection to it costs the worker more than a failed one does.
const FLOOD_REST: ExponentialBackoff =
    ExponentialBackoff { first: Duration::from_secs(1), longest: LONGEST };

/// Connections in a row that may break before a response's end: each costs a new one, and a
/// shadow that breaks them all would cost one per request.
const BROKEN: u32 = 16;

/// Connections that may be closed for floods; the next sends the endpoint to rest.
const FLOODED: u32 = 2;

/// How long floods are remembered.
const MEMORY: Duration = Duration::from_secs(60);

/// What is known of an endpoint's failures.
pub(super) struct EndpointHealth {
    /// Of connects.
    pub(super) connects: Cell<EndpointBackoff>,
    /// Of connections that broke before a response's end.
    responses: Cell<EndpointBackoff>,
    /// Of connections that were closed for what the endpoint sent unasked.
    floods: Cell<EndpointBackoff>,
    /// When that was last.
    last_flood: Cell<Instant>,
}

impl EndpointHealth {
    pub(super) fn new() -> Self {
        Self {
            connects: Cell::new(EndpointBackoff::new(0)),
            responses: Cell::new(EndpointBackoff::new(BROKEN)),
            floods: Cell::new(EndpointBackoff::of_floods(FLOODED)),
            last_flood: Cell::new(Instant::now()),
        }
    }

    /// Whether the endpoint failed lately and is left alone.
    pub(super) fn is_resting(&self) -> bool {
        let rests =
            |backoff: EndpointBackoff| backoff.has_failed() && backoff.is_resting(Instant::now());
        [&self.connects, &self.responses, &self.floods]
            .into_iter()
            .any(|backoff| rests(backoff.get()))
    }

    /// Whether a connection could be made.
    pub(super) fn record_connect(&self, connected: bool) {
        update(&self.connects, connected);
    }

    /// Whether a response came to its end, or the shadow ended the connection before that.
    pub(super) fn record_response(&self, whole: bool) {
        update(&self.responses, whole);
    }

    /// So many connections were closed for floods. An endpoint that floods rests: a separate connection for
    /// each copy would be a flood as well.
    pub(super) fn record_floods(&self, count: u32, now: Instant) {
        if count == 0 {
            return;
        }
        if self.last_flood.replace(now) + MEMORY < now {
            update(&self.floods, true);
        }
        (0..count.min(FLOODED + 1)).for_each(|_| update(&self.floods, false));
    }
}

fn update(backoff: &Cell<EndpointBackoff>, success: bool) {
    let mut updated = backoff.get();
    if success {
        updated.succeeded();
    } else {
        updated.failed(Instant::now());
    }
    backoff.set(updated);
}

/// Failures in a row, and until when the endpoint rests.
#[derive(Clone, Copy, Debug)]
pub(super) struct EndpointBackoff {
    rest: ExponentialBackoff,
    tolerance: u32,
    failures: u32,
    until: Option<Instant>,
}

impl EndpointBackoff {
    /// Rests from the failure after `tolerance` failures in a row.
    pub(super) const fn new(tolerance: u32) -> Self {
        Self { rest: REST, tolerance, failures: 0, until: None }
    }

    /// The same of floods.
    pub(super) const fn of_floods(tolerance: u32) -> Self {
        Self { rest: FLOOD_REST, tolerance, failures: 0, until: None }
    }

    /// The endpoint failed. Failures of attempts that began before it rested count
    /// as the one that sent it to rest.
    pub(super) fn failed(&mut self, now: Instant) {
        if self.is_resting(now) {
            return;
        }
        if let Some(beyond) = self.failures.checked_sub(self.tolerance) {
            self.until = Some(now + self.rest.delay(beyond));
        }
        self.failures = self.failures.saturating_add(1);
    }

    /// The endpoint did what it should.
    pub(super) fn succeeded(&mut self) {
        (self.failures, self.until) = (0, None);
    }

    /// Whether it failed lately: else no clock need be asked.
    pub(super) fn has_failed(&self) -> bool {
        self.until.is_some()
    }

    pub(super) fn is_resting(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rests_double_up_to_the_longest_and_end_with_a_success() {
        let mut now = Instant::now();
        let mut backoff = EndpointBackoff::new(0);
        for rest in [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000] {
            backoff.failed(now);
            backoff.failed(now + Duration::from_millis(rest - 1));
            assert!(backoff.is_resting(now + Duration::from_millis(rest - 1)));
            now += Duration::from_millis(rest);
            assert!(!backoff.is_resting(now), "{rest}");
        }
        backoff.succeeded();
        backoff.failed(now);
        assert!(!backoff.is_resting(now + REST.first));
    }

    #[test]
    fn what_is_tolerated_in_a_row_sends_nobody_to_rest() {
        let now = Instant::now();
        let mut backoff = EndpointBackoff::new(2);
        for _ in 0..2 {
            backoff.failed(now);
            backoff.failed(now);
            assert!(!backoff.is_resting(now));
            backoff.succeeded();
        }
        (0..3).for_each(|_| backoff.failed(now));
        assert!(backoff.is_resting(now));
        assert!(!backoff.is_resting(now + REST.first));
    }
}

//! Retries that a rule asks for (HTTPRouteRule, `retry`; GEP-1731). In: a request. Out: the outcome of its
//! last attempt. Of an attempt that is followed by another the client gets nothing, and no shadow is sent
//! a second copy: copies are made of what the client sends, not of what a primary is sent.
//!
//! What is sent again, and where: the backend was chosen once. HTTP/1 takes a new connection, which the
//! cluster balances like any other; HTTP/2 a new stream. Of endpoints that mirror chooses itself, one that
//! has not failed comes first.

use std::{future::poll_fn, net::SocketAddr, time::Duration};

use tokio::{select, time::sleep};

use super::{
    Destination, EarlierAttempts, Failure, Primary, PrimaryRequest, PrimaryResponse,
    RequestContext, SendOutcome,
};
use crate::{
    model::RouteName,
    outcome::RouteRetryReason,
    proxy::body::{BodyError, Replay},
    route::{Retry, Rule},
};

/// What a rule says of retries.
#[derive(Clone, Copy)]
pub(in crate::proxy) struct RetryRule<'a> {
    route: &'a RouteName,
    retry: &'a Retry,
}

impl<'a> RetryRule<'a> {
    /// None if the rule does not retry.
    pub(in crate::proxy) fn of(rule: &'a Rule) -> Option<Self> {
        Some(Self { route: &rule.route, retry: rule.retry.as_ref()? })
    }
}

/// Why an attempt failed, and where.
type FailedAttempt = (RouteRetryReason, SocketAddr);

impl Primary {
    /// As [`Primary::send`] without a rule, and once more after each attempt that failed, as often as the rule
    /// says.
    ///
    /// # Errors
    /// [`Failure`] of the last attempt.
    pub(super) async fn send_repeatedly(
        &self,
        request_context: &RequestContext<'_>,
        rule: RetryRule<'_>,
        request: PrimaryRequest,
    ) -> Result<SendOutcome, Failure> {
        let PrimaryRequest { head, body } = request;
        let replay = Replay::new(body, request_context.upstreams.memory().held(0));
        let (progress, idempotent) = (request_context.progress, Retry::is_idempotent(&head.method));
        let mut failed = Vec::new();
        let mut done = 0;
        loop {
            let last = done == rule.retry.limit();
            let earlier = EarlierAttempts { failed: &failed, any: done > 0 };
            let attempt = RequestContext { retry: None, earlier, ..*request_context };
            let request = PrimaryRequest { head: head.clone(), body: replay.attempt(last) };
            progress.connected.set(false);
            let outcome = self.send(&attempt, request).await;
            let repeatable = idempotent || !progress.connected.get();
            let retried = failure_of(&outcome, rule.retry, repeatable).filter(|_| !last);
            let Some((reason, endpoint)) = retried else { return outcome };
            let delay = rule.retry.delay(done, self.parts.draw.next());
            if progress.client_gone.get()
                || request_context.interim.has_passed()
                || !replay.is_complete()
                || !request_context.limits.allow(delay)
            {
                return outcome;
            }
            // Its connection, or stream, ends with it.
            drop(outcome);
            if let Some(broken) = wait(&replay, delay).await {
                return Err(Failure::Lost(endpoint, broken));
            }
            avoid(&mut failed, endpoint, request_context.to);
            done += 1;
            progress.attempts.set(progress.attempts.get() + 1);
            self.parts.recorder.route_retry(rule.route, reason);
            tracing::debug!(route = %rule.route, %endpoint, reason = reason.label(), "sent again");
        }
    }
}

/// Why the request is to be sent again; None if the outcome is the client's. `repeatable`: the backend has
/// not got it, or does twice what it does once.
fn failure_of(
    outcome: &Result<SendOutcome, Failure>,
    retry: &Retry,
    repeatable: bool,
) -> Option<FailedAttempt> {
    match outcome {
        Ok(SendOutcome::Response(PrimaryResponse { response, upstream })) => {
            retry.retries(response.status()).then_some((RouteRetryReason::Code, upstream.endpoint))
        }
        Err(Failure::Connect(endpoint, _)) => Some((RouteRetryReason::Connect, *endpoint)),
        Err(Failure::Refused(endpoint)) => Some((RouteRetryReason::Refused, *endpoint)),
        Err(Failure::Lost(endpoint, _)) if repeatable => Some((RouteRetryReason::Lost, *endpoint)),
        Err(Failure::TimedOut(endpoint)) if repeatable => {
            Some((RouteRetryReason::Timeout, *endpoint))
        }
        _ => None,
    }
}

/// Notes an endpoint that mirror chose; of those that the cluster chooses nothing is known.
fn avoid(failed: &mut Vec<SocketAddr>, endpoint: SocketAddr, to: &Destination) {
    let Destination::Endpoints(backend, frontend) = to else { return };
    failed.push(endpoint);
    let endpoints = backend.endpoints_for(frontend);
    if endpoints.iter().all(|endpoint| failed.contains(endpoint)) {
        failed.clear();
    }
}

/// Waits before the next attempt, unless the client ends the request meanwhile.
async fn wait(replay: &Replay, delay: Duration) -> Option<BodyError> {
    if delay.is_zero() {
        return None;
    }
    select! {
        broken = poll_fn(|cx| replay.poll_gone(cx)) => Some(broken),
        () = sleep(delay) => None,
    }
}

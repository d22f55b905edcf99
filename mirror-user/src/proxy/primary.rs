//! The primary leg: one request to one endpoint, and the response's head back.
//!
//! In: a request whose body may feed copies as a side effect. Out: [`PrimaryResponse`], or a [`Failure`]
//! that speaks of the primary alone. Retries only what cannot have been executed, or may be twice.

mod balance;
mod chosen;
mod connect;
mod destination;
mod http1;
mod http2;
mod registry;
mod retry;
mod upstreams;

use std::{
    cell::Cell,
    io,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use h2::Reason;
use http::{Method, Response, Version, request};
use tokio::time::timeout_at;

use self::{
    balance::Balancer, chosen::ChosenEndpoints, http2::StreamLease, registry::ConnectionRegistry,
};
pub(super) use self::{
    destination::Destination,
    http1::ConnectionLease,
    http2::ClientPools,
    retry::RetryRule,
    upstreams::{IdleEvent, Upstreams},
};
use super::{
    body::{BodyError, IncomingBody, PrimaryBody, Progress},
    client_socket::ClientSocket,
    draw::Draw,
    http1::Error as Http1Error,
    interim::Interim,
    protocol::HttpVersion,
    validate::Malformed,
};
use crate::{
    outcome::{Recorder, RetryReason},
    route::{Snapshot, Timeouts},
    sockets::SocketFactory,
    workload::Workload,
};

/// How often a request is tried before it fails.
pub(super) const ATTEMPTS: usize = 3;

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("no endpoint is ready")]
    NoEndpoint,
    #[error("cannot connect to {0}: {1}")]
    Connect(SocketAddr, io::Error),
    #[error("{0} ended the exchange before a response: {1}")]
    Lost(SocketAddr, BodyError),
    /// What it sent is no HTTP response; the connection has it unread.
    #[error("{0} sent what is not a response: {1}")]
    Unreadable(SocketAddr, Http1Error, Box<ConnectionLease>),
    #[error("{0} is going away and has not looked at the request")]
    Refused(SocketAddr),
    #[error("the request cannot be sent by HTTP/2 to {0}: {1}")]
    InvalidHead(SocketAddr, Malformed),
    #[error("{0} takes no CONNECT with a protocol (RFC 8441)")]
    NoProtocols(SocketAddr),
    #[error("{0} did not respond within the route's timeout")]
    TimedOut(SocketAddr),
}

impl Failure {
    /// The code with which a client's stream is reset; None where the primary's whole connection
    /// ended.
    pub(super) fn reset_code(&self) -> Option<Reason> {
        match self {
            // Nobody has seen the request: it may be sent again (RFC 9113, section 8.7).
            Self::NoEndpoint | Self::Connect(..) | Self::Refused(_) => Some(Reason::REFUSED_STREAM),
            Self::Lost(_, broken) => broken.reset_code(),
            Self::Unreadable(..) => None,
            Self::InvalidHead(..) => Some(Reason::PROTOCOL_ERROR),
            Self::NoProtocols(_) => Some(Reason::CONNECT_ERROR),
            Self::TimedOut(_) => Some(Reason::CANCEL),
        }
    }
}

/// A request as a primary is sent it. Its head is boxed, because it is handed from stage to stage.
pub(super) struct PrimaryRequest {
    pub(super) head: Box<request::Parts>,
    pub(super) body: PrimaryBody,
}

/// A response's head and body, and the exchange that they come from.
pub(super) struct PrimaryResponse {
    pub(super) response: Response<IncomingBody>,
    pub(super) upstream: Upstream,
}

/// What became of a request.
#[expect(clippy::large_enum_variant, reason = "made once a request, and nearly always the large")]
pub(super) enum SendOutcome {
    Response(PrimaryResponse),
    /// CONNECT from a client of HTTP/2, to an endpoint that speaks HTTP/1.
    Bridge(Box<Bridge>),
}

/// A tunnel to be made between a stream and a connection of HTTP/1.
pub(super) struct Bridge {
    pub(super) endpoint: SocketAddr,
    pub(super) request: PrimaryRequest,
}

/// An exchange with an endpoint.
pub(super) struct Upstream {
    pub(super) endpoint: SocketAddr,
    pub(super) transport: Transport,
    /// The request will never be whole: the exchange ends with its response.
    pub(super) abandoned: bool,
    /// When the response must be whole.
    pub(super) deadline: Option<Instant>,
}

/// What carries an exchange.
pub(super) enum Transport {
    /// A connection of its own (HTTP/1).
    Http1(ConnectionLease),
    /// A stream of a connection that others use as well (HTTP/2).
    Http2(StreamLease),
}

impl Upstream {
    pub(super) fn new(endpoint: SocketAddr, transport: Transport) -> Self {
        Self { endpoint, transport, abandoned: false, deadline: None }
    }

    /// The exchange came to its end: its connection may carry another of the same client.
    pub(super) fn keep(self, upstreams: &Upstreams) {
        if self.abandoned {
            return;
        }
        match self.transport {
            Transport::Http1(lease) => upstreams.put(self.endpoint, lease),
            Transport::Http2(lease) => lease.finish(),
        }
    }

    /// Whether the connection ends with this exchange, as its peer said.
    pub(super) fn closes(&self) -> bool {
        match &self.transport {
            Transport::Http1(lease) => !lease.connection.persists(),
            Transport::Http2(_) => false,
        }
    }

    /// Whether the connection was reset (RST, not FIN).
    pub(super) fn was_reset(&self) -> bool {
        match &self.transport {
            Transport::Http1(lease) => lease.connection.was_reset(),
            Transport::Http2(lease) => lease.socket_state().was_reset(),
        }
    }
}

/// What came of an attempt.
enum AttemptOutcome {
    Response(Response<IncomingBody>, Transport),
    /// The endpoint answered the preface of HTTP/2 with HTTP/1, and has seen nothing of the
    /// request; or the request needs a bridge to HTTP/1.
    SpeaksHttp1(PrimaryRequest),
    Failed(AttemptError),
}

/// An attempt that came to nothing.
struct AttemptError {
    failure: Failure,
    /// The request, where it may be sent again.
    again: Option<(PrimaryRequest, RetryReason)>,
}

impl AttemptError {
    fn last(failure: Failure) -> Self {
        Self { failure, again: None }
    }

    fn again(failure: Failure, request: PrimaryRequest, reason: RetryReason) -> Self {
        Self { failure, again: Some((request, reason)) }
    }
}

/// What the primary leg of a worker is made with.
pub(super) struct PrimaryParts {
    pub(super) sockets: Arc<dyn SocketFactory>,
    /// How long connecting may take.
    pub(super) connect_timeout: Duration,
    pub(super) recorder: Rc<Recorder>,
    pub(super) draw: Rc<Draw>,
}

/// The primary leg's state in one worker.
pub(super) struct Primary {
    parts: PrimaryParts,
    registry: ConnectionRegistry,
    balancer: Balancer,
    chosen: ChosenEndpoints,
    /// How often it was swept.
    sweeps: Cell<u64>,
}

/// What there is to know of a request besides itself.
#[derive(Clone, Copy)]
pub(super) struct RequestContext<'a> {
    pub(super) client: &'a Workload,
    pub(super) socket: &'a ClientSocket,
    pub(super) upstreams: &'a Upstreams,
    pub(super) to: &'a Destination,
    pub(super) interim: &'a Interim,
    /// The response goes to a client of HTTP/1.1, and nobody here wants its fields.
    pub(super) unread: bool,
    pub(super) limits: Limits,
    pub(super) progress: &'a Rc<Progress>,
    /// When the request is sent again.
    pub(super) retry: Option<RetryRule<'a>>,
    /// Those before this one.
    pub(super) earlier: EarlierAttempts<'a>,
}

/// What the attempts that a rule's `retry` repeats have left.
#[derive(Clone, Copy, Default)]
pub(super) struct EarlierAttempts<'a> {
    /// Endpoints that mirror chose for them: not all that there are.
    failed: &'a [SocketAddr],
    /// There were some: take a new connection of HTTP/1.
    any: bool,
}

/// How long a request may take.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub(super) started: Instant,
    pub(super) timeouts: Timeouts,
}

impl Limits {
    /// Of an attempt that begins now; no clock is asked where nothing limits it.
    fn deadline(&self) -> Option<Instant> {
        if self.timeouts == Timeouts::default() {
            return None;
        }
        self.timeouts.deadline(self.started, Instant::now())
    }

    /// Whether an attempt after `delay` could still get a response.
    fn allow(&self, delay: Duration) -> bool {
        let Some(limit) = self.timeouts.request else { return true };
        self.started.elapsed().saturating_add(delay) < limit
    }
}

/// One attempt at it.
struct Attempt<'a> {
    primary: &'a Primary,
    request_context: &'a RequestContext<'a>,
    endpoint: SocketAddr,
    /// A connection that had carried a request before has just failed: take a new one.
    fresh: bool,
}

impl Primary {
    pub(super) fn new(parts: PrimaryParts) -> Self {
        let (registry, balancer, chosen, sweeps) = Default::default();
        Self { parts, registry, balancer, chosen, sweeps }
    }

    /// Sends the request and waits for the response's head; if its rule says so, again.
    ///
    /// # Errors
    /// [`Failure`]; the request may then have reached the primary only if it says `Lost`.
    pub(super) async fn send(
        &self,
        request_context: &RequestContext<'_>,
        mut request: PrimaryRequest,
    ) -> Result<SendOutcome, Failure> {
        if let Some(rule) = request_context.retry {
            // Boxed, as all that is rare.
            return Box::pin(self.send_repeatedly(request_context, rule, request)).await;
        }
        let version = request.head.version;
        let mut failed = request_context.earlier.failed.to_vec();
        let mut failure = Failure::NoEndpoint;
        let mut fresh = request_context.earlier.any;
        let mut again = None;
        for _ in 0..ATTEMPTS {
            let Some(endpoint) = self.endpoint(request_context, &failed) else { break };
            if let Some(reason) = again.take() {
                self.parts.recorder.retry(reason);
            }
            let attempt = Attempt { primary: self, request_context, endpoint, fresh };
            let deadline = request_context.limits.deadline();
            let outcome = match deadline {
                None => self.attempt(&attempt, version, request).await,
                Some(at) => {
                    let attempt = Box::pin(self.attempt(&attempt, version, request));
                    timeout_at(at.into(), attempt).await.unwrap_or_else(|_| {
                        AttemptOutcome::Failed(AttemptError::last(Failure::TimedOut(endpoint)))
                    })
                }
            };
            let error = match outcome {
                AttemptOutcome::Response(response, transport) => {
                    let upstream = Upstream { deadline, ..Upstream::new(endpoint, transport) };
                    return Ok(SendOutcome::Response(PrimaryResponse { response, upstream }));
                }
                AttemptOutcome::SpeaksHttp1(request) => {
                    let bridge = Bridge { endpoint, request };
                    return Ok(SendOutcome::Bridge(Box::new(bridge)));
                }
                AttemptOutcome::Failed(error) => error,
            };
            failure = error.failure;
            let Some((back, reason)) = error.again else { break };
            request = back;
            match reason {
                RetryReason::Connect => failed.push(endpoint),
                RetryReason::Unsent | RetryReason::NoResponse => fresh = true,
                RetryReason::Refused => {}
            }
            again = Some(reason);
        }
        Err(failure)
    }

    async fn attempt(
        &self,
        attempt: &Attempt<'_>,
        version: Version,
        request: PrimaryRequest,
    ) -> AttemptOutcome {
        let RequestContext { upstreams, to, .. } = *attempt.request_context;
        let request = match upstreams.http_version(to, version, attempt.endpoint) {
            HttpVersion::Http1 => request,
            HttpVersion::Http2 => match Box::pin(upstreams.pools.attempt(attempt, request)).await {
                AttemptOutcome::SpeaksHttp1(request) => {
                    upstreams.is_http1(attempt.endpoint);
                    request
                }
                outcome => return outcome,
            },
        };
        if version == Version::HTTP_2 && request.head.method == Method::CONNECT {
            return AttemptOutcome::SpeaksHttp1(request);
        }
        match http1::attempt(attempt, request).await {
            Ok((response, lease)) => AttemptOutcome::Response(response, Transport::Http1(lease)),
            Err(error) => AttemptOutcome::Failed(error),
        }
    }

    /// Where the request is sent, and not one of `failed`.
    fn endpoint(
        &self,
        request_context: &RequestContext<'_>,
        failed: &[SocketAddr],
    ) -> Option<SocketAddr> {
        let RequestContext { client, upstreams, to, .. } = request_context;
        upstreams.endpoint(to, self, client, failed)
    }

    /// Closes what has idled too long, and what leads to endpoints that these routes have lost.
    pub(super) fn sweep(&self, routes: &Snapshot) {
        self.sweeps.set(self.sweeps.get() + 1);
        self.registry.sweep();
        self.balancer.sweep();
        self.chosen.sweep(routes);
    }

    /// Closes the HTTP/2 connections inside a workload's network namespace.
    pub(super) fn leave(&self, workload: u64) {
        self.registry.leave(workload);
    }
}

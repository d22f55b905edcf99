//! The primary leg: one request to one endpoint, and the answer's head back.
//!
//! In: a request whose body may feed copies as a side effect. Out: [`Sent`], or a [`Failure`]
//! that speaks of the primary alone. Retries only what cannot have been executed, or may be twice.

mod answer;
mod balance;
mod body;
mod connect;
mod http1;
mod http2;
mod pool;
mod protocol;
mod roll;

use std::{io, net::SocketAddr, rc::Rc, sync::Arc, time::Instant};

use h2::Reason;
use http::{Method, Request, Response, Version};
use tokio::time::timeout_at;

pub(super) use self::{
    answer::AnswerBody,
    balance::Load,
    body::{PrimaryBody, Progress},
    connect::transport,
    http1::Single,
    http2::Shares,
    protocol::{Protocols, Speaks},
};
use self::{balance::Balancer, http2::Share, pool::Pool, roll::Roll};
use super::{
    context::Context,
    framing::Malformed,
    inbound::{Broken, Inbound},
    interim::Interim,
};
use crate::{
    outcome::RetryReason,
    route::{AppProtocol, Backend, Timeouts},
    worker::Workload,
};

/// How many endpoints are tried before the request fails.
pub(super) const ATTEMPTS: usize = 3;

/// Where a request goes.
#[derive(Clone, Debug)]
pub(super) enum Destination {
    /// A backend of the rule that matched, for a client that asked for this frontend's address.
    Backend(Arc<Backend>, SocketAddr),
    /// No route holds any more: the address that the client asked for.
    Original(SocketAddr),
}

impl Destination {
    fn endpoints(&self) -> &[SocketAddr] {
        match self {
            Self::Backend(backend, frontend) => backend.endpoints_for(frontend),
            Self::Original(address) => std::slice::from_ref(address),
        }
    }

    /// What is known of its endpoints' protocol.
    pub(super) fn protocol(&self) -> AppProtocol {
        match self {
            Self::Backend(backend, _) => backend.protocol,
            Self::Original(_) => AppProtocol::Unspecified,
        }
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("no endpoint is ready")]
    NoEndpoint,
    #[error("cannot connect to {0}: {1}")]
    Connect(SocketAddr, io::Error),
    #[error("{0} ended the exchange before an answer: {1}")]
    Lost(SocketAddr, Broken),
    #[error("{0} is going away and has not looked at the request")]
    Refused(SocketAddr),
    #[error("the request cannot be sent by HTTP/2 to {0}: {1}")]
    Unfit(SocketAddr, Malformed),
    #[error("{0} takes no CONNECT with a protocol (RFC 8441)")]
    NoProtocols(SocketAddr),
    #[error("{0} did not answer within the route's timeout")]
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
            Self::Unfit(..) => Some(Reason::PROTOCOL_ERROR),
            Self::NoProtocols(_) => Some(Reason::CONNECT_ERROR),
            Self::TimedOut(_) => Some(Reason::CANCEL),
        }
    }
}

/// An answer's head and body, and the exchange that they come from.
pub(super) struct Sent {
    pub(super) response: Response<Inbound>,
    pub(super) upstream: Upstream,
}

/// What became of a request.
#[expect(clippy::large_enum_variant, reason = "made once a request, and nearly always the large")]
pub(super) enum Outcome {
    Answered(Sent),
    /// CONNECT from a client of HTTP/2, to an endpoint that speaks HTTP/1.
    Bridge(Box<Bridge>),
}

/// A tunnel to be made between a stream and a connection of HTTP/1.
pub(super) struct Bridge {
    pub(super) endpoint: SocketAddr,
    pub(super) load: Load,
    pub(super) request: Request<PrimaryBody>,
}

/// An exchange with an endpoint.
pub(super) struct Upstream {
    pub(super) endpoint: SocketAddr,
    pub(super) line: Line,
    /// The request will never be whole: the exchange ends with its answer.
    pub(super) abandoned: bool,
    /// When the answer must be whole.
    pub(super) deadline: Option<Instant>,
    /// Counts the exchange towards its endpoint while it lasts.
    _load: Load,
}

/// What carries an exchange.
pub(super) enum Line {
    /// A connection of its own (HTTP/1).
    Single(Single),
    /// A stream of a connection that others use as well (HTTP/2).
    Share(Share),
}

impl Upstream {
    pub(super) fn new(endpoint: SocketAddr, line: Line, load: Load) -> Self {
        Self { endpoint, line, abandoned: false, deadline: None, _load: load }
    }

    /// Whether the connection was reset (RST, not FIN).
    pub(super) fn was_reset(&self) -> bool {
        match &self.line {
            Line::Single(single) => single.connection.was_reset(),
            Line::Share(share) => share.wire().was_reset(),
        }
    }
}

/// What came of an attempt.
enum Tried {
    Answered(Response<Inbound>, Line),
    /// The endpoint answered the preface of HTTP/2 with HTTP/1, and has seen nothing of the
    /// request; or the request needs a bridge to HTTP/1.
    SpeaksHttp1(Box<Request<PrimaryBody>>),
    Missed(Miss),
}

/// An attempt that came to nothing.
struct Miss {
    failure: Failure,
    /// The request, where it may be sent again.
    again: Option<(Box<Request<PrimaryBody>>, RetryReason)>,
}

impl Miss {
    fn last(failure: Failure) -> Self {
        Self { failure, again: None }
    }

    fn again(failure: Failure, request: Request<PrimaryBody>, reason: RetryReason) -> Self {
        Self { failure, again: Some((Box::new(request), reason)) }
    }
}

/// The primary leg's state in one worker.
#[derive(Default)]
pub(super) struct Primary {
    pool: Pool,
    roll: Roll,
    balancer: Balancer,
}

/// What there is to know of a request besides itself.
#[derive(Clone, Copy)]
pub(super) struct Errand<'a> {
    pub(super) ctx: &'a Context,
    pub(super) client: &'a Workload,
    pub(super) shares: &'a Shares,
    pub(super) to: &'a Destination,
    pub(super) interim: &'a Interim,
    /// The answer goes to a client of HTTP/1.1, and nobody here wants its fields.
    pub(super) unread: bool,
    pub(super) limits: Limits,
    pub(super) progress: &'a Rc<Progress>,
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
}

/// One attempt at it.
struct Attempt<'a> {
    errand: Errand<'a>,
    endpoint: SocketAddr,
    /// A pooled connection has just failed: take a new one.
    fresh: bool,
}

impl Primary {
    /// Sends the request and waits for the answer's head.
    ///
    /// # Errors
    /// [`Failure`]; the request may then have reached the primary only if it says `Lost`.
    pub(super) async fn send(
        &self,
        errand: Errand<'_>,
        mut request: Request<PrimaryBody>,
    ) -> Result<Outcome, Failure> {
        let Errand { ctx, to, .. } = errand;
        let version = request.version();
        let mut failed: Vec<SocketAddr> = Vec::new();
        let mut failure = Failure::NoEndpoint;
        let mut fresh = false;
        let mut again = None;
        for _ in 0..ATTEMPTS {
            let Some((endpoint, load)) = self.pick(to, ctx.draw(), &failed) else { break };
            if let Some(reason) = again.take() {
                ctx.recorder.retry(reason);
            }
            let attempt = Attempt { errand, endpoint, fresh };
            let deadline = errand.limits.deadline();
            let trying = self.attempt(&attempt, version, request);
            let tried = match deadline {
                None => trying.await,
                Some(at) => timeout_at(at.into(), trying)
                    .await
                    .unwrap_or_else(|_| Tried::Missed(Miss::last(Failure::TimedOut(endpoint)))),
            };
            let miss = match tried {
                Tried::Answered(response, line) => {
                    let upstream = Upstream { deadline, ..Upstream::new(endpoint, line, load) };
                    return Ok(Outcome::Answered(Sent { response, upstream }));
                }
                Tried::SpeaksHttp1(request) => {
                    let bridge = Bridge { endpoint, load, request: *request };
                    return Ok(Outcome::Bridge(Box::new(bridge)));
                }
                Tried::Missed(miss) => miss,
            };
            failure = miss.failure;
            let Some((back, reason)) = miss.again else { break };
            request = *back;
            match reason {
                RetryReason::Connect => failed.push(endpoint),
                RetryReason::Unsent | RetryReason::Unanswered => fresh = true,
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
        request: Request<PrimaryBody>,
    ) -> Tried {
        let protocols = &attempt.errand.ctx.protocols;
        let stated = attempt.errand.to.protocol();
        let request = match protocols.of(stated, version, attempt.endpoint) {
            Speaks::Http1 => request,
            Speaks::Http2 => match attempt.errand.shares.attempt(attempt, request).await {
                Tried::SpeaksHttp1(request) => {
                    protocols.is_http1(attempt.endpoint);
                    *request
                }
                tried => return tried,
            },
        };
        if version == Version::HTTP_2 && *request.method() == Method::CONNECT {
            return Tried::SpeaksHttp1(Box::new(request));
        }
        match http1::attempt(&self.pool, attempt, request).await {
            Ok((response, single)) => Tried::Answered(response, Line::Single(single)),
            Err(miss) => Tried::Missed(miss),
        }
    }

    /// One endpoint, and not one of `failed`.
    pub(super) fn pick(
        &self,
        to: &Destination,
        draw: u64,
        failed: &[SocketAddr],
    ) -> Option<(SocketAddr, Load)> {
        self.balancer.pick(to.endpoints(), draw, failed)
    }

    /// The exchange came to its end: its connection may carry another.
    pub(super) fn keep(&self, upstream: Upstream) {
        if upstream.abandoned {
            return;
        }
        match upstream.line {
            Line::Single(single) => self.pool.put(upstream.endpoint, single),
            Line::Share(share) => share.finish(),
        }
    }

    /// Closes what has idled too long.
    pub(super) fn sweep(&self) {
        self.pool.sweep();
        self.roll.sweep();
        self.balancer.sweep();
    }

    /// Closes the idle connections inside a workload's network namespace, and those that streams
    /// share.
    pub(super) fn leave(&self, workload: u64) {
        self.pool.leave(workload);
        self.roll.leave(workload);
    }
}

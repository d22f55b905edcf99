//! The primary leg: one request to one endpoint, and the answer's head back.
//!
//! In: a request whose body may feed copies as a side effect. Out: [`Sent`], or a [`Failure`]
//! that speaks of the primary alone. Retries only what cannot have been executed, or may be twice.

mod answer;
mod balance;
mod body;
mod connect;
mod pool;

use std::{io, net::SocketAddr, rc::Rc, sync::Arc};

use http::{Method, Request, Response};
use hyper::{body::Incoming, client::conn::http1::SendRequest};

pub(super) use self::{
    answer::AnswerBody,
    balance::Load,
    body::{PrimaryBody, Progress},
    connect::{builder, open, transport},
};
use self::{balance::Balancer, pool::Pool};
use super::{context::Context, io::WireState};
use crate::{outcome::RetryReason, route::Backend, worker::Workload};

/// How many endpoints are tried before the request fails.
pub(super) const ATTEMPTS: usize = 3;

/// Where a request goes.
#[derive(Clone, Debug)]
pub(super) enum Destination {
    /// A backend of the rule that matched.
    Backend(Arc<Backend>),
    /// No route holds any more: the address that the client asked for.
    Original(SocketAddr),
}

impl Destination {
    fn endpoints(&self) -> &[SocketAddr] {
        match self {
            Self::Backend(backend) => &backend.endpoints,
            Self::Original(address) => std::slice::from_ref(address),
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
    #[error("{0} ended the connection before an answer: {1}")]
    Lost(SocketAddr, hyper::Error),
}

/// An answer's head, and the connection that its body comes from.
pub(super) struct Sent {
    pub(super) response: Response<Incoming>,
    pub(super) upstream: Upstream,
}

/// A connection to an endpoint, held for one exchange.
pub(super) struct Upstream {
    pub(super) endpoint: SocketAddr,
    pub(super) wire: Rc<WireState>,
    workload: u64,
    sender: SendRequest<PrimaryBody>,
    reused: bool,
    /// Counts the exchange towards its endpoint while it lasts.
    _load: Load,
}

/// The primary leg's state in one worker.
#[derive(Default)]
pub(super) struct Primary {
    pool: Pool,
    balancer: Balancer,
}

impl Primary {
    /// Sends the request and waits for the answer's head.
    ///
    /// # Errors
    /// [`Failure`]; the request may then have reached the primary only if it says `Lost`.
    pub(super) async fn send(
        &self,
        ctx: &Context,
        client: &Workload,
        to: &Destination,
        mut request: Request<PrimaryBody>,
    ) -> Result<Sent, Failure> {
        let mut failed: Vec<SocketAddr> = Vec::new();
        let mut failure = Failure::NoEndpoint;
        let mut fresh = false;
        let mut again = None;
        for _ in 0..ATTEMPTS {
            let draw = ctx.draw();
            let Some((endpoint, load)) = self.balancer.pick(to.endpoints(), draw, &failed) else {
                break;
            };
            if let Some(reason) = again.take() {
                ctx.recorder.retry(reason);
            }
            let repeatable = is_repeatable(&request);
            let pooled =
                if fresh { None } else { self.pool.take(client.key, endpoint, !repeatable) };
            let reused = pooled.is_some();
            let opened = match pooled {
                Some(idle) => Ok(idle),
                None => open(ctx, &client.place, endpoint).await,
            };
            let (sender, wire) = match opened {
                Ok(opened) => opened,
                Err(error) => {
                    failed.push(endpoint);
                    failure = Failure::Connect(endpoint, error);
                    again = Some(RetryReason::Connect);
                    continue;
                }
            };
            let workload = client.key;
            let mut upstream = Upstream { endpoint, wire, workload, sender, reused, _load: load };
            match upstream.exchange(request).await {
                Ok(response) => return Ok(Sent { response, upstream }),
                Err((Lost::Taken, error)) => return Err(Failure::Lost(endpoint, error)),
                Err((Lost::Repeatable(back, reason), error)) => {
                    request = *back;
                    fresh = reused;
                    again = Some(reason);
                    failure = Failure::Lost(endpoint, error);
                }
            }
        }
        Err(failure)
    }

    /// One endpoint, and not one of `failed`, for an exchange with a connection of its own.
    pub(super) fn pick(
        &self,
        to: &Destination,
        draw: u64,
        failed: &[SocketAddr],
    ) -> Option<(SocketAddr, Load)> {
        self.balancer.pick(to.endpoints(), draw, failed)
    }

    /// Keeps the connection for the next request, once its exchange is over.
    pub(super) fn keep(&self, upstream: Upstream) {
        self.pool.put(upstream.workload, upstream.endpoint, upstream.sender, upstream.wire);
    }

    /// Closes what has idled too long.
    pub(super) fn sweep(&self) {
        self.pool.sweep();
        self.balancer.sweep();
    }

    /// Closes the idle connections inside a workload's network namespace.
    pub(super) fn leave(&self, workload: u64) {
        self.pool.leave(workload);
    }
}

enum Lost {
    /// Not a byte was executed, or all may be executed twice: send it again.
    Repeatable(Box<Request<PrimaryBody>>, RetryReason),
    /// The primary may have acted on it.
    Taken,
}

impl Upstream {
    /// A new connection for one exchange.
    pub(super) fn new(
        endpoint: SocketAddr,
        wire: Rc<WireState>,
        workload: u64,
        sender: SendRequest<PrimaryBody>,
        load: Load,
    ) -> Self {
        Self { endpoint, wire, workload, sender, reused: false, _load: load }
    }

    /// Sends one request, without a second try.
    ///
    /// # Errors
    /// [`Failure::Lost`].
    pub(super) async fn ask(
        &mut self,
        request: Request<PrimaryBody>,
    ) -> Result<Response<Incoming>, Failure> {
        let endpoint = self.endpoint;
        self.sender.send_request(request).await.map_err(|error| Failure::Lost(endpoint, error))
    }

    async fn exchange(
        &mut self,
        request: Request<PrimaryBody>,
    ) -> Result<Response<Incoming>, (Lost, hyper::Error)> {
        let spare = (self.reused && is_repeatable(&request)).then(|| repeat(&request));
        let before = self.wire.read.get();
        match self.sender.try_send_request(request).await {
            Ok(response) => Ok(response),
            Err(mut error) => {
                let lost = match (error.take_message(), spare) {
                    (Some(unsent), _) => Lost::Repeatable(Box::new(unsent), RetryReason::Unsent),
                    (None, Some(spare)) if self.wire.read.get() == before => {
                        Lost::Repeatable(Box::new(spare), RetryReason::Unanswered)
                    }
                    _ => Lost::Taken,
                };
                Err((lost, error.into_error()))
            }
        }
    }
}

/// RFC 9110, sections 9.2.1 and 9.2.2: executed twice, it does what it does once.
fn is_repeatable(request: &Request<PrimaryBody>) -> bool {
    let safe =
        matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE);
    safe && matches!(request.body(), PrimaryBody::Empty)
}

fn repeat(request: &Request<PrimaryBody>) -> Request<PrimaryBody> {
    let mut again = Request::new(PrimaryBody::Empty);
    *again.method_mut() = request.method().clone();
    *again.uri_mut() = request.uri().clone();
    *again.version_mut() = request.version();
    *again.headers_mut() = request.headers().clone();
    *again.extensions_mut() = request.extensions().clone();
    again
}

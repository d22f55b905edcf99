//! An attempt by HTTP/1: on a connection of the pool, or on a new one.

use std::rc::Rc;

use http::{Method, Request, Response};
use hyper::{body::Body as _, client::conn::http1::SendRequest};

use super::{Attempt, Failure, Miss, PrimaryBody, connect::open, pool::Pool};
use crate::{
    outcome::RetryReason,
    proxy::{dress, inbound::Inbound, io::WireState},
};

/// A connection, held for one exchange.
pub(in crate::proxy) struct Single {
    pub(in crate::proxy) wire: Rc<WireState>,
    /// Of the workload whose network namespace the socket is in.
    pub(super) workload: u64,
    pub(super) sender: SendRequest<PrimaryBody>,
    reused: bool,
}

impl Single {
    /// A new connection, or one of the pool.
    pub(in crate::proxy) fn new(
        wire: Rc<WireState>,
        workload: u64,
        sender: SendRequest<PrimaryBody>,
        reused: bool,
    ) -> Self {
        Self { wire, workload, sender, reused }
    }

    /// Sends one request, without a second try.
    ///
    /// # Errors
    /// What hyper says.
    pub(in crate::proxy) async fn ask(
        &mut self,
        request: Request<PrimaryBody>,
    ) -> Result<Response<Inbound>, hyper::Error> {
        self.sender.send_request(request).await.map(|response| response.map(Inbound::Http1))
    }
}

/// Sends the request once.
pub(super) async fn attempt(
    pool: &Pool,
    attempt: &Attempt<'_>,
    request: Request<PrimaryBody>,
) -> Result<(Response<Inbound>, Single), Miss> {
    let Attempt { errand, endpoint, fresh } = *attempt;
    let (ctx, client) = (errand.ctx, errand.client);
    let careful = !is_repeatable(&request);
    let pooled = if fresh { None } else { pool.take(client.key, endpoint, careful) };
    let mut single = match pooled {
        Some(idle) => idle,
        // Boxed, as all that is rare: the future of each request is as large as its largest part.
        None => match Box::pin(open(ctx, &client.place, endpoint)).await {
            Ok((sender, wire)) => Single::new(wire, client.key, sender, false),
            Err(error) => {
                let failure = Failure::Connect(endpoint, error);
                return Err(Miss::again(failure, request, RetryReason::Connect));
            }
        },
    };
    let mut request = dressed(request);
    errand.interim.listen(&mut request);
    let spare = (single.reused && is_repeatable(&request)).then(|| repeat(&request));
    let before = single.wire.read.get();
    match single.sender.try_send_request(request).await {
        Ok(response) => Ok((response.map(Inbound::Http1), single)),
        Err(mut error) => {
            let unsent = error.take_message();
            let failure = Failure::Lost(endpoint, error.into_error().into());
            Err(match (unsent, spare) {
                (Some(unsent), _) => Miss::again(failure, unsent, RetryReason::Unsent),
                (None, Some(spare)) if single.wire.read.get() == before => {
                    Miss::again(failure, spare, RetryReason::Unanswered)
                }
                _ => Miss::last(failure),
            })
        }
    }
}

fn dressed(request: Request<PrimaryBody>) -> Request<PrimaryBody> {
    let (mut head, body) = request.into_parts();
    dress::for_http1(&mut head, body.is_end_stream());
    Request::from_parts(head, body)
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

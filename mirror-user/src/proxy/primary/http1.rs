//! An attempt by HTTP/1: on an idle connection of the same client, or on a new one.

use std::rc::Rc;

use http::{HeaderValue, Method, Response, header, request, response};
use hyper::body::Body as _;
use tokio::{net::TcpStream, task::AbortHandle};

use super::{Attempt, AttemptError, Failure, PrimaryRequest, Upstreams, upstreams::Open};
use crate::{
    outcome::RetryReason,
    proxy::{
        body::{IncomingBody, PrimaryBody},
        http1::{ClientConnection, Persistence, SendError},
        interim::Interim,
        normalize, time_slices,
    },
};

/// A connection, held for one exchange. Dropped before its end, the connection is closed.
#[derive(Debug)]
pub(in crate::proxy) struct ConnectionLease {
    pub(in crate::proxy) connection: Rc<ClientConnection<PrimaryBody>>,
    /// Sends the rest of a request that is answered already.
    sending: Option<AbortHandle>,
    reused: bool,
    /// Counts it among its client's.
    _open: Open,
}

impl ConnectionLease {
    /// A new connection.
    pub(in crate::proxy) fn new(stream: TcpStream, upstreams: &Upstreams) -> Self {
        let connection = ClientConnection::charged(stream, upstreams.memory());
        let open = upstreams.enter();
        Self { connection, sending: None, reused: false, _open: open }
    }

    /// Sends one request, without a second try. A body that nothing was asked of comes back with
    /// the error.
    ///
    /// # Errors
    /// As [`ClientConnection::send`].
    pub(in crate::proxy) async fn send(
        &mut self,
        head: &mut request::Parts,
        body: PrimaryBody,
        unread: bool,
        interim: &Interim,
    ) -> Result<Response<IncomingBody>, (SendError, Option<PrimaryBody>)> {
        let on_interim = |head: &response::Parts| {
            interim.forward(head.status, &head.headers, &head.extensions);
        };
        let sent = self.connection.send(head, body, unread, on_interim);
        let response = sent.await?;
        if self.connection.is_sending() {
            // The response is passed on at its client's pace, the request at the primary's.
            let connection = Rc::clone(&self.connection);
            let rest = time_slices::spawn(async move { connection.send_rest().await });
            self.sending = Some(rest.abort_handle());
        }
        Ok(response.map(IncomingBody::Response))
    }

    pub(super) fn reuse(mut self) -> Self {
        self.reused = true;
        self
    }
}

impl Drop for ConnectionLease {
    fn drop(&mut self) {
        if let Some(sending) = &self.sending {
            sending.abort();
        }
    }
}

/// Sends the request once.
pub(super) async fn attempt(
    attempt: &Attempt<'_>,
    request: PrimaryRequest,
) -> Result<(Response<IncomingBody>, ConnectionLease), AttemptError> {
    let Attempt { primary, request_context, endpoint, fresh } = *attempt;
    let (client, upstreams) = (request_context.client, request_context.upstreams);
    let repeatable = is_repeatable(&request);
    let idle = if fresh { None } else { upstreams.take(endpoint, !repeatable) };
    let mut lease = match idle {
        Some(idle) => idle,
        // Boxed, as all that is rare: the future of each request is as large as its largest part.
        None => {
            match Box::pin(primary.connect_socket(client, request_context.socket, endpoint)).await {
                Ok(stream) => ConnectionLease::new(stream, upstreams),
                Err(error) => {
                    let failure = Failure::Connect(endpoint, error);
                    return Err(AttemptError::again(failure, request, RetryReason::Connect));
                }
            }
        }
    };
    request_context.progress.connected.set(true);
    let PrimaryRequest { mut head, body } = request;
    normalize::for_http1(&mut head, body.is_end_stream());
    if let Some(persistence) = head.extensions.get::<Persistence>() {
        // The server is to close first, as it would: the port of whoever does is taken for a minute.
        let upgrades = head.headers.contains_key(header::UPGRADE);
        let options = match (persistence, upgrades) {
            (Persistence::Close, false) => "close",
            (Persistence::Close, true) => "close, Upgrade",
            (Persistence::KeepAlive, false) => "keep-alive",
            (Persistence::KeepAlive, true) => "keep-alive, Upgrade",
        };
        head.headers.insert(header::CONNECTION, HeaderValue::from_static(options));
    }
    let (error, body) =
        match lease.send(&mut head, body, request_context.unread, request_context.interim).await {
            Ok(response) => return Ok((response, lease)),
            Err(failed) => failed,
        };
    let SendError { error, unsent, silent } = error;
    if error.is_malformed() {
        return Err(AttemptError::last(Failure::Unreadable(endpoint, error, Box::new(lease))));
    }
    let failure = Failure::Lost(endpoint, error.into());
    let reason = match (unsent, lease.reused && silent && repeatable) {
        (true, _) => RetryReason::Unsent,
        (false, true) => RetryReason::NoResponse,
        (false, false) => return Err(AttemptError::last(failure)),
    };
    Err(match body {
        Some(body) => AttemptError::again(failure, PrimaryRequest { head, body }, reason),
        None => AttemptError::last(failure),
    })
}

/// RFC 9110, sections 9.2.1 and 9.2.2: executed twice, it does what it does once.
fn is_repeatable(request: &PrimaryRequest) -> bool {
    let safe =
        matches!(request.head.method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE);
    safe && matches!(request.body, PrimaryBody::Empty)
}

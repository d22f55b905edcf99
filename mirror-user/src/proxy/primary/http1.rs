//! An attempt by HTTP/1: on a connection of the pool, or on a new one.

use std::rc::Rc;

use http::{Method, Request, Response, request, response};
use hyper::body::Body as _;
use tokio::{
    net::TcpStream,
    task::{AbortHandle, spawn_local},
};

use super::{Attempt, Failure, Miss, PrimaryBody, connect::transport, pool::Pool};
use crate::{
    outcome::RetryReason,
    proxy::{
        dress,
        http1::{Connection, Unanswered},
        inbound::Inbound,
        interim::Interim,
    },
};

/// A connection, held for one exchange. Dropped before its end, the connection is closed.
pub(in crate::proxy) struct Single {
    pub(in crate::proxy) connection: Rc<Connection<PrimaryBody>>,
    /// Of the workload whose network namespace the socket is in.
    pub(super) workload: u64,
    /// Sends the rest of a request that is answered already.
    sending: Option<AbortHandle>,
    reused: bool,
}

impl Single {
    /// A new connection.
    pub(in crate::proxy) fn new(stream: TcpStream, workload: u64) -> Self {
        let connection = Connection::new(stream);
        Self { connection, workload, sending: None, reused: false }
    }

    /// Sends one request, without a second try. A body that nothing was asked of comes back with
    /// the error.
    ///
    /// # Errors
    /// As [`Connection::send`].
    pub(in crate::proxy) async fn ask(
        &mut self,
        head: &mut request::Parts,
        body: PrimaryBody,
        unread: bool,
        interim: &Interim,
    ) -> Result<Response<Inbound>, (Unanswered, Option<PrimaryBody>)> {
        let told = |told: &response::Parts| {
            interim.tell(told.status, &told.headers, &told.extensions);
        };
        let sent = self.connection.send(head, body, unread, told);
        let response = sent.await?;
        if self.connection.is_sending() {
            // The answer is passed on at its client's pace, the request at the primary's.
            let connection = Rc::clone(&self.connection);
            let rest = spawn_local(async move { connection.send_rest().await });
            self.sending = Some(rest.abort_handle());
        }
        Ok(response.map(Inbound::Answer))
    }

    pub(super) fn reuse(mut self) -> Self {
        self.reused = true;
        self
    }
}

impl Drop for Single {
    fn drop(&mut self) {
        if let Some(sending) = &self.sending {
            sending.abort();
        }
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
    let repeatable = is_repeatable(&request);
    let pooled = if fresh { None } else { pool.take(client.key, endpoint, !repeatable) };
    let mut single = match pooled {
        Some(idle) => idle,
        // Boxed, as all that is rare: the future of each request is as large as its largest part.
        None => match Box::pin(transport(ctx, &client.place, endpoint)).await {
            Ok(stream) => Single::new(stream, client.key),
            Err(error) => {
                let failure = Failure::Connect(endpoint, error);
                return Err(Miss::again(failure, request, RetryReason::Connect));
            }
        },
    };
    let (mut head, body) = request.into_parts();
    dress::for_http1(&mut head, body.is_end_stream());
    let (unanswered, body) = match single.ask(&mut head, body, errand.unread, errand.interim).await
    {
        Ok(response) => return Ok((response, single)),
        Err(failed) => failed,
    };
    let Unanswered { error, unsent, silent } = unanswered;
    let failure = Failure::Lost(endpoint, error.into());
    let reason = match (unsent, single.reused && silent && repeatable) {
        (true, _) => RetryReason::Unsent,
        (false, true) => RetryReason::Unanswered,
        (false, false) => return Err(Miss::last(failure)),
    };
    Err(match body {
        Some(body) => Miss::again(failure, Request::from_parts(head, body), reason),
        None => Miss::last(failure),
    })
}

/// RFC 9110, sections 9.2.1 and 9.2.2: executed twice, it does what it does once.
fn is_repeatable(request: &Request<PrimaryBody>) -> bool {
    let safe =
        matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE);
    safe && matches!(request.body(), PrimaryBody::Empty)
}

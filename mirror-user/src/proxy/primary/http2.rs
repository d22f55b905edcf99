//! An attempt by HTTP/2: a stream of a connection that belongs to one connection of a client. No
//! other client shares it: a stream whose body the primary does not read uses up the connection's
//! window, which would hold up others that have a connection of their own without us. There is one
//! for each endpoint, as without us: at the primary's limit of streams, streams wait for it.

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
    task,
    time::Duration,
};

use h2::Reason;
use http::Response;

use super::{Attempt, AttemptError, AttemptOutcome, Failure, PrimaryRequest, Transport};
use crate::{
    hash::FastHashMap,
    outcome::RetryReason,
    proxy::{
        body::{IncomingBody, PrimaryBody, Progress},
        http2::{
            GoAway, Http2Pool, MultiplexedConnection, OpenError, Purpose, RequestStream, Slot,
            SocketState, Watcher, is_unseen, receive_response,
        },
        normalize,
    },
};

/// The connections to primaries that belong to a connection of a client, by endpoint.
#[derive(Default)]
pub(in crate::proxy) struct ClientPools {
    pools: RefCell<FastHashMap<SocketAddr, Rc<Http2Pool>>>,
    /// The last sweep of the worker that those that have ended were looked for after.
    swept: Cell<u64>,
    /// Wakes the client's task.
    watcher: Rc<Watcher>,
    /// Tells that the client's connection lives.
    owner: Rc<()>,
}

/// A stream, held for one exchange. Dropped before its end, it is reset as the client's was.
pub(in crate::proxy) struct StreamLease {
    stream: RequestStream<PrimaryBody>,
    progress: Rc<Progress>,
}

impl StreamLease {
    pub(super) fn socket_state(&self) -> Rc<SocketState> {
        Rc::clone(&self.stream.slot().connection().socket_state)
    }

    pub(super) fn finish(mut self) {
        self.stream.finish();
    }
}

impl Drop for StreamLease {
    fn drop(&mut self) {
        self.stream.reset(self.progress.reset.get().unwrap_or(Reason::CANCEL));
    }
}

impl ClientPools {
    /// Whether no connection is open or being opened.
    pub(super) fn is_empty(&self) -> bool {
        self.pools.borrow().values().all(|pool| pool.len() == 0)
    }

    /// Has the client's task woken when a connection has ended, or been shown to live.
    pub(in crate::proxy) fn watch(&self, cx: &task::Context<'_>) {
        self.watcher.watch(cx);
    }

    /// The one connection that has not ended, if there is just one.
    pub(in crate::proxy) fn only(&self) -> Option<Rc<MultiplexedConnection>> {
        let pools = self.pools.borrow();
        let mut living = pools.values().flat_map(|pool| pool.living());
        let only = living.next()?;
        let opens = pools.values().any(|pool| pool.is_opening());
        (living.next().is_none() && !opens).then_some(only)
    }

    /// The end of the connection that there was, if it was to one endpoint.
    pub(in crate::proxy) fn end(&self) -> Option<GoAway> {
        let pools = self.pools.borrow();
        let mut pools = pools.values();
        let only = pools.next()?;
        if pools.next().is_none() { only.end() } else { None }
    }

    /// Sends the request once.
    pub(super) async fn attempt(
        &self,
        attempt: &Attempt<'_>,
        request: PrimaryRequest,
    ) -> AttemptOutcome {
        let endpoint = attempt.endpoint;
        let slot = match self.slot(attempt).await {
            Ok(slot) => slot,
            Err(OpenError::Http1) => return AttemptOutcome::SpeaksHttp1(request),
            Err(error) => {
                let error = match error {
                    OpenError::Io(error) => error,
                    other => std::io::Error::other(other),
                };
                let failure = Failure::Connect(endpoint, error);
                return AttemptOutcome::Failed(AttemptError::again(
                    failure,
                    request,
                    RetryReason::Connect,
                ));
            }
        };
        let extended = request.head.extensions.get::<h2::ext::Protocol>().is_some();
        if extended && !slot.connection().takes_protocols() {
            return AttemptOutcome::Failed(AttemptError::last(Failure::NoProtocols(endpoint)));
        }
        match exchange(slot, attempt, request).await {
            Ok((response, lease)) => AttemptOutcome::Response(response, Transport::Http2(lease)),
            Err(error) => AttemptOutcome::Failed(error),
        }
    }

    async fn slot(&self, attempt: &Attempt<'_>) -> Result<Slot, OpenError> {
        let (primary, client, endpoint) =
            (attempt.primary, attempt.request_context.client, attempt.endpoint);
        let pool = {
            let mut pools = self.pools.borrow_mut();
            if self.swept.replace(primary.sweeps.get()) != primary.sweeps.get() {
                pools.retain(|_, pool| pool.sweep(Duration::MAX) || Rc::strong_count(pool) > 1);
            }
            Rc::clone(pools.entry(endpoint).or_default())
        };
        let patience = primary.parts.connect_timeout;
        let open = async || {
            let opened = Box::pin(async {
                let stream = primary
                    .connect_socket(client, attempt.request_context.socket, endpoint)
                    .await?;
                let memory = Some(Rc::clone(attempt.request_context.upstreams.memory()));
                let watcher = Rc::clone(&self.watcher);
                let purpose = Purpose { watcher, memory, ..Purpose::default() };
                MultiplexedConnection::open(stream, patience, purpose).await
            });
            let opened = opened.await?;
            primary.registry.enter(client.key, &self.owner, &opened.socket_state);
            Ok(opened)
        };
        pool.turn(open).await
    }
}

async fn exchange(
    slot: Slot,
    attempt: &Attempt<'_>,
    request: PrimaryRequest,
) -> Result<(Response<IncomingBody>, StreamLease), AttemptError> {
    let endpoint = attempt.endpoint;
    let sender = match slot.ready().await {
        Ok(sender) => sender,
        Err(error) => {
            tracing::debug!(%endpoint, %error, "a connection takes no more streams");
            return Err(AttemptError::again(
                Failure::Refused(endpoint),
                request,
                RetryReason::Refused,
            ));
        }
    };
    attempt.request_context.progress.connected.set(true);
    let PrimaryRequest { mut head, body } = request;
    // Taken apart for the wire: what may be sent again is kept.
    let spare = matches!(body, PrimaryBody::Empty).then(|| head.clone());
    let head = match normalize::for_http2(&mut head) {
        Ok(head) => head,
        Err(malformed) => {
            return Err(AttemptError::last(Failure::InvalidHead(endpoint, malformed)));
        }
    };
    let again = |failure| match &spare {
        Some(head) => {
            let request = PrimaryRequest { head: head.clone(), body: PrimaryBody::Empty };
            AttemptError::again(failure, request, RetryReason::Refused)
        }
        None => AttemptError::last(failure),
    };
    let (stream, response) = match RequestStream::open(slot, sender, head, body).await {
        Ok(opened) => opened,
        Err(error) => return Err(AttemptError::last(Failure::Lost(endpoint, error.into()))),
    };
    let lease = StreamLease { stream, progress: Rc::clone(attempt.request_context.progress) };
    match receive_response(response, attempt.request_context.interim).await {
        Ok(response) => {
            let response = {
                let (head, stream) = response.into_parts();
                let body = IncomingBody::response(stream, &head.headers);
                Response::from_parts(head, body)
            };
            Ok((response, lease))
        }
        Err(error) if is_unseen(&error) => {
            if error.is_go_away() {
                lease.stream.slot().connection().retire();
            }
            Err(again(Failure::Refused(endpoint)))
        }
        Err(error) => Err(AttemptError::last(Failure::Lost(endpoint, error.into()))),
    }
}

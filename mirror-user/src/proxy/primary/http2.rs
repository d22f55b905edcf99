//! An attempt by HTTP/2: a stream of a connection that belongs to one connection of a client. No
//! other client shares it: a stream whose body the primary does not read uses up the connection's
//! window, which would hold up others that have a connection of their own without us.

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
    time::Duration,
};

use h2::Reason;
use http::{Request, Response};

use super::{Attempt, Failure, Line, Miss, PrimaryBody, Progress, Tried, connect::transport};
use crate::{
    outcome::RetryReason,
    proxy::{
        dress,
        http2::{Connection, OpenError, Pool, Slot, Stream, answer, is_unseen},
        inbound::Inbound,
        io::WireState,
        maps::QuickMap,
    },
};

/// Longest time without a stream; looked at when the client sends a request, at most once in a sweep
/// of the worker. The client's own
/// connection may idle as long as it likes, and a server that closes an idle one says GOAWAY.
const IDLE: Duration = Duration::from_secs(60);

/// The connections to primaries that belong to a connection of a client, by endpoint.
#[derive(Default)]
pub(in crate::proxy) struct Shares {
    pools: RefCell<QuickMap<SocketAddr, Rc<Pool>>>,
    /// The last sweep of the worker that idle ones were looked for after.
    swept: Cell<u64>,
    /// Tells that the client's connection lives.
    owner: Rc<()>,
}

/// A stream, held for one exchange. Dropped before its end, it is reset as the client's was.
pub(in crate::proxy) struct Share {
    stream: Stream<PrimaryBody>,
    progress: Rc<Progress>,
}

impl Share {
    pub(super) fn wire(&self) -> Rc<WireState> {
        Rc::clone(&self.stream.slot().connection().wire)
    }

    pub(super) fn finish(mut self) {
        self.stream.finish();
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.stream.reset(self.progress.reset.get().unwrap_or(Reason::CANCEL));
    }
}

impl Shares {
    /// Sends the request once.
    pub(super) async fn attempt(
        &self,
        attempt: &Attempt<'_>,
        request: Request<PrimaryBody>,
    ) -> Tried {
        let endpoint = attempt.endpoint;
        let slot = match self.slot(attempt).await {
            Ok(slot) => slot,
            Err(OpenError::Http1) => return Tried::SpeaksHttp1(Box::new(request)),
            Err(error) => {
                let error = match error {
                    OpenError::Io(error) => error,
                    other => std::io::Error::other(other),
                };
                let failure = Failure::Connect(endpoint, error);
                return Tried::Missed(Miss::again(failure, request, RetryReason::Connect));
            }
        };
        let extended = request.extensions().get::<h2::ext::Protocol>().is_some();
        if extended && !slot.connection().takes_protocols() {
            return Tried::Missed(Miss::last(Failure::NoProtocols(endpoint)));
        }
        match exchange(slot, attempt, request).await {
            Ok((response, share)) => Tried::Answered(response, Line::Share(share)),
            Err(miss) => Tried::Missed(miss),
        }
    }

    async fn slot(&self, attempt: &Attempt<'_>) -> Result<Slot, OpenError> {
        let (ctx, client, endpoint) = (attempt.errand.ctx, attempt.errand.client, attempt.endpoint);
        let pool = {
            let mut pools = self.pools.borrow_mut();
            if self.swept.replace(ctx.sweeps()) != ctx.sweeps() {
                pools.retain(|_, pool| pool.sweep(IDLE) || Rc::strong_count(pool) > 1);
            }
            Rc::clone(pools.entry(endpoint).or_default())
        };
        let patience = ctx.options.connect_timeout;
        let open = async || {
            let opened = Box::pin(async {
                let stream = transport(ctx, &client.place, endpoint).await?;
                Connection::open(stream, patience).await
            });
            let opened = opened.await?;
            ctx.primary.roll.enter(client.key, &self.owner, &opened.wire);
            Ok(opened)
        };
        pool.slot(open).await
    }
}

async fn exchange(
    slot: Slot,
    attempt: &Attempt<'_>,
    request: Request<PrimaryBody>,
) -> Result<(Response<Inbound>, Share), Miss> {
    let endpoint = attempt.endpoint;
    let sender = match slot.ready().await {
        Ok(sender) => sender,
        Err(error) => {
            tracing::debug!(%endpoint, %error, "a connection takes no more streams");
            return Err(Miss::again(Failure::Refused(endpoint), request, RetryReason::Refused));
        }
    };
    let (mut head, body) = request.into_parts();
    // Taken apart for the wire: what may be sent again is kept.
    let spare = matches!(body, PrimaryBody::Empty).then(|| head.clone());
    let head = match dress::for_http2(&mut head) {
        Ok(head) => head,
        Err(malformed) => return Err(Miss::last(Failure::Unfit(endpoint, malformed))),
    };
    let again = |failure| match &spare {
        Some(head) => {
            let request = Request::from_parts(head.clone(), PrimaryBody::Empty);
            Miss::again(failure, request, RetryReason::Refused)
        }
        None => Miss::last(failure),
    };
    let (stream, response) = match Stream::open(slot, sender, head, body).await {
        Ok(opened) => opened,
        Err(error) => return Err(Miss::last(Failure::Lost(endpoint, error.into()))),
    };
    let share = Share { stream, progress: Rc::clone(attempt.errand.progress) };
    match answer(response, attempt.errand.interim).await {
        Ok(response) => {
            let response = {
                let (head, stream) = response.into_parts();
                let body = Inbound::answer(stream, &head.headers);
                Response::from_parts(head, body)
            };
            Ok((response, share))
        }
        Err(error) if is_unseen(&error) => {
            if error.is_go_away() {
                share.stream.slot().connection().retire();
            }
            Err(again(Failure::Refused(endpoint)))
        }
        Err(error) => Err(Miss::last(Failure::Lost(endpoint, error.into()))),
    }
}

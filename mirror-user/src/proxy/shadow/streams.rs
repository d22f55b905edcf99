//! Copies on streams: one connection of HTTP/2 to a shadow carries many. In: a copy, and room on a
//! connection or the wish for some. Out: an outcome. All copies of a lane share a task; one that is cut or
//! late resets its stream and leaves the others alone.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    task::Poll,
    time::{Duration, Instant},
};

use h2::{Reason, RecvStream};
use http::{Response, request};
use hyper::body::Body as _;
use tokio::time::timeout_at;

use super::{
    copy::{Copy, CopyBody, Watch},
    head::SingleHead,
    lane::Lane,
    outcome::{self, Taken, sent, timed_out},
};
use crate::{
    outcome::{CopyOutcome, DropReason, UnknownReason},
    proxy::{
        dress,
        http2::{Connection, OpenError, Slot, Stream, answer, is_unseen},
        interim::Interim,
    },
};

/// Connections to an endpoint; a copy beyond their streams is dropped.
pub(super) const CONNECTIONS: usize = 4;

/// Copies that a connection carries: nginx says GOAWAY after 1,000 requests, and a copy with content
/// that it then has not looked at cannot be sent again.
pub(super) const LIFE: u64 = 900;

/// How often a copy may move that the shadow has not looked at.
const MOVES: u8 = 3;

/// Carries one copy; `slot` is None while no connection has room.
pub(super) async fn run(lane: Rc<Lane>, slot: Option<Slot>, copy: Copy<request::Parts>) {
    let slot = match slot {
        Some(slot) => Ok(slot),
        None => lane.room().await,
    };
    match slot {
        Ok(slot) => carry(&lane, slot, copy).await,
        Err(OpenError::Http1) => {
            if let Some(ctx) = copy.ticket.context() {
                ctx.protocols.is_http1(lane.endpoint);
            }
            let whole = copy.body.is_end_stream();
            lane.take_single(copy.map(|head| SingleHead::from_http2(head, whole)));
        }
        Err(OpenError::Full) => {
            copy.ticket.settle(CopyOutcome::Dropped(DropReason::Connections), 0);
        }
        Err(OpenError::Io(error)) => {
            tracing::debug!(endpoint = %lane.endpoint, %error, "cannot connect to a shadow");
            lane.reached(false);
            let late = error.kind() == std::io::ErrorKind::TimedOut;
            let reason = if late { DropReason::ConnectTimeout } else { DropReason::Connect };
            copy.ticket.settle(CopyOutcome::Dropped(reason), 0);
        }
    }
}

/// A new connection, within the time that connecting may take.
pub(super) async fn open(lane: &Lane) -> Result<Rc<Connection>, OpenError> {
    let patience = lane.options.connect_timeout;
    let deadline = Instant::now() + patience;
    let connect = async {
        let socket = lane.sockets.stream(&lane.place, lane.endpoint.is_ipv6())?;
        socket.set_nodelay(true)?;
        socket.connect(lane.endpoint).await
    };
    let stream = timeout_at(deadline.into(), connect).await.map_err(std::io::Error::from)??;
    let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    let opened = Connection::open(stream, left).await?;
    lane.reached(true);
    Ok(opened)
}

async fn carry(lane: &Rc<Lane>, slot: Slot, copy: Copy<request::Parts>) {
    let Ok(sender) = slot.ready().await else {
        drop(slot);
        return again(lane, copy);
    };
    let Copy { mut head, body, ticket, charge, moves } = copy;
    let spare = body.is_end_stream().then(|| head.clone());
    let Ok(request) = dress::for_http2(&mut head) else {
        return ticket.settle(CopyOutcome::Dropped(DropReason::Unfit), 0);
    };
    let deadline = lane.fleet.deadline(lane.options.response_timeout);
    let watch = body.watch();
    let wire = Rc::clone(&slot.connection().wire);
    let before = wire.written.get();
    let (mut stream, response) = match Stream::open(slot, sender, request, body).await {
        Ok(opened) => opened,
        Err(error) => {
            tracing::debug!(endpoint = %lane.endpoint, %error, "a copy that HTTP/2 cannot carry");
            return ticket.settle(CopyOutcome::Dropped(DropReason::Unfit), 0);
        }
    };
    let answered = match within(lane, &watch, deadline, answer(response, &Interim::Ignore)).await {
        Ok(answered) => Some(answered),
        Err(Stop::Late) => None,
        Err(Stop::Cut(reason)) => {
            return ticket.settle(CopyOutcome::Dropped(reason), watch.taken());
        }
    };
    let outcome = match answered {
        Some(Ok(response)) => {
            drop(charge);
            let open = ticket.settle_if_whole(&watch);
            let in_time = finish(lane, &mut stream, response, &watch, deadline).await;
            if let Some(ticket) = open {
                ticket.settle(outcome::answered(&watch, in_time), watch.taken());
            }
            return;
        }
        Some(Err(error)) if is_unseen(&error) => {
            if error.is_go_away() {
                stream.slot().connection().retire();
            }
            if let Some(head) = spare {
                let body = CopyBody::empty();
                return again(lane, Copy { head, body, ticket, charge, moves });
            }
            CopyOutcome::Dropped(DropReason::ShadowClosed)
        }
        Some(Err(error)) => {
            lane.answered(false);
            let malformed = error.is_library() && !error.is_io();
            let unknown = if malformed { UnknownReason::Malformed } else { UnknownReason::Closed };
            let any = wire.written.get() > before;
            sent(Taken { any, refused: wire.write_failed() }, &watch, unknown)
        }
        None => timed_out(&watch),
    };
    ticket.settle(outcome, watch.taken());
}

/// Why a copy is not waited for any longer.
enum Stop {
    Cut(DropReason),
    Late,
}

/// Waits for `work`, until the copy is cut, or late.
async fn within<F: Future>(
    lane: &Lane,
    watch: &Watch,
    deadline: Instant,
    work: F,
) -> Result<F::Output, Stop> {
    let mut work = pin!(work);
    poll_fn(|cx| {
        if let Poll::Ready(done) = work.as_mut().poll(cx) {
            return Poll::Ready(Ok(done));
        }
        if lane.fleet.is_past(deadline) {
            return Poll::Ready(Err(Stop::Late));
        }
        watch.poll_cut(cx).map(|reason| Err(Stop::Cut(reason)))
    })
    .await
}

/// The shadow has not looked at the copy: it may go to another connection.
fn again(lane: &Rc<Lane>, mut copy: Copy<request::Parts>) {
    if copy.moves >= MOVES {
        return copy.ticket.settle(CopyOutcome::Dropped(DropReason::ShadowClosed), 0);
    }
    copy.moves += 1;
    lane.take_stream(copy);
}

/// Reads the answer to its end and drops it, and waits for the rest of the copy to be sent. False
/// when it was cut, or time ran out.
async fn finish(
    lane: &Lane,
    stream: &mut Stream<CopyBody>,
    response: Response<RecvStream>,
    watch: &Watch,
    deadline: Instant,
) -> bool {
    let mut body = response.into_body();
    let rest = async {
        while let Some(data) = body.data().await {
            let Ok(data) = data else { return false };
            if body.flow_control().release_capacity(data.len()).is_err() {
                return false;
            }
        }
        let whole = body.trailers().await.is_ok();
        if whole {
            // A shadow that answers and does not read on is not to keep what the copy holds.
            stream.sent().await;
        }
        whole
    };
    let whole = within(lane, watch, deadline, rest).await;
    match whole {
        Ok(whole) => {
            lane.answered(whole);
            if whole {
                stream.finish();
            }
        }
        Err(_) => stream.reset(Reason::CANCEL),
    }
    whole.is_ok()
}

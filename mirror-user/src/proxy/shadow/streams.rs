//! Copies on streams: one connection of HTTP/2 to a shadow carries many. In: a copy, and room on a
//! connection, or none yet. Out: an outcome. All copies of a pool share a task; one that is cut or
//! late resets its stream and leaves the others alone.

use std::{
    cell::Cell,
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
    accounting::OutcomeGuard,
    copy::Copy,
    endpoint_pool::EndpointPool,
    head::Http1Head,
    outcome::{self, BytesWritten, sent, timed_out},
};
use crate::{
    heartbeat::BEAT,
    outcome::{CopyOutcome, DropReason, UnknownReason},
    proxy::{
        http2::{
            MultiplexedConnection, OpenError, Purpose, RequestStream, SHADOW_STREAMS, Slot,
            is_unseen, receive_response,
        },
        interim::Interim,
        mirrored::grpc_status,
        normalize,
        read_limit::{ConnectionMode, RECEIVE_BUFFER, ReadLimit},
        tee::{CopyBody, CopyStatus},
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
pub(super) async fn run(pool: Rc<EndpointPool>, slot: Option<Slot>, copy: Copy<request::Parts>) {
    let slot = match slot {
        Some(slot) => Ok(slot),
        None => pool.stream().await,
    };
    match slot {
        Ok(slot) => send_copy(&pool, slot, copy).await,
        Err(OpenError::Http1) => {
            pool.protocols.is_http1(pool.endpoint);
            let whole = copy.body.is_end_stream();
            pool.dispatch_http1(copy.map(|head| Http1Head::from_http2(head, whole)));
        }
        Err(OpenError::Full) => {
            copy.guard.settle(CopyOutcome::Dropped(DropReason::Connections), 0);
        }
        Err(OpenError::Io(error)) => {
            tracing::debug!(endpoint = %pool.endpoint, %error, "cannot connect to a shadow");
            pool.health.record_connect(false);
            let timed_out = error.kind() == std::io::ErrorKind::TimedOut;
            let reason = if timed_out { DropReason::ConnectTimeout } else { DropReason::Connect };
            copy.guard.settle(CopyOutcome::Dropped(reason), 0);
        }
    }
}

/// A new connection, within the time that connecting may take.
pub(super) async fn open(pool: &EndpointPool) -> Result<Rc<MultiplexedConnection>, OpenError> {
    let patience = pool.options.connect_timeout;
    let deadline = Instant::now() + patience;
    let connect = async {
        let socket = pool.sockets.stream(&pool.netns, pool.endpoint.is_ipv6())?;
        socket.set_nodelay(true)?;
        socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
        socket.connect(pool.endpoint).await
    };
    let stream = timeout_at(deadline.into(), connect).await.map_err(std::io::Error::from)??;
    let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    let limit = Some(ReadLimit::new(&pool.reads, ConnectionMode::Streams));
    let purpose = Purpose { most: Some(SHADOW_STREAMS), limit, ..Purpose::default() };
    let opened = MultiplexedConnection::open(stream, left, purpose).await?;
    pool.health.record_connect(true);
    Ok(opened)
}

async fn send_copy(pool: &Rc<EndpointPool>, slot: Slot, copy: Copy<request::Parts>) {
    let Ok(sender) = slot.ready().await else {
        drop(slot);
        return resend(pool, copy);
    };
    let Copy { mut head, body, guard, charge, moves } = copy;
    let spare = body.is_end_stream().then(|| head.clone());
    let Ok(request) = normalize::for_http2(&mut head) else {
        return guard.settle(CopyOutcome::Dropped(DropReason::Unfit), 0);
    };
    let deadline = Cell::new(pool.http2_copies.deadline(pool.options.response_timeout));
    let status = body.status();
    let socket = Rc::clone(&slot.connection().socket_state);
    let (before, since) = (socket.written.get(), Instant::now());
    let _pending = socket.limit.as_ref().map(ReadLimit::expect_response);
    let (mut stream, response) = match RequestStream::open(slot, sender, request, body).await {
        Ok(opened) => opened,
        Err(error) => {
            tracing::debug!(endpoint = %pool.endpoint, %error, "a copy that HTTP/2 cannot carry");
            return guard.settle(CopyOutcome::Dropped(DropReason::Unfit), 0);
        }
    };
    let response = receive_response(response, &Interim::Ignore);
    let outcome = match within(pool, &status, &deadline, response).await {
        Ok(Ok(response)) => {
            drop(charge);
            let after = since.elapsed();
            return take_response(pool, &mut stream, response, (&status, &deadline), guard, after)
                .await;
        }
        Ok(Err(error)) if is_unseen(&error) => {
            if error.is_go_away() {
                stream.slot().connection().retire();
            }
            if let Some(head) = spare {
                let body = CopyBody::empty();
                return resend(pool, Copy { head, body, guard, charge, moves });
            }
            CopyOutcome::Dropped(DropReason::ShadowClosed)
        }
        Ok(Err(error)) => {
            let flood = socket.limit.as_ref().is_some_and(|limit| limit.exceeded().is_some());
            if !flood {
                pool.health.record_response(false);
            }
            let any = socket.written.get() > before;
            let taken = BytesWritten { any, refused: socket.write_failed() };
            sent(taken, &status, unknown(&error, flood))
        }
        Err(Stop::Late) => timed_out(&status),
        Err(Stop::Cut(reason)) => CopyOutcome::Dropped(reason),
    };
    guard.settle(outcome, status.taken());
}

/// The head of the response is there, `after` so long: counts it, and reads the rest.
async fn take_response(
    pool: &EndpointPool,
    stream: &mut RequestStream<CopyBody>,
    response: Response<RecvStream>,
    (status, deadline): (&CopyStatus, &Cell<Instant>),
    guard: OutcomeGuard,
    after: Duration,
) {
    let observer = guard.observer();
    let (code, in_head) = (response.status().as_u16(), grpc_status(response.headers()));
    let open = guard.settle_if_whole(status);
    let (in_time, in_trailers) = finish(pool, stream, response, status, deadline).await;
    if let Some(observer) = observer {
        observer.responded(code, in_head.or(in_trailers), after);
    }
    if let Some(guard) = open {
        guard.settle(outcome::responded(status, in_time), status.taken());
    }
}

/// Why nothing is known of a copy whose stream ended without a response. `flood`: its connection was closed
/// for what the shadow sent.
fn unknown(error: &h2::Error, flood: bool) -> UnknownReason {
    let malformed = error.is_library() && !error.is_io();
    match (flood, malformed) {
        (true, _) => UnknownReason::Flood,
        (false, true) => UnknownReason::Malformed,
        (false, false) => UnknownReason::Closed,
    }
}

/// Why a copy is not waited for any longer.
enum Stop {
    Cut(DropReason),
    Late,
}

/// Waits for `work`, until the copy is cut, or late.
async fn within<F: Future>(
    pool: &EndpointPool,
    status: &CopyStatus,
    deadline: &Cell<Instant>,
    work: F,
) -> Result<F::Output, Stop> {
    let mut work = pin!(work);
    poll_fn(|cx| {
        if let Poll::Ready(done) = work.as_mut().poll(cx) {
            return Poll::Ready(Ok(done));
        }
        if is_timed_out(pool, status, deadline) {
            return Poll::Ready(Err(Stop::Late));
        }
        status.poll_cut(cx).map(|reason| Err(Stop::Cut(reason)))
    })
    .await
}

/// Whether the deadline has passed, counted from when the shadow alone is waited for.
fn is_timed_out(pool: &EndpointPool, status: &CopyStatus, deadline: &Cell<Instant>) -> bool {
    if !pool.http2_copies.is_past(deadline.get()) {
        return false;
    }
    let Some(since) = status.waits_since() else { return true };
    deadline.set(since + pool.options.response_timeout + BEAT);
    pool.http2_copies.is_past(deadline.get())
}

/// The shadow has not looked at the copy: it may go to another connection.
fn resend(pool: &Rc<EndpointPool>, mut copy: Copy<request::Parts>) {
    if copy.moves >= MOVES {
        return copy.guard.settle(CopyOutcome::Dropped(DropReason::ShadowClosed), 0);
    }
    copy.moves += 1;
    pool.dispatch_http2(copy);
}

/// Reads the response to its end and drops it, and waits for the rest of the copy to be sent. False
/// when it was cut, or time ran out; and the `grpc-status` of its trailers.
async fn finish(
    pool: &EndpointPool,
    stream: &mut RequestStream<CopyBody>,
    response: Response<RecvStream>,
    status: &CopyStatus,
    deadline: &Cell<Instant>,
) -> (bool, Option<u16>) {
    let mut body = response.into_body();
    let limit = stream.slot().connection().socket_state.limit.clone();
    let (mut length, mut code) = (0, None);
    let rest = async {
        while let Some(data) = body.data().await {
            let Ok(data) = data else { return false };
            length += data.len();
            if limit.as_ref().is_some_and(|limit| limit.is_cut_off(length)) {
                return false;
            }
            if body.flow_control().release_capacity(data.len()).is_err() {
                return false;
            }
        }
        let trailers = body.trailers().await;
        code = trailers.as_ref().ok().and_then(|fields| grpc_status(fields.as_ref()?));
        let whole = trailers.is_ok();
        if whole {
            // A shadow that answers and does not read on is not to keep what the copy holds.
            stream.sent().await;
        }
        whole
    };
    let whole = within(pool, status, deadline, rest).await;
    match whole {
        Ok(whole) => {
            // One that was cut off here has answered all the same.
            let cut_off =
                limit.is_some_and(|limit| limit.is_long(length) || limit.exceeded().is_some());
            pool.health.record_response(whole || cut_off);
            if whole {
                stream.finish();
            }
        }
        Err(_) => stream.reset(Reason::CANCEL),
    }
    (whole.is_ok(), code)
}

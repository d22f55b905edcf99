//! A carrier: one connection to a shadow, in one task. It carries one copy at a time, and the
//! next only when the answer was framed to its end without a close: pipelined copies are lost
//! whenever a server closes (nginx after 1,000 requests, gunicorn's sync worker after each).

use std::{
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    rc::Rc,
    task::Poll,
    time::Duration,
};

use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::{
    body::{Body as _, Incoming},
    client::conn::http1::{Builder, Connection, SendRequest},
};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, timeout, timeout_at};

use super::{
    copy::{Copy, CopyBody, Watch},
    lane::{Lane, Opened},
    outcome::{answered, sent, timed_out},
};
use crate::{
    outcome::{CopyOutcome, DropReason, UnknownReason},
    proxy::{
        dress,
        io::{UpstreamIo, WireState},
    },
};

/// Largest head of a shadow's answer, and most bytes of a copy that hyper holds, in bytes.
const BUFFER: usize = 64 * 1024;

/// How often a copy may come back unsent from a connection that was just closed.
const MOVES: u8 = 3;

/// Connects, carries `first`, then what the lane hands it, until the connection ends; and makes
/// room for copies that wait.
pub(super) async fn run(opened: Opened, first: Copy) {
    let lane = Rc::clone(opened.lane());
    carry_all(opened, first).await;
    lane.relieve();
}

async fn carry_all(opened: Opened, first: Copy) {
    let lane = Rc::clone(opened.lane());
    let (mut sender, mut line, wire) = match open(&lane).await {
        Ok(connected) => connected,
        Err(reason) => {
            lane.reached(false);
            return first.ticket.settle(CopyOutcome::Dropped(reason), 0);
        }
    };
    lane.reached(true);
    let mut copy = first;
    loop {
        let carried = carry(&mut sender, &wire, copy, lane.options.response_timeout);
        match line.drive(carried).await {
            Some(Fate::Next) => lane.answered(true),
            Some(Fate::Back(copy)) => {
                drop(opened);
                return lane.take(*copy);
            }
            Some(Fate::Last) => return lane.answered(true),
            Some(Fate::Broken) => return lane.answered(false),
            Some(Fate::Ended) | None => return,
        }
        if lane.is_awaited() && !wire.is_quiet() {
            return;
        }
        let next = match lane.next() {
            Some(next) => Some(next),
            None => line.drive(lane.park(&wire)).await.flatten(),
        };
        match next {
            Some(next) => copy = next,
            None => return,
        }
    }
}

async fn open(lane: &Lane) -> Result<(SendRequest<CopyBody>, Line, Rc<WireState>), DropReason> {
    let connected = timeout(lane.options.connect_timeout, connect(lane)).await;
    match connected {
        Err(_) => Err(DropReason::ConnectTimeout),
        Ok(Err(error)) => {
            tracing::debug!(endpoint = %lane.endpoint, %error, "cannot connect to a shadow");
            Err(DropReason::Connect)
        }
        Ok(Ok(connected)) => Ok(connected),
    }
}

async fn connect(lane: &Lane) -> io::Result<(SendRequest<CopyBody>, Line, Rc<WireState>)> {
    let socket = lane.sockets.stream(&lane.place, lane.endpoint.is_ipv6())?;
    socket.set_nodelay(true)?;
    let stream = socket.connect(lane.endpoint).await?;
    let (io, wire) = UpstreamIo::new(stream);
    let (sender, connection) = Builder::new()
        .preserve_header_case(true)
        .max_headers(1000)
        .max_buf_size(BUFFER)
        .writev(true)
        .handshake(TokioIo::new(io))
        .await
        .map_err(io::Error::other)?;
    Ok((sender, Line(Some(Box::pin(connection))), wire))
}

/// What becomes of the connection.
enum Fate {
    /// The answer is whole; it may carry another copy.
    Next,
    /// It took no byte of the copy, which may go to another.
    Back(Box<Copy>),
    /// The answer is whole, and the last one.
    Last,
    /// The shadow ended it before the answer's end.
    Broken,
    /// We ended it: the copy was cut, or took too long.
    Ended,
}

async fn carry(
    sender: &mut SendRequest<CopyBody>,
    wire: &WireState,
    copy: Copy,
    response_timeout: Duration,
) -> Fate {
    let Copy { mut head, body, ticket, charge, moves, speaks } = copy;
    dress::for_http1(&mut head, body.is_end_stream());
    let deadline = Instant::now() + response_timeout;
    let watch = body.watch();
    let before = wire.written.get();
    let asked = sender.try_send_request(Request::from_parts(head, body));
    let asked = tokio::select! {
        biased;
        asked = timeout_at(deadline, asked) => asked,
        reason = watch.cut() => {
            ticket.settle(CopyOutcome::Dropped(reason), watch.taken());
            wire.abort();
            return Fate::Ended;
        }
    };
    let (outcome, fate) = match asked {
        Ok(Ok(response)) => {
            drop(charge);
            let open = ticket.settle_if_whole(&watch);
            let fate = finish(sender, response, &watch, deadline).await;
            if let Some(ticket) = open {
                ticket.settle(answered(&watch, fate.is_some()), watch.taken());
            }
            return fate.unwrap_or_else(|| {
                wire.abort();
                Fate::Ended
            });
        }
        Ok(Err(mut error)) => match error.take_message() {
            Some(request) if moves < MOVES => {
                let (head, body) = request.into_parts();
                let moves = moves + 1;
                return Fate::Back(Box::new(Copy { head, body, ticket, charge, moves, speaks }));
            }
            _ => lost(wire, &watch, before, error.error().is_parse()),
        },
        Err(_) => {
            wire.abort();
            (timed_out(&watch), Fate::Ended)
        }
    };
    ticket.settle(outcome, watch.taken());
    fate
}

/// The connection ended without an answer: what that says of the copy.
fn lost(wire: &WireState, watch: &Watch, before: u64, malformed: bool) -> (CopyOutcome, Fate) {
    let fate = if watch.cut_reason().is_some() { Fate::Ended } else { Fate::Broken };
    let unknown = if malformed { UnknownReason::Malformed } else { UnknownReason::Closed };
    (sent(wire, watch, before, unknown), fate)
}

/// Reads the answer to its end and drops it, and waits for the rest of the copy to be sent. None
/// when it was cut, or time ran out.
async fn finish(
    sender: &mut SendRequest<CopyBody>,
    response: Response<Incoming>,
    watch: &Watch,
    deadline: Instant,
) -> Option<Fate> {
    let rest = async {
        let mut body = response.into_body();
        while let Some(frame) = body.frame().await {
            if frame.is_err() {
                return Fate::Broken;
            }
        }
        if sender.ready().await.is_ok() { Fate::Next } else { Fate::Last }
    };
    tokio::select! {
        biased;
        fate = timeout_at(deadline, rest) => fate.ok(),
        _ = watch.cut() => None,
    }
}

type Wired = Connection<TokioIo<UpstreamIo>, CopyBody>;

/// hyper's half of the connection; None once it ended.
struct Line(Option<Pin<Box<Wired>>>);

impl Line {
    /// Runs the connection beside `work`; None when it ended and left the work undone.
    async fn drive<F: Future>(&mut self, work: F) -> Option<F::Output> {
        let mut work = pin!(work);
        poll_fn(|cx| {
            if let Poll::Ready(done) = work.as_mut().poll(cx) {
                return Poll::Ready(Some(done));
            }
            let Some(connection) = &mut self.0 else { return Poll::Ready(None) };
            let ended = connection.as_mut().poll(cx).is_ready();
            if ended {
                self.0 = None;
            }
            match work.as_mut().poll(cx) {
                Poll::Ready(done) => Poll::Ready(Some(done)),
                Poll::Pending if ended => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }
}

//! A carrier: one connection of HTTP/1 to a shadow, in one task. Copies without content may follow
//! each other before the first is answered (see [`Pipeline`]); any other has the connection for
//! itself, and the next is carried only when its answer was framed to its end without a close.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    rc::Rc,
    task::Poll,
    time::{Duration, Instant},
};

use http::Response;
use hyper::body::Body as _;
use tokio::time::{sleep, timeout};

use super::{
    copy::{Copy, CopyBody, Watch},
    head::SingleHead,
    lane::{Lane, Opened},
    outcome::{Taken, answered, sent, timed_out},
    pipeline::{self, Pipeline},
    post::{Order, Post},
};
use crate::{
    outcome::{CopyOutcome, DropReason, UnknownReason},
    proxy::http1::{AnswerContent, Connection, Unanswered},
};

/// How long a new connection is left alone before a copy that waits is taken up: a server that closes
/// after each answer without having said so does it now.
const SETTLING: Duration = Duration::from_millis(5);

/// A connection to a shadow.
pub(super) type Wired = Connection<CopyBody>;

/// Connects, carries `first`, then what the lane hands over, until the connection ends; and makes
/// room for copies that wait.
pub(super) async fn run(opened: Opened, first: Copy<SingleHead>) {
    let lane = Rc::clone(opened.lane());
    carry_all(opened, first).await;
    lane.relieve();
}

async fn carry_all(opened: Opened, first: Copy<SingleHead>) {
    let lane = Rc::clone(opened.lane());
    let connection = match open(&lane).await {
        Ok(connected) => connected,
        Err(reason) => {
            lane.reached(false);
            return first.ticket.settle(CopyOutcome::Dropped(reason), 0);
        }
    };
    lane.reached(true);
    let post = lane.enter(Post::new(connection));
    post.enter(&first, Instant::now());
    let (mut copy, mut taken) = (first, 0);
    loop {
        let fate = if copy.head.printed.is_whole() {
            let mut pipeline = Pipeline::new(&lane, &post, copy, taken);
            let fate = poll_fn(|cx| pipeline.poll(cx)).await;
            taken = pipeline.taken();
            match fate {
                pipeline::Fate::Next => Fate::Next,
                pipeline::Fate::Over => Fate::Ended,
            }
        } else {
            taken += 1;
            carry(&post, copy).await
        };
        match fate {
            Fate::Next => lane.answered(true),
            Fate::Last => return lane.answered(true),
            Fate::Broken => return lane.answered(false),
            Fate::Ended => return,
        }
        match next(&lane, &post).await {
            Order::Carry(next) => copy = next,
            Order::Close => return,
        }
    }
}

/// What an idle connection is to do: a copy that waits goes before one that comes.
async fn next(lane: &Lane, post: &Rc<Post>) -> Order {
    if lane.is_awaited() {
        if !post.is_proven() {
            sleep(SETTLING).await;
        }
        if !post.connection.is_quiet() {
            return Order::Close;
        }
        if let Some(copy) = lane.next() {
            post.enter(&copy, Instant::now());
            return Order::Carry(copy);
        }
    }
    lane.park(post);
    poll_fn(|cx| {
        let order = post.poll(cx.waker());
        if order.is_pending() && post.connection.poll_over(cx).is_ready() {
            lane.unpark(post);
            return Poll::Ready(Order::Close);
        }
        order
    })
    .await
}

async fn open(lane: &Lane) -> Result<Rc<Wired>, DropReason> {
    match timeout(lane.options.connect_timeout, connect(lane)).await {
        Err(_) => Err(DropReason::ConnectTimeout),
        Ok(Err(error)) => {
            tracing::debug!(endpoint = %lane.endpoint, %error, "cannot connect to a shadow");
            Err(DropReason::Connect)
        }
        Ok(Ok(connected)) => Ok(connected),
    }
}

async fn connect(lane: &Lane) -> io::Result<Rc<Wired>> {
    let socket = lane.sockets.stream(&lane.place, lane.endpoint.is_ipv6())?;
    socket.set_nodelay(true)?;
    Ok(Connection::new(socket.connect(lane.endpoint).await?))
}

/// What becomes of the connection.
enum Fate {
    /// The answer is whole; it may carry another copy.
    Next,
    /// The answer is whole, and the last one.
    Last,
    /// The shadow ended it before the answer's end.
    Broken,
    /// It is over, and the lane knows how.
    Ended,
}

/// Carries a copy with content.
async fn carry(post: &Post, copy: Copy<SingleHead>) -> Fate {
    let connection = &post.connection;
    let Copy { head, body, ticket, charge, .. } = copy;
    let watch = body.watch();
    let before = connection.written();
    let asked = connection.send_printed(&head.printed, body);
    let asked = tokio::select! {
        biased;
        asked = asked => Some(asked),
        () = late(post) => None,
        reason = watch.cut() => {
            ticket.settle(CopyOutcome::Dropped(reason), watch.taken());
            connection.abort();
            return Fate::Ended;
        }
    };
    let (outcome, fate) = match asked {
        Some(Ok(response)) => {
            drop(charge);
            let open = ticket.settle_if_whole(&watch);
            let fate = finish(post, response, &watch).await;
            post.answered(None);
            if let Some(ticket) = open {
                ticket.settle(answered(&watch, fate.is_some()), watch.taken());
            }
            return fate.unwrap_or_else(|| {
                connection.abort();
                Fate::Ended
            });
        }
        Some(Err((unanswered, _))) => lost(connection, &watch, before, &unanswered),
        None => {
            connection.abort();
            (timed_out(&watch), Fate::Ended)
        }
    };
    ticket.settle(outcome, watch.taken());
    fate
}

/// The connection ended without an answer: what that says of the copy.
fn lost(
    connection: &Wired,
    watch: &Watch,
    before: u64,
    unanswered: &Unanswered,
) -> (CopyOutcome, Fate) {
    let fate = if watch.cut_reason().is_some() { Fate::Ended } else { Fate::Broken };
    let malformed = unanswered.error.is_malformed();
    let unknown = if malformed { UnknownReason::Malformed } else { UnknownReason::Closed };
    let taken = Taken { any: connection.written() > before, refused: connection.write_failed() };
    (sent(taken, watch, unknown), fate)
}

/// Reads the answer to its end and drops it, and sends the rest of the copy. None when it was cut,
/// or time ran out.
async fn finish(
    post: &Post,
    response: Response<AnswerContent<CopyBody>>,
    watch: &Watch,
) -> Option<Fate> {
    let connection = &post.connection;
    let mut body = response.into_body();
    if body.is_end_stream() && !connection.is_sending() {
        return Some(fate(connection));
    }
    let rest = async {
        let (whole, ()) = tokio::join!(read(&mut body), connection.send_rest());
        if whole { fate(connection) } else { Fate::Broken }
    };
    tokio::select! {
        biased;
        fate = rest => Some(fate),
        () = late(post) => None,
        _ = watch.cut() => None,
    }
}

/// Waits until the lane's sweep finds that the copy has taken too long: no copy has a timer of its
/// own.
async fn late(post: &Post) {
    poll_fn(|cx| {
        if post.is_late() {
            return Poll::Ready(());
        }
        post.listen(cx.waker());
        Poll::Pending
    })
    .await;
}

/// Of a connection that has carried a copy and its answer.
fn fate(connection: &Wired) -> Fate {
    if connection.persists() { Fate::Next } else { Fate::Last }
}

/// Reads and drops; whether it came to its end.
async fn read(body: &mut AnswerContent<CopyBody>) -> bool {
    loop {
        match poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await {
            None => return true,
            Some(Ok(_)) => {}
            Some(Err(_)) => return false,
        }
    }
}

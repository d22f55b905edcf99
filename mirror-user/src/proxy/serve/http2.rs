//! One connection of HTTP/2. In: a stream and the bytes sniffed. Out: requests to the exchange,
//! many at a time, all in the connection's own task, and the connection's end.
//!
//! A primary whose connection ends takes the client's with it when nothing else is under way, as it
//! would without us: clients tell that end from a reset stream (gRPC calls one UNAVAILABLE and the
//! other INTERNAL). Beside other streams only those that are lost are reset. Where the primary has said
//! why (GOAWAY with a code), the client is told the same: one of gRPC learns from it to send fewer PINGs.

mod pings;
mod stream;

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    rc::Rc,
    task::{self, Poll},
    time::Duration,
};

use bytes::Bytes;
use h2::{
    Reason, RecvStream,
    server::{Builder, Connection, SendResponse, Unaccepted},
};
use http::Request;
use tokio::{
    net::TcpStream,
    time::{Sleep, sleep, timeout},
};

use self::{pings::Pings, stream::Orphan};
use super::clock::HeadClock;
use crate::proxy::{
    client::Client,
    close::{self, CloseMode},
    context::Context,
    http2::{
        BufferLimit, BufferedBytes, CANCELLED_STREAMS, CLIENT_STREAMS, CLIENT_WINDOW, GoAway,
        HEAD_LIMIT, LimitChange, SEND_BUFFER, UNREAD_STREAMS, WINDOW, connection_window,
    },
    refusal,
    task_set::TaskSet,
};
use crate::{outcome::RefusalReason, proxy::http2::FramedIo};

/// What a connection takes beside an idle one of HTTP/1, with what it may hold without asking, in bytes.
const SERVED: usize = 48 * 1024;

/// What a stream takes beside its head, in bytes.
const STREAM: usize = 10 * 1024;

/// Streams of a connection that are refused one after the other for want of memory before the connection
/// is ended.
const REFUSED: u32 = 128;

/// What a client may send ahead on a connection at most, in bytes.
const WINDOW_LIMIT: u32 = connection_window(CLIENT_WINDOW, UNREAD_STREAMS);

/// How long streams that lost their primary wait for others that did so too.
const GATHER: Duration = Duration::from_millis(5);

/// Serves the connection to its end.
pub(in crate::proxy) async fn serve(
    ctx: Rc<Context>,
    client: Rc<Client>,
    stream: TcpStream,
    first: Bytes,
) {
    // The h2 crate keeps its socket to itself; this one is for the end.
    let _held = client.memory.held(SERVED);
    let spare = socket2::SockRef::from(&stream).try_clone();
    let (io, block) = FramedIo::new(stream, first);
    let hello = builder().handshake(io);
    let end = match timeout(ctx.options.head_timeout, hello).await {
        Ok(Ok(connection)) => run(&ctx, &client, connection, &block).await,
        Ok(Err(error)) => {
            tracing::debug!(client = %client.workload.name, %error, "no connection of HTTP/2");
            refuse(&ctx, &client, &error);
            ConnectionEnd::Over
        }
        Err(_) => {
            let why = "the client's SETTINGS did not come in time";
            refusal::connection(&ctx, &client, RefusalReason::HeadTimeout, &why);
            ConnectionEnd::Over
        }
    };
    let Ok(Ok(stream)) = spare.map(|spare| TcpStream::from_std(spare.into())) else { return };
    match (end, client.ends.take()) {
        (ConnectionEnd::Orphaned, Some(CloseMode::Reset)) => close::reset(stream),
        // Our last word (GOAWAY) is to arrive though the client still sends.
        _ => close::linger(stream).await,
    }
}

/// The connection broke: where our side ended it, that is told.
fn refuse(ctx: &Context, client: &Client, error: &h2::Error) {
    if let Some(refusal) = refusal::of_http2(error) {
        refusal::connection(ctx, client, refusal, error);
    }
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder
        .initial_window_size(CLIENT_WINDOW)
        .initial_connection_window_size(CLIENT_WINDOW)
        // It follows the window otherwise, which begins small: streams that all send small frames at
        // once, as gRPC does, would end their connection. What the frames take is bounded by `BufferLimit`.
        .data_frame_budget(WINDOW_LIMIT as usize / 2)
        .max_concurrent_streams(CLIENT_STREAMS)
        .max_pending_accept_reset_streams(CANCELLED_STREAMS)
        .max_header_list_size(HEAD_LIMIT)
        .max_send_buffer_size(SEND_BUFFER)
        .enable_connect_protocol();
    builder
}

/// How the connection ended.
enum ConnectionEnd {
    Over,
    /// Its streams lost their primary.
    Orphaned,
}

/// Streams that lost their primary, and when it is decided what becomes of them.
#[derive(Default)]
struct Orphans {
    streams: Vec<Orphan>,
    decide: Option<Pin<Box<Sleep>>>,
}

impl Orphans {
    fn push(&mut self, orphan: Orphan) {
        self.streams.push(orphan);
        self.decide.get_or_insert_with(|| Box::pin(sleep(GATHER)));
    }

    fn poll_gathered(&mut self, cx: &mut task::Context<'_>) -> Poll<()> {
        match &mut self.decide {
            Some(clock) => clock.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }

    fn reset(&mut self) {
        self.decide = None;
        self.streams.drain(..).for_each(|orphan| orphan.reset(Reason::INTERNAL_ERROR));
    }
}

/// A connection that is served.
struct ConnectionDriver<'a> {
    ctx: &'a Rc<Context>,
    client: &'a Rc<Client>,
    /// Dropped before the connection: what it carried ends with it.
    streams: TaskSet<Option<Orphan>>,
    connection: Connection<FramedIo, Bytes>,
    /// Streams that were told of and never accepted.
    unaccepted: Unaccepted,
    pings: Pings,
    buffer_limit: Rc<BufferLimit>,
    /// Streams that were refused since one was accepted.
    refused: u32,
    /// It has been told that there is no room.
    short: bool,
    orphans: Orphans,
    /// It takes no more streams.
    closing: bool,
    /// On a header block that does not come to its end, until one was late.
    clock: Option<HeadClock>,
    block: &'a Cell<Option<std::time::Instant>>,
}

async fn run(
    ctx: &Rc<Context>,
    client: &Rc<Client>,
    connection: Connection<FramedIo, Bytes>,
    block: &Cell<Option<std::time::Instant>>,
) -> ConnectionEnd {
    let (streams, unaccepted, orphans, pings, closing) = Default::default();
    let (buffer_limit, refused, short) = (BufferLimit::new(&client.memory, WINDOW), 0, false);
    let clock = Some(HeadClock::default());
    let mut driver = ConnectionDriver {
        ctx,
        client,
        streams,
        connection,
        unaccepted,
        pings,
        buffer_limit,
        refused,
        short,
        orphans,
        closing,
        clock,
        block,
    };
    pings::hold_back(&mut driver.connection);
    driver.allow(driver.buffer_limit.limit());
    let mut drained = pin!(ctx.drained());
    let mut draining = false;
    poll_fn(|cx| {
        if !draining && drained.as_mut().poll(cx).is_ready() {
            draining = true;
            driver.closing = true;
            driver.connection.graceful_shutdown();
        }
        driver.poll(cx)
    })
    .await
}

impl ConnectionDriver<'_> {
    fn poll(&mut self, cx: &mut task::Context<'_>) -> Poll<ConnectionEnd> {
        // First, since the connection's own poll sends what they have to say.
        self.run_streams();
        let over = self.accept(cx);
        // Even where the connection is over.
        let unaccepted = self.connection.unaccepted();
        if unaccepted != self.unaccepted {
            let before = std::mem::replace(&mut self.unaccepted, unaccepted);
            refusal::streams(self.ctx, self.client, before, unaccepted);
        }
        if over {
            return Poll::Ready(ConnectionEnd::Over);
        }
        self.run_streams();
        self.client.upstreams.poll_close_ended(cx);
        self.watch_blocks(cx);
        while self.orphans.poll_gathered(cx).is_ready() {
            let pools = &self.client.upstreams.pools;
            match pools.end() {
                // Others are under way, or have just been served on another connection.
                _ if self.carries_others() || pools.only().is_some() => self.orphans.reset(),
                Some(why) if why.reason != Reason::NO_ERROR => {
                    self.close(why, cx);
                    self.orphans = Orphans::default();
                }
                _ => return Poll::Ready(ConnectionEnd::Orphaned),
            }
        }
        self.follow_primary(cx);
        if self.bound_memory(cx) {
            self.connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
            // A client that does not read is not told.
            let _ = self.connection.poll_closed(cx);
            return Poll::Ready(ConnectionEnd::Over);
        }
        self.streams.wait(cx);
        Poll::Pending
    }

    /// Takes up new streams, and polls the connection; true when it is over.
    fn accept(&mut self, cx: &mut task::Context<'_>) -> bool {
        while let Poll::Ready(accepted) = self.connection.poll_accept(cx) {
            match accepted {
                Some(Ok((request, respond))) => self.take_up(request, respond, cx),
                Some(Err(error)) => {
                    tracing::debug!(client = %self.client.workload.name, %error, "connection ended");
                    // A late header block was told of when it was.
                    if self.clock.is_some() {
                        refuse(self.ctx, self.client, &error);
                    }
                    return true;
                }
                None => return true,
            }
        }
        false
    }

    /// Begins an exchange, if there is memory for it.
    fn take_up(
        &mut self,
        request: Request<RecvStream>,
        mut respond: SendResponse<Bytes>,
        cx: &task::Context<'_>,
    ) {
        let bytes = STREAM + self.connection.accepted_head();
        match self.client.memory.charge(bytes) {
            Ok(charge) => {
                self.refused = 0;
                let (ctx, client) = (Rc::clone(self.ctx), Rc::clone(self.client));
                let buffer_limit = Rc::clone(&self.buffer_limit);
                self.streams.add(stream::run(ctx, client, request, respond, buffer_limit, charge));
            }
            Err(exceeded) => {
                respond.send_reset(Reason::REFUSED_STREAM);
                refusal::connection(self.ctx, self.client, exceeded.into(), &exceeded);
                self.refused += 1;
                if self.refused == REFUSED {
                    self.closing = true;
                    self.connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                    // Its next poll sends it.
                    cx.waker().wake_by_ref();
                }
            }
        }
    }

    /// Has so much unread content held at most, in bytes. The window is what holds up a client whose
    /// content nobody reads: what else it sends is read on, or content and responses could wait for each
    /// other. What many small frames take besides is stopped by reading no more.
    fn allow(&mut self, limit: usize) {
        let window = u32::try_from(limit).unwrap_or(u32::MAX).clamp(CLIENT_WINDOW, WINDOW_LIMIT);
        self.connection.set_target_window_size(window);
        self.connection.set_hold_limit(limit + limit / 4);
    }

    /// After the connection's poll, which reads and sends. True: the connection is to be ended.
    fn bound_memory(&mut self, cx: &mut task::Context<'_>) -> bool {
        let (unread, unsent) = self.connection.held();
        let holds = BufferedBytes { unread, unsent, block: self.connection.held_block() };
        let (held_up, idle) = (self.connection.is_held_up(), self.streams.is_empty());
        match self.buffer_limit.follow(holds, (held_up, idle), cx) {
            LimitChange::Unchanged => self.short = false,
            LimitChange::Limit(limit) => {
                self.short = false;
                self.allow(limit);
                if held_up {
                    cx.waker().wake_by_ref();
                }
            }
            LimitChange::Short(exceeded) if !self.short => {
                self.short = true;
                refusal::connection(self.ctx, self.client, exceeded.into(), &exceeded);
            }
            LimitChange::Short(_) => {}
            LimitChange::Stuck(exceeded) => {
                refusal::connection(self.ctx, self.client, exceeded.into(), &exceeded);
                return true;
            }
        }
        false
    }

    /// What has become of the connections to primaries, and what PINGs ask of them.
    fn follow_primary(&mut self, cx: &mut task::Context<'_>) {
        let pools = &self.client.upstreams.pools;
        pools.watch(cx);
        if self.pings.pass(&mut self.connection, pools) {
            // The connection's next poll sends it.
            cx.waker().wake_by_ref();
        }
        if self.closing || !self.streams.is_empty() || !self.orphans.streams.is_empty() {
            return;
        }
        if let Some(why) = pools.end()
            && !self.carries_others()
        {
            self.close(why, cx);
        }
    }

    /// Whether there are streams but those that lost their primary: under way, or with the end of a
    /// response that the client has yet to take.
    fn carries_others(&self) -> bool {
        !self.streams.is_empty() || self.connection.num_recv_streams() > self.orphans.streams.len()
    }

    /// Says GOAWAY as the primary did, and ends the connection.
    fn close(&mut self, why: GoAway, cx: &task::Context<'_>) {
        self.closing = true;
        // What a client sends meanwhile is above the last stream that GOAWAY names: it knows that
        // nobody has seen it. (No PING before, as in a drain: clients of Python's h2 take none
        // behind a GOAWAY.)
        self.connection.abrupt_shutdown_with_data(why.reason, why.data);
        cx.waker().wake_by_ref();
    }

    fn run_streams(&mut self) {
        let orphans = &mut self.orphans;
        self.streams.run(|orphan| orphan.into_iter().for_each(|orphan| orphans.push(orphan)));
    }

    /// After the connection's poll, which reads.
    fn watch_blocks(&mut self, cx: &mut task::Context<'_>) {
        let Some(clock) = &mut self.clock else { return };
        if clock.poll(self.block.get(), self.ctx.options.head_timeout, cx).is_ready() {
            self.clock = None;
            let why = "a header block did not come to its end in time";
            refusal::connection(self.ctx, self.client, RefusalReason::HeadTimeout, &why);
            self.connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
            // Its next poll sends it.
            cx.waker().wake_by_ref();
        }
    }
}

//! One connection of HTTP/2. In: a stream and the bytes sniffed. Out: requests to the exchange,
//! many at a time, all in the connection's own task, and the connection's end.
//!
//! A primary whose connection ends takes the client's with it when nothing else is under way, as it
//! would without us: clients tell that end from a reset stream (gRPC calls one UNAVAILABLE and the
//! other INTERNAL). Beside other streams only those that are lost are reset.

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
    Reason,
    server::{Builder, Connection},
};
use tokio::{
    net::TcpStream,
    time::{Sleep, sleep, timeout},
};

use self::stream::Orphan;
use super::clock::HeadClock;
use crate::proxy::{
    connection::Client,
    context::Context,
    crew::Crew,
    ending::{self, End},
    http2::{CLIENT_STREAMS, CLIENT_WINDOW, HEAD_LIMIT, connection_window},
    io::FramedIo,
};

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
    let spare = socket2::SockRef::from(&stream).try_clone();
    let (io, block) = FramedIo::new(stream, first);
    let hello = builder().handshake(io);
    let fate = match timeout(ctx.options.head_timeout, hello).await {
        Ok(Ok(connection)) => run(&ctx, &client, connection, &block).await,
        Ok(Err(error)) => {
            tracing::debug!(client = %client.workload.name, %error, "no connection of HTTP/2");
            Fate::Over
        }
        Err(_) => {
            tracing::debug!(client = %client.workload.name, "no settings came in time");
            Fate::Over
        }
    };
    let Ok(Ok(stream)) = spare.map(|spare| TcpStream::from_std(spare.into())) else { return };
    match (fate, client.ends.take()) {
        (Fate::Orphaned, Some(End::Reset)) => ending::reset(stream),
        // Our last word (GOAWAY) is to arrive though the client still sends.
        _ => ending::linger(stream).await,
    }
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder
        .initial_window_size(CLIENT_WINDOW)
        .initial_connection_window_size(connection_window(CLIENT_WINDOW, CLIENT_STREAMS))
        .max_concurrent_streams(CLIENT_STREAMS)
        // All streams cancelled at once is no attack: many clients do so when they are cancelled.
        .max_pending_accept_reset_streams(CLIENT_STREAMS as usize)
        .max_header_list_size(HEAD_LIMIT)
        .enable_connect_protocol();
    builder
}

/// How the connection ended.
enum Fate {
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
struct Served<'a> {
    ctx: &'a Rc<Context>,
    client: &'a Rc<Client>,
    /// Dropped before the connection: what it carried ends with it.
    streams: Crew<Option<Orphan>>,
    connection: Connection<FramedIo, Bytes>,
    orphans: Orphans,
    /// On a header block that does not come to its end, until one was late.
    clock: Option<HeadClock>,
    block: &'a Cell<Option<std::time::Instant>>,
}

async fn run(
    ctx: &Rc<Context>,
    client: &Rc<Client>,
    connection: Connection<FramedIo, Bytes>,
    block: &Cell<Option<std::time::Instant>>,
) -> Fate {
    let (streams, orphans, clock) = Default::default();
    let mut served =
        Served { ctx, client, streams, connection, orphans, clock: Some(clock), block };
    let mut drained = pin!(ctx.drained());
    let mut closing = false;
    poll_fn(|cx| {
        if !closing && drained.as_mut().poll(cx).is_ready() {
            closing = true;
            served.connection.graceful_shutdown();
        }
        served.poll(cx)
    })
    .await
}

impl Served<'_> {
    fn poll(&mut self, cx: &mut task::Context<'_>) -> Poll<Fate> {
        // First, since the connection's own poll sends what they have to say.
        self.run_streams();
        while let Poll::Ready(accepted) = self.connection.poll_accept(cx) {
            match accepted {
                Some(Ok((request, respond))) => {
                    let (ctx, client) = (Rc::clone(self.ctx), Rc::clone(self.client));
                    self.streams.add(stream::run(ctx, client, request, respond));
                }
                Some(Err(error)) => {
                    tracing::debug!(client = %self.client.workload.name, %error, "connection ended");
                    return Poll::Ready(Fate::Over);
                }
                None => return Poll::Ready(Fate::Over),
            }
        }
        self.run_streams();
        self.watch_blocks(cx);
        while self.orphans.poll_gathered(cx).is_ready() {
            if self.streams.is_empty() {
                return Poll::Ready(Fate::Orphaned);
            }
            self.orphans.reset();
        }
        self.streams.wait(cx);
        Poll::Pending
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
            self.connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
            // Its next poll sends it.
            cx.waker().wake_by_ref();
        }
    }
}

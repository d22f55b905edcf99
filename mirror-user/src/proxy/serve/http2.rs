//! One connection of HTTP/2. In: a stream and the bytes sniffed. Out: requests to the exchange,
//! many at a time, one task a stream, and the connection's end.
//!
//! A primary whose connection ends takes the client's with it when nothing else is under way, as it
//! would without us: clients tell that end from a reset stream (gRPC calls one UNAVAILABLE and the
//! other INTERNAL). Beside other streams only those that are lost are reset.

mod stream;

use std::{
    cell::Cell,
    future::{pending, poll_fn},
    pin::pin,
    rc::Rc,
    time::Duration,
};

use bytes::Bytes;
use h2::{
    Reason,
    server::{Builder, Connection},
};
use tokio::{
    net::TcpStream,
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

use self::stream::Orphan;
use super::clock::HeadClock;
use crate::proxy::{
    connection::Client,
    context::Context,
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
    decide: Option<Instant>,
}

impl Orphans {
    fn push(&mut self, orphan: Orphan) {
        self.streams.push(orphan);
        self.decide.get_or_insert_with(|| Instant::now() + GATHER);
    }

    async fn gathered(&self) {
        match self.decide {
            Some(at) => sleep_until(at).await,
            None => pending().await,
        }
    }

    fn reset(&mut self) {
        self.decide = None;
        self.streams.drain(..).for_each(|orphan| orphan.reset(Reason::INTERNAL_ERROR));
    }
}

async fn run(
    ctx: &Rc<Context>,
    client: &Rc<Client>,
    mut connection: Connection<FramedIo, Bytes>,
    block: &Cell<Option<std::time::Instant>>,
) -> Fate {
    // Dropped with the connection: what it carried ends with it.
    let mut streams = JoinSet::new();
    let mut orphans = Orphans::default();
    let (mut closing, mut late) = (false, false);
    let mut drained = pin!(ctx.drained());
    let mut clock = HeadClock::default();
    let limit = ctx.options.head_timeout;
    loop {
        tokio::select! {
            biased;
            () = &mut drained, if !closing => {
                closing = true;
                connection.graceful_shutdown();
            }
            accepted = connection.accept() => match accepted {
                Some(Ok((request, respond))) => {
                    let run = stream::run(Rc::clone(ctx), Rc::clone(client), request, respond);
                    streams.spawn_local(run);
                }
                Some(Err(error)) => {
                    tracing::debug!(client = %client.workload.name, %error, "connection ended");
                    return Fate::Over;
                }
                None => return Fate::Over,
            },
            // After `accept`, which reads.
            () = poll_fn(|cx| clock.poll(block.get(), limit, cx)), if !late => {
                late = true;
                connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
            }
            Some(ended) = streams.join_next() => {
                if let Ok(Some(orphan)) = ended {
                    orphans.push(orphan);
                }
            }
            () = orphans.gathered() => {
                if streams.is_empty() {
                    return Fate::Orphaned;
                }
                orphans.reset();
            }
        }
    }
}

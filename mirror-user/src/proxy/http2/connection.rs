//! A connection of HTTP/2 to an upstream, shared by many exchanges. In: a connected socket. Out:
//! room for streams. It is open once the upstream has said its first bytes, so that one that
//! speaks HTTP/1 is known before a request is on its way, and the stream limit is the upstream's.

use std::{
    cell::Cell,
    future::poll_fn,
    io,
    rc::Rc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use tokio::{net::TcpStream, time::timeout};

use super::{
    HEAD_LIMIT, SEND_BUFFER, UNREAD_STREAMS, UPSTREAM_WINDOW,
    buffer_limit::BufferLimit,
    connection_window,
    driver::{DriverState, GoAway, Watcher},
    queue::QueuePosition,
};
use crate::{
    memory::ConnectionUsage,
    proxy::{
        http2::{Greeting, SocketState, UpstreamIo},
        read_limit::{ReadLimit, UpstreamStream},
        time_slices,
    },
};

/// What a connection takes, with what it may hold without asking, in bytes.
const OPEN: usize = 48 * 1024;

/// A connection that is open.
pub(in crate::proxy) struct MultiplexedConnection {
    sender: SendRequest<Bytes>,
    pub(in crate::proxy) socket_state: Rc<SocketState>,
    /// Streams at once, whatever the upstream allows.
    most: usize,
    streams: Cell<usize>,
    /// Streams so far.
    entered: Cell<u64>,
    /// When it last carried a stream, if it carries none.
    since: Cell<Instant>,
    driver_state: Rc<DriverState>,
    buffer_limit: Rc<BufferLimit>,
}

/// What a new connection is for.
#[derive(Default)]
pub(in crate::proxy) struct Purpose {
    /// Streams at once, whatever the upstream allows; None: as many as it allows.
    pub(in crate::proxy) most: Option<u32>,
    /// Told when the connection ends, or has been shown to live.
    pub(in crate::proxy) watcher: Rc<Watcher>,
    /// How much is read of it; None: as much as comes.
    pub(in crate::proxy) limit: Option<Rc<ReadLimit>>,
    /// Who pays for what it holds; None: nobody does.
    pub(in crate::proxy) memory: Option<Rc<ConnectionUsage>>,
}

/// Why a connection could not be opened.
#[derive(Debug, thiserror::Error)]
pub(in crate::proxy) enum OpenError {
    /// The upstream answered the preface with HTTP/1; it has seen no request.
    #[error("the upstream speaks HTTP/1")]
    Http1,
    #[error("all connections are at the upstream's stream limit")]
    Full,
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl MultiplexedConnection {
    /// Says hello and waits up to `patience` for the upstream to do so.
    pub(in crate::proxy) async fn open(
        stream: TcpStream,
        patience: Duration,
        purpose: Purpose,
    ) -> Result<Rc<Self>, OpenError> {
        let Purpose { most, watcher, limit, memory } = purpose;
        let stream = match limit {
            Some(limit) => UpstreamStream::limited_frames(stream, limit),
            None => UpstreamStream::from(stream),
        };
        let (io, socket_state) = UpstreamIo::new(stream);
        let hello = builder(most.unwrap_or(UNREAD_STREAMS)).handshake(io);
        let (sender, connection) = hello.await.map_err(io::Error::other)?;
        let driver_state = DriverState::new(watcher);
        let buffer_limit = memory
            .as_ref()
            .map_or_else(BufferLimit::unbounded, |memory| BufferLimit::new(memory, 0));
        let held = memory.map(|memory| memory.held(OPEN));
        let run = Rc::clone(&driver_state).run(connection, Rc::clone(&buffer_limit), held);
        socket_state.drive(time_slices::spawn(run).abort_handle());
        let (streams, entered, since) = (Cell::new(0), Cell::new(0), Cell::new(Instant::now()));
        let most = most.map_or(usize::MAX, |most| most as usize);
        let opened = Self {
            sender,
            socket_state,
            most,
            streams,
            entered,
            since,
            driver_state,
            buffer_limit,
        };
        match timeout(patience, opened.socket_state.greeting()).await {
            Ok(Greeting::Http1) => Err(OpenError::Http1),
            Ok(Greeting::Other) => Ok(Rc::new(opened)),
            Ok(Greeting::Closed) => Err(io::Error::from(io::ErrorKind::ConnectionReset).into()),
            Err(_) => {
                opened.close();
                Err(io::Error::from(io::ErrorKind::TimedOut).into())
            }
        }
    }

    /// Whether one more stream may be opened now.
    pub(in crate::proxy) fn has_room(&self) -> bool {
        let limit = self.sender.current_max_send_streams().min(self.most);
        !self.is_gone() && self.streams.get() < limit
    }

    /// Waits for room for a stream behind those who came before. None: it takes no more streams, and
    /// nothing was sent.
    pub(in crate::proxy) async fn turn(self: &Rc<Self>) -> Option<Slot> {
        if self.driver_state.queue.is_empty() && self.has_room() {
            return Some(self.enter());
        }
        let waiting = self.driver_state.queue.join();
        poll_fn(|cx| self.poll_turn(&waiting, cx)).await.then(|| self.enter())
    }

    /// True once there is room; false once there never will be.
    fn poll_turn(&self, waiting: &QueuePosition<'_>, cx: &mut Context<'_>) -> Poll<bool> {
        if self.is_gone() {
            return Poll::Ready(false);
        }
        if !waiting.is_first(cx) {
            return Poll::Pending;
        }
        // After a GOAWAY streams end that make no room (RFC 9113, section 6.8).
        if let Poll::Ready(Err(_)) = self.sender.clone().poll_ready(cx) {
            self.retire();
            return Poll::Ready(false);
        }
        if self.has_room() { Poll::Ready(true) } else { Poll::Pending }
    }

    /// Takes room for a stream.
    pub(in crate::proxy) fn enter(self: &Rc<Self>) -> Slot {
        self.streams.set(self.streams.get() + 1);
        self.entered.set(self.entered.get() + 1);
        Slot(Rc::clone(self))
    }

    /// Streams so far.
    pub(in crate::proxy) fn entered(&self) -> u64 {
        self.entered.get()
    }

    /// What it holds.
    pub(super) fn buffer_limit(&self) -> &Rc<BufferLimit> {
        &self.buffer_limit
    }

    /// Whether it takes no more streams.
    pub(in crate::proxy) fn is_gone(&self) -> bool {
        self.driver_state.gone.get()
    }

    /// The connection's end, once it has come.
    pub(in crate::proxy) fn end(&self) -> Option<&GoAway> {
        self.driver_state.end()
    }

    /// Has the upstream asked whether it lives, by a PING.
    pub(in crate::proxy) fn probe(&self) {
        self.driver_state.probe();
    }

    /// Whether it has been shown to live since, or has ended.
    pub(in crate::proxy) fn is_probed(&self) -> bool {
        self.driver_state.is_probed()
    }

    /// Streams under way.
    pub(in crate::proxy) fn streams(&self) -> usize {
        self.streams.get()
    }

    /// Whether it carries nothing, and takes nothing more or has idled for longer than `limit`.
    pub(in crate::proxy) fn is_over(&self, limit: Duration) -> bool {
        self.streams.get() == 0 && (self.is_gone() || self.since.get().elapsed() > limit)
    }

    /// No more streams: the upstream is going away, or it has carried enough.
    pub(in crate::proxy) fn retire(&self) {
        self.driver_state.retire();
    }

    /// Whether the upstream takes CONNECT with a protocol (RFC 8441, section 3).
    pub(in crate::proxy) fn takes_protocols(&self) -> bool {
        self.sender.is_extended_connect_protocol_enabled()
    }

    /// Ends it at once, whatever it carries.
    pub(in crate::proxy) fn close(&self) {
        self.retire();
        self.socket_state.end();
    }
}

/// Room for one stream, held for as long as the exchange lasts.
pub(in crate::proxy) struct Slot(Rc<MultiplexedConnection>);

impl Slot {
    pub(in crate::proxy) fn connection(&self) -> &Rc<MultiplexedConnection> {
        &self.0
    }

    /// What opens the stream; it does so until the next await.
    ///
    /// # Errors
    /// The upstream is going away, or gone: nothing was sent.
    pub(in crate::proxy) async fn ready(&self) -> Result<SendRequest<Bytes>, h2::Error> {
        let mut sender = self.0.sender.clone();
        match poll_fn(|cx| sender.poll_ready(cx)).await {
            Ok(()) => Ok(sender),
            Err(error) => {
                self.0.retire();
                Err(error)
            }
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let left = self.0.streams.get() - 1;
        self.0.streams.set(left);
        self.0.driver_state.queue.wake_first();
        if left == 0 {
            self.0.since.set(Instant::now());
        }
    }
}

/// `unread`: streams that may be read by nobody before they hold up others.
fn builder(unread: u32) -> Builder {
    let mut builder = Builder::new();
    builder
        .initial_window_size(UPSTREAM_WINDOW)
        .initial_connection_window_size(connection_window(UPSTREAM_WINDOW, unread))
        .max_header_list_size(HEAD_LIMIT)
        .max_send_buffer_size(SEND_BUFFER)
        .enable_push(false);
    builder
}

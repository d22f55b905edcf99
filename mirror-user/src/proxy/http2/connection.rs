//! A connection of HTTP/2 to an upstream, shared by many exchanges. In: a connected socket. Out:
//! room for streams. It is open once the upstream has said its first bytes, so that one that
//! speaks HTTP/1 is known before a request is on its way, and the stream limit is the upstream's.

use std::{
    cell::Cell,
    future::poll_fn,
    io,
    rc::Rc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use tokio::{net::TcpStream, task::spawn_local, time::timeout};

use super::{HEAD_LIMIT, UPSTREAM_STREAMS, UPSTREAM_WINDOW, connection_window};
use crate::proxy::io::{Greeting, UpstreamIo, WireState};

/// A connection that is open.
pub(in crate::proxy) struct Connection {
    sender: SendRequest<Bytes>,
    pub(in crate::proxy) wire: Rc<WireState>,
    streams: Cell<usize>,
    /// Streams so far.
    entered: Cell<u64>,
    /// When it last carried a stream, if it carries none.
    since: Cell<Instant>,
    gone: Rc<Cell<bool>>,
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

impl Connection {
    /// Says hello and waits up to `patience` for the upstream to do so.
    pub(in crate::proxy) async fn open(
        stream: TcpStream,
        patience: Duration,
    ) -> Result<Rc<Self>, OpenError> {
        let (io, wire) = UpstreamIo::new(stream);
        let (sender, connection) = builder().handshake(io).await.map_err(io::Error::other)?;
        let gone = Rc::new(Cell::new(false));
        let ended = Rc::clone(&gone);
        let driver = spawn_local(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection of HTTP/2 to an upstream ended");
            }
            ended.set(true);
        });
        wire.drive(driver.abort_handle());
        let (streams, entered, since) = (Cell::new(0), Cell::new(0), Cell::new(Instant::now()));
        let opened = Self { sender, wire, streams, entered, since, gone };
        match timeout(patience, opened.wire.greeting()).await {
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
        let limit = self.sender.current_max_send_streams().min(UPSTREAM_STREAMS);
        !self.gone.get() && self.streams.get() < limit
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

    /// Whether it takes no more streams.
    pub(in crate::proxy) fn is_gone(&self) -> bool {
        self.gone.get()
    }

    /// Streams under way.
    pub(in crate::proxy) fn streams(&self) -> usize {
        self.streams.get()
    }

    /// Whether it carries nothing, and takes nothing more or has idled for longer than `limit`.
    pub(in crate::proxy) fn is_over(&self, limit: Duration) -> bool {
        self.streams.get() == 0 && (self.gone.get() || self.since.get().elapsed() > limit)
    }

    /// No more streams: the upstream is going away, or it has carried enough.
    pub(in crate::proxy) fn retire(&self) {
        self.gone.set(true);
    }

    /// Whether the upstream takes CONNECT with a protocol (RFC 8441, section 3).
    pub(in crate::proxy) fn takes_protocols(&self) -> bool {
        self.sender.is_extended_connect_protocol_enabled()
    }

    /// Ends it at once, whatever it carries.
    pub(in crate::proxy) fn close(&self) {
        self.gone.set(true);
        self.wire.end();
    }
}

/// Room for one stream, held for as long as the exchange lasts.
pub(in crate::proxy) struct Slot(Rc<Connection>);

impl Slot {
    pub(in crate::proxy) fn connection(&self) -> &Rc<Connection> {
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
        if left == 0 {
            self.0.since.set(Instant::now());
        }
    }
}

fn builder() -> Builder {
    let streams = u32::try_from(UPSTREAM_STREAMS).expect("a hundred fits");
    let mut builder = Builder::new();
    builder
        .initial_window_size(UPSTREAM_WINDOW)
        .initial_connection_window_size(connection_window(UPSTREAM_WINDOW, streams))
        .max_header_list_size(HEAD_LIMIT)
        .enable_push(false);
    builder
}

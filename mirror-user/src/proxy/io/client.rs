//! A client's socket of HTTP/1: notices when a head begins, and when the client goes away while it
//! waits.

use std::{
    cell::Cell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Instant,
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::Replay;

/// What the service and the connection's driver know of each other.
#[derive(Debug, Default)]
pub(in crate::proxy) struct ClientState {
    /// Exchanges under way.
    in_flight: Cell<u32>,
    /// Exchanges begun so far.
    begun: Cell<u64>,
    /// The socket takes no more at the moment: bytes of an answer wait.
    stalled: Cell<bool>,
    /// When the first byte of a head arrived that is not yet whole.
    pub(in crate::proxy) head_since: Cell<Option<Instant>>,
}

impl ClientState {
    /// A head is whole: an exchange is under way until what this returns is dropped.
    pub(in crate::proxy) fn begin(self: &Rc<Self>) -> UnderWay {
        self.head_since.set(None);
        self.in_flight.set(self.in_flight.get() + 1);
        self.begun.set(self.begun.get() + 1);
        UnderWay(Rc::clone(self))
    }

    pub(in crate::proxy) fn is_busy(&self) -> bool {
        self.in_flight.get() > 0
    }

    /// Exchanges begun so far.
    pub(in crate::proxy) fn begun(&self) -> u64 {
        self.begun.get()
    }

    /// No exchange is under way, no head has begun, and no byte waits to be written.
    pub(in crate::proxy) fn is_quiet(&self) -> bool {
        !self.is_busy() && !self.stalled.get() && self.head_since.get().is_none()
    }
}

/// An exchange under way: what the client sends meanwhile belongs to it, and is no new head.
#[derive(Debug)]
pub(in crate::proxy) struct UnderWay(Rc<ClientState>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.in_flight.set(self.0.in_flight.get() - 1);
    }
}

/// The client's side: a server connection's transport.
#[derive(Debug)]
pub(in crate::proxy) struct ClientIo {
    stream: Replay,
    state: Rc<ClientState>,
}

impl ClientIo {
    pub(in crate::proxy) fn new(stream: TcpStream, prefix: Bytes, state: Rc<ClientState>) -> Self {
        Self { stream: Replay::new(stream, prefix), state }
    }

    pub(in crate::proxy) fn into_stream(self) -> TcpStream {
        self.stream.into_stream()
    }
}

impl AsyncRead for ClientIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before
            && !self.state.is_busy()
            && self.state.head_since.get().is_none()
        {
            self.state.head_since.set(Some(Instant::now()));
        }
        polled
    }
}

impl AsyncWrite for ClientIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.state.stalled.set(polled.is_pending());
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.state.stalled.set(polled.is_pending());
        polled
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// hyper does not read while it waits for an answer, since the client may have closed its side
    /// alone; but it flushes, and here it learns that the client has reset the connection.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let stream = self.stream.get_ref();
        if self.state.is_busy()
            && stream.poll_read_ready(cx).is_ready()
            && let Some(error) = stream.take_error()?
        {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

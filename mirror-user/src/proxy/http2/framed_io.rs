//! A client's socket of HTTP/2: notices a header block that does not come to its end, and how much work
//! is in what was read.

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

use super::{header_blocks::HeaderBlockTracker, replay::Replay};
use crate::proxy::io::consume_budget;

/// The socket, and what was read of it so far.
#[derive(Debug)]
pub(in crate::proxy) struct FramedIo {
    stream: Replay,
    blocks: HeaderBlockTracker,
    since: Rc<Cell<Option<Instant>>>,
}

impl FramedIo {
    /// The socket, and a view of when the header block began that is open.
    pub(in crate::proxy) fn new(
        stream: TcpStream,
        prefix: Bytes,
    ) -> (Self, Rc<Cell<Option<Instant>>>) {
        let since = Rc::default();
        let io = Self {
            stream: Replay::new(stream, prefix),
            blocks: HeaderBlockTracker::of_client(),
            since: Rc::clone(&since),
        };
        (io, since)
    }
}

impl AsyncRead for FramedIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let limit = self.blocks.read_limit();
        self.stream.set_limit(limit);
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.blocks.feed(&buf.filled()[before..]);
        consume_budget(cx, self.blocks.take_work());
        self.since.set(self.blocks.open_since());
        polled
    }
}

impl AsyncWrite for FramedIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

//! An upstream's socket: counts what the kernel took and gave, and keeps a failing write from
//! hiding a response that is already on its way.

use std::{
    cell::{Cell, OnceCell, RefCell},
    future::poll_fn,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf, Take},
    task::AbortHandle,
};

use super::{HTTP1_GREETING, READ_LIMIT, header_blocks::HeaderBlockTracker};
use crate::proxy::{
    io::{consume_budget, is_abnormal, poll_write_buffers},
    read_limit::{ReadLimit, UpstreamStream},
};

/// What an upstream connection's user knows of its socket.
pub(in crate::proxy) struct SocketState {
    /// Bytes that the kernel gave since the connection was made.
    pub(in crate::proxy) read: Cell<u64>,
    /// Bytes that the kernel took since the connection was made.
    pub(in crate::proxy) written: Cell<u64>,
    reset: Cell<bool>,
    write_broken: Cell<bool>,
    greeting: RefCell<Result<Greeting, Option<Waker>>>,
    /// What is read of it, if it is a shadow's.
    pub(in crate::proxy) limit: Option<Rc<ReadLimit>>,
    /// The task that runs the connection.
    driver: OnceCell<AbortHandle>,
}

/// What an upstream said first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Greeting {
    /// The beginning of a status line.
    Http1,
    /// Anything else.
    Other,
    /// Nothing: the connection ended.
    Closed,
}

impl SocketState {
    /// Waits for the upstream's first bytes.
    pub(in crate::proxy) async fn greeting(&self) -> Greeting {
        poll_fn(|cx| match &mut *self.greeting.borrow_mut() {
            Ok(greeting) => Poll::Ready(*greeting),
            Err(waker) => {
                *waker = Some(cx.waker().clone());
                Poll::Pending
            }
        })
        .await
    }

    fn greeted(&self, greeting: Greeting) {
        let mut known = self.greeting.borrow_mut();
        if let Err(waker) = &mut *known {
            let waker = waker.take();
            *known = Ok(greeting);
            drop(known);
            waker.into_iter().for_each(Waker::wake);
        }
    }

    /// Whether the peer reset the connection (RST, not FIN).
    pub(in crate::proxy) fn was_reset(&self) -> bool {
        self.reset.get()
    }

    /// Whether the kernel refused bytes, so that not all that was written was sent.
    pub(in crate::proxy) fn write_failed(&self) -> bool {
        self.write_broken.get()
    }

    /// Names the task that runs the connection.
    pub(in crate::proxy) fn drive(&self, driver: AbortHandle) {
        // Each connection has one.
        let _ = self.driver.set(driver);
    }

    /// Ends the connection at once, whatever it carries.
    pub(in crate::proxy) fn end(&self) {
        self.driver.get().into_iter().for_each(AbortHandle::abort);
    }

    fn note(&self, error: &io::Error) {
        if is_abnormal(error) {
            self.reset.set(true);
        }
    }
}

/// The upstream's side: a client connection's transport.
///
/// A peer that answers early and closes makes our next write fail while its response lies in the
/// receive buffer; the h2 crate gives up at a failed write without reading. So a failed write is noted,
/// later bytes are let go, and the read side tells how the connection ended.
pub(in crate::proxy) struct UpstreamIo {
    stream: Take<UpstreamStream>,
    blocks: HeaderBlockTracker,
    state: Rc<SocketState>,
}

impl UpstreamIo {
    pub(in crate::proxy) fn new(stream: UpstreamStream) -> (Self, Rc<SocketState>) {
        let state = Rc::new(SocketState {
            read: Cell::new(0),
            written: Cell::new(0),
            reset: Cell::new(false),
            write_broken: Cell::new(false),
            greeting: RefCell::new(Err(None)),
            limit: stream.limit().cloned(),
            driver: OnceCell::new(),
        });
        let (stream, blocks) = (stream.take(READ_LIMIT), HeaderBlockTracker::of_server());
        (Self { stream, blocks, state: Rc::clone(&state) }, state)
    }

    fn wrote(&self, polled: Poll<io::Result<usize>>, len: usize) -> Poll<io::Result<usize>> {
        match polled {
            Poll::Ready(Ok(n)) => {
                self.state.written.set(self.state.written.get() + n as u64);
                Poll::Ready(Ok(n))
            }
            Poll::Ready(Err(error)) => {
                self.state.note(&error);
                self.state.write_broken.set(true);
                Poll::Ready(Ok(len))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl Drop for UpstreamIo {
    fn drop(&mut self) {
        self.state.greeted(Greeting::Closed);
    }
}

impl AsyncRead for UpstreamIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let limit = self.blocks.read_limit();
        self.stream.set_limit(limit);
        match Pin::new(&mut self.stream).poll_read(cx, buf) {
            Poll::Ready(Ok(())) => {
                let n = buf.filled().len() - before;
                self.blocks.feed(&buf.filled()[before..]);
                consume_budget(cx, self.blocks.take_work());
                if self.state.read.get() == 0 && n > 0 {
                    let http1 = buf.filled()[before..].starts_with(HTTP1_GREETING);
                    self.state.greeted(if http1 { Greeting::Http1 } else { Greeting::Other });
                }
                self.state.read.set(self.state.read.get() + n as u64);
                // The failed write consumed the socket's error, so that an RST reads as EOF.
                if n == 0 && self.state.was_reset() {
                    return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
                }
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => {
                self.state.note(&error);
                Poll::Ready(Err(error))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncWrite for UpstreamIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.state.write_broken.get() {
            return Poll::Ready(Ok(buf.len()));
        }
        let polled = Pin::new(self.stream.get_mut()).poll_write(cx, buf);
        self.wrote(polled, buf.len())
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let len = bufs.iter().map(|b| b.len()).sum();
        if self.state.write_broken.get() {
            return Poll::Ready(Ok(len));
        }
        let polled = poll_write_buffers(self.stream.get_mut(), cx, bufs);
        self.wrote(polled, len)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.stream.get_mut()).poll_shutdown(cx)
    }
}

//! A socket with its buffers: what was read and is not yet taken, what waits to be written.

use std::{
    io,
    net::Shutdown,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::BytesMut;
use socket2::SockRef;
use tokio::{io::AsyncWrite, net::TcpStream};
use tokio_util::io::poll_read_buf;

use super::{READ, out::Out};

/// The first reads of a connection: most heads and answers fit.
const FIRST_READ: usize = 4 * 1024;

/// One connection's socket.
#[derive(Debug)]
pub(super) struct Wire {
    /// None once it was taken out.
    stream: Option<TcpStream>,
    /// Read, and not yet taken.
    pub(super) input: BytesMut,
    pub(super) out: Out,
    /// How much the next read takes.
    next_read: usize,
    /// Bytes that the kernel gave.
    pub(super) read: u64,
    /// Bytes that the kernel took.
    pub(super) written: u64,
    /// The peer closed its side.
    pub(super) ended: bool,
    /// The peer reset the connection (RST, not FIN).
    pub(super) reset: bool,
}

impl Wire {
    /// `input`: what was read of the socket already.
    pub(super) fn new(stream: TcpStream, input: BytesMut) -> Self {
        Self {
            stream: Some(stream),
            input,
            out: Out::default(),
            next_read: FIRST_READ,
            read: 0,
            written: 0,
            ended: false,
            reset: false,
        }
    }

    pub(super) fn stream(&self) -> Option<&TcpStream> {
        self.stream.as_ref()
    }

    /// The socket, and what was read of it; from here on every other call fails.
    pub(super) fn take(&mut self) -> Option<(TcpStream, BytesMut)> {
        let stream = self.stream.take()?;
        Some((stream, std::mem::take(&mut self.input)))
    }

    /// Whether the peer has neither closed nor said anything, as far as is known without asking the
    /// kernel.
    pub(super) fn seems_quiet(&self) -> bool {
        let Some(stream) = &self.stream else { return false };
        // tokio asks the kernel only when it was told that something is there.
        let quiet = |error: io::Error| error.kind() == io::ErrorKind::WouldBlock;
        self.is_untouched() && stream.try_read(&mut [0]).is_err_and(quiet)
    }

    /// Nothing was read that is not taken, and no end.
    pub(super) fn is_untouched(&self) -> bool {
        self.input.is_empty() && !self.ended
    }

    /// Reads once; false at the peer's end.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let Some(stream) = &mut self.stream else { return Poll::Ready(Ok(false)) };
        if self.ended {
            return Poll::Ready(Ok(false));
        }
        make_room(&mut self.input, self.next_read);
        let room = self.input.capacity() - self.input.len();
        match ready!(poll_read_buf(Pin::new(stream), cx, &mut self.input)) {
            // A failed write consumes the socket's error, so that an RST reads as an end.
            Ok(0) if self.reset => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            Ok(0) => {
                self.ended = true;
                Poll::Ready(Ok(false))
            }
            Ok(n) => {
                self.read += n as u64;
                if n == room {
                    self.next_read = READ;
                }
                Poll::Ready(Ok(true))
            }
            Err(error) => {
                self.note(&error);
                Poll::Ready(Err(error))
            }
        }
    }

    /// Writes all that waits.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            let Some(stream) = &mut self.stream else {
                return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
            };
            let stream = Pin::new(stream);
            // Most messages leave as one buffer, and send(2) costs less than writev(2).
            let polled = match self.out.single() {
                Some(only) => stream.poll_write(cx, only),
                None => stream.poll_write_vectored(cx, &self.out.slices()),
            };
            match ready!(polled) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(n) => {
                    self.written += n as u64;
                    self.out.advance(n);
                }
                Err(error) => {
                    self.note(&error);
                    return Poll::Ready(Err(error));
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// The socket is to be reset when it is closed, whatever the kernel still has to send.
    pub(super) fn abort(&self) {
        if let Some(stream) = &self.stream {
            // A socket that refuses the option is closed with FIN: the next best.
            let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
    }

    /// Ends both directions at once; the socket stays.
    pub(super) fn shut_down(&self) {
        if let Some(stream) = &self.stream {
            // It fails where the peer was faster.
            let _ = SockRef::from(stream).shutdown(Shutdown::Both);
        }
    }

    fn note(&mut self, error: &io::Error) {
        if error.kind() == io::ErrorKind::ConnectionReset {
            self.reset = true;
        }
    }
}

/// Room for a read of `size`. Never more than a buffer of [`READ`] bytes, unless a head is longer:
/// a frame that a shadow holds pins the whole of it, and is charged for that. Half the room is worth
/// a read.
fn make_room(input: &mut BytesMut, size: usize) {
    if input.capacity() - input.len() >= size / 2 || input.try_reclaim(size) {
        return;
    }
    if input.is_empty() {
        *input = BytesMut::with_capacity(size);
    } else {
        input.reserve(size);
    }
}

//! A socket with its buffers: what was read and is not yet taken, what waits to be written.

use std::{
    io,
    net::Shutdown,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::BytesMut;
use tokio::{io::AsyncWrite, net::TcpStream};
use tokio_util::io::poll_read_buf;

use super::{Error, READ, write_buffer::WriteBuffer};
use crate::{
    memory::{MemoryCharge, MemoryExceeded},
    proxy::read_limit::{Element, UpstreamStream},
};

/// The first reads of a connection: most heads and answers fit.
const FIRST_READ: usize = 4 * 1024;

/// One connection's socket.
#[derive(Debug)]
pub(super) struct BufferedIo {
    /// None once it was taken out.
    stream: Option<UpstreamStream>,
    /// Read, and not yet taken.
    pub(super) input: BytesMut,
    pub(super) out: WriteBuffer,
    /// What `input` takes beyond the first buffers.
    charge: MemoryCharge,
    /// How much the next read takes.
    next_read: usize,
    /// Bytes that the kernel gave.
    pub(super) read: u64,
    /// Bytes that the kernel took.
    pub(super) written: u64,
    /// The peer closed its side.
    pub(super) ended: bool,
    /// The peer reset the connection (RST, not FIN), or is gone.
    pub(super) reset: bool,
}

impl BufferedIo {
    /// `input`: what was read of the socket already; `charge` pays for it, and for more.
    pub(super) fn new(
        stream: impl Into<UpstreamStream>,
        input: BytesMut,
        charge: MemoryCharge,
    ) -> Self {
        Self {
            stream: Some(stream.into()),
            input,
            out: WriteBuffer::default(),
            charge,
            next_read: FIRST_READ,
            read: 0,
            written: 0,
            ended: false,
            reset: false,
        }
    }

    /// What is to be charged for a buffer that a connection begins with.
    pub(super) fn beyond_first(input: &BytesMut) -> usize {
        if input.capacity() > 2 * FIRST_READ { input.capacity() } else { 0 }
    }

    /// None while the reactor does not know it: a shadow's that is read once per tick.
    pub(super) fn stream(&self) -> Option<&TcpStream> {
        self.stream.as_ref()?.registered()
    }

    /// Of a shadow's connection: what was found in what it sent.
    pub(super) fn found(&self, element: Element, count: usize) {
        if let Some(limit) = self.stream.as_ref().and_then(UpstreamStream::limit) {
            limit.found(element, count);
        }
    }

    /// Of a shadow's connection: whether more of what was read may be looked at now. A primary's always
    /// may.
    pub(super) fn poll_turn(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.stream.as_ref().and_then(UpstreamStream::limit) {
            Some(limit) => limit.poll_turn(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    /// Of a shadow's connection: its response is over.
    pub(super) fn rejoin(&mut self) {
        self.stream.iter_mut().for_each(UpstreamStream::rejoin);
    }

    /// The socket, and what was read of it; from here on every other call fails. An empty buffer has no
    /// memory, because its owner may keep it for as long as the connection is idle.
    pub(super) fn take(&mut self) -> Option<(TcpStream, BytesMut)> {
        let stream = self.stream.take()?.into_registered()?;
        let input = std::mem::take(&mut self.input);
        Some((stream, if input.is_empty() { BytesMut::new() } else { input }))
    }

    /// Whether the peer has neither closed nor said anything, as far as is known without asking the
    /// kernel.
    pub(super) fn seems_quiet(&self) -> bool {
        let Some(stream) = self.stream() else { return false };
        // tokio asks the kernel only when it was told that something is there.
        let quiet = |error: io::Error| error.kind() == io::ErrorKind::WouldBlock;
        self.is_untouched() && stream.try_read(&mut [0]).is_err_and(quiet)
    }

    /// Nothing was read that is not taken, and no end.
    pub(super) fn is_untouched(&self) -> bool {
        self.input.is_empty() && !self.ended
    }

    /// Reads once; false at the peer's end.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Memory`]: there is no room for more of a message of which nothing may
    /// be let go yet.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, Error>> {
        if self.ended {
            return Poll::Ready(Ok(false));
        }
        self.make_room()?;
        let Some(stream) = &mut self.stream else { return Poll::Ready(Ok(false)) };
        let room = self.input.capacity() - self.input.len();
        match ready!(poll_read_buf(Pin::new(stream), cx, &mut self.input)) {
            // A failed write consumes the socket's error, so that an RST reads as an end.
            Ok(0) if self.reset => {
                Poll::Ready(Err(io::Error::from(io::ErrorKind::ConnectionReset).into()))
            }
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
                Poll::Ready(Err(error.into()))
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

    /// Gives back the memory of empty buffers.
    pub(super) fn shrink(&mut self) {
        if self.input.is_empty() {
            self.input = BytesMut::new();
            self.charge.shrink_to(0);
            self.next_read = FIRST_READ;
        }
        if self.out.is_empty() {
            self.out = WriteBuffer::default();
        }
    }

    /// Gives back what a long head took, once its message is over.
    pub(super) fn settle(&mut self) {
        if self.charge.bytes() <= 2 * READ {
            return;
        }
        // What was read of the next message moves.
        self.input = BytesMut::from(&self.input[..]);
        self.charge.shrink_to(self.input.capacity().max(READ));
    }

    /// Room for a read. Never more than a buffer of [`READ`] bytes, unless a head is longer: a frame
    /// that a shadow holds pins the whole of it, and is charged for that. Half the room is worth a read.
    /// Where memory is short, reads stay small.
    fn make_room(&mut self) -> Result<(), MemoryExceeded> {
        let (input, size) = (&mut self.input, self.next_read);
        if input.capacity() - input.len() >= size / 2 || input.try_reclaim(size) {
            return Ok(());
        }
        let long = (input.len() > FIRST_READ).then(|| input.len() + input.len() / 2 + size / 2);
        let capacity = match long {
            // Nothing of a head may be let go before its end.
            Some(capacity) => {
                self.charge.grow_to(capacity)?;
                capacity
            }
            None if size > FIRST_READ && self.charge.grow_to(size).is_err() => {
                self.next_read = FIRST_READ;
                2 * FIRST_READ
            }
            None => size.max(input.len() + size / 2),
        };
        let mut larger = BytesMut::with_capacity(capacity);
        larger.extend_from_slice(input);
        *input = larger;
        Ok(())
    }

    /// The socket is to be reset when it is closed, whatever the kernel still has to send.
    pub(super) fn abort(&self) {
        if let Some(socket) = self.stream.as_ref().and_then(UpstreamStream::options) {
            // A socket that refuses the option is closed with FIN: the next best.
            let _ = socket.set_linger(Some(Duration::ZERO));
        }
    }

    /// Ends both directions at once; the socket stays.
    pub(super) fn shut_down(&self) {
        if let Some(socket) = self.stream.as_ref().and_then(UpstreamStream::options) {
            // It fails where the peer was faster.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    fn note(&mut self, error: &io::Error) {
        if crate::proxy::io::is_abnormal(error) {
            self.reset = true;
        }
    }
}

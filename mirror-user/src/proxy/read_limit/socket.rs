//! An upstream's socket: a primary's as it is, or a shadow's, which is read no faster than its
//! [`ReadLimit`] allows. In: a connected socket. Out: bytes, when there may be some.
//!
//! A shadow's that is beyond its credit leaves the reactor: each segment that arrives would wake the
//! worker, and a sender of single bytes decides how many there are. It is asked once per tick then, and
//! what it does not take stays in the kernel, whose window stops the sender.

use std::{
    io::{self, IoSlice, Read, Write},
    net::TcpStream as StdStream,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf, Take},
    net::TcpStream,
};

use super::{Element, ReadLimit, frames::Frames};
use crate::proxy::io::READ_BUFFER;

/// An upstream's socket.
#[derive(Debug)]
pub(in crate::proxy) enum UpstreamStream {
    Plain(TcpStream),
    Limited(Box<LimitedStream>),
}

/// A shadow's socket.
pub(in crate::proxy) struct LimitedStream {
    socket: Socket,
    limit: Rc<ReadLimit>,
    /// Of HTTP/2: the frames that are read, and those that are written.
    frames: Option<(Frames, Frames)>,
    /// How much the next read takes at most, in bytes.
    next_read: usize,
}

/// What a read of HTTP/2 takes at most, in bytes, while what comes is small frames: each costs the same,
/// and what one read has found is handled before the next is thought of.
const FEW: usize = 4 << 10;

/// What any read takes at most, in bytes.
const MANY: usize = READ_BUFFER;

/// Frames shorter than this are small, in bytes.
const SMALL: usize = 256;

#[derive(Debug)]
enum Socket {
    Registered(Take<TcpStream>),
    /// The reactor does not know it.
    Apart(StdStream),
    /// It could not be moved from one to the other.
    Lost,
}

impl From<TcpStream> for UpstreamStream {
    /// A primary's, or a client's.
    fn from(stream: TcpStream) -> Self {
        Self::Plain(stream)
    }
}

impl UpstreamStream {
    /// A shadow's, of HTTP/1.
    pub(in crate::proxy) fn limited(stream: TcpStream, limit: Rc<ReadLimit>) -> Self {
        let socket = Socket::Registered(stream.take(0));
        Self::Limited(Box::new(LimitedStream { socket, limit, frames: None, next_read: MANY }))
    }

    /// A shadow's, of HTTP/2.
    pub(in crate::proxy) fn limited_frames(stream: TcpStream, limit: Rc<ReadLimit>) -> Self {
        let socket = Socket::Registered(stream.take(0));
        let frames = Some((Frames::default(), Frames::of_client()));
        Self::Limited(Box::new(LimitedStream { socket, limit, frames, next_read: FEW }))
    }

    /// The socket that the reactor knows; None while a shadow's is read once per tick.
    pub(in crate::proxy) fn registered(&self) -> Option<&TcpStream> {
        match self {
            Self::Plain(stream) => Some(stream),
            Self::Limited(limited) => limited.registered(),
        }
    }

    /// The socket of a primary, or of a shadow that the reactor knows.
    pub(in crate::proxy) fn into_registered(self) -> Option<TcpStream> {
        match self {
            Self::Plain(stream) => Some(stream),
            Self::Limited(limited) => match limited.socket {
                Socket::Registered(stream) => Some(stream.into_inner()),
                Socket::Apart(_) | Socket::Lost => None,
            },
        }
    }

    /// For options of the socket, whoever knows it.
    pub(in crate::proxy) fn options(&self) -> Option<SockRef<'_>> {
        match self {
            Self::Plain(stream) => Some(SockRef::from(stream)),
            Self::Limited(limited) => match &limited.socket {
                Socket::Registered(stream) => Some(SockRef::from(stream.get_ref())),
                Socket::Apart(stream) => Some(SockRef::from(stream)),
                Socket::Lost => None,
            },
        }
    }

    /// What is read of a shadow, and charged for.
    pub(in crate::proxy) fn limit(&self) -> Option<&Rc<ReadLimit>> {
        match self {
            Self::Plain(_) => None,
            Self::Limited(limited) => Some(&limited.limit),
        }
    }

    /// A shadow's response is over: what comes next is waited for as usual.
    pub(in crate::proxy) fn rejoin(&mut self) {
        if let Self::Limited(limited) = self {
            limited.follow(false);
        }
    }
}

impl LimitedStream {
    fn registered(&self) -> Option<&TcpStream> {
        match &self.socket {
            Socket::Registered(stream) => Some(stream.get_ref()),
            Socket::Apart(_) | Socket::Lost => None,
        }
    }

    /// Leaves the reactor, or joins it.
    fn follow(&mut self, apart: bool) {
        if apart == matches!(self.socket, Socket::Apart(_)) {
            return;
        }
        let moved = match std::mem::replace(&mut self.socket, Socket::Lost) {
            Socket::Registered(stream) => stream.into_inner().into_std().map(Socket::Apart),
            Socket::Apart(stream) => {
                TcpStream::from_std(stream).map(|stream| Socket::Registered(stream.take(0)))
            }
            Socket::Lost => return,
        };
        match moved {
            Ok(socket) => self.socket = socket,
            Err(error) => tracing::debug!(%error, "a shadow's socket is lost"),
        }
    }

    fn poll_read_once(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let Poll::Ready(allowance) = self.limit.poll_allowance(cx) else {
                if self.limit.is_spent() {
                    self.follow(true);
                }
                return Poll::Pending;
            };
            let allowance = allowance?;
            self.follow(allowance.apart);
            let most = allowance.bytes.min(self.next_read);
            match &mut self.socket {
                Socket::Registered(stream) => {
                    stream.set_limit(most as u64);
                    return Pin::new(stream).poll_read(cx, buf);
                }
                Socket::Apart(stream) => {
                    let size = most.min(buf.remaining());
                    match stream.read(buf.initialize_unfilled_to(size)) {
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.limit.dry(),
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        Err(error) => return Poll::Ready(Err(error)),
                        Ok(size) => {
                            buf.advance(size);
                            return Poll::Ready(Ok(()));
                        }
                    }
                }
                Socket::Lost => return Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
            }
        }
    }

    fn poll_write_with(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
        registered: impl FnOnce(Pin<&mut TcpStream>, &mut Context<'_>) -> Poll<io::Result<usize>>,
        apart: impl FnOnce(&mut StdStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        let written = match &mut self.socket {
            Socket::Registered(stream) => ready!(registered(Pin::new(stream.get_mut()), cx)),
            Socket::Apart(stream) => match apart(stream) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.limit.wait(cx, false);
                    return Poll::Pending;
                }
                written => written,
            },
            Socket::Lost => Err(io::ErrorKind::NotConnected.into()),
        };
        if let (Ok(bytes), Some((_, frames))) = (&written, &mut self.frames) {
            let (mut left, mut data) = (*bytes, 0);
            for buf in bufs {
                let size = left.min(buf.len());
                data += frames.feed(&buf[..size]).data;
                left -= size;
            }
            self.limit.wrote(*bytes, data);
        }
        Poll::Ready(written)
    }
}

impl AsyncRead for LimitedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(self.poll_read_once(cx, buf))?;
        let read = &buf.filled()[before..];
        self.limit.read(read.len());
        let Self { limit, frames, next_read, .. } = &mut *self;
        if let Some((frames, _)) = frames {
            let count = frames.feed(read);
            limit.found(Element::Data, count.data);
            limit.found(Element::Control, count.control);
            let large = read.len() >= SMALL * (count.data + count.control);
            *next_read = if large { (2 * *next_read).min(MANY) } else { FEW };
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for UpstreamStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Limited(limited) => Pin::new(&mut **limited).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for UpstreamStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Limited(limited) => limited.poll_write_with(
                cx,
                &[IoSlice::new(buf)],
                |stream, cx| stream.poll_write(cx, buf),
                |stream| stream.write(buf),
            ),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Limited(limited) => limited.poll_write_with(
                cx,
                bufs,
                |stream, cx| stream.poll_write_vectored(cx, bufs),
                |stream| stream.write_vectored(bufs),
            ),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Limited(limited) => match &mut limited.socket {
                Socket::Registered(stream) => Pin::new(stream.get_mut()).poll_shutdown(cx),
                Socket::Apart(stream) => Poll::Ready(stream.shutdown(std::net::Shutdown::Write)),
                Socket::Lost => Poll::Ready(Ok(())),
            },
        }
    }
}

impl std::fmt::Debug for LimitedStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LimitedStream").field("socket", &self.socket).finish_non_exhaustive()
    }
}

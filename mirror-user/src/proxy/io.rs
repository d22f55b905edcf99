//! The sockets of HTTP/2, as the h2 crate sees them, and what all sockets share. None ever buffers.

mod blocks;
mod framed;
mod replay;
mod upstream;

use std::{
    io::{self, IoSlice},
    os::fd::AsRawFd,
    pin::Pin,
    task::{Context, Poll},
};

use nix::{
    errno::Errno,
    sys::socket::{MsgFlags, recv},
};
use replay::Replay;
use tokio::{io::AsyncWrite, net::TcpStream};

pub(super) use self::{
    framed::FramedIo,
    upstream::{Greeting, UpstreamIo, WireState},
};

/// What a held frame that shares a read buffer may pin, in bytes.
pub(super) const READ_BUFFER: usize = 32 * 1024;

/// One read takes at most this many bytes: the h2 crate doubles its buffer once a read has filled it, and
/// a frame that a shadow holds pins the whole of it. One byte less than a buffer keeps it at that.
const READ_LIMIT: u64 = READ_BUFFER as u64 - 1;

/// Whether an idle connection may carry another message: the peer has neither closed nor said
/// anything unasked, as the kernel knows.
pub(super) fn is_quiet(stream: &TcpStream) -> bool {
    let mut byte = [0_u8; 1];
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    matches!(recv(stream.as_raw_fd(), &mut byte, flags), Err(Errno::EAGAIN))
}

/// Most messages leave as one buffer, and send(2) costs less than writev(2).
fn poll_write_buffers(
    stream: &mut TcpStream,
    cx: &mut Context<'_>,
    buffers: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    match buffers {
        [only] => Pin::new(stream).poll_write(cx, only),
        many => Pin::new(stream).poll_write_vectored(cx, many),
    }
}

//! The two sockets of an exchange, as hyper sees them. Neither ever buffers.

mod blocks;
mod client;
mod framed;
mod replay;
mod upstream;

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use replay::Replay;
use tokio::{io::AsyncWrite, net::TcpStream};

pub(super) use self::{
    client::{ClientIo, ClientState, UnderWay},
    framed::FramedIo,
    upstream::{Greeting, UpstreamIo, WireState},
};

/// What a held frame that shares hyper's read buffer may pin, in bytes.
pub(super) const READ_BUFFER: usize = 32 * 1024;

/// One read takes at most this many bytes: hyper doubles its buffer once a read has filled it, and
/// a frame that a shadow holds pins the whole of it. One byte less than a buffer keeps it at that.
const READ_LIMIT: u64 = READ_BUFFER as u64 - 1;

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

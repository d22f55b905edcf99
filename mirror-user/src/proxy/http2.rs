//! What both sides of HTTP/2 share: the limits that we announce, and the sending of a body on a
//! stream. hyper's own HTTP/2 is not used: it takes a body that the peer cancelled for whole,
//! hides the codes of resets, and drops interim responses.

mod buffer_limit;
mod connection;
mod driver;
mod framed_io;
mod header_blocks;
mod pool;
mod queue;
mod replay;
mod send_body;
mod stream;
mod upstream_io;

pub(super) use self::{
    buffer_limit::{BufferLimit, BufferedBytes, LimitChange, WINDOW},
    connection::{MultiplexedConnection, OpenError, Purpose, Slot},
    driver::{GoAway, Watcher},
    framed_io::FramedIo,
    pool::Http2Pool,
    send_body::{ResetCode, SendBody, Unsent},
    stream::{RequestStream, is_unseen, receive_response},
    upstream_io::{Greeting, SocketState, UpstreamIo},
};
use super::io::READ_BUFFER;

/// Streams that a client may have open on one connection. Servers of gRPC set no limit, and clients
/// keep a stream open for each watch: at ours, the next request would wait for ever. It is a bound on
/// memory all the same (some 10 KiB for each stream that waits), and far above what the libraries
/// advise for one connection (100 to 1,000). What the primary allows holds besides: streams beyond
/// that wait for it.
pub(super) const CLIENT_STREAMS: u32 = 4096;

/// Streams that a client may have opened and cancelled before we look at them: many do so when they
/// are cancelled themselves. More at once is the attack called rapid reset (CVE-2023-44487).
pub(super) const CANCELLED_STREAMS: usize = 1024;

/// Copies that one connection to a shadow carries at once, however many it allows.
pub(super) const SHADOW_STREAMS: u32 = 100;

/// Streams that may have all that they may send ahead unread before the connection's window holds up the
/// others: 64 MiB of requests and 256 MiB of responses with the windows below. What is held of that is
/// bounded by [`BufferLimit`].
pub(super) const UNREAD_STREAMS: u32 = 1024;

/// What a client may send ahead on a stream, in bytes (the protocol's default, RFC 9113, section
/// 6.9.2). The client is on this node: the window is never what limits it.
pub(super) const CLIENT_WINDOW: u32 = 65_535;

/// What an upstream may send ahead on a stream, in bytes: 2 Gbit/s at a round trip of 1 ms.
pub(super) const UPSTREAM_WINDOW: u32 = 256 * 1024;

/// One read takes at most this many bytes: the h2 crate doubles its buffer once a read has filled it, and
/// a frame that a shadow holds pins the whole of it. One byte less than a buffer keeps it at that.
const READ_LIMIT: u64 = READ_BUFFER as u64 - 1;

/// The same where header blocks are being read: all that was read is decoded in one go, and each byte may
/// be a field.
const BLOCK_READ_LIMIT: u64 = 4 * 1024;

/// The same of other small frames.
const FRAMES_READ_LIMIT: u64 = 16 * 1024;

/// Largest header list of a message, in bytes as RFC 9113, section 6.5.2 counts them.
pub(super) const HEAD_LIMIT: u32 = 256 * 1024;

/// What all streams of a connection may send ahead: so much that this many that nobody reads do not
/// hold up the others.
pub(super) const fn connection_window(stream: u32, streams: u32) -> u32 {
    stream * streams
}

/// What a stream may have of a body that its peer does not take, in bytes, before no more is taken of it;
/// the frame that passes this is held as well.
pub(super) const SEND_BUFFER: usize = 32 * 1024;

/// The first bytes of a server that speaks HTTP/1 and got the HTTP/2 preface: an error's status
/// line.
pub(super) const HTTP1_GREETING: &[u8] = b"HTTP/1.";

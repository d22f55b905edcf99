//! What both sides of HTTP/2 share: the limits that we announce, and the sending of a body on a
//! stream. hyper's own HTTP/2 is not used: it takes a body that the peer cancelled for whole,
//! hides the codes of resets, and drops interim answers.

mod connection;
mod pool;
mod send;
mod stream;

pub(super) use self::{
    connection::{Connection, OpenError, Slot},
    pool::Pool,
    send::{Pump, ResetCode, Unsent},
    stream::{Stream, answer, is_unseen},
};

/// Streams that a client may have open on one connection: more than what common clients want
/// (100), so that none waits.
pub(super) const CLIENT_STREAMS: u32 = 256;

/// Streams that we open on one connection to an upstream, however many it allows.
pub(super) const UPSTREAM_STREAMS: usize = 100;

/// What a client may send ahead on a stream, in bytes (the protocol's default, RFC 9113, section
/// 6.9.2). The client is on this node: the window is never what limits it.
pub(super) const CLIENT_WINDOW: u32 = 65_535;

/// What an upstream may send ahead on a stream, in bytes: 2 Gbit/s at a round trip of 1 ms.
pub(super) const UPSTREAM_WINDOW: u32 = 256 * 1024;

/// Largest header list of a message, in bytes as RFC 9113, section 6.5.2 counts them.
pub(super) const HEAD_LIMIT: u32 = 256 * 1024;

/// What all streams of a connection may send ahead: so much that one that nobody reads never holds
/// up the others.
pub(super) const fn connection_window(stream: u32, streams: u32) -> u32 {
    stream * streams
}

/// The first bytes of a server that speaks HTTP/1 and got the HTTP/2 preface: an error's status
/// line.
pub(super) const HTTP1_GREETING: &[u8] = b"HTTP/1.";

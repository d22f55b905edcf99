//! HTTP/1 on the wire (RFC 9112), for all three legs: heads and bodies in, heads and bodies out,
//! and the two ends of a connection. In: a socket. Out: requests and responses in the types of the
//! `http` crate, bodies as frames that are read only when they are asked for.
//!
//! A body reads from its connection's socket where it stands, so that one task drives the client's
//! side and the primary's, and nothing is handed over.

mod body_writer;
mod buffered_io;
mod chunked;
mod client;
mod decode;
mod encode;
mod encode_head;
mod fields;
mod first_line;
mod framing;
mod head_size;
mod line;
#[cfg(test)]
mod linear;
mod parse;
mod pipeline;
mod raw_head;
mod repair;
mod request_reader;
mod server;
mod write_buffer;

use std::io;

pub(super) use self::server::{NextHead, ResponseToken};
pub(super) use self::{
    client::{ClientConnection, Idle, ResponseContent, SendError},
    encode_head::{ConnectionNext, EncodedHead, Persistence, SharedEnd},
    first_line::FirstLine,
    parse::HeadError,
    pipeline::{Span, Written},
    request_reader::{ReadStep, RequestReader, Unreadable},
    server::{RequestContent, ServerConnection},
};
use crate::memory::MemoryExceeded;

/// Largest head, in bytes; a larger one of a request is answered with 431.
const HEAD_LIMIT: usize = 256 * 1024;

/// Most fields of a head; more in a request are answered with 431.
const FIELD_LIMIT: usize = 1000;

/// Largest read, in bytes: what a held frame may pin.
const READ: usize = super::io::READ_BUFFER;

/// Why a connection or a message came to no proper end.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// What the kernel says.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The peer closed its side within a message.
    #[error("the connection was closed before the message's end")]
    Closed,
    /// A head that is none.
    #[error(transparent)]
    Head(#[from] HeadError),
    /// What an upstream says is no response, or its framing cannot be told. The bytes are still
    /// unread, so that [`ClientConnection::take`] gives them.
    #[error("unreadable response: {0}")]
    Unreadable(HeadError),
    /// A chunked body that is none.
    #[error("malformed chunked content: {0} (RFC 9112, section 7.1)")]
    Chunk(&'static str),
    /// It takes more memory than there is for it.
    #[error(transparent)]
    Memory(#[from] MemoryExceeded),
    /// A body is longer or shorter than its Content-Length.
    #[error("the content is not as long as its Content-Length says")]
    Length,
    /// The message's own body came to no end.
    #[error("the message's content was cut short by its sender")]
    Body,
}

impl Error {
    /// Whether the peer sent what is no HTTP/1.
    pub(super) fn is_malformed(&self) -> bool {
        matches!(self, Self::Head(_) | Self::Unreadable(_) | Self::Chunk(_))
    }
}

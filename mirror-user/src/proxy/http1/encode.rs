//! The content of a message, framed as its head says (RFC 9112, section 6). A body that does not
//! keep to its Content-Length is an error here: what follows it would be taken for content, or
//! content for what follows.

use std::io::Write;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, header};

use super::{Error, write_buffer::WriteBuffer};

/// How content is framed, and how much may still come.
#[derive(Debug)]
pub(super) enum BodyEncoder {
    Length(u64),
    Chunked,
    /// Ends with the connection.
    UntilClose,
}

/// What a trailer section must not say (RFC 9110, section 6.5.1): it frames or routes the message.
const NO_TRAILERS: [HeaderName; 6] = [
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::HOST,
    header::TRAILER,
    header::TE,
    header::CONNECTION,
];

impl BodyEncoder {
    /// A frame; to be called while `out` has room.
    ///
    /// # Errors
    /// [`Error::Length`]: it is more than was announced.
    pub(super) fn data(&mut self, data: Bytes, out: &mut WriteBuffer) -> Result<(), Error> {
        if data.is_empty() {
            return Ok(());
        }
        match self {
            Self::Length(left) => {
                *left = left.checked_sub(data.len() as u64).ok_or(Error::Length)?;
                out.push(data, b"");
            }
            Self::Chunked => {
                // Writing to memory does not fail.
                let _ = write!(out.buffer(), "{:x}\r\n", data.len());
                out.push(data, b"\r\n");
            }
            Self::UntilClose => out.push(data, b""),
        }
        Ok(())
    }

    /// The end; to be called while `out` has room.
    ///
    /// # Errors
    /// [`Error::Length`]: less came than was announced.
    pub(super) fn end(
        &mut self,
        trailers: Option<&HeaderMap>,
        out: &mut WriteBuffer,
    ) -> Result<(), Error> {
        match self {
            Self::Length(0) | Self::UntilClose => Ok(()),
            Self::Length(_) => Err(Error::Length),
            Self::Chunked => {
                let buffer = out.buffer();
                buffer.extend_from_slice(b"0\r\n");
                let fields = trailers.into_iter().flatten();
                for (name, value) in fields.filter(|(name, _)| !NO_TRAILERS.contains(name)) {
                    buffer.extend_from_slice(name.as_str().as_bytes());
                    buffer.extend_from_slice(b": ");
                    buffer.extend_from_slice(value.as_bytes());
                    buffer.extend_from_slice(b"\r\n");
                }
                buffer.extend_from_slice(b"\r\n");
                Ok(())
            }
        }
    }

    /// Whether all that was announced has come, so that no end need be waited for.
    pub(super) fn is_done(&self) -> bool {
        matches!(self, Self::Length(0))
    }
}

//! The content of a message, decoded as it comes (RFC 9112, section 6).

use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use hyper::body::Frame;

pub(super) use super::chunked::ChunkStep;
use super::{Error, buffered_io::BufferedIo, chunked::Chunked};
use crate::proxy::io::{poll_budget, poll_slice};

/// What was passed over of content that nobody reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Discarded {
    /// The content is at its end.
    pub(super) over: bool,
    /// Chunks that there were, or parts of them.
    pub(super) chunks: usize,
    /// There may be more in what was read.
    pub(super) stopped: bool,
}

/// Chunks that are passed over at once: each costs the same, however short it is.
const CHUNKS: usize = 256;

/// How a message's content is framed, and how much of it is left.
#[derive(Debug)]
pub(super) enum BodyDecoder {
    /// So many bytes are left.
    Length(u64),
    Chunked(Chunked),
    /// All until the peer closes its side: a response without a framing.
    UntilClose,
    /// It ended with the peer's side.
    Closed,
}

impl BodyDecoder {
    pub(super) fn length(length: u64) -> Self {
        Self::Length(length)
    }

    pub(super) fn chunked() -> Self {
        Self::Chunked(Chunked::new())
    }

    /// Of a response: see [`Chunked::of_response`].
    pub(super) fn chunked_response() -> Self {
        Self::Chunked(Chunked::of_response())
    }

    pub(super) fn until_close() -> Self {
        Self::UntilClose
    }

    pub(super) fn is_until_close(&self) -> bool {
        matches!(self, Self::UntilClose | Self::Closed)
    }

    /// Nothing more will come.
    pub(super) fn is_done(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunked(chunked) => chunked.is_done(),
            Self::UntilClose => false,
            Self::Closed => true,
        }
    }

    /// How much is left, where it is known.
    pub(super) fn left(&self) -> Option<u64> {
        match self {
            Self::Length(left) => Some(*left),
            Self::Chunked(chunked) => chunked.is_done().then_some(0),
            Self::UntilClose => None,
            Self::Closed => Some(0),
        }
    }

    /// So many bytes of the content are missing. False: where it goes on is unknown.
    pub(super) fn skip(&mut self, bytes: u64) -> bool {
        match self {
            Self::Length(left) => match left.checked_sub(bytes) {
                Some(rest) => {
                    *left = rest;
                    true
                }
                None => false,
            },
            Self::Chunked(_) | Self::UntilClose | Self::Closed => bytes == 0,
        }
    }

    /// Takes the next piece off the front of `input`.
    ///
    /// # Errors
    /// [`Error::Chunk`].
    pub(super) fn decode(&mut self, input: &mut BytesMut) -> Result<ChunkStep, Error> {
        match self {
            Self::Chunked(chunked) => chunked.decode(input),
            Self::Length(0) | Self::Closed => Ok(ChunkStep::End),
            _ if input.is_empty() => Ok(ChunkStep::More),
            Self::Length(left) => {
                let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                *left -= taken as u64;
                Ok(ChunkStep::Data(input.split_to(taken).freeze()))
            }
            Self::UntilClose => Ok(ChunkStep::Data(input.split().freeze())),
        }
    }

    /// The next frame, read from the connection where nothing of it is there yet.
    pub(super) fn poll_frame(
        &mut self,
        io: &mut BufferedIo,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        loop {
            ready!(self.poll_turn(cx));
            match self.decode(&mut io.input)? {
                ChunkStep::Data(data) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                ChunkStep::Trailers(trailers) => {
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                }
                ChunkStep::End => return Poll::Ready(None),
                ChunkStep::More => {}
            }
            if !ready!(io.poll_read(cx))? {
                self.close()?;
            }
        }
    }

    /// Not ready when others are to have their turn: many small chunks are much work.
    pub(super) fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Self::Chunked(chunked) = self else { return Poll::Ready(()) };
        if !chunked.take_steps() {
            return Poll::Ready(());
        }
        ready!(poll_slice(cx));
        poll_budget(cx)
    }

    /// Passes over what is there of content that nobody reads.
    ///
    /// # Errors
    /// [`Error::Chunk`].
    pub(super) fn discard(&mut self, input: &mut BytesMut) -> Result<Discarded, Error> {
        if let Self::Length(left) = self {
            let passed = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
            *left -= passed as u64;
            input.advance(passed);
            return Ok(Discarded { over: *left == 0, chunks: 0, stopped: false });
        }
        for chunks in 0..CHUNKS {
            let step = match self {
                Self::Chunked(chunked) => chunked.discard(input)?,
                _ => Some(self.decode(input)?),
            };
            match step {
                None | Some(ChunkStep::Data(_) | ChunkStep::Trailers(_)) => {}
                Some(ChunkStep::More) => {
                    return Ok(Discarded { over: false, chunks, stopped: false });
                }
                Some(ChunkStep::End) => {
                    return Ok(Discarded { over: true, chunks, stopped: false });
                }
            }
        }
        Ok(Discarded { over: false, chunks: CHUNKS, stopped: true })
    }

    /// The peer closed its side.
    ///
    /// # Errors
    /// [`Error::Closed`] where more was to come.
    pub(super) fn close(&mut self) -> Result<(), Error> {
        if matches!(self, Self::UntilClose) {
            *self = Self::Closed;
        }
        if self.is_done() { Ok(()) } else { Err(Error::Closed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_chunks_some_are_discarded_at_a_time() {
        let mut input =
            BytesMut::from(&[b"1\r\nx\r\n".repeat(1000), b"0\r\n\r\nHTTP".into()].concat()[..]);
        let mut decoder = BodyDecoder::chunked_response();
        let mut all = 0;
        loop {
            let Discarded { over, chunks, stopped } = decoder.discard(&mut input).unwrap();
            assert!(chunks <= CHUNKS);
            all += chunks;
            if over {
                break;
            }
            assert!(stopped);
        }
        assert_eq!((all, &input[..]), (1000, &b"HTTP"[..]));
    }
}

//! The content of a message, decoded as it comes (RFC 9112, section 6).

use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use hyper::body::Frame;

pub(super) use super::chunked::Step;
use super::{Error, chunked::Chunked, wire::Wire};

/// How a message's content is framed, and how much of it is left.
#[derive(Debug)]
pub(super) enum Decoder {
    /// So many bytes are left.
    Length(u64),
    Chunked(Chunked),
    /// All until the peer closes its side: an answer without a framing.
    UntilClose,
    /// It ended with the peer's side.
    Closed,
}

impl Decoder {
    pub(super) fn length(length: u64) -> Self {
        Self::Length(length)
    }

    pub(super) fn chunked() -> Self {
        Self::Chunked(Chunked::new())
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

    /// Takes the next piece off the front of `input`.
    ///
    /// # Errors
    /// [`Error::Chunk`].
    pub(super) fn decode(&mut self, input: &mut BytesMut) -> Result<Step, Error> {
        match self {
            Self::Chunked(chunked) => chunked.decode(input),
            Self::Length(0) | Self::Closed => Ok(Step::End),
            _ if input.is_empty() => Ok(Step::More),
            Self::Length(left) => {
                let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                *left -= taken as u64;
                Ok(Step::Data(input.split_to(taken).freeze()))
            }
            Self::UntilClose => Ok(Step::Data(input.split().freeze())),
        }
    }

    /// The next frame, read from the connection where nothing of it is there yet.
    pub(super) fn poll_frame(
        &mut self,
        wire: &mut Wire,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        loop {
            match self.decode(&mut wire.input)? {
                Step::Data(data) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Step::Trailers(trailers) => {
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                }
                Step::End => return Poll::Ready(None),
                Step::More => {}
            }
            if !ready!(wire.poll_read(cx))? {
                self.close()?;
            }
        }
    }

    /// Passes over what is there of content that nobody reads; true at its end.
    ///
    /// # Errors
    /// [`Error::Chunk`].
    pub(super) fn pass_over(&mut self, input: &mut BytesMut) -> Result<bool, Error> {
        if let Self::Length(left) = self {
            let passed = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
            *left -= passed as u64;
            input.advance(passed);
            return Ok(*left == 0);
        }
        loop {
            match self.decode(input)? {
                Step::Data(_) | Step::Trailers(_) => {}
                Step::More => return Ok(false),
                Step::End => return Ok(true),
            }
        }
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

//! Bodies of `mirror echo`'s responses.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

/// The body of a response.
#[derive(Debug)]
pub(super) enum EchoBody {
    /// All at once.
    Whole(Bytes),
    /// So many more bytes of filling.
    Filling(u64),
    /// The first part of a body of `length` bytes; then the connection breaks.
    Broken {
        /// What is sent; empty once it is.
        part: Bytes,
        /// Whether the connection breaks now.
        now: bool,
        /// What Content-Length promises.
        length: u64,
    },
}

/// Filling is sent in pieces of this.
static PIECE: [u8; 16 * 1024] = [b'x'; 16 * 1024];

impl EchoBody {
    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Whole(bytes) => bytes.len() as u64,
            Self::Filling(left) => *left,
            Self::Broken { length, .. } => *length,
        }
    }

    /// The same body, which breaks half way.
    pub(super) fn broken(self) -> Self {
        let length = self.len().max(2);
        let half = usize::try_from(length / 2).unwrap_or(usize::MAX);
        let part = match self {
            Self::Whole(bytes) => bytes.slice(..half.min(bytes.len())),
            Self::Filling(_) => Bytes::from_static(&PIECE[..half.min(PIECE.len())]),
            Self::Broken { part, .. } => part,
        };
        Self::Broken { part, now: false, length }
    }
}

impl Body for EchoBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let piece = match &mut *self {
            Self::Whole(bytes) => std::mem::take(bytes),
            Self::Filling(left) => {
                let take = usize::try_from(*left).unwrap_or(usize::MAX).min(PIECE.len());
                *left -= take as u64;
                Bytes::from_static(&PIECE[..take])
            }
            Self::Broken { part, now: now @ false, .. } if part.is_empty() => {
                // hyper writes out what it has when the body has nothing more for the moment.
                *now = true;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Self::Broken { part, .. } if part.is_empty() => {
                return Poll::Ready(Some(Err(io::Error::other("close-mid-answer"))));
            }
            Self::Broken { part, .. } => std::mem::take(part),
        };
        Poll::Ready((!piece.is_empty()).then(|| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_empty(),
            Self::Filling(left) => *left == 0,
            Self::Broken { .. } => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.len())
    }
}

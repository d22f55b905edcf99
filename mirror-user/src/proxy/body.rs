//! A body on its way in, from a client or from a primary, whichever HTTP it came by. In: a
//! connection of HTTP/1, or a stream of HTTP/2. Out: frames, or how the body broke. It never holds a
//! frame: what is not asked for stays with the kernel or within the peer's window.

mod replay;
mod request;

use std::{
    cell::Cell,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, RecvStream};
use http::{HeaderMap, header::CONTENT_LENGTH};
use hyper::body::{Body, Frame, SizeHint};

pub(super) use self::{
    replay::Replay,
    request::{PrimaryBody, Progress},
};
use super::{
    http1::{self, RequestContent, ResponseContent},
    io::poll_budget,
};

/// Frames of a stream that are some work, however small they are.
const FRAMES: u32 = 32;

/// A body that somebody else sends.
#[derive(Debug)]
pub(super) enum IncomingBody {
    /// A client's, by HTTP/1.
    Request(RequestContent),
    /// A primary's, by HTTP/1.
    Response(ResponseContent<PrimaryBody>),
    Http2(Http2Body),
}

/// The receiving half of a stream (RFC 9113, section 5).
#[derive(Debug)]
pub(super) struct Http2Body {
    stream: RecvStream,
    /// What Content-Length leaves to come; None where it says nothing.
    left: Option<u64>,
    /// All data has been taken; trailers may follow.
    data_done: bool,
    /// The stream has been seen at its end: each look takes the connection's lock.
    ended: Cell<bool>,
    /// Frames that were taken since others last had their turn.
    frames: u32,
    from: BodySender,
}

/// Who sends a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BodySender {
    Client,
    Primary,
}

/// A body that did not come to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    #[error(transparent)]
    Http1(#[from] http1::Error),
    #[error(transparent)]
    Http2(#[from] h2::Error),
    #[error(transparent)]
    Raw(#[from] std::io::Error),
    #[error("the route's timeout passed")]
    TimedOut,
}

impl BodyError {
    /// The code that the peer reset the stream with, or ours for an end of our own or a message that
    /// is malformed (RFC 9113, section 8.1.1); None where the connection ended.
    pub(super) fn reset_code(&self) -> Option<Reason> {
        match self {
            Self::Http2(error) if error.is_reset() => error.reason(),
            Self::TimedOut => Some(Reason::CANCEL),
            Self::Http1(_) | Self::Http2(_) | Self::Raw(_) => None,
        }
    }

    /// What is wrong with content, where its sender only went on; None where it broke off.
    pub(super) fn malformed(&self) -> Option<&'static str> {
        match self {
            Self::Http1(http1::Error::Chunk(what)) => Some(what),
            Self::Http1(error) if error.is_malformed() => Some("malformed"),
            Self::Http2(error) if error.is_reset() && error.is_library() => {
                Some("HTTP/2 forbids it (RFC 9113, section 8.1.1)")
            }
            Self::Http1(_) | Self::Http2(_) | Self::Raw(_) | Self::TimedOut => None,
        }
    }
}

impl IncomingBody {
    /// The body of a request that came by HTTP/2 with these fields.
    pub(super) fn request(stream: RecvStream, headers: &HeaderMap) -> Self {
        Self::Http2(Http2Body::new(stream, headers, BodySender::Client))
    }

    /// The body of a response that came by HTTP/2 with these fields.
    pub(super) fn response(stream: RecvStream, headers: &HeaderMap) -> Self {
        Self::Http2(Http2Body::new(stream, headers, BodySender::Primary))
    }
}

impl Body for IncomingBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Request(content) => {
                Pin::new(content).poll_frame(cx).map(|o| o.map(|r| r.map_err(BodyError::Http1)))
            }
            Self::Response(content) => {
                Pin::new(content).poll_frame(cx).map(|o| o.map(|r| r.map_err(BodyError::Http1)))
            }
            Self::Http2(received) => {
                received.poll_frame(cx).map(|o| o.map(|r| r.map_err(BodyError::Http2)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Request(content) => content.is_end_stream(),
            Self::Response(content) => content.is_end_stream(),
            Self::Http2(received) => received.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Request(content) => content.size_hint(),
            Self::Response(content) => content.size_hint(),
            Self::Http2(received) => {
                if received.is_end_stream() {
                    return SizeHint::with_exact(0);
                }
                received.left.map_or_else(SizeHint::default, SizeHint::with_exact)
            }
        }
    }
}

impl Http2Body {
    fn new(stream: RecvStream, headers: &HeaderMap, from: BodySender) -> Self {
        let left = headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok());
        Self { stream, left, data_done: false, ended: Cell::new(false), frames: 0, from }
    }

    fn is_end_stream(&self) -> bool {
        if !self.ended.get() {
            self.ended.set(self.stream.is_end_stream());
        }
        self.ended.get()
    }

    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        match ready!(self.poll(cx)) {
            Some(Err(error)) if self.is_complete(&error) => Poll::Ready(None),
            frame => Poll::Ready(frame),
        }
    }

    /// A server that wants no more of the request says NO_ERROR once its response is whole (RFC 9113,
    /// section 8.1); the h2 crate tells that reset even where the end of the response came before it.
    fn is_complete(&self, error: &h2::Error) -> bool {
        self.from == BodySender::Primary
            && error.is_reset()
            && error.is_remote()
            && error.reason() == Some(Reason::NO_ERROR)
            && self.left.is_none_or(|left| left == 0)
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if self.frames >= FRAMES {
            ready!(poll_budget(cx));
            self.frames = 0;
        }
        self.frames += 1;
        if !self.data_done {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    // Whoever asked for the frame asks for the next only when this one has left,
                    // so that the window opens at the pace of the next hop.
                    self.stream.flow_control().release_capacity(data.len())?;
                    let taken = data.len() as u64;
                    self.left = self.left.map(|left| left.saturating_sub(taken));
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => self.data_done = true,
            }
        }
        match ready!(self.stream.poll_trailers(cx)) {
            Ok(Some(trailers)) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
            Ok(None) => Poll::Ready(None),
            Err(error) => Poll::Ready(Some(Err(error))),
        }
    }
}

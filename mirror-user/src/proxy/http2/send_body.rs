//! Sends a body on a stream, as fast as the peer's window allows. In: a body and the sending half
//! of a stream. Out: whether all of it was sent. At most one frame of the body is held.

use std::{
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http::HeaderMap;
use hyper::body::Body;

use super::BufferLimit;
use crate::proxy::normalize;

/// With which code a stream is reset when its body breaks.
pub(in crate::proxy) trait ResetCode {
    /// The code (RFC 9113, section 7); None where the body ended with its whole connection.
    fn reset_code(&self) -> Option<Reason>;
}

/// Sends a body; a stream that is dropped before the body's end is reset with CANCEL.
pub(in crate::proxy) struct SendBody<B> {
    body: B,
    stream: SendStream<Bytes>,
    /// Of the stream's connection.
    buffer_limit: Rc<BufferLimit>,
    /// Taken from the body, waiting for the peer's window; and whether it is the last.
    waiting: Option<(Bytes, bool)>,
    /// The body went out whole, or the stream is over.
    over: bool,
}

/// Why a body was not sent to its end.
#[derive(Debug, thiserror::Error)]
pub(in crate::proxy) enum Unsent {
    /// The peer reset the stream, or the connection is gone.
    #[error("the peer ended the stream: {0}")]
    Peer(#[source] h2::Error),
    /// The body broke; the stream is still open, to be reset with this code.
    #[error("the body broke: {0:?}")]
    Body(Option<Reason>),
}

impl<B> SendBody<B> {
    pub(in crate::proxy) fn new(
        body: B,
        stream: SendStream<Bytes>,
        buffer_limit: Rc<BufferLimit>,
    ) -> Self {
        Self { body, stream, buffer_limit, waiting: None, over: false }
    }

    /// Resets the stream, even if the body went out whole: nobody waits for the response any more.
    /// A stream that is over stays as it is.
    pub(in crate::proxy) fn reset(&mut self, reason: Reason) {
        self.over = true;
        self.stream.send_reset(reason);
    }
}

impl<B> Drop for SendBody<B> {
    fn drop(&mut self) {
        if !self.over {
            self.reset(Reason::CANCEL);
        }
    }
}

impl<B> Future for SendBody<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: ResetCode,
{
    type Output = Result<(), Unsent>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let sent = ready!(self.send(cx));
        self.over = !matches!(sent, Err(Unsent::Body(_)));
        Poll::Ready(sent)
    }
}

impl<B> SendBody<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: ResetCode,
{
    fn send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Unsent>> {
        let sent = self.send_what_there_is(cx);
        if !matches!(sent, Poll::Ready(Ok(()))) {
            // Who waits is woken by a reset; and what failed may have failed by one, whose code is
            // to be told.
            match self.stream.poll_reset(cx) {
                Poll::Ready(Ok(reason)) => return Poll::Ready(Err(Unsent::Peer(reason.into()))),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Unsent::Peer(error))),
                Poll::Pending => {}
            }
        }
        sent
    }

    fn send_what_there_is(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Unsent>> {
        loop {
            if self.waiting.is_some() {
                ready!(self.await_window(cx))?;
                if let Some((data, last)) = self.waiting.take() {
                    self.buffer_limit.sends(data.len());
                    self.stream.send_data(data, last).map_err(Unsent::Peer)?;
                    if last {
                        return Poll::Ready(Ok(()));
                    }
                }
            }
            ready!(self.buffer_limit.poll_room(cx));
            // The body is asked before the window is: room that nobody fills would be taken from
            // the connection's other streams.
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                None => {
                    self.stream.send_data(Bytes::new(), true).map_err(Unsent::Peer)?;
                    return Poll::Ready(Ok(()));
                }
                Some(Err(broken)) => return Poll::Ready(Err(Unsent::Body(broken.reset_code()))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        let last = self.body.is_end_stream();
                        self.stream.reserve_capacity(1.min(data.len()));
                        self.waiting = Some((data, last));
                    }
                    Err(frame) => {
                        let Ok(mut trailers) = frame.into_trailers() else { continue };
                        normalize::trailers_for_http2(&mut trailers);
                        return Poll::Ready(self.end(trailers));
                    }
                },
            }
        }
    }

    /// A stream whose trailers cannot be sent is still open, and whoever waits for its end is to be told.
    fn end(&mut self, trailers: HeaderMap) -> Result<(), Unsent> {
        if trailers.is_empty() {
            return self.stream.send_data(Bytes::new(), true).map_err(Unsent::Peer);
        }
        let unsent =
            |error: h2::Error| match error.is_reset() || error.is_go_away() || error.is_io() {
                true => Unsent::Peer(error),
                false => Unsent::Body(Some(Reason::INTERNAL_ERROR)),
            };
        self.stream.send_trailers(trailers).map_err(unsent)
    }

    /// Empty frames need no window.
    fn await_window(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Unsent>> {
        if self.waiting.as_ref().is_some_and(|(data, _)| data.is_empty()) {
            return Poll::Ready(Ok(()));
        }
        while self.stream.capacity() == 0 {
            match ready!(self.stream.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(Unsent::Peer(error))),
                // No longer streaming: the reset is told at the next look.
                None => return Poll::Ready(Err(Unsent::Peer(Reason::STREAM_CLOSED.into()))),
            }
        }
        Poll::Ready(Ok(()))
    }
}

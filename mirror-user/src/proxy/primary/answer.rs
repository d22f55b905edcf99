//! The answer's body on its way to the client, and the end of its exchange: the connection goes
//! back to the pool, the outcome is told once.

use std::{
    error::Error,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use super::Upstream;
use crate::{
    outcome::Ending,
    proxy::{
        ending::{End, Ends},
        exchange::Record,
    },
};

/// The body of an answer to a client.
pub(in crate::proxy) enum AnswerBody {
    /// Made here: whole already.
    Local { text: Option<Bytes>, _record: Box<Record> },
    /// From a primary.
    Primary(Box<FromPrimary>),
    /// None: what follows the head is a tunnel.
    Tunnel { _record: Box<Record> },
}

pub(in crate::proxy) struct FromPrimary {
    incoming: Incoming,
    /// None once it went back to the pool.
    upstream: Option<Upstream>,
    record: Record,
    ends: Rc<Ends>,
}

impl AnswerBody {
    pub(in crate::proxy) fn local(text: Bytes, mut record: Record) -> Self {
        record.response_bytes = text.len() as u64;
        record.ending = Ending::Complete;
        let text = (!text.is_empty()).then_some(text);
        Self::Local { text, _record: Box::new(record) }
    }

    pub(in crate::proxy) fn tunnel(record: Record) -> Self {
        Self::Tunnel { _record: Box::new(record) }
    }

    pub(in crate::proxy) fn primary(
        incoming: Incoming,
        upstream: Upstream,
        record: Record,
        ends: Rc<Ends>,
    ) -> Self {
        Self::Primary(Box::new(FromPrimary { incoming, upstream: Some(upstream), record, ends }))
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Local { text, .. } => Poll::Ready(text.take().map(|t| Ok(Frame::data(t)))),
            Self::Primary(answer) => answer.poll(cx),
            Self::Tunnel { .. } => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Local { text, .. } => text.is_none(),
            Self::Primary(answer) => answer.incoming.is_end_stream(),
            Self::Tunnel { .. } => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Local { text, .. } => {
                SizeHint::with_exact(text.as_ref().map_or(0, |t| t.len() as u64))
            }
            Self::Primary(answer) => answer.incoming.size_hint(),
            Self::Tunnel { .. } => SizeHint::with_exact(0),
        }
    }
}

impl FromPrimary {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.incoming).poll_frame(cx);
        match &polled {
            Poll::Pending => {}
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    self.record.response_bytes += data.len() as u64;
                }
                if self.incoming.is_end_stream() {
                    self.complete();
                }
            }
            Poll::Ready(None) => self.complete(),
            Poll::Ready(Some(Err(error))) => self.failed(error),
        }
        polled
    }

    fn complete(&mut self) {
        self.record.ending = Ending::Complete;
        if let Some(upstream) = self.upstream.take() {
            self.record.keep(upstream);
        }
    }

    /// The client is shown the same end that the primary made.
    fn failed(&mut self, error: &(dyn Error + 'static)) {
        self.record.ending = Ending::PrimaryFailed;
        let reset = self.upstream.as_ref().is_some_and(|u| u.wire.was_reset());
        self.ends.set(if reset { End::Reset } else { End::Close });
        tracing::debug!(%error, reset, "the primary ended an answer early");
    }
}

impl Drop for FromPrimary {
    /// hyper never polls a body that ends with its head (204, 304, HEAD).
    fn drop(&mut self) {
        if self.incoming.is_end_stream() {
            self.complete();
        }
    }
}

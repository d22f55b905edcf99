//! The response's body on its way to the client, and the end of its exchange: the connection waits
//! for the client's next request, the outcome is told once.

use std::{
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use h2::Reason;
use hyper::body::{Body, Frame, SizeHint};
use socket2::SockRef;
use tokio::{
    net::tcp::OwnedReadHalf,
    task::AbortHandle,
    time::{Sleep, sleep_until},
};
use tokio_util::io::poll_read_buf;

use super::ExchangeRecord;
use crate::{
    outcome::Ending,
    proxy::{
        body::{BodyError, IncomingBody},
        close::{CloseMode, CloseSlot},
        http2::ResetCode,
        primary::Upstream,
        refusal,
    },
};

/// Bytes read of a tunnel at a time.
const RAW_READ: usize = 16 * 1024;

/// The body of a response to a client.
pub(in crate::proxy) enum ResponseBody {
    /// Made here: whole already.
    Local { text: Option<Bytes>, _record: Box<ExchangeRecord> },
    /// From a primary.
    Primary(Box<FromPrimary>),
    /// From a primary's tunnel (HTTP/1), to a stream.
    Raw(Box<Raw>),
    /// None: what follows the head is a tunnel.
    Tunnel { _record: Box<ExchangeRecord> },
}

/// Bytes of a connection that is no longer HTTP.
pub(in crate::proxy) struct Raw {
    reader: OwnedReadHalf,
    /// What came behind the response's head.
    early: Bytes,
    record: ExchangeRecord,
    /// The other direction; it goes on when the primary has only closed its side.
    sending: AbortHandle,
    ended: bool,
}

impl Drop for Raw {
    /// The client went away, and what it sent last may wait for a primary that does not read.
    fn drop(&mut self) {
        if !self.ended {
            // A socket that refuses the option is closed with FIN: the next best.
            let _ = SockRef::from(self.reader.as_ref()).set_linger(Some(Duration::ZERO));
            self.sending.abort();
        }
    }
}

pub(in crate::proxy) struct FromPrimary {
    incoming: IncomingBody,
    /// None once the client's connection has it again.
    upstream: Option<Upstream>,
    record: ExchangeRecord,
    ends: Rc<CloseSlot>,
    /// When it fires the response must be whole.
    clock: Option<Pin<Box<Sleep>>>,
}

impl ResponseBody {
    pub(in crate::proxy) fn local(text: Bytes, mut record: ExchangeRecord) -> Self {
        record.response_bytes = text.len() as u64;
        record.ending = Ending::Complete;
        let text = (!text.is_empty()).then_some(text);
        Self::Local { text, _record: Box::new(record) }
    }

    pub(in crate::proxy) fn tunnel(record: ExchangeRecord) -> Self {
        Self::Tunnel { _record: Box::new(record) }
    }

    pub(in crate::proxy) fn raw(
        reader: OwnedReadHalf,
        early: Bytes,
        mut record: ExchangeRecord,
        sending: AbortHandle,
    ) -> Self {
        record.ending = Ending::Tunnel;
        Self::Raw(Box::new(Raw { reader, early, record, sending, ended: false }))
    }

    pub(in crate::proxy) fn primary(
        incoming: IncomingBody,
        upstream: Upstream,
        record: ExchangeRecord,
        ends: Rc<CloseSlot>,
    ) -> Self {
        let clock = upstream.deadline.map(|at| Box::pin(sleep_until(at.into())));
        let upstream = Some(upstream);
        Self::Primary(Box::new(FromPrimary { incoming, upstream, record, ends, clock }))
    }
}

/// The primary did not send its response to the end.
#[derive(Debug, thiserror::Error)]
#[error("the primary ended its response early: {0}")]
pub(in crate::proxy) struct PrimaryBodyError(#[source] BodyError);

impl ResetCode for PrimaryBodyError {
    fn reset_code(&self) -> Option<Reason> {
        self.0.reset_code()
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = PrimaryBodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, PrimaryBodyError>>> {
        match self.get_mut() {
            Self::Local { text, .. } => Poll::Ready(text.take().map(|t| Ok(Frame::data(t)))),
            Self::Primary(response) => response.poll(cx),
            Self::Raw(raw) => raw.poll(cx),
            Self::Tunnel { .. } => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Local { text, .. } => text.is_none(),
            Self::Primary(response) => response.incoming.is_end_stream(),
            Self::Raw(_) => false,
            Self::Tunnel { .. } => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Local { text, .. } => {
                SizeHint::with_exact(text.as_ref().map_or(0, |t| t.len() as u64))
            }
            Self::Primary(response) => response.incoming.size_hint(),
            Self::Raw(_) => SizeHint::default(),
            Self::Tunnel { .. } => SizeHint::with_exact(0),
        }
    }
}

impl Raw {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, PrimaryBodyError>>> {
        let data = if self.early.is_empty() {
            let mut data = BytesMut::with_capacity(RAW_READ);
            match ready!(poll_read_buf(Pin::new(&mut self.reader), cx, &mut data)) {
                Ok(0) => {
                    self.ended = true;
                    return Poll::Ready(None);
                }
                Ok(_) => data.freeze(),
                Err(error) => return Poll::Ready(Some(Err(PrimaryBodyError(error.into())))),
            }
        } else {
            std::mem::take(&mut self.early)
        };
        self.record.response_bytes += data.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(data))))
    }
}

impl FromPrimary {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, PrimaryBodyError>>> {
        if let Some(clock) = &mut self.clock
            && clock.as_mut().poll(cx).is_ready()
        {
            self.failed(&BodyError::TimedOut);
            self.ends.set(CloseMode::Reset);
            return Poll::Ready(Some(Err(PrimaryBodyError(BodyError::TimedOut))));
        }
        let polled = Pin::new(&mut self.incoming).poll_frame(cx);
        match &polled {
            Poll::Pending => {}
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    self.record.response_bytes += data.len() as u64;
                } else if let Some(trailers) = frame.trailers_ref() {
                    self.record.grpc_status(trailers);
                }
                if self.incoming.is_end_stream() {
                    self.complete();
                }
            }
            Poll::Ready(None) => self.complete(),
            Poll::Ready(Some(Err(error))) => self.failed(error),
        }
        polled.map(|frame| frame.map(|read| read.map_err(PrimaryBodyError)))
    }

    fn complete(&mut self) {
        let upstream = self.upstream.take();
        self.record.complete(upstream);
    }

    /// The client is shown the same end that the primary made.
    fn failed(&mut self, error: &BodyError) {
        self.record.ending = Ending::PrimaryFailed;
        if let Some(refusal) = refusal::of_response(error) {
            self.record.refuse(refusal, &format!("mirror: the response was cut: {error}"));
        }
        let reset = self.upstream.as_ref().is_some_and(Upstream::was_reset);
        self.ends.set(if reset { CloseMode::Reset } else { CloseMode::Close });
        tracing::debug!(%error, reset, "the primary ended an answer early");
    }
}

impl Drop for FromPrimary {
    /// Nobody asks for a body that ends with its head (204, 304, HEAD).
    fn drop(&mut self) {
        if self.incoming.is_end_stream() {
            self.complete();
        }
    }
}

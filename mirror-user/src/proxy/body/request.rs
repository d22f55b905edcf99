//! The request's body on its way to the primary. The primary alone drives it: each frame that it
//! takes is shown to the copies, which answer nothing.

use std::{
    cell::Cell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::Reason;
use hyper::body::{Body, Frame, SizeHint};

use super::{BodyError, IncomingBody, replay::ReplayBody};
use crate::{
    outcome::DropReason,
    proxy::{
        http2::ResetCode,
        interim::{Gate, Interim},
        tee::CopyWriter,
    },
};

/// How far the request's body has come.
#[derive(Debug, Default)]
pub(in crate::proxy) struct Progress {
    /// Bytes handed to the primary leg.
    pub(in crate::proxy) bytes: Cell<u64>,
    /// The client went away before the body's end.
    pub(in crate::proxy) client_gone: Cell<bool>,
    /// What was wrong with the body, where it is malformed.
    pub(in crate::proxy) malformed: Cell<Option<&'static str>>,
    /// The code that the client reset its stream with (HTTP/2).
    pub(in crate::proxy) reset: Cell<Option<Reason>>,
    /// Attempts at the primary: one, and one for each retry of the request's rule.
    pub(in crate::proxy) attempts: Cell<u32>,
    /// The last of them had a connection to send the request on.
    pub(in crate::proxy) connected: Cell<bool>,
}

/// The body of a request to a primary.
#[derive(Debug)]
pub(in crate::proxy) enum PrimaryBody {
    /// None.
    Empty,
    /// From the client.
    Streamed(Box<Streamed>),
    /// The same, as far as it was not sent before.
    Replayed(Box<ReplayBody>),
}

/// A client's body, which copies are made of.
#[derive(Debug)]
pub(in crate::proxy) struct Streamed {
    incoming: IncomingBody,
    /// Closed until the primary wants the body.
    gate: Option<Gate>,
    copies: Vec<CopyWriter>,
    progress: Rc<Progress>,
}

impl PrimaryBody {
    /// The client's body, shown to `copies` as the primary takes it.
    pub(in crate::proxy) fn new(
        incoming: IncomingBody,
        copies: Vec<CopyWriter>,
        progress: Rc<Progress>,
        interim: &Interim,
    ) -> Self {
        if incoming.is_end_stream() {
            return Self::Empty;
        }
        let gate = interim.gate();
        Self::Streamed(Box::new(Streamed { incoming, gate, copies, progress }))
    }
}

/// The client did not send its body to the end.
#[derive(Debug, thiserror::Error)]
#[error("the client ended the request early: {0}")]
pub(in crate::proxy) struct ClientBodyError(#[source] BodyError);

impl ClientBodyError {
    pub(super) fn into_cause(self) -> BodyError {
        self.0
    }
}

impl ResetCode for ClientBodyError {
    fn reset_code(&self) -> Option<Reason> {
        self.0.reset_code()
    }
}

impl Body for PrimaryBody {
    type Data = Bytes;
    type Error = ClientBodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ClientBodyError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Streamed(body) => body.poll(cx),
            Self::Replayed(body) => body.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Streamed(body) => body.is_end_stream(),
            Self::Replayed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Streamed(body) => body.size_hint(),
            Self::Replayed(body) => body.size_hint(),
        }
    }
}

impl Streamed {
    pub(super) fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }

    /// Whether the client waits to be asked for it.
    pub(super) fn is_gated(&self) -> bool {
        self.gate.is_some()
    }

    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ClientBodyError>>> {
        if let Some(gate) = &mut self.gate {
            ready!(gate.poll_open(cx));
            self.gate = None;
        }
        let polled = Pin::new(&mut self.incoming).poll_frame(cx);
        match &polled {
            Poll::Pending => {}
            Poll::Ready(Some(Ok(frame))) => self.show(frame),
            Poll::Ready(None) => self.finish(),
            Poll::Ready(Some(Err(broken))) => {
                self.progress.client_gone.set(true);
                self.progress.malformed.set(broken.malformed());
                self.cut(DropReason::ClientGone);
            }
        }
        polled.map(|frame| frame.map(|read| read.map_err(ClientBodyError)))
    }

    fn show(&mut self, frame: &Frame<Bytes>) {
        if let Some(data) = frame.data_ref() {
            self.progress.bytes.set(self.progress.bytes.get() + data.len() as u64);
        }
        for copy in &self.copies {
            copy.frame(frame);
        }
        // Nobody asks for more after the last frame of a counted body or after trailers.
        if frame.is_trailers() || self.incoming.is_end_stream() {
            self.finish();
        }
    }

    fn finish(&mut self) {
        for copy in self.copies.drain(..) {
            copy.finish();
        }
    }

    fn cut(&mut self, reason: DropReason) {
        for copy in self.copies.drain(..) {
            copy.cut(reason);
        }
    }
}

impl Drop for Streamed {
    fn drop(&mut self) {
        // A primary of HTTP/1 does not ask for what follows the last byte of a counted body, even
        // where that is no more than the end of a client's stream of HTTP/2.
        if self.incoming.size_hint().exact() == Some(0) {
            self.finish();
        }
        self.cut(DropReason::PrimaryEnded);
    }
}

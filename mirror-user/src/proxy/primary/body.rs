//! The request's body on its way to the primary. The primary alone drives it: each frame that it
//! takes is shown to the copies, which answer nothing.

use std::{
    cell::Cell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use crate::{
    outcome::DropReason,
    proxy::{io::UnderWay, shadow::CopyWriter},
};

/// How far the request's body has come.
#[derive(Debug)]
pub(in crate::proxy) struct Progress {
    /// Bytes handed to the primary leg.
    pub(in crate::proxy) bytes: Cell<u64>,
    /// The client went away before the body's end.
    pub(in crate::proxy) client_gone: Cell<bool>,
    /// An answer may end before the body that it answers: the exchange lasts as long as either.
    _under_way: UnderWay,
}

impl Progress {
    pub(in crate::proxy) fn new(under_way: UnderWay) -> Self {
        Self { bytes: Cell::new(0), client_gone: Cell::new(false), _under_way: under_way }
    }
}

/// The body of a request to a primary.
#[derive(Debug)]
pub(in crate::proxy) enum PrimaryBody {
    /// None.
    Empty,
    /// From the client.
    Streamed(Box<Streamed>),
}

#[derive(Debug)]
pub(in crate::proxy) struct Streamed {
    incoming: Incoming,
    copies: Vec<CopyWriter>,
    progress: Rc<Progress>,
}

impl PrimaryBody {
    /// The client's body, shown to `copies` as the primary takes it.
    pub(in crate::proxy) fn new(
        incoming: Incoming,
        copies: Vec<CopyWriter>,
        progress: Rc<Progress>,
    ) -> Self {
        if incoming.is_end_stream() {
            return Self::Empty;
        }
        Self::Streamed(Box::new(Streamed { incoming, copies, progress }))
    }
}

impl Body for PrimaryBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Streamed(body) => body.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Streamed(body) => body.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Streamed(body) => body.incoming.size_hint(),
        }
    }
}

impl Streamed {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.incoming).poll_frame(cx);
        match &polled {
            Poll::Pending => {}
            Poll::Ready(Some(Ok(frame))) => self.show(frame),
            Poll::Ready(None) => self.finish(),
            Poll::Ready(Some(Err(_))) => {
                self.progress.client_gone.set(true);
                self.cut(DropReason::ClientGone);
            }
        }
        polled
    }

    fn show(&mut self, frame: &Frame<Bytes>) {
        if let Some(data) = frame.data_ref() {
            self.progress.bytes.set(self.progress.bytes.get() + data.len() as u64);
        }
        for copy in &self.copies {
            copy.frame(frame);
        }
        // hyper polls again neither after the last frame of a counted body nor after trailers.
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
        self.cut(DropReason::PrimaryEnded);
    }
}

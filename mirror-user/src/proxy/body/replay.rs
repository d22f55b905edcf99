//! A request's body that may have to be sent again (HTTPRouteRule, `retry`). In: the body as its client
//! sends it. Out: a body for each attempt, which begins with what earlier attempts took and goes on with
//! what the client sends. What is kept for that is bounded, and charged to the client's connection; a body
//! that is longer is sent once, as it comes. Copies are shown each frame once, when it comes.

use std::{
    cell::RefCell,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::HeaderMap;
use hyper::body::{Frame, SizeHint};

use super::{
    BodyError, PrimaryBody,
    request::{ClientBodyError, Streamed},
};
use crate::memory::MemoryCharge;

/// Bytes of a body that are kept for further attempts at most.
const KEPT: usize = 64 * 1024;

/// What room is made for at first, in bytes.
const FIRST: usize = 512;

/// Bytes of what was kept that are given at a time.
const PIECE: usize = 16 * 1024;

/// A body and what attempts have taken of it; None: there is none.
#[derive(Debug)]
pub(in crate::proxy) struct Replay(Option<Rc<RefCell<Source>>>);

/// The body of one attempt.
#[derive(Debug)]
pub(in crate::proxy) struct ReplayBody {
    source: Rc<RefCell<Source>>,
    attempt: u32,
}

#[derive(Debug)]
struct Source {
    body: Box<Streamed>,
    kept: Vec<u8>,
    trailers: Option<HeaderMap>,
    charge: MemoryCharge,
    /// A frame that came between two attempts, for the next.
    ahead: Option<Frame<Bytes>>,
    /// The client has ended it.
    ended: bool,
    /// All that was taken of it is kept.
    complete: bool,
    /// The number of the attempt in progress; earlier ones get nothing more.
    attempt: u32,
    /// Bytes of what was kept that it has got, or that were kept when it got them.
    given: usize,
    trailers_given: bool,
    /// No attempt follows: nothing is kept for one.
    last: bool,
}

impl Replay {
    /// Of a body that nothing was taken of. `charge`: of its client's connection, and nothing yet.
    pub(in crate::proxy) fn new(body: PrimaryBody, charge: MemoryCharge) -> Self {
        let PrimaryBody::Streamed(body) = body else { return Self(None) };
        let source = Source {
            body,
            kept: Vec::new(),
            trailers: None,
            charge,
            ahead: None,
            ended: false,
            complete: true,
            attempt: 0,
            given: 0,
            trailers_given: false,
            last: false,
        };
        Self(Some(Rc::new(RefCell::new(source))))
    }

    /// The body for the next attempt, which is the `last` one, or not.
    pub(in crate::proxy) fn attempt(&self, last: bool) -> PrimaryBody {
        let Some(source) = &self.0 else { return PrimaryBody::Empty };
        let attempt = {
            let mut source = source.borrow_mut();
            source.attempt += 1;
            (source.given, source.trailers_given, source.last) = (0, false, last);
            source.attempt
        };
        PrimaryBody::Replayed(Box::new(ReplayBody { source: Rc::clone(source), attempt }))
    }

    /// Whether another attempt can send all that was sent.
    pub(in crate::proxy) fn is_complete(&self) -> bool {
        self.0.as_ref().is_none_or(|source| source.borrow().complete)
    }

    /// Ready when the client has ended the request early; asked between two attempts. What the client sends
    /// meanwhile is taken as far as one frame.
    pub(in crate::proxy) fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<BodyError> {
        let Some(source) = &self.0 else { return Poll::Pending };
        let source = &mut *source.borrow_mut();
        // A client that waits for 100 is not asked for its body by anybody but a primary.
        if source.ended || source.ahead.is_some() || source.body.is_gated() {
            return Poll::Pending;
        }
        match source.body.poll(cx) {
            Poll::Pending => {}
            Poll::Ready(Some(Ok(frame))) => source.ahead = Some(frame),
            Poll::Ready(None) => source.ended = true,
            Poll::Ready(Some(Err(broken))) => return Poll::Ready(broken.into_cause()),
        }
        Poll::Pending
    }
}

impl Drop for Replay {
    /// The attempt in progress was the last.
    fn drop(&mut self) {
        if let Some(source) = &self.0 {
            let mut source = source.borrow_mut();
            source.last = true;
            source.forget_given();
        }
    }
}

impl ReplayBody {
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ClientBodyError>>> {
        let source = &mut *self.source.borrow_mut();
        if self.attempt != source.attempt {
            // Whoever sent it is about to go, and must not take what another attempt sends.
            return Poll::Pending;
        }
        let kept = source.kept.get(source.given..).unwrap_or_default();
        if !kept.is_empty() {
            let piece = Bytes::copy_from_slice(&kept[..kept.len().min(PIECE)]);
            source.given += piece.len();
            source.forget_given();
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        if source.ended {
            let trailers = source.trailers.as_ref().filter(|_| !source.trailers_given);
            source.trailers_given = true;
            return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers.clone()))));
        }
        let polled = match source.ahead.take() {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None => source.body.poll(cx),
        };
        match &polled {
            Poll::Pending => {}
            Poll::Ready(Some(Ok(frame))) => source.take(frame),
            Poll::Ready(None) => source.ended = true,
            Poll::Ready(Some(Err(_))) => source.give_up(),
        }
        polled
    }

    pub(super) fn is_end_stream(&self) -> bool {
        let source = self.source.borrow();
        let trailers = source.trailers.is_some() && !source.trailers_given;
        let ended = source.ended || source.body.is_end_stream();
        source.left() == 0 && source.ahead.is_none() && !trailers && ended
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        let source = self.source.borrow();
        let (kept, coming) = (source.left(), source.body.size_hint());
        let mut whole = SizeHint::new();
        whole.set_lower(coming.lower() + kept);
        if let Some(most) = coming.upper() {
            whole.set_upper(most + kept);
        }
        whole
    }
}

impl Source {
    /// Bytes of what has come that the attempt is yet to get.
    fn left(&self) -> u64 {
        let ahead = self.ahead.as_ref().and_then(Frame::data_ref).map_or(0, Bytes::len);
        (self.kept.len().saturating_sub(self.given) + ahead) as u64
    }

    /// A frame that has come, and that the attempt takes.
    fn take(&mut self, frame: &Frame<Bytes>) {
        let keeps = self.complete && !self.last;
        let kept = match (frame.data_ref(), frame.trailers_ref()) {
            (Some(data), _) => keeps && self.keep(data),
            (None, Some(trailers)) => keeps && self.keep_trailers(trailers),
            (None, None) => keeps,
        };
        if !kept {
            self.give_up();
        }
        (self.given, self.trailers_given) = (self.kept.len(), frame.is_trailers());
        self.ended = frame.is_trailers() || self.body.is_end_stream();
    }

    /// False if it is too much.
    fn keep(&mut self, data: &[u8]) -> bool {
        let length = self.kept.len() + data.len();
        // A body that says that it is too long is not kept in part.
        let known = self.body.size_hint().lower().saturating_add(length as u64);
        if known > KEPT as u64 {
            return false;
        }
        if length > self.kept.capacity() {
            let room = length.next_power_of_two().clamp(FIRST, KEPT);
            if self.charge.grow_to(room).is_err() {
                return false;
            }
            self.kept.reserve_exact(room - self.kept.len());
        }
        self.kept.extend_from_slice(data);
        true
    }

    fn keep_trailers(&mut self, trailers: &HeaderMap) -> bool {
        let size: usize = trailers.iter().map(|(n, v)| n.as_str().len() + v.len() + 104).sum();
        let fits = self.charge.grow_to(self.charge.bytes() + size).is_ok();
        self.trailers = fits.then(|| trailers.clone());
        fits
    }

    /// No other attempt can send all of it.
    fn give_up(&mut self) {
        self.complete = false;
        self.trailers = None;
        self.forget();
    }

    /// Of the last attempt, which has got all that was kept.
    fn forget_given(&mut self) {
        if self.last && self.given == self.kept.len() {
            self.forget();
        }
    }

    fn forget(&mut self) {
        self.kept = Vec::new();
        self.charge.shrink_to(0);
    }
}

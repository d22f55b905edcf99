//! A copy in flight: the writer that the primary leg shows frames to, and the body that a shadow
//! connection reads. Between them a queue within the budgets, never waited for: a reader that is
//! too slow has its copy cut.

use std::{
    cell::RefCell,
    collections::VecDeque,
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use hyper::body::{Body, Frame};

use super::{
    Ticket,
    budget::{Charge, Purse},
};
use crate::{
    outcome::DropReason,
    proxy::{http2::ResetCode, io::READ_BUFFER},
};

/// Frames below this size are copied into slabs: a held one-byte frame would pin the whole read
/// buffer that it points into (5,000 of them held 20 MiB). Also the largest slab.
const SMALL: usize = 16 * 1024;

/// The smallest slab, in bytes.
const SLAB: usize = 256;

/// A copy on its way to a shadow connection, with a head in the form that this connection speaks.
pub(super) struct Copy<H> {
    pub(super) head: H,
    pub(super) body: CopyBody,
    pub(super) ticket: Ticket,
    /// For the head.
    pub(super) charge: Charge,
    /// How often it came back unsent.
    pub(super) moves: u8,
}

impl<H> Copy<H> {
    pub(super) fn map<G>(self, map: impl FnOnce(H) -> G) -> Copy<G> {
        let Self { head, body, ticket, charge, moves } = self;
        Copy { head: map(head), body, ticket, charge, moves }
    }
}

/// The primary leg's end of a copy. Nothing here waits, fails or answers.
#[derive(Debug)]
pub(in crate::proxy) struct CopyWriter(Rc<Shared>);

/// The shadow leg's end of a copy.
#[derive(Debug)]
pub(super) struct CopyBody(Option<Rc<Shared>>);

/// Watches a copy whose body is with its connection.
pub(super) struct Watch(Option<Rc<Shared>>);

/// The copy was cut: it must not end as if it were whole.
#[derive(Debug, thiserror::Error)]
#[error("the copy was cut: {}", .0.label())]
pub(super) struct Cut(DropReason);

impl ResetCode for Cut {
    fn reset_code(&self) -> Option<h2::Reason> {
        Some(h2::Reason::CANCEL)
    }
}

#[derive(Debug)]
struct Shared {
    state: RefCell<State>,
    purse: Arc<Purse>,
}

#[derive(Debug)]
struct State {
    queue: VecDeque<Held>,
    end: End,
    /// Bytes that the reader took.
    taken: u64,
    reader: Option<Waker>,
    watcher: Option<Waker>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Open,
    Whole,
    Cut(DropReason),
    /// The reader has gone; nothing is kept for it.
    Unread,
}

#[derive(Debug)]
enum Held {
    Slab(BytesMut, Charge),
    Large(Bytes, Charge),
    Trailers(HeaderMap, #[expect(dead_code, reason = "held for its Drop")] Charge),
}

impl CopyWriter {
    /// A frame that the primary took.
    pub(in crate::proxy) fn frame(&self, frame: &Frame<Bytes>) {
        if self.0.state.borrow().end != End::Open {
            return;
        }
        let held = match (frame.data_ref(), frame.trailers_ref()) {
            (Some(data), _) => self.0.hold_data(data),
            (None, Some(trailers)) => self.0.hold_trailers(trailers),
            (None, None) => Ok(()),
        };
        match held {
            Ok(()) => self.0.wake_reader(),
            Err(reason) => self.0.end(End::Cut(reason)),
        }
    }

    /// The body is whole.
    pub(in crate::proxy) fn finish(self) {
        self.0.end(End::Whole);
    }

    /// The body ends before its end.
    pub(in crate::proxy) fn cut(self, reason: DropReason) {
        self.0.end(End::Cut(reason));
    }
}

impl Drop for CopyWriter {
    /// A no-op after `finish` or `cut`.
    fn drop(&mut self) {
        self.0.end(End::Cut(DropReason::PrimaryEnded));
    }
}

impl Shared {
    fn hold_data(&self, data: &Bytes) -> Result<(), DropReason> {
        if data.is_empty() {
            return Ok(());
        }
        let queue = &mut self.state.borrow_mut().queue;
        if data.len() >= SMALL {
            let charge = self.purse.charge(data.len().max(READ_BUFFER))?;
            queue.push_back(Held::Large(data.clone(), charge));
            return Ok(());
        }
        let grown = match queue.back_mut() {
            Some(Held::Slab(slab, _)) if slab.capacity() - slab.len() >= data.len() => {
                slab.extend_from_slice(data);
                return Ok(());
            }
            Some(Held::Slab(slab, _)) => (slab.capacity() * 2).min(SMALL),
            _ => SLAB,
        };
        let size = grown.max(data.len());
        let charge = self.purse.charge(size)?;
        let mut slab = BytesMut::with_capacity(size);
        slab.extend_from_slice(data);
        queue.push_back(Held::Slab(slab, charge));
        Ok(())
    }

    fn hold_trailers(&self, trailers: &HeaderMap) -> Result<(), DropReason> {
        let size = trailers.iter().map(|(n, v)| n.as_str().len() + v.len() + 104).sum();
        let charge = self.purse.charge(size)?;
        self.state.borrow_mut().queue.push_back(Held::Trailers(trailers.clone(), charge));
        Ok(())
    }

    /// The first end counts.
    fn end(&self, end: End) {
        let mut state = self.state.borrow_mut();
        if state.end != End::Open {
            return;
        }
        state.end = end;
        if end != End::Whole {
            state.queue = VecDeque::new();
        }
        let wakers = [state.reader.take(), state.watcher.take()];
        drop(state);
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    fn wake_reader(&self) {
        let waker = self.state.borrow_mut().reader.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl CopyBody {
    /// No body.
    pub(super) fn empty() -> Self {
        Self(None)
    }

    /// A body that pays from `purse`, and its writer.
    pub(super) fn stream(purse: Arc<Purse>) -> (Self, Option<CopyWriter>) {
        let state =
            State { queue: VecDeque::new(), end: End::Open, taken: 0, reader: None, watcher: None };
        let shared = Rc::new(Shared { state: RefCell::new(state), purse });
        (Self(Some(Rc::clone(&shared))), Some(CopyWriter(shared)))
    }

    pub(super) fn watch(&self) -> Watch {
        Watch(self.0.clone())
    }
}

impl Drop for CopyBody {
    fn drop(&mut self) {
        if let Some(shared) = &self.0 {
            shared.end(End::Unread);
        }
    }
}

impl Body for CopyBody {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let Some(shared) = &self.0 else { return Poll::Ready(None) };
        let mut state = shared.state.borrow_mut();
        if let Some(held) = state.queue.pop_front() {
            let frame = held.into_frame();
            state.taken += frame.data_ref().map_or(0, |d| d.len() as u64);
            return Poll::Ready(Some(Ok(frame)));
        }
        match state.end {
            End::Whole => Poll::Ready(None),
            End::Cut(reason) => Poll::Ready(Some(Err(Cut(reason)))),
            End::Open | End::Unread => {
                state.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(|shared| {
            let state = shared.state.borrow();
            state.end == End::Whole && state.queue.is_empty()
        })
    }
}

impl Held {
    fn into_frame(self) -> Frame<Bytes> {
        match self {
            Self::Slab(slab, charge) => Frame::data(Bytes::from_owner(Paid(slab, charge))),
            Self::Large(data, charge) => Frame::data(Bytes::from_owner(Paid(data, charge))),
            Self::Trailers(trailers, _) => Frame::trailers(trailers),
        }
    }
}

/// Bytes that stay charged until they are written.
struct Paid<T>(T, #[expect(dead_code, reason = "held for its Drop")] Charge);

impl<T: AsRef<[u8]>> AsRef<[u8]> for Paid<T> {
    fn as_ref(&self) -> &[u8] {
        self.0.as_ref()
    }
}

impl Watch {
    /// Waits until the copy is cut; for ever if it never is.
    pub(super) async fn cut(&self) -> DropReason {
        poll_fn(|cx| self.poll_cut(cx)).await
    }

    /// The same, for one who waits for other things as well.
    pub(super) fn poll_cut(&self, cx: &Context<'_>) -> Poll<DropReason> {
        let Some(shared) = &self.0 else { return Poll::Pending };
        let mut state = shared.state.borrow_mut();
        if let End::Cut(reason) = state.end {
            return Poll::Ready(reason);
        }
        state.watcher = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Why the copy was cut, if it was.
    pub(super) fn cut_reason(&self) -> Option<DropReason> {
        match self.0.as_ref()?.state.borrow().end {
            End::Cut(reason) => Some(reason),
            End::Open | End::Whole | End::Unread => None,
        }
    }

    /// Whether all of the body was handed to the connection.
    pub(super) fn is_taken_whole(&self) -> bool {
        self.0.as_ref().is_none_or(|shared| {
            let state = shared.state.borrow();
            state.end == End::Whole && state.queue.is_empty()
        })
    }

    /// Bytes of the body that the connection took.
    pub(super) fn taken(&self) -> u64 {
        self.0.as_ref().map_or(0, |shared| shared.state.borrow().taken)
    }
}

#[cfg(test)]
mod tests;

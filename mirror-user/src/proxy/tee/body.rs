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
    time::Instant,
};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use hyper::body::{Body, Frame};

use super::budget::{BudgetCharge, CopyBudget};
use crate::{
    outcome::DropReason,
    proxy::{http2::ResetCode, io::READ_BUFFER},
};

/// Frames below this size are copied into slabs: a held one-byte frame would pin the whole read
/// buffer that it points into (5,000 of them held 20 MiB). Also the largest slab.
const SMALL: usize = 16 * 1024;

/// The smallest slab, in bytes.
const SLAB: usize = 256;

/// The primary leg's end of a copy. Nothing here waits, fails or answers.
#[derive(Debug)]
pub(in crate::proxy) struct CopyWriter(Rc<Shared>);

/// The shadow leg's end of a copy.
#[derive(Debug)]
pub(in crate::proxy) struct CopyBody(Option<Rc<Shared>>);

/// Watches a copy whose body is with its connection.
pub(in crate::proxy) struct CopyStatus(Option<Rc<Shared>>);

/// The copy was cut: it must not end as if it were whole.
#[derive(Debug, thiserror::Error)]
#[error("the copy was cut: {}", .0.label())]
pub(in crate::proxy) struct Cut(DropReason);

impl ResetCode for Cut {
    fn reset_code(&self) -> Option<h2::Reason> {
        Some(h2::Reason::CANCEL)
    }
}

#[derive(Debug)]
struct Shared {
    state: RefCell<State>,
    copy_budget: Arc<CopyBudget>,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<QueuedFrame>,
    end: BodyEnd,
    /// Bytes that the reader took.
    taken: u64,
    /// The same when [`CopyStatus::waits_since`] was asked last.
    noted: u64,
    /// Since then the reader has found nothing to take: it had all that there was.
    kept_up: bool,
    /// When the body came to its end.
    ended: Option<Instant>,
    reader: Option<Waker>,
    watcher: Option<Waker>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum BodyEnd {
    #[default]
    Open,
    Whole,
    Cut(DropReason),
    /// The reader has gone; nothing is kept for it.
    Unread,
}

#[derive(Debug)]
enum QueuedFrame {
    Slab(BytesMut, BudgetCharge),
    Large(Bytes, BudgetCharge),
    Trailers(HeaderMap, #[expect(dead_code, reason = "held for its Drop")] BudgetCharge),
}

impl CopyWriter {
    /// A frame that the primary took.
    pub(in crate::proxy) fn frame(&self, frame: &Frame<Bytes>) {
        if self.0.state.borrow().end != BodyEnd::Open {
            return;
        }
        let held = match (frame.data_ref(), frame.trailers_ref()) {
            (Some(data), _) => self.0.hold_data(data),
            (None, Some(trailers)) => self.0.hold_trailers(trailers),
            (None, None) => Ok(()),
        };
        match held {
            Ok(()) => self.0.wake_reader(),
            Err(reason) => self.0.end(BodyEnd::Cut(reason)),
        }
    }

    /// The body is whole.
    pub(in crate::proxy) fn finish(self) {
        self.0.end(BodyEnd::Whole);
    }

    /// The body ends before its end.
    pub(in crate::proxy) fn cut(self, reason: DropReason) {
        self.0.end(BodyEnd::Cut(reason));
    }
}

impl Drop for CopyWriter {
    /// A no-op after `finish` or `cut`.
    fn drop(&mut self) {
        self.0.end(BodyEnd::Cut(DropReason::PrimaryEnded));
    }
}

impl Shared {
    fn hold_data(&self, data: &Bytes) -> Result<(), DropReason> {
        if data.is_empty() {
            return Ok(());
        }
        let queue = &mut self.state.borrow_mut().queue;
        // Frames of half a buffer (HTTP/2's are, unless their peers agree on other sizes) pin twice what
        // they are. A copy that keeps up holds one or two; one that is behind holds them copied.
        let refers = if queue.is_empty() { data.len() >= SMALL } else { data.len() > SMALL };
        if refers {
            let charge = self.copy_budget.charge(data.len().max(READ_BUFFER))?;
            queue.push_back(QueuedFrame::Large(data.clone(), charge));
            return Ok(());
        }
        let grown = match queue.back_mut() {
            Some(QueuedFrame::Slab(slab, _)) if slab.capacity() - slab.len() >= data.len() => {
                slab.extend_from_slice(data);
                return Ok(());
            }
            Some(QueuedFrame::Slab(slab, _)) => (slab.capacity() * 2).min(SMALL),
            _ => SLAB,
        };
        let size = grown.max(data.len());
        let charge = self.copy_budget.charge(size)?;
        let mut slab = BytesMut::with_capacity(size);
        slab.extend_from_slice(data);
        queue.push_back(QueuedFrame::Slab(slab, charge));
        Ok(())
    }

    fn hold_trailers(&self, trailers: &HeaderMap) -> Result<(), DropReason> {
        let size = trailers.iter().map(|(n, v)| n.as_str().len() + v.len() + 104).sum();
        let charge = self.copy_budget.charge(size)?;
        self.state.borrow_mut().queue.push_back(QueuedFrame::Trailers(trailers.clone(), charge));
        Ok(())
    }

    /// The first end counts.
    fn end(&self, end: BodyEnd) {
        let mut state = self.state.borrow_mut();
        if state.end != BodyEnd::Open {
            return;
        }
        state.end = end;
        if end == BodyEnd::Whole {
            state.ended = Some(Instant::now());
        } else {
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
    pub(in crate::proxy) fn empty() -> Self {
        Self(None)
    }

    /// A body that pays from `copy_budget`, and its writer.
    pub(in crate::proxy) fn stream(copy_budget: Arc<CopyBudget>) -> (Self, Option<CopyWriter>) {
        let shared = Rc::new(Shared { state: RefCell::default(), copy_budget });
        (Self(Some(Rc::clone(&shared))), Some(CopyWriter(shared)))
    }

    pub(in crate::proxy) fn status(&self) -> CopyStatus {
        CopyStatus(self.0.clone())
    }
}

impl Drop for CopyBody {
    fn drop(&mut self) {
        if let Some(shared) = &self.0 {
            shared.end(BodyEnd::Unread);
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
            BodyEnd::Whole => Poll::Ready(None),
            BodyEnd::Cut(reason) => Poll::Ready(Some(Err(Cut(reason)))),
            BodyEnd::Open | BodyEnd::Unread => {
                state.kept_up = true;
                state.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(|shared| {
            let state = shared.state.borrow();
            state.end == BodyEnd::Whole && state.queue.is_empty()
        })
    }
}

impl QueuedFrame {
    fn into_frame(self) -> Frame<Bytes> {
        match self {
            Self::Slab(slab, charge) => Frame::data(Bytes::from_owner(ChargedBytes(slab, charge))),
            Self::Large(data, charge) => Frame::data(Bytes::from_owner(ChargedBytes(data, charge))),
            Self::Trailers(trailers, _) => Frame::trailers(trailers),
        }
    }
}

/// Bytes that stay charged until they are written.
struct ChargedBytes<T>(T, #[expect(dead_code, reason = "held for its Drop")] BudgetCharge);

impl<T: AsRef<[u8]>> AsRef<[u8]> for ChargedBytes<T> {
    fn as_ref(&self) -> &[u8] {
        self.0.as_ref()
    }
}

impl CopyStatus {
    /// Waits until the copy is cut; for ever if it never is.
    pub(in crate::proxy) async fn cut(&self) -> DropReason {
        poll_fn(|cx| self.poll_cut(cx)).await
    }

    /// The same, for one who waits for other things as well.
    pub(in crate::proxy) fn poll_cut(&self, cx: &Context<'_>) -> Poll<DropReason> {
        let Some(shared) = &self.0 else { return Poll::Pending };
        let mut state = shared.state.borrow_mut();
        if let BodyEnd::Cut(reason) = state.end {
            return Poll::Ready(reason);
        }
        state.watcher = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Why the copy was cut, if it was.
    pub(in crate::proxy) fn cut_reason(&self) -> Option<DropReason> {
        match self.0.as_ref()?.state.borrow().end {
            BodyEnd::Cut(reason) => Some(reason),
            BodyEnd::Open | BodyEnd::Whole | BodyEnd::Unread => None,
        }
    }

    /// Whether all of the body was handed to the connection.
    pub(in crate::proxy) fn is_taken_whole(&self) -> bool {
        self.0.as_ref().is_none_or(|shared| {
            let state = shared.state.borrow();
            state.end == BodyEnd::Whole && state.queue.is_empty()
        })
    }

    /// Since when the shadow is waited for and not the client, if that is later than was known; asked
    /// when the copy would be late. An upload may last as long as its client likes: while it goes on,
    /// and the shadow takes what there is, its time begins again.
    pub(in crate::proxy) fn waits_since(&self) -> Option<Instant> {
        let mut state = self.0.as_ref()?.state.borrow_mut();
        match state.end {
            BodyEnd::Open => {
                let went_on = state.taken > state.noted && state.kept_up;
                (state.noted, state.kept_up) = (state.taken, false);
                went_on.then(Instant::now)
            }
            BodyEnd::Whole => state.ended.take(),
            BodyEnd::Cut(_) | BodyEnd::Unread => None,
        }
    }

    /// Bytes of the body that the connection took.
    pub(in crate::proxy) fn taken(&self) -> u64 {
        self.0.as_ref().map_or(0, |shared| shared.state.borrow().taken)
    }
}

#[cfg(test)]
mod tests;

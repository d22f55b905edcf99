//! Copies without content on one connection, as many on their way as its [`Post`] takes. In: copies,
//! from the letter box. Out: an outcome for each, and what becomes of the connection.

use std::{
    collections::VecDeque,
    rc::Rc,
    task::{Context, Poll},
    time::Instant,
};

use super::{copy::Copy, head::SingleHead, lane::Lane, post::Post};
use crate::{
    outcome::{CopyOutcome, DropReason, UnknownReason},
    proxy::http1::{Error, Left, Span},
};

/// How often a copy may move to another connection.
const MOVES: u8 = 3;

/// What becomes of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// All is answered; it may carry more.
    Next,
    /// It is over; the shadow ended it properly, or we did.
    Over,
}

/// Copies on their way.
pub(super) struct Pipeline<'a> {
    lane: &'a Rc<Lane>,
    post: &'a Post,
    sent: VecDeque<Sent>,
    /// Taken from the letter box so far.
    taken: u32,
    /// The first copy.
    waiting: Option<Copy<SingleHead>>,
    began: Instant,
}

struct Sent {
    copy: Copy<SingleHead>,
    span: Span,
    at: Instant,
}

impl<'a> Pipeline<'a> {
    /// `taken`: copies that the connection carried before.
    pub(super) fn new(
        lane: &'a Rc<Lane>,
        post: &'a Post,
        first: Copy<SingleHead>,
        taken: u32,
    ) -> Self {
        Self { lane, post, sent: VecDeque::new(), taken, waiting: Some(first), began: post.since() }
    }

    /// Sends what there is and reads what comes, until nothing is on its way.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Fate> {
        self.post.listen(cx.waker());
        loop {
            self.queue();
            // A server that closes may have answered before: that is read first.
            let _ = self.post.connection.poll_flush(cx);
            let Some(oldest) = self.sent.front() else { return Poll::Ready(self.rest()) };
            match self.post.connection.poll_passed(cx, &oldest.copy.head.printed) {
                Poll::Pending if self.post.is_late() => {
                    self.give_up();
                    return Poll::Ready(Fate::Over);
                }
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(persists)) => {
                    self.settle();
                    if !persists {
                        self.lane.answered(true);
                        self.end(None);
                        return Poll::Ready(Fate::Over);
                    }
                }
                Poll::Ready(Err(error)) => {
                    let unsent = self.post.connection.left(oldest.span) == Left::Nothing;
                    if !unsent {
                        self.lane.answered(false);
                    }
                    self.end(Some(&error));
                    return Poll::Ready(Fate::Over);
                }
            }
        }
    }

    /// Copies taken from the letter box so far.
    pub(super) fn taken(&self) -> u32 {
        self.taken
    }

    fn rest(&self) -> Fate {
        if self.post.is_last(self.taken) { Fate::Over } else { Fate::Next }
    }

    fn queue(&mut self) {
        while self.post.connection.has_room() {
            let Some((copy, at)) = self.next() else { return };
            // One that bears no company was handed over only while the connection was idle.
            self.taken += 1;
            let last = self.post.is_last(self.taken);
            let span = self.post.connection.queue(&copy.head.printed, last);
            self.sent.push_back(Sent { at, copy, span });
        }
    }

    /// The next copy, and since when this connection has it: those that the lane handed over, then
    /// those that wait for any connection.
    fn next(&mut self) -> Option<(Copy<SingleHead>, Instant)> {
        if let Some(copy) = self.waiting.take() {
            return Some((copy, self.began));
        }
        if let Some(copy) = self.post.next() {
            let at = copy.ticket.started();
            return Some((copy, at));
        }
        if !self.lane.is_awaited() {
            return None;
        }
        let now = Instant::now();
        let copy = self.lane.next_behind(self.post, now)?;
        self.post.enter(&copy, now);
        Some((copy, now))
    }

    /// The oldest is answered.
    fn settle(&mut self) {
        let Some(sent) = self.sent.pop_front() else { return };
        self.post.answered(self.sent.front().map(|next| next.at));
        sent.copy.ticket.settle(CopyOutcome::Delivered, 0);
    }

    /// The shadow ended the connection: with the last answer, or (`error`) before the next.
    fn end(&mut self, error: Option<&Error>) {
        self.post.close();
        let unsent = self.waiting.take().into_iter().chain(std::iter::from_fn(|| self.post.next()));
        let unsent: Vec<_> = unsent.collect();
        // The oldest may have caused a close without a word; what is behind it was lost to it.
        if self.sent.len() > usize::from(error.is_some()) {
            self.lane.do_not_pipeline();
        }
        let malformed = error.is_some_and(Error::is_malformed);
        let why = if malformed { UnknownReason::Malformed } else { UnknownReason::Closed };
        for Sent { copy, span, .. } in self.sent.drain(..) {
            match self.post.connection.left(span) {
                Left::Nothing => again(self.lane, copy),
                // A server that said close must not process what lies behind (RFC 9112, section
                // 9.6). Some do (Node); these are safe methods.
                _ if error.is_none() => again(self.lane, copy),
                Left::Some => {
                    copy.ticket.settle(CopyOutcome::Dropped(DropReason::ShadowClosed), 0);
                }
                Left::All => copy.ticket.settle(CopyOutcome::Unknown(why), 0),
            }
        }
        unsent.into_iter().for_each(|copy| again(self.lane, copy));
    }

    /// No answer came in time: what is on its way is not waited for any more.
    fn give_up(&mut self) {
        self.post.close();
        self.post.connection.abort();
        for Sent { copy, span, .. } in self.sent.drain(..) {
            let whole = self.post.connection.left(span) == Left::All;
            copy.ticket.settle(
                if whole {
                    CopyOutcome::Unknown(UnknownReason::Timeout)
                } else {
                    CopyOutcome::Dropped(DropReason::SendTimeout)
                },
                0,
            );
        }
        let unsent = self.waiting.take().into_iter().chain(std::iter::from_fn(|| self.post.next()));
        for copy in unsent {
            copy.ticket.settle(CopyOutcome::Dropped(DropReason::SendTimeout), 0);
        }
    }
}

/// To another connection, by itself.
fn again(lane: &Rc<Lane>, mut copy: Copy<SingleHead>) {
    if copy.moves >= MOVES {
        return copy.ticket.settle(CopyOutcome::Dropped(DropReason::ShadowClosed), 0);
    }
    copy.moves += 1;
    copy.head.pipelined = false;
    lane.take_single(copy);
}

//! One connection of HTTP/1 in a pool. In: copies, which the pool puts into its queue. Out: what its task is to
//! do next, and what the pool has to know of the connection to choose it. Copies without content may
//! follow each other before the first has its response (RFC 9112, section 9.3.2): one system call then
//! sends and reads many.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
    task::{Poll, Waker},
    time::{Duration, Instant},
};

use super::{connection_task::ShadowConnection, copy::Copy, head::Http1Head};
use crate::proxy::read_limit::ReadLimit;

/// Responses that a connection must have given before copies are pipelined on it: a server that closes
/// after each is not to lose any.
const PROOF: u32 = 2;

/// Copies in flight on one connection, at most.
pub(super) const DEPTH: u32 = 32;

/// None is added while the oldest has waited this long for its response.
const SLOW: Duration = Duration::from_millis(50);

/// Copies that a connection carries once some were pipelined: servers close after a number of
/// requests (100 or 1,000 are usual), and what is in flight then is lost.
pub(super) const LIFE: u32 = 100;

pub(super) struct PooledConnection {
    pub(super) connection: Rc<ShadowConnection>,
    /// What is read of it.
    pub(super) limit: Rc<ReadLimit>,
    /// Handed over and not yet sent.
    inbox: RefCell<VecDeque<Copy<Http1Head>>>,
    /// Handed over, and without a whole response yet.
    outstanding: Cell<u32>,
    /// Handed over so far.
    accepted: Cell<u32>,
    responses: Cell<u32>,
    /// It carries one that bears no company.
    exclusive: Cell<bool>,
    /// Some were pipelined.
    pipelined: Cell<bool>,
    /// See [`PooledConnection::since`].
    since: Cell<Instant>,
    closed: Cell<bool>,
    timed_out: Cell<bool>,
    task: RefCell<Option<Waker>>,
}

/// What a connection's connection task is to do.
pub(super) enum NextAction {
    Send(Copy<Http1Head>),
    Close,
}

impl PooledConnection {
    pub(super) fn new(connection: Rc<ShadowConnection>, limit: Rc<ReadLimit>) -> Rc<Self> {
        Rc::new(Self {
            connection,
            limit,
            inbox: RefCell::default(),
            outstanding: Cell::default(),
            accepted: Cell::default(),
            responses: Cell::default(),
            exclusive: Cell::default(),
            pipelined: Cell::default(),
            since: Cell::new(Instant::now()),
            closed: Cell::default(),
            timed_out: Cell::default(),
            task: RefCell::default(),
        })
    }

    /// Hands over a copy.
    pub(super) fn enqueue(&self, copy: Copy<Http1Head>, now: Instant) {
        self.begin(&copy, now);
        self.inbox.borrow_mut().push_back(copy);
        self.wake();
    }

    /// Counts a copy that the connection task has in hand already.
    pub(super) fn begin(&self, copy: &Copy<Http1Head>, now: Instant) {
        if self.outstanding.get() == 0 {
            self.since.set(now);
        } else {
            self.pipelined.set(true);
        }
        self.exclusive.set(!copy.head.pipelined);
        self.outstanding.set(self.outstanding.get() + 1);
        self.accepted.set(self.accepted.get() + 1);
    }

    /// Whether another copy may be sent behind those in flight.
    pub(super) fn takes_more(&self, now: Instant) -> bool {
        !self.closed.get()
            && !self.exclusive.get()
            && self.is_proven()
            && self.outstanding.get() < DEPTH
            && self.accepted.get() < LIFE
            && now.saturating_duration_since(self.since.get()) < SLOW
    }

    /// The server has shown that it does not close after each response.
    pub(super) fn is_proven(&self) -> bool {
        self.responses.get() >= PROOF
    }

    /// The copy at this place, counted from 1, is the last that the connection carries.
    pub(super) fn is_last(&self, netns: u32) -> bool {
        self.pipelined.get() && netns >= LIFE
    }

    /// A response is whole; `next`: when the copy behind it was sent.
    pub(super) fn response_done(&self, next: Option<Instant>) {
        self.outstanding.set(self.outstanding.get() - 1);
        self.responses.set(self.responses.get() + 1);
        self.since.set(next.unwrap_or_else(Instant::now));
        self.timed_out.set(false);
    }

    pub(super) fn is_idle(&self) -> bool {
        self.outstanding.get() == 0
    }

    /// When the oldest copy without a whole response was handed over; when idle, since when.
    pub(super) fn since(&self) -> Instant {
        self.since.get()
    }

    /// For how long the oldest copy waits, or nothing was carried.
    pub(super) fn age(&self) -> Duration {
        self.since.get().elapsed()
    }

    /// No more copies.
    pub(super) fn close(&self) {
        self.closed.set(true);
        self.wake();
    }

    /// The oldest copy has waited too long for its response.
    pub(super) fn set_timed_out(&self) {
        self.timed_out.set(true);
        self.wake();
    }

    /// The shadow is waited for since then only, so that it is not late.
    pub(super) fn waits_since(&self, since: Instant) {
        self.since.set(since);
        self.timed_out.set(false);
    }

    pub(super) fn is_timed_out(&self) -> bool {
        self.timed_out.get()
    }

    /// The next copy that may be sent behind others.
    pub(super) fn next(&self) -> Option<Copy<Http1Head>> {
        self.inbox.borrow_mut().pop_front()
    }

    /// What to do; Pending while there is nothing.
    pub(super) fn poll(&self, waker: &Waker) -> Poll<NextAction> {
        if let Some(copy) = self.next() {
            return Poll::Ready(NextAction::Send(copy));
        }
        if self.closed.get() {
            return Poll::Ready(NextAction::Close);
        }
        self.listen(waker);
        Poll::Pending
    }

    /// Whom to wake when something was handed over.
    pub(super) fn listen(&self, waker: &Waker) {
        match &mut *self.task.borrow_mut() {
            Some(known) => known.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
    }

    fn wake(&self) {
        let task = self.task.borrow_mut().take();
        task.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests;

//! The letter box of a connection of HTTP/1 to a shadow: where the lane puts copies, and what it has
//! to know of the connection to choose it. Copies without content may follow each other before the
//! first is answered (RFC 9112, section 9.3.2): one system call then sends and reads many.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
    task::{Poll, Waker},
    time::{Duration, Instant},
};

use super::{carrier::Wired, copy::Copy, head::SingleHead};

/// Answers that a connection must have given before copies are pipelined on it: a server that closes
/// after each is not to lose any.
const PROOF: u32 = 2;

/// Copies on their way on one connection, at most.
pub(super) const DEPTH: u32 = 32;

/// None is added while the oldest has waited this long for its answer.
const SLOW: Duration = Duration::from_millis(50);

/// Copies that a connection carries once some were pipelined: servers close after a number of
/// requests (100 or 1,000 are usual), and what is on its way then is lost.
pub(super) const LIFE: u32 = 100;

pub(super) struct Post {
    pub(super) connection: Rc<Wired>,
    /// Handed over and not yet sent.
    inbox: RefCell<VecDeque<Copy<SingleHead>>>,
    /// Handed over and not yet answered.
    open: Cell<u32>,
    /// Handed over so far.
    taken: Cell<u32>,
    answered: Cell<u32>,
    /// It carries one that bears no company.
    alone: Cell<bool>,
    /// Some were pipelined.
    pipelined: Cell<bool>,
    /// See [`Post::since`].
    since: Cell<Instant>,
    closed: Cell<bool>,
    late: Cell<bool>,
    carrier: RefCell<Option<Waker>>,
}

/// What a connection's carrier is to do.
pub(super) enum Order {
    Carry(Copy<SingleHead>),
    Close,
}

impl Post {
    pub(super) fn new(connection: Rc<Wired>) -> Rc<Self> {
        Rc::new(Self {
            connection,
            inbox: RefCell::default(),
            open: Cell::default(),
            taken: Cell::default(),
            answered: Cell::default(),
            alone: Cell::default(),
            pipelined: Cell::default(),
            since: Cell::new(Instant::now()),
            closed: Cell::default(),
            late: Cell::default(),
            carrier: RefCell::default(),
        })
    }

    /// Hands over a copy.
    pub(super) fn hand(&self, copy: Copy<SingleHead>, now: Instant) {
        self.enter(&copy, now);
        self.inbox.borrow_mut().push_back(copy);
        self.wake();
    }

    /// Counts a copy that the carrier has in hand already.
    pub(super) fn enter(&self, copy: &Copy<SingleHead>, now: Instant) {
        if self.open.get() == 0 {
            self.since.set(now);
        } else {
            self.pipelined.set(true);
        }
        self.alone.set(!copy.head.pipelined);
        self.open.set(self.open.get() + 1);
        self.taken.set(self.taken.get() + 1);
    }

    /// Whether another copy may be sent behind those that are on their way.
    pub(super) fn takes_more(&self, now: Instant) -> bool {
        !self.closed.get()
            && !self.alone.get()
            && self.is_proven()
            && self.open.get() < DEPTH
            && self.taken.get() < LIFE
            && now.saturating_duration_since(self.since.get()) < SLOW
    }

    /// The server has shown that it does not close after each answer.
    pub(super) fn is_proven(&self) -> bool {
        self.answered.get() >= PROOF
    }

    /// The copy at this place, counted from 1, is the last that the connection carries.
    pub(super) fn is_last(&self, place: u32) -> bool {
        self.pipelined.get() && place >= LIFE
    }

    /// An answer is whole; `next`: when the copy behind it was sent.
    pub(super) fn answered(&self, next: Option<Instant>) {
        self.open.set(self.open.get() - 1);
        self.answered.set(self.answered.get() + 1);
        self.since.set(next.unwrap_or_else(Instant::now));
        self.late.set(false);
    }

    pub(super) fn is_idle(&self) -> bool {
        self.open.get() == 0
    }

    /// When the oldest copy that is not answered was handed over; when idle, since when.
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

    /// The oldest copy has waited too long for its answer.
    pub(super) fn be_late(&self) {
        self.late.set(true);
        self.wake();
    }

    pub(super) fn is_late(&self) -> bool {
        self.late.get()
    }

    /// The next copy that may be sent behind others.
    pub(super) fn next(&self) -> Option<Copy<SingleHead>> {
        self.inbox.borrow_mut().pop_front()
    }

    /// What to do; Pending while there is nothing.
    pub(super) fn poll(&self, waker: &Waker) -> Poll<Order> {
        if let Some(copy) = self.next() {
            return Poll::Ready(Order::Carry(copy));
        }
        if self.closed.get() {
            return Poll::Ready(Order::Close);
        }
        self.listen(waker);
        Poll::Pending
    }

    /// Whom to wake when something was handed over.
    pub(super) fn listen(&self, waker: &Waker) {
        match &mut *self.carrier.borrow_mut() {
            Some(known) => known.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
    }

    fn wake(&self) {
        let carrier = self.carrier.borrow_mut().take();
        carrier.into_iter().for_each(Waker::wake);
    }
}

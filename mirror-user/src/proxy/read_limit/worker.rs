//! What a worker reads of all shadows in one tick, and who waits for the next. In: what was read. Out:
//! what is left. Those who found nothing left come first in the next tick. They are woken a few at a time,
//! so that what they read at its beginning holds up no request for longer than that.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
};

use tokio::task::yield_now;

use super::{MOST_PER_TICK, PER_TICK, ReadLimit, WORKER_CREDIT, WORKER_TICK};

/// Connections that are woken before all else that is ready has its turn.
const WOKEN: usize = 4;

/// What is left of a worker's tick.
pub(in crate::proxy) struct WorkerReads {
    tick: Cell<u64>,
    /// For connections within their credit.
    credit: Cell<i64>,
    /// For those beyond it.
    beyond: Cell<i64>,
    /// How many are beyond it.
    paced: Cell<i64>,
    /// What is read of one response beyond the credit, in bytes.
    pub(super) longest: i64,
    waiting: RefCell<Vec<Rc<ReadLimit>>>,
    /// Those who found nothing left.
    starved: RefCell<Vec<Rc<ReadLimit>>>,
    /// Those whose tick has begun, and who have yet to be woken.
    due: RefCell<VecDeque<Rc<ReadLimit>>>,
}

impl WorkerReads {
    /// `longest`: what is read of one response before its connection is closed, in bytes.
    pub(in crate::proxy) fn new(longest: usize) -> Rc<Self> {
        Rc::new(Self {
            tick: Cell::new(0),
            credit: Cell::new(WORKER_CREDIT),
            beyond: Cell::new(WORKER_TICK),
            paced: Cell::new(0),
            longest: i64::try_from(longest).unwrap_or(i64::MAX),
            waiting: RefCell::default(),
            starved: RefCell::default(),
            due: RefCell::default(),
        })
    }

    /// The next tick begins, 100 ms after the last. True: [`WorkerReads::wake_all`] is to be run.
    #[must_use]
    pub(in crate::proxy) fn tick(&self) -> bool {
        self.tick.set(self.tick.get() + 1);
        // What the last tick has read beyond its end counts for this one.
        self.credit.set((self.credit.get() + WORKER_CREDIT).min(WORKER_CREDIT));
        self.beyond.set((self.beyond.get() + WORKER_TICK).min(WORKER_TICK));
        let (starved, waiting) = (self.starved.take(), self.waiting.take());
        let mut due = self.due.borrow_mut();
        // Those who are left of the last tick are being woken.
        let idle = due.is_empty();
        due.extend(starved.into_iter().chain(waiting));
        idle && !due.is_empty()
    }

    /// Wakes those who waited for this tick.
    pub(in crate::proxy) async fn wake_all(self: Rc<Self>) {
        while self.wake_some() {
            // Until all that is ready has run, and the kernel was asked (tokio 1.54, `Context::defer`).
            yield_now().await;
        }
    }

    /// Wakes the next few; false once there are no more.
    pub(super) fn wake_some(&self) -> bool {
        let mut due = self.due.borrow_mut();
        let count = due.len().min(WOKEN);
        let woken: Vec<_> = due.drain(..count).collect();
        let more = !due.is_empty();
        drop(due);
        woken.iter().for_each(|connection| connection.wake());
        more
    }

    /// Nobody waits any more: the worker ends.
    pub(in crate::proxy) fn close(&self) {
        drop((self.starved.take(), self.waiting.take(), self.due.take()));
    }

    /// Ticks so far.
    pub(super) fn now(&self) -> u64 {
        self.tick.get()
    }

    /// What is left of this tick. `paced`: for a connection beyond its credit.
    pub(super) fn left(&self, paced: bool) -> i64 {
        if paced { self.beyond.get() } else { self.credit.get() }
    }

    /// What a connection beyond its credit may read in this tick: an equal part.
    pub(super) fn share(&self) -> i64 {
        (WORKER_TICK / self.paced.get().max(1)).clamp(PER_TICK, MOST_PER_TICK)
    }

    /// Whether so many connections are beyond their credit that to be woken by each is too much.
    pub(super) fn is_crowded(&self) -> bool {
        self.share() < MOST_PER_TICK / 2
    }

    /// A connection is beyond its credit, or no longer.
    pub(super) fn count_paced(&self, paced: bool) {
        self.paced.set(self.paced.get() + if paced { 1 } else { -1 });
    }

    /// As much was read.
    pub(super) fn charge(&self, paced: bool, cost: i64) {
        let of = if paced { &self.beyond } else { &self.credit };
        of.set(of.get() - cost);
    }

    /// Has the connection woken when the next tick begins.
    pub(super) fn wait(&self, connection: &Rc<ReadLimit>, starved: bool) {
        let queue = if starved { &self.starved } else { &self.waiting };
        queue.borrow_mut().push(Rc::clone(connection));
    }
}

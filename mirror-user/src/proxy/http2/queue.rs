//! Who waits for a stream of a connection at its upstream's limit: first come, first served. In: wakers.
//! Out: who is woken. It holds as many places as exchanges wait, and those belong to streams of a
//! client, whose number is bounded.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
    task::{Context, Waker},
};

/// The places, the first of them at the front.
#[derive(Default)]
pub(super) struct StreamQueue {
    waiters: RefCell<VecDeque<Rc<Waiter>>>,
    /// Places in the queue whose owner has left.
    left: Cell<usize>,
}

#[derive(Default)]
struct Waiter {
    waker: RefCell<Option<Waker>>,
    left: Cell<bool>,
}

/// A place in the queue, given up when it is dropped.
pub(super) struct QueuePosition<'a> {
    queue: &'a StreamQueue,
    waiter: Rc<Waiter>,
}

impl StreamQueue {
    /// Whether nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiters.borrow().is_empty()
    }

    /// A place at the end.
    pub(super) fn join(&self) -> QueuePosition<'_> {
        let waiter = Rc::<Waiter>::default();
        self.waiters.borrow_mut().push_back(Rc::clone(&waiter));
        QueuePosition { queue: self, waiter }
    }

    /// Wakes the first: there may be a stream for it.
    pub(super) fn wake_first(&self) {
        if let Some(first) = self.waiters.borrow().front() {
            first.wake();
        }
    }

    /// Wakes all: none will get a stream here.
    pub(super) fn wake_all(&self) {
        self.waiters.borrow().iter().for_each(|waiter| waiter.wake());
    }

    /// Drops the places that were left: those at the front, and all once they are more than half, so
    /// that leaving costs the same however long the queue is.
    fn tidy(&self) {
        let mut waiters = self.waiters.borrow_mut();
        while waiters.front().is_some_and(|first| first.left.get()) {
            waiters.pop_front();
            self.left.set(self.left.get() - 1);
        }
        if 2 * self.left.get() > waiters.len() {
            waiters.retain(|waiter| !waiter.left.get());
            self.left.set(0);
        }
    }
}

impl Waiter {
    fn wake(&self) {
        self.waker.borrow().iter().for_each(Waker::wake_by_ref);
    }
}

impl QueuePosition<'_> {
    /// Whether it is this one's turn. If not, its task is woken when it may be.
    pub(super) fn is_first(&self, cx: &Context<'_>) -> bool {
        *self.waiter.waker.borrow_mut() = Some(cx.waker().clone());
        self.queue.waiters.borrow().front().is_some_and(|first| Rc::ptr_eq(first, &self.waiter))
    }
}

impl Drop for QueuePosition<'_> {
    fn drop(&mut self) {
        self.waiter.left.set(true);
        self.queue.left.set(self.queue.left.get() + 1);
        self.queue.tidy();
        self.queue.wake_first();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering::Relaxed},
        },
        task::Wake,
    };

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    #[test]
    fn the_first_is_woken_and_the_next_when_it_has_left() {
        let queue = StreamQueue::default();
        let counts: Vec<_> = (0..3).map(|_| Arc::<Count>::default()).collect();
        let wakers: Vec<_> = counts.iter().map(|count| Waker::from(Arc::clone(count))).collect();
        let mut waiters: Vec<_> = (0..3).map(|_| Some(queue.join())).collect();
        let first: Vec<_> = waiters
            .iter()
            .zip(&wakers)
            .map(|(waiter, waker)| waiter.as_ref().unwrap().is_first(&Context::from_waker(waker)))
            .collect();
        assert_eq!(first, [true, false, false]);
        let woken = || counts.iter().map(|count| count.0.load(Relaxed)).collect::<Vec<_>>();
        queue.wake_first();
        assert_eq!(woken(), [1, 0, 0]);
        // One in the middle goes: the others keep their order.
        waiters[1] = None;
        waiters[0] = None;
        assert_eq!(woken()[2], 1);
        assert!(waiters[2].as_ref().unwrap().is_first(&Context::from_waker(&wakers[2])));
        queue.wake_all();
        assert_eq!(woken()[2], 2);
        waiters[2] = None;
        assert!(queue.is_empty());
    }

    #[test]
    fn those_who_leave_take_no_memory() {
        let queue = StreamQueue::default();
        let _first = queue.join();
        for _ in 0..10_000 {
            drop(queue.join());
            assert!(queue.waiters.borrow().len() <= 3);
        }
        let many: Vec<_> = (0..1000).map(|_| queue.join()).collect();
        drop(many);
        assert!(queue.waiters.borrow().len() <= 2);
    }
}

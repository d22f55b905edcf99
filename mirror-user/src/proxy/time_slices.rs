//! Time slices: of a worker's thread, each workload has as much as any other that wants it. In: the
//! tasks of a workload. Out: the same, which wait once their workload has used up its slice until
//! every other task that is ready has run and the kernel was asked whose sockets are. It never
//! makes a task wait while nobody else has anything to do for longer than that question takes.
//! A task that is under way when its slice is over goes on until it would take up more (`io::poll_slice`).
//!
//! Without it, a request of one workload waits for every ready task of another at each of its
//! steps, however many there are.

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, VecDeque},
    future::Future,
    pin::Pin,
    rc::{Rc, Weak},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use tokio::{
    sync::Notify,
    task::{JoinHandle, spawn_local, yield_now},
};

use super::io::{SLICE, set_poll_began};

/// Tasks that are woken with a new slice. A slice is not long enough for so many, and some are woken for
/// nothing; but if those that are woken do not use it up, newly ready tasks do, and the waiting ones
/// starve, the canary of a flooded workload among them.
const WOKEN: usize = 64;

thread_local! {
    /// The slice that pays for what runs now.
    static CURRENT: RefCell<Option<Rc<TimeSlice>>> = const { RefCell::new(None) };
}

/// The slices of a worker.
#[derive(Debug, Default)]
pub(crate) struct TimeSlices {
    by_workload: RefCell<HashMap<u64, Weak<TimeSlice>>>,
    exhausted: Rc<Exhausted>,
}

/// Those that are used up.
#[derive(Debug, Default)]
struct Exhausted {
    slices: RefCell<Vec<Rc<TimeSlice>>>,
    /// Told of the first.
    some: Notify,
}

/// What one workload has used, and which of its tasks wait.
#[derive(Debug)]
pub(crate) struct TimeSlice {
    exhausted: Rc<Exhausted>,
    used: Cell<Duration>,
    /// It is in the list of those that are used up.
    listed: Cell<bool>,
    waiting: RefCell<SliceQueue>,
}

/// Tasks that wait for a new slice, in turn.
#[derive(Debug, Default)]
struct SliceQueue {
    wakers: VecDeque<Waker>,
    /// How many have left the queue.
    left: u64,
}

/// A task, or a part of one, that a slice pays for.
#[derive(Debug)]
pub(crate) struct Sliced<F> {
    slice: Option<Rc<TimeSlice>>,
    /// Its place in the queue of those that wait, which it may have left.
    place: Option<u64>,
    future: Pin<Box<F>>,
}

impl TimeSlices {
    /// The slice of the workload with this key.
    pub(crate) fn of(&self, workload: u64) -> Rc<TimeSlice> {
        let mut slices = self.by_workload.borrow_mut();
        if let Some(slice) = slices.get(&workload).and_then(Weak::upgrade) {
            return slice;
        }
        slices.retain(|_, slice| slice.strong_count() > 0);
        let slice = TimeSlice::new(&self.exhausted);
        slices.insert(workload, Rc::downgrade(&slice));
        slice
    }

    /// Begins new slices, for ever. To be run as a task of its own, which nothing else wakes.
    pub(crate) fn renew(&self) -> impl Future<Output = ()> + use<> {
        let exhausted = Rc::clone(&self.exhausted);
        async move {
            loop {
                exhausted.some.notified().await;
                while !exhausted.slices.borrow().is_empty() {
                    // The runtime wakes who yields after all that is ready, and after it has asked
                    // the kernel (tokio 1.54, `Context::defer`).
                    yield_now().await;
                    exhausted.renew();
                }
            }
        }
    }
}

impl Exhausted {
    fn renew(&self) {
        let mut woken = Vec::new();
        self.slices.borrow_mut().retain(|slice| {
            slice.used.set(Duration::ZERO);
            let mut waiting = slice.waiting.borrow_mut();
            woken.extend(waiting.leave());
            slice.listed.set(!waiting.wakers.is_empty());
            slice.listed.get()
        });
        woken.into_iter().for_each(Waker::wake);
    }
}

impl SliceQueue {
    /// Joins the queue, unless it is in it.
    fn join(&mut self, place: &mut Option<u64>, waker: &Waker) {
        if place.is_none_or(|place| place < self.left) {
            *place = Some(self.left + self.wakers.len() as u64);
            self.wakers.push_back(waker.clone());
        }
    }

    /// The next to be woken.
    fn leave(&mut self) -> impl Iterator<Item = Waker> {
        let count = self.wakers.len().min(WOKEN);
        self.left += count as u64;
        self.wakers.drain(..count)
    }
}

impl TimeSlice {
    fn new(exhausted: &Rc<Exhausted>) -> Rc<Self> {
        let (used, listed, waiting) = Default::default();
        Rc::new(Self { exhausted: Rc::clone(exhausted), used, listed, waiting })
    }

    /// Has this slice pay for a task.
    pub(crate) fn pay<F: Future>(self: &Rc<Self>, future: F) -> Sliced<F> {
        Sliced { slice: Some(Rc::clone(self)), place: None, future: Box::pin(future) }
    }

    fn spend(self: &Rc<Self>, time: Duration) {
        let used = self.used.get() + time;
        self.used.set(used);
        if used >= SLICE && !self.listed.replace(true) {
            let mut slices = self.exhausted.slices.borrow_mut();
            slices.push(Rc::clone(self));
            if slices.len() == 1 {
                self.exhausted.some.notify_one();
            }
        }
    }
}

/// Spawns a task on this thread that the slice pays for which pays for the caller.
pub(crate) fn spawn<F: Future + 'static>(future: F) -> JoinHandle<F::Output> {
    spawn_local(inherit(future))
}

/// Has the slice pay for it that pays for the caller.
pub(crate) fn inherit<F: Future>(future: F) -> Sliced<F> {
    let slice = CURRENT.with_borrow(Clone::clone);
    Sliced { slice, place: None, future: Box::pin(future) }
}

impl<F: Future> Future for Sliced<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.get_mut();
        let Some(slice) = &this.slice else { return this.future.as_mut().poll(cx) };
        if slice.used.get() >= SLICE {
            slice.waiting.borrow_mut().join(&mut this.place, cx.waker());
            return Poll::Pending;
        }
        let before = CURRENT.replace(this.slice.take());
        let began = Instant::now();
        let outer = set_poll_began(Some(began));
        let polled = this.future.as_mut().poll(cx);
        set_poll_began(outer);
        let spent = began.elapsed();
        this.slice = CURRENT.replace(before);
        if let Some(slice) = &this.slice {
            slice.spend(spent);
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use nix::time::{ClockId, clock_gettime};
    use tokio::runtime::Builder;

    use super::*;
    use crate::proxy::io::poll_slice;

    /// CPU time of this thread: what other processes of a busy machine take does not count.
    fn thread_time() -> Duration {
        clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("a clock").into()
    }

    fn on_a_worker<T>(test: impl AsyncFnOnce(TimeSlices) -> T) -> T {
        let runtime = Builder::new_current_thread().enable_all().build_local(Default::default());
        runtime.unwrap().block_on(async {
            let slices = TimeSlices::default();
            spawn_local(slices.renew());
            test(slices).await
        })
    }

    /// Uses this much of the thread in each of so many polls.
    async fn busy(each: Duration, polls: u32) {
        let mut left = polls;
        poll_fn(|cx| {
            let begun = thread_time();
            while thread_time() - begun < each {}
            left -= 1;
            if left == 0 {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }

    #[test]
    fn a_task_of_another_workload_waits_for_a_slice_and_not_for_every_task() {
        let (few, all) = on_a_worker(async |slices| {
            let (many, one) = (slices.of(1), slices.of(2));
            let each = SLICE / 4;
            let tasks: Vec<_> = (0..200).map(|_| spawn_local(many.pay(busy(each, 20)))).collect();
            let begun = thread_time();
            // Ten steps, each behind whatever is ready.
            spawn_local(one.pay(async {
                for _ in 0..10 {
                    yield_now().await;
                }
            }))
            .await
            .unwrap();
            let few = thread_time() - begun;
            for task in tasks {
                task.await.unwrap();
            }
            (few, thread_time() - begun)
        });
        // Without slices: ten times 200 tasks.
        assert!(few < SLICE * 60, "{few:?}");
        assert!(all >= SLICE * 1000, "nothing of the work was left out: {all:?}");
    }

    #[test]
    fn what_a_task_spawns_is_paid_for_by_the_same_slice() {
        on_a_worker(async |slices| {
            let slice = slices.of(1);
            spawn_local(slice.pay(async {
                spawn(busy(SLICE * 2, 1)).await.unwrap();
            }))
            .await
            .unwrap();
            assert!(Rc::ptr_eq(&slice, &slices.of(1)), "one slice for each workload");
            assert!(slice.listed.get() || slice.used.get() < SLICE);
            drop(slice);
        });
    }

    #[test]
    fn every_waiting_task_runs_in_the_end_and_one_that_is_dropped_delays_none() {
        on_a_worker(async |slices| {
            let slice = slices.of(1);
            let tasks: Vec<_> =
                (0..3 * WOKEN).map(|_| spawn_local(slice.pay(busy(SLICE, 2)))).collect();
            yield_now().await;
            for (at, task) in tasks.iter().enumerate() {
                if at % 2 == 0 {
                    task.abort();
                }
            }
            for (at, task) in tasks.into_iter().enumerate() {
                assert_eq!(task.await.is_ok(), at % 2 == 1, "{at}");
            }
        });
    }

    #[test]
    fn a_poll_ends_when_its_slice_does_before_it_takes_up_more() {
        const UNIT: Duration = Duration::from_micros(20);
        let (longest, units) = on_a_worker(async |slices| {
            let (mut longest, mut units) = (Duration::ZERO, 0);
            spawn_local(slices.of(1).pay(poll_fn(move |cx| {
                let begun = thread_time();
                while units < 200 {
                    let unit = thread_time();
                    while thread_time() - unit < UNIT {}
                    units += 1;
                    if poll_slice(cx).is_pending() {
                        break;
                    }
                }
                longest = longest.max(thread_time() - begun);
                if units < 200 { Poll::Pending } else { Poll::Ready((longest, units)) }
            })))
            .await
            .unwrap()
        });
        assert_eq!(units, 200);
        assert!(longest < SLICE * 2, "{longest:?}");
    }
}

//! Pieces of work that run inside one task, each polled only when it was woken. In: futures. Out:
//! what they end with. A task for each would cost an entry in the runtime's books, one in its
//! owner's, and a wake-up of the owner for each end; here a batch of wake-ups is one of the task.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::AcqRel},
    },
    task::{Context, Poll, Wake, Waker},
};

type Work<T> = Pin<Box<dyn Future<Output = T>>>;

/// Work that ends with a `T` each. Dropped, it drops all that is under way.
pub(super) struct Crew<T> {
    seats: Vec<Seat<T>>,
    free: Vec<usize>,
    desk: Arc<Desk>,
    /// Those to be polled; empty but for its memory between two calls.
    rung: Vec<usize>,
}

/// A place for a piece of work; its bell outlives the piece.
struct Seat<T> {
    work: Option<Work<T>>,
    bell: Arc<Bell>,
    waker: Waker,
}

/// Where bells are heard. Shared with wakers, which could be on any thread, though none is.
#[derive(Default)]
struct Desk(Mutex<Heard>);

#[derive(Default)]
struct Heard {
    seats: Vec<usize>,
    /// The task that runs the crew, unless it knows already.
    task: Option<Waker>,
}

struct Bell {
    desk: Arc<Desk>,
    seat: usize,
    rung: AtomicBool,
}

impl<T> Default for Crew<T> {
    fn default() -> Self {
        let (seats, free, desk, rung) = Default::default();
        Self { seats, free, desk, rung }
    }
}

impl<T> Crew<T> {
    /// Takes up a piece of work, for the next [`Crew::run`].
    pub(super) fn add(&mut self, work: impl Future<Output = T> + 'static) {
        self.take(Box::pin(work));
    }

    /// The same of one that is boxed already.
    pub(super) fn take(&mut self, work: Work<T>) {
        let at = self.free.pop().unwrap_or_else(|| {
            self.seats.push(Seat::new(&self.desk, self.seats.len()));
            self.seats.len() - 1
        });
        let seat = &mut self.seats[at];
        seat.work = Some(work);
        seat.bell.ring();
    }

    /// Has all that is under way polled in the next [`Crew::run`].
    pub(super) fn ring_all(&self) {
        self.seats.iter().for_each(|seat| seat.bell.ring());
    }

    /// Whether nothing is under way.
    pub(super) fn is_empty(&self) -> bool {
        self.free.len() == self.seats.len()
    }

    /// Polls once what was woken; `ended` is told what each piece ended with.
    pub(super) fn run(&mut self, mut ended: impl FnMut(T)) {
        self.desk.collect(&mut self.rung);
        for at in self.rung.drain(..) {
            let seat = &mut self.seats[at];
            seat.bell.silence();
            let Some(work) = &mut seat.work else { continue };
            if let Poll::Ready(end) = work.as_mut().poll(&mut Context::from_waker(&seat.waker)) {
                seat.work = None;
                self.free.push(at);
                ended(end);
            }
        }
    }

    /// Has the task woken when there is something to run.
    pub(super) fn wait(&self, cx: &Context<'_>) {
        let mut heard = self.desk.heard();
        if heard.seats.is_empty() {
            heard.task = Some(cx.waker().clone());
        } else {
            cx.waker().wake_by_ref();
        }
    }
}

impl<T> Seat<T> {
    fn new(desk: &Arc<Desk>, seat: usize) -> Self {
        let (desk, rung) = (Arc::clone(desk), AtomicBool::new(false));
        let bell = Arc::new(Bell { desk, seat, rung });
        Self { work: None, waker: Waker::from(Arc::clone(&bell)), bell }
    }
}

impl Desk {
    fn heard(&self) -> MutexGuard<'_, Heard> {
        // Nothing in here panics half way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Swaps what was heard for an empty list; until the next wait nobody need be told.
    fn collect(&self, into: &mut Vec<usize>) {
        let mut heard = self.heard();
        heard.task = None;
        std::mem::swap(&mut heard.seats, into);
    }
}

impl Bell {
    fn ring(&self) {
        if self.rung.swap(true, AcqRel) {
            return;
        }
        let mut heard = self.desk.heard();
        heard.seats.push(self.seat);
        let task = heard.task.take();
        drop(heard);
        task.into_iter().for_each(Waker::wake);
    }

    /// Before the poll: who rings from here on is heard again.
    fn silence(&self) {
        self.rung.swap(false, AcqRel);
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.ring();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ring();
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, rc::Rc};

    use tokio::sync::oneshot;

    use super::*;

    /// Counts how often it is woken.
    #[derive(Default)]
    struct Count(AtomicBool);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            assert!(!self.0.swap(true, AcqRel), "woken twice for one wait");
        }
    }

    impl Count {
        fn take(&self) -> bool {
            self.0.swap(false, AcqRel)
        }
    }

    fn task() -> (Arc<Count>, Waker) {
        let count = Arc::<Count>::default();
        (Arc::clone(&count), Waker::from(count))
    }

    fn run<T>(crew: &mut Crew<T>) -> Vec<T> {
        let mut ends = Vec::new();
        crew.run(|end| ends.push(end));
        ends
    }

    #[test]
    fn only_what_was_woken_is_polled_and_the_task_is_woken_once() {
        let (count, waker) = task();
        let cx = Context::from_waker(&waker);
        let mut crew = Crew::default();
        let polls = Rc::new(Cell::new(0));
        let mut senders = Vec::new();
        for _ in 0..3 {
            let (sender, receiver) = oneshot::channel::<u32>();
            senders.push(sender);
            let (polls, mut receiver) = (Rc::clone(&polls), receiver);
            crew.add(std::future::poll_fn(move |cx| {
                polls.set(polls.get() + 1);
                Pin::new(&mut receiver).poll(cx)
            }));
        }
        assert!(run(&mut crew).is_empty());
        crew.wait(&cx);
        assert_eq!((polls.get(), count.take()), (3, false));
        senders.remove(2).send(2).unwrap();
        senders.remove(0).send(0).unwrap();
        assert!(count.take());
        assert_eq!(run(&mut crew), [Ok(2), Ok(0)]);
        assert_eq!(polls.get(), 5);
        assert!(!crew.is_empty());
        crew.wait(&cx);
        senders.remove(0).send(1).unwrap();
        assert!(count.take());
        assert_eq!(run(&mut crew), [Ok(1)]);
        assert!(crew.is_empty());
    }

    #[test]
    fn work_that_wakes_itself_is_polled_in_the_next_run() {
        let (count, waker) = task();
        let mut crew = Crew::default();
        let mut left = 2;
        crew.add(std::future::poll_fn(move |cx| {
            if left == 0 {
                return Poll::Ready(());
            }
            left -= 1;
            cx.waker().wake_by_ref();
            Poll::Pending
        }));
        for _ in 0..2 {
            assert!(run(&mut crew).is_empty());
            crew.wait(&Context::from_waker(&waker));
            assert!(count.take());
        }
        assert_eq!(run(&mut crew).len(), 1);
        crew.wait(&Context::from_waker(&waker));
        assert!(!count.take());
    }

    #[test]
    fn what_is_added_wakes_the_task_and_a_seat_is_taken_again() {
        let (count, waker) = task();
        let mut crew = Crew::default();
        for n in 0..3 {
            crew.wait(&Context::from_waker(&waker));
            assert!(!count.take());
            crew.add(std::future::ready(n));
            assert!(count.take());
            assert_eq!(run(&mut crew), [n]);
        }
        assert_eq!(crew.seats.len(), 1);
    }

    #[test]
    fn what_is_under_way_goes_with_the_crew() {
        let held = Rc::new(());
        let mut crew = Crew::<()>::default();
        let kept = Rc::clone(&held);
        crew.add(async move {
            let _kept = kept;
            std::future::pending::<()>().await;
        });
        crew.run(|()| {});
        assert_eq!(Rc::strong_count(&held), 2);
        drop(crew);
        assert_eq!(Rc::strong_count(&held), 1);
    }
}

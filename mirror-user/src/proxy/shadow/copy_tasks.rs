//! The copies on streams of one pool, under way in one task. In: copies as work, and how late it is.
//! Out: nothing: each copy settles its own outcome guard. No copy has a timer of its own: the pool's sweep
//! looks at the clock, and wakes them once one may be late.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use crate::{heartbeat::BEAT, proxy::task_set::TaskSet};

/// Copies under way, and those that the task has yet to take up.
pub(super) struct CopyTasks {
    new: RefCell<Vec<Pin<Box<dyn Future<Output = ()>>>>>,
    task: Cell<Option<Waker>>,
    /// Whether there is a task.
    runs: Cell<bool>,
    active: Cell<usize>,
    /// Of the last sweep.
    now: Cell<Instant>,
    /// When a copy may be late.
    due: Cell<Option<Instant>>,
    /// All are to look at the clock.
    wake_all_due: Cell<bool>,
}

impl CopyTasks {
    pub(super) fn new(now: Instant) -> Rc<Self> {
        Rc::new(Self {
            new: RefCell::default(),
            task: Cell::default(),
            runs: Cell::new(false),
            active: Cell::new(0),
            now: Cell::new(now),
            due: Cell::new(None),
            wake_all_due: Cell::new(false),
        })
    }

    /// Takes up a copy. True: [`CopyTasks::run`] is to be started.
    #[must_use]
    pub(super) fn add(&self, copy: impl Future<Output = ()> + 'static) -> bool {
        self.active.set(self.active.get() + 1);
        self.new.borrow_mut().push(Box::pin(copy));
        self.wake();
        !self.runs.replace(true)
    }

    /// Whether no copy is under way.
    pub(super) fn is_empty(&self) -> bool {
        self.active.get() == 0
    }

    /// When a copy that begins now is late, if it may take as long as this: a sweep more at most.
    pub(super) fn deadline(&self, limit: Duration) -> Instant {
        self.now.get() + limit + BEAT
    }

    /// Whether the deadline has passed. If not, whoever asks is woken when it has.
    pub(super) fn is_past(&self, deadline: Instant) -> bool {
        if self.now.get() >= deadline {
            return true;
        }
        if self.due.get().is_none_or(|due| deadline < due) {
            self.due.set(Some(deadline));
        }
        false
    }

    /// It is as late as this.
    pub(super) fn sweep(&self, now: Instant) {
        self.now.set(now);
        if self.due.get().is_some_and(|due| due <= now) {
            self.due.set(None);
            self.wake_all_due.set(true);
            self.wake();
        }
    }

    /// Runs until it is dropped, and all copies with it.
    pub(super) async fn run(self: Rc<Self>) {
        let guard = RunGuard(self);
        let mut tasks = TaskSet::default();
        poll_fn(|cx| {
            guard.0.step(&mut tasks);
            tasks.wait(cx);
            guard.0.wait(cx);
            Poll::<()>::Pending
        })
        .await;
    }

    fn step(&self, tasks: &mut TaskSet<()>) {
        let mut new = self.new.take();
        new.drain(..).for_each(|copy| tasks.add_boxed(copy));
        // For its memory; nothing came meanwhile.
        self.new.replace(new);
        if self.wake_all_due.take() {
            tasks.wake_all();
        }
        tasks.run(|()| self.active.set(self.active.get() - 1));
    }

    /// Has the task woken when something comes; a copy that moves comes while copies are polled.
    fn wait(&self, cx: &Context<'_>) {
        if self.new.borrow().is_empty() {
            self.task.set(Some(cx.waker().clone()));
        } else {
            cx.waker().wake_by_ref();
        }
    }

    fn wake(&self) {
        self.task.take().into_iter().for_each(Waker::wake);
    }
}

/// The task goes with the pool's connections; what it had not taken up goes with it.
struct RunGuard(Rc<CopyTasks>);

impl Drop for RunGuard {
    fn drop(&mut self) {
        self.0.runs.set(false);
        drop(self.0.new.take());
        self.0.active.set(0);
    }
}

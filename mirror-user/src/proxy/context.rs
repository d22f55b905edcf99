//! What all connections of a worker share: options, routes, pools, counters, randomness.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use arc_swap::{ArcSwap, Cache};
use rand::{RngCore, SeedableRng, rngs::SmallRng};
use tokio::sync::Notify;

use super::{
    primary::{Primary, Protocols},
    shadow::{Budgets, ShadowOptions, Shadows},
};
use crate::{
    outcome::{Recorder, Report},
    route::Snapshot,
    sockets::SocketFactory,
};

/// Lines of the log about single requests or connections, per worker and sweep (100 ms). Writing
/// one takes a lock and a system call, and a client that provokes them decides how many there are.
const LINES: u32 = 2;

/// Limits of the data path; those of the shadow leg apart.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long a silent client is waited for before the original upstream is opened, so that a
    /// server may speak first.
    pub sniff_timeout: Duration,
    /// From a head's first byte to its last.
    pub head_timeout: Duration,
    /// How long connecting to one endpoint of a primary may take.
    pub connect_timeout: Duration,
    /// The shadow leg's.
    pub shadow: ShadowOptions,
}

/// What the workers of an agent share.
#[derive(Clone, Debug)]
pub struct SharedContext {
    /// Limits.
    pub options: Options,
    /// The routes in force.
    pub routes: Arc<ArcSwap<Snapshot>>,
    /// Makes the sockets of both legs.
    pub sockets: Arc<dyn SocketFactory>,
    /// What shadows may hold, in all workers together.
    pub budgets: Arc<Budgets>,
}

/// A worker's own part of the agent; never leaves its thread.
pub struct Context {
    pub(super) options: Options,
    pub(super) sockets: Arc<dyn SocketFactory>,
    pub(super) primary: Primary,
    pub(super) protocols: Protocols,
    /// Interim answers that a client of HTTP/1.0 could not be given.
    pub(super) interim_dropped: Rc<Cell<u64>>,
    pub(super) shadows: Shadows,
    /// Where events go.
    pub recorder: Recorder,
    routes: RefCell<Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>>,
    rng: RefCell<SmallRng>,
    draining: Cell<bool>,
    /// Told when the drain begins.
    drained: Notify,
    live: Cell<usize>,
    sweeps: Cell<u64>,
    lines: Lines,
}

impl Context {
    /// A worker's context; `recorder` is its own.
    #[must_use]
    pub fn new(shared: &SharedContext, recorder: Recorder) -> Rc<Self> {
        Rc::new(Self {
            options: shared.options.clone(),
            sockets: Arc::clone(&shared.sockets),
            primary: Primary::default(),
            protocols: Protocols::default(),
            interim_dropped: Rc::default(),
            shadows: Shadows::new(
                shared.options.shadow.clone(),
                Arc::clone(&shared.budgets),
                Arc::clone(&shared.sockets),
            ),
            recorder,
            routes: RefCell::new(Cache::new(Arc::clone(&shared.routes))),
            rng: RefCell::new(SmallRng::from_os_rng()),
            draining: Cell::new(false),
            drained: Notify::new(),
            live: Cell::new(0),
            sweeps: Cell::new(0),
            lines: Lines::default(),
        })
    }

    /// The routes in force now: one atomic load where nothing changed.
    pub(super) fn routes(&self) -> Arc<Snapshot> {
        Arc::clone(self.routes.borrow_mut().load())
    }

    /// Uniform over all of u64.
    pub(super) fn draw(&self) -> u64 {
        self.rng.borrow_mut().next_u64()
    }

    /// From now on each connection is closed after the answer that is under way.
    pub fn drain(&self) {
        self.draining.set(true);
        self.drained.notify_waiters();
    }

    /// Waits until the drain begins.
    pub(super) async fn drained(&self) {
        let told = self.drained.notified();
        if !self.is_draining() {
            told.await;
        }
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// Connections of clients being served.
    #[must_use]
    pub fn live(&self) -> usize {
        self.live.get()
    }

    /// Whether a line about a single request or connection may be written now. All are counted in
    /// the metrics and in the access log.
    pub(super) fn may_tell(&self) -> bool {
        self.lines.take()
    }

    pub(super) fn enter(self: &Rc<Self>) -> Live {
        self.live.set(self.live.get() + 1);
        Live(Rc::clone(self))
    }

    /// How many sweeps there were.
    pub(super) fn sweeps(&self) -> u64 {
        self.sweeps.get()
    }

    /// Closes what has idled too long; called by the worker's loop every 100 ms.
    pub fn sweep(&self) {
        self.sweeps.set(self.sweeps.get() + 1);
        let left_out = self.lines.begin_anew();
        if left_out > 0 {
            tracing::warn!(left_out, "more requests failed than are told here; see the metrics");
        }
        let generation = self.routes().generation;
        self.primary.sweep();
        self.protocols.sweep(generation);
        self.shadows.sweep(generation);
    }

    /// What was counted here, and what is open now.
    #[must_use]
    pub fn report(&self) -> Report {
        for (shadow, open) in self.shadows.connections() {
            self.recorder.shadow_connections(&shadow, open);
        }
        let mut report = self.recorder.report();
        report.interim_dropped = self.interim_dropped.get();
        report
    }

    /// Closes all that is kept open inside a workload's network namespace.
    pub fn leave(&self, workload: u64) {
        self.primary.leave(workload);
        self.shadows.leave(workload);
    }

    /// The worker ends: what still waits to be sent is settled.
    pub fn end(&self) {
        self.shadows.close();
    }
}

/// A client's connection, counted until its end.
pub(super) struct Live(Rc<Context>);

impl Drop for Live {
    fn drop(&mut self) {
        self.0.live.set(self.0.live.get() - 1);
    }
}

/// Lines asked for since the last sweep.
#[derive(Debug, Default)]
struct Lines(Cell<u32>);

impl Lines {
    /// Asks for one; whether it may be written.
    fn take(&self) -> bool {
        self.0.set(self.0.get().saturating_add(1));
        self.0.get() <= LINES
    }

    /// How many were refused since the last call.
    fn begin_anew(&self) -> u32 {
        self.0.replace(0).saturating_sub(LINES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_beyond_the_limit_are_refused_and_counted() {
        let lines = Lines::default();
        for _ in 0..2 {
            assert!((0..LINES).all(|_| lines.take()));
            assert!(!lines.take());
            assert!(!lines.take());
            assert_eq!(lines.begin_anew(), 2);
        }
        assert!(lines.take());
        assert_eq!(lines.begin_anew(), 0);
    }
}

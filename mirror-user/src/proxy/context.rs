//! What all connections of a worker share: options, routes, pools, counters, randomness.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use arc_swap::{ArcSwap, Cache};
use tokio::sync::Notify;

use super::{
    draw::Draw,
    keepalive::Keepalives,
    log_limiter::LogLimiter,
    primary::{Primary, PrimaryParts},
    shadow::{ShadowOptions, ShadowParts, Shadows},
    time_slices::TimeSlices,
};
use crate::{
    outcome::{Recorder, Report},
    proxy::tee::Budgets,
    route::{EndpointChoice, Snapshot},
    sockets::SocketFactory,
};

/// How long it counts that an accept failed, in sweeps: connections that end meanwhile leave room.
const STARVING: u32 = 10;

/// Limits of the data path; those of the shadow leg apart.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long a silent client is waited for before the original upstream is opened, so that a
    /// server may speak first.
    pub sniff_timeout: Duration,
    /// From a head's first byte to its last.
    pub head_timeout: Duration,
    /// How long connecting to a primary may take.
    pub connect_timeout: Duration,
    /// Who chooses the endpoint of a primary.
    pub endpoints: EndpointChoice,
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
    pub(super) keepalives: Keepalives,
    /// Interim responses that a client of HTTP/1.0 could not be given.
    pub(super) interim_dropped: Rc<Cell<u64>>,
    pub(super) shadows: Shadows,
    /// Of this thread's time.
    pub(crate) time_slices: TimeSlices,
    /// Where events go.
    pub recorder: Rc<Recorder>,
    routes: RefCell<Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>>,
    draining: Cell<bool>,
    /// Told when the drain begins.
    drained: Notify,
    live: Cell<usize>,
    sweeps: Cell<u64>,
    /// Sweeps for which it counts that an accept failed.
    starving: Cell<u32>,
    log_limiter: Rc<LogLimiter>,
    draw: Rc<Draw>,
}

impl Context {
    /// A worker's context; `recorder` is its own.
    #[must_use]
    pub fn new(shared: &SharedContext, recorder: Recorder) -> Rc<Self> {
        let (recorder, draw, log_limiter) =
            (Rc::new(recorder), Rc::new(Draw::new()), Rc::<LogLimiter>::default());
        let primary = Primary::new(PrimaryParts {
            sockets: Arc::clone(&shared.sockets),
            connect_timeout: shared.options.connect_timeout,
            recorder: Rc::clone(&recorder),
            draw: Rc::clone(&draw),
        });
        let shadows = Shadows::new(ShadowParts {
            options: shared.options.shadow.clone(),
            budgets: Arc::clone(&shared.budgets),
            sockets: Arc::clone(&shared.sockets),
            recorder: Rc::clone(&recorder),
            draw: Rc::clone(&draw),
            log_limiter: Rc::clone(&log_limiter),
        });
        Rc::new(Self {
            options: shared.options.clone(),
            sockets: Arc::clone(&shared.sockets),
            primary,
            keepalives: Keepalives::default(),
            interim_dropped: Rc::default(),
            shadows,
            time_slices: TimeSlices::default(),
            recorder,
            routes: RefCell::new(Cache::new(Arc::clone(&shared.routes))),
            draining: Cell::new(false),
            drained: Notify::new(),
            live: Cell::new(0),
            sweeps: Cell::new(0),
            starving: Cell::new(0),
            log_limiter,
            draw,
        })
    }

    /// The routes in force now: one atomic load where nothing changed.
    pub(super) fn routes(&self) -> Arc<Snapshot> {
        Arc::clone(self.routes.borrow_mut().load())
    }

    /// Uniform over all of u64.
    pub(super) fn draw(&self) -> u64 {
        self.draw.next()
    }

    /// From now on each connection is closed after the response that is under way.
    pub fn drain(&self) {
        self.draining.set(true);
        self.drained.notify_waiters();
    }

    /// Waits until the drain begins.
    pub(super) async fn drained(&self) {
        let notified = self.drained.notified();
        if !self.is_draining() {
            notified.await;
        }
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// An accept has failed for want of descriptors or memory.
    pub(super) fn starve(&self) {
        self.starving.set(STARVING);
    }

    /// Whether one has within the last second: new connections had better go direct.
    #[must_use]
    pub fn is_starving(&self) -> bool {
        self.starving.get() > 0
    }

    /// Connections of clients being served.
    #[must_use]
    pub fn live(&self) -> usize {
        self.live.get()
    }

    /// Whether a line about a single request or connection may be written now. All are counted in
    /// the metrics and in the access log.
    pub(super) fn may_log(&self) -> bool {
        self.log_limiter.take()
    }

    pub(super) fn enter(self: &Rc<Self>) -> ActiveConnection {
        self.live.set(self.live.get() + 1);
        ActiveConnection(Rc::clone(self))
    }

    /// How many sweeps there were.
    pub(super) fn sweeps(&self) -> u64 {
        self.sweeps.get()
    }

    /// Closes what has idled too long; called by the worker's loop every 100 ms.
    pub fn sweep(&self) {
        self.sweeps.set(self.sweeps.get() + 1);
        self.starving.set(self.starving.get().saturating_sub(1));
        let left_out = self.log_limiter.reset();
        if left_out > 0 {
            tracing::warn!(left_out, "more requests failed than are logged; see the metrics");
        }
        let routes = self.routes();
        let generation = routes.generation;
        self.primary.sweep(&routes);
        self.keepalives.sweep(&*self.sockets, self.sweeps.get());
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
pub(super) struct ActiveConnection(Rc<Context>);

impl Drop for ActiveConnection {
    fn drop(&mut self) {
        self.0.live.set(self.0.live.get() - 1);
    }
}

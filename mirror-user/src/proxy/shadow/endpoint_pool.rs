//! A pool: all connections of this worker to one shadow endpoint, those of HTTP/1 ([`Http1Pool`]) and those
//! of HTTP/2 ([`Http2Pool`]). In: copies. Out: each to an idle connection or a free stream, or to a new
//! one; where there is none, it waits for a moment, or is dropped.

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use http::request;
use tokio::task::JoinSet;

use super::{
    ShadowOptions,
    backoff::EndpointHealth,
    connection_task,
    copy::Copy,
    copy_tasks::CopyTasks,
    head::{CopyHead, Http1Head},
    http1_pool::Http1Pool,
    pooled_connection::PooledConnection,
    queue::CopyQueue,
    streams,
};
use crate::{
    outcome::{CopyOutcome, DropReason, Recorder, ShadowClosed},
    proxy::{
        http2::{Http2Pool, OpenError, SHADOW_STREAMS, Slot},
        log_limiter::LogLimiter,
        protocol::{HttpVersion, Protocols},
        read_limit::EndpointReads,
    },
    route::ServicePort,
    sockets::{NetnsTarget, SocketFactory},
};

/// Longest time between two copies on a connection (gunicorn's gthread closes after 2 s).
const IDLE: Duration = Duration::from_secs(1);

/// Copies that may wait for a stream of HTTP/2: as many as there may be streams.
const WAITING_STREAMS: usize = streams::CONNECTIONS * SHADOW_STREAMS as usize;

/// How long a pool without connections is kept, with what it knows of its endpoint.
const MEMORY: Duration = Duration::from_secs(60);

/// What a pool is made with.
pub(super) struct PoolParts {
    pub(super) options: Rc<ShadowOptions>,
    pub(super) sockets: Arc<dyn SocketFactory>,
    /// What is read of the endpoint.
    pub(super) reads: Rc<EndpointReads>,
    /// Which HTTP the shadows of the worker speak.
    pub(super) protocols: Rc<Protocols>,
}

pub(super) struct EndpointPool {
    pub(super) service: Arc<ServicePort>,
    pub(super) endpoint: SocketAddr,
    pub(super) netns: NetnsTarget,
    pub(super) options: Rc<ShadowOptions>,
    pub(super) sockets: Arc<dyn SocketFactory>,
    pub(super) reads: Rc<EndpointReads>,
    pub(super) protocols: Rc<Protocols>,
    /// Connections of HTTP/1, those included that are being made.
    open: Cell<usize>,
    tasks: RefCell<JoinSet<()>>,
    /// Connections of HTTP/1 that are open.
    pub(super) http1: Rc<Http1Pool>,
    /// Copies that wait for one of them.
    queue: CopyQueue,
    /// Connections of HTTP/2.
    http2: Http2Pool,
    /// Copies that wait for one of them to open.
    pending: Cell<usize>,
    /// Copies on streams, and those that wait for one.
    pub(super) http2_copies: Rc<CopyTasks>,
    pub(super) health: EndpointHealth,
    used: Cell<Instant>,
}

impl EndpointPool {
    pub(super) fn new(
        service: &Arc<ServicePort>,
        endpoint: SocketAddr,
        netns: NetnsTarget,
        parts: PoolParts,
    ) -> Rc<Self> {
        let PoolParts { options, sockets, reads, protocols } = parts;
        let most = streams::CONNECTIONS.min(options.connections);
        let http2 = Http2Pool::limited(most, streams::LIFE);
        Rc::new(Self {
            service: Arc::clone(service),
            endpoint,
            netns,
            queue: CopyQueue::new(options.connections),
            options,
            sockets,
            reads,
            protocols,
            open: Cell::new(0),
            tasks: RefCell::default(),
            http1: Rc::default(),
            http2,
            pending: Cell::new(0),
            http2_copies: CopyTasks::new(Instant::now()),
            health: EndpointHealth::new(),
            used: Cell::new(Instant::now()),
        })
    }

    /// Sends the copy, has it wait, or drops it.
    pub(super) fn dispatch(self: &Rc<Self>, copy: Copy<CopyHead>) {
        let Copy { head, body, guard, charge, moves } = copy;
        match head {
            CopyHead::Http1(head) => self.dispatch_http1(Copy { head, body, guard, charge, moves }),
            CopyHead::Http2(head) => {
                self.dispatch_http2(Copy { head: *head, body, guard, charge, moves });
            }
        }
    }

    /// The same for one that goes by HTTP/1.
    pub(super) fn dispatch_http1(self: &Rc<Self>, copy: Copy<Http1Head>) {
        let now = copy.guard.started();
        self.used.set(now);
        let Some(copy) = self.http1.hand_over(copy, now) else { return };
        if self.open.get() < self.options.connections {
            self.open(copy);
        } else if self.queue.has_room(copy.head.encoded.has_no_content()) {
            self.queue.push(copy, now);
        } else {
            copy.guard.settle(CopyOutcome::Dropped(DropReason::Connections), 0);
        }
    }

    fn open(self: &Rc<Self>, copy: Copy<Http1Head>) {
        self.open.set(self.open.get() + 1);
        let run = connection_task::run(ConnectionPermit(Rc::clone(self)), copy);
        self.tasks.borrow_mut().spawn_local(run);
    }

    /// Whether copies wait for a connection of HTTP/1.
    pub(super) fn has_waiting(&self) -> bool {
        !self.queue.is_empty()
    }

    /// The next copy that waits.
    pub(super) fn next(&self) -> Option<Copy<Http1Head>> {
        self.queue.pop()
    }

    /// The same if it may be sent behind those in flight on this connection.
    pub(super) fn next_pipelined(
        &self,
        pooled: &PooledConnection,
        now: Instant,
    ) -> Option<Copy<Http1Head>> {
        if self.http1.may_pipeline(pooled, now) { self.queue.pop_pipelined() } else { None }
    }

    /// Opens connections for those that wait, as far as there is room.
    pub(super) fn drain_queue(self: &Rc<Self>) {
        while self.open.get() < self.options.connections {
            let Some(copy) = self.next() else { return };
            if self.health.is_resting() {
                copy.guard.settle(CopyOutcome::Dropped(DropReason::Backoff), 0);
            } else {
                self.open(copy);
            }
        }
    }

    /// Drops those that have waited too long.
    fn expire(&self, now: Instant) {
        while let Some(copy) = self.queue.pop_expired(now) {
            copy.guard.settle(CopyOutcome::Dropped(DropReason::Connections), 0);
        }
    }

    /// Sends a copy that goes by HTTP/2, or drops it.
    pub(super) fn dispatch_http2(self: &Rc<Self>, copy: Copy<request::Parts>) {
        self.used.set(copy.guard.started());
        let slot = self.http2.find();
        if slot.is_none() && self.is_full(HttpVersion::Http2, true) {
            return copy.guard.settle(CopyOutcome::Dropped(DropReason::Connections), 0);
        }
        if self.http2_copies.add(streams::run(Rc::clone(self), slot, copy)) {
            let run = Rc::clone(&self.http2_copies).run();
            self.tasks.borrow_mut().spawn_local(run);
        }
    }

    /// Waits for room on a connection of HTTP/2.
    pub(super) async fn stream(&self) -> Result<Slot, OpenError> {
        let _pending = PendingGuard::new(&self.pending);
        self.http2.slot(async || Box::pin(streams::open(self)).await).await
    }

    /// Whether a copy would find no connection, none more is allowed, and no more may wait.
    pub(super) fn is_full(&self, version: HttpVersion, whole: bool) -> bool {
        match version {
            HttpVersion::Http1 => {
                self.http1.idle() == 0
                    && self.open.get() >= self.options.connections
                    && !self.queue.has_room(whole)
                    && !self.http1.takes_more(Instant::now())
            }
            HttpVersion::Http2 => {
                let may_wait = self.http2.may_open() || self.http2.is_opening();
                let full = !may_wait || self.pending.get() >= WAITING_STREAMS;
                full && !self.http2.has_room()
            }
        }
    }

    /// Connections, idle ones as well.
    pub(super) fn connections(&self) -> usize {
        self.open.get() + self.http2.len()
    }

    /// Copies that wait, and connections and streams that carry one or are being made.
    pub(super) fn busy(&self) -> usize {
        let single = self.open.get() - self.http1.idle().min(self.open.get());
        single + self.queue.len() + self.http2.streams() + self.pending.get()
    }

    /// Counts the connections that were closed for what the endpoint sent.
    pub(super) fn count_closed(&self, recorder: &Recorder, log_limiter: &LogLimiter, now: Instant) {
        let (long, floods) = self.reads.take_closed();
        for (reason, count) in [(ShadowClosed::LongResponse, long), (ShadowClosed::Flood, floods)] {
            if count == 0 {
                continue;
            }
            recorder.shadow_closed(&self.service, reason, count.into());
            if log_limiter.take() {
                let (shadow, endpoint, reason) = (&self.service, self.endpoint, reason.label());
                tracing::warn!(%shadow, %endpoint, reason, count, "closed connections to a shadow");
            }
        }
        self.health.record_floods(floods, now);
    }

    /// Closes what has idled too long; whether the pool is still of use.
    pub(super) fn sweep(self: &Rc<Self>, now: Instant) -> bool {
        self.http2_copies.sweep(now);
        self.expire(now);
        self.drain_queue();
        while self.tasks.borrow_mut().try_join_next().is_some() {}
        self.http1.sweep(IDLE, self.options.response_timeout);
        let carries =
            self.http2.sweep(IDLE) || self.open.get() > 0 || !self.http2_copies.is_empty();
        carries || self.used.get().elapsed() < MEMORY
    }

    /// Closes all connections, whatever they carry, and drops what waits.
    pub(super) fn close(&self) {
        while self.queue.pop().is_some() {}
        self.http2.close();
        self.tasks.borrow_mut().abort_all();
    }
}

/// One of the pool's connections, counted while it lasts.
pub(super) struct ConnectionPermit(Rc<EndpointPool>);

impl ConnectionPermit {
    pub(super) fn pool(&self) -> &Rc<EndpointPool> {
        &self.0
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
    }
}

/// A copy that waits for a connection.
struct PendingGuard<'a>(&'a Cell<usize>);

impl<'a> PendingGuard<'a> {
    fn new(count: &'a Cell<usize>) -> Self {
        count.set(count.get() + 1);
        Self(count)
    }
}

impl Drop for PendingGuard<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

#[cfg(test)]
mod tests;

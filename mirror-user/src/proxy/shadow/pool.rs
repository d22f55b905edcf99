//! A pool: the connections of this worker to one shadow endpoint. In: copies. Each goes to an idle
//! connection or a free stream, or to a new one; where there is none, it waits for a moment, or is
//! dropped.

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
    backoff::EndpointBackoff,
    connection_task,
    copy::Copy,
    copy_tasks::CopyTasks,
    head::{CopyHead, Http1Head},
    pooled::PooledConnection,
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

/// Connections in a row that may break before a response's end: each costs a new one, and a
/// shadow that breaks them all would cost one per request.
const BROKEN: u32 = 16;

/// Connections that may be closed for floods; the next sends the endpoint to rest.
const FLOODED: u32 = 2;

/// How long nothing is pipelined to an endpoint that closed with copies on their way.
const ONE_BY_ONE: Duration = Duration::from_secs(60);

/// How long a pool without connections remembers its endpoint's failures.
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
    open: Cell<usize>,
    tasks: RefCell<JoinSet<()>>,
    /// Connections of HTTP/1 that are open.
    connections: RefCell<Vec<Rc<PooledConnection>>>,
    /// Those of them that carry nothing.
    idle: RefCell<Vec<Rc<PooledConnection>>>,
    /// The one that was handed a copy last, and may take more.
    current: RefCell<Option<Rc<PooledConnection>>>,
    /// A connection has carried more than one copy, and none since was closed after its first without
    /// a word.
    keeps_open: Cell<bool>,
    /// Until when nothing is pipelined, since the endpoint closed with copies on their way.
    unpipelined_until: Cell<Option<Instant>>,
    /// Copies that wait for a connection of HTTP/1.
    queue: CopyQueue,
    /// Connections of HTTP/2.
    http2: Http2Pool,
    /// Copies that wait for one of them to open.
    pending: Cell<usize>,
    /// Copies on streams, and those that wait for one.
    pub(super) http2_copies: Rc<CopyTasks>,
    /// Of connects.
    connect_backoff: Cell<EndpointBackoff>,
    /// Of connections that broke before a response's end.
    response_backoff: Cell<EndpointBackoff>,
    /// Of connections that were closed for what the endpoint sent unasked.
    flood_backoff: Cell<EndpointBackoff>,
    /// When that was last.
    last_flood: Cell<Instant>,
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
            connections: RefCell::default(),
            idle: RefCell::default(),
            current: RefCell::default(),
            keeps_open: Cell::default(),
            unpipelined_until: Cell::default(),
            http2,
            pending: Cell::new(0),
            http2_copies: CopyTasks::new(Instant::now()),
            connect_backoff: Cell::new(EndpointBackoff::new(0)),
            response_backoff: Cell::new(EndpointBackoff::new(BROKEN)),
            flood_backoff: Cell::new(EndpointBackoff::of_floods(FLOODED)),
            last_flood: Cell::new(Instant::now()),
            used: Cell::new(Instant::now()),
        })
    }

    /// Sends the copy on its way, or drops it.
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
        if copy.head.pipelined
            && self.takes_more(now)
            && let Some(pooled) = &*self.current.borrow()
        {
            return pooled.enqueue(copy, now);
        }
        loop {
            let Some(pooled) = self.idle.borrow_mut().pop() else { break };
            if pooled.connection.is_quiet() {
                pooled.enqueue(copy, now);
                *self.current.borrow_mut() = Some(pooled);
                return;
            }
            pooled.close();
        }
        if self.open.get() < self.options.connections {
            self.open(copy);
        } else if self.queue.has_room(copy.head.encoded.has_no_content()) {
            self.queue.push(copy, now);
        } else {
            copy.guard.settle(CopyOutcome::Dropped(DropReason::Connections), 0);
        }
    }

    /// Whether a copy may be sent behind others on the current connection.
    fn takes_more(&self, now: Instant) -> bool {
        self.pipelines(now)
            && self.current.borrow().as_ref().is_some_and(|pooled| pooled.takes_more(now))
    }

    fn pipelines(&self, now: Instant) -> bool {
        self.unpipelined_until.get().is_none_or(|until| now >= until)
    }

    /// Whether a connection has proven that the endpoint does not close after each response, or has
    /// shown the opposite.
    pub(super) fn keeps_open(&self, keeps: bool) {
        self.keeps_open.set(keeps);
    }

    /// Whether a new connection may be taken for one that stays open.
    pub(super) fn is_known_to_keep_open(&self) -> bool {
        self.keeps_open.get()
    }

    /// The endpoint closed while more than one copy was on its way.
    pub(super) fn stop_pipelining(&self) {
        self.unpipelined_until.set(Some(Instant::now() + ONE_BY_ONE));
    }

    /// A connection is open.
    pub(super) fn register(self: &Rc<Self>, pooled: Rc<PooledConnection>) -> PoolEntry {
        self.connections.borrow_mut().push(Rc::clone(&pooled));
        PoolEntry { pool: Rc::clone(self), pooled }
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

    /// The same if it may be sent behind those that are on their way on this connection.
    pub(super) fn next_pipelined(
        &self,
        pooled: &PooledConnection,
        now: Instant,
    ) -> Option<Copy<Http1Head>> {
        let takes = self.pipelines(now) && pooled.takes_more(now);
        if takes { self.queue.pop_pipelined() } else { None }
    }

    /// Opens connections for those that wait, as far as there is room.
    pub(super) fn drain_queue(self: &Rc<Self>) {
        while self.open.get() < self.options.connections {
            let Some(copy) = self.next() else { return };
            if self.is_resting() {
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

    /// Sends a copy that goes by HTTP/2 on its way, or drops it.
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
                self.idle.borrow().is_empty()
                    && self.open.get() >= self.options.connections
                    && !self.queue.has_room(whole)
                    && !self.takes_more(Instant::now())
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
        let single = self.open.get() - self.idle.borrow().len().min(self.open.get());
        single + self.queue.len() + self.http2.streams() + self.pending.get()
    }

    /// Whether the endpoint failed lately and is left alone.
    pub(super) fn is_resting(&self) -> bool {
        let rests =
            |backoff: EndpointBackoff| backoff.has_failed() && backoff.is_resting(Instant::now());
        [&self.connect_backoff, &self.response_backoff, &self.flood_backoff]
            .into_iter()
            .any(|backoff| rests(backoff.get()))
    }

    /// Whether a connection could be made.
    pub(super) fn record_connect(&self, connected: bool) {
        update(&self.connect_backoff, connected);
    }

    /// Whether a response came to its end, or the shadow ended the connection before that.
    pub(super) fn record_response(&self, whole: bool) {
        update(&self.response_backoff, whole);
    }

    /// Counts the connections that were closed for what the endpoint sent. One that floods rests: a
    /// connection of its own for each copy would be a flood as well.
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
        if floods > 0 {
            if self.last_flood.replace(now) + MEMORY < now {
                update(&self.flood_backoff, true);
            }
            (0..floods.min(FLOODED + 1)).for_each(|_| update(&self.flood_backoff, false));
        }
    }

    /// A connection has nothing to carry.
    pub(super) fn release(&self, pooled: &Rc<PooledConnection>) {
        self.current.borrow_mut().take_if(|current| Rc::ptr_eq(current, pooled));
        self.idle.borrow_mut().push(Rc::clone(pooled));
    }

    /// An idle connection is over.
    pub(super) fn remove_idle(&self, pooled: &Rc<PooledConnection>) {
        self.idle.borrow_mut().retain(|idle| !Rc::ptr_eq(idle, pooled));
    }

    /// Closes what has idled too long; whether the pool is still of use.
    pub(super) fn sweep(self: &Rc<Self>, now: Instant) -> bool {
        self.http2_copies.sweep(now);
        self.expire(now);
        self.drain_queue();
        while self.tasks.borrow_mut().try_join_next().is_some() {}
        self.idle.borrow_mut().retain(|pooled| {
            let stays = pooled.age() <= IDLE;
            if !stays {
                pooled.close();
            }
            stays
        });
        for pooled in self.connections.borrow().iter() {
            if !pooled.is_idle() && pooled.age() > self.options.response_timeout {
                pooled.set_timed_out();
            }
        }
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

fn update(backoff: &Cell<EndpointBackoff>, success: bool) {
    let mut updated = backoff.get();
    if success {
        updated.succeeded();
    } else {
        updated.failed(Instant::now());
    }
    backoff.set(updated);
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

/// A connection that the pool may hand copies to, for as long as it lasts.
pub(super) struct PoolEntry {
    pool: Rc<EndpointPool>,
    pooled: Rc<PooledConnection>,
}

impl std::ops::Deref for PoolEntry {
    type Target = Rc<PooledConnection>;

    fn deref(&self) -> &Rc<PooledConnection> {
        &self.pooled
    }
}

impl Drop for PoolEntry {
    fn drop(&mut self) {
        let Self { pool, pooled } = self;
        pool.connections.borrow_mut().retain(|other| !Rc::ptr_eq(other, pooled));
        pool.remove_idle(pooled);
        pool.current.borrow_mut().take_if(|current| Rc::ptr_eq(current, pooled));
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

//! The shadow leg: copies of requests, fire and forget, beside the primary leg and never in its
//! way.
//!
//! In: a request's head as it stands at the filter's place, then frames as the primary takes them.
//! Out: nothing but outcomes: each selected copy ends delivered, dropped for a reason, or unknown.
//! No function here that the primary leg calls waits, fails or answers.

mod accounting;
mod backoff;
mod connection_task;
mod copy;
mod copy_tasks;
mod endpoint_pool;
mod head;
mod host;
mod http1_pool;
mod outcome;
mod pipeline;
mod pooled_connection;
mod queue;
mod streams;
#[cfg(test)]
mod tests;

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{header, request};
use tokio::task::spawn_local;

pub(crate) use self::host::shadow as shadow_host;
use self::{
    accounting::OutcomeGuard,
    copy::Copy,
    endpoint_pool::{EndpointPool, PoolParts},
    head::CopyHead,
};
use super::{
    draw::Draw,
    log_limiter::LogLimiter,
    mirrored::MirroredRequest,
    protocol::Protocols,
    read_limit::{EndpointReads, WorkerReads},
    tee::{BackendBudget, BudgetCharge, Budgets, CopyBody, CopyBudget, CopyWriter},
};
use crate::{
    hash::FastHashMap,
    outcome::{CopyOutcome, DropReason, Recorder},
    route::{Backend, Mirror, ServicePort},
    sockets::{NetnsTarget, SocketFactory},
    workload::Workload,
};

/// Where a shadow's sockets are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ShadowNetns {
    /// The agent's network namespace: one pool for the node, and the client's egress policy
    /// needs no hole for the shadow.
    #[default]
    Node,
    /// The client's.
    Pod,
}

/// Limits of the shadow leg.
#[derive(Clone, Debug)]
pub struct ShadowOptions {
    /// Appended to the host of Host; empty: the host stays.
    pub host_suffix: String,
    /// Where its sockets are made.
    pub netns: ShadowNetns,
    /// Connections per endpoint and worker, at most. 16 copies with content for each may wait for one
    /// for a second, and as many without; further ones are dropped.
    pub connections: usize,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// From a copy's start to the end of its response, without the time in which the client sends on and
    /// the shadow keeps up; past it the connection is closed.
    pub response_timeout: Duration,
    /// What is read of one response, in bytes; past it the connection is closed (of HTTP/2 the stream is
    /// reset), which changes no outcome.
    pub response_limit: usize,
}

/// A backend's name, and its share of the budgets.
type BackendEntry = (Arc<ServicePort>, Arc<BackendBudget>);

/// What there is to know of a request that is copied, besides its head.
#[derive(Clone, Copy)]
pub(super) struct RequestInfo<'r> {
    /// When its head was there.
    pub(super) started: Instant,
    /// It has no body.
    pub(super) whole: bool,
    /// Where its responses are reported.
    pub(super) mirrored: Option<&'r Rc<MirroredRequest>>,
}

/// A copy that is made, and what feeds its body.
pub(super) type Offer = (PreparedCopy, Option<CopyWriter>);

/// What the shadow leg of a worker is made with.
pub(super) struct ShadowParts {
    pub(super) options: ShadowOptions,
    pub(super) budgets: Arc<Budgets>,
    pub(super) sockets: Arc<dyn SocketFactory>,
    pub(super) recorder: Rc<Recorder>,
    pub(super) draw: Rc<Draw>,
    pub(super) log_limiter: Rc<LogLimiter>,
}

/// The shadow leg's state in one worker.
pub(super) struct Shadows {
    options: Rc<ShadowOptions>,
    budgets: Arc<Budgets>,
    sockets: Arc<dyn SocketFactory>,
    recorder: Rc<Recorder>,
    draw: Rc<Draw>,
    log_limiter: Rc<LogLimiter>,
    protocols: Rc<Protocols>,
    /// What is read of shadows.
    reads: Rc<WorkerReads>,
    /// Each backend's share of the budgets, looked up once for each allocation of its name, which is
    /// kept with it.
    backends: RefCell<FastHashMap<usize, BackendEntry>>,
    /// Of the routes that `backends` was looked up for.
    generation: Cell<u64>,
    /// By the workload whose namespace the sockets are in (0: the agent's own), and endpoint.
    pools: RefCell<FastHashMap<(u64, SocketAddr), Rc<EndpointPool>>>,
}

impl Shadows {
    pub(super) fn new(parts: ShadowParts) -> Self {
        let ShadowParts { options, budgets, sockets, recorder, draw, log_limiter } = parts;
        Self {
            reads: WorkerReads::new(options.response_limit),
            options: Rc::new(options),
            budgets,
            sockets,
            recorder,
            draw,
            log_limiter,
            protocols: Rc::default(),
            backends: RefCell::default(),
            generation: Cell::default(),
            pools: RefCell::default(),
        }
    }

    /// Makes a copy of a selected request as it stands. None when the copy was dropped at once; its
    /// outcome is told either way.
    pub(super) fn offer(
        &self,
        workload: &Workload,
        frontend: SocketAddr,
        mirror: &Mirror,
        head: &request::Parts,
        info: RequestInfo<'_>,
    ) -> Option<Offer> {
        let Ok(backend) = &mirror.target else { return None };
        let guard =
            OutcomeGuard::new(&self.recorder, &backend.service, info.started, info.mirrored);
        let CopyParts { pool, copy_budget, head, charge } =
            match self.prepare(workload, frontend, backend, head, info.whole) {
                Ok(prepared) => prepared,
                Err(reason) => {
                    guard.settle(CopyOutcome::Dropped(reason), 0);
                    return None;
                }
            };
        let (body, writer) =
            if info.whole { (CopyBody::empty(), None) } else { CopyBody::stream(copy_budget) };
        let copy = Copy { head, body, guard, charge, moves: 0 };
        Some((PreparedCopy { pool, copy }, writer))
    }

    /// What a copy needs before it is made. A pool without room is known before the head is
    /// copied, so that a shadow that never answers costs next to nothing.
    fn prepare(
        &self,
        workload: &Workload,
        frontend: SocketAddr,
        backend: &Backend,
        head: &request::Parts,
        whole: bool,
    ) -> Result<CopyParts, DropReason> {
        let pool = self.pool(workload, frontend, backend)?;
        let version = self.protocols.of(backend.protocol, head.version, pool.endpoint);
        if pool.is_full(version, whole) {
            return Err(DropReason::Connections);
        }
        let copy_budget = self.budgets.copy_budget(self.backend_budget(&backend.service));
        let value = head.headers.get(header::HOST);
        let host = value.and_then(|host| host::shadow(host, &self.options.host_suffix));
        let head = CopyHead::new(head, host, whole, version);
        let charge = copy_budget.charge(head.size())?;
        Ok(CopyParts { pool, copy_budget, head, charge })
    }

    /// Begins the next tick of reading, closes connections that have idled too long, and forgets
    /// pools without any and backends of routes that are no longer in force.
    pub(super) fn sweep(&self, generation: u64) {
        if self.reads.tick() {
            spawn_local(Rc::clone(&self.reads).wake_all());
        }
        if self.generation.replace(generation) != generation {
            self.backends.borrow_mut().clear();
        }
        self.protocols.sweep(generation);
        let now = Instant::now();
        self.pools.borrow_mut().retain(|_, pool| {
            pool.count_closed(&self.recorder, &self.log_limiter, now);
            pool.sweep(now)
        });
    }

    /// Open connections by shadow; an endpoint of several Services counts for the first.
    pub(super) fn connections(&self) -> HashMap<Arc<ServicePort>, u64> {
        let mut open: HashMap<_, u64> = HashMap::new();
        for pool in self.pools.borrow().values() {
            *open.entry(Arc::clone(&pool.service)).or_default() += pool.connections() as u64;
        }
        open
    }

    /// Closes the connections inside a workload's network namespace: a copy under way would keep
    /// it alive up to the response timeout.
    pub(super) fn leave(&self, workload: u64) {
        self.pools.borrow_mut().retain(|(key, _), pool| {
            let stays = *key != workload;
            if !stays {
                pool.close();
            }
            stays
        });
    }

    /// Closes everything: the worker ends.
    pub(super) fn close(&self) {
        self.reads.close();
        self.pools.borrow_mut().drain().for_each(|(_, pool)| pool.close());
    }

    /// The less busy of two endpoints drawn at random, and not one that failed lately.
    fn pool(
        &self,
        workload: &Workload,
        frontend: SocketAddr,
        backend: &Backend,
    ) -> Result<Rc<EndpointPool>, DropReason> {
        let endpoints = backend.endpoints_for(&frontend);
        let (key, netns) = match self.options.netns {
            ShadowNetns::Node => (0, &NetnsTarget::Own),
            ShadowNetns::Pod => (workload.key, &workload.netns),
        };
        let count = endpoints.len();
        if count == 0 {
            return Err(DropReason::NoEndpoint);
        }
        let service = &backend.service;
        let at = self.draw.below(count);
        let first = self.pool_for(key, netns, endpoints[at], service);
        if count == 1 {
            return if first.health.is_resting() { Err(DropReason::Backoff) } else { Ok(first) };
        }
        // Another one.
        let at = (at + 1 + self.draw.below(count - 1)) % count;
        let second = self.pool_for(key, netns, endpoints[at], service);
        match (first.health.is_resting(), second.health.is_resting()) {
            (true, true) => Err(DropReason::Backoff),
            (true, false) => Ok(second),
            (false, true) => Ok(first),
            (false, false) if second.busy() < first.busy() => Ok(second),
            (false, false) => Ok(first),
        }
    }

    fn pool_for(
        &self,
        key: u64,
        netns: &NetnsTarget,
        endpoint: SocketAddr,
        service: &Arc<ServicePort>,
    ) -> Rc<EndpointPool> {
        let mut pools = self.pools.borrow_mut();
        let pool = pools.entry((key, endpoint)).or_insert_with(|| {
            let sockets = Arc::clone(&self.sockets);
            let parts = PoolParts {
                options: Rc::clone(&self.options),
                sockets,
                reads: EndpointReads::new(&self.reads),
                protocols: Rc::clone(&self.protocols),
            };
            EndpointPool::new(service, endpoint, netns.clone(), parts)
        });
        Rc::clone(pool)
    }

    fn backend_budget(&self, service: &Arc<ServicePort>) -> Arc<BackendBudget> {
        let mut backends = self.backends.borrow_mut();
        let (_, budget) = backends
            .entry(Arc::as_ptr(service).addr())
            .or_insert_with(|| (Arc::clone(service), self.budgets.backend(service)));
        Arc::clone(budget)
    }
}

/// What a copy needs before it is made.
struct CopyParts {
    pool: Rc<EndpointPool>,
    copy_budget: Arc<CopyBudget>,
    head: CopyHead,
    charge: BudgetCharge,
}

/// A copy that has yet to be sent on its way.
pub(super) struct PreparedCopy {
    pool: Rc<EndpointPool>,
    copy: Copy<CopyHead>,
}

impl PreparedCopy {
    /// Hands the copy to a connection.
    pub(super) fn dispatch(self) {
        self.pool.dispatch(self.copy);
    }
}

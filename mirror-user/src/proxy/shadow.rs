//! The shadow leg: copies of requests, fire and forget, beside the primary leg and never in its
//! way.
//!
//! In: a request's head as it stands at the filter's place, then frames as the primary takes them.
//! Out: nothing but outcomes: each selected copy ends delivered, dropped for a reason, or unknown.
//! No function here that the primary leg calls waits, fails or answers.

mod backoff;
mod budget;
mod carrier;
mod copy;
mod fleet;
mod head;
mod host;
mod lane;
mod outcome;
mod pipeline;
mod post;
mod queue;
mod streams;
#[cfg(feature = "bench")]
mod tee;
mod ticket;

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{header, request};

pub use self::budget::{Budget, Budgets};
pub(super) use self::copy::CopyWriter;
pub(crate) use self::host::shadow as shadow_host;
#[cfg(feature = "bench")]
pub use self::tee::Tee;
use self::{
    budget::{Charge, Purse},
    copy::{Copy, CopyBody},
    head::Head,
    lane::Lane,
    ticket::Ticket,
};
use super::{connection::Client, context::Context, exchange::Offer, maps::QuickMap};
use crate::{
    outcome::{CopyOutcome, DropReason},
    route::{Backend, Mirror, ServicePort},
    sockets::{Place, SocketFactory},
};

/// Where a shadow's sockets are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ShadowPlace {
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
    pub place: ShadowPlace,
    /// Connections per endpoint and worker, at most. As many copies may wait for one for a second, 16
    /// times as many without content; further ones are dropped.
    pub connections: usize,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// From a copy's start to the end of its answer; past it the connection is closed.
    pub response_timeout: Duration,
}

/// A backend's name, and its share of the budgets.
type Share = (Arc<ServicePort>, Arc<Budget>);

/// What there is to know of a request that is copied, besides its head.
#[derive(Clone, Copy)]
pub(super) struct Asked {
    /// When its head was there.
    pub(super) started: Instant,
    /// It has no body.
    pub(super) whole: bool,
}

/// The shadow leg's state in one worker.
pub(super) struct Shadows {
    options: Rc<ShadowOptions>,
    budgets: Arc<Budgets>,
    sockets: Arc<dyn SocketFactory>,
    /// Each backend's share of the budgets, looked up once for each allocation of its name, which is
    /// kept with it.
    backends: RefCell<QuickMap<usize, Share>>,
    /// Of the routes that `backends` was looked up for.
    generation: Cell<u64>,
    /// By the workload whose namespace the sockets are in (0: the agent's own), and endpoint.
    lanes: RefCell<QuickMap<(u64, SocketAddr), Rc<Lane>>>,
}

impl Shadows {
    pub(super) fn new(
        options: ShadowOptions,
        budgets: Arc<Budgets>,
        sockets: Arc<dyn SocketFactory>,
    ) -> Self {
        let (backends, generation, lanes) = Default::default();
        Self { options: Rc::new(options), budgets, sockets, backends, generation, lanes }
    }

    /// Makes a copy of a selected request as it stands. None when the copy was dropped at once; its
    /// outcome is told either way.
    pub(super) fn offer(
        &self,
        ctx: &Rc<Context>,
        client: &Client,
        mirror: &Mirror,
        head: &request::Parts,
        asked: Asked,
    ) -> Option<Offer> {
        let Ok(backend) = &mirror.target else { return None };
        let ticket = Ticket::new(ctx, &backend.service, asked.started);
        let Prepared { lane, purse, head, charge } =
            match self.prepare(ctx, client, backend, head, asked.whole) {
                Ok(prepared) => prepared,
                Err(reason) => {
                    ticket.settle(CopyOutcome::Dropped(reason), 0);
                    return None;
                }
            };
        let (body, writer) =
            if asked.whole { (CopyBody::empty(), None) } else { CopyBody::stream(purse) };
        let copy = Copy { head, body, ticket, charge, moves: 0 };
        Some((Launch { lane, copy }, writer))
    }

    /// What a copy needs before it is made. A lane without room is known before the head is
    /// copied, so that a shadow that never answers costs next to nothing.
    fn prepare(
        &self,
        ctx: &Context,
        client: &Client,
        backend: &Backend,
        head: &request::Parts,
        whole: bool,
    ) -> Result<Prepared, DropReason> {
        let lane = self.lane(ctx, client, backend)?;
        let speaks = ctx.protocols.of(backend.protocol, head.version, lane.endpoint);
        if lane.is_full(speaks, whole) {
            return Err(DropReason::Connections);
        }
        let purse = self.budgets.purse(self.backend_budget(&backend.service));
        let told = head.headers.get(header::HOST);
        let host = told.and_then(|host| host::shadow(host, &self.options.host_suffix));
        let head = Head::new(head, host, whole, speaks);
        let charge = purse.charge(head.size())?;
        Ok(Prepared { lane, purse, head, charge })
    }

    /// Closes connections that have idled too long, and forgets lanes without any and backends of
    /// routes that are no longer in force.
    pub(super) fn sweep(&self, generation: u64) {
        if self.generation.replace(generation) != generation {
            self.backends.borrow_mut().clear();
        }
        let now = Instant::now();
        self.lanes.borrow_mut().retain(|_, lane| lane.sweep(now));
    }

    /// Open connections by shadow; an endpoint of several Services counts for the first.
    pub(super) fn connections(&self) -> HashMap<Arc<ServicePort>, u64> {
        let mut open: HashMap<_, u64> = HashMap::new();
        for lane in self.lanes.borrow().values() {
            *open.entry(Arc::clone(&lane.service)).or_default() += lane.connections() as u64;
        }
        open
    }

    /// Closes the connections inside a workload's network namespace: a copy under way would keep
    /// it alive up to the response timeout.
    pub(super) fn leave(&self, workload: u64) {
        self.lanes.borrow_mut().retain(|(key, _), lane| {
            let stays = *key != workload;
            if !stays {
                lane.close();
            }
            stays
        });
    }

    /// Closes everything: the worker ends.
    pub(super) fn close(&self) {
        self.lanes.borrow_mut().drain().for_each(|(_, lane)| lane.close());
    }

    /// The less busy of two endpoints drawn at random, and not one that failed lately.
    fn lane(
        &self,
        ctx: &Context,
        client: &Client,
        backend: &Backend,
    ) -> Result<Rc<Lane>, DropReason> {
        let endpoints = backend.endpoints_for(&client.frontend.address);
        let (key, place) = match self.options.place {
            ShadowPlace::Node => (0, &Place::Own),
            ShadowPlace::Pod => (client.workload.key, &client.workload.place),
        };
        let count = endpoints.len() as u64;
        if count == 0 {
            return Err(DropReason::NoEndpoint);
        }
        let draw = || {
            let at = (u128::from(ctx.draw()) * u128::from(count)) >> 64;
            endpoints[usize::try_from(at).unwrap_or(0)]
        };
        let service = &backend.service;
        let first = self.lane_to(key, place, draw(), service);
        if count == 1 {
            return if first.is_resting() { Err(DropReason::Backoff) } else { Ok(first) };
        }
        let second = self.lane_to(key, place, draw(), service);
        match (first.is_resting(), second.is_resting()) {
            (true, true) => Err(DropReason::Backoff),
            (true, false) => Ok(second),
            (false, true) => Ok(first),
            (false, false) if second.busy() < first.busy() => Ok(second),
            (false, false) => Ok(first),
        }
    }

    fn lane_to(
        &self,
        key: u64,
        place: &Place,
        endpoint: SocketAddr,
        service: &Arc<ServicePort>,
    ) -> Rc<Lane> {
        let mut lanes = self.lanes.borrow_mut();
        let lane = lanes.entry((key, endpoint)).or_insert_with(|| {
            let sockets = Arc::clone(&self.sockets);
            Lane::new(service, endpoint, place.clone(), Rc::clone(&self.options), sockets)
        });
        Rc::clone(lane)
    }

    fn backend_budget(&self, service: &Arc<ServicePort>) -> Arc<Budget> {
        let mut backends = self.backends.borrow_mut();
        let (_, budget) = backends
            .entry(Arc::as_ptr(service).addr())
            .or_insert_with(|| (Arc::clone(service), self.budgets.backend(service)));
        Arc::clone(budget)
    }
}

/// What a copy needs before it is made.
struct Prepared {
    lane: Rc<Lane>,
    purse: Arc<Purse>,
    head: Head,
    charge: Charge,
}

/// A copy that has yet to be sent on its way.
pub(super) struct Launch {
    lane: Rc<Lane>,
    copy: Copy<Head>,
}

impl Launch {
    /// Hands the copy to a connection.
    pub(super) fn now(self) {
        self.lane.take(self.copy);
    }
}

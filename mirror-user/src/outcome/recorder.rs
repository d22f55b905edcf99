//! The recorder of one worker: events in, a [`Report`] out on request. After the first event of
//! a frontend, backend or shadow, recording allocates nothing and looks up one or two hashes.

use std::{cell::RefCell, collections::HashMap, sync::Arc, time::Duration};

use super::{
    AccessLog, ConnectionKind, Copies, CopyOutcome, Ending, Exchanges, LogFields, Mode, Pairs,
    RefusalEvent, Report, RequestEvent, RetryReason, RouteRetryReason, ShadowClosed, TapEnd,
    TimedResponse, Uncopied,
    labels::class,
    report::{FrontendBackend, RouteShadow},
};
use crate::{
    hash::FastHashMap,
    model::{ObjectName, RouteKind, RouteName},
    route::ServicePort,
};

/// Bound on the pairs of frontend and backend, on the shadows, and on the routes that retry, which a
/// worker distinguishes.
/// What exceeds it is counted under `other`.
const MAX_SERIES: usize = 4096;

/// Bound on the remembered allocations; each publication of routes may bring new ones.
const MAX_ADDRESSES: usize = 4 * MAX_SERIES;

/// Counts what happens on one worker. For that worker's thread alone, through `&self`.
#[derive(Debug)]
pub struct Recorder {
    state: RefCell<State>,
    access: AccessLog,
}

#[derive(Debug, Default)]
struct State {
    /// All but the two maps, which are filled in for a report.
    plain: Report,
    exchanges: Slots<FrontendBackend, Exchanges>,
    copies: Slots<Arc<ServicePort>, Copies>,
    pairs: Slots<RouteShadow, Pairs>,
}

impl Recorder {
    /// A recorder that has counted nothing and writes a line per request to `access`.
    #[must_use]
    pub fn new(access: AccessLog) -> Self {
        Self { state: RefCell::default(), access }
    }

    /// A connection turned out to be of this kind. Once per connection.
    pub fn connection(&self, kind: ConnectionKind) {
        let plain = &mut self.state.borrow_mut().plain;
        plain.connections[kind as usize] += 1;
        plain.open[kind as usize] += 1;
    }

    /// A connection that was reported to [`Recorder::connection`] is closed.
    pub fn connection_closed(&self, kind: ConnectionKind) {
        let open = &mut self.state.borrow_mut().plain.open[kind as usize];
        *open = open.saturating_sub(1);
    }

    /// Bytes of an opaque connection or a tunnel, passed on to the server and back.
    pub fn passed(&self, to_server: u64, to_client: u64) {
        let plain = &mut self.state.borrow_mut().plain;
        plain.passed[0] += to_server;
        plain.passed[1] += to_client;
    }

    /// For the access log, of a head as the client sent it: hand it back with the event.
    #[must_use]
    pub fn log_fields(&self, head: &http::request::Parts) -> LogFields {
        self.access.log_fields(head)
    }

    /// A request ended. Once per request of a client, whatever was retried.
    pub fn request(&self, event: &RequestEvent<'_>) {
        let state = &mut *self.state.borrow_mut();
        let slot = state.exchanges.exchange(&event.frontend.service, event.backend);
        if event.mode == Mode::Tap {
            // How it ended is not known.
            slot.tapped += 1;
            return self.access.write(event);
        }
        let class = class(event.status);
        slot.requests[class][event.source as usize][event.ending as usize] += 1;
        slot.durations[class].observe(event.duration);
        slot.sent += event.request_bytes;
        slot.received += event.response_bytes;
        if let Some(refusal) = event.refusal {
            state.plain.refused[refusal as usize] += 1;
        }
        self.access.write(event);
    }

    /// Something was refused before there was a request. What got a response counts as a request as
    /// well; how long it took is unknown.
    pub fn refused(&self, event: &RefusalEvent<'_>) {
        let state = &mut *self.state.borrow_mut();
        state.plain.refused[event.refusal as usize] += 1;
        if let (Some(frontend), Some(_)) = (event.frontend, event.status) {
            let slot = state.exchanges.exchange(&frontend.service, None);
            let requests = &mut slot.requests[class(event.status)];
            requests[event.source() as usize][Ending::Complete as usize] += 1;
        }
        self.access.write_refusal(event);
    }

    /// A request was sent to the primary once more.
    pub fn retry(&self, reason: RetryReason) {
        self.state.borrow_mut().plain.retries[reason as usize] += 1;
    }

    /// A request was sent again as a rule of this route asks for.
    pub fn route_retry(&self, route: &RouteName, reason: RouteRetryReason) {
        let retries = &mut self.state.borrow_mut().plain.route_retries;
        if let Some(known) = retries.get_mut(route) {
            known[reason as usize] += 1;
            return;
        }
        let route = if retries.len() < MAX_SERIES { route.clone() } else { other_route() };
        retries.entry(route).or_default()[reason as usize] += 1;
    }

    /// A mirror selected a request, and no copy is made of it.
    pub fn uncopied(&self, reason: Uncopied) {
        self.state.borrow_mut().plain.uncopied[reason as usize] += 1;
    }

    /// No further requests of a tapped connection are copied.
    pub fn tap_ended(&self, end: TapEnd) {
        self.state.borrow_mut().plain.tap_ends[end as usize] += 1;
    }

    /// A mirror selected a request: exactly one [`Recorder::copy`] must follow.
    pub fn copy_selected(&self, shadow: &Arc<ServicePort>) {
        self.state.borrow_mut().copies.copy(shadow).selected += 1;
    }

    /// A selected copy ended. `bytes`: of its body, as sent; `duration`: since it was selected.
    pub fn copy(
        &self,
        shadow: &Arc<ServicePort>,
        outcome: CopyOutcome,
        bytes: u64,
        duration: Duration,
    ) {
        let state = &mut *self.state.borrow_mut();
        let slot = state.copies.copy(shadow);
        slot.ended[outcome.index()] += 1;
        slot.durations.observe(duration);
        slot.sent += bytes;
    }

    /// A shadow has responded to a copy. Once per copy at most.
    pub fn shadow_response(&self, shadow: &Arc<ServicePort>, response: &TimedResponse) {
        let state = &mut *self.state.borrow_mut();
        let slot = state.copies.copy(shadow);
        slot.responses[response.class()] += 1;
        slot.response_times.observe(response.after);
        if let Some(code) = response.grpc_code() {
            slot.grpc[code] += 1;
        }
    }

    /// Both have responded to a request that was mirrored, or the primary has not and will not.
    pub fn pair(
        &self,
        route: &Arc<RouteName>,
        shadow: &Arc<ServicePort>,
        primary: &TimedResponse,
        response: &TimedResponse,
    ) {
        let state = &mut *self.state.borrow_mut();
        let slot = state.pairs.pair(route, shadow);
        slot.counts[primary.class()][response.class()] += 1;
        if primary.status.is_some() {
            slot.primary.observe(primary.after);
        }
        slot.shadow.observe(response.after);
    }

    /// This worker has so many connections to the shadow now.
    pub fn shadow_connections(&self, shadow: &Arc<ServicePort>, open: u64) {
        self.state.borrow_mut().copies.copy(shadow).connections = open;
    }

    /// mirror closed so many connections to the shadow for what it sent.
    pub fn shadow_closed(&self, shadow: &Arc<ServicePort>, reason: ShadowClosed, count: u64) {
        self.state.borrow_mut().copies.copy(shadow).closed[reason as usize] += count;
    }

    /// All that was counted so far.
    #[must_use]
    pub fn report(&self) -> Report {
        let state = self.state.borrow();
        let mut report = state.plain.clone();
        report.exchanges.extend(state.exchanges.slots.iter().cloned());
        report.copies.extend(state.copies.slots.iter().cloned());
        report.pairs.extend(state.pairs.slots.iter().cloned());
        report
    }
}

/// Counts by key, found by the addresses of the key's allocations. An address stands for its key
/// only as long as the allocation lives, so that a copy of the key is kept beside it.
#[derive(Debug)]
struct Slots<K, V> {
    slots: Vec<(K, V)>,
    by_address: FastHashMap<(usize, usize), (usize, K)>,
    by_key: HashMap<K, usize>,
}

impl<K, V> Default for Slots<K, V> {
    fn default() -> Self {
        Self { slots: Vec::new(), by_address: FastHashMap::default(), by_key: HashMap::new() }
    }
}

impl Slots<FrontendBackend, Exchanges> {
    fn exchange(
        &mut self,
        frontend: &Arc<ServicePort>,
        backend: Option<&Arc<ServicePort>>,
    ) -> &mut Exchanges {
        let addresses = (address(frontend), backend.map_or(0, address));
        let key = || (Arc::clone(frontend), backend.cloned());
        self.slot(addresses, key, || (other(), None))
    }
}

impl Slots<Arc<ServicePort>, Copies> {
    fn copy(&mut self, shadow: &Arc<ServicePort>) -> &mut Copies {
        self.slot((address(shadow), 0), || Arc::clone(shadow), other)
    }
}

impl Slots<RouteShadow, Pairs> {
    fn pair(&mut self, route: &Arc<RouteName>, shadow: &Arc<ServicePort>) -> &mut Pairs {
        let addresses = (Arc::as_ptr(route).addr(), address(shadow));
        let key = || (Arc::clone(route), Arc::clone(shadow));
        self.slot(addresses, key, || (Arc::new(other_route()), other()))
    }
}

impl<K: Clone + Eq + std::hash::Hash, V: Default> Slots<K, V> {
    fn slot(
        &mut self,
        addresses: (usize, usize),
        key: impl FnOnce() -> K,
        other: impl FnOnce() -> K,
    ) -> &mut V {
        let at = match self.by_address.get(&addresses) {
            Some((at, _)) => *at,
            None => self.insert(addresses, key(), other),
        };
        &mut self.slots[at].1
    }

    /// The first event of an allocation: finds the slot of an equal key, or makes one.
    fn insert(&mut self, addresses: (usize, usize), key: K, other: impl FnOnce() -> K) -> usize {
        let known = self.by_key.get(&key).copied();
        let at = known.unwrap_or_else(|| {
            let named = if self.slots.len() < MAX_SERIES { key.clone() } else { other() };
            *self.by_key.entry(named.clone()).or_insert_with(|| {
                self.slots.push((named, V::default()));
                self.slots.len() - 1
            })
        });
        if self.by_address.len() >= MAX_ADDRESSES {
            // Most are of publications long gone; those in use come back with their next event.
            self.by_address.clear();
        }
        self.by_address.insert(addresses, (at, key));
        at
    }
}

fn address(service: &Arc<ServicePort>) -> usize {
    Arc::as_ptr(service).addr()
}

/// Stands for everything beyond [`MAX_SERIES`]; no Service has port 0.
fn other() -> Arc<ServicePort> {
    Arc::new(ServicePort { namespace: String::new(), name: "other".into(), port: 0 })
}

/// The same for routes: none is without a Namespace.
fn other_route() -> RouteName {
    RouteKind::Http.named(ObjectName { namespace: String::new(), name: "other".into() })
}

#[cfg(test)]
pub(super) mod tests;

//! Reports: what one worker has counted since its start, and the sum over the workers.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    ConnectionKind, CopyOutcome, Ending, Histogram, RefusalReason, ResponseSource, RetryReason,
    RouteRetryReason, ShadowClosed, TapEnd, Uncopied,
    labels::CLASSES,
    response::{GRPC_CODES, RESPONSE_CLASSES},
};
use crate::{model::RouteName, route::ServicePort};

/// Requests of one frontend to one backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exchanges {
    /// Counts by class of the status, response source and ending.
    pub requests: [[[u64; Ending::ALL.len()]; ResponseSource::ALL.len()]; CLASSES.len()],
    /// Durations by class of the status.
    pub durations: [Histogram; CLASSES.len()],
    /// Bytes of the requests' bodies.
    pub sent: u64,
    /// Bytes of the responses' bodies.
    pub received: u64,
    /// Requests of tapped connections, which count nowhere else.
    pub tapped: u64,
}

/// Copies for one shadow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Copies {
    /// Selected by a mirror.
    pub selected: u64,
    /// Ended, by [`CopyOutcome::index`].
    pub ended: [u64; CopyOutcome::COUNT],
    /// Durations of those that ended.
    pub durations: Histogram,
    /// Bytes of their bodies.
    pub sent: u64,
    /// Connections to it that are open now.
    pub connections: u64,
    /// Connections to it that mirror closed for what it sent, by [`ShadowClosed`].
    pub closed: [u64; ShadowClosed::ALL.len()],
    /// Its responses, by their class.
    pub responses: [u64; RESPONSE_CLASSES.len()],
    /// Those of gRPC, by their code.
    pub grpc: [u64; GRPC_CODES],
    /// How long the heads of its responses took.
    pub response_times: Histogram,
}

/// Responses to the requests of one route that one shadow has responded to as well.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pairs {
    /// By the class of the primary's response, then of the shadow's.
    pub counts: [[u64; RESPONSE_CLASSES.len()]; RESPONSE_CLASSES.len()],
    /// How long the heads of the primary's responses took, where there was one.
    pub primary: Histogram,
    /// The same of the shadow's.
    pub shadow: Histogram,
}

/// Which frontend, which backend (None: none was chosen).
pub type FrontendBackend = (Arc<ServicePort>, Option<Arc<ServicePort>>);

/// Which route, which shadow.
pub(super) type RouteShadow = (Arc<RouteName>, Arc<ServicePort>);

/// What one worker, or all of them, counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Connections accepted, by [`ConnectionKind`].
    pub connections: [u64; ConnectionKind::ALL.len()],
    /// Of these, still open.
    pub open: [u64; ConnectionKind::ALL.len()],
    /// Requests by frontend and backend.
    pub exchanges: BTreeMap<FrontendBackend, Exchanges>,
    /// Copies by shadow.
    pub copies: BTreeMap<Arc<ServicePort>, Copies>,
    /// Responses to mirrored requests, by route and shadow.
    pub pairs: BTreeMap<RouteShadow, Pairs>,
    /// Bytes passed through unread: to the server, and back.
    pub passed: [u64; 2],
    /// Retries that no route asks for, by [`RetryReason`].
    pub retries: [u64; RetryReason::ALL.len()],
    /// Those that a route asks for, by [`RouteRetryReason`].
    pub route_retries: BTreeMap<RouteName, [u64; RouteRetryReason::ALL.len()]>,
    /// Selected requests that no copy was made of, by [`Uncopied`].
    pub uncopied: [u64; Uncopied::ALL.len()],
    /// What mirror refused or ended on its own account, by [`RefusalReason`].
    pub refused: [u64; RefusalReason::ALL.len()],
    /// Tapped connections that are not copied any further, by [`TapEnd`].
    pub tap_ends: [u64; TapEnd::ALL.len()],
    /// Interim responses (1xx) that a client of HTTP/1 could not be given.
    pub interim_dropped: u64,
}

// Arrays of more than 32 do not implement Default (Rust 1.95).
impl Default for Report {
    fn default() -> Self {
        let (connections, open, exchanges, copies, pairs, passed) = Default::default();
        let (retries, route_retries, uncopied, tap_ends, interim_dropped) = Default::default();
        let refused = [0; RefusalReason::ALL.len()];
        Self {
            connections,
            open,
            exchanges,
            copies,
            pairs,
            passed,
            retries,
            route_retries,
            uncopied,
            refused,
            tap_ends,
            interim_dropped,
        }
    }
}

impl Exchanges {
    fn absorb(&mut self, other: &Self) {
        let mine = self.requests.as_flattened_mut().as_flattened_mut();
        add(mine, other.requests.as_flattened().as_flattened());
        for (mine, theirs) in self.durations.iter_mut().zip(&other.durations) {
            mine.absorb(theirs);
        }
        self.sent += other.sent;
        self.received += other.received;
        self.tapped += other.tapped;
    }
}

impl Copies {
    /// Responses by class, those that occurred.
    pub fn responses(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let all = RESPONSE_CLASSES.into_iter().zip(self.responses);
        all.filter(|(_, count)| *count > 0)
    }

    /// Selected and not ended yet: selected - delivered - dropped - unknown.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.selected.saturating_sub(self.ended.iter().sum())
    }

    fn absorb(&mut self, other: &Self) {
        self.selected += other.selected;
        add(&mut self.ended, &other.ended);
        self.durations.absorb(&other.durations);
        self.sent += other.sent;
        self.connections += other.connections;
        add(&mut self.closed, &other.closed);
        add(&mut self.responses, &other.responses);
        add(&mut self.grpc, &other.grpc);
        self.response_times.absorb(&other.response_times);
    }
}

impl Pairs {
    /// Responses of the shadow whose class is that of the primary's, and all.
    #[must_use]
    pub fn alike(&self) -> (u64, u64) {
        let alike = (0..RESPONSE_CLASSES.len()).map(|at| self.counts[at][at]);
        (alike.sum(), self.counts.as_flattened().iter().sum())
    }

    /// The classes of a primary's and a shadow's response that occurred together, and how often.
    pub fn cells(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        let rows = RESPONSE_CLASSES.into_iter().zip(&self.counts);
        rows.flat_map(|(primary, row)| {
            let cells = RESPONSE_CLASSES.into_iter().zip(row).filter(|(_, count)| **count > 0);
            cells.map(move |(shadow, count)| (primary, shadow, *count))
        })
    }

    /// The classes that differ, and how often: `primary 2xx, shadow 5xx`; the most frequent first.
    #[must_use]
    pub fn differing(&self) -> Vec<(String, u64)> {
        let differing = self.cells().filter(|(primary, shadow, _)| primary != shadow);
        let mut found: Vec<_> = differing
            .map(|(primary, shadow, count)| (format!("primary {primary}, shadow {shadow}"), count))
            .collect();
        found.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        found
    }

    fn absorb(&mut self, other: &Self) {
        add(self.counts.as_flattened_mut(), other.counts.as_flattened());
        self.primary.absorb(&other.primary);
        self.shadow.absorb(&other.shadow);
    }
}

impl Report {
    /// Adds all that `other` has counted; the same Service port is one, whichever allocation
    /// names it.
    pub fn absorb(&mut self, other: &Self) {
        // Without `..`, so that the compiler finds a field that is forgotten.
        let Self {
            connections,
            open,
            exchanges,
            copies,
            pairs,
            passed,
            retries,
            route_retries,
            uncopied,
            refused,
            tap_ends,
            interim_dropped,
        } = other;
        add(&mut self.connections, connections);
        add(&mut self.open, open);
        add(&mut self.passed, passed);
        add(&mut self.retries, retries);
        add(&mut self.refused, refused);
        add(&mut self.uncopied, uncopied);
        add(&mut self.tap_ends, tap_ends);
        self.interim_dropped += interim_dropped;
        for (route, theirs) in route_retries {
            add(self.route_retries.entry(route.clone()).or_default(), theirs);
        }
        for (pair, theirs) in exchanges {
            self.exchanges.entry(pair.clone()).or_default().absorb(theirs);
        }
        for (names, theirs) in pairs {
            self.pairs.entry(names.clone()).or_default().absorb(theirs);
        }
        for (shadow, theirs) in copies {
            self.copies.entry(Arc::clone(shadow)).or_default().absorb(theirs);
        }
    }
}

fn add(mine: &mut [u64], theirs: &[u64]) {
    for (mine, theirs) in mine.iter_mut().zip(theirs) {
        *mine += theirs;
    }
}

/// The last report of each worker: a worker that does not respond keeps its counts, so that no
/// counter ever goes back.
#[derive(Debug)]
pub struct Reports {
    last: Vec<Report>,
}

impl Reports {
    /// For workers 0 to `workers` - 1.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self { last: vec![Report::default(); workers] }
    }

    /// Replaces what `worker` said before; a worker that does not exist is ignored.
    pub fn update(&mut self, worker: usize, report: Report) {
        if let Some(last) = self.last.get_mut(worker) {
            *last = report;
        }
    }

    /// The sum over the workers.
    #[must_use]
    pub fn merged(&self) -> Report {
        let mut sum = Report::default();
        for report in &self.last {
            sum.absorb(report);
        }
        sum
    }
}

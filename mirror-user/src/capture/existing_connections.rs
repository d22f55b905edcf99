//! Connections that predate capture: opened to a frontend before it was one, or before the pod was
//! captured, and so direct until the application opens them again. In: the frontends in force, a
//! workload. Out: how many there are by Service; and, where that was asked for, their end, once.
//!
//! A count makes the kernel walk its whole table of connections, of all network namespaces
//! (inet_diag_dump_icsk() in net/ipv4/inet_diag.c): the thread counts one workload at a time.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use mirror_common::Family;

use crate::{
    route::{FrontendCapture, FrontendState, ServicePort, Snapshot},
    sockets::{
        NetnsSockets, NetnsTarget,
        diag::{self, SocketConnection},
    },
};

/// Between two counts of a workload that has some.
const SOON: Duration = Duration::from_secs(5);
/// Between two counts of one that has none; some may come while workers are stale.
const RARELY: Duration = Duration::from_secs(60);

/// What becomes of connections that predate capture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Existing {
    /// They go on, and are counted.
    #[default]
    Keep,
    /// They are reset, so that the application opens them again: those that there are when a
    /// workload and a frontend first meet, and later ones not.
    Reset,
}

/// The frontends in force, and since when.
pub(super) struct Frontends {
    routes: Arc<ArcSwap<Snapshot>>,
    /// What was in force at the last look, to be taken at the next: the kernel's map follows the
    /// snapshot.
    next: Arc<Snapshot>,
    generation: Option<u64>,
    known: HashMap<SocketAddr, KnownFrontend>,
    /// When the newest one appeared.
    newest: Option<Instant>,
}

/// A frontend in force.
struct KnownFrontend {
    service: Arc<ServicePort>,
    since: Instant,
    /// Its connections go to the agent, so that those that do not predate it. Of a tapped one, nothing
    /// distinguishes those that do.
    proxied: bool,
}

impl Frontends {
    pub(super) fn new(routes: Arc<ArcSwap<Snapshot>>) -> Self {
        let next = Arc::default();
        Self { routes, next, generation: None, known: HashMap::new(), newest: None }
    }

    /// Takes what was in force at the last call.
    pub(super) fn refresh(&mut self, now: Instant) {
        let snapshot = std::mem::replace(&mut self.next, self.routes.load_full());
        if self.generation == Some(snapshot.generation) {
            return;
        }
        self.generation = Some(snapshot.generation);
        let mut before = std::mem::take(&mut self.known);
        for lookup in snapshot.frontends.values() {
            let FrontendState::Live(frontend) = lookup else { continue };
            let since = before.remove(&frontend.address).map(|known| known.since);
            if since.is_none() {
                self.newest = Some(now);
            }
            let known = KnownFrontend {
                service: Arc::clone(&frontend.service),
                since: since.unwrap_or(now),
                proxied: matches!(frontend.capture, FrontendCapture::Proxied(_)),
            };
            self.known.insert(frontend.address, known);
        }
    }
}

/// What is known of one workload's.
#[derive(Debug, Default)]
pub(super) struct ExistingConnections {
    counts: BTreeMap<String, u64>,
    counted: Option<Instant>,
    /// By family, when it was last captured and its existing connections were reset.
    reset: [Option<Instant>; 2],
}

/// A workload whose connections are counted.
pub(super) struct CountTarget<'a> {
    pub(super) name: String,
    /// Ids of its cgroup and those below.
    pub(super) cgroups: HashSet<u64>,
    pub(super) netns: &'a NetnsTarget,
    pub(super) sockets: &'a NetnsSockets,
    /// The families of which new connections are captured.
    pub(super) on: [bool; 2],
}

impl ExistingConnections {
    /// By Service, those that have none left out.
    pub(super) fn counts(&self) -> &BTreeMap<String, u64> {
        &self.counts
    }

    /// Whether it is time to count again.
    pub(super) fn is_due(&self, frontends: &Frontends, now: Instant) -> bool {
        let Some(counted) = self.counted else { return true };
        let pause = if self.counts.is_empty() { RARELY } else { SOON };
        now.duration_since(counted) >= pause || frontends.newest.is_some_and(|at| at > counted)
    }

    /// Counts, and resets those that are to be.
    pub(super) fn count(
        &mut self,
        target: &CountTarget<'_>,
        frontends: &Frontends,
        existing: Existing,
        now: Instant,
    ) {
        self.counted = Some(now);
        let own = |connection: &SocketConnection| {
            target.cgroups.contains(&connection.cgroup)
                && frontends.known.get(&connection.destination).is_some_and(|known| known.proxied)
        };
        let found = target.sockets.run(target.netns, || diag::connections(own));
        let mut found = match found.and_then(|found| found) {
            Ok(found) => found,
            Err(error) => {
                let workload = &target.name;
                tracing::warn!(workload, %error, "connections that predate capture: not counted");
                return;
            }
        };
        if existing == Existing::Reset {
            self.reset(target, frontends, &mut found, now);
        }
        self.counts.clear();
        for connection in &found {
            if let Some(known) = frontends.known.get(&connection.destination) {
                *self.counts.entry(known.service.to_string()).or_default() += 1;
            }
        }
    }

    /// Ends those that a captured family's frontend met for the first time; `found` keeps the rest.
    fn reset(
        &mut self,
        target: &CountTarget<'_>,
        frontends: &Frontends,
        found: &mut Vec<SocketConnection>,
        now: Instant,
    ) {
        let (mut done, mut failure) = (0, None);
        let last = self.reset;
        found.retain(|connection| {
            let family = family(connection.destination);
            let met = last[family as usize];
            let known = frontends.known.get(&connection.destination);
            let new = known.is_some_and(|known| met.is_none_or(|met| known.since > met));
            if !(new && target.on[family as usize]) {
                return true;
            }
            let ended = target.sockets.run(target.netns, || connection.destroy());
            match ended.and_then(|ended| ended) {
                Ok(()) => done += 1,
                Err(error) => failure = Some(error),
            }
            failure.is_some()
        });
        for family in Family::ALL {
            if target.on[family as usize] {
                self.reset[family as usize] = Some(now);
            }
        }
        log_result(&target.name, done, failure);
    }
}

fn log_result(workload: &str, done: u32, failure: Option<io::Error>) {
    if done > 0 {
        tracing::info!(workload, connections = done, "connections that predate capture: reset");
    }
    if let Some(error) = failure {
        tracing::warn!(workload, %error, "connections that predate capture: not reset");
    }
}

fn family(address: SocketAddr) -> Family {
    if address.is_ipv4() { Family::V4 } else { Family::V6 }
}

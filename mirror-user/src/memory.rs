//! What clients, and the primaries that they talk to, may make the agent hold. In: bytes and
//! connections, as they come and go. Out: whether they may be held, and whether a workload's new
//! connections had better go direct. It never closes or frees anything itself: who asks does, or does
//! without.
//!
//! Each captured workload has a [`WorkloadUsage`], all of them together make the agent's. A connection
//! has a `ConnectionUsage`, and takes from its workload's memory only in steps, so that an ordinary
//! request changes no number that another thread reads.

#![forbid(unsafe_code)]

mod bounds;
mod connection;

use std::sync::{
    Arc, Mutex, PoisonError, Weak,
    atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
};

pub use self::bounds::MemoryLimits;
use self::bounds::{FillLevel, Usage};
pub(crate) use self::{
    bounds::MemoryExceeded,
    connection::{ConnectionUsage, MemoryCharge},
};

/// The memory of an agent; shared by its workers.
#[derive(Debug)]
pub struct AgentUsage {
    total: Arc<AgentTotal>,
    workloads: Mutex<Vec<Weak<WorkloadUsage>>>,
}

/// What all workloads have in common.
#[derive(Debug)]
struct AgentTotal {
    limits: MemoryLimits,
    held: AtomicUsize,
}

/// What one workload's connections make the agent hold.
#[derive(Debug)]
pub struct WorkloadUsage {
    name: String,
    total: Arc<AgentTotal>,
    held: AtomicUsize,
    connections: AtomicUsize,
    /// Its new connections had better go direct.
    full: AtomicBool,
}

/// What a workload holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageSnapshot {
    /// `namespace/name`.
    pub workload: String,
    /// Bytes.
    pub bytes: usize,
    /// Connections of its clients.
    pub connections: usize,
    /// Its new connections go direct.
    pub full: bool,
}

impl AgentUsage {
    /// None yet.
    #[must_use]
    pub fn new(limits: MemoryLimits) -> Self {
        let total = Arc::new(AgentTotal { limits, held: AtomicUsize::default() });
        Self { total, workloads: Mutex::default() }
    }

    /// The memory of a workload that is captured from now on.
    #[must_use]
    pub fn open(&self, name: &str) -> Arc<WorkloadUsage> {
        let (held, connections, full) = Default::default();
        let total = Arc::clone(&self.total);
        let workload =
            Arc::new(WorkloadUsage { name: name.into(), total, held, connections, full });
        let mut workloads = self.workloads.lock().unwrap_or_else(PoisonError::into_inner);
        workloads.retain(|other| other.strong_count() > 0);
        workloads.push(Arc::downgrade(&workload));
        workload
    }

    /// What the workloads hold, one entry each.
    #[must_use]
    pub fn usage(&self) -> Vec<UsageSnapshot> {
        let workloads = self.workloads.lock().unwrap_or_else(PoisonError::into_inner);
        workloads.iter().filter_map(Weak::upgrade).map(|workload| workload.usage()).collect()
    }

    /// Bytes that all of them hold.
    #[must_use]
    pub fn held(&self) -> usize {
        self.total.held.load(Relaxed)
    }
}

impl WorkloadUsage {
    /// What the workload holds.
    #[must_use]
    pub fn usage(&self) -> UsageSnapshot {
        UsageSnapshot {
            workload: self.name.clone(),
            bytes: self.held.load(Relaxed),
            connections: self.connections.load(Relaxed),
            full: self.full.load(Relaxed),
        }
    }

    /// Whether the workload's new connections should go direct, because it is about to reach one of its
    /// bounds, or holds much of what the agent may hold. Called every 100 ms, by one thread: it
    /// turns false again only well below the level at which it turned true.
    pub fn is_full(&self) -> bool {
        let (limits, held) = (&self.total.limits, self.held.load(Relaxed));
        let others = self.total.held.load(Relaxed).saturating_sub(held);
        let fill = limits.fill(held, others, self.connections.load(Relaxed));
        let full = match fill {
            FillLevel::Much => true,
            FillLevel::Some => self.full.load(Relaxed),
            FillLevel::Little => false,
        };
        self.full.store(full, Relaxed);
        full
    }

    /// Takes `bytes` for a connection that holds `own` bytes already.
    fn take(&self, bytes: usize, own: usize) -> Result<(), MemoryExceeded> {
        // Added first: of two workers that ask at once both may be refused, and never too much is
        // admitted.
        let held = self.add(bytes);
        let admitted =
            self.total.limits.admit(Usage { connection: own.saturating_add(bytes), ..held });
        if admitted.is_err() {
            self.give(bytes);
        }
        admitted
    }

    /// What the workload and the agent hold with these.
    fn add(&self, bytes: usize) -> Usage {
        let workload = self.held.fetch_add(bytes, Relaxed).saturating_add(bytes);
        let agent = self.total.held.fetch_add(bytes, Relaxed).saturating_add(bytes);
        Usage { connection: bytes, workload, agent }
    }

    fn give(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Relaxed);
        self.total.held.fetch_sub(bytes, Relaxed);
    }

    /// Takes what one more connection holds in any case.
    fn enter(&self, bytes: usize) -> Result<(), MemoryExceeded> {
        let before = self.connections.fetch_add(1, Relaxed);
        let held = self.add(bytes);
        let admitted = self.total.limits.admit_connection(held, before);
        if admitted.is_err() {
            self.leave(bytes);
        }
        admitted
    }

    fn leave(&self, bytes: usize) {
        self.give(bytes);
        self.connections.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: MemoryLimits = MemoryLimits {
        connection: usize::MAX,
        workload: usize::MAX,
        agent: 24 << 20,
        connections: 8,
    };

    #[test]
    fn what_is_refused_is_not_charged() {
        let memory = AgentUsage::new(LIMITS);
        let workload = memory.open("a/b");
        workload.enter(1000).unwrap();
        assert_eq!(workload.take(25 << 20, 1000), Err(MemoryExceeded::Connection));
        assert_eq!(memory.held(), 1000);
        workload.leave(1000);
        assert_eq!(
            workload.usage(),
            UsageSnapshot { workload: "a/b".into(), bytes: 0, connections: 0, full: false }
        );
    }

    #[test]
    fn a_workload_is_full_before_it_is_refused_and_stays_so_until_it_holds_much_less() {
        let memory = AgentUsage::new(LIMITS);
        let workload = memory.open("a/b");
        let mut connections = 0;
        while !workload.is_full() {
            workload.enter(10).unwrap();
            connections += 1;
        }
        assert_eq!(connections, 6);
        workload.enter(10).unwrap();
        workload.leave(10);
        workload.leave(10);
        assert!(workload.is_full(), "a little less changes nothing");
        workload.leave(10);
        assert!(!workload.is_full());
        assert!(!memory.open("a/c").is_full());
    }

    #[test]
    fn a_workload_that_has_gone_is_forgotten() {
        let memory = AgentUsage::new(LIMITS);
        let kept = memory.open("a/b");
        drop(memory.open("a/c"));
        assert_eq!(memory.usage(), [kept.usage()]);
        drop(kept);
        assert!(memory.usage().is_empty());
    }
}

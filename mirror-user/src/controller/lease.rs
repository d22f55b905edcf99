//! Which replica writes. In: the Lease as the API server returns it, and a clock. Out: whether this
//! replica leads, and until when.
//!
//! [`Election`] decides and is pure; [`Elector`] asks and writes the Lease; [`Leadership`] is what
//! the writers look at before, and while, they write.
//!
//! - A Lease has expired when this replica has seen no change of it for its duration: two
//!   machines' clocks are never compared.
//! - A leader stops writing [`Timing::deadline`] after the *beginning* of its last successful
//!   renewal, 3 s before anyone else could take over. A leader that was stopped (SIGSTOP, a paused
//!   machine) finds that time past when it wakes: the clock is CLOCK_BOOTTIME, which continues
//!   meanwhile.

use std::time::Duration;

use tokio::sync::watch;

mod elector;
mod store;
#[cfg(test)]
mod tests;

pub use self::{
    elector::Elector,
    store::{ClusterLease, LeaseStore, StoreError, StoredLease},
};

/// The periods of an election.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How long a Lease holds without a renewal.
    pub duration: Duration,
    /// Between renewals.
    pub renew: Duration,
    /// Between attempts of a replica that does not lead, and after a failure.
    pub retry: Duration,
}

impl Timing {
    /// 9 s, 3 s and 1 s: a dead leader is replaced within 9 s and two attempts.
    pub const DEFAULT: Self = Self {
        duration: Duration::from_secs(9),
        renew: Duration::from_secs(3),
        retry: Duration::from_secs(1),
    };

    /// How long after the beginning of a renewal a leader may write.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        self.duration.saturating_sub(self.renew)
    }
}

/// What a Lease says (LeaseSpec).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseRecord {
    /// `holderIdentity`; empty when it was released.
    pub holder: String,
    /// `leaseDurationSeconds`, by which its holder may be replaced.
    pub duration: Duration,
    /// `leaseTransitions`.
    pub transitions: i32,
    /// `acquireTime` and `renewTime`, only ever compared for being the same.
    pub stamps: (String, String),
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ElectionStep {
    /// Another one holds it.
    Follow,
    /// Write this, at once. Holder, duration and transitions are set, stamps are the writer's:
    /// a new `acquireTime` as well if it is `taken`.
    Claim {
        /// Number of changes of holders.
        transitions: i32,
        /// Whether it had another holder, or none, before.
        taken: bool,
    },
}

/// One replica's view of the election. Instants are durations since the clock's beginning.
#[derive(Debug)]
pub struct Election {
    me: String,
    timing: Timing,
    /// The record last seen, and when it was first seen so.
    seen: Option<(LeaseRecord, Duration)>,
    until: Option<Duration>,
}

impl Election {
    /// `me` must be unique among the replicas, over restarts as well.
    #[must_use]
    pub fn new(me: String, timing: Timing) -> Self {
        Self { me, timing, seen: None, until: None }
    }

    /// Draws the consequences of what the server says at `now`; None: there is no Lease.
    pub fn observe(&mut self, record: Option<&LeaseRecord>, now: Duration) -> ElectionStep {
        let Some(record) = record else {
            self.seen = None;
            return ElectionStep::Claim { transitions: 0, taken: true };
        };
        if self.seen.as_ref().is_none_or(|(seen, _)| seen != record) {
            self.seen = Some((record.clone(), now));
        }
        if record.holder == self.me {
            return ElectionStep::Claim { transitions: record.transitions, taken: false };
        }
        self.until = None;
        let since = self.seen.as_ref().map_or(now, |(_, since)| *since);
        let expired = now.saturating_sub(since) > record.duration;
        match expired || record.holder.is_empty() {
            true => ElectionStep::Claim {
                transitions: record.transitions.saturating_add(1),
                taken: true,
            },
            false => ElectionStep::Follow,
        }
    }

    /// A claim that began at `began` succeeded.
    pub fn claimed(&mut self, began: Duration) {
        self.until = Some(began + self.timing.deadline());
    }

    /// Until when this replica may write; None when it does not lead.
    #[must_use]
    pub fn until(&self, now: Duration) -> Option<Duration> {
        self.until.filter(|until| now < *until)
    }
}

/// What writers look at; a clone sees the same.
#[derive(Clone, Debug)]
pub struct Leadership {
    until: watch::Receiver<Option<Duration>>,
    clock: fn() -> Duration,
}

impl Leadership {
    /// How long this replica may still write; None when it must not.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        let until = (*self.until.borrow())?;
        until.checked_sub((self.clock)()).filter(|left| !left.is_zero())
    }

    /// Waits for the next renewal, claim or loss.
    pub async fn changed(&mut self) {
        if self.until.changed().await.is_err() {
            // The elector is gone: nothing will ever change.
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
impl Leadership {
    /// For tests of writers: it ends after `time` and is not renewed.
    pub(super) fn lasting(time: Duration) -> Self {
        Self { until: watch::channel(Some(boot_time() + time)).1, clock: boot_time }
    }

    /// One that the test gives and takes.
    pub(super) fn renewable() -> (watch::Sender<Option<Duration>>, Self) {
        let (sender, until) = watch::channel(None);
        (sender, Self { until, clock: boot_time })
    }
}

/// Time since the machine started, while it was suspended as well.
#[must_use]
pub fn boot_time() -> Duration {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME);
    // It is there since Linux 2.6.39, and its time is never negative.
    time.map(Duration::from).unwrap_or_default()
}

//! The election's hands: reads and writes the Lease as [`Election`] says. In: a store, a clock.
//! Out: [`Leadership`]. It ends by giving the Lease back, so that another one need not wait.

use std::time::Duration;

use tokio::{sync::watch, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    Election, ElectionStep, Leadership, LeaseRecord, LeaseStore, StoreError, StoredLease, Timing,
};

/// Longest that one request may take: a deadline leaves time for two of them.
const REQUEST: Duration = Duration::from_secs(2);

/// A replica's part in the election.
#[derive(Debug)]
pub struct Elector<S> {
    store: S,
    me: String,
    timing: Timing,
    election: Election,
    clock: fn() -> Duration,
    until: watch::Sender<Option<Duration>>,
    /// What the server said last, while this replica holds the Lease.
    held: Option<StoredLease>,
}

impl<S: LeaseStore> Elector<S> {
    /// Takes part as `me`, which must be unique, over restarts as well.
    pub fn new(store: S, me: String, timing: Timing, clock: fn() -> Duration) -> Self {
        let election = Election::new(me.clone(), timing);
        let (until, _) = watch::channel(None);
        Self { store, me, timing, election, clock, until, held: None }
    }

    /// What writers look at.
    #[must_use]
    pub fn leadership(&self) -> Leadership {
        Leadership { until: self.until.subscribe(), clock: self.clock }
    }

    /// Takes part until cancelled, then gives the Lease back if it holds it. Writers must have
    /// stopped before.
    pub async fn run(mut self, cancel: CancellationToken) {
        while !cancel.is_cancelled() {
            let pause = self.step().await;
            tokio::select! {
                () = cancel.cancelled() => break,
                () = tokio::time::sleep(pause) => {}
            }
        }
        self.until.send_replace(None);
        self.release().await;
    }

    /// One reading or writing; how long to wait for the next.
    pub(super) async fn step(&mut self) -> Duration {
        let led = self.until.borrow().is_some();
        let outcome = self.attempt().await;
        let until = self.election.until((self.clock)());
        self.until.send_replace(until);
        if led != until.is_some() {
            tracing::info!(leads = until.is_some(), me = self.me, "the election has changed");
        }
        match outcome {
            Ok(true) => self.timing.renew,
            Ok(false) => self.timing.retry,
            Err(error) => {
                // What is held may be held no more.
                self.held = None;
                tracing::warn!(%error, "cannot read or write the Lease; retrying");
                self.timing.retry
            }
        }
    }

    /// Whether it leads now.
    async fn attempt(&mut self) -> Result<bool, StoreError> {
        let stored = match self.held.take() {
            Some(held) => Some(held),
            None => in_time(self.store.read()).await?,
        };
        let record = stored.as_ref().map(|stored| &stored.record);
        let began = (self.clock)();
        let ElectionStep::Claim { transitions, taken } = self.election.observe(record, began)
        else {
            return Ok(false);
        };
        let stamps = record.map(|record| record.stamps.clone()).unwrap_or_default();
        let (holder, duration) = (self.me.clone(), self.timing.duration);
        let claim = LeaseRecord { holder, duration, transitions, stamps };
        let version = stored.as_ref().map(|stored| stored.version.as_str());
        match in_time(self.store.write(claim, taken, version)).await {
            Ok(written) => {
                self.election.claimed(began);
                self.held = Some(written);
                Ok(true)
            }
            // Another one was faster: no failure, and read again.
            Err(StoreError::Conflict) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// As client-go does it: without a holder, for a second.
    async fn release(&mut self) {
        let Some(held) = self.held.take() else { return };
        let duration = Duration::from_secs(1);
        let record = LeaseRecord { holder: String::new(), duration, ..held.record };
        if let Err(error) = in_time(self.store.write(record, false, Some(&held.version))).await {
            tracing::warn!(%error, "cannot release the Lease; it will expire");
        }
    }
}

async fn in_time<T>(request: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    timeout(REQUEST, request)
        .await
        .unwrap_or_else(|_| Err(StoreError::Server(format!("no response within {REQUEST:?}"))))
}

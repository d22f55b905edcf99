//! Elections with separate clocks: who leads, until when, and that two never lead at the same time.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use tokio_util::sync::CancellationToken;

use super::*;

const T: Timing = Timing::DEFAULT;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn record(holder: &str, fingerprint: u64) -> LeaseRecord {
    let stamps = ("acquired".into(), fingerprint.to_string());
    LeaseRecord { holder: holder.into(), duration: T.duration, transitions: 3, stamps }
}

fn claims(step: &ElectionStep) -> bool {
    matches!(step, ElectionStep::Claim { .. })
}

#[test]
fn without_a_lease_the_first_takes_it() {
    let mut election = Election::new("a".into(), T);
    assert_eq!(
        election.observe(None, seconds(1)),
        ElectionStep::Claim { transitions: 0, taken: true }
    );
    assert_eq!(election.until(seconds(1)), None, "not before it is written");
    election.claimed(seconds(1));
    assert_eq!(election.until(seconds(2)), Some(seconds(7)));
}

#[test]
fn a_lease_expires_by_what_was_seen_here_and_not_by_its_times() {
    let mut election = Election::new("a".into(), T);
    // Its times are of the distant past; that says nothing.
    for now in 100..=109 {
        assert_eq!(
            election.observe(Some(&record("b", 0)), seconds(now)),
            ElectionStep::Follow,
            "{now}"
        );
    }
    let step = election.observe(Some(&record("b", 0)), seconds(110));
    assert_eq!(step, ElectionStep::Claim { transitions: 4, taken: true });
}

#[test]
fn each_renewal_that_is_seen_puts_the_expiry_off() {
    let mut election = Election::new("a".into(), T);
    for now in 0..60 {
        let renewed = record("b", now / 3);
        assert_eq!(election.observe(Some(&renewed), seconds(now)), ElectionStep::Follow);
    }
}

#[test]
fn a_released_lease_is_free_at_once() {
    let mut election = Election::new("a".into(), T);
    let step = election.observe(Some(&record("", 0)), seconds(100));
    assert_eq!(step, ElectionStep::Claim { transitions: 4, taken: true });
}

#[test]
fn the_holders_own_duration_counts() {
    let mut election = Election::new("a".into(), T);
    let long = LeaseRecord { duration: seconds(60), ..record("b", 0) };
    assert_eq!(election.observe(Some(&long), seconds(0)), ElectionStep::Follow);
    assert_eq!(election.observe(Some(&long), seconds(59)), ElectionStep::Follow);
    assert!(claims(&election.observe(Some(&long), seconds(61))));
}

#[test]
fn a_leader_that_cannot_renew_stops_before_others_may_begin() {
    let (mut a, mut b) = (Election::new("a".into(), T), Election::new("b".into(), T));
    a.observe(None, seconds(0));
    a.claimed(seconds(0));
    let lease = record("a", 0);
    // The other one sees the write the moment it is done, at the earliest.
    assert_eq!(b.observe(Some(&lease), seconds(0)), ElectionStep::Follow);
    assert!(a.until(Duration::from_millis(5_999)).is_some());
    assert!(a.until(seconds(6)).is_none());
    assert_eq!(b.observe(Some(&lease), seconds(9)), ElectionStep::Follow);
    assert!(claims(&b.observe(Some(&lease), Duration::from_millis(9_001))));
}

#[test]
fn a_leader_that_slept_follows_the_one_that_took_over() {
    let mut a = Election::new("a".into(), T);
    a.observe(None, seconds(0));
    a.claimed(seconds(0));
    assert!(a.until(seconds(60)).is_none(), "asleep since: before it asks anyone");
    assert_eq!(a.observe(Some(&record("b", 9)), seconds(60)), ElectionStep::Follow);
    // And one that no other replaced goes on.
    let mut alone = Election::new("a".into(), T);
    let step = alone.observe(Some(&record("a", 0)), seconds(60));
    assert_eq!(step, ElectionStep::Claim { transitions: 3, taken: false });
}

/// A server for tests: one Lease, versions that count, and a switch that makes it silent.
#[derive(Clone, Default)]
struct Server {
    lease: Rc<RefCell<Option<StoredLease>>>,
    writes: Rc<Cell<u64>>,
    silent: Rc<Cell<bool>>,
}

impl LeaseStore for Server {
    async fn read(&self) -> Result<Option<StoredLease>, StoreError> {
        self.response().await;
        Ok(self.lease.borrow().clone())
    }

    async fn write(
        &self,
        record: LeaseRecord,
        _: bool,
        over: Option<&str>,
    ) -> Result<StoredLease, StoreError> {
        self.response().await;
        let mut lease = self.lease.borrow_mut();
        if lease.as_ref().map(|lease| lease.version.as_str()) != over {
            return Err(StoreError::Conflict);
        }
        self.writes.set(self.writes.get() + 1);
        let version = self.writes.get().to_string();
        let stamps = (String::new(), version.clone());
        let stored = StoredLease { record: LeaseRecord { stamps, ..record }, version };
        *lease = Some(stored.clone());
        Ok(stored)
    }
}

impl Server {
    async fn response(&self) {
        if self.silent.get() {
            std::future::pending::<()>().await;
        }
    }

    fn holder(&self) -> String {
        self.lease.borrow().as_ref().map(|lease| lease.record.holder.clone()).unwrap_or_default()
    }
}

thread_local! {
    /// Paused tokio clocks say no absolute time; each test has a separate thread.
    static BEGAN: tokio::time::Instant = tokio::time::Instant::now();
}

fn paused_clock() -> Duration {
    BEGAN.with(tokio::time::Instant::elapsed) + seconds(1000)
}

fn elector(server: &Server, me: &str) -> (Elector<Server>, Leadership) {
    let elector = Elector::new(server.clone(), me.into(), T, paused_clock);
    let leadership = elector.leadership();
    (elector, leadership)
}

#[tokio::test(start_paused = true)]
async fn two_replicas_never_lead_at_once_and_a_silent_leader_is_replaced_within_12_s() {
    let (server, far) = (Server::default(), Server::default());
    // The two reach the same Lease by different ways, of which one is cut.
    let far = Server { lease: Rc::clone(&server.lease), writes: Rc::clone(&server.writes), ..far };
    let ((a, a_leads), (b, b_leads)) = (elector(&server, "a"), elector(&far, "b"));
    let cancel = CancellationToken::new();
    let watching = async {
        let mut taken = None;
        tokio::time::sleep(seconds(20)).await;
        assert!(a_leads.remaining().is_some() && b_leads.remaining().is_none());
        server.silent.set(true);
        for step in 0..200_u64 {
            assert!(a_leads.remaining().is_none() || b_leads.remaining().is_none(), "both");
            if b_leads.remaining().is_some() {
                taken = taken.or(Some(step * 100));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!(taken.is_some_and(|ms| ms > 6_000 && ms < 12_000), "{taken:?} ms");
        server.silent.set(false);
        tokio::time::sleep(seconds(5)).await;
        assert!(a_leads.remaining().is_none(), "it follows when it is back");
        cancel.cancel();
    };
    // a first: it takes the Lease.
    tokio::join!(a.run(cancel.clone()), b.run(cancel.clone()), watching);
    assert_eq!(server.holder(), "", "b gave it back");
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_ends_is_replaced_at_the_next_attempt() {
    let server = Server::default();
    let ((a, a_leads), (b, b_leads)) = (elector(&server, "a"), elector(&server, "b"));
    let (first, second) = (CancellationToken::new(), CancellationToken::new());
    let watching = async {
        tokio::time::sleep(seconds(5)).await;
        assert!(a_leads.remaining().is_some());
        first.cancel();
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        assert!(a_leads.remaining().is_none() && b_leads.remaining().is_some());
        second.cancel();
    };
    tokio::join!(a.run(first.clone()), b.run(second.clone()), watching);
}

#[tokio::test(start_paused = true)]
async fn an_outage_shorter_than_the_deadline_changes_nothing() {
    let server = Server::default();
    let (a, mut leads) = elector(&server, "a");
    let cancel = CancellationToken::new();
    let watching = async {
        leads.changed().await;
        for _ in 0..5 {
            tokio::time::sleep(seconds(7)).await;
            server.silent.set(true);
            tokio::time::sleep(Duration::from_millis(2_500)).await;
            assert!(leads.remaining().is_some());
            server.silent.set(false);
        }
        cancel.cancel();
    };
    tokio::join!(a.run(cancel.clone()), watching);
    assert_eq!(server.lease.borrow().as_ref().unwrap().record.transitions, 0);
}

#[test]
fn leadership_ends_by_the_clock_even_if_the_elector_says_nothing() {
    let leads = Leadership::lasting(Duration::from_millis(20));
    assert!(leads.remaining().is_some_and(|left| left <= Duration::from_millis(20)));
    std::thread::sleep(Duration::from_millis(25));
    assert_eq!(leads.remaining(), None);
}

#[test]
fn boot_time_goes_on() {
    let before = boot_time();
    std::thread::sleep(Duration::from_millis(5));
    assert!(boot_time() - before >= Duration::from_millis(5));
}

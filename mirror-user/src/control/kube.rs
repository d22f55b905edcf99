//! A cluster as the source of objects. In: one watch for each kind, and one for each CRD, by name.
//! Out: rows of our own, and what changed among them.
//!
//! - Objects are decoded one by one. One that does not decode is left out, known by name, and told
//!   as a problem; it delays no other.
//! - Nothing is put in force before each kind was listed once. From then on what is in force stays
//!   so while the API server is away.
//! - Changes that come close together are put in force together.
//! - A kind that is missing (its CRD is not installed) is empty at the start. Later, a 404 counts
//!   only when nothing else was said for 30 s and no CRD is known: a server that starts says it.

use std::{
    future::poll_fn,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use ::kube::Client;
use tokio::{
    sync::{Notify, mpsc::Receiver},
    time::timeout_at,
};

use self::{crd::Crd, kinds::Watched, rows::Rows};
use super::{
    Control, Remarks,
    objects::{Changes, Objects},
    publish::FrontendMap,
};
use crate::kube::{Event, Health, Watch};

pub(crate) mod crd;
pub(crate) mod kinds;
mod rows;
#[cfg(test)]
mod tests;

/// Changes that come closer together than this are put in force together: an apply of a Service
/// is followed by its EndpointSlice.
const SETTLE: Duration = Duration::from_millis(10);

/// Longest that a steady flow of changes can put off the next state.
const SETTLE_MAX: Duration = Duration::from_millis(100);

/// A 404 that lasts so long is true.
const GONE: Duration = Duration::from_secs(30);

/// How soon a kind is asked for again whose CRD is there while its list is not.
const ESTABLISHING: Duration = Duration::from_millis(200);

/// A followed cluster.
#[derive(Debug)]
pub struct Cluster {
    feeds: Vec<Feed>,
    crds: Vec<CrdFeed>,
    rows: Rows,
    changes: Changes,
    /// A problem or a warning is new, or is no more.
    remarked: bool,
    /// A first state is in force.
    in_force: bool,
}

/// The watch of a kind.
#[derive(Debug)]
struct Feed {
    kind: Watched,
    events: Receiver<Event>,
    health: Health,
    nudge: std::sync::Arc<Notify>,
    complete: bool,
}

/// The watch of the CRD of a kind.
#[derive(Debug)]
struct CrdFeed {
    kind: Watched,
    events: Receiver<Event>,
    health: Health,
    complete: bool,
    crd: Option<Crd>,
    /// The list that is under way has named it.
    named: bool,
}

/// Where an event came from: a place in `feeds` or `crds`.
#[derive(Clone, Copy)]
enum From {
    Feed(usize),
    Crd(usize),
}

impl Cluster {
    /// Begins to watch. `node`: the one whose pods are followed. Must be called within a tokio
    /// runtime; the watches end when this is dropped.
    #[must_use]
    pub fn follow(client: &Client, node: &str) -> Self {
        let feeds = Watched::ALL.map(|kind| {
            let (watch, events) = Watch::new(client.clone(), kind.resource(node));
            let (health, nudge) = (watch.health(), watch.nudge());
            tokio::spawn(watch.run());
            Feed { kind, events, health, nudge, complete: false }
        });
        let crds = Watched::ALL.into_iter().filter_map(|kind| {
            let (watch, events) = Watch::new(client.clone(), kind.crd()?);
            let health = watch.health();
            tokio::spawn(watch.run());
            Some(CrdFeed { kind, events, health, complete: false, crd: None, named: false })
        });
        Self {
            feeds: feeds.into(),
            crds: crds.collect(),
            rows: Rows::default(),
            changes: Changes::default(),
            remarked: false,
            in_force: false,
        }
    }

    /// Waits for changes, and until no more come or they have waited long enough. Dropping the
    /// future loses nothing.
    pub async fn changed(&mut self) {
        while !self.has_news() {
            let (from, event) = self.next().await;
            self.take(from, event);
        }
        let latest = tokio::time::Instant::now() + SETTLE_MAX;
        loop {
            let settled = (tokio::time::Instant::now() + SETTLE).min(latest);
            let Ok((from, event)) = timeout_at(settled, self.next()).await else { return };
            self.take(from, event);
            if tokio::time::Instant::now() >= latest {
                return;
            }
        }
    }

    /// Puts in force what changed, once everything is known. True if pods or their Namespaces did.
    pub fn put_in_force<M: FrontendMap>(&mut self, control: &mut Control<M>, now: Instant) -> bool {
        if !self.has_news() {
            return false;
        }
        let changes = std::mem::take(&mut self.changes);
        let remarked = std::mem::take(&mut self.remarked);
        let remarks = self.remarks();
        if !self.in_force {
            self.in_force = true;
            control.replace(&self.rows.objects, remarks, now);
            return true;
        }
        if remarked || !changes.is_empty() {
            control.update(&self.rows.objects, &changes, remarks, now);
        }
        changes.enrolment
    }

    /// What is known.
    #[must_use]
    pub fn objects(&self) -> &Objects {
        &self.rows.objects
    }

    /// Objects that do not decode, and CRDs that lack what routes need.
    #[must_use]
    pub fn remarks(&self) -> Remarks {
        let crds = self.crds.iter();
        let lacking = crds.filter_map(|feed| feed.crd.as_ref()?.warning(feed.kind));
        Remarks { problems: self.rows.problems(), warnings: lacking.collect() }
    }

    /// How the watches fare, by kind.
    #[must_use]
    pub fn watches(&self) -> Vec<(&'static str, Health)> {
        let feeds = self.feeds.iter().map(|feed| (feed.kind.label(), feed.health.clone()));
        let crds = self
            .crds
            .iter()
            .filter_map(|feed| feed.kind.crd_label().map(|label| (label, feed.health.clone())));
        feeds.chain(crds).collect()
    }

    /// Before everything was listed there is none: what a Service lacks may just not have come.
    fn has_news(&self) -> bool {
        let complete = self.feeds.iter().all(|feed| feed.complete);
        let changed = !self.changes.is_empty() || self.changes.enrolment;
        complete && (!self.in_force || self.remarked || changed)
    }

    /// The next event of any watch.
    async fn next(&mut self) -> (From, Event) {
        poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<(From, Event)> {
        for (at, feed) in self.feeds.iter_mut().enumerate() {
            // None only when its task panicked, which was told.
            if let Poll::Ready(Some(event)) = feed.events.poll_recv(cx) {
                return Poll::Ready((From::Feed(at), event));
            }
        }
        for (at, feed) in self.crds.iter_mut().enumerate() {
            if let Poll::Ready(Some(event)) = feed.events.poll_recv(cx) {
                return Poll::Ready((From::Crd(at), event));
            }
        }
        Poll::Pending
    }

    fn take(&mut self, from: From, event: Event) {
        match from {
            From::Feed(at) => self.take_object(at, event),
            From::Crd(at) => self.take_crd(at, event),
        }
    }

    fn take_object(&mut self, at: usize, event: Event) {
        let kind = self.feeds[at].kind;
        match event {
            Event::Started => self.rows.start(kind),
            Event::Applied(name, object) => {
                self.remarked |= self.rows.apply(kind, name, &object, &mut self.changes);
            }
            Event::Deleted(name) => {
                self.remarked |= self.rows.delete(kind, &name, &mut self.changes);
            }
            Event::Complete => {
                self.remarked |= self.rows.complete(kind, &mut self.changes);
                self.feeds[at].complete = true;
            }
            Event::Missing(since) => self.miss(at, since),
        }
    }

    /// The server knows no such kind.
    fn miss(&mut self, at: usize, since: Duration) {
        let kind = self.feeds[at].kind;
        let crd = self.crds.iter().find(|feed| feed.kind == kind);
        if crd.is_some_and(|feed| feed.crd.is_some()) {
            // It will, in a moment.
            let nudge = std::sync::Arc::clone(&self.feeds[at].nudge);
            tokio::spawn(async move {
                tokio::time::sleep(ESTABLISHING).await;
                nudge.notify_one();
            });
            return;
        }
        let known_absent = crd.is_some_and(|feed| feed.complete);
        let feed = &mut self.feeds[at];
        if since >= GONE || (known_absent && !feed.complete) {
            feed.health.absent();
            feed.complete = true;
            self.rows.start(kind);
            self.remarked |= self.rows.complete(kind, &mut self.changes);
        }
    }

    fn take_crd(&mut self, at: usize, event: Event) {
        let feed = &mut self.crds[at];
        match event {
            Event::Applied(_, object) => {
                let crd = Crd::read(&object);
                self.remarked |= feed.crd.as_ref() != Some(&crd);
                feed.crd = Some(crd);
                feed.named = true;
            }
            Event::Deleted(_) => self.remarked |= feed.crd.take().is_some(),
            Event::Complete => {
                feed.complete = true;
                self.remarked |= !feed.named && feed.crd.take().is_some();
            }
            Event::Started => {
                feed.named = false;
                return;
            }
            Event::Missing(_) => return,
        }
        let kind = feed.kind;
        if let Some(feed) = self.feeds.iter().find(|feed| feed.kind == kind) {
            feed.nudge.notify_one();
        }
    }
}

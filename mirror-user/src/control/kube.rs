//! A cluster as the source of objects. In: one watch for each kind, and one for each CRD, by name.
//! Out: mirror's compact rows, and what changed among them.
//!
//! - Objects are decoded one by one. One that does not decode is ignored, known by name, and reported
//!   as a problem; it does not delay the others.
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

use self::{crd::Crd, kinds::Watched, rows::Rows, time_budget::TimeBudgets};
use super::{
    Control, Diagnostics,
    objects::{Changes, Objects},
    publish::FrontendMap,
    quota::{Quota, RouteBounds},
};
use crate::kube::{Event, Health, Watch};

pub(crate) mod crd;
pub(crate) mod kinds;
mod rows;
#[cfg(test)]
mod tests;
mod time_budget;

/// Changes that come closer together than this are put in force together: an apply of a Service
/// is followed by its EndpointSlice.
const SETTLE: Duration = Duration::from_millis(10);

/// Longest that a steady flow of changes can put off the next state.
const SETTLE_MAX: Duration = Duration::from_millis(100);

/// A 404 that lasts so long is true.
const GONE: Duration = Duration::from_secs(30);

/// How often everything is listed again for routes that are within the bounds again.
const RELIST: Duration = Duration::from_secs(10);

/// How soon a kind is asked for again whose CRD is there while its list is not.
const ESTABLISHING: Duration = Duration::from_millis(200);

/// A followed cluster.
#[derive(Debug)]
pub struct Cluster {
    feeds: Vec<Feed>,
    crds: Vec<CrdFeed>,
    rows: Rows,
    changes: Changes,
    time_budgets: TimeBudgets,
    /// Which watch is looked at first, so that a busy one starves none.
    next: usize,
    /// Routes will be listed again.
    relisting: bool,
    /// A problem or a warning is new, or is no more.
    diagnostics_changed: bool,
    /// A first state is in force.
    in_force: bool,
}

/// The watch of a kind.
#[derive(Debug)]
struct Feed {
    kind: Watched,
    events: Receiver<Event>,
    health: Health,
    retry_now: std::sync::Arc<Notify>,
    relist: std::sync::Arc<Notify>,
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
    /// The list in progress has named it.
    named: bool,
}

/// Where an event came from: a place in `feeds` or `crds`.
#[derive(Clone, Copy)]
enum EventSource {
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
            let (health, retry_now, relist) = (watch.health(), watch.retry_now(), watch.relist());
            tokio::spawn(watch.run());
            Feed { kind, events, health, retry_now, relist, complete: false }
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
            time_budgets: TimeBudgets::default(),
            next: 0,
            relisting: false,
            diagnostics_changed: false,
            in_force: false,
        }
    }

    /// The same with other bounds of routes; nothing may have come yet.
    #[must_use]
    pub fn within(mut self, bounds: RouteBounds) -> Self {
        self.rows.quota = Quota::new(bounds);
        self
    }

    /// Waits for changes, and until no more come or they have waited long enough. Dropping the
    /// future loses nothing.
    pub async fn changed(&mut self) {
        let mut settled = false;
        while !self.has_news() {
            let event = match self.due() {
                None => Some(self.next().await),
                Some(due) => timeout_at(due.into(), self.next()).await.ok(),
            };
            if let Some((from, event)) = event {
                self.take(from, event);
                self.settle().await;
                settled = true;
            }
        }
        if !settled {
            self.settle().await;
        }
    }

    /// Takes what comes, until nothing does or it has lasted long enough.
    async fn settle(&mut self) {
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
        let diagnostics_changed = std::mem::take(&mut self.diagnostics_changed);
        let diagnostics = self.diagnostics();
        if !self.in_force {
            self.in_force = true;
            self.changes = Changes::default();
            control.replace(&self.rows.objects, diagnostics, now);
            return true;
        }
        let time_budgets = &self.time_budgets;
        let changes =
            self.changes.take(|namespace| time_budgets.throttled_until(namespace, now).is_none());
        if diagnostics_changed || !control.ignores(&self.rows.objects, &changes) {
            let begun = Instant::now();
            control.update(&self.rows.objects, &changes, diagnostics, now);
            let took = begun.elapsed();
            self.time_budgets.charge(&changes.by_namespace(), took, now + took);
        }
        changes.pods
    }

    /// When changes that wait for their Namespace's turn may be put in force.
    fn due(&self) -> Option<Instant> {
        if !self.in_force {
            return None;
        }
        let waiting = self.changes.by_namespace();
        self.time_budgets.first(&waiting.keys().map(String::as_str).collect(), Instant::now())
    }

    /// What is known.
    #[must_use]
    pub fn objects(&self) -> &Objects {
        &self.rows.objects
    }

    /// Objects that do not decode, and CRDs that are absent or lack what routes need.
    #[must_use]
    pub fn diagnostics(&self) -> Diagnostics {
        let crds = self.crds.iter();
        let lacking = crds.filter_map(|feed| match &feed.crd {
            Some(crd) => crd.warning(feed.kind),
            None => feed.complete.then(|| Crd::missing(feed.kind)).flatten(),
        });
        Diagnostics { problems: self.rows.problems(), warnings: lacking.collect() }
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

    /// There is no news before everything was listed: what a Service lacks may not have arrived yet.
    fn has_news(&self) -> bool {
        let complete = self.feeds.iter().all(|feed| feed.complete);
        complete && (!self.in_force || self.diagnostics_changed || self.has_due_changes())
    }

    /// Whether any change need not wait for its Namespace's turn.
    fn has_due_changes(&self) -> bool {
        if self.changes.pods || !self.changes.addresses.is_empty() {
            return true;
        }
        let now = Instant::now();
        let mut waiting = self.changes.namespaces_named();
        waiting.any(|namespace| self.time_budgets.throttled_until(namespace, now).is_none())
    }

    /// The next event of any watch.
    async fn next(&mut self) -> (EventSource, Event) {
        poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<(EventSource, Event)> {
        let count = self.feeds.len();
        for at in (self.next..count).chain(0..self.next) {
            // None only if its task panicked, which was logged.
            if let Poll::Ready(Some(event)) = self.feeds[at].events.poll_recv(cx) {
                self.next = (at + 1) % count;
                return Poll::Ready((EventSource::Feed(at), event));
            }
        }
        for (at, feed) in self.crds.iter_mut().enumerate() {
            if let Poll::Ready(Some(event)) = feed.events.poll_recv(cx) {
                return Poll::Ready((EventSource::Crd(at), event));
            }
        }
        Poll::Pending
    }

    fn take(&mut self, from: EventSource, event: Event) {
        match from {
            EventSource::Feed(at) => {
                self.take_object(at, event);
                self.relist_after(RELIST);
            }
            EventSource::Crd(at) => {
                self.take_crd(at, event);
                self.relist_after(Duration::ZERO);
            }
        }
    }

    fn take_object(&mut self, at: usize, event: Event) {
        let kind = self.feeds[at].kind;
        match event {
            Event::Started => self.rows.start(kind),
            Event::Applied(name, object) => {
                self.diagnostics_changed |= self.rows.apply(kind, name, &object, &mut self.changes);
            }
            Event::Deleted(name) => {
                self.diagnostics_changed |= self.rows.delete(kind, &name, &mut self.changes);
            }
            Event::Complete => {
                self.diagnostics_changed |= self.rows.complete(kind, &mut self.changes);
                self.feeds[at].complete = true;
                self.relisting &= kind.route().is_none();
            }
            Event::Missing(since) => self.miss(at, since),
        }
    }

    /// Has routes listed again, in a while, if some may be in force now that were not: their text was not
    /// kept.
    fn relist_after(&mut self, delay: Duration) {
        if self.relisting || !self.rows.take_vacancy() {
            return;
        }
        self.relisting = true;
        for feed in self.feeds.iter().filter(|feed| feed.kind.route().is_some()) {
            let relist = std::sync::Arc::clone(&feed.relist);
            tokio::spawn(async move {
                tokio::time::sleep(delay).await;
                relist.notify_one();
            });
        }
    }

    /// The server knows no such kind.
    fn miss(&mut self, at: usize, since: Duration) {
        let kind = self.feeds[at].kind;
        let crd = self.crds.iter().find(|feed| feed.kind == kind);
        if crd.is_some_and(|feed| feed.crd.is_some()) {
            // It will, in a moment.
            let retry_now = std::sync::Arc::clone(&self.feeds[at].retry_now);
            tokio::spawn(async move {
                tokio::time::sleep(ESTABLISHING).await;
                retry_now.notify_one();
            });
            return;
        }
        let known_absent = crd.is_some_and(|feed| feed.complete);
        let feed = &mut self.feeds[at];
        if since >= GONE || (known_absent && !feed.complete) {
            feed.health.absent();
            feed.complete = true;
            self.rows.start(kind);
            self.diagnostics_changed |= self.rows.complete(kind, &mut self.changes);
        }
    }

    fn take_crd(&mut self, at: usize, event: Event) {
        let feed = &mut self.crds[at];
        match event {
            Event::Applied(_, object) => {
                let crd = Crd::read(&object);
                if let Some(kind) = feed.kind.route() {
                    self.rows.set_defaults(kind, crd.defaults());
                }
                self.diagnostics_changed |= feed.crd.as_ref() != Some(&crd);
                feed.crd = Some(crd);
                feed.named = true;
            }
            Event::Deleted(_) => self.diagnostics_changed |= feed.crd.take().is_some(),
            Event::Complete => {
                let first = !std::mem::replace(&mut feed.complete, true);
                let gone = !feed.named && feed.crd.take().is_some();
                self.diagnostics_changed |= gone || (first && feed.crd.is_none());
            }
            Event::Started => {
                feed.named = false;
                return;
            }
            Event::Missing(_) => return,
        }
        let kind = feed.kind;
        if let Some(feed) = self.feeds.iter().find(|feed| feed.kind == kind) {
            feed.retry_now.notify_one();
        }
    }
}

//! Following the cluster: the watches' events in; plans out, a newer one in place of an older.
//! Bursts are taken together; nothing is planned before each kind was listed once.

use std::{sync::Arc, time::Duration};

use kube::Client;
use tokio::{
    sync::{Notify, mpsc, watch},
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

use super::{
    admin::AdminService,
    metrics::Metrics,
    object_store::{KINDS, ObjectStore},
    plan::{StatusPlan, plan},
};
use crate::{
    control::kube::kinds::Watched,
    kube::{Event, Watch},
    model::RouteKind,
};

/// Changes that come closer together are judged together.
const SETTLE: Duration = Duration::from_millis(100);

/// Shortest time between two plans: in a large cluster some endpoint changes all the time.
const REST: Duration = Duration::from_secs(1);

/// How often everything is listed again for routes that are within the bounds again.
const RELIST: Duration = Duration::from_secs(10);

/// What an event is about.
#[derive(Clone, Copy)]
enum EventOrigin {
    Kind(Watched),
    /// The CRD of a kind of routes.
    Crd(RouteKind),
}

/// Follows the cluster.
pub(super) struct Informer {
    events: mpsc::Receiver<(EventOrigin, Event)>,
    plans: watch::Sender<Arc<StatusPlan>>,
    metrics: Arc<Metrics>,
    admin_service: AdminService,
    store: ObjectStore,
    /// Has routes listed again.
    relists: Vec<Arc<Notify>>,
    /// When that may be next.
    relisted: Instant,
}

impl Informer {
    /// Begins one watch of each kind, and one of the CRD by name; they end with the informer.
    pub(super) fn start(
        client: &Client,
        store: ObjectStore,
        metrics: Arc<Metrics>,
        admin_service: AdminService,
    ) -> (Self, watch::Receiver<Arc<StatusPlan>>) {
        let (merged, events) = mpsc::channel(1);
        let mut relists = Vec::new();
        let feeds = KINDS.map(|kind| (EventOrigin::Kind(kind), kind.label(), kind.resource("")));
        let crds = RouteKind::ALL.into_iter().filter_map(|kind| {
            let watched = Watched::Route(kind);
            Some((EventOrigin::Crd(kind), watched.crd_label()?, watched.crd()?))
        });
        for (about, label, resource) in feeds.into_iter().chain(crds) {
            let (watch, mut receiver) = Watch::new(client.clone(), resource);
            metrics.watch(label, watch.health());
            if matches!(about, EventOrigin::Kind(Watched::Route(_))) {
                relists.push(watch.relist());
            }
            tokio::spawn(watch.run());
            let merged = merged.clone();
            tokio::spawn(async move {
                while let Some(event) = receiver.recv().await {
                    if merged.send((about, event)).await.is_err() {
                        return;
                    }
                }
            });
        }
        let (plans, receiver) = watch::channel(Arc::default());
        let relisted = Instant::now();
        (Self { events, plans, metrics, admin_service, store, relists, relisted }, receiver)
    }

    /// Until the watches end, which they do not.
    pub(super) async fn run(mut self) {
        let mut second = interval(Duration::from_secs(1));
        second.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // When to judge, once something has changed.
        let mut due: Option<Instant> = None;
        let mut rested = Instant::now();
        loop {
            tokio::select! {
                event = self.events.recv() => {
                    let Some((about, event)) = event else { return };
                    let news = match about {
                        EventOrigin::Kind(kind) => self.store.apply(kind, event),
                        EventOrigin::Crd(kind) => self.store.apply_crd(kind, &event),
                    };
                    if news && due.is_none() {
                        due = Some((Instant::now() + SETTLE).max(rested));
                    }
                }
                () = sleep_until(due.unwrap_or(rested)), if due.is_some() => {
                    due = None;
                    self.reconcile();
                    rested = Instant::now() + REST;
                }
                _ = second.tick() => {
                    self.beat();
                    if self.relisted.elapsed() >= RELIST && self.store.take_vacancy() {
                        self.relisted = Instant::now();
                        self.relists.iter().for_each(|relist| relist.notify_one());
                    }
                }
            }
        }
    }

    fn reconcile(&mut self) {
        if self.store.incomplete().next().is_some() {
            return;
        }
        self.beat();
        let plan = plan(&mut self.store);
        self.metrics.planned(self.store.routes().len(), plan.len());
        self.plans.send_replace(Arc::new(plan));
    }

    fn beat(&self) {
        self.admin_service.beat(self.store.incomplete().map(|kind| kind.label()).collect());
    }
}

//! Following the cluster: the watches' events in; plans out, a newer one in place of an older.
//! Bursts are taken together; nothing is planned before each kind was listed once.

use std::{sync::Arc, time::Duration};

use kube::Client;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

use super::{
    metrics::Metrics,
    plan::{Plan, plan},
    window::Window,
    world::{KINDS, World},
};
use crate::{
    control::kube::kinds::Watched,
    kube::{Event, Watch},
};

/// Changes that come closer together are judged together.
const SETTLE: Duration = Duration::from_millis(100);

/// Shortest time between two plans: in a large cluster some endpoint changes all the time.
const REST: Duration = Duration::from_secs(1);

/// What an event is about.
#[derive(Clone, Copy)]
enum About {
    Kind(Watched),
    /// HTTPRoute's CRD.
    Crd,
}

/// Follows the cluster.
pub(super) struct Informer {
    events: mpsc::Receiver<(About, Event)>,
    plans: watch::Sender<Arc<Plan>>,
    metrics: Arc<Metrics>,
    window: Window,
    world: World,
}

impl Informer {
    /// Begins one watch of each kind, and one of the CRD by name; they end with the informer.
    pub(super) fn start(
        client: &Client,
        metrics: Arc<Metrics>,
        window: Window,
    ) -> (Self, watch::Receiver<Arc<Plan>>) {
        let (merged, events) = mpsc::channel(1);
        let feeds = KINDS.map(|kind| (About::Kind(kind), kind.label(), kind.resource("")));
        let crd = Watched::Route.crd().zip(Watched::Route.crd_label());
        let crd = crd.map(|(resource, label)| (About::Crd, label, resource));
        for (about, label, resource) in feeds.into_iter().chain(crd) {
            let (watch, mut receiver) = Watch::new(client.clone(), resource);
            metrics.watch(label, watch.health());
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
        (Self { events, plans, metrics, window, world: World::default() }, receiver)
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
                        About::Kind(kind) => self.world.apply(kind, event),
                        About::Crd => self.world.apply_crd(&event),
                    };
                    if news && due.is_none() {
                        due = Some((Instant::now() + SETTLE).max(rested));
                    }
                }
                () = sleep_until(due.unwrap_or(rested)), if due.is_some() => {
                    due = None;
                    self.judge();
                    rested = Instant::now() + REST;
                }
                _ = second.tick() => self.beat(),
            }
        }
    }

    fn judge(&mut self) {
        if self.world.incomplete().next().is_some() {
            return;
        }
        self.beat();
        let plan = plan(&mut self.world);
        self.metrics.planned(self.world.routes().len(), plan.len());
        self.plans.send_replace(Arc::new(plan));
    }

    fn beat(&self) {
        self.window.beat(self.world.incomplete().map(|kind| kind.label()).collect());
    }
}

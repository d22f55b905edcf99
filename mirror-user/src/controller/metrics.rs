//! Metrics: what the parts note goes in, OpenMetrics text comes out.

use std::{fmt, sync::Mutex, sync::PoisonError};

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::lease::Leadership;
use crate::kube::Health;

/// What became of a write of a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It is written.
    Written,
    /// Nothing was to be written any more, or the route was judged again meanwhile.
    Unchanged,
    /// Another one wrote the route meanwhile; it was read again.
    Conflict,
    /// The API server refused it or did not respond; it is tried again.
    Failed,
    /// This replica does not lead any more.
    Dropped,
}

impl Outcome {
    const ALL: [Self; 5] =
        [Self::Written, Self::Unchanged, Self::Conflict, Self::Failed, Self::Dropped];

    /// The label; never changes.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Written => "written",
            Self::Unchanged => "unchanged",
            Self::Conflict => "conflict",
            Self::Failed => "failed",
            Self::Dropped => "dropped",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByOutcome {
    outcome: Label,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByKind {
    kind: Label,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Label(&'static str);

impl EncodeLabelValue for Label {
    fn encode(
        &self,
        encoder: &mut prometheus_client::encoding::LabelValueEncoder<'_>,
    ) -> fmt::Result {
        EncodeLabelValue::encode(&self.0, encoder)
    }
}

/// All metrics of a controller.
#[derive(Debug, Default)]
pub struct Metrics {
    writes: Family<ByOutcome, Counter>,
    events: Family<ByOutcome, Counter>,
    routes: Gauge,
    unwritten: Gauge,
    /// Of each watch.
    watches: Mutex<Vec<(&'static str, Health)>>,
}

impl Metrics {
    /// Counts a write.
    pub fn write(&self, outcome: Outcome) {
        self.writes.get_or_create(&ByOutcome { outcome: Label(outcome.label()) }).inc();
    }

    /// Counts an Event.
    pub fn event(&self, sent: bool) {
        let outcome = Label(if sent { "sent" } else { "lost" });
        self.events.get_or_create(&ByOutcome { outcome }).inc();
    }

    /// Notes how many routes there are, and of how many the status is not as it should be.
    pub fn planned(&self, routes: usize, unwritten: usize) {
        self.routes.set(i64::try_from(routes).unwrap_or(i64::MAX));
        self.unwritten.set(i64::try_from(unwritten).unwrap_or(i64::MAX));
    }

    /// Adds a watch, whose health is exposed from now on.
    pub fn watch(&self, kind: &'static str, health: Health) {
        self.watches.lock().unwrap_or_else(PoisonError::into_inner).push((kind, health));
    }

    /// Everything as OpenMetrics text.
    ///
    /// # Errors
    /// Never in practice: writing to a `String` does not fail.
    pub fn encode(&self, leadership: &Leadership) -> Result<String, fmt::Error> {
        for outcome in Outcome::ALL {
            let _ = self.writes.get_or_create(&ByOutcome { outcome: Label(outcome.label()) });
        }
        let mut registry = Registry::with_prefix("mirror_controller");
        let leads: Gauge = Gauge::default();
        leads.set(i64::from(leadership.remaining().is_some()));
        registry.register("leads", "1 on the replica that leads, which writes statuses", leads);
        registry.register(
            "status_writes",
            "Writes of the status of routes by outcome",
            self.writes.clone(),
        );
        registry.register("events", "Events on routes by outcome", self.events.clone());
        registry.register(
            "routes",
            "HTTPRoutes and GRPCRoutes in the cluster",
            self.routes.clone(),
        );
        registry.register(
            "routes_unwritten",
            "Routes whose status is still to be written",
            self.unwritten.clone(),
        );
        self.register_watches(&mut registry);
        let mut text = String::new();
        text::encode(&mut text, &registry)?;
        Ok(text)
    }

    fn register_watches(&self, registry: &mut Registry) {
        let ages = Family::<ByKind, Gauge<f64, std::sync::atomic::AtomicU64>>::default();
        let lists = Family::<ByKind, Counter>::default();
        let failures = Family::<ByKind, Counter>::default();
        for (kind, health) in self.watches.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let label = ByKind { kind: Label(kind) };
            if let Some(age) = health.age() {
                ages.get_or_create(&label).set(age.as_secs_f64());
            }
            lists.get_or_create(&label).inc_by(health.lists());
            failures.get_or_create(&label).inc_by(health.failures());
        }
        registry.register(
            "snapshot_age_seconds",
            "Greatest possible age of what is known of a kind: 0 while its watch is current",
            ages,
        );
        registry.register("lists", "Complete lists, the first one included", lists);
        registry.register("watch_failures", "Failed attempts to list or watch", failures);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::metric_reference::assert_documented;

    #[test]
    fn the_reference_lists_exactly_the_controllers_metrics() {
        let (metrics, health) = (Metrics::default(), Health::default());
        health.absent();
        metrics.watch("HTTPRoute", health);
        metrics.event(true);
        let text = metrics.encode(&Leadership::lasting(Duration::from_secs(9))).unwrap();
        assert_documented("### Metrics of the controller", &text);
    }
}

//! The control path: from Kubernetes objects to what the data path reads.
//!
//! Sources ([`files`]; a watch of the cluster later) decode documents one by one ([`decode`])
//! into one model ([`objects`]); [`resolve`] makes routes, frontends and conditions of it, purely;
//! [`publish`] puts them in force, make before break; [`config_dump`] shows what is in force.

use std::{sync::Arc, time::Instant};

use arc_swap::ArcSwap;

use self::{
    config_dump::Report,
    files::State,
    publish::{FrontendMap, Publisher},
};
use crate::route::Snapshot;

pub mod config_dump;
pub mod decode;
pub mod files;
pub mod objects;
pub mod publish;
pub mod resolve;
#[cfg(test)]
mod tests;

/// The stages in a row: states of a source in; snapshot, map and report out.
#[derive(Debug)]
pub struct Control<M> {
    publisher: Publisher<M>,
    report: Arc<ArcSwap<Report>>,
    /// The kernel refused something of the last state.
    incomplete: bool,
}

impl<M: FrontendMap> Control<M> {
    /// Publishes to `snapshot`, `map` (which must be empty) and `report`.
    pub fn new(map: M, snapshot: Arc<ArcSwap<Snapshot>>, report: Arc<ArcSwap<Report>>) -> Self {
        Self { publisher: Publisher::new(map, snapshot), report, incomplete: false }
    }

    /// Whether the last state is to be applied again: the kernel refused a part of it.
    #[must_use]
    pub fn is_incomplete(&self) -> bool {
        self.incomplete
    }

    /// Puts a state in force, and tells in the log what stands in its way. When it returns, new
    /// connections follow the state.
    pub fn apply(&mut self, state: &State, now: Instant) {
        let mut resolved = resolve::resolve(&state.objects);
        let frontends = std::mem::take(&mut resolved.frontends);
        let count = frontends.len();
        let errors = self.publisher.publish(frontends, now);
        self.incomplete = !errors.is_empty();
        let unpublished = errors.iter().map(ToString::to_string).collect();
        let report = Report::new(state, &resolved, unpublished);
        let last = self.report.load();
        // Each is told once, not again with every change elsewhere.
        for problem in report.problems.iter().filter(|new| !last.problems.contains(new)) {
            tracing::error!("{problem}");
        }
        for warning in report.warnings.iter().filter(|new| !last.warnings.contains(new)) {
            tracing::warn!("{warning}");
        }
        let known: Vec<_> = last.unmet().collect();
        for unmet in report.unmet().filter(|new| !known.contains(new)) {
            tracing::warn!("{unmet}");
        }
        tracing::info!(frontends = count, problems = report.problems.len(), "routes in force");
        self.report.store(Arc::new(report));
    }
}

//! The control path: from Kubernetes objects to what the data path reads.
//!
//! Sources ([`files`], and [`kube`], a cluster) decode documents one by one ([`decode`]) into one
//! model ([`objects`]); [`resolve`] makes routes, frontends and conditions of it, purely;
//! [`publish`] puts them in force, make before break; [`config_dump`] shows what is in force.

#![forbid(unsafe_code)]

use std::{sync::Arc, time::Instant};

use arc_swap::ArcSwap;

use self::{
    config_dump::ControlReport,
    objects::{Changes, Objects},
    publish::{FrontendMap, Publisher},
    resolve::{AddressPolicy, FrontendChanges, Resolver},
};
use crate::route::{CaptureMode, EndpointChoice, Snapshot};

pub mod config_dump;
pub mod decode;
pub mod expressions;
pub mod files;
#[cfg(test)]
mod generate;
pub mod kube;
pub mod objects;
pub mod publish;
pub mod quota;
pub mod resolve;
pub mod source;
#[cfg(test)]
mod tests;

/// What a source has to say beside its objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnostics {
    /// What was refused, one line each, with what to do about it.
    pub problems: Vec<String>,
    /// What to know, though nothing was refused.
    pub warnings: Vec<String>,
}

/// The stages in a row: objects of a source in; snapshot, map and report out.
#[derive(Debug)]
pub struct Control<M> {
    resolver: Resolver,
    policy: AddressPolicy,
    publisher: Publisher<M>,
    report: Arc<ArcSwap<ControlReport>>,
    /// The kernel refused something of the last state.
    incomplete: bool,
}

impl<M: FrontendMap> Control<M> {
    /// Publishes to `snapshot`, `map` (which must be empty) and `report`; what it resolves by the
    /// policy of files, unless [`Control::by`] says otherwise.
    pub fn new(
        map: M,
        snapshot: Arc<ArcSwap<Snapshot>>,
        report: Arc<ArcSwap<ControlReport>>,
    ) -> Self {
        let publisher = Publisher::new(map, snapshot);
        let policy = AddressPolicy::default();
        Self { resolver: Resolver::default(), policy, publisher, report, incomplete: false }
    }

    /// The same by another policy. Nothing may be in force yet.
    #[must_use]
    pub fn by(self, policy: AddressPolicy) -> Self {
        Self { resolver: Resolver::new(policy.clone()), policy, ..self }
    }

    /// The same with frontends captured in this mode, where this chooses the endpoints. Nothing may be in
    /// force yet.
    #[must_use]
    pub fn capturing(self, mode: CaptureMode, choice: EndpointChoice) -> Self {
        Self { publisher: self.publisher.capturing(mode, choice), ..self }
    }

    /// Whether the kernel refused a part of the last state: then [`Control::retry`].
    #[must_use]
    pub fn is_incomplete(&self) -> bool {
        self.incomplete
    }

    /// Puts these objects in force and no others. When it returns, new connections follow them.
    /// Problems with them are logged.
    pub fn replace(&mut self, objects: &Objects, diagnostics: Diagnostics, now: Instant) {
        self.resolver = Resolver::new(self.policy.clone());
        let frontends = self.resolver.update(objects, &Changes::all(objects));
        let errors = self.publisher.replace(frontends, now);
        self.publish_report(objects, diagnostics, &errors);
    }

    /// Puts what changed in force: `objects` are those of the last call but for `changes`.
    /// Otherwise as [`Control::replace`].
    pub fn update(
        &mut self,
        objects: &Objects,
        changes: &Changes,
        diagnostics: Diagnostics,
        now: Instant,
    ) {
        let frontends = self.resolver.update(objects, changes);
        let errors = self.publisher.change(frontends, now);
        self.publish_report(objects, diagnostics, &errors);
    }

    /// Whether nothing of what is in force depends on the changes.
    #[must_use]
    pub fn ignores(&self, objects: &Objects, changes: &Changes) -> bool {
        self.resolver.ignores(objects, changes)
    }

    /// Tries again what the kernel refused.
    pub fn retry(&mut self, objects: &Objects, diagnostics: Diagnostics, now: Instant) {
        let errors = self.publisher.change(FrontendChanges::new(), now);
        self.publish_report(objects, diagnostics, &errors);
    }

    fn publish_report(
        &mut self,
        objects: &Objects,
        diagnostics: Diagnostics,
        errors: &[publish::PublishError<M::Error>],
    ) {
        self.incomplete = !errors.is_empty();
        let unpublished = errors.iter().map(ToString::to_string).collect();
        let conditions = self.resolver.conditions(objects);
        let warnings = self.resolver.warnings(objects);
        let report = ControlReport::new(diagnostics, &conditions, &warnings, unpublished)
            .with_refusals(self.resolver.refusals());
        report.log_news(&self.report.load());
        let frontends = self.publisher.live_count();
        tracing::info!(frontends, problems = report.problems.len(), "routes in force");
        self.report.store(Arc::new(report));
    }
}

//! The dump for `/config` and `/status`: what is in force. In: a snapshot, the conditions and the problems.
//! Out: the part of both that is about routes, `RoutesDump`.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};

use serde::Serialize;

use super::{
    Diagnostics,
    resolve::{Condition, Refusals, RouteStatus, Warning},
};
use crate::{
    dump::{
        ConditionDump, FrontendDump, MirrorDump, ObstacleDump, RefusedAddressesDump, RouteDump,
        RoutesDump, is_zero,
    },
    model::{ObjectName, RouteName},
    route::{
        Backend, BackendRef, Filter, Frontend, FrontendCapture, FrontendState, HeaderModifier,
        InvalidBackend, Matcher, RouteTable, Rule, ServicePort, Snapshot, TapObstacle,
    },
};

/// Endpoints of a backend that are listed; of others there is the number.
const ENDPOINTS: usize = 100;

/// Matches that are listed in all; of others there is the number. Each endpoint of a headless Service
/// has all matches of its routes.
const MATCHES: usize = 50_000;

/// What the control path last did, beside the snapshot itself.
#[derive(Clone, Debug, Default)]
pub struct ControlReport {
    /// Conditions of each route and parent.
    pub routes: Vec<ReportedRoute>,
    /// What to know, and what is not in force because it was refused.
    pub problems: Vec<String>,
    /// What to know, though all of it is in force.
    pub warnings: Vec<String>,
    /// How many addresses are not used, by why.
    pub addresses_refused: Refusals,
}

impl ControlReport {
    /// Gathers what the stages said. `unpublished`: errors of the publication.
    #[must_use]
    pub fn new(
        diagnostics: Diagnostics,
        conditions: &[RouteStatus],
        warnings: &[Warning],
        unpublished: Vec<String>,
    ) -> Self {
        let warnings = warnings.iter().map(|w| format!("{}: {}", w.object, w.message));
        Self {
            routes: conditions.iter().map(ReportedRoute::new).collect(),
            problems: diagnostics.problems.into_iter().chain(unpublished).collect(),
            warnings: warnings.chain(diagnostics.warnings).collect(),
            addresses_refused: Refusals::default(),
        }
    }

    /// The same with the addresses that are not used.
    #[must_use]
    pub fn with_refusals(self, addresses_refused: Refusals) -> Self {
        Self { addresses_refused, ..self }
    }

    /// Logs what the last report did not have: each line once, not again with every change
    /// elsewhere.
    pub(super) fn log_news(&self, last: &Self) {
        let known: HashSet<_> = last.problems.iter().chain(&last.warnings).collect();
        for problem in self.problems.iter().filter(|problem| !known.contains(problem)) {
            tracing::error!("{problem}");
        }
        for warning in self.warnings.iter().filter(|warning| !known.contains(warning)) {
            tracing::warn!("{warning}");
        }
        let known: HashSet<_> = last.unmet().collect();
        for unmet in self.unmet().filter(|unmet| !known.contains(unmet)) {
            tracing::warn!("{unmet}");
        }
    }

    /// Conditions that do not hold, one line each.
    fn unmet(&self) -> impl Iterator<Item = String> {
        self.routes.iter().flat_map(ReportedRoute::unmet)
    }
}

impl RoutesDump<MatchDump> {
    /// What is in force at this moment.
    pub(crate) fn new(snapshot: &Snapshot, report: &ControlReport) -> Self {
        Self::bounded(snapshot, report, MATCHES)
    }

    /// The same with at most so many matches.
    pub(super) fn bounded(snapshot: &Snapshot, report: &ControlReport, mut left: usize) -> Self {
        let mut frontends = BTreeMap::new();
        let mut tombstones = BTreeMap::new();
        for (id, lookup) in &snapshot.frontends {
            match lookup {
                FrontendState::Live(frontend) => {
                    frontends.insert(
                        frontend.address.to_string(),
                        FrontendDump::new(frontend, &mut left),
                    );
                }
                FrontendState::Tombstone(frontend) => {
                    tombstones.insert(id.0, frontend.address.to_string());
                }
            }
        }
        Self {
            generation: snapshot.generation,
            frontends,
            tombstones,
            routes: report.routes.iter().map(|route| route.dump.clone()).collect(),
            mirrors: mirrors(snapshot),
            problems: report.problems.clone(),
            warnings: report.warnings.clone(),
            addresses_refused: RefusedAddressesDump::new(&report.addresses_refused),
        }
    }
}

/// Which routes mirror to which shadows, with a rule or with a backend of one.
fn mirrors(snapshot: &Snapshot) -> BTreeSet<MirrorDump> {
    let mut mirrors: BTreeSet<(&RouteName, &ServicePort, bool)> = BTreeSet::new();
    for lookup in snapshot.frontends.values() {
        let FrontendState::Live(frontend) = lookup else { continue };
        let tapped = frontend.capture == FrontendCapture::Tapped;
        let tables = frontend.producer.iter().chain(frontend.consumers.values());
        for (_, rule) in tables.flat_map(|table| table.entries()) {
            let of_backends = rule.backends.refs().iter().flat_map(|backend| &backend.filters);
            for filter in rule.filters.iter().chain(of_backends) {
                let Filter::Mirror(mirror) = filter else { continue };
                let Ok(backend) = &mirror.target else { continue };
                mirrors.insert((&rule.route, &backend.service, tapped));
            }
        }
    }
    let text = mirrors.into_iter().map(|(route, shadow, tapped)| MirrorDump {
        route: route.to_string(),
        shadow: shadow.to_string(),
        tapped,
    });
    text.collect()
}

/// One match and its rule, in the order in which they are tried.
#[derive(Debug, Serialize)]
pub(crate) struct MatchDump {
    matches: String,
    route: String,
    rule: usize,
    filters: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry: Option<String>,
    backends: Vec<BackendDump>,
}

/// A backend reference.
#[derive(Debug, Serialize)]
struct BackendDump {
    weight: u32,
    filters: Vec<String>,
    target: String,
    endpoints: Vec<String>,
    /// Endpoints that are in use and not listed.
    #[serde(skip_serializing_if = "is_zero")]
    endpoints_left_out: usize,
}

/// The conditions of a route at a parent, and which those are.
#[derive(Clone, Debug)]
pub struct ReportedRoute {
    service: ObjectName,
    name: RouteName,
    dump: RouteDump,
}

impl FrontendDump<MatchDump> {
    /// `left`: how many matches may be listed.
    fn new(frontend: &Frontend, left: &mut usize) -> Self {
        let mut matches_left_out = 0;
        let mut table = |table: &RouteTable| {
            let listed: Vec<_> = table.entries().take(*left).collect();
            *left -= listed.len();
            matches_left_out += table.entries().count() - listed.len();
            listed.into_iter().map(|(matcher, rule)| MatchDump::new(matcher, rule)).collect()
        };
        let consumers = frontend.consumers.iter();
        Self {
            id: frontend.id.0,
            service: frontend.service.to_string(),
            // The publisher and the frontend itself hold one each.
            connections: Arc::strong_count(&frontend.connection_ref).saturating_sub(1),
            ahead: frontend.ahead,
            capture: frontend.capture.label().into(),
            not_tapped: frontend.capture.obstacle().map(ObstacleDump::new),
            producer: frontend.producer.as_ref().map(&mut table),
            consumers: consumers.map(|(ns, routes)| (ns.clone(), table(routes))).collect(),
            matches_left_out,
        }
    }
}

impl ObstacleDump {
    fn new(obstacle: &TapObstacle) -> Self {
        Self { reason: obstacle.kind.label().into(), why: obstacle.to_string() }
    }
}

impl MatchDump {
    fn new(matcher: &Matcher, rule: &Rule) -> Self {
        Self {
            matches: matcher.to_string(),
            route: rule.route.to_string(),
            rule: rule.index,
            filters: rule.filters.iter().map(filter).collect(),
            retry: rule.retry.as_ref().map(ToString::to_string),
            backends: rule.backends.refs().iter().map(BackendDump::new).collect(),
        }
    }
}

impl BackendDump {
    fn new(backend: &BackendRef) -> Self {
        let endpoints: &[_] = backend.target.as_ref().map_or(&[], |backend| &backend.endpoints);
        let listed = &endpoints[..endpoints.len().min(ENDPOINTS)];
        Self {
            weight: backend.weight,
            filters: backend.filters.iter().map(filter).collect(),
            target: target(&backend.target),
            endpoints: listed.iter().map(ToString::to_string).collect(),
            endpoints_left_out: endpoints.len() - listed.len(),
        }
    }
}

impl ReportedRoute {
    fn new(status: &RouteStatus) -> Self {
        Self {
            service: status.parent.service.clone(),
            name: status.route.clone(),
            dump: RouteDump::new(status),
        }
    }

    /// The parent's Service.
    pub(crate) fn service(&self) -> &ObjectName {
        &self.service
    }

    /// Conditions that say that something is not in force, one line each.
    pub(crate) fn unmet(&self) -> impl Iterator<Item = String> {
        let Self { name, dump, .. } = self;
        let conditions = [("Accepted", &dump.accepted), ("ResolvedRefs", &dump.resolved_refs)];
        let unmet = conditions.into_iter().filter(|(_, condition)| !condition.status);
        // With the same reason it says again what ResolvedRefs says.
        let partial = dump.partially_invalid.iter();
        let partial = partial.filter(|condition| condition.reason != dump.resolved_refs.reason);
        let partial = partial.map(|condition| ("PartiallyInvalid", condition));
        unmet.chain(partial).map(|(kind, condition)| {
            let ConditionDump { status, reason, message } = condition;
            let status = if *status { "True" } else { "False" };
            format!(
                "{} at {}: {kind} is {status}, {reason}: {message}",
                name.identity(),
                dump.parent
            )
        })
    }
}

impl RouteDump {
    fn new(status: &RouteStatus) -> Self {
        let parent = &status.parent;
        let port = parent.port.map(|port| format!(":{port}")).unwrap_or_default();
        let section = parent.section.as_ref().map(|s| format!("#{s}")).unwrap_or_default();
        Self {
            route: status.route.to_string(),
            parent: format!("{}{port}{section}", parent.service),
            accepted: ConditionDump::new(&status.accepted),
            resolved_refs: ConditionDump::new(&status.resolved_refs),
            partially_invalid: status.partially_invalid.as_ref().map(ConditionDump::new),
        }
    }
}

impl ConditionDump {
    fn new(condition: &Condition) -> Self {
        let Condition { holds, reason, message } = condition;
        Self { status: *holds, reason: (*reason).into(), message: message.clone() }
    }
}

impl RefusedAddressesDump {
    fn new(refusals: &Refusals) -> Self {
        Self { frontends: refusals.frontends.clone(), shadows: refusals.shadows.clone() }
    }
}

fn filter(filter: &Filter) -> String {
    match filter {
        Filter::RequestHeaders(modifier) => format!("request headers: {}", changes(modifier)),
        Filter::ResponseHeaders(modifier) => format!("response headers: {}", changes(modifier)),
        Filter::Mirror(mirror) => {
            let share = mirror.share;
            let target = target(&mirror.target);
            format!("mirror {} of {} to {target}", share.numerator, share.denominator)
        }
        Filter::Redirect(redirect) => redirect.to_string(),
        Filter::Rewrite(rewrite) => rewrite.to_string(),
        Filter::Cors(cors) => cors.to_string(),
    }
}

/// Names alone: values may be secrets.
fn changes(modifier: &HeaderModifier) -> String {
    let set = modifier.set.iter().map(|(name, _)| format!("set {name}"));
    let add = modifier.add.iter().map(|(name, _)| format!("add {name}"));
    let remove = modifier.remove.iter().map(|name| format!("remove {name}"));
    let parts: Vec<_> = set.chain(add).chain(remove).collect();
    parts.join(", ")
}

fn target(target: &Result<Arc<Backend>, InvalidBackend>) -> String {
    match target {
        Ok(backend) => backend.service.to_string(),
        Err(invalid) => format!("nowhere: {invalid}"),
    }
}

//! What a resolver has to say of the objects: conditions of each route and parent, and warnings.

use std::collections::BTreeSet;

use super::{
    Condition, Resolver, RouteStatus, Warning,
    attach::{self, Unattachable},
    claims::{ClaimStatus, LostAddresses},
    compile::{Compiled, Role},
    guard::Guard,
    resolver::PortRoutes,
};
use crate::{
    control::objects::{Objects, ParentRef, Route, RouteFilter, RouteRule, TargetRef},
    model::{CaptureLabel, ENDPOINT_FRONTENDS, EXTERNAL_SHADOWS, NamespaceRow, ObjectName},
};

impl Resolver {
    /// One entry for each route and parent; `objects` are those of the last update.
    #[must_use]
    pub fn conditions(&self, objects: &Objects) -> Vec<RouteStatus> {
        let routes = self.routes.iter();
        let routes = routes
            .filter_map(|(name, compiled)| objects.routes.get(name).map(|route| (route, compiled)));
        let statuses = routes.flat_map(|(route, compiled)| {
            let parents = route.parents.iter();
            parents.map(move |parent| self.status(objects, route, compiled, parent))
        });
        statuses.collect()
    }

    /// What a user should know, though nothing is refused; in order, each once.
    #[must_use]
    pub fn warnings(&self, objects: &Objects) -> Vec<Warning> {
        let guard = Guard::new(&self.policy, objects);
        let mut warnings: BTreeSet<_> = objects.routes.values().flat_map(of_route).collect();
        warnings.extend(misgrouped_parents(objects));
        warnings.extend(objects.slices.unowned().map(|slice| Warning {
            object: format!("EndpointSlice {slice}"),
            message: "belongs to no Service: add the label kubernetes.io/service-name".into(),
        }));
        let labels = self.odd_labels.iter().filter_map(|name| {
            let message = objects.services.get(name)?.capture.fault()?;
            Some(Warning { object: format!("Service {name}"), message })
        });
        warnings.extend(labels);
        let used = self
            .routes
            .values()
            .flat_map(|route| route.uses.iter().filter(|(name, ..)| route.found.contains(name)));
        let used = used.filter(|(name, ..)| !objects.slices.any(name));
        warnings.extend(used.map(|(name, _, role)| without_slices(name, *role)));
        let ports = self.ports.iter();
        let ports = ports.flat_map(|(name, ports)| ports.iter().map(move |port| (name, port)));
        warnings.extend(ports.filter_map(|(name, port)| of_port(name, &port.claim_status)));
        let ahead =
            objects.services.values().filter(|service| service.capture == CaptureLabel::Enabled);
        warnings.extend(ahead.filter_map(|service| {
            let message = guard.service(service)?;
            Some(Warning { object: format!("Service {}", service.name), message })
        }));
        warnings.extend(objects.services.values().filter_map(|service| {
            let message = guard.capture_endpoints(service)?;
            Some(Warning { object: format!("Service {}", service.name), message })
        }));
        warnings.extend(objects.namespaces.values().flat_map(of_namespace));
        warnings.into_iter().collect()
    }

    fn status(
        &self,
        objects: &Objects,
        route: &Route,
        compiled: &Compiled,
        parent: &ParentRef,
    ) -> RouteStatus {
        let guard = Guard::new(&self.policy, objects);
        let accepted = match attach::ports(&guard, objects, parent) {
            Err(Unattachable::NoMatch(reason)) => Condition::no_parent(reason),
            Err(Unattachable::NotPermitted(reason)) => Condition::not_permitted(reason),
            Ok(ports) => {
                let ports = ports.iter().filter_map(|port| self.port(&parent.service, port.port));
                self.accepted(route, &parent.service, &ports.collect::<Vec<_>>())
            }
        };
        RouteStatus {
            route: route.name.clone(),
            parent: parent.clone(),
            accepted,
            resolved_refs: compiled.refs.clone(),
            partially_invalid: compiled.partial.clone(),
        }
    }
}

impl Resolver {
    /// A route that is attached only where routes of a more specific kind are, or where it has no address,
    /// is not in force.
    fn accepted(&self, route: &Route, service: &ObjectName, at: &[&PortRoutes]) -> Condition {
        let (displaced, applies): (Vec<&PortRoutes>, Vec<&PortRoutes>) =
            at.iter().partition(|port| port.displaced.contains(&route.name));
        if applies.is_empty() && !displaced.is_empty() {
            return Condition::displaced(service);
        }
        let elsewhere = displaced.first().map(|port| {
            format!(
                "not at port {} of Service {service}, where GRPCRoutes apply",
                port.service.port
            )
        });
        let at: Vec<_> = applies.iter().map(|port| &port.claim_status).collect();
        if at.is_empty() || at.iter().any(|port| port.held > 0 || port.is_empty()) {
            let notes = at.iter().filter_map(|port| self.shortfall(port));
            let notes: Vec<_> = elsewhere.into_iter().chain(notes).collect();
            return Condition::accepted(route, (!notes.is_empty()).then(|| notes.join("; ")));
        }
        if let Some(lost) = at.iter().find_map(|port| port.lost.as_ref()) {
            return Condition::conflicted(service, &lost.owner);
        }
        let refused = at.iter().any(|port| !port.refused.is_empty());
        let reason = if refused { "AddressRefused" } else { "NoRoom" };
        let why = at.iter().find_map(|port| self.shortfall(port)).unwrap_or_default();
        Condition::no_frontend(reason, service, &why)
    }

    /// Which addresses of a port are not captured, and why, but for those that others have.
    fn shortfall(&self, port: &ClaimStatus) -> Option<String> {
        let refused = port.refused.iter().map(|(refusal, (first, count))| match count {
            1 => format!("{first} {refusal}"),
            count => format!("{first}, and {} more: each {refusal}", count - 1),
        });
        let without_room = (port.without_room > 0).then(|| {
            format!(
                "{} of its addresses are not captured: the Services of a Namespace may have at \
                 most {} frontends, those of all Namespaces at most {} (flag \
                 --namespace-frontends)",
                port.without_room, self.policy.namespace_frontends, self.policy.frontends
            )
        });
        let parts: Vec<_> = refused.chain(without_room).collect();
        (!parts.is_empty()).then(|| parts.join("; "))
    }
}

/// `parentRefs` that seem to name a Service, and do not.
pub fn misgrouped_parents(objects: &Objects) -> impl Iterator<Item = Warning> {
    let mixed = objects.routes.values().map(|route| (&route.name, &route.misgrouped));
    let all = mixed.chain(&objects.misgrouped);
    all.flat_map(|(name, texts)| {
        let warning =
            move |text: &String| Warning { object: name.identity(), message: text.clone() };
        texts.iter().map(warning)
    })
}

/// Addresses that others have.
fn of_port(name: &ObjectName, port: &ClaimStatus) -> Option<Warning> {
    let LostAddresses { first, owner, count } = port.lost.as_ref()?;
    let more = match count - 1 {
        0 => String::new(),
        more => format!(", and {more} more of its addresses to others"),
    };
    Some(Warning {
        object: format!("Service {name}"),
        message: format!(
            "{first} already belongs to {owner}{more}: connections to it follow that Service's \
             routes"
        ),
    })
}

fn of_namespace(row: &NamespaceRow) -> impl Iterator<Item = Warning> {
    let labels =
        [(ENDPOINT_FRONTENDS, &row.endpoint_frontends), (EXTERNAL_SHADOWS, &row.external_shadows)];
    labels.into_iter().filter_map(|(key, consent)| {
        let object = format!("Namespace {}", row.name.name);
        Some(Warning { object, message: consent.fault(key)? })
    })
}

fn without_slices(service: &ObjectName, role: Role) -> Warning {
    let message = match role {
        Role::Primary => "is a backend, but has no EndpointSlice: requests to it get 503",
        Role::Shadow => "is a shadow, but has no EndpointSlice: its copies are dropped",
    };
    Warning { object: format!("Service {service}"), message: message.into() }
}

fn of_route(route: &Route) -> Vec<Warning> {
    let warning = |message| Warning { object: route.name.identity(), message };
    let hostnames = (!route.hostnames.is_empty()).then(|| {
        "hostnames have no effect if the parent is a Service (GEP-1426); remove them".to_owned()
    });
    let valid = route.rules.iter().enumerate().filter(|(_, rule)| rule.refusal.is_none());
    let rules = valid.flat_map(|(at, rule)| of_rule(route, &format!("spec.rules[{at}]"), rule));
    hostnames.into_iter().chain(rules).map(warning).collect()
}

/// What a rule says that its author may not have meant.
fn of_rule(route: &Route, path: &str, rule: &RouteRule) -> Vec<String> {
    let mut texts = Vec::new();
    let redirects = rule.filters.iter().any(|filter| matches!(filter, RouteFilter::Redirect(_)));
    if rule.backends.is_empty() && !redirects {
        texts.push(format!("{path} has no backendRefs: matching requests get 500"));
    } else if !redirects && rule.backends.iter().all(|backend| backend.weight == 0) {
        texts.push(format!("{path}: each backendRef has weight 0: matching requests get 500"));
    }
    if let Some(retry) = rule.retry.as_ref().filter(|retry| retry.attempts > retry.limit()) {
        let (attempts, limit) = (retry.attempts, retry.limit());
        texts.push(format!(
            "{path}.retry.attempts is {attempts}: a request is retried {limit} times at most"
        ));
    }
    for (at, filter) in rule.filters.iter().enumerate() {
        let RouteFilter::Mirror(target, share) = filter else { continue };
        let path = format!("{path}.filters[{at}].requestMirror");
        if share.numerator == 0 {
            texts.push(format!("{path} mirrors 0 of {} requests: no copies", share.denominator));
        }
        if let TargetRef::Service(shadow, _) = target
            && route.parents.iter().any(|parent| parent.service == *shadow)
        {
            texts.push(format!(
                "{path} leads to Service {shadow}, which is a parent of the route: the Pods that \
                 respond to the requests get the copies as well"
            ));
        }
    }
    texts
}

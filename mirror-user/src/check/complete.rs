//! Completing: objects as a user writes them in; as they would be in a cluster out. A cluster
//! gives Services their addresses and makes EndpointSlices; that a file has none is not a problem of
//! the file. Pure.

use std::collections::BTreeSet;

use crate::{
    control::{
        objects::{
            EndpointSlice, Object, Objects, ParentRef, Port, RouteFilter, RouteRule, Service,
            ServiceAddress, TargetRef,
        },
        resolve::Warning,
    },
    model::{CaptureLabel, Consent, ENDPOINT_FRONTENDS, NamespaceRow, ObjectName},
};

/// `assume_services`: Services that are only referred to are added as well. Returns what was assumed
/// and the user has to ensure.
pub(super) fn complete(objects: &mut Objects, assume_services: bool) -> Vec<Warning> {
    if assume_services {
        assume(objects);
    }
    for service in objects.services.values_mut() {
        if service.address == ServiceAddress::Missing {
            // One that is not known yet: routes attach, and there is no frontend to show.
            service.address = ServiceAddress::ClusterIps(Vec::new());
        }
    }
    let names: Vec<_> = objects.services.keys().cloned().collect();
    for name in names {
        let service = Some(name.name.clone());
        let (ports, ready, terminating, unready, created) = Default::default();
        let name_of = name.clone();
        let slice =
            EndpointSlice { name: name_of, service, ports, ready, terminating, unready, created };
        if objects.slices.find(&name).is_none() {
            objects.slices.insert(slice);
        }
    }
    consent(objects)
}

/// Has each Namespace that no file defines permit what the routes at its headless Services need.
fn consent(objects: &mut Objects) -> Vec<Warning> {
    let parents = objects.routes.values().flat_map(|route| &route.parents);
    let parents = parents.filter_map(|parent| objects.services.get(&parent.service));
    let headless = parents.filter(|service| service.address == ServiceAddress::Headless);
    let unknown = headless.filter(|service| objects.namespace(&service.name.namespace).is_none());
    let unknown: BTreeSet<_> = unknown.map(|service| service.name.clone()).collect();
    let warning = |service: ObjectName| {
        let namespace = service.namespace.clone();
        objects.insert(Object::Namespace(NamespaceRow {
            name: ObjectName { namespace: String::new(), name: namespace.clone() },
            label: CaptureLabel::None,
            endpoint_frontends: Consent::Given,
            external_shadows: Consent::Withheld,
        }));
        let message = format!(
            "is headless: routes apply to it only if Namespace {namespace}, which no file defines, \
             has the label {ENDPOINT_FRONTENDS}=enabled"
        );
        Warning { object: format!("Service {service}"), message }
    };
    unknown.into_iter().map(warning).collect()
}

/// Adds each Service that routes refer to and that no file defines.
fn assume(objects: &mut Objects) {
    let routes = objects.routes.values();
    let wanted: Vec<_> = routes
        .flat_map(|route| {
            let parents = route.parents.iter().map(of_parent);
            parents.chain(route.rules.iter().flat_map(targets).filter_map(of_target))
        })
        .collect();
    let defined: BTreeSet<_> = objects.services.keys().cloned().collect();
    for (name, port) in wanted.into_iter().filter(|(name, _)| !defined.contains(name)) {
        let service = objects.services.entry(name.clone()).or_insert_with(|| Service {
            name,
            address: ServiceAddress::Missing,
            ports: Vec::new(),
            affinity: false,
            capture: CaptureLabel::default(),
            capture_endpoints: Consent::default(),
            created: None,
        });
        service.ports.push(port);
    }
}

/// A parent without a port means all of them, so that any will do.
fn of_parent(parent: &ParentRef) -> (ObjectName, Port) {
    let name = parent.section.clone().unwrap_or_default();
    (parent.service.clone(), tcp(name, parent.port.unwrap_or(80)))
}

fn of_target(target: &TargetRef) -> Option<(ObjectName, Port)> {
    match target {
        TargetRef::Service(name, port) => Some((name.clone(), tcp(String::new(), *port))),
        TargetRef::Other(_) => None,
    }
}

fn tcp(name: String, port: u16) -> Port {
    Port { name, port, tcp: true, app_protocol: None }
}

/// Where a rule leads: its backends, and its mirrors.
fn targets(rule: &RouteRule) -> impl Iterator<Item = &TargetRef> {
    let mirrors = rule.all_filters().filter_map(|filter| match filter {
        RouteFilter::Mirror(target, _) => Some(target),
        _ => None,
    });
    rule.backends.iter().map(|backend| &backend.target).chain(mirrors)
}

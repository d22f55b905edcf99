//! Completing: objects as a user writes them in; as they would be in a cluster out. A cluster
//! gives Services their addresses and makes EndpointSlices; that a file has none is no problem of
//! the file. Pure.

use std::collections::BTreeSet;

use crate::{
    control::objects::{
        EndpointSlice, ObjectName, Objects, ParentRef, Port, RouteFilter, RouteRule, Service,
        ServiceAddress, TargetRef,
    },
    enrol::Wish,
};

/// `assume_services`: Services that are only referred to are made up as well.
pub(super) fn complete(objects: &mut Objects, assume_services: bool) {
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
        let slice =
            EndpointSlice { name: name.clone(), service, ports: Vec::new(), ready: Vec::new() };
        if objects.slices.find(&name).is_none() {
            objects.slices.insert(slice);
        }
    }
}

/// Makes up each Service that routes refer to and nobody defines.
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
            capture: Wish::default(),
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
    let mirrors = rule.filters.iter().filter_map(|filter| match filter {
        RouteFilter::Mirror(target, _) => Some(target),
        RouteFilter::RequestHeaders(_) | RouteFilter::ResponseHeaders(_) => None,
    });
    rule.backends.iter().map(|backend| &backend.target).chain(mirrors)
}

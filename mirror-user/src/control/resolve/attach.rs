//! Which ports of which Services a route attaches to, and the rules that gather there.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::SocketAddr,
    sync::Arc,
};

use super::{
    claims::{AddressClaim, Right},
    guard::Guard,
};
use crate::{
    control::objects::{EndpointDetails, Objects, ParentRef, Port, Route, Service, ServiceAddress},
    model::{ObjectName, RouteKind, RouteName},
    route::{RouteTable, RuleEntry, ServicePort},
};

/// Why a route attaches to no port of its parent, as text.
pub(super) enum Unattachable {
    /// No Service or no port matches the reference.
    NoMatch(String),
    /// There is, and the route may not.
    NotPermitted(String),
}

impl Unattachable {
    pub(super) fn into_message(self) -> String {
        match self {
            Self::NoMatch(message) | Self::NotPermitted(message) => message,
        }
    }
}

/// The ports of the parent that a route attaches to, or why there is none.
pub(super) fn ports<'o>(
    guard: &Guard<'_>,
    objects: &'o Objects,
    parent: &ParentRef,
) -> Result<Vec<&'o Port>, Unattachable> {
    let ports = matching(objects, parent).map_err(Unattachable::NoMatch)?;
    let service = objects.services.get(&parent.service);
    match service.and_then(|service| guard.service(service)) {
        Some(why) => Err(Unattachable::NotPermitted(why)),
        None => Ok(ports),
    }
}

fn matching<'o>(objects: &'o Objects, parent: &ParentRef) -> Result<Vec<&'o Port>, String> {
    let name = &parent.service;
    let service =
        objects.services.get(name).ok_or_else(|| format!("Service {name} does not exist"))?;
    match &service.address {
        ServiceAddress::ClusterIps(_) | ServiceAddress::Headless => {}
        ServiceAddress::Missing => {
            return Err(format!(
                "Service {name} has no address: add spec.clusterIP (a cluster assigns it; a file \
                 has to say it)"
            ));
        }
        ServiceAddress::Unsupported(why) => {
            return Err(format!("Service {name} cannot be captured: {why}"));
        }
    }
    let chosen = |port: &&Port| {
        parent.port.is_none_or(|number| number == port.port)
            && parent.section.as_ref().is_none_or(|section| *section == port.name)
    };
    let ports: Vec<_> = service.ports.iter().filter(|port| port.tcp).filter(chosen).collect();
    if ports.is_empty() {
        let wanted = match (parent.port, &parent.section) {
            (None, None) => "TCP port".into(),
            (Some(number), None) => format!("TCP port {number}"),
            (None, Some(section)) => format!("TCP port named {section}"),
            (Some(number), Some(section)) => format!("TCP port {number} named {section}"),
        };
        return Err(format!("Service {name} has no {wanted}"));
    }
    Ok(ports)
}

/// What clients of this port connect to, as the Service claims it: each ClusterIP, each endpoint of a
/// headless Service, or both where a label asks for it and the Namespace permits it. `routed`: when the oldest of the routes there was created; None, when
/// there is no route.
pub(super) fn claims(
    guard: &Guard<'_>,
    service: &Service,
    (port, shown): (&Port, &Arc<ServicePort>),
    routed: Option<Option<i64>>,
) -> BTreeMap<SocketAddr, Arc<AddressClaim>> {
    // Of what has no time the newest that there can be.
    let time = |created: Option<i64>| created.unwrap_or(i64::MAX);
    let since = time(service.created).max(routed.map_or(i64::MIN, time));
    let claim = |right, since, pod: Option<&str>| {
        let (service, pod) = (Arc::clone(shown), pod.map(Box::from));
        Arc::new(AddressClaim { right, ahead: routed.is_none(), since, service, pod })
    };
    let mut claims = BTreeMap::new();
    if guard.permits_endpoints(service) {
        let endpoints = guard.objects().slices.endpoints(&service.name, port).into_iter();
        let claim = |details: EndpointDetails<'_>| {
            claim(Right::Endpoint, since.max(time(details.created)), details.pod)
        };
        claims.extend(endpoints.map(|(address, details)| (address, claim(details))));
    }
    if let ServiceAddress::ClusterIps(ips) = &service.address {
        let claim = claim(Right::ClusterIp, since, None);
        let addresses = ips.iter().map(|ip| SocketAddr::new(*ip, port.port));
        claims.extend(addresses.map(|address| (address, Arc::clone(&claim))));
    }
    claims
}

/// The rules attached to one port of one Service.
pub(super) struct Attachment<'o> {
    pub(super) port: &'o Port,
    producer: Rules<'o>,
    consumers: BTreeMap<&'o str, Rules<'o>>,
    /// When the oldest of their routes was created; None without any.
    routed: Option<Option<i64>>,
    namespace: &'o str,
}

/// The routes whose rules apply to the same clients, and the rules, by the kind of route.
#[derive(Default)]
struct Rules<'o>(BTreeMap<RouteKind, (BTreeSet<&'o RouteName>, Vec<RuleEntry>)>);

/// The tables of a port.
pub(super) struct Tables {
    /// For all clients, if any route makes one.
    pub(super) producer: Option<RouteTable>,
    /// For the clients of a Namespace.
    pub(super) consumers: HashMap<String, RouteTable>,
    /// Routes that do not apply, because routes of a more specific kind do (GEP-1294, "Route types").
    pub(super) displaced: BTreeSet<RouteName>,
}

impl<'o> Attachment<'o> {
    pub(super) fn new(service: &'o ObjectName, port: &'o Port) -> Self {
        let namespace = service.namespace.as_str();
        let (producer, consumers, routed) = Default::default();
        Self { port, producer, consumers, routed, namespace }
    }

    pub(super) fn add(&mut self, route: &'o Route, rules: &[RuleEntry]) {
        let namespace = &route.name.object.namespace;
        let place = match namespace == self.namespace {
            true => &mut self.producer,
            false => self.consumers.entry(namespace).or_default(),
        };
        let (routes, of_kind) = place.0.entry(route.name.kind).or_default();
        // A route with two parents that mean the same port attaches once.
        if !routes.insert(&route.name) {
            return;
        }
        of_kind.extend_from_slice(rules);
        let time = |created: Option<i64>| created.unwrap_or(i64::MAX);
        self.routed = match self.routed {
            Some(oldest) if time(oldest) <= time(route.created) => Some(oldest),
            _ => Some(route.created),
        };
    }

    /// When the oldest of its routes was created; None without any.
    pub(super) fn routed(&self) -> Option<Option<i64>> {
        self.routed
    }

    pub(super) fn tables(self) -> Tables {
        let mut displaced = BTreeSet::new();
        let mut table = |Rules(kinds): Rules<'_>| {
            let mut kinds = kinds.into_values();
            let (_, rules) = kinds.next()?;
            displaced.extend(kinds.flat_map(|(routes, _)| routes.into_iter().cloned()));
            (!rules.is_empty()).then(|| RouteTable::new(rules))
        };
        let producer = table(self.producer);
        let consumers = self.consumers.into_iter();
        let consumers = consumers.filter_map(|(ns, rules)| Some((ns.into(), table(rules)?)));
        Tables { producer, consumers: consumers.collect(), displaced }
    }
}

//! Which ports of which Services a route attaches to, and the rules that gather there.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::SocketAddr,
};

use crate::{
    control::objects::{HttpRoute, ObjectName, Objects, ParentRef, Port, Service, ServiceAddress},
    route::{RouteTable, RuleEntry},
};

/// The ports of the parent that a route attaches to, or why there is none, in words.
pub(super) fn ports<'o>(objects: &'o Objects, parent: &ParentRef) -> Result<Vec<&'o Port>, String> {
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
            (None, Some(section)) => format!("TCP port called {section}"),
            (Some(number), Some(section)) => format!("TCP port {number} called {section}"),
        };
        return Err(format!("Service {name} has no {wanted}"));
    }
    Ok(ports)
}

/// What clients of this port connect to: each ClusterIP, or each endpoint of a headless Service.
pub(super) fn addresses(objects: &Objects, service: &Service, port: &Port) -> BTreeSet<SocketAddr> {
    match &service.address {
        ServiceAddress::ClusterIps(addresses) => {
            addresses.iter().map(|address| SocketAddr::new(*address, port.port)).collect()
        }
        ServiceAddress::Headless => objects.slices.endpoints(&service.name, port),
        ServiceAddress::Missing | ServiceAddress::Unsupported(_) => BTreeSet::new(),
    }
}

/// The rules attached to one port of one Service.
pub(super) struct Attachment<'o> {
    pub(super) port: &'o Port,
    producer: Vec<RuleEntry>,
    consumers: BTreeMap<&'o str, Vec<RuleEntry>>,
    /// A route with two parents that mean the same port attaches once.
    routes: BTreeSet<&'o ObjectName>,
    namespace: &'o str,
}

impl<'o> Attachment<'o> {
    pub(super) fn new(service: &'o ObjectName, port: &'o Port) -> Self {
        Self {
            port,
            producer: Vec::new(),
            consumers: BTreeMap::new(),
            routes: BTreeSet::new(),
            namespace: service.namespace.as_str(),
        }
    }

    pub(super) fn add(&mut self, route: &'o HttpRoute, rules: &[RuleEntry]) {
        if !self.routes.insert(&route.name) {
            return;
        }
        let place = if route.name.namespace == self.namespace {
            &mut self.producer
        } else {
            self.consumers.entry(&route.name.namespace).or_default()
        };
        place.extend_from_slice(rules);
    }

    /// The producer's table, if any route makes one, and the consumers' by namespace.
    pub(super) fn tables(self) -> (Option<RouteTable>, HashMap<String, RouteTable>) {
        let producer = (!self.producer.is_empty()).then(|| RouteTable::new(self.producer));
        let consumers = self.consumers.into_iter();
        (producer, consumers.map(|(ns, rules)| (ns.into(), RouteTable::new(rules))).collect())
    }
}

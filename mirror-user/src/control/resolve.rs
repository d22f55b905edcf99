//! Resolve: the objects of one moment in; frontends with compiled routes, conditions of the
//! routes and warnings out. Pure: no clock, no client, no runtime; the same objects always
//! resolve to the same answer.
//!
//! Semantics (GEP-1426, GAMMA): routes attach to Services. A route in the Service's namespace is
//! a producer route and holds for all clients; one in another namespace is a consumer route and
//! replaces the producer's for clients of its own namespace. `hostnames` do not select. An
//! attached route replaces the Service's implicit one: what no rule matches is answered with 404.
//! A Service that is captured ahead of its routes keeps the implicit one until then.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::SocketAddr,
    sync::Arc,
};

pub use self::condition::Condition;
use self::{attach::Attachment, compile::Compiler, lookup::Slices};
use super::objects::{HttpRoute, ObjectName, Objects, ParentRef, Port, Service, ServiceAddress};
use crate::{
    enrol::Wish,
    route::{RouteName, RouteTable, ServicePort},
};

mod attach;
mod compile;
mod condition;
mod lookup;
#[cfg(test)]
mod tests;

/// What the objects of one moment mean.
#[derive(Debug, Default)]
pub struct Resolved {
    /// What clients may connect to, with the routes that hold there; no address twice.
    pub frontends: Vec<ResolvedFrontend>,
    /// One entry for each route and parent.
    pub conditions: Vec<RouteStatus>,
    /// What a user should know, though nothing is refused.
    pub warnings: Vec<Warning>,
}

/// A frontend without the id that [`super::publish`] gives it.
#[derive(Clone, Debug)]
pub struct ResolvedFrontend {
    /// What the application connects to.
    pub address: SocketAddr,
    /// The Service port behind that address.
    pub service: Arc<ServicePort>,
    /// Routes of the Service's own namespace.
    pub producer: Option<RouteTable>,
    /// Routes of other namespaces, by namespace.
    pub consumers: HashMap<String, RouteTable>,
    /// Whether the Service is captured ahead of its routes.
    pub ahead: bool,
}

/// The conditions of a route at one of its parents (RouteParentStatus).
#[derive(Clone, Debug)]
pub struct RouteStatus {
    /// Which route.
    pub route: RouteName,
    /// At which parent.
    pub parent: ParentRef,
    /// Condition `Accepted`.
    pub accepted: Condition,
    /// Condition `ResolvedRefs`.
    pub resolved_refs: Condition,
    /// Condition `PartiallyInvalid`, which is there only when it is true.
    pub partially_invalid: Option<Condition>,
}

/// Something to know about an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Warning {
    /// Its kind and name.
    pub object: String,
    /// In words.
    pub message: String,
}

/// Compiles the routes and attaches them to the frontends of their Services.
#[must_use]
pub fn resolve(objects: &Objects) -> Resolved {
    let slices = Slices::new(objects);
    let mut compiler = Compiler::new(objects, &slices);
    let mut attached = BTreeMap::new();
    let mut resolved = Resolved::default();
    for route in objects.routes.values() {
        let compiled = compiler.route(route);
        for parent in &route.parents {
            let accepted = match attach::ports(objects, parent) {
                Err(reason) => Condition::no_parent(reason),
                Ok(ports) => {
                    for port in ports {
                        let at = (&parent.service, port.port);
                        attached
                            .entry(at)
                            .or_insert_with(|| Attachment::new(&parent.service, port))
                            .add(route, &compiled.rules);
                    }
                    Condition::accepted(route)
                }
            };
            resolved.conditions.push(RouteStatus {
                route: RouteName::from(&route.name),
                parent: parent.clone(),
                accepted,
                resolved_refs: compiled.refs.clone(),
                partially_invalid: compiled.partial.clone(),
            });
        }
        resolved.warnings.extend(warnings(route));
    }
    resolved.warnings.append(&mut compiler.finish());
    resolved.warnings.extend(ahead(objects, &mut attached));
    frontends(objects, &slices, attached, &mut resolved);
    resolved.warnings.sort();
    resolved.warnings.dedup();
    resolved
}

/// Why no route can attach to the parent, in words; None when one can.
#[must_use]
pub fn unattachable(objects: &Objects, parent: &ParentRef) -> Option<String> {
    attach::ports(objects, parent).err()
}

/// Adds the ports of Services that are captured ahead of their routes; warns of labels that say
/// something else.
fn ahead<'o>(
    objects: &'o Objects,
    attached: &mut BTreeMap<(&'o ObjectName, u16), Attachment<'o>>,
) -> Vec<Warning> {
    let mut warnings = Vec::new();
    for (name, service) in &objects.services {
        if service.capture == Wish::Enabled {
            for port in service.ports.iter().filter(|port| port.tcp) {
                attached.entry((name, port.port)).or_insert_with(|| Attachment::new(name, port));
            }
        } else if let Some(message) = service.capture.fault() {
            warnings.push(Warning { object: format!("Service {name}"), message });
        }
    }
    warnings
}

fn warnings(route: &HttpRoute) -> impl Iterator<Item = Warning> {
    let object = format!("HTTPRoute {}", route.name);
    let hostnames = (!route.hostnames.is_empty()).then(|| {
        "hostnames do not select when the parent is a Service (GEP-1426); remove them".to_owned()
    });
    let empty = route.rules.iter().enumerate().filter(|(_, rule)| rule.backends.is_empty());
    let empty = empty.map(|(at, _)| {
        format!("spec.rules[{at}] has no backendRefs: matching requests are answered with 500")
    });
    let messages: Vec<_> = hostnames.into_iter().chain(empty).collect();
    messages.into_iter().map(move |message| Warning { object: object.clone(), message })
}

/// One frontend for each address of each Service port with a route, or captured ahead of one.
fn frontends(
    objects: &Objects,
    slices: &Slices<'_>,
    attached: BTreeMap<(&ObjectName, u16), Attachment<'_>>,
    resolved: &mut Resolved,
) {
    let mut taken: BTreeMap<SocketAddr, Arc<ServicePort>> = BTreeMap::new();
    let mut lost = BTreeMap::new();
    for ((name, number), attachment) in attached {
        let Some(service) = objects.services.get(name) else { continue };
        let service_port = Arc::new(ServicePort {
            namespace: name.namespace.clone(),
            name: name.name.clone(),
            port: number,
        });
        let addresses = addresses(slices, service, attachment.port);
        let (producer, consumers) = attachment.tables();
        if let Some(other) = all_taken(&addresses, &taken) {
            lost.insert((name, number), other);
        }
        for address in addresses {
            if let Some(other) = taken.get(&address) {
                let message = format!(
                    "{address} already belongs to {other}: connections to it follow that \
                     Service's routes"
                );
                resolved.warnings.push(Warning { object: format!("Service {name}"), message });
                continue;
            }
            taken.insert(address, Arc::clone(&service_port));
            resolved.frontends.push(ResolvedFrontend {
                address,
                service: Arc::clone(&service_port),
                producer: producer.clone(),
                consumers: consumers.clone(),
                ahead: service.capture == Wish::Enabled,
            });
        }
    }
    conflicts(objects, &lost, &mut resolved.conditions);
}

/// Who has the addresses, if others have all of them.
fn all_taken(
    addresses: &BTreeSet<SocketAddr>,
    taken: &BTreeMap<SocketAddr, Arc<ServicePort>>,
) -> Option<Arc<ServicePort>> {
    let first = taken.get(addresses.first()?)?;
    addresses.iter().all(|address| taken.contains_key(address)).then(|| Arc::clone(first))
}

/// A route that is attached only where other Services have every address is not in force.
fn conflicts(
    objects: &Objects,
    lost: &BTreeMap<(&ObjectName, u16), Arc<ServicePort>>,
    conditions: &mut [RouteStatus],
) {
    for status in conditions.iter_mut().filter(|status| status.accepted.holds && !lost.is_empty()) {
        let service = &status.parent.service;
        let ports = attach::ports(objects, &status.parent).unwrap_or_default();
        let others: Vec<_> = ports.iter().map(|port| lost.get(&(service, port.port))).collect();
        if let Some(Some(other)) = others.first()
            && others.iter().all(Option::is_some)
        {
            status.accepted = Condition::conflicted(service, other);
        }
    }
}

/// What clients of this port connect to: each ClusterIP, or each endpoint of a headless Service.
fn addresses(slices: &Slices<'_>, service: &Service, port: &Port) -> BTreeSet<SocketAddr> {
    match &service.address {
        ServiceAddress::ClusterIps(addresses) => {
            addresses.iter().map(|address| SocketAddr::new(*address, port.port)).collect()
        }
        ServiceAddress::Headless => slices.endpoints(&service.name, port),
        ServiceAddress::Missing | ServiceAddress::Unsupported(_) => BTreeSet::new(),
    }
}

//! Resolving step by step: the objects and what changed among them in; the frontends that this
//! changes out. Only what depends on a change is compiled anew: the routes that are it or lead to
//! it, and the Services that those are attached to. Everything else keeps its compiled form.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::SocketAddr,
    sync::Arc,
};

use super::{
    ResolvedFrontend,
    attach::{self, Attachment},
    compile::{Compiled, Known, compile},
};
use crate::{
    control::objects::{Changes, ObjectName, Objects, ServiceAddress},
    enrol::Wish,
    route::{RouteTable, ServicePort},
};

/// What the objects meant when they were last looked at.
#[derive(Debug, Default)]
pub struct Resolver {
    known: Known,
    pub(super) routes: BTreeMap<ObjectName, Compiled>,
    /// Routes by the Services that they attach to, and by those that they lead to.
    attached: Links,
    leading: Links,
    ports: BTreeMap<ObjectName, Vec<PortRoutes>>,
    /// Services whose label is to be warned of.
    pub(super) odd_labels: BTreeSet<ObjectName>,
    /// Who wants an address: the first in the order of Services and ports has it.
    pub(super) claims: BTreeMap<SocketAddr, BTreeSet<(ObjectName, u16)>>,
}

/// Names of routes by Service.
type Links = HashMap<ObjectName, BTreeSet<ObjectName>>;

/// What changes for the data path: the frontend of an address, or that it has none any more.
pub type FrontendChanges = BTreeMap<SocketAddr, Option<ResolvedFrontend>>;

/// A Service's port with the routes that hold there.
#[derive(Debug)]
struct PortRoutes {
    service: Arc<ServicePort>,
    addresses: BTreeSet<SocketAddr>,
    producer: Option<RouteTable>,
    consumers: HashMap<String, RouteTable>,
    /// The Service is captured ahead of its routes.
    ahead: bool,
}

impl Resolver {
    /// Looks at what changed. An empty resolver must be shown [`Changes::all`].
    pub fn update(&mut self, objects: &Objects, changes: &Changes) -> FrontendChanges {
        for service in changes.services.union(&changes.endpoints) {
            self.known.forget(service);
        }
        for name in &changes.services {
            match objects.services.get(name).and_then(|service| service.capture.fault()) {
                Some(_) => self.odd_labels.insert(name.clone()),
                None => self.odd_labels.remove(name),
            };
        }
        let mut services = changes.services.clone();
        services
            .extend(changes.endpoints.iter().filter(|name| is_headless(objects, name)).cloned());
        for route in self.stale_routes(changes) {
            services.append(&mut self.recompile(objects, &route));
        }
        let mut touched = BTreeSet::new();
        for service in services {
            self.reattach(objects, &service, &mut touched);
        }
        touched.into_iter().map(|address| (address, self.frontend(address))).collect()
    }

    /// The routes that changed, that lead to a Service that did, or that need the consent of a
    /// namespace whose grants did.
    fn stale_routes(&self, changes: &Changes) -> BTreeSet<ObjectName> {
        let mut stale = changes.routes.clone();
        for service in changes.services.union(&changes.endpoints) {
            stale.extend(self.leading.get(service).into_iter().flatten().cloned());
        }
        for namespace in &changes.grants {
            let foreign = self.routes.iter().filter(|(route, compiled)| {
                let mut backends = compiled.backends.iter();
                route.namespace != *namespace
                    && backends.any(|backend| backend.namespace == *namespace)
            });
            stale.extend(foreign.map(|(route, _)| route.clone()));
        }
        stale
    }

    /// Compiles a route, or forgets one that is gone. Returns the Services that it is, or was,
    /// attached to.
    fn recompile(&mut self, objects: &Objects, name: &ObjectName) -> BTreeSet<ObjectName> {
        let old = self.routes.remove(name);
        let mut parents = BTreeSet::new();
        if let Some(mut old) = old {
            unlink(&mut self.attached, &old.parents, name);
            unlink(&mut self.leading, &old.backends, name);
            let unused = old.backends.iter().filter(|service| !self.leading.contains_key(*service));
            unused.for_each(|service| self.known.forget(service));
            parents.append(&mut old.parents);
        }
        if let Some(route) = objects.routes.get(name) {
            let compiled = compile(objects, &mut self.known, route);
            link(&mut self.attached, &compiled.parents, name);
            link(&mut self.leading, &compiled.backends, name);
            parents.extend(compiled.parents.iter().cloned());
            self.routes.insert(name.clone(), compiled);
        }
        parents
    }

    /// Gathers the rules at each port of a Service anew, and notes the addresses that it has or
    /// had.
    fn reattach(
        &mut self,
        objects: &Objects,
        service: &ObjectName,
        touched: &mut BTreeSet<SocketAddr>,
    ) {
        for old in self.ports.remove(service).unwrap_or_default() {
            for address in old.addresses {
                if let Some(claims) = self.claims.get_mut(&address) {
                    claims.remove(&(service.clone(), old.service.port));
                    if claims.is_empty() {
                        self.claims.remove(&address);
                    }
                }
                touched.insert(address);
            }
        }
        let ports = self.attach(objects, service);
        for port in &ports {
            for address in &port.addresses {
                let claim = (service.clone(), port.service.port);
                self.claims.entry(*address).or_default().insert(claim);
                touched.insert(*address);
            }
        }
        if !ports.is_empty() {
            self.ports.insert(service.clone(), ports);
        }
    }

    fn attach(&self, objects: &Objects, name: &ObjectName) -> Vec<PortRoutes> {
        let Some(service) = objects.services.get(name) else { return Vec::new() };
        let mut attachments = BTreeMap::new();
        for route in self.attached.get(name).into_iter().flatten() {
            let (Some(compiled), Some(route)) = (self.routes.get(route), objects.routes.get(route))
            else {
                continue;
            };
            for parent in route.parents.iter().filter(|parent| parent.service == *name) {
                for port in attach::ports(objects, parent).unwrap_or_default() {
                    attachments
                        .entry(port.port)
                        .or_insert_with(|| Attachment::new(name, port))
                        .add(route, &compiled.rules);
                }
            }
        }
        let ahead = service.capture == Wish::Enabled;
        for port in service.ports.iter().filter(|port| ahead && port.tcp) {
            attachments.entry(port.port).or_insert_with(|| Attachment::new(name, port));
        }
        let ports = attachments.into_iter().map(|(number, attachment)| {
            let addresses = attach::addresses(objects, service, attachment.port);
            let (producer, consumers) = attachment.tables();
            let service = ServicePort {
                namespace: name.namespace.clone(),
                name: name.name.clone(),
                port: number,
            };
            PortRoutes { service: Arc::new(service), addresses, producer, consumers, ahead }
        });
        ports.collect()
    }

    fn frontend(&self, address: SocketAddr) -> Option<ResolvedFrontend> {
        let (service, number) = self.claims.get(&address)?.first()?;
        let mut ports = self.ports.get(service)?.iter();
        let port = ports.find(|port| port.service.port == *number)?;
        Some(ResolvedFrontend {
            address,
            service: Arc::clone(&port.service),
            producer: port.producer.clone(),
            consumers: port.consumers.clone(),
            ahead: port.ahead,
        })
    }

    /// Who has the addresses of a port that routes are attached to, if others have all of them.
    pub(super) fn owner_instead(
        &self,
        service: &ObjectName,
        number: u16,
    ) -> Option<Arc<ServicePort>> {
        let own = |port: &&PortRoutes| port.service.port == number;
        let port = self.ports.get(service)?.iter().find(own)?;
        let owner = |address| self.claims.get(address).and_then(BTreeSet::first);
        let here = (service.clone(), number);
        let mut others = port.addresses.iter().filter_map(owner).filter(|owner| **owner != here);
        let (other, number) = others.next()?;
        if others.count() + 1 < port.addresses.len() {
            return None;
        }
        let mut ports = self.ports.get(other)?.iter();
        ports.find(|port| port.service.port == *number).map(|port| Arc::clone(&port.service))
    }
}

fn is_headless(objects: &Objects, service: &ObjectName) -> bool {
    let service = objects.services.get(service);
    service.is_some_and(|service| service.address == ServiceAddress::Headless)
}

fn link(links: &mut Links, services: &BTreeSet<ObjectName>, route: &ObjectName) {
    for service in services {
        links.entry(service.clone()).or_default().insert(route.clone());
    }
}

fn unlink(links: &mut Links, services: &BTreeSet<ObjectName>, route: &ObjectName) {
    for service in services {
        if let Some(routes) = links.get_mut(service) {
            routes.remove(route);
            if routes.is_empty() {
                links.remove(service);
            }
        }
    }
}

#[cfg(test)]
mod tests;

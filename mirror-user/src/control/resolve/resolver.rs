//! Resolving step by step: the objects and what changed among them in; the frontends that this
//! changes out. Only what depends on a change is compiled again: the routes that are it or lead to
//! it, and the Services that those are attached to. Everything else keeps its compiled form.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use super::{
    ResolvedFrontend,
    attach::{self, Attachment, Tables},
    claims::{AddressClaim, AddressClaims, ClaimStatus, Right},
    compile::{Compiled, KnownBackends, compile},
    guard::Guard,
    policy::AddressPolicy,
};
use crate::{
    control::objects::{Changes, Objects, Service},
    model::{CaptureLabel, ObjectName, RouteName},
    route::{RouteTable, ServicePort},
};

/// What the objects meant when they were last looked at.
#[derive(Debug, Default)]
pub struct Resolver {
    pub(super) policy: AddressPolicy,
    known: KnownBackends,
    pub(super) routes: BTreeMap<RouteName, Compiled>,
    /// Routes by the Services that they attach to, and by those that they lead to.
    attached: Links,
    leading: Links,
    pub(super) ports: BTreeMap<ObjectName, Vec<PortRoutes>>,
    /// Services whose label is to be warned of.
    pub(super) odd_labels: BTreeSet<ObjectName>,
    claims: AddressClaims,
    /// Services with addresses that there was no room for, the oldest first.
    without_room: BTreeSet<(i64, ObjectName)>,
}

/// Names of routes by Service.
type Links = HashMap<ObjectName, BTreeSet<RouteName>>;

/// What changes for the data path: the frontend of an address, or that it has none any more.
pub type FrontendChanges = BTreeMap<SocketAddr, Option<ResolvedFrontend>>;

/// A Service's port with the routes that hold there.
#[derive(Debug)]
pub(super) struct PortRoutes {
    pub(super) service: Arc<ServicePort>,
    claims: BTreeMap<SocketAddr, Arc<AddressClaim>>,
    without_room: usize,
    /// What became of the claims.
    pub(super) claim_status: ClaimStatus,
    producer: Option<RouteTable>,
    consumers: HashMap<String, RouteTable>,
    /// Routes that are attached and do not apply: [`Tables::displaced`].
    pub(super) displaced: BTreeSet<RouteName>,
    /// The Service is captured ahead of its routes.
    ahead: bool,
}

impl Resolver {
    /// One that knows nothing yet, and resolves by the policy. (By default that of files.)
    #[must_use]
    pub fn new(policy: AddressPolicy) -> Self {
        Self { policy, ..Self::default() }
    }

    /// Looks at what changed. An empty resolver must be shown [`Changes::all`].
    pub fn update(&mut self, objects: &Objects, changes: &Changes) -> FrontendChanges {
        let policy = self.policy.clone();
        let guard = Guard::new(&policy, objects);
        for name in &changes.services {
            match objects.services.get(name).and_then(|service| service.capture.fault()) {
                Some(_) => self.odd_labels.insert(name.clone()),
                None => self.odd_labels.remove(name),
            };
        }
        let mut services = changes.services.clone();
        services.extend(
            changes.endpoints.iter().filter(|name| has_endpoint_frontends(objects, name)).cloned(),
        );
        services.extend(self.of_namespaces(objects, changes));
        for route in self.stale_routes(changes) {
            services.append(&mut self.recompile(&guard, objects, &route));
        }
        let mut touched = BTreeSet::new();
        let mut dirty = services.clone();
        for (_, service) in by_age(objects, services) {
            self.reattach(&guard, objects, &service, &mut touched);
        }
        dirty.extend(self.admit(&guard, objects, &mut touched));
        for ip in &changes.addresses {
            touched.extend(self.claims.at(*ip));
        }
        dirty.extend(touched.iter().flat_map(|address| self.claims.on(*address)).map(|claim| {
            let ServicePort { namespace, name, .. } = &*claim.service;
            ObjectName { namespace: namespace.clone(), name: name.clone() }
        }));
        for service in dirty {
            for port in self.ports.get_mut(&service).into_iter().flatten() {
                port.claim_status =
                    self.claims.claim_status(&guard, &port.claims, port.without_room);
            }
        }
        touched.into_iter().map(|address| (address, self.frontend(&guard, address))).collect()
    }

    /// Whether nothing that was resolved depends on the changes: a Pod came whose address no slice
    /// names, say.
    #[must_use]
    pub fn ignores(&self, objects: &Objects, changes: &Changes) -> bool {
        let Changes { services, endpoints, routes, grants, addresses, .. } = changes;
        let named = [services, endpoints].into_iter().any(|names| !names.is_empty());
        let claimed = |ip: &IpAddr| self.claims.at(*ip).next().is_some();
        !named
            && routes.is_empty()
            && grants.is_empty()
            && !addresses.iter().any(claimed)
            && self.known.shadows_of(changes).is_empty()
            && self.of_namespaces(objects, changes).is_empty()
    }

    /// Services whose endpoints are frontends, with routes or a label, in Namespaces where something
    /// changed that decides whose endpoints are whose.
    fn of_namespaces(&self, objects: &Objects, changes: &Changes) -> Vec<ObjectName> {
        let namespaces = changes.namespaces.iter();
        let services = namespaces.flat_map(|namespace| {
            let first = ObjectName { namespace: namespace.clone(), name: String::new() };
            let services = objects.services.range(first..);
            services.take_while(move |(name, _)| name.namespace == *namespace)
        });
        let concerned = services.filter(|(name, service)| {
            let wanted =
                self.attached.contains_key(*name) || service.capture == CaptureLabel::Enabled;
            wanted && service.has_endpoint_frontends()
        });
        concerned.map(|(name, _)| name.clone()).collect()
    }

    /// The routes that changed, that lead to a Service that did, or whose endpoints may be used
    /// otherwise than before, or that need the consent of a namespace whose grants did.
    fn stale_routes(&mut self, changes: &Changes) -> BTreeSet<RouteName> {
        let mut stale = changes.routes.clone();
        let mut backends = changes.services.clone();
        backends.extend(changes.endpoints.iter().cloned());
        backends.extend(self.known.shadows_of(changes));
        for service in &backends {
            self.known.forget(service);
            stale.extend(self.leading.get(service).into_iter().flatten().cloned());
        }
        for namespace in &changes.grants {
            let foreign = self.routes.iter().filter(|(route, compiled)| {
                let mut backends = compiled.backends.iter();
                route.object.namespace != *namespace
                    && backends.any(|backend| backend.namespace == *namespace)
            });
            stale.extend(foreign.map(|(route, _)| route.clone()));
        }
        stale
    }

    /// Compiles a route, or forgets one that is gone. Returns the Services that it is, or was,
    /// attached to.
    fn recompile(
        &mut self,
        guard: &Guard<'_>,
        objects: &Objects,
        name: &RouteName,
    ) -> BTreeSet<ObjectName> {
        let old = self.routes.remove(name);
        let mut parents = BTreeSet::new();
        if let Some(mut old) = old {
            unlink(&mut self.attached, &old.parents, name);
            unlink(&mut self.leading, &old.backends, name);
            for used in &old.uses {
                let mut others = self.leading.get(&used.0).into_iter().flatten();
                let in_use = |other| self.routes.get(other).is_some_and(|o| o.uses.contains(used));
                if !others.any(in_use) {
                    self.known.drop(used);
                }
            }
            parents.append(&mut old.parents);
        }
        if let Some(route) = objects.routes.get(name) {
            let compiled = compile(guard, &mut self.known, route);
            link(&mut self.attached, &compiled.parents, name);
            link(&mut self.leading, &compiled.backends, name);
            parents.extend(compiled.parents.iter().cloned());
            self.routes.insert(name.clone(), compiled);
        }
        parents
    }

    /// Gathers the rules at each port of a Service again, and notes the addresses that it has or
    /// had. What it had before has room first.
    fn reattach(
        &mut self,
        guard: &Guard<'_>,
        objects: &Objects,
        name: &ObjectName,
        touched: &mut BTreeSet<SocketAddr>,
    ) {
        let old = self.ports.remove(name).unwrap_or_default();
        for (address, claim) in old.iter().flat_map(|port| &port.claims) {
            self.claims.remove(*address, claim);
            touched.insert(*address);
        }
        let service = objects.services.get(name);
        let had: BTreeSet<_> = old.iter().flat_map(|port| port.claims.keys()).copied().collect();
        let mut ports =
            service.map_or_else(Vec::new, |service| self.attach(guard, objects, service));
        let mut room = self.claims.room(&self.policy, &name.namespace);
        let wanted: usize = ports.iter().map(|port| port.claims.len()).sum();
        if wanted > room {
            let wanted = ports.iter().flat_map(|port| port.claims.keys());
            let kept = wanted.filter(|address| had.contains(address)).count();
            room = room.saturating_sub(kept);
            for port in &mut ports {
                let before = port.claims.len();
                port.claims.retain(|address, _| {
                    let newcomer = !had.contains(address);
                    let admitted = !newcomer || room > 0;
                    room -= usize::from(newcomer && admitted);
                    admitted
                });
                port.without_room = before - port.claims.len();
            }
        }
        for (address, claim) in ports.iter().flat_map(|port| &port.claims) {
            self.claims.insert(*address, claim);
            touched.insert(*address);
        }
        self.without_room.retain(|(_, other)| other != name);
        if let Some(service) = service.filter(|_| ports.iter().any(|port| port.without_room > 0)) {
            self.without_room.insert((age(service), name.clone()));
        }
        if !ports.is_empty() {
            self.ports.insert(name.clone(), ports);
        }
    }

    /// Gives the room that has become free to those who wait, the oldest first. Returns who got any.
    fn admit(
        &mut self,
        guard: &Guard<'_>,
        objects: &Objects,
        touched: &mut BTreeSet<SocketAddr>,
    ) -> Vec<ObjectName> {
        let waiting: Vec<_> = self.without_room.iter().map(|(_, name)| name.clone()).collect();
        let mut admitted = Vec::new();
        for name in waiting {
            if self.claims.room(&self.policy, &name.namespace) > 0 {
                self.reattach(guard, objects, &name, touched);
                admitted.push(name);
            }
        }
        admitted
    }

    fn attach(&self, guard: &Guard<'_>, objects: &Objects, service: &Service) -> Vec<PortRoutes> {
        let name = &service.name;
        if guard.service(service).is_some() {
            return Vec::new();
        }
        let mut attachments = BTreeMap::new();
        for route in self.attached.get(name).into_iter().flatten() {
            let (Some(compiled), Some(route)) = (self.routes.get(route), objects.routes.get(route))
            else {
                continue;
            };
            for parent in route.parents.iter().filter(|parent| parent.service == *name) {
                let Ok(ports) = attach::ports(guard, objects, parent) else { continue };
                for port in ports {
                    attachments
                        .entry(port.port)
                        .or_insert_with(|| Attachment::new(name, port))
                        .add(route, &compiled.rules);
                }
            }
        }
        let ahead = service.capture == CaptureLabel::Enabled;
        for port in service.ports.iter().filter(|port| ahead && port.tcp) {
            attachments.entry(port.port).or_insert_with(|| Attachment::new(name, port));
        }
        let ports = attachments.into_iter().map(|(number, attachment)| {
            let shown = Arc::new(ServicePort {
                namespace: name.namespace.clone(),
                name: name.name.clone(),
                port: number,
            });
            let at = (attachment.port, &shown);
            let claims = attach::claims(guard, service, at, attachment.routed());
            let Tables { producer, consumers, displaced } = attachment.tables();
            let (claim_status, without_room) = (ClaimStatus::default(), 0);
            PortRoutes {
                service: shown,
                claims,
                without_room,
                claim_status,
                producer,
                consumers,
                displaced,
                ahead,
            }
        });
        ports.collect()
    }

    fn frontend(&self, guard: &Guard<'_>, address: SocketAddr) -> Option<ResolvedFrontend> {
        let claim = self.claims.owner(guard, address)?;
        let owner = &claim.service;
        let service = ObjectName { namespace: owner.namespace.clone(), name: owner.name.clone() };
        let port = self.port(&service, owner.port)?;
        let mut frontend = ResolvedFrontend {
            address,
            service: Arc::clone(&port.service),
            producer: port.producer.clone(),
            consumers: port.consumers.clone(),
            ahead: port.ahead,
        };
        if claim.right == Right::Endpoint {
            let tables = frontend.producer.iter_mut().chain(frontend.consumers.values_mut());
            tables.for_each(RouteTable::for_another_address);
        }
        Some(frontend)
    }

    /// The port of a Service, if routes are attached to it, or it is captured ahead of them.
    pub(super) fn port(&self, service: &ObjectName, number: u16) -> Option<&PortRoutes> {
        self.ports.get(service)?.iter().find(|port| port.service.port == number)
    }

    /// Endpoints that are used for nothing, by why: of frontends, and of shadows.
    #[must_use]
    pub fn refusals(&self) -> Refusals {
        let mut refusals = Refusals::default();
        for port in self.ports.values().flatten() {
            let ClaimStatus { refused, without_room, lost, .. } = &port.claim_status;
            let mut add = |label, count: usize| {
                if count > 0 {
                    *refusals.frontends.entry(label).or_default() += count as u64;
                }
            };
            refused.iter().for_each(|(refusal, (_, count))| add(refusal.label(), *count));
            add("no_room", *without_room);
            add("conflict", lost.as_ref().map_or(0, |lost| lost.count));
        }
        for refusal in self.known.refused_shadows() {
            *refusals.shadows.entry(refusal.label()).or_default() += 1;
        }
        refusals
    }
}

/// How many addresses are not used, by why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusals {
    /// Addresses that are no frontends, though a Service claims them.
    pub frontends: BTreeMap<&'static str, u64>,
    /// Endpoints of shadows that get no copies.
    pub shadows: BTreeMap<&'static str, u64>,
}

/// The oldest first, so that at a start the oldest have room; what has gone frees its own first.
fn by_age(objects: &Objects, services: BTreeSet<ObjectName>) -> BTreeSet<(i64, ObjectName)> {
    let age = |name: &ObjectName| objects.services.get(name).map_or(i64::MIN, age);
    services.into_iter().map(|name| (age(&name), name)).collect()
}

/// Of what has no time the newest that there can be.
fn age(service: &Service) -> i64 {
    service.created.unwrap_or(i64::MAX)
}

fn has_endpoint_frontends(objects: &Objects, service: &ObjectName) -> bool {
    objects.services.get(service).is_some_and(Service::has_endpoint_frontends)
}

fn link(links: &mut Links, services: &BTreeSet<ObjectName>, route: &RouteName) {
    for service in services {
        links.entry(service.clone()).or_default().insert(route.clone());
    }
}

fn unlink(links: &mut Links, services: &BTreeSet<ObjectName>, route: &RouteName) {
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

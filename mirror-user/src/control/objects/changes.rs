//! What changed among the objects, so that only what depends on it is resolved again.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
};

use super::{
    EndpointSlice, Kind, Object, Objects, Service,
    addresses::{cluster_ips, pod_ips},
};
use crate::model::{NamespaceRow, ObjectName, PodRow, RouteName};

/// The Service of the API server, whose endpoints are its own addresses.
const API_SERVER: (&str, &str) = ("default", "kubernetes");

/// Names of what changed; resolved by [`crate::control::resolve::Resolver`], but for what concerns
/// [`crate::selection`].
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// Services that appeared, changed or went.
    pub services: BTreeSet<ObjectName>,
    /// Services whose EndpointSlices did.
    pub endpoints: BTreeSet<ObjectName>,
    /// Routes that did.
    pub routes: BTreeSet<RouteName>,
    /// Namespaces whose ReferenceGrants did.
    pub grants: BTreeSet<String>,
    /// Namespaces whose consents did ([`super::Consent`]), or known Pods of which have other
    /// addresses than before.
    pub namespaces: BTreeSet<String>,
    /// Addresses that belong to others than before ([`super::Addresses`], and the endpoints of the
    /// API server), in canonical form.
    pub addresses: BTreeSet<IpAddr>,
    /// Whether Pods or Namespaces did.
    pub pods: bool,
}

impl Changes {
    /// Everything there is.
    #[must_use]
    pub fn all(objects: &Objects) -> Self {
        Self {
            services: objects.services.keys().cloned().collect(),
            endpoints: objects.slices.services().cloned().collect(),
            routes: objects.routes.keys().cloned().collect(),
            grants: objects.grants.keys().map(|name| name.namespace.clone()).collect(),
            // Who resolves everything looks at these as they are.
            namespaces: BTreeSet::new(),
            addresses: BTreeSet::new(),
            pods: true,
        }
    }

    /// Whether nothing changed that is resolved: what concerns the selection of pods alone is not.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self { services, endpoints, routes, grants, namespaces, addresses, pods: _ } = self;
        services.is_empty()
            && endpoints.is_empty()
            && routes.is_empty()
            && grants.is_empty()
            && namespaces.is_empty()
            && addresses.is_empty()
    }

    /// The Namespace of each change.
    pub fn namespaces_named(&self) -> impl Iterator<Item = &str> {
        let Self { services, endpoints, routes, grants, namespaces, .. } = self;
        let routes = routes.iter().map(|route| &route.object);
        let objects = services.iter().chain(endpoints).chain(routes).map(|name| &name.namespace);
        objects.chain(grants).chain(namespaces).map(String::as_str)
    }

    /// How many changes there are of each Namespace.
    #[must_use]
    pub fn by_namespace(&self) -> HashMap<String, usize> {
        let mut counts: HashMap<String, usize> = HashMap::new();
        for namespace in self.namespaces_named() {
            match counts.get_mut(namespace) {
                Some(count) => *count += 1,
                None => drop(counts.insert(namespace.to_owned(), 1)),
            }
        }
        counts
    }

    /// Takes out what `goes` says of its Namespace, and what is of none.
    #[must_use]
    pub fn take(&mut self, goes: impl Fn(&str) -> bool) -> Self {
        let objects = |names: &mut BTreeSet<ObjectName>| {
            names.extract_if(.., |name| goes(&name.namespace)).collect()
        };
        let of = |names: &mut BTreeSet<String>| names.extract_if(.., |name| goes(name)).collect();
        Self {
            services: objects(&mut self.services),
            endpoints: objects(&mut self.endpoints),
            routes: self.routes.extract_if(.., |route| goes(&route.object.namespace)).collect(),
            grants: of(&mut self.grants),
            namespaces: of(&mut self.namespaces),
            addresses: std::mem::take(&mut self.addresses),
            pods: std::mem::take(&mut self.pods),
        }
    }

    fn slice(&mut self, slice: &EndpointSlice) {
        let Some(owner) = slice.owner() else { return };
        if owner.is_api_server() {
            let EndpointSlice { ready, terminating, unready, .. } = slice;
            let all = ready.iter().chain(terminating).chain(unready);
            self.addresses.extend(all.map(|endpoint| endpoint.ip.to_canonical()));
        }
        self.endpoints.insert(owner);
    }
}

impl ObjectName {
    /// Whether a Service of this name is the API server's (default/kubernetes).
    #[must_use]
    pub fn is_api_server(&self) -> bool {
        (self.namespace.as_str(), self.name.as_str()) == API_SERVER
    }

    /// The API server's Service.
    #[must_use]
    pub fn api_server() -> Self {
        let (namespace, name) = API_SERVER;
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl Objects {
    /// Adds or replaces an object, and notes what that changes: nothing, when the object says what
    /// it said before.
    pub fn apply(&mut self, object: Object, changes: &mut Changes) {
        match object {
            Object::Service(service) => self.apply_service(service, changes),
            Object::Slice(slice) => {
                if self.slices.find(&slice.name) != Some(&slice) {
                    changes.slice(&slice);
                    if let Some(old) = self.slices.insert(slice) {
                        changes.slice(&old);
                    }
                }
            }
            Object::Route(mut route) => {
                let name = route.name.clone();
                if let Some(old) = self.routes.get(&name) {
                    route.keep_rules_of(old);
                }
                if self.routes.get(&name) != Some(&route) {
                    self.misgrouped.remove(&name);
                    self.routes.insert(name.clone(), route);
                    changes.routes.insert(name);
                }
            }
            Object::Grant(grant) => {
                let name = grant.name.clone();
                if self.grants.get(&name) != Some(&grant) {
                    changes.grants.insert(name.namespace.clone());
                    self.grants.insert(name, grant);
                }
            }
            // It may have had a Service among its parents before.
            Object::GatewayRoute { name, misgrouped } => {
                let known = self.misgrouped.get(&name).map(Vec::as_slice).unwrap_or_default();
                if self.routes.contains_key(&name) || known != misgrouped {
                    self.remove_route(&name, changes);
                    if !misgrouped.is_empty() {
                        changes.routes.insert(name.clone());
                        self.misgrouped.insert(name, misgrouped);
                    }
                }
            }
            Object::Pod(pod) => {
                if self.pods.get(&pod.name) != Some(&pod) {
                    let old = self.pods.insert(pod.name.clone(), pod.clone());
                    self.move_pod(old.as_ref(), Some(&pod), changes);
                }
            }
            Object::Namespace(row) => self.apply_namespace(row, changes),
            Object::Node(row) => {
                if self.nodes.get(&row.name) != Some(&row) {
                    self.remove(Kind::Node, &row.name, changes);
                    self.addresses.add_node(&row);
                    changes.addresses.extend(row.addresses.iter().map(IpAddr::to_canonical));
                    self.nodes.insert(row.name.clone(), row);
                }
            }
            Object::Unread { .. } => {}
        }
    }

    fn apply_service(&mut self, service: Service, changes: &mut Changes) {
        let name = service.name.clone();
        if self.services.get(&name) != Some(&service) {
            self.remove(Kind::Service, &name, changes);
            self.addresses.add_service(&service);
            changes.addresses.extend(cluster_ips(&service));
            self.services.insert(name.clone(), service);
            changes.services.insert(name);
        }
    }

    fn apply_namespace(&mut self, row: NamespaceRow, changes: &mut Changes) {
        let known = self.namespaces.get(&row.name);
        if known != Some(&row) {
            if known.map(NamespaceRow::consents).unwrap_or_default() != row.consents() {
                changes.namespaces.insert(row.name.name.clone());
            }
            self.namespaces.insert(row.name.clone(), row);
            changes.pods = true;
        }
    }

    /// Removes an object, if it is there.
    pub fn remove(&mut self, kind: Kind, name: &ObjectName, changes: &mut Changes) {
        match kind {
            Kind::Service => {
                if let Some(old) = self.services.remove(name) {
                    self.addresses.remove_service(&old);
                    changes.addresses.extend(cluster_ips(&old));
                    changes.services.insert(old.name);
                }
            }
            Kind::Slice => {
                if let Some(old) = self.slices.remove(name) {
                    changes.slice(&old);
                }
            }
            Kind::Route(kind) => self.remove_route(&kind.named(name.clone()), changes),
            Kind::Grant => {
                changes.grants.extend(self.grants.remove(name).map(|old| old.name.namespace));
            }
            Kind::Pod => {
                if let Some(old) = self.pods.remove(name) {
                    self.move_pod(Some(&old), None, changes);
                }
            }
            Kind::Namespace => {
                if let Some(old) = self.namespaces.remove(name) {
                    if old.consents() != Default::default() {
                        changes.namespaces.insert(old.name.name);
                    }
                    changes.pods = true;
                }
            }
            Kind::Node => {
                if let Some(old) = self.nodes.remove(name) {
                    self.addresses.remove_node(&old);
                    changes.addresses.extend(old.addresses.iter().map(IpAddr::to_canonical));
                }
            }
        }
    }

    /// Removes a route, if it is there.
    pub fn remove_route(&mut self, name: &RouteName, changes: &mut Changes) {
        let (route, misgrouped) = (self.routes.remove(name), self.misgrouped.remove(name));
        if route.is_some() || misgrouped.is_some() {
            changes.routes.insert(name.clone());
        }
    }

    /// A Pod came, changed or went.
    fn move_pod(&mut self, old: Option<&PodRow>, new: Option<&PodRow>, changes: &mut Changes) {
        changes.pods = true;
        let ips = |pod: Option<&PodRow>| pod.map(|pod| pod_ips(pod).collect::<Vec<_>>());
        let (before, after) = (ips(old), ips(new));
        if before == after {
            return;
        }
        old.into_iter().for_each(|pod| self.addresses.remove_pod(pod));
        new.into_iter().for_each(|pod| self.addresses.add_pod(pod));
        changes.addresses.extend(before.into_iter().chain(after).flatten());
        changes.namespaces.extend(old.or(new).map(|pod| pod.name.namespace.clone()));
    }

    /// The names of all objects of a kind.
    pub fn names(&self, kind: Kind) -> Box<dyn Iterator<Item = &ObjectName> + '_> {
        match kind {
            Kind::Service => Box::new(self.services.keys()),
            Kind::Slice => Box::new(self.slices.names()),
            Kind::Route(kind) => {
                let routes = self.routes.keys().chain(self.misgrouped.keys());
                let routes = routes.filter(move |route| route.kind == kind);
                Box::new(routes.map(|route| &route.object))
            }
            Kind::Grant => Box::new(self.grants.keys()),
            Kind::Pod => Box::new(self.pods.keys()),
            Kind::Namespace => Box::new(self.namespaces.keys()),
            Kind::Node => Box::new(self.nodes.keys()),
        }
    }
}

//! What changed among the objects, so that only what depends on it is resolved anew.

use std::collections::BTreeSet;

use super::{Kind, Object, ObjectName, Objects};

/// Names of what changed; resolved by [`crate::control::resolve::Resolver`], but for what concerns
/// [`crate::enrol`].
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// Services that appeared, changed or went.
    pub services: BTreeSet<ObjectName>,
    /// Services whose EndpointSlices did.
    pub endpoints: BTreeSet<ObjectName>,
    /// HTTPRoutes that did.
    pub routes: BTreeSet<ObjectName>,
    /// Namespaces whose ReferenceGrants did.
    pub grants: BTreeSet<String>,
    /// Whether Pods or Namespaces did.
    pub enrolment: bool,
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
            enrolment: true,
        }
    }

    /// Whether nothing changed that is resolved: what concerns the enrolment alone is not.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self { services, endpoints, routes, grants, enrolment: _ } = self;
        services.is_empty() && endpoints.is_empty() && routes.is_empty() && grants.is_empty()
    }
}

impl Objects {
    /// Adds or replaces an object, and notes what that changes: nothing, when the object says what
    /// it said before.
    pub fn apply(&mut self, object: Object, changes: &mut Changes) {
        match object {
            Object::Service(service) => {
                let name = service.name.clone();
                if self.services.get(&name) != Some(&service) {
                    self.services.insert(name.clone(), service);
                    changes.services.insert(name);
                }
            }
            Object::Slice(slice) => {
                if self.slices.find(&slice.name) != Some(&slice) {
                    changes.endpoints.extend(slice.owner());
                    let old = self.slices.insert(slice);
                    changes.endpoints.extend(old.and_then(|old| old.owner()));
                }
            }
            Object::Route(route) => {
                let name = route.name.clone();
                if self.routes.get(&name) != Some(&route) {
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
            // It may have been ours before.
            Object::GatewayRoute(name) => self.remove(Kind::Route, &name, changes),
            Object::Pod(pod) => {
                if self.pods.get(&pod.name) != Some(&pod) {
                    self.pods.insert(pod.name.clone(), pod);
                    changes.enrolment = true;
                }
            }
            Object::Namespace(row) => {
                if self.namespaces.get(&row.name) != Some(&row) {
                    self.namespaces.insert(row.name.clone(), row);
                    changes.enrolment = true;
                }
            }
            Object::Unread { .. } => {}
        }
    }

    /// Removes an object, if it is there.
    pub fn remove(&mut self, kind: Kind, name: &ObjectName, changes: &mut Changes) {
        match kind {
            Kind::Service => {
                changes.services.extend(self.services.remove(name).map(|old| old.name));
            }
            Kind::Slice => {
                let old = self.slices.remove(name);
                changes.endpoints.extend(old.and_then(|old| old.owner()));
            }
            Kind::Route => changes.routes.extend(self.routes.remove(name).map(|old| old.name)),
            Kind::Grant => {
                changes.grants.extend(self.grants.remove(name).map(|old| old.name.namespace));
            }
            Kind::Pod => changes.enrolment |= self.pods.remove(name).is_some(),
            Kind::Namespace => changes.enrolment |= self.namespaces.remove(name).is_some(),
        }
    }

    /// The names of all objects of a kind.
    pub fn names(&self, kind: Kind) -> Box<dyn Iterator<Item = &ObjectName> + '_> {
        match kind {
            Kind::Service => Box::new(self.services.keys()),
            Kind::Slice => Box::new(self.slices.names()),
            Kind::Route => Box::new(self.routes.keys()),
            Kind::Grant => Box::new(self.grants.keys()),
            Kind::Pod => Box::new(self.pods.keys()),
            Kind::Namespace => Box::new(self.namespaces.keys()),
        }
    }
}

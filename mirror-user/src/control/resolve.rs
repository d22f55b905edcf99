//! Resolve: the objects of one moment in; frontends with compiled routes, conditions of the
//! routes and warnings out. Pure: no clock, no client, no runtime; the same objects always
//! resolve to the same result.
//!
//! Semantics (GEP-1426, GAMMA): routes attach to Services. A route in the Service's namespace is
//! a producer route and applies to all clients; one in another namespace is a consumer route and
//! replaces the producer's for clients of the route's namespace. `hostnames` have no effect. An
//! attached route replaces the Service's implicit one: a request that no rule matches gets 404.
//! A Service that is captured ahead of its routes keeps the implicit one until then.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use self::{attach::Unattachable, guard::Guard};
pub use self::{
    condition::Condition,
    deny::{Denied, DenyList},
    diagnostics::misgrouped_parents,
    guard::AddressRefusal,
    policy::{AddressPolicy, Authors, Cidr, CidrError, NAMESPACE_FRONTENDS},
    resolver::{FrontendChanges, Refusals, Resolver},
};
use super::objects::{Changes, Objects, ParentRef};
use crate::{
    model::RouteName,
    route::{EndpointChoice, RouteTable, ServicePort, TapObstacle, TapSubject},
};

mod attach;
mod claims;
mod compile;
mod condition;
mod deny;
mod diagnostics;
mod guard;
mod policy;
mod resolver;
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

impl ResolvedFrontend {
    /// Why connections to it cannot be tapped; None if they can. `choice`: who chooses the endpoints.
    pub fn tap_obstacle(&self, choice: EndpointChoice) -> Option<TapObstacle> {
        let subject = TapSubject {
            service: &self.service,
            address: self.address,
            producer: self.producer.as_ref(),
            ahead: self.ahead,
        };
        subject.obstacle(self.consumers.values(), choice)
    }
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
    /// As text.
    pub message: String,
}

/// Compiles the routes and attaches them to the frontends of their Services, all at once;
/// [`Resolver`] does it step by step.
#[must_use]
pub fn resolve(policy: &AddressPolicy, objects: &Objects) -> Resolved {
    let mut resolver = Resolver::new(policy.clone());
    let frontends = resolver.update(objects, &Changes::all(objects));
    let mut frontends: Vec<_> = frontends.into_values().flatten().collect();
    frontends.sort_by_cached_key(|frontend| {
        let ServicePort { namespace, name, port } = &*frontend.service;
        (namespace.clone(), name.clone(), *port, frontend.address)
    });
    Resolved {
        frontends,
        conditions: resolver.conditions(objects),
        warnings: resolver.warnings(objects),
    }
}

/// Why no route can attach to the parent, as text; None if one can.
#[must_use]
pub fn unattachable(
    policy: &AddressPolicy,
    objects: &Objects,
    parent: &ParentRef,
) -> Option<String> {
    let guard = Guard::new(policy, objects);
    attach::ports(&guard, objects, parent).err().map(Unattachable::into_message)
}

//! What a resolver has to say of the objects: conditions of each route and parent, and warnings.

use std::collections::BTreeSet;

use super::{Condition, Resolver, RouteStatus, Warning, attach, compile::Compiled};
use crate::{
    control::objects::{HttpRoute, ObjectName, Objects, ParentRef},
    route::RouteName,
};

impl Resolver {
    /// One entry for each route and parent; `objects` are those of the last update.
    #[must_use]
    pub fn conditions(&self, objects: &Objects) -> Vec<RouteStatus> {
        let routes = self.routes.iter();
        let routes = routes
            .filter_map(|(name, compiled)| objects.routes.get(name).map(|route| (route, compiled)));
        let statuses = routes.flat_map(|(route, compiled)| {
            let parents = route.parents.iter();
            parents.map(move |parent| self.status(objects, route, compiled, parent))
        });
        statuses.collect()
    }

    /// What a user should know, though nothing is refused; in order, each once.
    #[must_use]
    pub fn warnings(&self, objects: &Objects) -> Vec<Warning> {
        let mut warnings: BTreeSet<_> = objects.routes.values().flat_map(of_route).collect();
        warnings.extend(objects.slices.unowned().map(|slice| Warning {
            object: format!("EndpointSlice {slice}"),
            message: "belongs to no Service: add the label kubernetes.io/service-name".into(),
        }));
        let labels = self.odd_labels.iter().filter_map(|name| {
            let message = objects.services.get(name)?.capture.fault()?;
            Some(Warning { object: format!("Service {name}"), message })
        });
        warnings.extend(labels);
        let backends = self.routes.values().flat_map(|route| &route.found);
        warnings.extend(backends.filter(|name| !objects.slices.any(name)).map(without_slices));
        for (address, claims) in &self.claims {
            let mut claims = claims.iter();
            let Some((owner, number)) = claims.next() else { continue };
            warnings.extend(claims.map(|(other, _)| Warning {
                object: format!("Service {other}"),
                message: format!(
                    "{address} already belongs to {owner}:{number}: connections to it follow \
                     that Service's routes"
                ),
            }));
        }
        warnings.into_iter().collect()
    }

    fn status(
        &self,
        objects: &Objects,
        route: &HttpRoute,
        compiled: &Compiled,
        parent: &ParentRef,
    ) -> RouteStatus {
        let accepted = match attach::ports(objects, parent) {
            Err(reason) => Condition::no_parent(reason),
            Ok(ports) => {
                // A route that is attached only where others have every address is not in force.
                let owners = ports.iter().map(|p| self.owner_instead(&parent.service, p.port));
                match owners.collect::<Option<Vec<_>>>().as_deref() {
                    Some([other, ..]) => Condition::conflicted(&parent.service, other),
                    _ => Condition::accepted(route),
                }
            }
        };
        RouteStatus {
            route: RouteName::from(&route.name),
            parent: parent.clone(),
            accepted,
            resolved_refs: compiled.refs.clone(),
            partially_invalid: compiled.partial.clone(),
        }
    }
}

fn without_slices(service: &ObjectName) -> Warning {
    Warning {
        object: format!("Service {service}"),
        message: "is a backend, and no EndpointSlice belongs to it: requests to it are answered \
                  with 503"
            .into(),
    }
}

fn of_route(route: &HttpRoute) -> Vec<Warning> {
    let warning = |message| Warning { object: format!("HTTPRoute {}", route.name), message };
    let hostnames = (!route.hostnames.is_empty()).then(|| {
        "hostnames do not select when the parent is a Service (GEP-1426); remove them".to_owned()
    });
    let empty = route.rules.iter().enumerate().filter(|(_, rule)| rule.backends.is_empty());
    let empty = empty.map(|(at, _)| {
        format!("spec.rules[{at}] has no backendRefs: matching requests are answered with 500")
    });
    hostnames.into_iter().chain(empty).map(warning).collect()
}

//! Compiling a route: references are looked up, once for each Service port.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use super::{Condition, Warning, lookup::Slices};
use crate::{
    control::objects::{HttpRoute, ObjectName, Objects, RouteFilter, RouteRule, TargetRef},
    route::{
        AppProtocol, Backend, BackendRef, Backends, Filter, InvalidBackend, Mirror, RouteName,
        Rule, RuleEntry, ServicePort,
    },
};

pub(super) struct Compiler<'o> {
    objects: &'o Objects,
    slices: &'o Slices<'o>,
    backends: HashMap<(ObjectName, u16), Result<Arc<Backend>, InvalidBackend>>,
    warnings: BTreeSet<Warning>,
}

pub(super) struct Compiled {
    pub(super) rules: Vec<RuleEntry>,
    pub(super) refs: Condition,
    pub(super) partial: Option<Condition>,
}

impl<'o> Compiler<'o> {
    pub(super) fn new(objects: &'o Objects, slices: &'o Slices<'o>) -> Self {
        let unlabelled = objects.slices.values().filter(|slice| slice.service.is_none());
        let warnings = unlabelled.map(|slice| Warning {
            object: format!("EndpointSlice {}", slice.name),
            message: "belongs to no Service: add the label kubernetes.io/service-name".into(),
        });
        Self { objects, warnings: warnings.collect(), slices, backends: HashMap::new() }
    }

    /// All rules, and the conditions of their references.
    pub(super) fn route(&mut self, route: &HttpRoute) -> Compiled {
        let mut faults = Vec::new();
        let rules = route.rules.iter().enumerate();
        let rules = rules.map(|(index, rule)| {
            let mut here = Vec::new();
            let compiled = Arc::new(self.rule(route, index, rule, &mut here));
            faults.push(here);
            RuleEntry { rule: compiled, matches: rule.matches.clone(), created: route.created }
        });
        let rules = rules.collect();
        let refs = Condition::resolved_refs(faults.iter().flatten());
        Compiled { rules, refs, partial: Condition::partially_invalid(&faults) }
    }

    /// What there was to warn of.
    pub(super) fn finish(self) -> Vec<Warning> {
        self.warnings.into_iter().collect()
    }

    fn rule(
        &mut self,
        route: &HttpRoute,
        index: usize,
        rule: &RouteRule,
        faults: &mut Vec<InvalidBackend>,
    ) -> Rule {
        let namespace = route.name.namespace.as_str();
        let filters = self.filters(namespace, &rule.filters, faults);
        let refs = rule.backends.iter().map(|backend| BackendRef {
            weight: backend.weight,
            filters: self.filters(namespace, &backend.filters, faults),
            target: self.target(namespace, &backend.target, faults),
        });
        let backends = Backends::new(refs.collect());
        Rule {
            route: RouteName::from(&route.name),
            index,
            name: rule.name.clone(),
            filters,
            backends,
            timeouts: rule.timeouts,
        }
    }

    fn filters(
        &mut self,
        namespace: &str,
        filters: &[RouteFilter],
        faults: &mut Vec<InvalidBackend>,
    ) -> Vec<Filter> {
        let compile = |filter: &RouteFilter| match filter {
            RouteFilter::RequestHeaders(modifier) => Filter::RequestHeaders(modifier.clone()),
            RouteFilter::ResponseHeaders(modifier) => Filter::ResponseHeaders(modifier.clone()),
            RouteFilter::Mirror(target, share) => Filter::Mirror(Mirror {
                target: self.target(namespace, target, faults),
                share: *share,
            }),
        };
        filters.iter().map(compile).collect()
    }

    fn target(
        &mut self,
        namespace: &str,
        target: &TargetRef,
        faults: &mut Vec<InvalidBackend>,
    ) -> Result<Arc<Backend>, InvalidBackend> {
        let found = match target {
            TargetRef::Other(kind) => Err(InvalidBackend::Kind(kind.clone())),
            // Permission first: a route learns nothing of a namespace that grants it nothing.
            TargetRef::Service(name, _) if !self.permitted(namespace, name) => {
                Err(InvalidBackend::NotPermitted(name.to_string()))
            }
            TargetRef::Service(name, port) => self.backend(name, *port),
        };
        faults.extend(found.as_ref().err().cloned());
        found
    }

    fn permitted(&self, namespace: &str, service: &ObjectName) -> bool {
        service.namespace == namespace
            || self.objects.grants.values().any(|grant| grant.permits(namespace, service))
    }

    fn backend(&mut self, name: &ObjectName, port: u16) -> Result<Arc<Backend>, InvalidBackend> {
        if let Some(known) = self.backends.get(&(name.clone(), port)) {
            return known.clone();
        }
        let found = self.look_up(name, port).map(Arc::new);
        self.backends.insert((name.clone(), port), found.clone());
        found
    }

    fn look_up(&mut self, name: &ObjectName, number: u16) -> Result<Backend, InvalidBackend> {
        let service = self.objects.services.get(name);
        let service = service.ok_or_else(|| InvalidBackend::NoService(name.to_string()))?;
        let port = service.ports.iter().find(|port| port.tcp && port.port == number);
        let port =
            port.ok_or_else(|| InvalidBackend::NoPort { service: name.to_string(), port: number })?;
        let protocol = protocol(port.app_protocol.as_deref()).map_err(|protocol| {
            InvalidBackend::Protocol { service: name.to_string(), port: number, protocol }
        })?;
        if !self.slices.any(name) {
            self.warnings.insert(Warning {
                object: format!("Service {name}"),
                message: "is a backend, and no EndpointSlice belongs to it: requests to it are \
                          answered with 503"
                    .into(),
            });
        }
        let endpoints = self.slices.endpoints(name, port);
        Ok(Backend {
            service: Arc::new(ServicePort {
                namespace: name.namespace.clone(),
                name: name.name.clone(),
                port: number,
            }),
            protocol,
            endpoints: endpoints.into_iter().collect(),
        })
    }
}

/// What `appProtocol` means (KEP-3726, and the names that meshes gave cleartext HTTP/2 before
/// it). Names that say nothing of HTTP leave it open; those that need TLS towards the backend
/// are handed back.
fn protocol(name: Option<&str>) -> Result<AppProtocol, String> {
    match name.unwrap_or_default() {
        "kubernetes.io/h2c" | "h2c" | "http2" | "grpc" => Ok(AppProtocol::H2c),
        "kubernetes.io/ws" => Ok(AppProtocol::WebSocket),
        tls @ ("kubernetes.io/wss" | "https" | "tls") => Err(tls.into()),
        _ => Ok(AppProtocol::Unspecified),
    }
}

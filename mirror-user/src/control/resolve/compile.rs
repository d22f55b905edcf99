//! Compiling routes: the rules of one route in; the rules of the data path and the conditions of
//! their references out. Backends are looked up once and shared by all rules that lead there.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use super::Condition;
use crate::{
    control::objects::{HttpRoute, ObjectName, Objects, RouteFilter, RouteRule, TargetRef},
    route::{
        AppProtocol, Backend, BackendRef, Backends, Filter, InvalidBackend, Mirror, RouteName,
        Rule, RuleEntry, ServicePort,
    },
};

/// The backends of a Service, by port: each as the rules share it, or why it is none.
type Ports = HashMap<u16, Result<Arc<Backend>, InvalidBackend>>;

/// Backends that were looked up, until their Service changes.
#[derive(Debug, Default)]
pub(super) struct Known(HashMap<ObjectName, Ports>);

/// A route as it was last compiled.
#[derive(Debug)]
pub(super) struct Compiled {
    pub(super) rules: Vec<RuleEntry>,
    pub(super) refs: Condition,
    pub(super) partial: Option<Condition>,
    /// Services that it attaches to.
    pub(super) parents: BTreeSet<ObjectName>,
    /// Services that its rules lead to, whether they exist or not.
    pub(super) backends: BTreeSet<ObjectName>,
    /// Those of them that are backends indeed.
    pub(super) found: BTreeSet<ObjectName>,
}

impl Known {
    /// The Service, or its endpoints, changed.
    pub(super) fn forget(&mut self, service: &ObjectName) {
        self.0.remove(service);
    }

    fn find(
        &mut self,
        objects: &Objects,
        name: &ObjectName,
        port: u16,
    ) -> Result<Arc<Backend>, InvalidBackend> {
        if let Some(known) = self.0.get(name).and_then(|ports| ports.get(&port)) {
            return known.clone();
        }
        let found = look_up(objects, name, port).map(Arc::new);
        self.0.entry(name.clone()).or_default().insert(port, found.clone());
        found
    }
}

/// All rules of a route, and the conditions of their references.
pub(super) fn compile(objects: &Objects, known: &mut Known, route: &HttpRoute) -> Compiled {
    let mut compiler =
        Compiler { objects, known, route, backends: BTreeSet::new(), found: BTreeSet::new() };
    let mut faults = Vec::new();
    let rules = route.rules.iter().enumerate();
    let rules = rules.map(|(index, rule)| {
        let mut here = Vec::new();
        let compiled = Arc::new(compiler.rule(index, rule, &mut here));
        faults.push(here);
        RuleEntry { rule: compiled, matches: rule.matches.clone(), created: route.created }
    });
    let rules = rules.collect();
    let refs = Condition::resolved_refs(faults.iter().flatten());
    Compiled {
        rules,
        refs,
        partial: Condition::partially_invalid(&faults),
        parents: route.parents.iter().map(|parent| parent.service.clone()).collect(),
        backends: compiler.backends,
        found: compiler.found,
    }
}

struct Compiler<'c> {
    objects: &'c Objects,
    known: &'c mut Known,
    route: &'c HttpRoute,
    /// Services that were asked for.
    backends: BTreeSet<ObjectName>,
    /// Those that were found.
    found: BTreeSet<ObjectName>,
}

impl Compiler<'_> {
    fn rule(&mut self, index: usize, rule: &RouteRule, faults: &mut Vec<InvalidBackend>) -> Rule {
        let filters = self.filters(&rule.filters, faults);
        let refs = rule.backends.iter().map(|backend| BackendRef {
            weight: backend.weight,
            filters: self.filters(&backend.filters, faults),
            target: self.target(&backend.target, faults),
        });
        let backends = Backends::new(refs.collect());
        Rule {
            route: RouteName::from(&self.route.name),
            index,
            name: rule.name.clone(),
            filters,
            backends,
            timeouts: rule.timeouts,
        }
    }

    fn filters(
        &mut self,
        filters: &[RouteFilter],
        faults: &mut Vec<InvalidBackend>,
    ) -> Vec<Filter> {
        let compile = |filter: &RouteFilter| match filter {
            RouteFilter::RequestHeaders(modifier) => Filter::RequestHeaders(modifier.clone()),
            RouteFilter::ResponseHeaders(modifier) => Filter::ResponseHeaders(modifier.clone()),
            RouteFilter::Mirror(target, share) => {
                Filter::Mirror(Mirror { target: self.target(target, faults), share: *share })
            }
        };
        filters.iter().map(compile).collect()
    }

    fn target(
        &mut self,
        target: &TargetRef,
        faults: &mut Vec<InvalidBackend>,
    ) -> Result<Arc<Backend>, InvalidBackend> {
        let found = match target {
            TargetRef::Other(kind) => Err(InvalidBackend::Kind(kind.clone())),
            TargetRef::Service(name, port) => {
                self.backends.insert(name.clone());
                // Permission first: a route learns nothing of a namespace that grants it nothing.
                let found = match self.is_permitted(name) {
                    true => self.known.find(self.objects, name, *port),
                    false => Err(InvalidBackend::NotPermitted(name.to_string())),
                };
                self.found.extend(found.is_ok().then(|| name.clone()));
                found
            }
        };
        faults.extend(found.as_ref().err().cloned());
        found
    }

    fn is_permitted(&self, service: &ObjectName) -> bool {
        let namespace = &self.route.name.namespace;
        service.namespace == *namespace
            || self.objects.grants.values().any(|grant| grant.permits(namespace, service))
    }
}

fn look_up(objects: &Objects, name: &ObjectName, number: u16) -> Result<Backend, InvalidBackend> {
    let service = objects.services.get(name);
    let service = service.ok_or_else(|| InvalidBackend::NoService(name.to_string()))?;
    let port = service.ports.iter().find(|port| port.tcp && port.port == number);
    let port =
        port.ok_or_else(|| InvalidBackend::NoPort { service: name.to_string(), port: number })?;
    let protocol = protocol(port.app_protocol.as_deref()).map_err(|protocol| {
        InvalidBackend::Protocol { service: name.to_string(), port: number, protocol }
    })?;
    let service =
        ServicePort { namespace: name.namespace.clone(), name: name.name.clone(), port: number };
    let endpoints = objects.slices.endpoints(name, port).into_iter().collect();
    Ok(Backend { service: Arc::new(service), protocol, endpoints })
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

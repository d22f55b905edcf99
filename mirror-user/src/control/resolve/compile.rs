//! Compiling routes: the rules of one route in; the rules of the data path and the conditions of
//! their references out. Backends are looked up once and shared by all rules that lead there.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::SocketAddr,
    sync::Arc,
};

use super::{
    Condition,
    guard::{AddressRefusal, Guard, shadow_remedy},
};
use crate::{
    control::objects::{
        Changes, EndpointDetails, Objects, Port, Route, RouteFilter, RouteRule, RuleRefusal,
        ServiceAddress, TargetRef,
    },
    model::{ObjectName, RouteName},
    route::{
        AppProtocol, Backend, BackendRef, Backends, Filter, InvalidBackend, Mirror, Rule,
        RuleEntry, ServicePort,
    },
};

/// What a backend is for: copies do not go wherever requests go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Role {
    /// It gets requests, from the client's own network namespace.
    Primary,
    /// It gets copies, from the agent's.
    Shadow,
}

/// What was found where a reference leads.
#[derive(Clone, Debug)]
struct BackendLookup {
    /// The backend, which rules share, or why it is invalid.
    backend: Result<Arc<Backend>, InvalidBackend>,
    /// Its endpoints that get no copies, and why.
    refused: Arc<[(SocketAddr, AddressRefusal)]>,
}

/// Backends that were looked up, until their Service changes.
#[derive(Debug, Default)]
pub(super) struct KnownBackends(HashMap<ObjectName, HashMap<(u16, Role), BackendLookup>>);

/// A route as it was last compiled.
#[derive(Debug)]
pub(super) struct Compiled {
    pub(super) rules: Vec<RuleEntry>,
    /// Condition `ResolvedRefs`; where it holds, its message says which endpoints get no copies.
    pub(super) refs: Condition,
    pub(super) partial: Option<Condition>,
    /// Services that it attaches to.
    pub(super) parents: BTreeSet<ObjectName>,
    /// Services that its rules lead to, whether they exist or not.
    pub(super) backends: BTreeSet<ObjectName>,
    /// The ports that the route may use, and what for.
    pub(super) uses: BTreeSet<(ObjectName, u16, Role)>,
    /// Those of them that are backends indeed.
    pub(super) found: BTreeSet<ObjectName>,
}

impl KnownBackends {
    /// The Service, or its endpoints, changed.
    pub(super) fn forget(&mut self, service: &ObjectName) {
        self.0.remove(service);
    }

    /// No reference leads to this port any more.
    pub(super) fn drop(&mut self, (service, port, role): &(ObjectName, u16, Role)) {
        if let Some(ports) = self.0.get_mut(service) {
            ports.remove(&(*port, *role));
            if ports.is_empty() {
                self.0.remove(service);
            }
        }
    }

    /// Services with shadow endpoints that may be used otherwise since these changes: those of
    /// Namespaces that permit something else, and those with an address that changed hands.
    pub(super) fn shadows_of(&self, changes: &Changes) -> BTreeSet<ObjectName> {
        if changes.namespaces.is_empty() && changes.addresses.is_empty() {
            return BTreeSet::new();
        }
        let moved = |at: &SocketAddr| changes.addresses.contains(&at.ip().to_canonical());
        let concerned = self.0.iter().filter(|(service, ports)| {
            let mut shadows = ports.iter().filter(|((_, role), _)| *role == Role::Shadow);
            let here = changes.namespaces.contains(&service.namespace);
            shadows.any(|(_, found)| here || found.endpoints().any(moved))
        });
        concerned.map(|(service, _)| service.clone()).collect()
    }

    /// Why endpoints of shadows get no copies, one for each.
    pub(super) fn refused_shadows(&self) -> impl Iterator<Item = &AddressRefusal> {
        let found = self.0.values().flat_map(HashMap::values);
        found.flat_map(|found| found.refused.iter()).map(|(_, refusal)| refusal)
    }

    fn find(&mut self, guard: &Guard<'_>, at: (&ObjectName, u16), role: Role) -> BackendLookup {
        let (name, port) = at;
        if let Some(known) = self.0.get(name).and_then(|ports| ports.get(&(port, role))) {
            return known.clone();
        }
        let found = match (look_up(guard.objects(), name, port), role) {
            (Ok(found), Role::Shadow) => permitted(guard, name, found),
            (found, _) => {
                let backend = found.map(|(_, backend)| Arc::new(backend));
                BackendLookup { backend, refused: Arc::default() }
            }
        };
        self.0.entry(name.clone()).or_default().insert((port, role), found.clone());
        found
    }
}

impl BackendLookup {
    fn endpoints(&self) -> impl Iterator<Item = &SocketAddr> {
        let used = self.backend.iter();
        let used = used.flat_map(|backend| backend.endpoints.iter().chain(&backend.unready));
        used.chain(self.refused.iter().map(|(address, _)| address))
    }

    /// What a route's author should know of a shadow that gets some copies, and not all.
    fn note(&self, name: &ObjectName) -> Option<String> {
        let backend = self.backend.as_ref().ok()?;
        let why = refused_in_words(name, &self.refused)?;
        let (some, all) = (self.refused.len(), self.refused.len() + backend.endpoints.len());
        Some(format!("{some} of {all} endpoints of Service {name} get no copies: {why}"))
    }
}

/// The backend with those of its endpoints that may get copies; none, where none of them may.
fn permitted(
    guard: &Guard<'_>,
    name: &ObjectName,
    (port, mut backend): (&Port, Backend),
) -> BackendLookup {
    let slices = &guard.objects().slices;
    let refusal = |details: &BTreeMap<SocketAddr, EndpointDetails<'_>>, at: &SocketAddr| {
        let pod = details.get(at).and_then(|details| details.pod);
        guard.shadow(&name.namespace, at.ip(), pod)
    };
    let (serving, unready) = (slices.serving(name, port), slices.unready(name, port));
    let mut refused = Vec::new();
    backend.endpoints.retain(|at| match refusal(&serving, at) {
        Some(refusal) => {
            refused.push((*at, refusal));
            false
        }
        None => true,
    });
    backend.unready.retain(|at| refusal(&unready, at).is_none());
    let backend = match refused_in_words(name, &refused).filter(|_| backend.endpoints.is_empty()) {
        Some(why) => Err(InvalidBackend::Refused { service: name.to_string(), why }),
        None => Ok(Arc::new(backend)),
    };
    BackendLookup { backend, refused: refused.into() }
}

/// Why endpoints get no copies, and what to do about it; None when all get them.
fn refused_in_words(name: &ObjectName, refused: &[(SocketAddr, AddressRefusal)]) -> Option<String> {
    let (address, refusal) = refused.first()?;
    let more = match refused.len() - 1 {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    let remedy = shadow_remedy(&name.namespace, refusal);
    let remedy = remedy.map(|remedy| format!("; {remedy}")).unwrap_or_default();
    Some(format!("{address} {refusal}{more}{remedy}"))
}

/// All rules of a route, and the conditions of their references.
pub(super) fn compile(guard: &Guard<'_>, known: &mut KnownBackends, route: &Route) -> Compiled {
    let (named, uses, found, notes) = Default::default();
    let name = Arc::new(route.name.clone());
    let mut compiler = Compiler { guard, known, route, name, named, uses, found, notes };
    let mut faults = Vec::new();
    let rules = route.rules.iter().enumerate();
    let rules = rules.filter_map(|(index, rule)| {
        let mut here = Vec::new();
        let compiled = Arc::new(compiler.rule(index, rule, &mut here));
        faults.push(here);
        // Of a refused rule none may be readable; no matches at all would mean every request.
        (!rule.matches.is_empty()).then(|| RuleEntry {
            rule: compiled,
            matches: rule.matches.clone(),
            created: route.created,
        })
    });
    let rules = rules.collect();
    let refs = Condition::resolved_refs(faults.iter().flatten(), &compiler.notes);
    let refused: Vec<_> = route.refused_rules().collect();
    Compiled {
        rules,
        refs,
        partial: Condition::dropped_rules(&refused)
            .or_else(|| Condition::partially_invalid(&faults)),
        parents: route.parents.iter().map(|parent| parent.service.clone()).collect(),
        backends: compiler.named,
        uses: compiler.uses,
        found: compiler.found,
    }
}

struct Compiler<'c> {
    guard: &'c Guard<'c>,
    known: &'c mut KnownBackends,
    route: &'c Route,
    /// Its name, which all of its rules share.
    name: Arc<RouteName>,
    /// Services that references name.
    named: BTreeSet<ObjectName>,
    /// Ports that were looked up.
    uses: BTreeSet<(ObjectName, u16, Role)>,
    /// Those that were found.
    found: BTreeSet<ObjectName>,
    /// What to know of them, though they were.
    notes: BTreeSet<String>,
}

impl Compiler<'_> {
    fn rule(&mut self, index: usize, rule: &RouteRule, faults: &mut Vec<InvalidBackend>) -> Rule {
        let filters = self.filters(&rule.filters, faults);
        let refs = rule.backends.iter().map(|backend| BackendRef {
            weight: backend.weight,
            filters: self.filters(&backend.filters, faults),
            target: self.target(&backend.target, Role::Primary, faults),
        });
        let mut refs: Vec<_> = refs.collect();
        refs.extend(rule.refusal.as_ref().filter(|refusal| !refusal.kept).map(out_of_force));
        let backends = Backends::new(refs);
        Rule {
            route: Arc::clone(&self.name),
            index,
            name: rule.name.clone(),
            filters,
            backends,
            timeouts: rule.timeouts,
            retry: rule.retry.clone(),
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
                let target = self.target(target, Role::Shadow, faults);
                Filter::Mirror(Mirror { target, share: *share })
            }
            RouteFilter::Redirect(redirect) => Filter::Redirect(Arc::clone(redirect)),
            RouteFilter::Rewrite(rewrite) => Filter::Rewrite(Arc::clone(rewrite)),
            RouteFilter::Cors(cors) => Filter::Cors(Arc::clone(cors)),
        };
        filters.iter().map(compile).collect()
    }

    fn target(
        &mut self,
        target: &TargetRef,
        role: Role,
        faults: &mut Vec<InvalidBackend>,
    ) -> Result<Arc<Backend>, InvalidBackend> {
        let found = match target {
            TargetRef::Other(kind) => Err(InvalidBackend::Kind(kind.clone())),
            TargetRef::Service(name, port) => {
                self.named.insert(name.clone());
                // Permission first: a route learns nothing of a namespace that grants it nothing.
                let found = match self.is_permitted(name, role) {
                    true => {
                        self.uses.insert((name.clone(), *port, role));
                        let found = self.known.find(self.guard, (name, *port), role);
                        self.notes.extend(found.note(name));
                        self.notes.extend(self.headless(name));
                        found.backend
                    }
                    false => Err(InvalidBackend::NotPermitted(name.to_string())),
                };
                self.found.extend(found.is_ok().then(|| name.clone()));
                found
            }
        };
        faults.extend(found.as_ref().err().cloned());
        found
    }

    /// What is special of a Service without a ClusterIP, which no balancer of the cluster stands before.
    fn headless(&self, name: &ObjectName) -> Option<String> {
        let service = self.guard.objects().services.get(name)?;
        (service.address == ServiceAddress::Headless).then(|| {
            format!("Service {name} is headless: mirror itself chooses among its endpoints")
        })
    }

    /// Whether the route may refer to this Service. Connections to primaries are opened in the client's
    /// network namespace, so that a route reaches no more than its client does, and no namespace needs
    /// to grant it (GEP-1294, "Namespace boundaries"). Copies leave from the agent, which may reach
    /// more: another namespace must grant them.
    fn is_permitted(&self, service: &ObjectName, role: Role) -> bool {
        let route = &self.route.name;
        let mut grants = self.guard.objects().grants.values();
        role == Role::Primary
            || service.namespace == route.object.namespace
            || grants.any(|grant| grant.permits(route, service))
    }
}

/// What requests get that match a refused rule: 500, not what a broader rule would do with them.
fn out_of_force(refusal: &RuleRefusal) -> BackendRef {
    let target = Err(InvalidBackend::RefusedRule(refusal.to_string()));
    BackendRef { weight: 1, filters: Vec::new(), target }
}

fn look_up<'o>(
    objects: &'o Objects,
    name: &ObjectName,
    number: u16,
) -> Result<(&'o Port, Backend), InvalidBackend> {
    let service = objects.services.get(name);
    let service = service.ok_or_else(|| InvalidBackend::NoService(name.to_string()))?;
    if let ServiceAddress::Unsupported(why) = service.address {
        return Err(InvalidBackend::NoAddresses { service: name.to_string(), why });
    }
    let port = service.ports.iter().find(|port| port.tcp && port.port == number);
    let port =
        port.ok_or_else(|| InvalidBackend::NoPort { service: name.to_string(), port: number })?;
    let protocol = protocol(port.app_protocol.as_deref()).map_err(|protocol| {
        InvalidBackend::Protocol { service: name.to_string(), port: number, protocol }
    })?;
    let ips: &[_] = match &service.address {
        ServiceAddress::ClusterIps(ips) => ips,
        _ => &[],
    };
    let addresses = ips.iter().map(|ip| SocketAddr::new(*ip, number)).collect();
    let affinity = service.affinity;
    let endpoints = objects.slices.serving(name, port).into_keys().collect();
    let unready = objects.slices.unready(name, port).into_keys().collect();
    let service =
        ServicePort { namespace: name.namespace.clone(), name: name.name.clone(), port: number };
    let service = Arc::new(service);
    Ok((port, Backend { service, protocol, addresses, endpoints, unready, affinity }))
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

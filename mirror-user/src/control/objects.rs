//! The model: Kubernetes objects as compact rows, with only what [`super::resolve`]
//! reads. Everything in it has been checked; sources fill it, nothing changes it later.

use std::{collections::BTreeMap, fmt, net::IpAddr, sync::Arc};

use super::decode::DecodeFault;
use crate::{
    model::{CaptureLabel, Consent, NamespaceRow, ObjectName, PodRow, RouteKind, RouteName},
    route::{Cors, Fraction, HeaderModifier, Matcher, Redirect, Retry, Rewrite, Timeouts},
};

mod addresses;
mod changes;
mod slices;

pub use self::{
    addresses::Addresses,
    changes::Changes,
    slices::{EndpointDetails, Slices},
};

/// All objects of one moment.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    /// Services.
    pub services: BTreeMap<ObjectName, Service>,
    /// EndpointSlices.
    pub slices: Slices,
    /// Routes with a Service among their parents.
    pub routes: BTreeMap<RouteName, Route>,
    /// Of routes without a Service among their parents, those that seem to mean one:
    /// [`Route::misgrouped`].
    pub misgrouped: BTreeMap<RouteName, Vec<String>>,
    /// ReferenceGrants.
    pub grants: BTreeMap<ObjectName, ReferenceGrant>,
    /// Pods of this node; of files, those that have a uid.
    pub pods: BTreeMap<ObjectName, PodRow>,
    /// Namespaces.
    pub namespaces: BTreeMap<ObjectName, NamespaceRow>,
    /// Nodes of the cluster; a folder has none.
    pub nodes: BTreeMap<ObjectName, NodeRow>,
    /// Whose addresses are whose, of all of these.
    pub addresses: Addresses,
}

/// A kind of which all objects are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// `v1` Service.
    Service,
    /// `discovery.k8s.io/v1` EndpointSlice.
    Slice,
    /// `gateway.networking.k8s.io/v1` HTTPRoute or GRPCRoute.
    Route(RouteKind),
    /// `gateway.networking.k8s.io/v1beta1` ReferenceGrant.
    Grant,
    /// `v1` Pod.
    Pod,
    /// `v1` Namespace.
    Namespace,
    /// `v1` Node.
    Node,
}

/// One decoded document.
#[derive(Clone, Debug)]
pub enum Object {
    /// `v1` Service.
    Service(Service),
    /// `discovery.k8s.io/v1` EndpointSlice.
    Slice(EndpointSlice),
    /// `gateway.networking.k8s.io/v1` HTTPRoute or GRPCRoute with a Service among its parents.
    Route(Route),
    /// `gateway.networking.k8s.io/v1` ReferenceGrant.
    Grant(ReferenceGrant),
    /// `v1` Pod that a cluster has given a uid.
    Pod(PodRow),
    /// `v1` Namespace.
    Namespace(NamespaceRow),
    /// `v1` Node.
    Node(NodeRow),
    /// A route without a Service among its parents, which is left to others.
    GatewayRoute {
        /// Its name.
        name: RouteName,
        /// As [`Route::misgrouped`].
        misgrouped: Vec<String>,
    },
    /// A kind that mirror does not read.
    Unread {
        /// `apiVersion` and `kind`, as `apps/v1 Deployment`.
        kind: String,
        /// Its name.
        name: ObjectName,
    },
}

impl Object {
    /// Kind and name, unique within a cluster: `HTTPRoute default/httpbin`.
    #[must_use]
    pub fn identity(&self) -> String {
        match self {
            Self::Service(service) => format!("Service {}", service.name),
            Self::Slice(slice) => format!("EndpointSlice {}", slice.name),
            Self::Route(route) => route.name.identity(),
            Self::Grant(grant) => format!("ReferenceGrant {}", grant.name),
            Self::Pod(pod) => format!("Pod {}", pod.name),
            Self::Namespace(row) => format!("Namespace {}", row.name.name),
            Self::Node(row) => format!("Node {}", row.name.name),
            Self::GatewayRoute { name, .. } => name.identity(),
            Self::Unread { kind, name } => format!("{kind} {name}"),
        }
    }

    /// Whether it is of a kind that mirror reads.
    #[must_use]
    pub fn is_read(&self) -> bool {
        !matches!(self, Self::Unread { .. })
    }
}

impl Objects {
    /// Adds or replaces an object.
    pub fn insert(&mut self, object: Object) {
        self.apply(object, &mut Changes::default());
    }

    /// The Namespace of a name, if it is known.
    #[must_use]
    pub fn namespace(&self, name: &str) -> Option<&NamespaceRow> {
        self.namespaces.get(&ObjectName { namespace: String::new(), name: name.into() })
    }

    /// Whether routes of the Namespace's Services may claim addresses of endpoints (label
    /// [`ENDPOINT_FRONTENDS`](crate::model::ENDPOINT_FRONTENDS)). A Namespace that is not known consents to nothing.
    #[must_use]
    pub fn allows_endpoint_frontends(&self, namespace: &str) -> bool {
        self.namespace(namespace).is_some_and(|row| row.endpoint_frontends == Consent::Given)
    }

    /// Whether copies for the Namespace's Services may go to addresses that are no Pod's of it
    /// (label [`EXTERNAL_SHADOWS`](crate::model::EXTERNAL_SHADOWS)).
    #[must_use]
    pub fn allows_external_shadows(&self, namespace: &str) -> bool {
        self.namespace(namespace).is_some_and(|row| row.external_shadows == Consent::Given)
    }
}

/// A Node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRow {
    /// Its name; its own namespace is empty.
    pub name: ObjectName,
    /// `status.addresses` that are IP addresses.
    pub addresses: Vec<IpAddr>,
}

/// A Service.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// Its name.
    pub name: ObjectName,
    /// Where clients connect to.
    pub address: ServiceAddress,
    /// `spec.ports`.
    pub ports: Vec<Port>,
    /// `sessionAffinity: ClientIP`.
    pub affinity: bool,
    /// Its label: whether it is captured ahead of its routes.
    pub capture: CaptureLabel,
    /// Its label [`CAPTURE_ENDPOINTS`](crate::model::CAPTURE_ENDPOINTS).
    pub capture_endpoints: Consent,
    /// `creationTimestamp`, seconds since 1970; None (a file) counts as the newest.
    pub created: Option<i64>,
}

impl Service {
    /// Whether clients connect to its endpoints themselves: always, or as well.
    #[must_use]
    pub fn has_endpoint_frontends(&self) -> bool {
        match self.address {
            ServiceAddress::Headless => true,
            ServiceAddress::ClusterIps(_) => self.capture_endpoints == Consent::Given,
            ServiceAddress::Missing | ServiceAddress::Unsupported(_) => false,
        }
    }
}

/// Where clients of a Service connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceAddress {
    /// All of `spec.clusterIPs`: one, or one of each family.
    ClusterIps(Vec<IpAddr>),
    /// `clusterIP: None`: clients connect to the endpoints themselves.
    Headless,
    /// Nothing in the document: a cluster would have assigned one.
    Missing,
    /// `type: ExternalName`.
    Unsupported(&'static str),
}

/// One of a Service's `spec.ports`.
#[derive(Clone, Debug, PartialEq)]
pub struct Port {
    /// Empty for an unnamed one.
    pub name: String,
    /// What clients connect to.
    pub port: u16,
    /// Whether its protocol is TCP, as it is unless said otherwise.
    pub tcp: bool,
    /// `appProtocol`.
    pub app_protocol: Option<String>,
}

/// An EndpointSlice.
#[derive(Clone, Debug, PartialEq)]
pub struct EndpointSlice {
    /// Its name.
    pub name: ObjectName,
    /// The Service that it belongs to: label `kubernetes.io/service-name`.
    pub service: Option<String>,
    /// Names and numbers of its TCP ports.
    pub ports: Vec<(String, u16)>,
    /// Ready endpoints, all of the slice's family; empty for type FQDN.
    pub ready: Vec<Endpoint>,
    /// The same of those that are terminating and still serve.
    pub terminating: Vec<Endpoint>,
    /// The same of all others: they get nothing new.
    pub unready: Vec<Endpoint>,
    /// `creationTimestamp`, seconds since 1970; None (a file) counts as the newest.
    pub created: Option<i64>,
}

/// An endpoint of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its first address, which stands for it (EndpointSlice, `addresses`).
    pub ip: IpAddr,
    /// The Pod of the slice's Namespace that the slice names for it (`targetRef`).
    pub pod: Option<Box<str>>,
}

impl From<IpAddr> for Endpoint {
    /// One that says nothing of a Pod.
    fn from(ip: IpAddr) -> Self {
        Self { ip, pod: None }
    }
}

/// A ReferenceGrant, as far as it lets routes mirror to Services.
#[derive(Clone, Debug, PartialEq)]
pub struct ReferenceGrant {
    /// Its name; it grants access to its own namespace.
    pub name: ObjectName,
    /// Which routes it trusts: their kind and Namespace.
    pub from: Vec<(RouteKind, String)>,
    /// Services that they may refer to; None is all of them.
    pub to: Vec<Option<String>>,
}

impl ReferenceGrant {
    /// Whether the route may refer to `service`.
    #[must_use]
    pub fn permits(&self, route: &RouteName, service: &ObjectName) -> bool {
        let mut from = self.from.iter();
        self.name.namespace == service.namespace
            && from.any(|(kind, namespace)| {
                (*kind, namespace) == (route.kind, &route.object.namespace)
            })
            && self.to.iter().any(|to| to.as_ref().is_none_or(|name| *name == service.name))
    }
}

/// An HTTPRoute or a GRPCRoute.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// Its kind and name.
    pub name: RouteName,
    /// `creationTimestamp`, seconds since 1970.
    pub created: Option<i64>,
    /// `hostnames`: they do not select when the parent is a Service (GEP-1426).
    pub hostnames: Vec<String>,
    /// Those of its `parentRefs` that are Services; at least one.
    pub parents: Vec<ParentRef>,
    /// A text for each of its `parentRefs` that has kind Service but another group than the core group,
    /// and so names no Service.
    pub misgrouped: Vec<String>,
    /// `rules`; at least one, of which at least one is not refused.
    pub rules: Vec<RouteRule>,
}

impl Route {
    /// Has each refused rule do what a rule with the same matches last did in `old`, an earlier state of
    /// the route.
    pub fn keep_rules_of(&mut self, old: &Self) {
        for rule in &mut self.rules {
            let Some(refusal) = rule.refusal.as_mut().filter(|refusal| !refusal.kept) else {
                continue;
            };
            let same = |other: &&RouteRule| {
                other.refusal.as_ref().is_none_or(|refusal| refusal.kept)
                    && other.matches == rule.matches
            };
            let Some(last) = old.rules.iter().filter(|_| refusal.all_matches).find(same) else {
                continue;
            };
            refusal.kept = true;
            rule.filters.clone_from(&last.filters);
            rule.backends.clone_from(&last.backends);
            rule.timeouts = last.timeouts;
            rule.retry.clone_from(&last.retry);
        }
    }

    /// Whether a rule is refused because of a field that mirror does not know.
    #[must_use]
    pub fn has_unknown_fields(&self) -> bool {
        self.refused_rules().any(|(_, refusal)| refusal.fault.is_unknown_field())
    }

    /// What is wrong with some of its rules, and what holds there instead; None if nothing is.
    #[must_use]
    pub fn partial_faults(&self) -> Option<String> {
        let texts: Vec<_> = self.refused_rules().map(|(_, refusal)| refusal.aftermath()).collect();
        let name = self.name.identity();
        (!texts.is_empty()).then(|| format!("{name}: {}; its other rules apply", texts.join("; ")))
    }

    /// Its refused rules, by their place in `rules`.
    pub fn refused_rules(&self) -> impl Iterator<Item = (usize, &RuleRefusal)> {
        let rules = self.rules.iter().enumerate();
        rules.filter_map(|(at, rule)| Some((at, rule.refusal.as_ref()?)))
    }
}

/// A Service that a route attaches to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParentRef {
    /// Which Service.
    pub service: ObjectName,
    /// Only its port of this number.
    pub port: Option<u16>,
    /// Only its port of this name.
    pub section: Option<String>,
}

/// One of a route's `rules`.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteRule {
    /// `name`.
    pub name: Option<String>,
    /// `matches`; without any in the document, one that every request meets. Empty only in a refused
    /// rule of which none can be read.
    pub matches: Vec<Matcher>,
    /// `filters`, in order.
    pub filters: Vec<RouteFilter>,
    /// `backendRefs`.
    pub backends: Vec<WeightedRef>,
    /// `timeouts`.
    pub timeouts: Timeouts,
    /// `retry`, unless it says 0 `attempts`.
    pub retry: Option<Retry>,
    /// Why it cannot be served as it stands. Its matches hold all the same; what else there is of it is
    /// that of its last valid state, or nothing.
    pub refusal: Option<RuleRefusal>,
}

/// Why a rule cannot be served, though others of its route can (condition PartiallyInvalid).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleRefusal {
    /// Path of the field, as `spec.rules[0].filters[1].type`.
    pub path: String,
    /// What is wrong with it.
    pub fault: DecodeFault,
    /// Whether each of its matches could be read.
    pub all_matches: bool,
    /// Whether it does what it did in its last valid state. Otherwise its requests get 500.
    pub kept: bool,
}

impl RuleRefusal {
    /// The refusal, and what the requests get that match the rule.
    fn aftermath(&self) -> String {
        let instead = match (self.kept, self.all_matches) {
            (true, _) => "the rule's last valid state stays in force",
            (false, true) => "requests that match the rule get 500",
            (false, false) => {
                "requests that match the rule get 500, as far as its matches can be read; others may \
                 get what a broader rule says"
            }
        };
        format!("{self} ({instead})")
    }
}

impl fmt::Display for RuleRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.fault)
    }
}

impl RouteRule {
    /// Its `filters`, then those of its `backendRefs`.
    pub fn all_filters(&self) -> impl Iterator<Item = &RouteFilter> {
        self.filters.iter().chain(self.backends.iter().flat_map(|backend| &backend.filters))
    }
}

/// One of `filters`, of a rule or of one of its backends.
#[derive(Clone, Debug, PartialEq)]
pub enum RouteFilter {
    /// `RequestHeaderModifier`.
    RequestHeaders(HeaderModifier),
    /// `ResponseHeaderModifier`.
    ResponseHeaders(HeaderModifier),
    /// `RequestMirror`.
    Mirror(TargetRef, Fraction),
    /// `RequestRedirect`.
    Redirect(Arc<Redirect>),
    /// `URLRewrite`.
    Rewrite(Arc<Rewrite>),
    /// `CORS`.
    Cors(Arc<Cors>),
}

/// One of a rule's `backendRefs`.
#[derive(Clone, Debug, PartialEq)]
pub struct WeightedRef {
    /// Where it leads.
    pub target: TargetRef,
    /// 0 to 1,000,000.
    pub weight: u32,
    /// `filters`, in order.
    pub filters: Vec<RouteFilter>,
}

/// A reference from a rule to a backend, not yet looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetRef {
    /// A port of a Service.
    Service(ObjectName, u16),
    /// Some other kind, as `group/Kind`.
    Other(String),
}

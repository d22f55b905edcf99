//! The model: Kubernetes objects as compact rows of our own, with only what [`super::resolve`]
//! reads. Everything in it has been checked; sources fill it, nothing changes it later.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use crate::{
    enrol::{NamespaceRow, PodRow, Wish},
    route::{HeaderModifier, Matcher, RouteName, Share, Timeouts},
};

mod changes;
mod slices;

pub use self::{changes::Changes, slices::Slices};

/// All objects of one moment.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    /// Services.
    pub services: BTreeMap<ObjectName, Service>,
    /// EndpointSlices.
    pub slices: Slices,
    /// HTTPRoutes with a Service among their parents.
    pub routes: BTreeMap<ObjectName, HttpRoute>,
    /// ReferenceGrants.
    pub grants: BTreeMap<ObjectName, ReferenceGrant>,
    /// Pods of this node; of files, those that have a uid.
    pub pods: BTreeMap<ObjectName, PodRow>,
    /// Namespaces.
    pub namespaces: BTreeMap<ObjectName, NamespaceRow>,
}

/// `namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectName {
    /// Namespace; `default` where a document has none.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl From<&ObjectName> for RouteName {
    fn from(name: &ObjectName) -> Self {
        Self { namespace: name.namespace.clone(), name: name.name.clone() }
    }
}

/// A kind of which all objects are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// `v1` Service.
    Service,
    /// `discovery.k8s.io/v1` EndpointSlice.
    Slice,
    /// `gateway.networking.k8s.io/v1` HTTPRoute.
    Route,
    /// `gateway.networking.k8s.io/v1beta1` ReferenceGrant.
    Grant,
    /// `v1` Pod.
    Pod,
    /// `v1` Namespace.
    Namespace,
}

/// One decoded document.
#[derive(Clone, Debug)]
pub enum Object {
    /// `v1` Service.
    Service(Service),
    /// `discovery.k8s.io/v1` EndpointSlice.
    Slice(EndpointSlice),
    /// `gateway.networking.k8s.io/v1` HTTPRoute with a Service among its parents.
    Route(HttpRoute),
    /// `gateway.networking.k8s.io/v1` ReferenceGrant.
    Grant(ReferenceGrant),
    /// `v1` Pod that a cluster has given a uid.
    Pod(PodRow),
    /// `v1` Namespace.
    Namespace(NamespaceRow),
    /// An HTTPRoute that only Gateways are parents of: somebody else's.
    GatewayRoute(ObjectName),
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
            Self::Route(route) => format!("HTTPRoute {}", route.name),
            Self::Grant(grant) => format!("ReferenceGrant {}", grant.name),
            Self::Pod(pod) => format!("Pod {}", pod.name),
            Self::Namespace(row) => format!("Namespace {}", row.name.name),
            Self::GatewayRoute(name) => format!("HTTPRoute {name}"),
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
        match object {
            Object::Service(service) => drop(self.services.insert(service.name.clone(), service)),
            Object::Slice(slice) => drop(self.slices.insert(slice)),
            Object::Route(route) => drop(self.routes.insert(route.name.clone(), route)),
            Object::Grant(grant) => drop(self.grants.insert(grant.name.clone(), grant)),
            Object::Pod(pod) => drop(self.pods.insert(pod.name.clone(), pod)),
            Object::Namespace(row) => drop(self.namespaces.insert(row.name.clone(), row)),
            Object::GatewayRoute(_) | Object::Unread { .. } => {}
        }
    }
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
    /// Its label: whether it is captured ahead of its routes.
    pub capture: Wish,
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
    /// First address of each ready endpoint, all of the slice's family; empty for type FQDN.
    pub ready: Vec<IpAddr>,
}

/// A ReferenceGrant, as far as it lets HTTPRoutes refer to Services.
#[derive(Clone, Debug, PartialEq)]
pub struct ReferenceGrant {
    /// Its name; it grants access to its own namespace.
    pub name: ObjectName,
    /// Namespaces whose HTTPRoutes it trusts.
    pub from: Vec<String>,
    /// Services that they may refer to; None is all of them.
    pub to: Vec<Option<String>>,
}

impl ReferenceGrant {
    /// Whether routes of `namespace` may refer to `service`.
    #[must_use]
    pub fn permits(&self, namespace: &str, service: &ObjectName) -> bool {
        self.name.namespace == service.namespace
            && self.from.iter().any(|from| from == namespace)
            && self.to.iter().any(|to| to.as_ref().is_none_or(|name| *name == service.name))
    }
}

/// An HTTPRoute.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpRoute {
    /// Its name.
    pub name: ObjectName,
    /// `creationTimestamp`, seconds since 1970.
    pub created: Option<i64>,
    /// `hostnames`: they do not select when the parent is a Service (GEP-1426).
    pub hostnames: Vec<String>,
    /// Those of its `parentRefs` that are Services; at least one.
    pub parents: Vec<ParentRef>,
    /// `rules`; at least one.
    pub rules: Vec<RouteRule>,
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
    /// `matches`; none means every request.
    pub matches: Vec<Matcher>,
    /// `filters`, in order.
    pub filters: Vec<RouteFilter>,
    /// `backendRefs`.
    pub backends: Vec<WeightedRef>,
    /// `timeouts`.
    pub timeouts: Timeouts,
}

/// One of a rule's `filters`.
#[derive(Clone, Debug, PartialEq)]
pub enum RouteFilter {
    /// `RequestHeaderModifier`.
    RequestHeaders(HeaderModifier),
    /// `ResponseHeaderModifier`.
    ResponseHeaders(HeaderModifier),
    /// `RequestMirror`.
    Mirror(TargetRef, Share),
}

/// One of a rule's `backendRefs`.
#[derive(Clone, Debug, PartialEq)]
pub struct WeightedRef {
    /// Where it leads.
    pub target: TargetRef,
    /// 0 to 1,000,000.
    pub weight: u32,
    /// Header modifiers.
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

//! Names of Kubernetes objects.

use std::fmt;

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

/// The kinds of routes of the Gateway API that mirror reads, the more specific first (GEP-1294, "Route
/// types"): where routes of several kinds attach to one port of a Service, those of the first kind apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RouteKind {
    /// `gateway.networking.k8s.io/v1` GRPCRoute.
    Grpc,
    /// `gateway.networking.k8s.io/v1` HTTPRoute.
    Http,
}

impl RouteKind {
    /// All of them, in order.
    pub const ALL: [Self; 2] = [Self::Grpc, Self::Http];

    /// Its `kind`, as `HTTPRoute`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Grpc => "GRPCRoute",
            Self::Http => "HTTPRoute",
        }
    }

    /// The kind of this name, if it is one of a route.
    #[must_use]
    pub fn of(kind: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.label() == kind)
    }

    /// The name of its resource in the API, as `httproutes`.
    #[must_use]
    pub fn plural(self) -> &'static str {
        match self {
            Self::Grpc => "grpcroutes",
            Self::Http => "httproutes",
        }
    }

    /// The route of this kind with this name.
    #[must_use]
    pub fn named(self, object: ObjectName) -> RouteName {
        RouteName { kind: self, object }
    }
}

/// A route: routes of different kinds may have one name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteName {
    /// Its kind.
    pub kind: RouteKind,
    /// Its name.
    pub object: ObjectName,
}

impl RouteName {
    /// Kind and name, as messages call it: `HTTPRoute default/httpbin`.
    #[must_use]
    pub fn identity(&self) -> String {
        format!("{} {}", self.kind.label(), self.object)
    }
}

impl fmt::Display for RouteName {
    /// As the access log and `/config` call it: `default/httpbin` is an HTTPRoute, `grpcroute/default/echo` a
    /// GRPCRoute.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            RouteKind::Http => self.object.fmt(f),
            RouteKind::Grpc => write!(f, "grpcroute/{}", self.object),
        }
    }
}

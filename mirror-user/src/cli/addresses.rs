//! Which addresses are used, and how many of them and of routes: flags that the agent and the
//! controller share, so that the one reports what the other does. In: flags. Out: a policy, and bounds.

use clap::value_parser;

use super::ByteSize;
use crate::control::{
    quota::{Bound, NAMESPACE_ROUTES, RouteBounds},
    resolve::{AddressPolicy, Cidr, NAMESPACE_FRONTENDS},
};

/// Flags about what the authors of objects may have.
#[derive(Clone, Debug, clap::Args)]
pub struct AddressArgs {
    /// Range of addresses that no copy may be sent to, whatever an EndpointSlice says, for example
    /// 10.0.0.0/8, fd00::/8 or 10.0.0.1. In a cluster, loopback, link-local and multicast addresses,
    /// ClusterIPs, the API server and the metadata services of cloud providers are always denied.
    /// Repeatable; comma-separated in the environment.
    #[arg(
        long = "deny-shadow",
        env = "MIRROR_DENY_SHADOW",
        value_name = "CIDR",
        value_delimiter = ','
    )]
    pub deny_shadow: Vec<Cidr>,

    /// Most frontends of one Namespace of a cluster. Each captured port of a Service counts once per
    /// address family, and once per endpoint if the Service is headless. Connections to further Services
    /// go direct. 1 to 65536.
    #[arg(long = "namespace-frontends", env = "MIRROR_NAMESPACE_FRONTENDS", value_name = "N",
          default_value_t = NAMESPACE_FRONTENDS.into(), value_parser = value_parser!(u32).range(1..=65536))]
    pub namespace_frontends: u32,

    /// Most routes of one Namespace of a cluster; newer ones are ignored. 1 to 100000.
    #[arg(long = "namespace-routes", env = "MIRROR_NAMESPACE_ROUTES", value_name = "N",
          default_value_t = NAMESPACE_ROUTES, value_parser = value_parser!(u32).range(1..=100_000))]
    pub namespace_routes: u32,

    /// Most bytes of the specs of the routes of one Namespace, as JSON; newer routes are ignored.
    /// The routes of all Namespaces together may have 16MiB.
    #[arg(
        long = "namespace-route-bytes",
        env = "MIRROR_NAMESPACE_ROUTE_BYTES",
        value_name = "SIZE",
        default_value = "2MiB"
    )]
    pub namespace_route_bytes: ByteSize,
}

impl AddressArgs {
    /// For objects that the owner of the node has written to a folder.
    #[must_use]
    pub fn of_files(&self) -> AddressPolicy {
        AddressPolicy { deny_shadow: self.deny_shadow.clone(), ..AddressPolicy::default() }
    }

    /// How many routes of a cluster are looked at.
    #[must_use]
    pub fn bounds(&self) -> RouteBounds {
        let count = self.namespace_routes as usize;
        let namespace = Bound { count, bytes: self.namespace_route_bytes.0 };
        RouteBounds { namespace, ..RouteBounds::default() }
    }

    /// For the objects of a cluster.
    #[must_use]
    pub fn of_cluster(&self) -> AddressPolicy {
        AddressPolicy {
            deny_shadow: self.deny_shadow.clone(),
            namespace_frontends: self.namespace_frontends as usize,
            ..AddressPolicy::of_cluster()
        }
    }
}

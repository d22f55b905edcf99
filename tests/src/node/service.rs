//! Services: a ClusterIP that nftables sends to one of the endpoints at random.

use std::{
    fmt::Write as _,
    net::{Ipv4Addr, SocketAddrV4},
};

/// A Service with a single port.
#[derive(Clone, Debug)]
pub struct Service {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// In 10.96.0.0/12.
    pub cluster_ip: Ipv4Addr,
    /// The Service's port, not the endpoints'.
    pub port: u16,
    /// Ready endpoints, all with the same port.
    pub endpoints: Vec<SocketAddrV4>,
}

impl Service {
    /// Where clients connect to.
    #[must_use]
    pub fn address(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.cluster_ip, self.port)
    }

    /// Its names as cluster DNS would resolve them from the namespace `default`.
    pub(super) fn names(&self) -> String {
        let Self { name, namespace, .. } = self;
        let short = if namespace == "default" { format!("{name} ") } else { String::new() };
        format!(
            "{short}{name}.{namespace} {name}.{namespace}.svc {name}.{namespace}.svc.cluster.local"
        )
    }
}

/// Replaces the whole table in one transaction.
pub(super) fn rules(services: &[Service]) -> String {
    let mut dnat = String::new();
    let mut reject = String::new();
    for service in services {
        let vip = format!("ip daddr {} tcp dport {}", service.cluster_ip, service.port);
        let count = service.endpoints.len();
        if count == 0 {
            let _ = writeln!(reject, "    {vip} reject");
            continue;
        }
        let endpoints = service.endpoints.iter().enumerate();
        let map: Vec<_> =
            endpoints.map(|(i, at)| format!("{i} : {} . {}", at.ip(), at.port())).collect();
        let map = map.join(", ");
        let _ = writeln!(dnat, "    {vip} dnat ip to numgen random mod {count} map {{ {map} }}");
    }
    format!(
        "table ip kube\ndelete table ip kube\ntable ip kube {{\n\
         \x20 chain services {{\n{dnat}  }}\n\
         \x20 chain unready {{\n{reject}    ip daddr 10.96.0.0/12 reject\n  }}\n\
         \x20 chain prerouting {{ type nat hook prerouting priority -100; jump services; }}\n\
         \x20 chain local {{ type nat hook output priority -100; jump services; }}\n\
         \x20 chain forward {{ type filter hook forward priority 0; jump unready; }}\n\
         \x20 chain output {{ type filter hook output priority 0; jump unready; }}\n}}\n"
    )
}

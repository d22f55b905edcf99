//! Services: a ClusterIP that nftables sends to one of the endpoints at random.

use std::{
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
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
    /// In fd00:10:96::/112, when it is dual stack.
    pub cluster_ip6: Option<Ipv6Addr>,
    /// Ready IPv6 endpoints, of the same port.
    pub endpoints6: Vec<SocketAddrV6>,
    /// The port's `appProtocol`.
    pub app_protocol: Option<&'static str>,
}

impl Service {
    /// Where clients connect to.
    #[must_use]
    pub fn address(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.cluster_ip, self.port)
    }

    /// Where clients connect to over IPv6.
    ///
    /// # Panics
    /// It is not dual stack.
    #[must_use]
    pub fn address6(&self) -> SocketAddrV6 {
        SocketAddrV6::new(self.cluster_ip6.expect("a dual-stack Service"), self.port, 0, 0)
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

/// Replaces the tables of both families, each in one transaction.
pub(super) fn rules(services: &[Service]) -> String {
    let v4 = services.iter().map(|service| {
        let endpoints = service.endpoints.iter().map(|at| SocketAddr::V4(*at)).collect();
        Vip { ip: service.cluster_ip.into(), port: service.port, endpoints }
    });
    let v6 = services.iter().filter_map(|service| {
        let endpoints = service.endpoints6.iter().map(|at| SocketAddr::V6(*at)).collect();
        Some(Vip { ip: service.cluster_ip6?.into(), port: service.port, endpoints })
    });
    table("ip", "10.96.0.0/12", v4) + &table("ip6", SERVICES6, v6)
}

/// The range of the Services' IPv6 addresses.
pub(super) const SERVICES6: &str = "fd00:10:96::/112";

/// One family of a Service.
struct Vip {
    ip: IpAddr,
    port: u16,
    endpoints: Vec<SocketAddr>,
}

fn table(family: &str, range: &str, vips: impl Iterator<Item = Vip>) -> String {
    let mut dnat = String::new();
    let mut reject = String::new();
    for Vip { ip, port, endpoints } in vips {
        let vip = format!("{family} daddr {ip} tcp dport {port}");
        let count = endpoints.len();
        if count == 0 {
            let _ = writeln!(reject, "    {vip} reject");
            continue;
        }
        let endpoints = endpoints.iter().enumerate();
        let map: Vec<_> =
            endpoints.map(|(i, at)| format!("{i} : {} . {}", at.ip(), at.port())).collect();
        let map = map.join(", ");
        let _ =
            writeln!(dnat, "    {vip} dnat {family} to numgen random mod {count} map {{ {map} }}");
    }
    format!(
        "table {family} kube\ndelete table {family} kube\ntable {family} kube {{\n\
         \x20 chain services {{\n{dnat}  }}\n\
         \x20 chain unready {{\n{reject}    {family} daddr {range} reject\n  }}\n\
         \x20 chain prerouting {{ type nat hook prerouting priority -100; jump services; }}\n\
         \x20 chain local {{ type nat hook output priority -100; jump services; }}\n\
         \x20 chain forward {{ type filter hook forward priority 0; jump unready; }}\n\
         \x20 chain output {{ type filter hook output priority 0; jump unready; }}\n}}\n"
    )
}

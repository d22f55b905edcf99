//! The deny-list: addresses that no object may name as an endpoint's. In: an address, and whose
//! addresses are whose. Out: what speaks against it. Pure; looked at when objects are resolved,
//! never for a request.
//!
//! An IPv4 address inside of an IPv6 one (mapped, RFC 4291; NAT64, RFC 6052) counts as the IPv4
//! address that packets reach.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::policy::{AddressPolicy, Cidr};
use crate::{control::objects::Objects, model::ObjectName, route::FrontendId};

/// Addresses of cloud providers' metadata services that are not link-local: Azure's, Alibaba's,
/// Oracle's and AWS's by IPv6. (Everybody else's is 169.254.169.254.)
const METADATA: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];

/// What speaks against an address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Denied {
    /// 0.0.0.0/8, ::, 240.0.0.0/4: no host's.
    #[error("is not the address of a host")]
    Unspecified,
    /// 127.0.0.0/8, ::1.
    #[error("is a loopback address")]
    Loopback,
    /// What mirror's own hook gives to connections that it has captured.
    #[error("is in the range that mirror itself uses")]
    Mirror,
    /// 169.254.0.0/16, fe80::/10.
    #[error("is a link-local address")]
    LinkLocal,
    /// 224.0.0.0/4, ff00::/8.
    #[error("is a multicast address")]
    Multicast,
    /// A cloud provider's metadata service.
    #[error("is the address of a cloud provider's metadata service")]
    Metadata,
    /// The API server's.
    #[error("is an address of the API server")]
    ApiServer,
    /// A ClusterIP: its own Service's alone.
    #[error("is the ClusterIP of a Service")]
    ClusterIp,
    /// In a range that a flag names.
    #[error("is in {0}, which --deny-shadow denies")]
    Listed(String),
}

impl Denied {
    /// Stable name, for metrics.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::Loopback => "loopback",
            Self::Mirror => "mirror",
            Self::LinkLocal => "link_local",
            Self::Multicast => "multicast",
            Self::Metadata => "metadata",
            Self::ApiServer => "api_server",
            Self::ClusterIp => "cluster_ip",
            Self::Listed(_) => "listed",
        }
    }
}

/// The deny-list at one moment.
#[derive(Clone, Copy, Debug)]
pub struct DenyList<'l> {
    policy: &'l AddressPolicy,
    objects: &'l Objects,
}

impl<'l> DenyList<'l> {
    /// What `policy` fixes, and what belongs to whom among `objects`.
    #[must_use]
    pub fn new(policy: &'l AddressPolicy, objects: &'l Objects) -> Self {
        Self { policy, objects }
    }

    /// Why the address may not be an endpoint's, whoever writes the slice.
    #[must_use]
    pub fn denied(&self, ip: IpAddr) -> Option<Denied> {
        let ip = reached(ip);
        of_no_host(ip)
            .or_else(|| local(ip))
            .or_else(|| self.is_api_server(ip).then_some(Denied::ApiServer))
            .or_else(|| self.objects.addresses.is_cluster_ip(ip).then_some(Denied::ClusterIp))
    }

    /// What speaks against the address by its nature alone: no host has it. What the owner of a node
    /// writes is held to nothing else.
    #[must_use]
    pub fn of_no_host(ip: IpAddr) -> Option<Denied> {
        of_no_host(reached(ip))
    }

    /// The range of `--deny-shadow` that the address is in.
    #[must_use]
    pub fn listed(&self, ip: IpAddr) -> Option<Denied> {
        let ip = reached(ip);
        let mut ranges = self.policy.deny_shadow.iter();
        ranges
            .find(|range: &&Cidr| range.contains(ip))
            .map(|range| Denied::Listed(range.to_string()))
    }

    /// Whether the address is the API server's: an endpoint of its Service, or what this process
    /// was given at its start.
    #[must_use]
    pub fn is_api_server(&self, ip: IpAddr) -> bool {
        let ip = reached(ip);
        self.policy.api_server.iter().any(|own| own.to_canonical() == ip)
            || self.objects.slices.has_address(&ObjectName::api_server(), ip)
    }
}

/// The address that packets reach: NAT64's well-known prefix (RFC 6052) and mapped addresses hold
/// one of IPv4.
fn reached(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(v6) => match v6.segments() {
            [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
                IpAddr::V4(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)))
            }
            _ => IpAddr::V6(v6),
        },
        v4 @ IpAddr::V4(_) => v4,
    }
}

fn of_no_host(ip: IpAddr) -> Option<Denied> {
    match ip {
        _ if ip.is_multicast() => Some(Denied::Multicast),
        // 0.0.0.0/8 is this host (RFC 6890), and Linux takes 0.0.0.0 for loopback.
        IpAddr::V4(v4) if v4.octets()[0] == 0 || v4.octets()[0] >= 240 => Some(Denied::Unspecified),
        IpAddr::V6(v6) if v6.is_unspecified() => Some(Denied::Unspecified),
        _ if is_mirrors(ip) => Some(Denied::Mirror),
        _ => None,
    }
}

/// The ranges of the addresses that connections are captured by.
fn is_mirrors(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => FrontendId::from_address(v4).is_some(),
        IpAddr::V6(v6) => v6.octets()[..12] == FrontendId::LISTENER.address_v6().octets()[..12],
    }
}

fn local(ip: IpAddr) -> Option<Denied> {
    let link_local = match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    match ip {
        _ if ip.is_loopback() => Some(Denied::Loopback),
        _ if link_local => Some(Denied::LinkLocal),
        _ if METADATA.contains(&ip) => Some(Denied::Metadata),
        _ => None,
    }
}

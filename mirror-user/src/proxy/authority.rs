//! Whose authority a target in absolute form names: that of the Service that the client connected to,
//! or another's, for which the Service is a forward proxy (RFC 9112, section 3.2.2). In: what the
//! client connected to, and an authority. Out: yes or no. Pure.

use std::net::{IpAddr, SocketAddr};

use crate::route::{ServicePort, target::split_port};

/// The domain of clusters, unless theirs was changed.
const CLUSTER_DOMAIN: &str = "cluster.local";

/// What a client connected to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Connected<'a> {
    pub(crate) service: &'a ServicePort,
    pub(crate) address: SocketAddr,
    /// Of the client: it completes the Service's name.
    pub(crate) namespace: &'a str,
}

impl Connected<'_> {
    /// Whether an authority, without its userinfo, means the Service itself: one of its names or its
    /// address, with its port or none.
    pub(super) fn is(&self, authority: &str) -> bool {
        let (host, port) = split_port(authority);
        let port_fits = match port {
            "" => true,
            port => {
                port.parse() == Ok(self.service.port) || port.parse() == Ok(self.address.port())
            }
        };
        port_fits && (self.is_address(host) || self.is_name(host))
    }

    fn is_address(&self, host: &str) -> bool {
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        host.parse::<IpAddr>().is_ok_and(|address| address == self.address.ip())
    }

    /// As the search list of a pod completes it (pods' /etc/resolv.conf, ndots:5).
    fn is_name(&self, host: &str) -> bool {
        let ServicePort { name, namespace, .. } = self.service;
        let (label, rest) = host.split_once('.').unwrap_or((host, ""));
        let (netns, rest) = rest.split_once('.').unwrap_or((rest, ""));
        let (kind, domain) = rest.split_once('.').unwrap_or((rest, ""));
        let domain = domain.strip_suffix('.').unwrap_or(domain);
        let same = |one: &str, other: &str| one.eq_ignore_ascii_case(other);
        same(label, name)
            && (same(netns, namespace) || (netns.is_empty() && self.namespace == namespace))
            && (kind.is_empty() || same(kind, "svc"))
            && (domain.is_empty() || same(domain, CLUSTER_DOMAIN))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is(authority: &str, address: &str, client: &str) -> bool {
        let service = ServicePort { namespace: "shop".into(), name: "cart".into(), port: 8000 };
        let address = address.parse().unwrap();
        Connected { service: &service, address, namespace: client }.is(authority)
    }

    #[test]
    fn the_services_names_and_address_are_its_own() {
        for authority in [
            "cart",
            "Cart:8000",
            "cart.shop",
            "cart.shop:8000",
            "cart.shop.svc",
            "cart.shop.svc.cluster.local",
            "cart.SHOP.svc.cluster.local.:8000",
            "cart:",
            "10.96.0.10",
            "10.96.0.10:8000",
        ] {
            assert!(is(authority, "10.96.0.10:8000", "shop"), "{authority}");
        }
        for authority in ["[fd00::10]", "[fd00:0::10]:8000"] {
            assert!(is(authority, "[fd00::10]:8000", "shop"), "{authority}");
        }
    }

    #[test]
    fn any_other_is_anothers() {
        for authority in [
            "",
            "other",
            "cart:80",
            "cart:99999",
            "cart.other",
            "cart.shop.example",
            "cart.shop.svc.example",
            "cart.shop.svc.cluster.local.example",
            "10.96.0.11",
            "10.96.0.10:80",
            "[fd00::10]:8000",
        ] {
            assert!(!is(authority, "10.96.0.10:8000", "shop"), "{authority}");
        }
        assert!(
            !is("cart", "10.96.0.10:8000", "elsewhere"),
            "the client means a Service of its own"
        );
        assert!(is("cart.shop", "10.96.0.10:8000", "elsewhere"));
    }
}

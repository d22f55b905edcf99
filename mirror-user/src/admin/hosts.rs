//! The names that this server accepts. In: a request. Out: whether its Host means this server. A web
//! page in a browser on the node, or behind a port-forward, can make its own name resolve to
//! loopback (DNS rebinding) and could then read the responses, but it can only send that name as Host.

use std::net::{Ipv4Addr, Ipv6Addr};

use http::{Request, header};

/// Names beside addresses and `localhost`, which are always this server's: no page is served by
/// either, but for those of this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hosts(Vec<String>);

impl Hosts {
    /// With these names, in any case.
    #[must_use]
    pub fn new(names: &[String]) -> Self {
        // An empty variable of the environment is an empty name.
        Self(names.iter().map(|name| plain(name)).filter(|name| !name.is_empty()).collect())
    }

    /// Whether every host that the request names is this server. A request without a host is HTTP/1.0,
    /// which no browser sends.
    pub(super) fn allow<B>(&self, request: &Request<B>) -> bool {
        let target = request.uri().authority().map(|authority| authority.as_str().as_bytes());
        let fields = request.headers().get_all(header::HOST).iter().map(|host| host.as_bytes());
        target.into_iter().chain(fields).all(|host| {
            std::str::from_utf8(host).is_ok_and(|host| self.is_ours(without_port(host)))
        })
    }

    fn is_ours(&self, host: &str) -> bool {
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let name = plain(host);
        bracketed.is_some_and(|v6| v6.parse::<Ipv6Addr>().is_ok())
            || host.parse::<Ipv4Addr>().is_ok()
            || name == "localhost"
            || self.0.contains(&name)
    }
}

fn plain(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allow(host: &str) -> bool {
        let names = ["mirror.shop.svc".into(), "Node-1".into(), String::new()];
        let request = Request::get("/config").header(header::HOST, host).body(()).unwrap();
        Hosts::new(&names).allow(&request)
    }

    #[test]
    fn addresses_localhost_and_names_of_a_flag_are_this_server() {
        for host in [
            "127.0.0.1:15920",
            "10.244.0.7",
            "[::1]:15920",
            "[fd00::1]",
            "localhost",
            "LocalHost.:15920",
            "mirror.shop.svc:15920",
            "node-1",
        ] {
            assert!(allow(host), "{host}");
        }
    }

    #[test]
    fn any_other_name_is_not() {
        for host in [
            "rebound.example:15920",
            "localhost.example",
            "127.0.0.1.example",
            "127.0.0.1@example",
            "127.1",
            "[::1].example",
            "[example]",
            "::1",
            "mirror.shop.svc.example",
            "",
            ":15920",
        ] {
            assert!(!allow(host), "{host}");
        }
    }

    #[test]
    fn every_name_of_a_request_counts() {
        let request = |uri: &str, hosts: &[&str]| {
            let mut request = Request::get(uri);
            for host in hosts {
                request = request.header(header::HOST, *host);
            }
            Hosts::default().allow(&request.body(()).unwrap())
        };
        assert!(request("/", &[]) && request("http://127.0.0.1/", &["localhost"]));
        assert!(!request("http://evil.example/", &["localhost"]));
        assert!(!request("/", &["localhost", "evil.example"]));
    }
}

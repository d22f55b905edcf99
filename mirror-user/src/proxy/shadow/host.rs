//! The copy's Host: `-shadow` appended to the host, as Envoy's request mirroring does, so that a
//! shadow can tell copies from requests.

use std::net::{Ipv4Addr, Ipv6Addr};

use http::HeaderValue;

/// The Host of a copy; None where it stays: an empty suffix, an IP address, an empty host.
pub(crate) fn shadow(host: &HeaderValue, suffix: &str) -> Option<HeaderValue> {
    let host = host.to_str().ok()?;
    let (name, port) = split_port(host);
    if suffix.is_empty() || name.is_empty() || is_address(name) {
        return None;
    }
    HeaderValue::try_from([name, suffix, port].concat()).ok()
}

/// The host, and `:port` or nothing. A colon inside brackets belongs to the address.
fn split_port(host: &str) -> (&str, &str) {
    match host.rfind(':') {
        Some(at) if !host[at..].contains(']') => host.split_at(at),
        _ => (host, ""),
    }
}

fn is_address(name: &str) -> bool {
    name.starts_with('[') || name.parse::<Ipv4Addr>().is_ok() || name.parse::<Ipv6Addr>().is_ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shadowed(host: &str) -> Option<String> {
        let host = HeaderValue::from_str(host).unwrap();
        shadow(&host, "-shadow").map(|h| h.to_str().unwrap().to_owned())
    }

    #[test]
    fn names_get_the_suffix_before_the_port() {
        for (host, expected) in [
            ("httpbin", "httpbin-shadow"),
            ("httpbin:8000", "httpbin-shadow:8000"),
            ("httpbin.default.svc.cluster.local:80", "httpbin.default.svc.cluster.local-shadow:80"),
            ("a:", "a-shadow:"),
            ("1.2.3.4.example", "1.2.3.4.example-shadow"),
        ] {
            assert_eq!(shadowed(host).as_deref(), Some(expected));
        }
    }

    #[test]
    fn addresses_and_empty_hosts_stay() {
        for host in
            ["10.96.0.1", "10.96.0.1:80", "[::1]", "[::1]:80", "[fe80::1%25eth0]", "", ":80"]
        {
            assert_eq!(shadowed(host), None, "{host}");
        }
        assert_eq!(shadow(&HeaderValue::from_static("a"), ""), None);
    }

    proptest! {
        #[test]
        fn a_name_and_port_come_out_with_the_suffix_between(
            name in "[a-z][a-z0-9-]{0,20}(\\.[a-z][a-z0-9]{0,9}){0,3}",
            port in proptest::option::of(0_u16..),
        ) {
            let port = port.map(|p| format!(":{p}")).unwrap_or_default();
            let expected = Some(format!("{name}-shadow{port}"));
            prop_assert_eq!(shadowed(&format!("{name}{port}")), expected);
        }
    }
}

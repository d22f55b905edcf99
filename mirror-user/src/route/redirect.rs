//! `RequestRedirect`: where a client is sent instead. In: the filter, a request's head and what the
//! client connected to. Out: the value of Location (RFC 9110, section 10.2.2), an absolute URI. Pure.

use std::{fmt, net::SocketAddr};

use http::{HeaderValue, StatusCode, header, request};

use super::{HttpScheme, PathModifier, Target, target::split_port};

/// `HTTPRequestRedirectFilter`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// `scheme`; None: that of the request.
    pub scheme: Option<HttpScheme>,
    /// `hostname`; None: that of Host.
    pub hostname: Option<String>,
    /// `port`; None: the well-known one of `scheme`, or else the one that the client connected to.
    pub port: Option<u16>,
    /// `path`; None: that of the request.
    pub path: Option<PathModifier>,
    /// `statusCode`: 301, 302, 303, 307 or 308.
    pub status: StatusCode,
}

impl Redirect {
    /// The value of Location. `scheme` is that of the request, `connected` the address that its client
    /// connected to, whose host stands for a Host that the request does not have (HTTP/1.0). The port
    /// is left out if it is the scheme's well-known one. None: it is no value of a field, which a
    /// Host and a target that were checked always are.
    #[must_use]
    pub fn location(
        &self,
        head: &request::Parts,
        scheme: HttpScheme,
        connected: SocketAddr,
    ) -> Option<HeaderValue> {
        let port = self.port.or(self.scheme.map(HttpScheme::port)).unwrap_or(connected.port());
        let scheme = self.scheme.unwrap_or(scheme);
        let mut location = format!("{}://{}", scheme.as_str(), self.host(head, connected));
        if port != scheme.port() {
            location.push_str(&format!(":{port}"));
        }
        let mut location = location.into_bytes();
        let target = Target::of(head);
        // Neither `*` nor the authority of CONNECT is a path.
        if target.path().starts_with(b"/") {
            match self.path.as_ref().and_then(|modifier| modifier.apply(target.path())) {
                Some(path) => location.extend_from_slice(&path),
                None => location.extend_from_slice(target.path()),
            }
            location.extend_from_slice(target.behind_path());
        }
        HeaderValue::from_bytes(&location).ok()
    }

    fn host(&self, head: &request::Parts, connected: SocketAddr) -> String {
        if let Some(hostname) = &self.hostname {
            return hostname.clone();
        }
        let host = head.headers.get(header::HOST).and_then(|host| host.to_str().ok());
        match host.map(|host| split_port(host).0) {
            Some(host) if !host.is_empty() => host.to_owned(),
            _ => match connected {
                SocketAddr::V4(address) => address.ip().to_string(),
                SocketAddr::V6(address) => format!("[{}]", address.ip()),
            },
        }
    }
}

impl fmt::Display for Redirect {
    /// `redirect 302: scheme https, host one.example, port 8443, path to /a`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scheme, hostname, port, path, status } = self;
        let parts = [
            scheme.map(|scheme| format!("scheme {}", scheme.as_str())),
            hostname.as_ref().map(|hostname| format!("host {hostname}")),
            port.map(|port| format!("port {port}")),
            path.as_ref().map(ToString::to_string),
        ];
        let parts: Vec<_> = parts.into_iter().flatten().collect();
        write!(f, "redirect {}: {}", status.as_u16(), parts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{Method, Request};

    use super::*;
    use crate::route::target;

    const PLAIN: Redirect = Redirect {
        scheme: None,
        hostname: None,
        port: None,
        path: None,
        status: StatusCode::FOUND,
    };

    fn head(method: Method, target: &[u8], host: &str) -> request::Parts {
        let mut head = Request::new(()).into_parts().0;
        head.method = method;
        if host != "none" {
            head.headers.insert(header::HOST, HeaderValue::from_str(host).unwrap());
        }
        target::set(&mut head, &Bytes::copy_from_slice(target), 0..target.len()).unwrap();
        head
    }

    fn location(redirect: &Redirect, target: &str, host: &str, connected: &str) -> String {
        let head = head(Method::GET, target.as_bytes(), host);
        let value = redirect.location(&head, HttpScheme::Http, connected.parse().unwrap());
        value.unwrap().to_str().unwrap().to_owned()
    }

    #[test]
    fn scheme_and_port_are_as_the_api_says() {
        use HttpScheme::{Http, Https};
        for (scheme, port, connected, expected) in [
            (None, None, "10.96.0.1:80", "http://a/"),
            (None, None, "10.96.0.1:8000", "http://a:8000/"),
            (None, None, "10.96.0.1:443", "http://a:443/"),
            (None, Some(80), "10.96.0.1:8000", "http://a/"),
            (None, Some(8083), "10.96.0.1:80", "http://a:8083/"),
            (None, Some(443), "10.96.0.1:80", "http://a:443/"),
            (Some(Https), None, "10.96.0.1:8000", "https://a/"),
            (Some(Http), None, "10.96.0.1:8000", "http://a/"),
            (Some(Https), Some(443), "10.96.0.1:8000", "https://a/"),
            (Some(Https), Some(80), "10.96.0.1:8000", "https://a:80/"),
            (Some(Http), Some(443), "10.96.0.1:8000", "http://a:443/"),
        ] {
            let redirect = Redirect { scheme, port, ..PLAIN };
            // The port of Host says nothing (HTTPRequestRedirectFilter, `port`).
            for host in ["a", "a:8000", "a:"] {
                assert_eq!(location(&redirect, "/", host, connected), expected, "{redirect:?}");
            }
        }
        let secure = PLAIN.location(
            &head(Method::GET, b"/", "a"),
            HttpScheme::Https,
            "10.96.0.1:443".parse().unwrap(),
        );
        assert_eq!(secure.unwrap(), "https://a/", "the scheme of the request");
    }

    #[test]
    fn the_host_is_the_filters_the_requests_or_what_the_client_connected_to() {
        let named = Redirect { hostname: Some("one.example".into()), ..PLAIN };
        for (redirect, host, connected, expected) in [
            (&named, "a:80", "10.96.0.1:80", "http://one.example/"),
            (&named, "none", "10.96.0.1:80", "http://one.example/"),
            (&PLAIN, "[fd00::1]:80", "10.96.0.1:80", "http://[fd00::1]/"),
            (&PLAIN, "none", "10.96.0.1:80", "http://10.96.0.1/"),
            (&PLAIN, "none", "[fd00::2]:81", "http://[fd00::2]:81/"),
            (&PLAIN, "", "10.96.0.1:80", "http://10.96.0.1/"),
            (&PLAIN, ":80", "10.96.0.1:80", "http://10.96.0.1/"),
        ] {
            assert_eq!(location(redirect, "/", host, connected), expected);
        }
    }

    #[test]
    fn path_and_query_stay_unless_the_path_is_replaced() {
        let replaced = |path| Redirect { path: Some(path), ..PLAIN };
        let prefix = replaced(PathModifier::prefix("/foo", "/xyz"));
        let full = replaced(PathModifier::full("/one"));
        for (redirect, target, expected) in [
            (&PLAIN, "/a//b/../c%2F?d=e?f", "http://a/a//b/../c%2F?d=e?f"),
            (&PLAIN, "/a?", "http://a/a?"),
            (&PLAIN, "/a?b#fragment", "http://a/a?b"),
            (&PLAIN, "//other.example/x", "http://a//other.example/x"),
            (&PLAIN, "http://ext.example?x=1", "http://a/?x=1"),
            (&PLAIN, "/a<b>`", "http://a/a<b>`"),
            (&prefix, "/foo/bar?q", "http://a/xyz/bar?q"),
            (&prefix, "/foo", "http://a/xyz"),
            (&full, "/foo/bar?q", "http://a/one?q"),
        ] {
            assert_eq!(location(redirect, target, "a", "10.96.0.1:80"), expected);
        }
        let other = |method, target: &[u8]| {
            let head = head(method, target, "a");
            full.location(&head, HttpScheme::Http, "10.96.0.1:80".parse().unwrap()).unwrap()
        };
        assert_eq!(other(Method::OPTIONS, b"*"), "http://a");
        assert_eq!(other(Method::CONNECT, b"ext:443"), "http://a");
        let latin = head(Method::GET, b"/caf\xe9", "a");
        let latin = PLAIN.location(&latin, HttpScheme::Http, "10.96.0.1:80".parse().unwrap());
        assert_eq!(latin.unwrap().as_bytes(), b"http://a/caf\xe9");
    }
}

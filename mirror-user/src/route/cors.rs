//! `CORS` (HTTPCORSFilter; the protocol is that of <https://fetch.spec.whatwg.org/#http-cors-protocol>).
//! In: a request's head. Out: the fields of the response to a preflight request, or those that another
//! response gets. Pure.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue, Method, header, request};

use super::{HttpScheme, retain, target::split_port};

/// `HTTPCORSFilter`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cors {
    /// `allowOrigins`; none of them: no origin is allowed.
    pub origins: AllowedOrigins,
    /// `allowCredentials`.
    pub credentials: bool,
    /// `allowMethods`.
    pub methods: Option<AllowedNames>,
    /// `allowHeaders`.
    pub headers: Option<AllowedNames>,
    /// `exposeHeaders`; with credentials never all.
    pub expose: Option<AllowedNames>,
    /// `maxAge`, in seconds.
    pub max_age: u32,
}

impl Default for Cors {
    /// What the API's defaults are: no origin is allowed, and a preflight response holds for 5 s.
    fn default() -> Self {
        let origins = AllowedOrigins::These(Vec::new());
        Self { origins, credentials: false, methods: None, headers: None, expose: None, max_age: 5 }
    }
}

/// Origins that may read responses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowedOrigins {
    /// `*`.
    Any,
    /// Any of these.
    These(Vec<Origin>),
}

/// Names of methods or of fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowedNames {
    /// `*`.
    Any,
    /// These, separated by commas.
    These(HeaderValue),
}

/// An entry of `allowOrigins`, or the origin of a request: scheme, host and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    scheme: HttpScheme,
    /// May begin with `*` in a route, which stands for any labels.
    host: String,
    port: u16,
}

impl Origin {
    /// `scheme://host` or `scheme://host:port`; None if it is neither. The host of a route's may be `*`
    /// or begin with `*.`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, authority) = text.split_once("://")?;
        let scheme = HttpScheme::parse(scheme)?;
        let (host, port) = split_port(authority);
        let port = match port {
            "" if authority.ends_with(':') => return None,
            "" => scheme.port(),
            digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok()?,
            _ => return None,
        };
        let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-._*[]:".contains(&byte);
        let fits = !host.is_empty() && port > 0 && host.bytes().all(is_host);
        fits.then(|| Self { scheme, host: host.to_ascii_lowercase(), port })
    }

    /// Whether this entry of a route allows the origin of a request.
    fn allows(&self, origin: &Self) -> bool {
        let host = match self.host.strip_prefix('*') {
            // At least one label, and any number of them.
            Some(suffix) => origin.host.len() > suffix.len() && origin.host.ends_with(suffix),
            None => self.host == origin.host,
        };
        self.scheme == origin.scheme && self.port == origin.port && host
    }
}

impl AllowedOrigins {
    fn allow(&self, origin: &HeaderValue) -> bool {
        match self {
            Self::Any => true,
            Self::These(entries) => {
                let origin = origin.to_str().ok().and_then(Origin::parse);
                origin.is_some_and(|origin| entries.iter().any(|entry| entry.allows(&origin)))
            }
        }
    }
}

const CREDENTIALS: HeaderName = header::ACCESS_CONTROL_ALLOW_CREDENTIALS;

impl Cors {
    /// The fields of the response to a preflight request: OPTIONS with an origin and the method that is
    /// to follow. None: the request is another one. An origin that is not allowed gets none of those that
    /// allow something, upon which the client fails by itself.
    #[must_use]
    pub fn preflight(&self, head: &request::Parts) -> Option<HeaderMap> {
        let method = head.headers.get(header::ACCESS_CONTROL_REQUEST_METHOD)?;
        let origin = head.headers.get(header::ORIGIN)?;
        if head.method != Method::OPTIONS {
            return None;
        }
        let mut fields = HeaderMap::new();
        if self.respond_to(Some(origin), &mut fields) {
            let names = head.headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS);
            let methods = self.names(self.methods.as_ref(), Some(method));
            let headers = self.names(self.headers.as_ref(), names);
            let allow = [
                (header::ACCESS_CONTROL_ALLOW_METHODS, methods),
                (header::ACCESS_CONTROL_ALLOW_HEADERS, headers),
                (header::ACCESS_CONTROL_MAX_AGE, Some(HeaderValue::from(self.max_age))),
            ];
            fields.extend(allow.into_iter().filter_map(|(name, value)| Some((name, value?))));
        }
        Some(fields)
    }

    /// Sets the fields of a response to a request of this origin, and returns whether it is allowed.
    /// What the primary says of the same is replaced; if the origin is not allowed, it stays.
    pub fn respond_to(&self, origin: Option<&HeaderValue>, fields: &mut HeaderMap) -> bool {
        let any = self.origins == AllowedOrigins::Any && !self.credentials;
        if !any && !varies_by_origin(fields) {
            // The response to another origin is another one.
            fields.append(header::VARY, HeaderValue::from_name(header::ORIGIN));
        }
        let Some(origin) = origin.filter(|origin| self.origins.allow(origin)) else { return false };
        let shown = if any { HeaderValue::from_static("*") } else { origin.clone() };
        fields.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, shown);
        if self.credentials {
            fields.insert(CREDENTIALS, HeaderValue::from_static("true"));
        } else if fields.contains_key(CREDENTIALS) {
            retain(fields, |name| *name != CREDENTIALS);
        }
        if let Some(expose) = self.names(self.expose.as_ref(), None) {
            fields.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, expose);
        }
        true
    }

    /// With credentials `*` would be a name like any other (Fetch), so that `requested` stands for it.
    fn names(
        &self,
        allowed: Option<&AllowedNames>,
        requested: Option<&HeaderValue>,
    ) -> Option<HeaderValue> {
        match allowed? {
            AllowedNames::These(names) => Some(names.clone()),
            AllowedNames::Any if self.credentials => requested.cloned(),
            AllowedNames::Any => Some(HeaderValue::from_static("*")),
        }
    }
}

/// Whether Vary says so already (RFC 9110, section 12.5.5).
fn varies_by_origin(fields: &HeaderMap) -> bool {
    let names = fields.get_all(header::VARY).iter();
    let mut names = names.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    names.any(|name| {
        let name = name.trim_ascii();
        name == b"*" || name.eq_ignore_ascii_case(b"origin")
    })
}

impl fmt::Display for Cors {
    /// `CORS: 2 origin(s), with credentials`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origins {
            AllowedOrigins::Any => f.write_str("CORS: any origin")?,
            AllowedOrigins::These(entries) => write!(f, "CORS: {} origin(s)", entries.len())?,
        }
        if self.credentials { f.write_str(", with credentials") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn origins(entries: &[&str]) -> AllowedOrigins {
        AllowedOrigins::These(entries.iter().map(|text| Origin::parse(text).unwrap()).collect())
    }

    fn these(names: &'static str) -> Option<AllowedNames> {
        Some(AllowedNames::These(HeaderValue::from_static(names)))
    }

    fn head(method: &str, fields: &[(&str, &str)]) -> request::Parts {
        let mut request = Request::builder().method(method);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    /// `name: value` of each field, in order.
    fn lines(fields: &HeaderMap) -> Vec<String> {
        let line = |(name, value): (&HeaderName, &HeaderValue)| {
            format!("{name}: {}", value.to_str().unwrap())
        };
        fields.iter().map(line).collect()
    }

    #[test]
    fn origins_match_by_scheme_host_and_port() {
        for (entry, origin, expected) in [
            ("https://www.foo.com", "https://www.foo.com", true),
            ("https://www.foo.com", "https://WWW.foo.com:443", true),
            ("https://www.foo.com:443", "https://www.foo.com", true),
            ("https://www.foo.com", "http://www.foo.com", false),
            ("https://www.foo.com", "https://www.foo.com:8443", false),
            ("https://www.foo.com", "https://foo.com", false),
            ("https://*.bar.com", "https://www.bar.com", true),
            ("https://*.bar.com", "https://a.www.bar.com", true),
            ("https://*.bar.com", "https://bar.com", false),
            ("https://*.bar.com", "https://.bar.com", false),
            ("https://*.bar.com", "https://foobar.com", false),
            ("https://*.bar.com:8443", "https://x.bar.com:8443", true),
            ("http://*", "http://anything:80", true),
            ("http://*", "http://anything:81", false),
            ("http://*", "https://anything", false),
            ("https://www.foo.com", "null", false),
            ("https://www.foo.com", "https://www.foo.com/", false),
            ("https://www.foo.com", "https://www.foo.com, https://b", false),
        ] {
            let allowed = origins(&["https://other.example", entry]);
            let origin = HeaderValue::from_static(origin);
            assert_eq!(allowed.allow(&origin), expected, "{entry} {origin:?}");
        }
        for text in
            ["foo.com", "ftp://foo.com", "https://", "https://a:", "https://a:b", "https://a:0"]
        {
            assert_eq!(Origin::parse(text), None, "{text}");
        }
    }

    const PREFLIGHT: [(&str, &str); 3] = [
        ("origin", "https://www.foo.com"),
        ("access-control-request-method", "PUT"),
        ("access-control-request-headers", "x-1, x-2"),
    ];

    #[test]
    fn a_preflight_request_gets_what_is_allowed() {
        let cors = Cors {
            origins: origins(&["https://www.foo.com"]),
            credentials: true,
            methods: these("GET, OPTIONS"),
            headers: these("x-header-1"),
            expose: these("x-header-3"),
            max_age: 3600,
        };
        let fields = cors.preflight(&head("OPTIONS", &PREFLIGHT)).unwrap();
        assert_eq!(
            lines(&fields),
            [
                "vary: origin",
                "access-control-allow-origin: https://www.foo.com",
                "access-control-allow-credentials: true",
                "access-control-expose-headers: x-header-3",
                "access-control-allow-methods: GET, OPTIONS",
                "access-control-allow-headers: x-header-1",
                "access-control-max-age: 3600",
            ]
        );
        let other = [("origin", "https://b"), ("access-control-request-method", "PUT")];
        assert_eq!(lines(&cors.preflight(&head("OPTIONS", &other)).unwrap()), ["vary: origin"]);
    }

    #[test]
    fn a_wildcard_is_never_shown_to_a_request_with_credentials() {
        let all = || Some(AllowedNames::Any);
        let (origins, expose) = (AllowedOrigins::Any, None);
        let mut cors = Cors { origins, methods: all(), headers: all(), expose, ..Cors::default() };
        let fields = |cors: &Cors, sent: &[(&str, &str)]| {
            lines(&cors.preflight(&head("OPTIONS", sent)).unwrap())
        };
        assert_eq!(
            fields(&cors, &PREFLIGHT),
            [
                "access-control-allow-origin: *",
                "access-control-allow-methods: *",
                "access-control-allow-headers: *",
                "access-control-max-age: 5",
            ]
        );
        cors.credentials = true;
        assert_eq!(
            fields(&cors, &PREFLIGHT),
            [
                "vary: origin",
                "access-control-allow-origin: https://www.foo.com",
                "access-control-allow-credentials: true",
                "access-control-allow-methods: PUT",
                "access-control-allow-headers: x-1, x-2",
                "access-control-max-age: 5",
            ]
        );
        let without = fields(&cors, &PREFLIGHT[..2]);
        assert!(!without.iter().any(|line| line.contains("allow-headers")), "{without:?}");
    }

    #[test]
    fn any_other_request_is_no_preflight() {
        let cors = Cors { origins: AllowedOrigins::Any, ..Cors::default() };
        for request in [
            head("GET", &PREFLIGHT),
            head("OPTIONS", &PREFLIGHT[..1]),
            head("OPTIONS", &PREFLIGHT[1..]),
        ] {
            assert_eq!(cors.preflight(&request), None, "{request:?}");
        }
    }

    #[test]
    fn a_response_says_what_the_route_allows_and_not_what_the_primary_does() {
        let cors = Cors {
            origins: origins(&["https://www.foo.com"]),
            expose: these("x-header-3"),
            ..Cors::default()
        };
        let primary = || {
            let mut fields = HeaderMap::new();
            fields.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
            fields.insert(CREDENTIALS, HeaderValue::from_static("true"));
            fields
        };
        let mut fields = primary();
        let origin = HeaderValue::from_static("https://www.foo.com");
        assert!(cors.respond_to(Some(&origin), &mut fields));
        let mut found = lines(&fields);
        found.sort();
        assert_eq!(
            found,
            [
                "access-control-allow-origin: https://www.foo.com",
                "access-control-expose-headers: x-header-3",
                "vary: origin",
            ]
        );
        for (said, expected) in [("accept, Origin", 1), ("*", 1), ("accept", 2), ("x-origin", 2)] {
            let mut fields = HeaderMap::new();
            fields.insert(header::VARY, HeaderValue::from_static(said));
            cors.respond_to(None, &mut fields);
            assert_eq!(fields.get_all(header::VARY).iter().count(), expected, "{said}");
        }
        for origin in [None, Some(HeaderValue::from_static("https://b"))] {
            let mut fields = primary();
            assert!(!cors.respond_to(origin.as_ref(), &mut fields));
            assert_eq!(fields.remove(header::VARY).unwrap(), "origin");
            assert_eq!(fields, primary());
        }
    }
}

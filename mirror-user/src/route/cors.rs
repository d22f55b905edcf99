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
mod tests;

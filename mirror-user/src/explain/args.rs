//! The command line of `mirror explain`: a request as a client would write it.

use std::{path::PathBuf, str::FromStr};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Uri, Version, header, request, uri};

use crate::{
    cli,
    proxy::grpc_status,
    route::{Values, target},
};

/// Flags of `mirror explain`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Exit code: 0 if a rule matches; 3 if mirror itself responds with 404 or \
                        400, or to a gRPC call with what stands for it; 4 if the connection is not captured or not parsed; 1 or 2 on errors.")]
pub struct ExplainArgs {
    /// Method of the request.
    #[arg(value_parser = method)]
    pub method: Method,

    /// URL that the client requests: http://HOST:PORT/PATH?QUERY, where only HOST is required. HOST is an
    /// IP address, or the name of a Service as a client resolves it: NAME, NAME.NAMESPACE,
    /// NAME.NAMESPACE.svc or NAME.NAMESPACE.svc.cluster.local.
    #[arg(value_name = "URL")]
    pub url: UrlTarget,

    /// Header of the request, as 'Name: value'. Host replaces that of the URL. With a Content-Type of
    /// application/grpc the request is a gRPC call. Repeatable.
    #[arg(short = 'H', long = "header", value_name = "HEADER", value_parser = field)]
    pub headers: Vec<(HeaderName, HeaderValue)>,

    /// Folder of Kubernetes YAML, as for `mirror agent`.
    #[arg(long, env = "MIRROR_ROUTES", value_name = "DIR")]
    pub routes: PathBuf,

    /// Namespace of the client, which completes host names and selects its consumer routes.
    #[arg(long, value_name = "NAMESPACE", default_value = "default",
          value_parser = cli::namespace)]
    pub client_namespace: String,

    /// Who chooses the endpoint of the primary, as for `mirror agent`.
    #[arg(long, env = "MIRROR_ENDPOINTS", value_enum, default_value = "mirror")]
    pub endpoints: cli::EndpointsArg,

    /// Suffix appended to the host name in the Host of each copy, as for `mirror agent`.
    #[arg(long = "shadow-host-suffix", visible_alias = "host-suffix",
          env = "MIRROR_SHADOW_HOST_SUFFIX", value_name = "SUFFIX", default_value = "-shadow",
          allow_hyphen_values = true, value_parser = cli::suffix)]
    pub host_suffix: String,

    /// Show the values of headers and query parameters that matches require. By default they are printed
    /// as (hidden), because they may be secrets.
    #[arg(long)]
    pub show_values: bool,

    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

impl ExplainArgs {
    pub(super) fn values(&self) -> Values {
        if self.show_values { Values::Shown } else { Values::Hidden }
    }

    /// The head that a client would send: the target in origin form, Host from the URL.
    pub(super) fn head(&self) -> request::Parts {
        let mut head = Request::new(()).into_parts().0;
        head.method = self.method.clone();
        if self.method == Method::CONNECT {
            head.uri = Uri::from(self.url.authority());
        } else {
            let bytes = Bytes::copy_from_slice(self.url.target.as_bytes());
            let place = 0..bytes.len();
            target::set(&mut head, &bytes, place).expect("a target begins with a slash");
        }
        if self.headers.iter().all(|(name, _)| name != header::HOST) {
            head.headers.insert(header::HOST, self.url.host_field());
        }
        for (name, value) in &self.headers {
            head.headers.append(name.clone(), value.clone());
        }
        // gRPC has no other.
        head.version = Version::HTTP_2;
        if !grpc_status::is_call(&head) {
            head.version = Version::HTTP_11;
        }
        head
    }
}

/// The URL, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UrlTarget {
    /// Host name or address, as given, an IPv6 address without its brackets.
    pub host: String,
    /// Port, 80 where there is none.
    pub port: u16,
    /// Path and query; `/` where there is none.
    pub target: String,
    authority: uri::Authority,
}

/// What is wrong with a URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// `https` and all else.
    #[error("only http:// is parsed and mirrored; TLS and other protocols pass through untouched")]
    Scheme,
    /// `user:password@`.
    #[error("a request carries no user information: give -H 'Authorization: ...' instead")]
    UserInfo,
    /// Nothing before the path.
    #[error("missing host: write http://HOST[:PORT]/PATH, for example http://httpbin:8000/get")]
    NoHost,
    /// A port outside 1 to 65535, or none after the colon.
    #[error("{0:?} is not a port, 1 to 65535")]
    Port(String),
    /// What a client could not send.
    #[error("{0:?} cannot be sent as it is ({1}): escape it as %XX")]
    Malformed(String, String),
}

impl FromStr for UrlTarget {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        // The part behind '#' stays with the client (RFC 9110, section 4.2.5).
        let text = text.split_once('#').map_or(text, |(sent, _)| sent);
        let rest = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
            Some((scheme, _)) if !scheme.contains(['/', '?']) => return Err(TargetError::Scheme),
            _ => text,
        };
        let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err(TargetError::UserInfo);
        }
        let slash = if target.starts_with('/') { "" } else { "/" };
        let target = format!("{slash}{target}");
        if target.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
            let why = "whitespace or a control character".to_owned();
            return Err(TargetError::Malformed(rest.to_owned(), why));
        }
        let (host, port) = split_port(authority)?;
        if host.is_empty() {
            return Err(TargetError::NoHost);
        }
        let authority = uri::Authority::from_str(authority.trim_end_matches(':'))
            .map_err(|error| TargetError::Malformed(authority.to_owned(), error.to_string()))?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self { host, port, target, authority })
    }
}

impl UrlTarget {
    /// As clients write it: without the port where it is the scheme's own.
    fn host_field(&self) -> HeaderValue {
        let authority = self.authority.as_str();
        let field = if self.port == 80 { self.authority.host() } else { authority };
        HeaderValue::from_str(field).expect("an authority may have visible ASCII only")
    }

    /// `HOST:PORT`, as CONNECT asks for it.
    fn authority(&self) -> uri::Authority {
        self.authority.clone()
    }
}

/// A colon within brackets belongs to the address.
fn split_port(authority: &str) -> Result<(&str, u16), TargetError> {
    match authority.rsplit_once(':') {
        Some((host, "")) => Ok((host, 80)),
        Some((host, port)) if !port.contains(']') => match port.parse() {
            Ok(number @ 1..) if port.bytes().all(|b| b.is_ascii_digit()) => Ok((host, number)),
            _ => Err(TargetError::Port(port.to_owned())),
        },
        _ => Ok((authority, 80)),
    }
}

fn method(text: &str) -> Result<Method, String> {
    let method = Method::from_str(text).map_err(|_| "not a token (RFC 9110, section 5.6.2)")?;
    // Methods have a case, and those in use are capitals: a slip is likelier than a method "get".
    let upper = text.to_ascii_uppercase();
    if upper != text && is_standard(&upper) {
        return Err(format!("methods are case-sensitive: write {upper}"));
    }
    Ok(method)
}

fn is_standard(method: &str) -> bool {
    let standard = "GET HEAD POST PUT DELETE CONNECT OPTIONS TRACE PATCH";
    standard.split(' ').any(|name| name == method)
}

fn field(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("missing ':': write 'Name: value'")?;
    let name = HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| format!("{name:?} is not a header name (RFC 9110, section 5.1)"))?;
    let value = HeaderValue::from_bytes(value.trim_matches([' ', '\t']).as_bytes())
        .map_err(|_| format!("{value:?} is not a valid header value"))?;
    Ok((name, value))
}

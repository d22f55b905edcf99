//! The command line of `mirror explain`: a request as a client would write it.

use std::{path::PathBuf, str::FromStr};

use http::{HeaderName, HeaderValue, Method, Request, Uri, Version, header, request, uri};

use crate::cli;

/// Flags of `mirror explain`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Exit code: 0 a rule matches; 3 mirror answers 404 or 400 itself; 4 not \
                        captured, or passed through unparsed; 1 and 2 errors.")]
pub struct ExplainArgs {
    /// Method of the request.
    #[arg(value_parser = method)]
    pub method: Method,

    /// Where the client connects to: http://HOST:PORT/PATH?QUERY; all but HOST may be left out.
    /// HOST is a Service's name as a client resolves it (NAME, NAME.NAMESPACE,
    /// NAME.NAMESPACE.svc, NAME.NAMESPACE.svc.cluster.local) or an address.
    #[arg(value_name = "URL")]
    pub url: Target,

    /// A header of the request, as 'Name: value'; repeatable. Host replaces the URL's.
    #[arg(short = 'H', long = "header", value_name = "HEADER", value_parser = field)]
    pub headers: Vec<(HeaderName, HeaderValue)>,

    /// Folder of Kubernetes YAML, as the agent's.
    #[arg(long, env = "MIRROR_ROUTES", value_name = "DIR")]
    pub routes: PathBuf,

    /// Namespace of the client: it completes names, and consumer routes hold for it.
    #[arg(long, value_name = "NAMESPACE", default_value = "default",
          value_parser = cli::namespace)]
    pub client_namespace: String,

    /// Appended to the host part of a copy's Host, as the agent's flag of that name.
    #[arg(long = "shadow-host-suffix", visible_alias = "host-suffix",
          env = "MIRROR_SHADOW_HOST_SUFFIX", value_name = "SUFFIX", default_value = "-shadow",
          allow_hyphen_values = true, value_parser = cli::suffix)]
    pub host_suffix: String,

    /// Write one JSON object.
    #[arg(long)]
    pub json: bool,
}

impl ExplainArgs {
    /// The head that a client would send: the target in origin form, Host from the URL.
    pub(super) fn head(&self) -> request::Parts {
        let mut head = Request::new(()).into_parts().0;
        head.method = self.method.clone();
        head.version = Version::HTTP_11;
        head.uri = match self.method {
            Method::CONNECT => Uri::from(self.url.authority()),
            _ => Uri::from(self.url.target.clone()),
        };
        if self.headers.iter().all(|(name, _)| name != header::HOST) {
            head.headers.insert(header::HOST, self.url.host_field());
        }
        for (name, value) in &self.headers {
            head.headers.append(name.clone(), value.clone());
        }
        head
    }
}

/// The URL, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Host name or address, as given, an IPv6 address without its brackets.
    pub host: String,
    /// Port, 80 where there is none.
    pub port: u16,
    /// Path and query; `/` where there is none.
    pub target: uri::PathAndQuery,
    authority: uri::Authority,
}

/// What is wrong with a URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// `https` and all else.
    #[error("only http:// is parsed and mirrored; TLS and other protocols pass through untouched")]
    Scheme,
    /// `user:password@`.
    #[error("user information is no part of a request: give -H 'Authorization: ...' instead")]
    UserInfo,
    /// Nothing before the path.
    #[error("there is no host: write http://HOST[:PORT]/PATH, for example http://httpbin:8000/get")]
    NoHost,
    /// A port outside 1 to 65535, or none after the colon.
    #[error("{0:?} is not a port, 1 to 65535")]
    Port(String),
    /// What a client could not send.
    #[error("{0:?} cannot be sent as it is ({1}): escape it as %XX")]
    Malformed(String, String),
}

impl FromStr for Target {
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
        let target = uri::PathAndQuery::try_from(format!("{slash}{target}"));
        let target =
            target.map_err(|error| TargetError::Malformed(rest.to_owned(), error.to_string()))?;
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

impl Target {
    /// As clients write it: without the port where it is the scheme's own.
    fn host_field(&self) -> HeaderValue {
        let authority = self.authority.as_str();
        let field = if self.port == 80 { self.authority.host() } else { authority };
        HeaderValue::from_str(field).expect("an authority is visible ASCII")
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
    let (name, value) = text.split_once(':').ok_or("there is no ':': write 'Name: value'")?;
    let name = HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| format!("{name:?} is not a header name (RFC 9110, section 5.1)"))?;
    let value = HeaderValue::from_bytes(value.trim_matches([' ', '\t']).as_bytes())
        .map_err(|_| format!("{value:?} cannot be sent as a header's value"))?;
    Ok((name, value))
}

//! `cors`.

use gateway_api::httproutes::HttpRouteRulesFiltersCors as Typed;
use http::{HeaderName, HeaderValue, Method};

use crate::{
    control::decode::{DecodeFault, Decoded, fault::fail},
    route::{AllowedNames, AllowedOrigins, Cors, Origin},
};

/// Entries of each list but that of methods, by the API.
const MAX_ENTRIES: usize = 64;

/// Default of the API (HTTPCORSFilter, `maxAge`), in seconds.
const MAX_AGE: u32 = 5;

/// Those that the API knows (HTTPMethodWithWildcard).
const METHODS: [Method; 9] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::DELETE,
    Method::CONNECT,
    Method::OPTIONS,
    Method::TRACE,
    Method::PATCH,
];

pub(super) fn cors(path: &str, typed: Typed) -> Decoded<Cors> {
    let at = |field: &str| format!("{path}.{field}");
    let credentials = typed.allow_credentials.unwrap_or_default();
    let headers = typed.allow_headers.unwrap_or_default();
    let mut expose = typed.expose_headers.unwrap_or_default();
    if expose.iter().any(|name| name == "*") {
        // With credentials it must not be sent, and would mean a field of that name.
        expose.retain(|name| (name == "*") != credentials);
    }
    Ok(Cors {
        origins: origins(&at("allowOrigins"), &typed.allow_origins.unwrap_or_default())?,
        credentials,
        methods: names(
            &at("allowMethods"),
            &typed.allow_methods.unwrap_or_default(),
            |name| METHODS.iter().any(|method| method == name),
            "a method of the API (GET, HEAD, POST, PUT, DELETE, CONNECT, OPTIONS, TRACE, PATCH)",
        )?,
        headers: names(&at("allowHeaders"), &headers, is_field, "a header name")?,
        expose: names(&at("exposeHeaders"), &expose, is_field, "a header name")?,
        max_age: max_age(&at("maxAge"), typed.max_age)?,
    })
}

fn is_field(name: &str) -> bool {
    HeaderName::from_bytes(name.as_bytes()).is_ok()
}

fn max_age(path: &str, seconds: Option<i32>) -> Decoded<u32> {
    match seconds.map(u32::try_from) {
        None => Ok(MAX_AGE),
        Some(Ok(seconds @ 1..)) => Ok(seconds),
        Some(_) => fail(path, DecodeFault::Invalid("is less than 1 second".into())),
    }
}

fn origins(path: &str, entries: &[String]) -> Decoded<AllowedOrigins> {
    if is_wildcard(path, entries)? {
        return Ok(AllowedOrigins::Any);
    }
    let entries = entries.iter().enumerate().map(|(at, text)| {
        let host = text.split_once("://").map_or("", |(_, authority)| authority);
        let any = host.strip_prefix('*').filter(|rest| rest.is_empty() || rest.starts_with(':'));
        let inner = host.strip_prefix("*.").or(any).unwrap_or(host);
        match Origin::parse(text).filter(|_| !inner.contains(['*', '[', '_'])) {
            Some(origin) => Ok(origin),
            None => {
                let reason = format!(
                    "{text:?} is not an origin: http or https, ://, and a host, which may be * or \
                     begin with *., then perhaps a port"
                );
                fail(format!("{path}[{at}]"), DecodeFault::Invalid(reason))
            }
        }
    });
    entries.collect::<Decoded<_>>().map(AllowedOrigins::These)
}

/// None if there is no entry.
fn names(
    path: &str,
    entries: &[String],
    is_valid: impl Fn(&str) -> bool,
    what: &str,
) -> Decoded<Option<AllowedNames>> {
    if is_wildcard(path, entries)? {
        return Ok(Some(AllowedNames::Any));
    }
    if let Some(at) = entries.iter().position(|name| !is_valid(name)) {
        let reason = format!("{:?} is not {what}", entries[at]);
        return fail(format!("{path}[{at}]"), DecodeFault::Invalid(reason));
    }
    // Only names are left.
    let value = HeaderValue::try_from(entries.join(", ")).ok();
    Ok(value.filter(|value| !value.is_empty()).map(AllowedNames::These))
}

/// Whether the list is `*`.
fn is_wildcard(path: &str, entries: &[String]) -> Decoded<bool> {
    if entries.len() > MAX_ENTRIES {
        let reason = format!("{} entries: the API allows {MAX_ENTRIES}", entries.len());
        return fail(path, DecodeFault::Invalid(reason));
    }
    let wildcard = entries.iter().any(|entry| entry == "*");
    if wildcard && entries.len() > 1 {
        return fail(path, DecodeFault::Invalid("has other entries beside *".into()));
    }
    Ok(wildcard)
}

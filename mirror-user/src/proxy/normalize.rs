//! Dresses a request's head for the next hop. Between the hops a head has one form, whatever it
//! came by: a target in origin form, and the authority in Host. In: that form. Out: the one that
//! HTTP/1 or HTTP/2 wants (RFC 9113, section 8.3). Each undoes what the other did, so that a
//! request may be tried on one after the other. Pure.

use h2::ext::Protocol;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Uri, Version, header, request,
    uri::{Authority, PathAndQuery, Scheme},
};

use super::validate::Malformed;
use crate::route::{HttpScheme, Verbatim, retain};

/// The scheme of a request that did not come with `http`; kept for an upstream of HTTP/2.
#[derive(Clone, Debug)]
struct Secure;

const TRAILERS: HeaderValue = HeaderValue::from_static("trailers");

/// Connection-specific fields, which HTTP/2 forbids (RFC 9113, section 8.2.2).
const CONNECTION_FIELDS: [HeaderName; 5] = [
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Gives a head that came by HTTP/2 the common form.
///
/// # Errors
/// Host and `:authority` name different hosts (RFC 9113, section 8.3.1).
pub(super) fn from_http2(head: &mut request::Parts) -> Result<(), Malformed> {
    if head.uri.scheme() == Some(&Scheme::HTTPS) {
        head.extensions.insert(Secure);
    }
    if let Some(authority) = head.uri.authority() {
        let host = HeaderValue::from_str(authority.as_str()).map_err(|_| Malformed::BadHost)?;
        let mut host_field = head.headers.get_all(header::HOST).iter();
        if host_field.any(|host_field| !host_field.as_bytes().eq_ignore_ascii_case(host.as_bytes()))
        {
            return Err(Malformed::ManyHosts);
        }
        head.headers.insert(header::HOST, host);
    }
    if head.method != Method::CONNECT || head.extensions.get::<Protocol>().is_some() {
        let target = head.uri.path_and_query().cloned();
        head.uri = target.map_or_else(|| Uri::from_static("/"), Uri::from);
    }
    Ok(())
}

/// The scheme of a request in the common form: `http` unless it came with another that a route knows.
pub(super) fn scheme(head: &request::Parts) -> HttpScheme {
    let secure = head.extensions.get::<Secure>().is_some();
    if secure || head.uri.scheme() == Some(&Scheme::HTTPS) {
        HttpScheme::Https
    } else {
        HttpScheme::Http
    }
}

/// For a hop of HTTP/1. `bodiless`: nothing follows the head.
pub(super) fn for_http1(head: &mut request::Parts, bodiless: bool) {
    if head.version != Version::HTTP_2 {
        return;
    }
    head.version = Version::HTTP_11;
    join_cookies(&mut head.headers);
    if !head.headers.contains_key(header::HOST) {
        head.headers.insert(header::HOST, HeaderValue::from_static(""));
    }
    // A hop-by-hop field in HTTP/1 (RFC 9110, section 10.1.4).
    if head.headers.contains_key(header::TE) {
        head.headers.insert(header::CONNECTION, HeaderValue::from_static("te"));
    }
    if !bodiless && !head.headers.contains_key(header::CONTENT_LENGTH) {
        head.headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
}

/// For a hop of HTTP/2: the head as a request of the h2 crate.
///
/// # Errors
/// The Host cannot be an authority, or the target has bytes that the h2 crate does not carry.
pub(super) fn for_http2(head: &mut request::Parts) -> Result<http::Request<()>, Malformed> {
    if Verbatim::of(head).is_some_and(|verbatim| !verbatim.is_held()) {
        return Err(Malformed::RawTarget);
    }
    let mut request = http::Request::new(());
    let host = head.headers.get(header::HOST).map(|host| Authority::try_from(host.as_bytes()));
    let authority = host.transpose().map_err(|_| Malformed::BadHost)?;
    let protocol = head.extensions.remove::<Protocol>();
    let mut parts = http::uri::Parts::default();
    parts.authority = authority;
    if head.method != Method::CONNECT || protocol.is_some() {
        let secure = head.extensions.get::<Secure>().is_some();
        parts.scheme = Some(if secure { Scheme::HTTPS } else { Scheme::HTTP });
        let target = head.uri.path_and_query().cloned();
        parts.path_and_query = Some(target.unwrap_or_else(|| PathAndQuery::from_static("/")));
    }
    if parts.authority.is_none() {
        // A URI with a scheme needs one; h2 takes the path alone from a request of HTTP/1.
        parts.scheme = None;
        *request.version_mut() = Version::HTTP_11;
    } else {
        *request.version_mut() = Version::HTTP_2;
    }
    *request.uri_mut() = Uri::from_parts(parts).map_err(|_| Malformed::BadHost)?;
    *request.method_mut() = head.method.clone();
    *request.headers_mut() = std::mem::take(&mut head.headers);
    if let Some(protocol) = protocol {
        request.extensions_mut().insert(protocol);
    }
    let headers = request.headers_mut();
    headers.remove(header::HOST);
    remove_connection_fields(headers);
    if headers.get(header::TE).is_some_and(|te| te != TRAILERS) {
        headers.remove(header::TE);
    }
    Ok(request)
}

/// Removes what HTTP/2 forbids, in requests and responses.
pub(super) fn remove_connection_fields(headers: &mut HeaderMap) {
    // One pass over a few fields costs less than looking each of these up.
    if headers.keys().any(|name| CONNECTION_FIELDS.contains(name)) {
        retain(headers, |name| !CONNECTION_FIELDS.contains(name));
    }
}

/// Removes from trailers what HTTP/2 forbids in any field section (RFC 9113, section 8.2.2): by HTTP/1
/// they mean nothing there, and servers pass over them.
pub(super) fn trailers_for_http2(trailers: &mut HeaderMap) {
    remove_connection_fields(trailers);
    if trailers.contains_key(header::TE) {
        trailers.remove(header::TE);
    }
}

/// RFC 9113, section 8.2.3: cookies may come in several fields, and leave in one.
fn join_cookies(headers: &mut HeaderMap) {
    let mut cookies = headers.get_all(header::COOKIE).iter();
    let (Some(first), Some(_)) = (cookies.next(), cookies.next()) else { return };
    let mut joined = first.as_bytes().to_vec();
    for cookie in headers.get_all(header::COOKIE).iter().skip(1) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(cookie.as_bytes());
    }
    // Made of parts of valid values.
    if let Ok(joined) = HeaderValue::from_bytes(&joined) {
        headers.insert(header::COOKIE, joined);
    }
}

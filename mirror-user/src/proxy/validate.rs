//! Framing and Host rules: what leaves has exactly one framing and at most one Host, and no field
//! that speaks of a single hop (RFC 9110, section 7.6.1; RFC 9112, sections 3.2 and 6).
//!
//! The parser has refused differing Content-Lengths, obs-fold, NUL and bare CR, and dropped a
//! Content-Length beside a Transfer-Encoding; what it leaves open is decided here. Pure.

use std::collections::HashSet;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Version, header, request, response};

use super::{
    authority::Connected,
    upgrade::{self, UpgradeRequest},
};
use crate::route::{
    Verbatim, retain,
    target::{self, InvalidTarget},
};

/// How a request is to be carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RequestKind {
    /// A message with a response.
    Message,
    /// The same, and it asks to switch protocols, which most servers pass over: Upgrade to anything
    /// but WebSocket.
    Upgrade,
    /// Asks for a tunnel: CONNECT, or Upgrade to WebSocket.
    Tunnel,
}

/// Why a request is answered with 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("an HTTP/1.1 request needs a Host field (RFC 9112, section 3.2)")]
    NoHost,
    #[error("more than one Host field (RFC 9112, section 3.2)")]
    ManyHosts,
    #[error("the Host field is not host[:port] (RFC 9110, section 7.2)")]
    BadHost,
    #[error("the request target is not of a form that the method has (RFC 9112, section 3.2)")]
    BadTarget,
    #[error("HTTP/2 cannot carry the request target: it has bytes that no URI has (RFC 3986)")]
    RawTarget,
    #[error("a CONNECT request has no content (RFC 9110, section 9.3.6)")]
    ConnectContent,
    #[error("Content-Length fields that differ or are no numbers (RFC 9110, section 8.6)")]
    Lengths,
    #[error("the Transfer-Encoding is not \"chunked\" alone (RFC 9112, section 6.1)")]
    Encoding,
}

/// Hop-by-hop in every message; `Transfer-Encoding` is left to the codec, which checks it against the
/// body that it writes.
const HOP_BY_HOP: [HeaderName; 3] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Checks a request's head and makes it fit to be sent on. `to`: what its client connected to.
///
/// # Errors
/// What is malformed; the head is then to be answered with 400.
pub(crate) fn prepare_request(
    head: &mut request::Parts,
    to: Connected<'_>,
) -> Result<RequestKind, Malformed> {
    check_host(head)?;
    check_encoding(&head.headers)?;
    check_length(&mut head.headers)?;
    if head.method == Method::CONNECT {
        check_connect(head)?;
        return Ok(RequestKind::Tunnel);
    }
    prepare_absolute(head, to)?;
    match requested_upgrade(head) {
        UpgradeRequest::Stay => {
            remove_hop_by_hop(&mut head.headers);
            Ok(RequestKind::Message)
        }
        UpgradeRequest::Other => {
            keep_upgrade(&mut head.headers);
            Ok(RequestKind::Upgrade)
        }
        UpgradeRequest::WebSocket => Ok(RequestKind::Tunnel),
    }
}

/// The same request as a shadow gets it: what it asks to switch to is between the client and the
/// primary.
pub(crate) fn without_upgrade(head: &request::Parts) -> request::Parts {
    let mut copy = head.clone();
    copy.headers.remove(header::CONNECTION);
    upgrade::remove(&mut copy.headers);
    copy
}

/// Makes a response's head fit for the client, whose connection has a life of its own.
pub(super) fn prepare_response(head: &mut response::Parts) {
    remove_hop_by_hop(&mut head.headers);
    head.version = Version::HTTP_11;
}

/// The same for the response that opens a tunnel: a framing is to be ignored there (RFC 9110, section
/// 9.3.6).
pub(super) fn prepare_tunnel(head: &mut response::Parts) {
    retain(&mut head.headers, |name| {
        name != header::CONTENT_LENGTH && name != header::TRANSFER_ENCODING
    });
}

fn check_host(head: &request::Parts) -> Result<(), Malformed> {
    let mut hosts = head.headers.get_all(header::HOST).iter();
    let Some(host) = hosts.next() else {
        return if head.version == Version::HTTP_11 { Err(Malformed::NoHost) } else { Ok(()) };
    };
    if hosts.next().is_some() {
        return Err(Malformed::ManyHosts);
    }
    let plain = host.as_bytes().iter().all(|b| HOST_BYTES[usize::from(*b)]);
    if plain { Ok(()) } else { Err(Malformed::BadHost) }
}

/// What a Host may be made of: visible characters, without those that part a URI or never stand in one.
/// (A comma may stand in a name: RFC 3986, section 3.2.2.) A table, since each byte of each request's
/// Host is looked up.
const HOST_BYTES: [bool; 256] = {
    const PARTS: &[u8] = b"/?#@\\\"<>{}|^`";
    let mut allowed = [false; 256];
    let mut byte = b'!' as usize;
    while byte <= b'~' as usize {
        allowed[byte] = true;
        byte += 1;
    }
    let mut at = 0;
    while at < PARTS.len() {
        allowed[PARTS[at] as usize] = false;
        at += 1;
    }
    allowed
};

/// `gzip, chunked` would be decoded by one recipient and not by another.
fn check_encoding(headers: &HeaderMap) -> Result<(), Malformed> {
    let mut encodings = headers.get_all(header::TRANSFER_ENCODING).iter();
    match (encodings.next(), encodings.next()) {
        (None, _) => Ok(()),
        (Some(one), None) if one.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => Err(Malformed::Encoding),
    }
}

/// The parser has refused differing lengths and merged equal ones where they came by HTTP/1; by HTTP/2
/// both arrive, and an HTTP/1 upstream would get them as they are.
fn check_length(headers: &mut HeaderMap) -> Result<(), Malformed> {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(length) = lengths.next().cloned() else { return Ok(()) };
    // By HTTP/2 what it says is not looked at where there is no content to count.
    if length.is_empty() || !length.as_bytes().iter().all(u8::is_ascii_digit) {
        return Err(Malformed::Lengths);
    }
    let mut count = 1;
    for other in lengths {
        if *other != length {
            return Err(Malformed::Lengths);
        }
        count += 1;
    }
    if count > 1 {
        headers.insert(header::CONTENT_LENGTH, length);
    }
    Ok(())
}

/// Nothing is framed: what stands behind the head would be the content to one recipient and the
/// tunnel's first bytes to another. By HTTP/1 the target is an authority (RFC 9112, section 3.2.3);
/// by HTTP/2 it may be a path as well (RFC 8441, section 4).
fn check_connect(head: &request::Parts) -> Result<(), Malformed> {
    if head.uri.authority().is_none() && head.version <= Version::HTTP_11 {
        return Err(Malformed::BadTarget);
    }
    let framed = [header::CONTENT_LENGTH, header::TRANSFER_ENCODING];
    let content = framed.iter().any(|name| head.headers.contains_key(name));
    if content { Err(Malformed::ConnectContent) } else { Ok(()) }
}

/// RFC 9112, section 3.2.2: the authority of a target in absolute form replaces what Host says. To
/// the Service whose own it is the request goes in origin form; to any other, which is a forward
/// proxy, as it came. An authority alone is CONNECT's (section 3.2.3): in `GET x` the `x` is no
/// path, and must not become the Host.
fn prepare_absolute(head: &mut request::Parts, to: Connected<'_>) -> Result<(), Malformed> {
    let Some(authority) = head.uri.authority() else { return Ok(()) };
    if head.uri.scheme().is_none() {
        return Err(Malformed::BadTarget);
    }
    let Some(verbatim) = Verbatim::of(head).filter(|verbatim| verbatim.is_absolute()) else {
        return Ok(());
    };
    let host = strip_userinfo(authority.as_str());
    let origin = to.is(host).then(|| verbatim.origin_form(head.method == Method::OPTIONS));
    let host_field = head.headers.get(header::HOST).map(HeaderValue::as_bytes);
    if host_field.is_none_or(|host_field| !host_field.eq_ignore_ascii_case(host.as_bytes()))
        && let Ok(host) = HeaderValue::from_str(host)
    {
        head.headers.insert(header::HOST, host);
    }
    match origin {
        Some(origin) => {
            let netns = 0..origin.len();
            target::set(head, &origin, netns).map_err(|InvalidTarget| Malformed::BadTarget)
        }
        None => Ok(()),
    }
}

fn strip_userinfo(authority: &str) -> &str {
    authority.rsplit_once('@').map_or(authority, |(_, host)| host)
}

/// What the request asks to switch to; what says so is taken out where that is nothing. An Upgrade
/// that Connection does not name speaks to nobody, and one by HTTP/1.0 is to be ignored (RFC 9110,
/// section 7.8).
fn requested_upgrade(head: &mut request::Parts) -> UpgradeRequest {
    if !head.headers.contains_key(header::UPGRADE) {
        return UpgradeRequest::Stay;
    }
    let asks = head.version == Version::HTTP_11 && connection_names(&head.headers, b"upgrade");
    let upgrade_request =
        if asks { upgrade::read(&mut head.headers) } else { UpgradeRequest::Stay };
    if upgrade_request == UpgradeRequest::Stay {
        upgrade::remove(&mut head.headers);
    }
    upgrade_request
}

/// Removes what speaks of the client's connection alone, so that the request may share the
/// connection of others to the primary, and leaves what it asks to switch to.
fn keep_upgrade(headers: &mut HeaderMap) {
    let named = connection_fields(headers);
    let alone = headers.get_all(header::CONNECTION).iter().count() == 1
        && headers[header::CONNECTION].as_bytes().eq_ignore_ascii_case(b"upgrade");
    if !alone {
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    }
    retain(headers, |name| {
        *name == header::CONNECTION || *name == header::UPGRADE || !is_hop_by_hop(name, &named)
    });
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    // One pass over a few fields costs less than looking each of these up.
    if !headers.keys().any(|name| HOP_BY_HOP.contains(name)) {
        return;
    }
    let named = connection_fields(headers);
    retain(headers, |name| !is_hop_by_hop(name, &named));
}

/// The fields that Connection names and that are there: looked up once each, however many it names.
fn connection_fields(headers: &HeaderMap) -> Named {
    let options = headers.get_all(header::CONNECTION).iter();
    let tokens = options.flat_map(|v| v.as_bytes().split(|b| *b == b',')).map(<[u8]>::trim_ascii);
    tokens
        .filter(|connection_ref| {
            !OPTIONS.iter().any(|option| connection_ref.eq_ignore_ascii_case(option))
        })
        .filter_map(|connection_ref| HeaderName::from_bytes(connection_ref).ok())
        .filter(|name| headers.contains_key(name) && !PROTECTED.contains(name))
        .collect()
}

/// Names of fields. Their hashes are keyed: they are a peer's.
type Named = HashSet<HeaderName, foldhash::fast::RandomState>;

fn is_hop_by_hop(name: &HeaderName, named: &Named) -> bool {
    HOP_BY_HOP.contains(name) || named.contains(name)
}

/// What Connection says beside the names of fields: most often all that it says.
const OPTIONS: [&[u8]; 2] = [b"keep-alive", b"close"];

/// Naming these in Connection must not strip the framing or the Host that were just checked.
const PROTECTED: [HeaderName; 5] = [
    header::HOST,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::TRAILER,
    header::EXPECT,
];

fn connection_names(headers: &HeaderMap, option: &[u8]) -> bool {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|v| v.as_bytes().split(|b| *b == b','))
        .any(|connection_ref| connection_ref.trim_ascii().eq_ignore_ascii_case(option))
}

#[cfg(test)]
mod tests;

//! Framing and Host rules: what leaves has exactly one framing and at most one Host, and no field
//! that speaks of a single hop (RFC 9110, section 7.6.1; RFC 9112, sections 3.2 and 6).
//!
//! The parser has refused differing Content-Lengths, obs-fold, NUL and bare CR, and dropped a
//! Content-Length beside a Transfer-Encoding; what it leaves open is decided here. Pure.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version, header, request, response};

use crate::route::retain;

/// How a request is to be carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carriage {
    /// A message with an answer.
    Message,
    /// Asks for a tunnel: CONNECT, or Upgrade.
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
    #[error("the target is not of the form that the method has (RFC 9112, section 3.2)")]
    BadTarget,
    #[error("a CONNECT request has no content (RFC 9110, section 9.3.6)")]
    ConnectContent,
    #[error("Content-Length fields that differ (RFC 9110, section 8.6)")]
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

const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// Checks a request's head and makes it fit to be sent on.
///
/// # Errors
/// What is malformed; the head is then to be answered with 400.
pub(crate) fn prepare_request(head: &mut request::Parts) -> Result<Carriage, Malformed> {
    check_host(head)?;
    check_encoding(&head.headers)?;
    check_length(&mut head.headers)?;
    if head.method == Method::CONNECT {
        check_connect(head)?;
        return Ok(Carriage::Tunnel);
    }
    to_origin_form(head)?;
    if asks_upgrade(head) {
        return Ok(Carriage::Tunnel);
    }
    remove_hop_by_hop(&mut head.headers);
    Ok(Carriage::Message)
}

/// Makes an answer's head fit for the client, whose connection has a life of its own.
pub(super) fn prepare_answer(head: &mut response::Parts) {
    remove_hop_by_hop(&mut head.headers);
    head.version = Version::HTTP_11;
}

/// The same for the answer that opens a tunnel: a framing is to be ignored there (RFC 9110, section
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

/// What a Host may be made of: visible characters, without those that part a URI or never stand in
/// one. A table, since each byte of each request's Host is looked up.
const HOST_BYTES: [bool; 256] = {
    const PARTS: &[u8] = b"/?#@\\,\"<>{}|^`";
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

/// RFC 9112, section 3.2.2: the target's authority replaces what Host says. An authority alone is
/// CONNECT's (section 3.2.3): in `GET x` the `x` is no path, and must not become the Host.
fn to_origin_form(head: &mut request::Parts) -> Result<(), Malformed> {
    let Some(authority) = head.uri.authority() else { return Ok(()) };
    if head.uri.scheme().is_none() {
        return Err(Malformed::BadTarget);
    }
    if let Ok(host) = HeaderValue::from_str(strip_userinfo(authority.as_str())) {
        head.headers.insert(header::HOST, host);
    }
    let target = head.uri.path_and_query().cloned();
    head.uri = target.map_or_else(|| Uri::from_static("/"), Uri::from);
    Ok(())
}

fn strip_userinfo(authority: &str) -> &str {
    authority.rsplit_once('@').map_or(authority, |(_, host)| host)
}

/// Whether the request asks to change protocols. `Upgrade: h2c` asks for what a proxy must not
/// forward (RFC 9113, section 3.1 retired it): its fields are taken out, the request goes on.
fn asks_upgrade(head: &mut request::Parts) -> bool {
    let Some(upgrade) = head.headers.get(header::UPGRADE) else { return false };
    let h2c = upgrade.as_bytes().eq_ignore_ascii_case(b"h2c");
    if h2c || head.version != Version::HTTP_11 || !connection_names(&head.headers, b"upgrade") {
        retain(&mut head.headers, |name| name != header::UPGRADE && name != HTTP2_SETTINGS);
        return false;
    }
    true
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    // One pass over a few fields costs less than looking each of these up.
    if !headers.keys().any(|name| HOP_BY_HOP.contains(name)) {
        return;
    }
    let named: Vec<Vec<u8>> = headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|v| v.as_bytes().split(|b| *b == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|token| !OPTIONS.iter().any(|option| token.eq_ignore_ascii_case(option)))
        .map(<[u8]>::to_ascii_lowercase)
        .filter(|token| !PROTECTED.contains(&token.as_slice()))
        .collect();
    retain(headers, |name| {
        !HOP_BY_HOP.contains(name) && !named.iter().any(|n| n == name.as_str().as_bytes())
    });
}

/// What Connection says beside the names of fields: most often all that it says.
const OPTIONS: [&[u8]; 2] = [b"keep-alive", b"close"];

/// Naming these in Connection must not strip the framing or the Host that were just checked.
const PROTECTED: [&[u8]; 5] =
    [b"host", b"content-length", b"transfer-encoding", b"trailer", b"expect"];

fn connection_names(headers: &HeaderMap, option: &[u8]) -> bool {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|v| v.as_bytes().split(|b| *b == b','))
        .any(|token| token.trim_ascii().eq_ignore_ascii_case(option))
}

#[cfg(test)]
mod tests;

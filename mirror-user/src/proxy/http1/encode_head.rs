//! Heads, as bytes; and how the content behind them is framed, which the head says.

use http::{
    Extensions, HeaderMap, HeaderValue, Method, StatusCode, Version, header, request, response,
};
use hyper::body::Body;

use super::{
    encode::BodyEncoder,
    fields::{self, HeadSource, OriginalHead},
    framing::ends_chunked,
    parse::ReasonPhrase,
    raw_head::RawHead,
};
use crate::route::Verbatim;

const CHUNKED: HeaderValue = HeaderValue::from_static("chunked");

/// Decides how a request's content leaves. One that has none may still say so (Content-Length: 0).
pub(super) fn frame_request<B: Body>(head: &mut request::Parts, body: &B) -> Option<BodyEncoder> {
    let headers = &mut head.headers;
    if body.is_end_stream() {
        if headers.contains_key(header::TRANSFER_ENCODING) {
            headers.remove(header::TRANSFER_ENCODING);
        }
        return None;
    }
    if headers.contains_key(header::TRANSFER_ENCODING) {
        return Some(BodyEncoder::Chunked);
    }
    Some(stated_length(headers).unwrap_or_else(|| {
        headers.insert(header::TRANSFER_ENCODING, CHUNKED);
        BodyEncoder::Chunked
    }))
}

/// What a response depends on beside its own head.
#[derive(Clone, Copy, Debug)]
pub(super) struct ResponseContext {
    pub(super) head: bool,
    pub(super) connect: bool,
    pub(super) version: Version,
    /// The client may send another request.
    pub(super) persists: bool,
}

/// In the extensions of a response: its connection is the only one that its client's connection has,
/// and ends with it, so that the client's may be framed and ended as the primary's.
#[derive(Clone, Copy, Debug)]
pub(in crate::proxy) struct SharedEnd;

/// In the extensions of a response: it said `Connection: close`.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConnectionClose;

/// In the extensions of a request: what its client says of its connection, where that is not what
/// the version says by itself (RFC 9112, section 9.3).
#[derive(Clone, Copy, Debug)]
pub(in crate::proxy) enum Persistence {
    /// No other request follows.
    Close,
    /// Another may follow, by HTTP/1.0.
    KeepAlive,
}

/// What comes behind a response on its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum ConnectionNext {
    /// Another request.
    Request,
    /// Nothing.
    Close,
    /// Whatever the two ends agreed on.
    Tunnel,
}

/// Decides how a response's content leaves, and what comes after it; the head then says both. No
/// encoder: it has no content.
pub(super) fn frame_response<B: Body>(
    head: &mut response::Parts,
    body: &B,
    to: ResponseContext,
) -> (Option<BodyEncoder>, ConnectionNext) {
    let close = head
        .headers
        .get_all(header::CONNECTION)
        .iter()
        .any(|value| value.as_bytes().eq_ignore_ascii_case(b"close"));
    let shares_end = head.extensions.get::<SharedEnd>().is_some();
    let mut persists = to.persists && !close && !shares_end;
    let raw_head = head.extensions.get::<RawHead>().map(RawHead::encoder);
    let encoder = raw_head.or_else(|| frame_content(head, body, to, shares_end));
    let until_close = matches!(encoder, Some(BodyEncoder::UntilClose));
    if until_close {
        persists = false;
    }
    // Content that ends with its connection says so itself, where the primary said no more.
    let silent = until_close && shares_end && head.extensions.get::<ConnectionClose>().is_none();
    if head.status == StatusCode::SWITCHING_PROTOCOLS || opens_tunnel(head.status, to) {
        return (encoder, ConnectionNext::Tunnel);
    }
    match to.version {
        Version::HTTP_10 if persists => {
            head.headers.insert(header::CONNECTION, HeaderValue::from_static("keep-alive"));
        }
        Version::HTTP_10 => {}
        _ if !persists && !close && !silent => {
            head.headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        _ => {}
    }
    (encoder, if persists { ConnectionNext::Request } else { ConnectionNext::Close })
}

fn opens_tunnel(status: StatusCode, to: ResponseContext) -> bool {
    to.connect && status.is_success()
}

/// RFC 9112, section 6.3, and RFC 9110, section 8.6.
fn frame_content<B: Body>(
    head: &mut response::Parts,
    body: &B,
    to: ResponseContext,
    shares_end: bool,
) -> Option<BodyEncoder> {
    let headers = &mut head.headers;
    let old = to.version == Version::HTTP_10;
    if old && headers.contains_key(header::TRANSFER_ENCODING) {
        headers.remove(header::TRANSFER_ENCODING);
    }
    let status = head.status;
    if status.is_informational() || status == StatusCode::NO_CONTENT || opens_tunnel(status, to) {
        for name in [header::TRANSFER_ENCODING, header::CONTENT_LENGTH] {
            if headers.contains_key(&name) {
                headers.remove(name);
            }
        }
        return None;
    }
    // These say what the content would be.
    if to.head || status == StatusCode::NOT_MODIFIED {
        return None;
    }
    if let Some(coding) = headers.get_all(header::TRANSFER_ENCODING).iter().next_back() {
        // Its end was the connection's (RFC 9112, section 6.3).
        if !ends_chunked(coding.as_bytes()) && shares_end {
            return Some(BodyEncoder::UntilClose);
        }
        if !ends_chunked(coding.as_bytes()) {
            headers.append(header::TRANSFER_ENCODING, CHUNKED);
        }
        return Some(BodyEncoder::Chunked);
    }
    if let Some(stated) = stated_length(headers) {
        return Some(stated);
    }
    if let Some(exact) = body.size_hint().exact() {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(exact));
        return Some(BodyEncoder::Length(exact));
    }
    if old || shares_end {
        return Some(BodyEncoder::UntilClose);
    }
    headers.insert(header::TRANSFER_ENCODING, CHUNKED);
    Some(BodyEncoder::Chunked)
}

fn stated_length(headers: &HeaderMap) -> Option<BodyEncoder> {
    let length = headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()?;
    Some(BodyEncoder::Length(length))
}

/// Room for most heads.
const HEAD: usize = 512;

/// A request's head, and how its content is framed: all that a connection needs of it.
#[derive(Debug)]
pub(in crate::proxy) struct EncodedHead {
    pub(super) head: Vec<u8>,
    pub(super) method: Method,
    /// None: it has no content.
    pub(super) framing: Option<StatedFraming>,
}

/// As a head states it.
#[derive(Clone, Copy, Debug)]
pub(super) enum StatedFraming {
    Length(u64),
    Chunked,
}

impl EncodedHead {
    /// A copy of a request whose head is fit for HTTP/1, with another Host where one is given.
    /// `whole`: it has no content.
    pub(in crate::proxy) fn copy(
        head: &request::Parts,
        host: Option<&HeaderValue>,
        whole: bool,
    ) -> Self {
        let raw = OriginalHead::of(&head.extensions);
        // Most of the head, and some more for Host.
        let mut to = Vec::with_capacity(raw.len().max(256) + 64);
        request_line(&mut to, head);
        match host {
            None => fields::write(&mut to, &head.headers, raw),
            Some(host) => {
                for (name, value) in &head.headers {
                    if *name == header::HOST {
                        fields::write_new(&mut to, name, host, raw);
                    } else {
                        fields::write_one(&mut to, name, value, raw);
                    }
                }
                fields::write_odd(&mut to, raw);
            }
        }
        to.extend_from_slice(b"\r\n");
        let chunked = || head.headers.contains_key(header::TRANSFER_ENCODING);
        let framing = match stated_length(&head.headers) {
            _ if whole => None,
            _ if chunked() => Some(StatedFraming::Chunked),
            Some(BodyEncoder::Length(length)) => Some(StatedFraming::Length(length)),
            _ => Some(StatedFraming::Chunked),
        };
        Self { head: to, method: head.method.clone(), framing }
    }

    /// Whether it has no content: neither bytes nor what ends them.
    pub(in crate::proxy) fn has_no_content(&self) -> bool {
        self.framing.is_none()
    }

    /// Bytes of the head.
    pub(in crate::proxy) fn size(&self) -> usize {
        self.head.len()
    }
}

impl From<StatedFraming> for BodyEncoder {
    fn from(framing: StatedFraming) -> Self {
        match framing {
            StatedFraming::Length(length) => Self::Length(length),
            StatedFraming::Chunked => Self::Chunked,
        }
    }
}

/// A request's head. The target is in origin form, an authority (CONNECT), or the bytes that it
/// came in.
pub(super) fn request(to: &mut Vec<u8>, head: &request::Parts) {
    to.reserve(HEAD);
    request_line(to, head);
    fields::write(to, &head.headers, OriginalHead::of(&head.extensions));
    to.extend_from_slice(b"\r\n");
}

fn request_line(to: &mut Vec<u8>, head: &request::Parts) {
    to.extend_from_slice(head.method.as_str().as_bytes());
    to.push(b' ');
    match (head.uri.path_and_query(), head.uri.authority()) {
        _ if let Some(verbatim) = Verbatim::of(head) => {
            to.extend_from_slice(verbatim.as_bytes());
        }
        (_, Some(authority)) if head.method == Method::CONNECT => {
            to.extend_from_slice(authority.as_str().as_bytes());
        }
        (Some(target), _) => to.extend_from_slice(target.as_str().as_bytes()),
        (None, Some(authority)) => to.extend_from_slice(authority.as_str().as_bytes()),
        (None, None) => to.push(b'/'),
    }
    let old = head.version == Version::HTTP_10;
    to.extend_from_slice(if old { b" HTTP/1.0\r\n" } else { b" HTTP/1.1\r\n" });
}

/// A response's head, to a client that speaks `version`.
pub(super) fn response(to: &mut Vec<u8>, head: &response::Parts, version: Version) {
    to.reserve(HEAD);
    let raw = match head.extensions.get::<RawHead>() {
        Some(raw_head) => HeadSource::from(raw_head.write(to)),
        None => {
            status_line(to, head.status, &head.extensions, version);
            OriginalHead::of(&head.extensions)
        }
    };
    fields::write(to, &head.headers, raw);
    to.extend_from_slice(b"\r\n");
}

/// An interim response; what it says of the connection is left out (RFC 9110, section 7.6.1).
pub(super) fn interim(
    to: &mut Vec<u8>,
    status: StatusCode,
    headers: &HeaderMap,
    as_it_came: &Extensions,
) {
    status_line(to, status, as_it_came, Version::HTTP_11);
    for (name, value) in headers.iter().filter(|(name, _)| *name != header::CONNECTION) {
        fields::write_one(to, name, value, OriginalHead::of(as_it_came));
    }
    to.extend_from_slice(b"\r\n");
}

fn status_line(to: &mut Vec<u8>, status: StatusCode, as_it_came: &Extensions, version: Version) {
    let old = version == Version::HTTP_10;
    to.extend_from_slice(if old { b"HTTP/1.0 " } else { b"HTTP/1.1 " });
    to.extend_from_slice(status.as_str().as_bytes());
    match as_it_came.get::<ReasonPhrase>() {
        Some(ReasonPhrase(reason)) => to.extend_from_slice(reason),
        None => {
            to.push(b' ');
            to.extend_from_slice(status.canonical_reason().unwrap_or("").as_bytes());
        }
    }
    to.extend_from_slice(b"\r\n");
}

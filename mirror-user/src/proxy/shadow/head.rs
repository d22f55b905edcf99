//! A copy's head, in the form of what it is sent by. In: the request's head as it stands at the
//! filter's place. Out: bytes for a connection of HTTP/1, or a head that a stream of HTTP/2 takes.

use http::{HeaderValue, Method, Version, header, request};

use crate::{
    proxy::{http1::EncodedHead, normalize, protocol::HttpVersion},
    route::Verbatim,
};

/// A copy's head for a connection of HTTP/1.
#[derive(Debug)]
pub(super) struct Http1Head {
    pub(super) encoded: EncodedHead,
    /// Others may be on their way on the same connection.
    pub(super) pipelined: bool,
}

impl Http1Head {
    /// `host`: what Host is to say instead. `whole`: nothing follows the head.
    pub(super) fn new(head: &request::Parts, host: Option<&HeaderValue>, whole: bool) -> Self {
        let pipelined = whole && may_be_pipelined(head);
        Self { encoded: EncodedHead::copy(head, host, whole), pipelined }
    }

    /// Of a copy in the form of HTTP/2.
    pub(super) fn from_http2(mut head: request::Parts, whole: bool) -> Self {
        normalize::for_http1(&mut head, whole);
        Self::new(&head, None, whole)
    }
}

/// A copy's head in either form.
pub(super) enum CopyHead {
    Http1(Http1Head),
    Http2(Box<request::Parts>),
}

impl CopyHead {
    /// `host`: what Host is to say instead. `whole`: nothing follows the head.
    pub(super) fn new(
        head: &request::Parts,
        host: Option<HeaderValue>,
        whole: bool,
        version: HttpVersion,
    ) -> Self {
        if version == HttpVersion::Http1 && head.version != Version::HTTP_2 {
            return Self::Http1(Http1Head::new(head, host.as_ref(), whole));
        }
        let mut copy = head.clone();
        if let (Some(value), Some(host)) = (copy.headers.get_mut(header::HOST), host) {
            *value = host;
        }
        match version {
            HttpVersion::Http1 => Self::Http1(Http1Head::from_http2(copy, whole)),
            HttpVersion::Http2 => Self::Http2(Box::new(copy)),
        }
    }

    /// About what it holds, in bytes.
    pub(super) fn size(&self) -> usize {
        /// Of the `http` crate, per field.
        const ROW: usize = 104;
        match self {
            Self::Http1(head) => 256 + head.encoded.size(),
            Self::Http2(head) => {
                let fields = head.headers.iter();
                let fields: usize = fields.map(|(n, v)| n.as_str().len() + v.len() + ROW).sum();
                let target = head.uri.path_and_query().map_or(0, |p| p.as_str().len());
                let verbatim = Verbatim::of(head).map_or(0, |v| v.as_bytes().len());
                256 + target + verbatim + fields
            }
        }
    }
}

/// A request that may be sent again, and whose response comes to its end by itself.
fn may_be_pipelined(head: &request::Parts) -> bool {
    let safe = matches!(head.method, Method::GET | Method::HEAD | Method::OPTIONS);
    let events = |accept: &HeaderValue| {
        let parts = accept.as_bytes().split(|byte| matches!(byte, b',' | b';'));
        parts.map(<[u8]>::trim_ascii).any(|t| t.eq_ignore_ascii_case(b"text/event-stream"))
    };
    safe && !head.headers.contains_key(header::UPGRADE)
        && !head.headers.contains_key(header::EXPECT)
        && !head.headers.get_all(header::ACCEPT).iter().any(events)
}

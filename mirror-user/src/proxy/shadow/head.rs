//! A copy's head, in the form of what it is sent by. In: the request's head as it stands at the
//! filter's place. Out: bytes for a connection of HTTP/1, or a head that a stream of HTTP/2 takes.

use http::{HeaderValue, Method, Version, header, request};

use crate::proxy::{dress, http1::Printed, primary::Speaks};

/// A copy's head for a connection of HTTP/1.
#[derive(Debug)]
pub(super) struct SingleHead {
    pub(super) printed: Printed,
    /// Others may be on their way on the same connection.
    pub(super) pipelined: bool,
}

impl SingleHead {
    /// `host`: what Host is to say instead. `whole`: nothing follows the head.
    pub(super) fn new(head: &request::Parts, host: Option<&HeaderValue>, whole: bool) -> Self {
        let pipelined = whole && may_be_pipelined(head);
        Self { printed: Printed::copy(head, host, whole), pipelined }
    }

    /// Of a copy in the form of HTTP/2.
    pub(super) fn from_http2(mut head: request::Parts, whole: bool) -> Self {
        dress::for_http1(&mut head, whole);
        Self::new(&head, None, whole)
    }
}

/// A copy's head in either form.
pub(super) enum Head {
    Single(SingleHead),
    Stream(Box<request::Parts>),
}

impl Head {
    /// `host`: what Host is to say instead. `whole`: nothing follows the head.
    pub(super) fn new(
        head: &request::Parts,
        host: Option<HeaderValue>,
        whole: bool,
        speaks: Speaks,
    ) -> Self {
        if speaks == Speaks::Http1 && head.version != Version::HTTP_2 {
            return Self::Single(SingleHead::new(head, host.as_ref(), whole));
        }
        let mut copy = head.clone();
        if let (Some(told), Some(host)) = (copy.headers.get_mut(header::HOST), host) {
            *told = host;
        }
        match speaks {
            Speaks::Http1 => Self::Single(SingleHead::from_http2(copy, whole)),
            Speaks::Http2 => Self::Stream(Box::new(copy)),
        }
    }

    /// About what it holds, in bytes.
    pub(super) fn size(&self) -> usize {
        /// Of the `http` crate, per field.
        const ROW: usize = 104;
        match self {
            Self::Single(head) => 256 + head.printed.size(),
            Self::Stream(head) => {
                let fields = head.headers.iter();
                let fields: usize = fields.map(|(n, v)| n.as_str().len() + v.len() + ROW).sum();
                let target = head.uri.path_and_query().map_or(0, |p| p.as_str().len());
                256 + target + fields
            }
        }
    }
}

/// A request that may be sent again, and whose answer comes to its end by itself.
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

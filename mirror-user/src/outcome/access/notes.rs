//! What the access log alone wants to know of a request. In: the head, then what becomes of it.
//! Out: fields of the line. While the log is off it holds nothing and costs a branch.

use std::time::{Duration, Instant};

use http::{HeaderValue, Version, header, request};

/// Kept by an exchange for its line, from [`crate::outcome::Recorder::notes`].
#[derive(Debug, Default)]
pub struct Notes(pub(super) Option<Box<Noted>>);

#[derive(Debug)]
pub(super) struct Noted {
    pub(super) protocol: Version,
    pub(super) host: Option<HeaderValue>,
    pub(super) first_byte: Option<Duration>,
    pub(super) reason: Option<String>,
}

impl Notes {
    /// Of a request whose head is as the client sent it.
    pub(super) fn new(head: &request::Parts) -> Self {
        // A target's authority outranks Host (RFC 9112, section 3.2.2), and is all that there is
        // in HTTP/2.
        let authority = head.uri.authority().map(|a| HeaderValue::from_str(a.as_str()));
        let host =
            authority.and_then(Result::ok).or_else(|| head.headers.get(header::HOST).cloned());
        Self(Some(Box::new(Noted { protocol: head.version, host, first_byte: None, reason: None })))
    }

    /// The head of the answer is there; `started`: when the request's was.
    pub fn answered(&mut self, started: Instant) {
        if let Some(noted) = &mut self.0 {
            noted.first_byte = Some(started.elapsed());
        }
    }

    /// What `x-mirror-reason` says of an answer of our own.
    pub fn reason(&mut self, reason: &str) {
        if let Some(noted) = &mut self.0 {
            noted.reason = Some(reason.to_owned());
        }
    }
}

//! What the access log alone wants to know of a request. In: the head, then what becomes of it.
//! Out: fields of the line. While the log is off it holds nothing and costs a branch.

use std::time::{Duration, Instant};

use http::{HeaderValue, Version, header, request};

use crate::route::Verbatim;

/// Kept by an exchange for its line, from [`crate::outcome::Recorder::log_fields`].
#[derive(Debug, Default)]
pub struct LogFields(pub(super) Option<Box<LogFieldValues>>);

#[derive(Debug)]
pub(super) struct LogFieldValues {
    pub(super) protocol: Version,
    pub(super) host: Option<HeaderValue>,
    /// If the Uri does not hold it.
    pub(super) target: Option<Verbatim>,
    pub(super) first_byte: Option<Duration>,
    pub(super) reason: Option<String>,
}

impl LogFields {
    /// Of a request whose head is as the client sent it.
    pub(super) fn new(head: &request::Parts) -> Self {
        let target = Verbatim::of(head).cloned();
        // A target's authority outranks Host (RFC 9112, section 3.2.2), and is all that there is
        // in HTTP/2. (That of a Uri that only stands beside the target names no host.)
        let authority =
            head.uri.authority().filter(|_| target.as_ref().is_none_or(Verbatim::is_absolute));
        let authority = authority.map(|a| HeaderValue::from_str(a.as_str()));
        let host =
            authority.and_then(Result::ok).or_else(|| head.headers.get(header::HOST).cloned());
        let (protocol, first_byte, reason) = (head.version, None, None);
        Self(Some(Box::new(LogFieldValues { protocol, host, target, first_byte, reason })))
    }

    /// The head of the response is there; `started`: when the request's was.
    pub fn response_started(&mut self, started: Instant) {
        if let Some(noted) = &mut self.0 {
            noted.first_byte = Some(started.elapsed());
        }
    }

    /// Sets the `x-mirror-reason` of a local reply.
    pub fn reason(&mut self, reason: &str) {
        if let Some(noted) = &mut self.0 {
            noted.reason = Some(reason.to_owned());
        }
    }
}

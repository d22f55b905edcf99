//! The line for a connection that mirror refused before there was a request. In: the known fields. Out: the
//! fields of any other line, most of them absent.

use std::{borrow::Cow, fmt, time::SystemTime};

use serde::Serialize;

use super::{Escaped, OrDash, Quoted, cut, display};
use crate::outcome::{Mode, RefusalEvent, labels};

/// How such an exchange ended.
const ENDING: &str = "refused";

/// The fields of a line, in the order of both formats.
#[derive(Serialize)]
pub(super) struct RefusedLine<'a> {
    #[serde(serialize_with = "display")]
    time: humantime::Rfc3339Timestamp,
    client: &'a str,
    client_namespace: &'a str,
    frontend: Option<String>,
    route: Option<()>,
    rule: Option<()>,
    backend: Option<()>,
    endpoint: Option<()>,
    method: Option<Cow<'a, str>>,
    target: Option<Cow<'a, str>>,
    protocol: Option<Cow<'a, str>>,
    host: Option<()>,
    status: Option<u16>,
    answer: &'static str,
    ending: &'static str,
    first_byte_ms: Option<()>,
    duration_ms: Option<()>,
    request_bytes: u64,
    response_bytes: u64,
    copies: u32,
    attempts: u32,
    mode: &'static str,
    reason: Cow<'a, str>,
}

impl<'a> RefusedLine<'a> {
    pub(super) fn new(event: &RefusalEvent<'a>, now: SystemTime) -> Self {
        let [method, target, protocol] = event.first_line;
        Self {
            time: humantime::format_rfc3339_millis(now),
            client: event.client,
            client_namespace: event.client.split_once('/').map_or("", |(namespace, _)| namespace),
            frontend: event.frontend.map(|frontend| labels::service(&frontend.service)),
            route: None,
            rule: None,
            backend: None,
            endpoint: None,
            method: method.map(cut::word),
            target: target.map(cut::text_target),
            protocol: protocol.map(cut::word),
            host: None,
            status: event.status,
            answer: event.source().label(),
            ending: ENDING,
            first_byte_ms: None,
            duration_ms: None,
            request_bytes: 0,
            response_bytes: 0,
            copies: 0,
            attempts: 0,
            mode: Mode::Proxy.label(),
            reason: cut::reason(event.reason),
        }
    }
}

impl fmt::Display for RefusedLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { time, client, answer: source, ending, .. } = self;
        write!(f, "{time} {client} {} - - -", OrDash(self.frontend.as_ref()))?;
        let [method, target, protocol] = [&self.method, &self.target, &self.protocol]
            .map(|part| part.as_deref().unwrap_or("-").as_bytes());
        write!(f, " \"{} {} {}\"", Escaped(method), Escaped(target), Escaped(protocol))?;
        write!(f, " - {} {source} {ending} - - 0 0 0 0", OrDash(self.status.as_ref()))?;
        write!(f, " {}", self.mode)?;
        write!(f, " {}", Quoted(&self.reason))
    }
}

//! The access log: one line per request on stdout, off by default; and one for each connection that
//! mirror refuses before there is a request. A worker formats its line and
//! offers it to a bounded channel; a separate thread writes. If that thread falls behind,
//! lines are dropped and counted: the data path never waits for a reader of stdout.
//!
//! tracing_appender's non-blocking writer, which the agent's own log uses, bounds the number of lines
//! and not their bytes. Clients choose how long these lines are, so this queue has a bound for both;
//! and that writer reports neither an error of stdout nor that the last lines are not written in time,
//! which [`LogWriter::finish`] does.
//!
//! # Fields
//!
//! In the order of the text format, which parts them by one space. An absent one is `-` in text
//! and null in JSON.
//!
//! | text | JSON | what |
//! |---|---|---|
//! | `TIME` | `time` | when the exchange ended: RFC 3339, UTC, milliseconds |
//! | `CLIENT` | `client`, `client_namespace` | the workload that asked, as `namespace/name`, and its namespace |
//! | `FRONTEND` | `frontend` | the Service that it connected to, as `namespace/name:port` |
//! | `ROUTE#RULE` | `route`, `rule` | the HTTPRoute that matched, as `namespace/name`, and the place of its rule, from 0 |
//! | `BACKEND` | `backend` | the Service port chosen |
//! | `ENDPOINT` | `endpoint` | the address that responded |
//! | `"METHOD TARGET PROTOCOL"` | `method`, `target`, `protocol` | of the request: the target is path and query, and the host and port of a CONNECT; the protocol is the client's, such as `HTTP/1.1` |
//! | `"HOST"` | `host` | Host as the client sent it |
//! | `STATUS` | `status` | what the client got |
//! | `ANSWER` | `answer` | who responded: `primary`; mirror itself: `no_match` (404), `invalid_backend` (500), `no_endpoint` (503), `bad_request` (400), `timeout` (504), `unasked_upgrade` (502), and as the route wants it `redirect` (3xx), `preflight` (204); or `none` |
//! | `ENDING` | `ending` | `complete`, `client_gone`, `primary_failed`, `tunnel`; or `refused`, before there was a request that could be sent anywhere |
//! | `FIRST_BYTE_MS` | `first_byte_ms` | from the end of the request's head to the response's head |
//! | `DURATION_MS` | `duration_ms` | from the end of the request's head to the end of the exchange |
//! | `REQUEST_BYTES` | `request_bytes` | of the request's body, as far as the primary took it |
//! | `RESPONSE_BYTES` | `response_bytes` | of the response's body, as far as it was passed on |
//! | `COPIES` | `copies` | how many mirrors selected the request |
//! | `ATTEMPTS` | `attempts` | how often mirror tried to send it to the primary: 1, and one more for each retry that its rule asks for; 0 where no primary was to get it |
//! | `MODE` | `mode` | how mirror saw the request: `proxy`, or `tap`, which does not see the response |
//! | `"REASON"` | `reason` | why mirror refused it, or ended it on its own account: what `x-mirror-reason` says where there is a response |
//!
//! Within the quotes `"` and `\` are preceded by `\`, and control characters and bytes that are no
//! UTF-8 are written as `\xHH`, characters that turn the direction of text as `\u{HHHH}`; in JSON
//! such bytes are U+FFFD.
//!
//! Of a target, a host or a reason that is longer than a line may have ([`cut`]) the beginning stands
//! there, and `...(N bytes more)`. A user's name and password in a target are left out.

use std::{
    borrow::Cow,
    fmt,
    io::{self, Write},
    net::SocketAddr,
    sync::mpsc,
    thread,
    time::{Duration, SystemTime},
};

use http::request;
use serde::{Serialize, Serializer};

pub use self::log_fields::LogFields;
use self::refused::RefusedLine;
use super::{RefusalEvent, RequestEvent, labels};
use crate::{
    plain::{self, is_harmless},
    route::Verbatim,
};

mod cut;
mod log_fields;
mod queue;
mod refused;

/// How a line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LineFormat {
    /// Fields separated by spaces.
    Text,
    /// One JSON object.
    Json,
}

/// A worker's handle; clones share one channel and one count of dropped lines.
#[derive(Clone, Debug, Default)]
pub struct AccessLog {
    sink: Option<Sink>,
}

#[derive(Clone, Debug)]
struct Sink {
    format: LineFormat,
    lines: queue::Sender,
}

/// The writing thread. It ends when every [`AccessLog`] handle is gone.
#[derive(Debug)]
pub struct LogWriter {
    done: mpsc::Receiver<io::Result<()>>,
}

impl AccessLog {
    /// Writes nothing.
    #[must_use]
    pub fn off() -> Self {
        Self::default()
    }

    /// Starts the thread that writes to `out`, which is stdout but for tests.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(
        format: LineFormat,
        out: impl Write + Send + 'static,
    ) -> io::Result<(Self, LogWriter)> {
        let (lines, waiting) = queue::new();
        let (finished, done) = mpsc::channel();
        thread::Builder::new().name("access-log".into()).spawn(move || {
            // The receiver may be gone; then nothing waits for the end.
            let _ = finished.send(write_all(waiting, out));
        })?;
        Ok((Self { sink: Some(Sink { format, lines }) }, LogWriter { done }))
    }

    /// Lines that were dropped since the start because the writer fell behind or failed.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.sink.as_ref().map_or(0, |sink| sink.lines.dropped())
    }

    /// What the line of a request will say of its head; nothing while the log is off.
    pub(super) fn log_fields(&self, head: &request::Parts) -> LogFields {
        if self.sink.is_some() { LogFields::new(head) } else { LogFields::default() }
    }

    /// Offers the line of one request; never waits.
    pub(super) fn write(&self, event: &RequestEvent<'_>) {
        let Some(sink) = &self.sink else { return };
        sink.lines.offer(LogLine::new(event, SystemTime::now()).format(sink.format));
    }

    /// The same for what was refused before there was a request.
    pub(super) fn write_refusal(&self, event: &RefusalEvent<'_>) {
        let Some(sink) = &self.sink else { return };
        sink.lines.offer(written(&RefusedLine::new(event, SystemTime::now()), sink.format));
    }
}

impl LogWriter {
    /// Waits until all lines are written, at most `limit` (stdout may be a pipe without a
    /// reader). Drop every handle first.
    ///
    /// # Errors
    /// What writing said, or `TimedOut`.
    pub fn finish(self, limit: Duration) -> io::Result<()> {
        self.done.recv_timeout(limit).unwrap_or_else(|_| {
            Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "could not write the rest of the access log",
            ))
        })
    }
}

/// Writes lines until the last handle is gone; flushes whenever nothing waits.
#[expect(clippy::needless_pass_by_value, reason = "lines are refused as soon as it returns")]
fn write_all(waiting: queue::Receiver, out: impl Write) -> io::Result<()> {
    let mut out = io::BufWriter::with_capacity(64 * 1024, out);
    while let Some(first) = waiting.next() {
        let lines = std::iter::once(first).chain(waiting.ready());
        let written = lines.into_iter().try_for_each(|line| out.write_all(line.bytes()));
        if let Err(error) = written.and_then(|()| out.flush()) {
            tracing::error!(%error, "cannot write the access log any more");
            return Err(error);
        }
    }
    Ok(())
}

/// The fields of a line, in the order of both formats.
#[derive(Serialize)]
struct LogLine<'a> {
    #[serde(serialize_with = "display")]
    time: humantime::Rfc3339Timestamp,
    client: &'a str,
    client_namespace: &'a str,
    frontend: String,
    route: Option<String>,
    rule: Option<usize>,
    backend: Option<String>,
    endpoint: Option<SocketAddr>,
    method: Cow<'a, str>,
    #[serde(serialize_with = "lossy")]
    target: Cow<'a, [u8]>,
    protocol: Option<String>,
    host: Option<Cow<'a, str>>,
    status: Option<u16>,
    answer: &'static str,
    ending: &'static str,
    first_byte_ms: Option<f64>,
    duration_ms: f64,
    request_bytes: u64,
    response_bytes: u64,
    copies: u32,
    attempts: u32,
    mode: &'static str,
    reason: Option<Cow<'a, str>>,
}

impl<'a> LogLine<'a> {
    fn new(event: &RequestEvent<'a>, now: SystemTime) -> Self {
        let noted = event.log_fields.0.as_deref();
        let host = noted.and_then(|noted| noted.host.as_ref());
        Self {
            time: humantime::format_rfc3339_millis(now),
            client: event.client,
            client_namespace: event.client.split_once('/').map_or("", |(namespace, _)| namespace),
            frontend: labels::service(&event.frontend.service),
            route: event.rule.map(|(route, _)| route.to_string()),
            rule: event.rule.map(|(_, index)| index),
            backend: event.backend.map(|backend| labels::service(backend)),
            endpoint: event.endpoint,
            method: cut::word(event.method.as_str()),
            target: cut::target(target(
                event.target,
                noted.and_then(|noted| noted.target.as_ref()),
            )),
            protocol: noted.map(|noted| format!("{:?}", noted.protocol)),
            host: host.map(|host| cut::host(host.as_bytes())),
            status: event.status,
            answer: event.source.label(),
            ending: event.ending.label(),
            first_byte_ms: noted.and_then(|noted| noted.first_byte).map(millis),
            duration_ms: millis(event.duration),
            request_bytes: event.request_bytes,
            response_bytes: event.response_bytes,
            copies: event.copies,
            attempts: event.attempts,
            mode: event.mode.label(),
            reason: noted.and_then(|noted| noted.reason.as_deref()).map(cut::reason),
        }
    }

    fn format(&self, format: LineFormat) -> Vec<u8> {
        written(self, format)
    }
}

fn written(line: &(impl fmt::Display + Serialize), format: LineFormat) -> Vec<u8> {
    let mut text = match format {
        LineFormat::Text => line.to_string().into_bytes(),
        LineFormat::Json => serde_json::to_string(line)
            .map(|line| plain::json(line).into_bytes())
            .expect("a struct of strings and numbers is always representable"),
    };
    text.push(b'\n');
    text
}

impl fmt::Display for LogLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { time, client, frontend, method, target, answer: source, ending, .. } = self;
        write!(f, "{time} {client} {frontend} ")?;
        match (&self.route, self.rule) {
            (Some(route), Some(rule)) => write!(f, "{route}#{rule}")?,
            _ => f.write_str("-")?,
        }
        write!(f, " {} {}", OrDash(self.backend.as_ref()), OrDash(self.endpoint.as_ref()))?;
        let protocol = self.protocol.as_deref().unwrap_or("-");
        write!(f, " \"{} {} {protocol}\"", Escaped(method.as_bytes()), Escaped(target))?;
        write!(f, " {}", OrDash(self.host.as_deref().map(Quoted)))?;
        write!(f, " {} {source} {ending}", OrDash(self.status.as_ref()))?;
        match self.first_byte_ms {
            Some(first_byte) => write!(f, " {first_byte:.3}")?,
            None => f.write_str(" -")?,
        }
        write!(f, " {:.3} {} {}", self.duration_ms, self.request_bytes, self.response_bytes)?;
        write!(f, " {} {} {}", self.copies, self.attempts, self.mode)?;
        write!(f, " {}", OrDash(self.reason.as_deref().map(Quoted)))
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1e3
}

/// Without scheme and authority, which `host` has; CONNECT has nothing else.
fn target<'a>(uri: &'a http::Uri, verbatim: Option<&'a Verbatim>) -> Cow<'a, [u8]> {
    match (verbatim, uri.path_and_query()) {
        (Some(verbatim), _) => verbatim.path_and_query().into(),
        (None, Some(target)) => target.as_str().as_bytes().into(),
        (None, None) => uri.to_string().into_bytes().into(),
    }
}

/// A field that may be absent.
struct OrDash<T>(Option<T>);

impl<T: fmt::Display> fmt::Display for OrDash<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str("-"),
        }
    }
}

/// Text within quotes.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", Escaped(self.0.as_bytes()))
    }
}

/// What comes from the client: nothing in it ends the quotes or the line, and it leaves as UTF-8.
struct Escaped<'a>(&'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for character in chunk.valid().chars() {
                match character {
                    '"' | '\\' => write!(f, "\\{character}")?,
                    control if control.is_control() => {
                        write!(f, "\\x{:02x}", u32::from(control))?;
                    }
                    other if !is_harmless(other) => write!(f, "{}", other.escape_default())?,
                    plain => write!(f, "{plain}")?,
                }
            }
            chunk.invalid().iter().try_for_each(|byte| write!(f, "\\x{byte:02x}"))?;
        }
        Ok(())
    }
}

fn lossy<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&String::from_utf8_lossy(bytes))
}

fn display<S: Serializer>(value: &impl fmt::Display, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(value)
}

#[cfg(test)]
mod tests;

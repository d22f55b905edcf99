//! The access log: one line per request on stdout, off by default. A worker formats its line and
//! offers it to a bounded channel; a thread of its own writes. When that thread falls behind,
//! lines are dropped and counted: the data path never waits for a reader of stdout.
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
//! | `ENDPOINT` | `endpoint` | the address that answered |
//! | `"METHOD TARGET PROTOCOL"` | `method`, `target`, `protocol` | of the request: the target is path and query, and the host and port of a CONNECT; the protocol is the client's, such as `HTTP/1.1` |
//! | `"HOST"` | `host` | Host as the client sent it |
//! | `STATUS` | `status` | what the client got |
//! | `ANSWER` | `answer` | who answered: `primary`; mirror itself: `no_match` (404), `invalid_backend` (500), `no_endpoint` (503), `bad_request` (400), `timeout` (504); or `none` |
//! | `ENDING` | `ending` | `complete`, `client_gone`, `primary_failed` or `tunnel` |
//! | `FIRST_BYTE_MS` | `first_byte_ms` | from the end of the request's head to the answer's head |
//! | `DURATION_MS` | `duration_ms` | from the end of the request's head to the end of the exchange |
//! | `REQUEST_BYTES` | `request_bytes` | of the request's body, as far as the primary took it |
//! | `RESPONSE_BYTES` | `response_bytes` | of the answer's body, as far as it was passed on |
//! | `COPIES` | `copies` | how many mirrors selected the request |
//! | `"REASON"` | `reason` | what `x-mirror-reason` says of an answer of mirror's own |
//!
//! Within the quotes `"` and `\` are preceded by `\`, and control characters written as `\xHH`.

use std::{
    borrow::Cow,
    fmt,
    io::{self, Write},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, SystemTime},
};

use http::request;
use serde::{Serialize, Serializer};

pub use self::notes::Notes;
use super::{RequestEvent, labels};

mod notes;

/// Lines that may wait for the writing thread, for all workers together.
const WAITING: usize = 8192;

/// How a line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LineFormat {
    /// Fields parted by spaces.
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
    lines: mpsc::SyncSender<Vec<u8>>,
    dropped: Arc<AtomicU64>,
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
        let (lines, waiting) = mpsc::sync_channel(WAITING);
        let (finished, done) = mpsc::channel();
        thread::Builder::new().name("access-log".into()).spawn(move || {
            // The receiver may be gone: nobody waits for the end then.
            let _ = finished.send(write_all(waiting, out));
        })?;
        let sink = Sink { format, lines, dropped: Arc::default() };
        Ok((Self { sink: Some(sink) }, LogWriter { done }))
    }

    /// Lines that were dropped since the start because the writer fell behind or failed.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.sink.as_ref().map_or(0, |sink| sink.dropped.load(Ordering::Relaxed))
    }

    /// What the line of a request will say of its head; nothing while the log is off.
    pub(super) fn notes(&self, head: &request::Parts) -> Notes {
        if self.sink.is_some() { Notes::new(head) } else { Notes::default() }
    }

    /// Offers the line of one request; never waits.
    pub(super) fn write(&self, event: &RequestEvent<'_>) {
        let Some(sink) = &self.sink else { return };
        let line = Line::new(event, SystemTime::now()).format(sink.format);
        if sink.lines.try_send(line).is_err() {
            sink.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl LogWriter {
    /// Waits until all lines are written, at most `limit` (stdout may be a pipe that nobody
    /// reads). Drop every handle first.
    ///
    /// # Errors
    /// What writing said, or `TimedOut`.
    pub fn finish(self, limit: Duration) -> io::Result<()> {
        self.done.recv_timeout(limit).unwrap_or_else(|_| {
            Err(io::Error::new(io::ErrorKind::TimedOut, "the access log could not be written out"))
        })
    }
}

/// Writes lines until the last handle is gone; flushes whenever nothing waits.
#[expect(clippy::needless_pass_by_value, reason = "lines are refused as soon as it returns")]
fn write_all(waiting: mpsc::Receiver<Vec<u8>>, out: impl Write) -> io::Result<()> {
    let mut out = io::BufWriter::with_capacity(64 * 1024, out);
    while let Ok(first) = waiting.recv() {
        let lines = std::iter::once(first).chain(waiting.try_iter());
        let written = lines.into_iter().try_for_each(|line| out.write_all(&line));
        if let Err(error) = written.and_then(|()| out.flush()) {
            tracing::error!(%error, "the access log ends: its output cannot be written");
            return Err(error);
        }
    }
    Ok(())
}

/// The fields of a line, in the order of both formats.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(serialize_with = "display")]
    time: humantime::Rfc3339Timestamp,
    client: &'a str,
    client_namespace: &'a str,
    frontend: String,
    route: Option<String>,
    rule: Option<usize>,
    backend: Option<String>,
    endpoint: Option<SocketAddr>,
    method: &'a str,
    target: String,
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
    reason: Option<&'a str>,
}

impl<'a> Line<'a> {
    fn new(event: &RequestEvent<'a>, now: SystemTime) -> Self {
        let noted = event.notes.0.as_deref();
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
            method: event.method.as_str(),
            target: target(event.target),
            protocol: noted.map(|noted| format!("{:?}", noted.protocol)),
            host: host.map(|host| String::from_utf8_lossy(host.as_bytes())),
            status: event.status,
            answer: event.answer.label(),
            ending: event.ending.label(),
            first_byte_ms: noted.and_then(|noted| noted.first_byte).map(millis),
            duration_ms: millis(event.duration),
            request_bytes: event.request_bytes,
            response_bytes: event.response_bytes,
            copies: event.copies,
            reason: noted.and_then(|noted| noted.reason.as_deref()),
        }
    }

    fn format(&self, format: LineFormat) -> Vec<u8> {
        let mut line = match format {
            LineFormat::Text => self.to_string().into_bytes(),
            LineFormat::Json => serde_json::to_vec(self)
                .expect("a struct of strings and numbers is always representable"),
        };
        line.push(b'\n');
        line
    }
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { time, client, frontend, method, target, answer, ending, .. } = self;
        write!(f, "{time} {client} {frontend} ")?;
        match (&self.route, self.rule) {
            (Some(route), Some(rule)) => write!(f, "{route}#{rule}")?,
            _ => f.write_str("-")?,
        }
        write!(f, " {} {}", OrDash(self.backend.as_ref()), OrDash(self.endpoint.as_ref()))?;
        let protocol = self.protocol.as_deref().unwrap_or("-");
        write!(f, " \"{} {} {protocol}\"", Escaped(method), Escaped(target))?;
        write!(f, " {}", OrDash(self.host.as_deref().map(Quoted)))?;
        write!(f, " {} {answer} {ending}", OrDash(self.status.as_ref()))?;
        match self.first_byte_ms {
            Some(first_byte) => write!(f, " {first_byte:.3}")?,
            None => f.write_str(" -")?,
        }
        write!(f, " {:.3} {} {}", self.duration_ms, self.request_bytes, self.response_bytes)?;
        write!(f, " {} {}", self.copies, OrDash(self.reason.map(Quoted)))
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1e3
}

/// Without scheme and authority, which `host` has; CONNECT has nothing else.
fn target(uri: &http::Uri) -> String {
    uri.path_and_query().map_or_else(|| uri.to_string(), ToString::to_string)
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
        write!(f, "\"{}\"", Escaped(self.0))
    }
}

/// Text that comes from the client: nothing in it ends the quotes or the line.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '"' | '\\' => write!(f, "\\{character}")?,
                control if control.is_control() => write!(f, "\\x{:02x}", u32::from(control))?,
                plain => write!(f, "{plain}")?,
            }
        }
        Ok(())
    }
}

fn display<S: Serializer>(value: &impl fmt::Display, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(value)
}

#[cfg(test)]
mod tests;

//! The access log: one line per request on stdout, off by default. A worker formats its line and
//! offers it to a bounded channel; a thread of its own writes. When that thread falls behind,
//! lines are dropped and counted: the data path never waits for a reader of stdout.
//!
//! The text format, fields parted by one space, absent ones written as `-`:
//!
//! ```text
//! TIME CLIENT FRONTEND ROUTE#RULE BACKEND ENDPOINT "METHOD TARGET" STATUS ANSWER ENDING \
//!     DURATION_MS REQUEST_BYTES RESPONSE_BYTES COPIES
//! ```
//!
//! Within the quotes `"` and `\` are preceded by `\`, and control characters written as `\xHH`.

use std::{
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

use serde::{Serialize, Serializer};

use super::{RequestEvent, labels};

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
    frontend: String,
    route: Option<String>,
    rule: Option<usize>,
    backend: Option<String>,
    endpoint: Option<SocketAddr>,
    method: &'a str,
    target: String,
    status: Option<u16>,
    answer: &'static str,
    ending: &'static str,
    duration_ms: f64,
    request_bytes: u64,
    response_bytes: u64,
    copies: u32,
}

impl<'a> Line<'a> {
    fn new(event: &RequestEvent<'a>, now: SystemTime) -> Self {
        Self {
            time: humantime::format_rfc3339_millis(now),
            client: event.client,
            frontend: labels::service(&event.frontend.service),
            route: event.rule.map(|(route, _)| route.to_string()),
            rule: event.rule.map(|(_, index)| index),
            backend: event.backend.map(|backend| labels::service(backend)),
            endpoint: event.endpoint,
            method: event.method.as_str(),
            target: event.target.to_string(),
            status: event.status,
            answer: event.answer.label(),
            ending: event.ending.label(),
            duration_ms: event.duration.as_micros() as f64 / 1e3,
            request_bytes: event.request_bytes,
            response_bytes: event.response_bytes,
            copies: event.copies,
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
        let Self { time, client, frontend, answer, ending, duration_ms, .. } = self;
        write!(f, "{time} {client} {frontend} ")?;
        match (&self.route, self.rule) {
            (Some(route), Some(rule)) => write!(f, "{route}#{rule}")?,
            _ => f.write_str("-")?,
        }
        write!(f, " {} {}", OrDash(self.backend.as_ref()), OrDash(self.endpoint.as_ref()))?;
        write!(f, " \"{} {}\"", Quoted(self.method), Quoted(&self.target))?;
        write!(f, " {} {answer} {ending} {duration_ms:.3}", OrDash(self.status.as_ref()))?;
        write!(f, " {} {} {}", self.request_bytes, self.response_bytes, self.copies)
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

/// Text that comes from the client: nothing in it ends the quotes or the line.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
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

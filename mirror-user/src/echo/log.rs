//! Logs of `mirror echo`: gunicorn's access line, and a JSON line of what exactly arrived.

use std::{
    fs::File,
    io::{self, Write},
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use anyhow::Context;
use http::{HeaderMap, header, request::Parts};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::plain::{self, Plain};

/// Where the lines go.
#[derive(Clone, Debug)]
pub(super) struct EchoLog {
    name: String,
    json: Option<Arc<EchoSink>>,
    access: bool,
}

#[derive(Debug)]
enum EchoSink {
    Stdout,
    File(Mutex<File>),
}

impl EchoLog {
    pub(super) fn open(name: String, json: Option<&Path>, quiet: bool) -> anyhow::Result<Self> {
        let stdout = json == Some(Path::new("-"));
        let json = match json {
            None => None,
            Some(_) if stdout => Some(EchoSink::Stdout),
            Some(path) => {
                let file = File::options().create(true).append(true).open(path);
                Some(EchoSink::File(Mutex::new(file.with_context(|| {
                    format!("mirror echo cannot open its log {}", path.display())
                })?)))
            }
        };
        Ok(Self { name, json: json.map(Arc::new), access: !quiet && !stdout })
    }

    /// The line that gunicorn's `--access-logfile -` writes.
    pub(super) fn access(&self, peer: SocketAddr, head: &Parts, status: u16, length: u64) {
        if !self.access {
            return;
        }
        let field = |name| text(&head.headers, name).unwrap_or_else(|| "-".into());
        let line = format!(
            "{} - - [{}] \"{} {} {:?}\" {status} {length} \"{}\" \"{}\"",
            peer.ip(),
            date(SystemTime::now()),
            head.method,
            head.uri,
            head.version,
            field(header::REFERER),
            field(header::USER_AGENT),
        );
        // Its lines are for people.
        EchoSink::Stdout.write(&Plain(&line).to_string());
    }

    /// Begins the record of a request; it is written when dropped.
    pub(super) fn record(&self, peer: SocketAddr, head: &Parts) -> RequestRecord {
        RequestRecord {
            sink: self.json.clone(),
            head: self.json.is_some().then(|| {
                json!({
                    "name": self.name,
                    "peer": peer.to_string(),
                    "method": head.method.as_str(),
                    "target": head.uri.to_string(),
                    "version": format!("{:?}", head.version),
                    "host": text(&head.headers, header::HOST),
                    "headers": pairs(&head.headers),
                })
            }),
            hash: Sha256::new(),
            length: 0,
            trailers: HeaderMap::new(),
            complete: false,
        }
    }
}

impl EchoSink {
    /// One line, whole; a log that cannot be written to is no reason to stop serving.
    fn write(&self, line: &str) {
        let line = format!("{line}\n");
        let _ = match self {
            Self::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(line.as_bytes()).and_then(|()| out.flush())
            }
            Self::File(file) => {
                file.lock().unwrap_or_else(PoisonError::into_inner).write_all(line.as_bytes())
            }
        };
    }
}

/// What arrived of one request. Written when dropped, so that requests that the client (or a
/// fault) ended early are logged as well, with `complete` false.
#[derive(Debug)]
pub(super) struct RequestRecord {
    sink: Option<Arc<EchoSink>>,
    head: Option<Value>,
    hash: Sha256,
    length: u64,
    trailers: HeaderMap,
    complete: bool,
}

impl RequestRecord {
    pub(super) fn data(&mut self, data: &[u8]) {
        self.hash.update(data);
        self.length += data.len() as u64;
    }

    pub(super) fn trailers(&mut self, trailers: HeaderMap) {
        self.trailers = trailers;
    }

    pub(super) fn complete(&mut self) {
        self.complete = true;
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }

    pub(super) fn sha256(&self) -> String {
        self.hash.clone().finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl Drop for RequestRecord {
    fn drop(&mut self) {
        let (Some(sink), Some(mut line)) = (&self.sink, self.head.take()) else { return };
        line["body_length"] = self.length.into();
        line["body_sha256"] = self.sha256().into();
        line["trailers"] = pairs(&self.trailers);
        line["complete"] = self.complete.into();
        sink.write(&plain::json(line.to_string()));
    }
}

pub(super) fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<String> {
    headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
}

fn pairs(headers: &HeaderMap) -> Value {
    headers
        .iter()
        .map(|(name, value)| json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())]))
        .collect()
}

/// `22/Nov/2026:22:09:00 +0000`.
fn date(now: SystemTime) -> String {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let seconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    let (year, month, day) = civil(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let month = MONTHS[month];
    format!("{day:02}/{month}/{year}:{hour:02}:{minute:02}:{second:02} +0000")
}

/// Year, month from 0 and day from 1 of a day since 1970-01-01.
fn civil(mut day: u64) -> (u64, usize, u64) {
    let leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let mut year = 1970;
    while day >= 365 + u64::from(leap(year)) {
        day -= 365 + u64::from(leap(year));
        year += 1;
    }
    let months = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while day >= months[month] {
        day -= months[month];
        month += 1;
    }
    (year, month, day + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_gunicorns() {
        let at = |seconds| date(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "01/Jan/1970:00:00:00 +0000");
        assert_eq!(at(951_782_399), "28/Feb/2000:23:59:59 +0000");
        assert_eq!(at(951_782_400), "29/Feb/2000:00:00:00 +0000");
        assert_eq!(at(1_730_192_356), "29/Oct/2024:08:59:16 +0000");
    }
}

//! Responses as lines. In: a request. Out: lines, each within a time and a size.

use std::time::Duration;

use ::kube::{Client, client::Body};
use bytes::{Buf, BytesMut};
use http::{Request, Response};
use http_body_util::BodyExt as _;
use tokio::time::timeout;

use super::{WatchError, message::Status};

use crate::error_chain::WithCauses;

/// How long a response's head may take.
const HEAD: Duration = Duration::from_secs(30);

/// How long a list may say nothing.
const LIST_SILENCE: Duration = Duration::from_secs(15);

/// How long a watch may say nothing: the server sends a bookmark each minute
/// (`bookmarkFrequency`, k8s.io/apiserver storage/cacher).
const WATCH_SILENCE: Duration = Duration::from_secs(150);

/// Largest line: an object. etcd takes 1.5 MiB, as protobuf.
const LINE: usize = 16 << 20;

/// Largest page of a list.
const PAGE: usize = 256 << 20;

/// The body of a response that says yes.
#[derive(Debug)]
pub(super) struct LineReader {
    body: Body,
    buffer: BytesMut,
    /// How much of the buffer is known to hold no end of a line.
    searched: usize,
}

/// Sends the request, and waits for the head of its response.
pub(super) async fn open(
    client: &Client,
    request: Request<Body>,
) -> Result<LineReader, WatchError> {
    let response = timeout(HEAD, client.send(request)).await;
    let response = response.map_err(|_| WatchError::Silent(HEAD))?;
    let response = response.map_err(|error| WatchError::Unreachable(Box::new(error)))?;
    let (parts, body) = response.into_parts();
    let reader = LineReader { body, buffer: BytesMut::new(), searched: 0 };
    if parts.status.is_success() {
        return Ok(reader);
    }
    let requested = retry_after(&Response::from_parts(parts.clone(), ()));
    let status = Status::parse(&reader.all().await.unwrap_or_default());
    Err(match (status.refusal(parts.status.as_u16()), requested) {
        (WatchError::Refused { status, message, retry_after }, Some(requested)) => {
            WatchError::Refused { status, message, retry_after: retry_after.max(requested) }
        }
        (error, _) => error,
    })
}

fn retry_after(response: &Response<()>) -> Option<Duration> {
    let value = response.headers().get(http::header::RETRY_AFTER)?;
    value.to_str().ok()?.parse().ok().map(Duration::from_secs)
}

impl LineReader {
    /// The next line that is not empty; None at the end.
    pub(super) async fn next(&mut self, listing: bool) -> Result<Option<String>, WatchError> {
        let limit = if listing { LIST_SILENCE } else { WATCH_SILENCE };
        loop {
            while let Some(line) = self.take_line() {
                if !line.trim_ascii().is_empty() {
                    return text(&line).map(Some);
                }
            }
            if self.buffer.len() > LINE {
                return Err(WatchError::Garbage(format!("a line of over {LINE} bytes")));
            }
            if !self.read(limit).await? {
                return match self.buffer.is_empty() {
                    true => Ok(None),
                    false => Err(WatchError::Cut("in the middle of an object".into())),
                };
            }
        }
    }

    /// Everything to the end, as one text.
    pub(super) async fn all(mut self) -> Result<String, WatchError> {
        while self.read(LIST_SILENCE).await? {
            if self.buffer.len() > PAGE {
                return Err(WatchError::Garbage(format!("a page of over {PAGE} bytes")));
            }
        }
        text(&self.buffer)
    }

    fn take_line(&mut self) -> Option<BytesMut> {
        let end = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n');
        let Some(end) = end else {
            self.searched = self.buffer.len();
            return None;
        };
        let line = self.buffer.split_to(self.searched + end);
        self.buffer.advance(1);
        self.searched = 0;
        Some(line)
    }

    /// Reads once; false at the end.
    async fn read(&mut self, limit: Duration) -> Result<bool, WatchError> {
        let frame = timeout(limit, self.body.frame()).await;
        match frame.map_err(|_| WatchError::Silent(limit))? {
            None => Ok(false),
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.buffer.extend_from_slice(data);
                }
                Ok(true)
            }
            Some(Err(error)) => Err(WatchError::Cut(WithCauses(&error).to_string())),
        }
    }
}

fn text(bytes: &[u8]) -> Result<String, WatchError> {
    let text = std::str::from_utf8(bytes).map(str::to_owned);
    text.map_err(|error| WatchError::Garbage(format!("not UTF-8: {error}")))
}

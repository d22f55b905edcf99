//! `GET /containerLogs/NAMESPACE/POD/CONTAINER`: what a container has written.
//!
//! In: `follow`, `tailLines`, `limitBytes`, `previous`. Out: the bytes of its log, to its present
//! end or, following, to the container's. stdout and stderr are one log, without times: what asks
//! for times is refused.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::stream;
use http::{Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::{
    fs::File,
    io::{AsyncReadExt, AsyncSeekExt},
    time::sleep,
};

use super::{Body, Known, Query, text};
use crate::cluster::kubelet::record::{Record, Records, State};

pub(super) async fn response(known: &Known, record: &Record, query: &Query) -> Response<Body> {
    for name in ["timestamps", "sinceSeconds", "sinceTime"] {
        if query.get(name).is_some_and(|value| !matches!(value, "" | "false" | "0")) {
            return text(StatusCode::BAD_REQUEST, &format!("{name}: this node keeps no times"));
        }
    }
    let run = match (query.is("previous"), record.restarts) {
        (false, run) => run,
        (true, 0) => return text(StatusCode::BAD_REQUEST, "there was no previous container"),
        (true, run) => run - 1,
    };
    let path = known.folder.join(format!("{}-{run}.log", record.name));
    let tail = query.get("tailLines").and_then(|value| value.parse().ok());
    let limit = query.get("limitBytes").and_then(|value| value.parse().ok());
    match Reader::open(path, tail, limit).await {
        Ok(mut reader) => {
            if query.is("follow") && !query.is("previous") {
                reader.follow = Some((Arc::clone(&known.records), record.name.clone(), run));
            }
            let frames = stream::unfold(reader, |mut reader| async {
                let chunk = reader.next().await.transpose()?;
                Some((chunk.map(Frame::data), reader))
            });
            Response::new(StreamBody::new(frames).boxed_unsync())
        }
        Err(error) => text(StatusCode::BAD_REQUEST, &format!("no log of this container: {error}")),
    }
}

struct Reader {
    file: File,
    /// Bytes that may still be sent.
    left: u64,
    /// Whose end is this log's, and which run of it.
    follow: Option<(Arc<Records>, String, u32)>,
}

impl Reader {
    async fn open(path: PathBuf, tail: Option<usize>, limit: Option<u64>) -> io::Result<Self> {
        let mut file = File::open(&path).await?;
        if let Some(tail) = tail {
            let content = tokio::fs::read(&path).await?;
            let start = u64::try_from(tail_start(&content, tail)).map_err(io::Error::other)?;
            file.seek(io::SeekFrom::Start(start)).await?;
        }
        Ok(Self { file, left: limit.unwrap_or(u64::MAX), follow: None })
    }

    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            // Asked before reading: what was written until then is there to be read.
            let over = self.over();
            let mut chunk = vec![0; 16 * 1024];
            let room = usize::try_from(self.left).unwrap_or(usize::MAX).min(chunk.len());
            let read = self.file.read(&mut chunk[..room]).await?;
            if read > 0 {
                chunk.truncate(read);
                self.left -= u64::try_from(read).map_err(io::Error::other)?;
                return Ok(Some(chunk.into()));
            }
            if over || self.left == 0 {
                return Ok(None);
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    fn over(&self) -> bool {
        let Some((records, name, run)) = &self.follow else { return true };
        records.named(name).is_none_or(|record| {
            record.restarts != *run || !matches!(record.state, State::Running { .. })
        })
    }
}

/// Where the last `lines` lines begin.
fn tail_start(content: &[u8], lines: usize) -> usize {
    let body = content.strip_suffix(b"\n").unwrap_or(content);
    if lines == 0 {
        return content.len();
    }
    let ends = body.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n');
    ends.map(|(at, _)| at + 1).nth(lines - 1).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_begins_at_a_line() {
        for (content, lines, start) in [
            ("a\nb\nc\n", 1, 4),
            ("a\nb\nc\n", 2, 2),
            ("a\nb\nc\n", 9, 0),
            ("a\nb\nc\n", 0, 6),
            ("a\nb", 1, 2),
            ("", 1, 0),
        ] {
            assert_eq!(tail_start(content.as_bytes(), lines), start, "{content:?} {lines}");
        }
    }
}

//! h2load (of nghttp2), the load generator for HTTP/2 with prior knowledge: a duration goes in, its
//! own count of requests and errors comes out.

use std::{fs, time::Duration};

use anyhow::{Context, Result};

use crate::{
    generator::Generator,
    node::{Node, Pod},
};

/// h2load, ready to run on one node.
#[derive(Debug)]
pub struct H2load(Generator);

/// What its requests are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum H2Shape {
    /// GET.
    Get,
    /// A unary call of gRPC with a message of so many bytes.
    Grpc(usize),
}

/// What one run of h2load measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct H2Counts {
    /// Requests that got 2xx or 3xx.
    pub requests: u64,
    /// Requests that failed, timed out, or got another status.
    pub errors: u64,
    /// Requests per second.
    pub rate: f64,
}

impl H2load {
    /// Its files go into the node's folder.
    #[must_use]
    pub fn new(node: &Node) -> Self {
        Self(Generator::new(node))
    }

    /// The same on one processor alone.
    #[must_use]
    pub fn pinned(self, processor: usize) -> Self {
        Self(self.0.pinned(processor))
    }

    /// Sends requests to `url` from the pod on so many `connections` with so many `streams` in
    /// progress on each, for `duration` (whole seconds).
    ///
    /// # Errors
    /// h2load is not installed, or fails; its report cannot be read.
    pub fn run(
        &self,
        pod: &Pod,
        url: &str,
        shape: H2Shape,
        (connections, streams): (u32, u32),
        duration: Duration,
    ) -> Result<H2Counts> {
        let (c, m) = (connections.to_string(), streams.to_string());
        let d = duration.as_secs().to_string();
        let mut argv = vec!["h2load", "-t1", "-c", &c, "-m", &m, "-D", &d];
        let message = self.0.folder().join("message.grpc");
        let file = message.to_string_lossy();
        if let H2Shape::Grpc(size) = shape {
            fs::write(&message, framed(size)?).with_context(|| message.display().to_string())?;
            argv.extend(["-d", &file, "-H", "content-type: application/grpc"]);
            argv.extend(["-H", "te: trailers"]);
        }
        argv.push(url);
        let text = self.0.run(pod, &argv, duration, "nghttp2-client")?;
        parse(&text).with_context(|| format!("h2load did not report: {text}"))
    }
}

/// A message as gRPC frames it: not compressed, its length, and the bytes.
fn framed(size: usize) -> Result<Vec<u8>> {
    let length = u32::try_from(size).context("a message has at most 4 GiB")?;
    let mut message = vec![0];
    message.extend(length.to_be_bytes());
    message.resize(5 + size, b'x');
    Ok(message)
}

/// `finished in 2.00s, 45000.50 req/s, ...` and `requests: 90001 total, 90065 started, 90001 done,
/// 90001 succeeded, 0 failed, 0 errored, 0 timeout`. In a run for a time, those in progress at its
/// end are started and not done, and no error.
fn parse(text: &str) -> Option<H2Counts> {
    let rest = |prefix: &str| text.lines().find_map(|line| line.strip_prefix(prefix));
    let rate = rest("finished in ")?.split(", ").nth(1)?.strip_suffix(" req/s")?.parse().ok()?;
    let counts = rest("requests: ")?;
    let count = |name: &str| {
        let mut counts = counts.split(", ");
        counts.find_map(|part| part.strip_suffix(name)?.trim().parse::<u64>().ok())
    };
    let errors = count("failed")? + count("errored")? + count("timeout")?;
    Some(H2Counts { requests: count("succeeded")?, errors, rate })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_is_read() {
        let text = "\nfinished in 2.00s, 45000.50 req/s, 1.62MB/s\n\
                    requests: 90004 total, 90065 started, 90004 done, 90001 succeeded, 3 failed, \
                    1 errored, 2 timeout\nstatus codes: 90001 2xx, 0 3xx, 3 4xx, 0 5xx\n";
        let expected = H2Counts { requests: 90_001, errors: 6, rate: 45_000.5 };
        assert_eq!(parse(text), Some(expected));
        assert_eq!(parse("finished in 2.00s"), None);
    }

    #[test]
    fn a_message_has_the_frame_of_grpc() {
        assert_eq!(framed(3).unwrap(), b"\0\0\0\0\x03xxx");
    }
}

//! wrk (<https://github.com/wg/wrk>), the load generator: a duration goes in, its own count of
//! requests, latencies and errors comes out.

use std::{fs, time::Duration};

use anyhow::{Context, Result};

use crate::{
    generator::Generator,
    node::{Node, Pod},
};

/// Before each request of a paced run: 20 ms on average, never in step with the others.
const PACE: &str = "function delay() return math.random(10, 30) end\n";

/// Written by wrk at its end: one line of JSON on stdout, times in microseconds.
const SCRIPT: &str = r#"
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '\n{"requests":%d,"duration":%d,"p50":%d,"p99":%d,"max":%d,' ..
    '"connect":%d,"read":%d,"write":%d,"status":%d,"timeout":%d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    latency.max, e.connect, e.read, e.write, e.status, e.timeout))
end
"#;

/// wrk, ready to run on one node.
#[derive(Debug)]
pub struct Wrk(Generator);

/// What its requests are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// GET on kept connections, the next at once.
    Get,
    /// GET on kept connections, each after a pause of 10 to 30 ms, so that the latency is that of
    /// the path and not of a queue for the processor.
    Paced,
    /// POST of so many bytes on kept connections, the next at once.
    Post(usize),
    /// GET with `Connection: close`: every request has a separate connection.
    Closing,
}

impl Shape {
    fn script(self) -> String {
        let lead = match self {
            Self::Get => String::new(),
            Self::Paced => PACE.to_owned(),
            Self::Post(size) => format!(
                "wrk.method = \"POST\"\nwrk.body = string.rep(\"x\", {size})\n\
                 wrk.headers[\"Content-Type\"] = \"application/octet-stream\"\n"
            ),
            Self::Closing => "wrk.headers[\"Connection\"] = \"close\"\n".to_owned(),
        };
        lead + SCRIPT
    }
}

/// What one run measured.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Requests that got a response.
    pub requests: u64,
    /// Connections refused or broken, responses outside 2xx and 3xx, and responses that took over 2 s.
    pub errors: u64,
    /// Requests per second.
    pub rate: f64,
    /// Half of the requests took at most this long.
    pub p50: Duration,
    /// 99 of 100 requests took at most this long.
    pub p99: Duration,
}

impl Wrk {
    /// Its scripts go into the node's folder.
    #[must_use]
    pub fn new(node: &Node) -> Self {
        Self(Generator::new(node))
    }

    /// The same on one processor alone.
    #[must_use]
    pub fn pinned(self, processor: usize) -> Self {
        Self(self.0.pinned(processor))
    }

    /// Sends requests to `url` from the pod on so many `connections`, one at a time on each, for
    /// `duration` (whole seconds, as wrk has it).
    ///
    /// # Errors
    /// wrk is not installed, or fails; its report cannot be read.
    pub fn run(
        &self,
        pod: &Pod,
        url: &str,
        shape: Shape,
        connections: u32,
        duration: Duration,
    ) -> Result<Load> {
        let script = self.0.folder().join(format!("{shape:?}.lua"));
        fs::write(&script, shape.script()).with_context(|| script.display().to_string())?;
        let (c, d) = (connections.to_string(), format!("{}s", duration.as_secs()));
        let script = script.to_string_lossy();
        let wrk = ["wrk", "-t1", "-c", &c, "-d", &d, "--timeout", "2s", "-s", &*script, url];
        let text = self.0.run(pod, &wrk, duration, "wrk")?;
        let report = text.lines().rev().find(|line| line.starts_with('{'));
        parse(report.with_context(|| format!("wrk did not report: {text}"))?)
    }
}

fn parse(report: &str) -> Result<Load> {
    let report: serde_json::Value = serde_json::from_str(report).context("wrk's report")?;
    let number = |field: &str| {
        report[field].as_u64().with_context(|| format!("no {field} in wrk's report {report}"))
    };
    let errors = ["connect", "read", "write", "status", "timeout"];
    let requests = number("requests")?;
    Ok(Load {
        requests,
        errors: errors.iter().map(|kind| number(kind)).sum::<Result<_>>()?,
        rate: requests as f64 * 1e6 / number("duration")? as f64,
        p50: Duration::from_micros(number("p50")?),
        p99: Duration::from_micros(number("p99")?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_is_read() {
        let load = parse(
            r#"{"requests":500,"duration":2000000,"p50":1500,"p99":9000,"max":9500,
                "connect":1,"read":2,"write":3,"status":4,"timeout":5}"#,
        )
        .unwrap();
        assert_eq!((load.requests, load.errors), (500, 15));
        assert_eq!((load.rate, load.p99), (250.0, Duration::from_millis(9)));
        assert!(parse(r#"{"requests":500}"#).is_err());
    }
}

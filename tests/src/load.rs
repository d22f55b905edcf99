//! A client under load that reports every exchange: new connections at a rate, and kept ones.
//! In: a URL and a time. Out: what became of each, by the clock of [`now`].

use std::{
    collections::BTreeMap,
    fs,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use nix::time::{ClockId, clock_gettime};
use serde::Deserialize;

use crate::{
    node::Pod,
    process::{Process, eventually},
};

/// New connections per second.
const RATE: usize = 200;
/// Kept connections, half of which wait for a response at any time.
const KEPT: usize = 50;

/// The client itself, for a pod that a cluster starts: `python3 -c SCRIPT URL SECONDS
/// NEW_PER_SECOND KEPT`. What it prints is for [`Events::parse`].
pub const SCRIPT: &str = include_str!("load/client.py");

/// The client, running.
#[derive(Debug)]
pub struct LoadClient {
    process: Process,
    seconds: u32,
}

/// What the whole run of a client saw.
#[derive(Debug)]
pub struct Events(Vec<Event>);

/// One exchange.
#[derive(Debug, Deserialize)]
pub struct Event {
    /// `new` (a separate connection) or `kept`.
    pub kind: String,
    /// When it began; seconds, as [`now`]. A new connection begins with connect().
    pub start: f64,
    /// When its response ended, or it failed.
    pub end: f64,
    /// `ok`, a status other than 200, or the name of the error.
    pub outcome: String,
    /// `agent` when the response has the field `x-via`, else `direct`; empty without a response.
    pub via: String,
}

/// Seconds of the clock that the client uses (CLOCK_MONOTONIC).
///
/// # Panics
/// Never: Linux has that clock.
#[must_use]
pub fn now() -> f64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("Linux has a monotonic clock");
    Duration::from(now).as_secs_f64()
}

impl LoadClient {
    /// Starts it in the pod, against this `http://HOST[:PORT]` for so many seconds; it runs when
    /// this returns. A pod may have several.
    ///
    /// # Errors
    /// It cannot be started; `python3` is missing.
    pub fn start(pod: &Pod, url: &str, seconds: u32) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let script = pod.hosts().with_file_name("load.py");
        fs::write(&script, SCRIPT).with_context(|| script.display().to_string())?;
        let script = script.to_string_lossy();
        let numbers = [seconds.to_string(), RATE.to_string(), KEPT.to_string()];
        let mut argv = vec!["python3", &*script, url];
        argv.extend(numbers.iter().map(String::as_str));
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let process = pod.spawn(&format!("load{count}"), &argv)?;
        eventually("the client runs", Duration::from_secs(10), || !process.stderr().is_empty())?;
        Ok(Self { process, seconds })
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It fails, or does not end in time.
    pub fn finish(mut self) -> Result<Events> {
        let status = self.process.wait(Duration::from_secs(u64::from(self.seconds) + 20))?;
        let ended = status.is_some_and(|status| status.success());
        ensure!(ended, "the client: {status:?}: {}", self.process.stderr());
        Events::parse(&self.process.stdout())
    }
}

impl Events {
    /// Reads what the client has printed.
    ///
    /// # Errors
    /// A line is not one of its report.
    pub fn parse(text: &str) -> Result<Self> {
        let events = text.lines().map(serde_json::from_str).collect::<Result<_, _>>();
        Ok(Self(events.context("the client's report")?))
    }

    /// All of them, in the order in which they ended.
    pub fn all(&self) -> impl Iterator<Item = &Event> {
        self.0.iter()
    }

    /// The exchanges of `new` or of `kept` connections.
    pub fn of<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Event> {
        self.0.iter().filter(move |event| event.kind == kind)
    }

    /// Those of them that failed.
    pub fn failed<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Event> {
        self.of(kind).filter(|event| event.outcome != "ok")
    }

    /// The load that was asked for was there, and the agent carried it at first.
    ///
    /// # Panics
    /// It was not.
    pub fn check_load(&self, seconds: usize) {
        self.check_new(seconds);
        let kept = self.of("kept").count();
        assert!(kept >= 250 * seconds, "the client was too slow: {kept} requests");
    }

    /// The same of new connections alone: kept ones may have stood still for a while.
    ///
    /// # Panics
    /// It was not.
    pub fn check_new(&self, seconds: usize) {
        let new = self.of("new").count();
        assert!(new >= 180 * seconds, "the client was too slow: {new} connections in {seconds} s");
        let first = self.0.iter().map(|event| event.start).fold(f64::MAX, f64::min);
        let early = self.0.iter().filter(|event| event.start < first + 1.0);
        assert!(early.into_iter().all(|event| event.via == "agent"), "not captured at first");
    }

    /// Nothing failed at all.
    ///
    /// # Panics
    /// Something did.
    pub fn none_failed(&self, what: &str) {
        let failed: Vec<_> = self.failed("new").chain(self.failed("kept")).collect();
        assert!(failed.is_empty(), "{what}: {} failed: {:?}", failed.len(), failed.first());
    }

    /// Counts by kind, outcome and way.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut counts = BTreeMap::new();
        for Event { kind, outcome, via, .. } in &self.0 {
            *counts.entry(format!("{kind} {outcome} {via}")).or_insert(0) += 1;
        }
        format!("{counts:?}")
    }

    /// The longest that an exchange took to end or to fail, in seconds.
    #[must_use]
    pub fn longest(&self) -> f64 {
        self.0.iter().map(|event| event.end - event.start).fold(0.0, f64::max)
    }

    /// New connections that failed, or took over a second, and began within these seconds.
    pub fn harmed(&self, from: f64, to: f64) -> impl Iterator<Item = &Event> {
        self.of("new").filter(move |event| {
            let late = event.end - event.start > 1.0;
            event.start > from && event.start < to && (late || event.outcome != "ok")
        })
    }

    /// How long after `from` the last of [`Events::harmed`] began; 0 when there is none.
    #[must_use]
    pub fn harmed_for(&self, from: f64, to: f64) -> f64 {
        self.harmed(from, to).map(|event| event.start - from).fold(0.0, f64::max)
    }

    /// How long after `at` the first new connection began that this way carried.
    #[must_use]
    pub fn first(&self, at: f64, via: &str) -> f64 {
        let carried = self.of("new").filter(|event| event.start > at && event.via == via);
        carried.map(|event| event.start - at).fold(f64::MAX, f64::min)
    }
}

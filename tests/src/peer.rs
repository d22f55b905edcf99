//! Programs of others, run from this crate's scripts by Python (with the packages in target/venv)
//! or by Node: servers on port 80 of a pod, which write a line of JSON about all that they get, and
//! clients in the client's pod, which print JSON.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{
    node::{Node, Pod},
    pair::{Pair, lines, script, venv},
    process::{Process, eventually},
};

/// What runs a script, by the end of its name.
fn interpreter(script: &str) -> Result<String> {
    if script.ends_with(".js") { Ok("node".to_owned()) } else { venv("python") }
}

/// A server on port 80 of a pod. Dropping it kills it.
#[derive(Debug)]
pub struct Peer {
    /// The server.
    pub process: Process,
    log: PathBuf,
}

impl Peer {
    /// Starts `SCRIPT 80 LOG ARGS`, and waits until it listens. A second one in the same pod goes
    /// on with the same log.
    ///
    /// # Errors
    /// What runs the script is not installed, or it does not listen within 10 s.
    pub fn start(node: &Node, pod: &Pod, name: &str, args: &[&str]) -> Result<Self> {
        let log = node.folder().join(format!("{}.json", pod.name()));
        let (program, path) = (interpreter(name)?, script(name));
        let mut argv = vec![&*program, &*path, "80"];
        let file = log.to_string_lossy();
        argv.push(&file);
        argv.extend(args);
        let mut process = pod.spawn("peer", &argv)?;
        pod.listening(&mut process, 80)?;
        Ok(Self { process, log })
    }

    /// The same server in the primary and in the shadow.
    ///
    /// # Errors
    /// As [`Peer::start`].
    pub fn both(pair: &Pair, name: &str, args: &[&str]) -> Result<[Self; 2]> {
        let [primary, shadow] =
            [&pair.primary, &pair.shadow].map(|pod| Self::start(&pair.node, pod, name, args));
        Ok([primary?, shadow?])
    }

    /// What it wrote about so far.
    ///
    /// # Panics
    /// A line is no JSON.
    #[must_use]
    pub fn seen(&self) -> Vec<Value> {
        lines(&self.log)
    }

    /// The lines that hold `part` somewhere in their text.
    #[must_use]
    pub fn about(&self, part: &str) -> Vec<Value> {
        self.seen().into_iter().filter(|line| line.to_string().contains(part)).collect()
    }

    /// The same, once there are `count` of them: more are an error, as is waiting for more than
    /// 10 s.
    ///
    /// # Errors
    /// See above; with the last lines and what the server wrote to stderr.
    pub fn wait(&self, part: &str, count: usize) -> Result<Vec<Value>> {
        let what = format!("{count} lines about {part}");
        let arrived =
            eventually(&what, Duration::from_secs(10), || self.about(part).len() >= count);
        let seen = self.about(part);
        arrived.with_context(|| format!("there are {}: {}", seen.len(), self.process.stderr()))?;
        anyhow::ensure!(seen.len() == count, "{} lines about {part}, not {count}", seen.len());
        Ok(seen)
    }
}

impl Pair {
    /// Runs one of this crate's scripts in the client, by what it takes to: what it prints, which
    /// is JSON.
    ///
    /// # Errors
    /// As [`Pair::run`], or it prints no JSON.
    pub fn peer(&self, name: &str, args: &[&str]) -> Result<Value> {
        let (program, path) = (interpreter(name)?, script(name));
        let argv: Vec<_> = [&*program, &*path].into_iter().chain(args.iter().copied()).collect();
        let text = self.run(&argv)?;
        serde_json::from_str(&text).with_context(|| format!("{name} prints: {text}"))
    }
}

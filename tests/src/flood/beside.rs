//! A normal pod beside a hostile one, on one worker of one agent: what the normal one's requests take
//! while the hostile one floods a captured Service, and while the same flood goes to a process that
//! throws it away. In turns, so that both see the same machine.

use std::{
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use super::send;
use crate::{
    agent::Agent,
    client::paced,
    manifest::{Route, Rule},
    node::{Node, Pod},
    process::{Process, eventually},
    stats::median,
    usage,
};

/// Requests of the normal pod per second, and its connections.
const RATE: &str = "200";
const CONNECTIONS: &str = "4";
const NORMAL_CONNECTIONS: u64 = 4;

/// What a flood is sent to, and by how many connections.
const PLAN: [(&str, &str, &str); 14] = [
    ("empty-fields", "respond", "50"),
    ("connection-tokens", "respond", "50"),
    ("unfinished-heads", "respond", "5200"),
    ("unread-interim", "interim", "16"),
    ("header-references", "stall", "8"),
    ("expression", "respond", "16"),
    ("ping-acks", "respond", "16"),
    ("pings", "respond", "16"),
    ("settings", "respond", "16"),
    ("rapid-resets", "respond", "16"),
    ("connects", "respond", "64"),
    ("pipelined", "respond", "64"),
    ("one-byte-chunks", "respond", "16"),
    ("upload", "discard", "16"),
];

/// The programs that run inside the pods.
#[derive(Clone, Debug)]
pub struct Programs {
    /// `flood`.
    pub flood: PathBuf,
    /// `bench-client`.
    pub client: PathBuf,
}

/// What an attack came to. Times in milliseconds.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Its name.
    pub attack: &'static str,
    /// The normal pod's p99 beside the flood, the median of the turns.
    pub p99: f64,
    /// The same while the flood was thrown away.
    pub p99_discarded: f64,
    /// The longest of its requests beside the flood.
    pub max: f64,
    /// Requests of the normal pod that failed, in all turns.
    pub errors: u64,
    /// Bytes of the flood that were taken, in all turns.
    pub bytes: u64,
    /// Connections of the flood, in all turns.
    pub connections: u64,
    /// Connections that the agent accepted meanwhile, without those of the normal pod.
    pub accepted: u64,
    /// How many connections the flood has at a time.
    pub parallel: u64,
    /// The agent's largest memory, in MiB.
    pub peak_mib: f64,
}

impl Outcome {
    /// How much longer the normal pod's p99 is beside the flood.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        self.p99 / self.p99_discarded.max(0.001)
    }
}

/// The node with both pods.
#[derive(Debug)]
pub struct Stage {
    programs: Programs,
    normal: Pod,
    hostile: Pod,
    web: String,
    /// For each mode of the sink, its process and the address that clients connect to.
    sinks: Vec<(&'static str, Process, String)>,
    discard: String,
    _others: Vec<Process>,
    /// Last: its drop removes everything.
    node: Node,
}

impl Stage {
    /// Makes it: the normal pod's Service mirrors everything to a shadow, and so do the hostile
    /// one's.
    ///
    /// # Errors
    /// As [`Node::create`], or a server does not start.
    pub fn create(programs: Programs) -> Result<Self> {
        let node = Node::create("hostile")?;
        let names = ["normal", "hostile", "primary", "shadow", "discard"];
        let [normal, hostile, primary, shadow, discarding] = names.map(|name| node.pod(name));
        let (normal, hostile, primary) = (normal?, hostile?, primary?);
        let (shadow, discarding) = (shadow?, discarding?);
        let mut others = vec![
            primary.echo(&["--listen", "0.0.0.0:80", "--quiet"])?,
            shadow.echo(&["--listen", "0.0.0.0:80", "--quiet"])?,
        ];
        let web = node.service("web", 80, 80, &[&primary])?;
        let copies = node.service("copies", 80, 80, &[&shadow])?;
        let mut manifests = vec![web.manifest(), copies.manifest()];
        let rule = || Rule::to("web", 80).mirror("copies", 80);
        manifests.push(Route::new("web", &web).rule(rule()).manifest());
        let mut sinks = Vec::new();
        for mode in ["respond", "stall", "interim", "discard"] {
            let pod = node.pod(&format!("sink-{mode}"))?;
            let process = sink(&programs, &pod, mode)?;
            let service = node.service(&format!("target-{mode}"), 80, 80, &[&pod])?;
            // The costliest expression of its kind that is taken.
            let matches = "headers: [{type: RegularExpression, name: x-matched, value: \
                           '[ab]*a[ab]{10}c'}]";
            let target = format!("target-{mode}");
            let matched = Rule::to(&target, 80).matching(matches);
            let route = Route::new(&target, &service).rule(matched);
            let all = Rule::to(&target, 80).mirror("copies", 80);
            manifests.extend([service.manifest(), route.rule(all).manifest()]);
            let address = service.address().to_string();
            sinks.push((mode, process, address));
            std::mem::forget(pod);
        }
        others.push(sink(&programs, &discarding, "discard")?);
        node.routes().write("all.yaml", &manifests.join("---\n"))?;
        let (web, discard) = (web.address().to_string(), format!("{}:80", discarding.ip()));
        std::mem::forget((primary, shadow, discarding));
        Ok(Self { programs, normal, hostile, web, sinks, discard, _others: others, node })
    }

    /// An agent with one worker that captures both pods.
    ///
    /// # Errors
    /// As [`Agent::start`].
    pub fn agent(&self) -> Result<Agent<'_>> {
        Agent::start(&self.node, &[&self.normal, &self.hostile], &["--workers", "1"])
    }

    /// Every attack, so many turns of each kind and each so long.
    ///
    /// # Errors
    /// A load cannot be run, or the agent is gone.
    pub fn attack(
        &self,
        agent: &Agent<'_>,
        name: &str,
        turns: usize,
        duration: Duration,
    ) -> Result<Outcome> {
        let (attack, mode, connections) = PLAN
            .into_iter()
            .find(|(attack, ..)| *attack == name)
            .context("an attack of the plan")?;
        let sink = self.sinks.iter().find(|(of, ..)| *of == mode).context("a sink of each mode")?;
        usage::reset_peak(agent.pid())?;
        let (mut beside, mut discarded) = (Vec::new(), Vec::new());
        let (mut sent, mut accepted) = (send::Report::default(), 0);
        for _ in 0..turns {
            let before = accepted_by(agent)?;
            let (report, flood) = self.turn(attack, &sink.2, connections, duration)?;
            accepted += (accepted_by(agent)? - before).saturating_sub(NORMAL_CONNECTIONS);
            sent.bytes += flood.bytes;
            sent.connections += flood.connections;
            beside.push(report);
            // What the flood has left behind is not to count for the comparison.
            thread::sleep(Duration::from_millis(300));
            discarded.push(self.turn(attack, &self.discard, connections, duration)?.0);
        }
        let ready = agent.get("/readyz")?;
        ensure!(ready.0 == 200, "the agent is not ready: {}", ready.1);
        let p99 = |reports: &[paced::Report]| median(reports.iter().map(|r| r.p99)) / 1e3;
        Ok(Outcome {
            attack,
            p99: p99(&beside),
            p99_discarded: p99(&discarded),
            max: beside.iter().map(|report| report.max / 1e3).fold(0.0, f64::max),
            errors: beside.iter().chain(&discarded).map(|report| report.errors).sum(),
            bytes: sent.bytes,
            connections: sent.connections,
            accepted,
            parallel: connections.parse()?,
            peak_mib: usage::peak_rss(agent.pid())? as f64 / 1_048_576.0,
        })
    }

    /// The normal pod's requests while a flood goes to this address.
    fn turn(
        &self,
        attack: &str,
        address: &str,
        connections: &str,
        duration: Duration,
    ) -> Result<(paced::Report, send::Report)> {
        let seconds = duration.as_secs_f64();
        let flood = self.programs.flood.to_string_lossy();
        // It begins first, and ends last.
        let longer = (seconds + 0.7).to_string();
        let argv = [&*flood, "send", attack, address, connections, &longer];
        let mut flood = self.hostile.spawn(&format!("flood-{attack}"), &argv)?;
        let begun = Instant::now();
        thread::sleep(Duration::from_millis(300));
        let client = self.programs.client.to_string_lossy();
        let whole = seconds.ceil().to_string();
        let argv = [&*client, "paced", &self.web, RATE, CONNECTIONS, &whole];
        let text = self.normal.run(&argv, duration + Duration::from_secs(30))?.ok()?;
        let report = serde_json::from_str(&text).with_context(|| format!("the load: {text}"))?;
        let limit = (duration + Duration::from_secs(20)).saturating_sub(begun.elapsed());
        let status = flood.wait(limit)?.context("the flood does not end")?;
        ensure!(status.success(), "the flood: {status}: {}", flood.stderr());
        Ok((report, serde_json::from_str(&flood.stdout())?))
    }
}

/// Connections that it has accepted so far from captured workloads.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a counter")]
fn accepted_by(agent: &Agent<'_>) -> Result<u64> {
    let metrics = agent.metrics()?;
    let canaries = metrics.sum("mirror_connections_total", &[("kind", "canary")]);
    Ok((metrics.sum("mirror_connections_total", &[]) - canaries) as u64)
}

fn sink(programs: &Programs, pod: &Pod, mode: &str) -> Result<Process> {
    let program = programs.flood.to_string_lossy();
    let process = pod.spawn("sink", &[&*program, "sink", mode, "0.0.0.0:80"])?;
    eventually("the sink listens", Duration::from_secs(5), || {
        process.stdout().starts_with("listening")
    })?;
    Ok(process)
}

//! Primaries whose requests are copied to a hostile shadow: what the requests take, beside what they take
//! with a healthy shadow while another process throws the same flood away. In turns, so that both see the
//! same machine.

use std::{
    collections::HashMap,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use super::{
    beside::Programs,
    shadow::{self, Report},
};
use crate::{
    agent::Agent,
    client::paced,
    copies::Copies,
    manifest::{Route, Rule},
    node::{Node, Pod},
    process::Process,
    stats::median,
    usage,
};

/// Requests per second, and connections of the client's; all of them are copied.
const RATE: u32 = 400;
const CONNECTIONS: &str = "8";

/// Connections that the flood is thrown away on: as many as an agent has to one endpoint by default, and
/// to one that speaks HTTP/2.
const THROWN_AWAY: [&str; 2] = ["64", "4"];

/// What a kind of shadow came to. Times in milliseconds.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Its name.
    pub shadow: &'static str,
    /// The p99 of requests that are copied to it, the median of the turns.
    pub p99: f64,
    /// The same with a healthy shadow, while the flood was thrown away.
    pub p99_discarded: f64,
    /// The longest request.
    pub max: f64,
    /// Requests that failed, in all turns.
    pub errors: u64,
    /// Bytes per second that left the shadow for the agent.
    pub rate: f64,
    /// The same for the process that threw them away.
    pub rate_discarded: f64,
    /// Connections of the agent to the shadow, in all turns.
    pub connections: u64,
    /// The agent's CPU time per second, in milliseconds, beyond what it takes with a healthy shadow.
    pub cpu: f64,
    /// The agent's largest memory, in MiB.
    pub peak_mib: f64,
    /// The account of copies, settled.
    #[serde(skip)]
    pub copies: Copies,
}

impl Outcome {
    /// How much longer the p99 is than beside the flood that is thrown away.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        self.p99 / self.p99_discarded.max(0.001)
    }
}

/// A shadow of one kind.
#[derive(Debug)]
struct Hostile {
    /// Where its flood comes from.
    address: String,
    /// What clients connect to for its copies.
    front: String,
    /// As metrics call it.
    name: String,
    process: Process,
    _pod: Pod,
}

/// The node with all shadows.
#[derive(Debug)]
pub struct Stage {
    programs: Programs,
    client: Pod,
    discarding: Pod,
    healthy: String,
    hostile: HashMap<&'static str, Hostile>,
    _others: Vec<(Pod, Process)>,
    /// Last: its drop removes everything.
    node: Node,
}

/// One turn.
struct Turn {
    requests: paced::Report,
    cpu: Duration,
    sent: Report,
}

impl Stage {
    /// Makes it.
    ///
    /// # Errors
    /// As [`Node::create`], or a server does not start.
    pub fn create(programs: Programs) -> Result<Self> {
        let node = Node::create("shadows")?;
        let [client, discarding, primary, shadow] =
            ["client", "discarding", "primary", "healthy"].map(|name| node.pod(name));
        let (client, discarding, primary, shadow) = (client?, discarding?, primary?, shadow?);
        let mut manifests = Vec::new();
        let backend = node.service("primary", 80, 80, &[&primary])?;
        let well = node.service("healthy", 80, 80, &[&shadow])?;
        manifests.extend([backend.manifest(), well.manifest()]);
        let mut front = |name: &str, shadow: &str| {
            let front = node.service(&format!("to-{name}"), 80, 80, &[&primary])?;
            let rule = Rule::to("primary", 80).mirror(shadow, 80);
            manifests.push(front.manifest());
            manifests.push(Route::new(name, &front).rule(rule).manifest());
            Ok::<_, anyhow::Error>(front.address().to_string())
        };
        let healthy = front("healthy", "healthy")?;
        let fronts = shadow::NAMES.map(|name| front(name, name));
        let mut hostile = HashMap::new();
        for (name, front) in shadow::NAMES.into_iter().zip(fronts) {
            let pod = node.pod(name)?;
            let program = programs.flood.to_string_lossy();
            let mut process = pod.spawn("shadow", &[&*program, "shadow", name, "0.0.0.0:80"])?;
            pod.listening(&mut process, 80)?;
            let mut service = node.service(name, 80, 80, &[&pod])?;
            let speaks = shadow::named(name).context("a kind of the list")?;
            service.app_protocol = speaks.http2.then_some("kubernetes.io/h2c");
            manifests.push(service.manifest());
            let (address, front) = (format!("{}:80", pod.ip()), front?);
            let name_in_metrics = format!("default/{name}:80");
            let shadow = Hostile { address, front, name: name_in_metrics, process, _pod: pod };
            hostile.insert(name, shadow);
        }
        node.routes().write("all.yaml", &manifests.join("---\n"))?;
        let echo = |pod: &Pod| pod.echo(&["--listen", "0.0.0.0:80", "--quiet"]);
        let servers = [echo(&primary)?, echo(&shadow)?];
        let others = [primary, shadow].into_iter().zip(servers).collect();
        Ok(Self { programs, client, discarding, healthy, hostile, _others: others, node })
    }

    /// An agent with one worker.
    ///
    /// # Errors
    /// As [`Agent::start`].
    pub fn agent(&self, flags: &[&str]) -> Result<Agent<'_>> {
        Agent::start(&self.node, &[&self.client], &[&["--workers", "1"], flags].concat())
    }

    /// One kind of shadow, so many turns of each sort and each so long.
    ///
    /// # Errors
    /// A load cannot be run, the agent is gone, or a copy is not accounted for.
    pub fn suffer(
        &self,
        agent: &Agent<'_>,
        name: &'static str,
        turns: usize,
        duration: Duration,
    ) -> Result<Outcome> {
        let shadow = self.hostile.get(name).context("a kind of the list")?;
        usage::reset_peak(agent.pid())?;
        let (mut beside, mut discarded) = (Vec::new(), Vec::new());
        for _ in 0..turns {
            beside.push(self.turn(agent, &shadow.front, shadow, duration)?);
            // What is left of the flood is not to count for the comparison.
            let copies = Copies::settled_for(agent, &shadow.name)?;
            ensure!(copies.in_flight == 0, "{name}: {copies}");
            discarded.push(self.discarded(agent, name, shadow, duration)?);
        }
        let ready = agent.get("/readyz")?;
        ensure!(ready.0 == 200, "the agent is not ready: {}", ready.1);
        let p99 = |turns: &[Turn]| median(turns.iter().map(|turn| turn.requests.p99)) / 1e3;
        let cpu = |turns: &[Turn]| median(turns.iter().map(|turn| turn.cpu.as_secs_f64()));
        let rate = |turns: &[Turn]| {
            median(turns.iter().map(|turn| turn.sent.bytes as f64)) / duration.as_secs_f64()
        };
        Ok(Outcome {
            shadow: name,
            p99: p99(&beside),
            p99_discarded: p99(&discarded),
            max: beside.iter().map(|turn| turn.requests.max / 1e3).fold(0.0, f64::max),
            errors: beside.iter().chain(&discarded).map(|turn| turn.requests.errors).sum(),
            rate: rate(&beside),
            rate_discarded: rate(&discarded),
            connections: beside.iter().map(|turn| turn.sent.connections).sum(),
            cpu: (cpu(&beside) - cpu(&discarded)) * 1e3 / duration.as_secs_f64(),
            peak_mib: usage::peak_rss(agent.pid())? as f64 / 1_048_576.0,
            copies: Copies::settled_for(agent, &shadow.name)?,
        })
    }

    /// A healthy shadow, while another process has the flood.
    fn discarded(
        &self,
        agent: &Agent<'_>,
        name: &str,
        shadow: &Hostile,
        duration: Duration,
    ) -> Result<Turn> {
        let seconds = (duration.as_secs_f64() + 0.7).to_string();
        let program = self.programs.flood.to_string_lossy();
        let connections = THROWN_AWAY[usize::from(name.starts_with("h2-"))];
        let argv = [&*program, "throw-away", name, &shadow.address, connections, &seconds];
        let mut process = self.discarding.spawn("throw-away", &argv)?;
        let begun = Instant::now();
        thread::sleep(Duration::from_millis(300));
        let turn = self.turn(agent, &self.healthy, shadow, duration)?;
        let limit = (duration + Duration::from_secs(20)).saturating_sub(begun.elapsed());
        let status = process.wait(limit)?.context("the discarding process does not end")?;
        ensure!(status.success(), "the discarding process: {status}: {}", process.stderr());
        Ok(turn)
    }

    fn turn(
        &self,
        agent: &Agent<'_>,
        front: &str,
        shadow: &Hostile,
        duration: Duration,
    ) -> Result<Turn> {
        let client = self.programs.client.to_string_lossy();
        let (rate, whole) = (RATE.to_string(), duration.as_secs_f64().ceil().to_string());
        let argv = [&*client, "paced", front, &rate, CONNECTIONS, &whole];
        let (before, cpu) = (shadow.sent()?, usage::cpu_of_cgroup(agent.pid())?);
        let text = self.client.run(&argv, duration + Duration::from_secs(30))?.ok()?;
        let cpu = usage::cpu_of_cgroup(agent.pid())? - cpu;
        let after = shadow.sent()?;
        let sent = Report {
            bytes: after.bytes - before.bytes,
            connections: after.connections - before.connections,
        };
        let requests = serde_json::from_str(&text).with_context(|| format!("the load: {text}"))?;
        Ok(Turn { requests, cpu, sent })
    }
}

impl Hostile {
    /// What has left it so far, a moment ago.
    fn sent(&self) -> Result<Report> {
        let text = self.process.stdout();
        let last = text.lines().rfind(|line| line.ends_with('}'));
        last.map_or(Ok(Report::default()), |line| Ok(serde_json::from_str(line)?))
    }
}

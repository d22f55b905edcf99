//! Growth: many frontends, many captured namespaces. What an uncaptured connect costs then, how
//! long the agent takes to be ready, and its memory. On a separate node.

use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use mirror_tests::{Agent, Node, Pod, eventually, usage};
use serde::Serialize;

use super::{
    BenchArgs,
    client::Client,
    goals::{Bound, Goal},
    peers::Build,
    pinning::{Processors, pinned},
    section::Section,
    stage::NOWHERE,
};

/// Ports of each Service: a frontend each.
const PORTS: usize = 100;

#[derive(Debug, Serialize)]
struct ReportRow {
    frontends: usize,
    namespaces: usize,
    result: Result<Figures, String>,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Figures {
    /// From the agent's start until all is captured.
    ready_s: f64,
    rss_mib: f64,
    /// Of an uncaptured connect, in nanoseconds, in the namespace captured last.
    connect_ns: f64,
}

/// Measures each size with a separate agent.
pub(super) fn section(args: &BenchArgs, build: &Build, client: &Client) -> Section {
    let (frontends, namespaces): (&[usize], &[usize]) =
        if args.quick { (&[10, 1_000], &[1]) } else { (&[10, 1_000, 100_000], &[1, 100, 1_000]) };
    let more = namespaces.iter().skip(1).map(|count| (frontends[0], *count));
    let sizes = frontends.iter().map(|count| (*count, namespaces[0])).chain(more);
    let lines: Vec<_> = sizes
        .map(|(frontends, namespaces)| {
            let result = measure(build, client, frontends, namespaces);
            let result = result.map_err(|error| format!("{error:#}"));
            ReportRow { frontends, namespaces, result }
        })
        .collect();
    let data = serde_json::json!(lines);
    Section { name: "growth", text: table(&lines), data, goals: goals(&lines) }
}

fn measure(build: &Build, client: &Client, frontends: usize, namespaces: usize) -> Result<Figures> {
    let node = Node::create("growth")?;
    node.routes().write("all.yaml", &services(frontends))?;
    let pods: Vec<_> =
        (0..namespaces).map(|at| node.pod(&format!("p{at}"))).collect::<Result<_>>()?;
    let last = pods.last().context("no pod")?;
    last.netns().ip(&format!("route add unreachable {NOWHERE}/32"))?;
    let begin = Instant::now();
    let agent = start(&node, build, &pods)?;
    eventually("all is captured", Duration::from_secs(120), || {
        let on = agent.metric("mirror_workloads", &[("state", "on")]);
        on.is_ok_and(|on| on as usize == namespaces)
    })?;
    let ready_s = begin.elapsed().as_secs_f64();
    let report: mirror_tests::client::connects::Report =
        client.run(last, &["unreachable", NOWHERE, "80", "300000"])?;
    let rss_mib = usage::memory_of_cgroup(agent.pid())? as f64 / 1_048_576.0;
    Ok(Figures { ready_s, rss_mib, connect_ns: report.p50 })
}

fn start<'a>(node: &'a Node, build: &Build, pods: &[Pod]) -> Result<Agent<'a>> {
    let processors = Processors::choose()?;
    let command = pinned(processors.proxy, &[&build.binary.to_string_lossy()]);
    let command: Vec<_> = command.iter().map(String::as_str).collect();
    let captures: Vec<_> =
        pods.iter().map(|pod| format!("{}={}", pod.name(), pod.cgroup().display())).collect();
    let captures: Vec<_> = captures.iter().map(String::as_str).collect();
    Agent::start_as(node, "agent", &command, &captures, &["--workers", "1"])
}

/// Services with a hundred ports each (ten, when there are no more), and a route for each.
fn services(frontends: usize) -> String {
    let mut text = String::new();
    let ports = PORTS.min(frontends);
    for at in 0..frontends / ports {
        let [high, low] = (at as u16).to_be_bytes();
        let _ = write!(
            text,
            "apiVersion: v1\nkind: Service\nmetadata:\n  name: s{at}\n  namespace: default\nspec:\n  \
             clusterIP: 10.97.{high}.{low}\n  ports:\n"
        );
        for port in 1..=ports {
            let _ = write!(text, "  - name: p{port}\n    port: {port}\n");
        }
        let _ = write!(
            text,
            "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata:\n  \
             name: r{at}\nspec:\n  parentRefs:\n  - group: \"\"\n    kind: Service\n    \
             name: s{at}\n  rules:\n  - backendRefs:\n    - name: s{at}\n      port: 1\n---\n"
        );
    }
    text
}

fn table(lines: &[ReportRow]) -> String {
    let mut text = format!(
        "{:>10} {:>11} {:>8} {:>9} {:>12}\n",
        "frontends", "namespaces", "ready s", "RSS MiB", "connect() ns"
    );
    for ReportRow { frontends, namespaces, result } in lines {
        let _ = write!(text, "{frontends:>10} {namespaces:>11} ");
        let _ = match result {
            Ok(Figures { ready_s, rss_mib, connect_ns }) => {
                writeln!(text, "{ready_s:>8.2} {rss_mib:>9.1} {connect_ns:>12.0}")
            }
            Err(why) => writeln!(text, "FAILED: {why}"),
        };
    }
    text
}

fn goals(lines: &[ReportRow]) -> Vec<Goal> {
    let of = |line: &ReportRow| line.result.clone().map(|figures| figures.rss_mib);
    let hundred = lines.iter().find(|line| line.namespaces == 100);
    let idle = hundred.map(|line| {
        let what = "MiB RSS idle with 100 captured namespaces";
        Goal::new(what, of(line), Bound::AtMost(15.0))
    });
    let connects = lines.iter().map(|line| line.result.clone().map(|figures| figures.connect_ns));
    let connects: Result<Vec<_>, String> = connects.collect();
    let grown = connects.map(|ns| {
        ns.iter().copied().fold(0.0, f64::max) / ns.iter().copied().fold(f64::MAX, f64::min)
    });
    let what = "an uncaptured connect() at its dearest against its cheapest size";
    let cliff = Goal::new(what, grown, Bound::AtMost(1.5));
    idle.into_iter().chain([cliff]).collect()
}

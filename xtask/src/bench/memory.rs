//! Resident memory: idle, with 1,000 active connections, with 10,000 idle ones.

use std::{fmt::Write as _, thread::sleep, time::Duration};

use anyhow::{Context, Result, ensure};
use mirror_tests::{Shape, usage};
use serde::Serialize;

use super::{
    Bench,
    goals::{Bound, Goal},
    peers::{Build, Peer, Program},
    section::Section,
};

const ACTIVE: u32 = 1000;
const IDLE: usize = 10_000;
const KIB: f64 = 1024.0;

#[derive(Debug, Serialize)]
struct ReportRow {
    peer: String,
    result: Result<Figures, String>,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Figures {
    /// MiB without a connection, just started.
    idle_mib: f64,
    /// MiB at most while 1,000 connections have a request in progress each.
    active_mib: f64,
    /// KiB for each of 10,000 connections that wait for their next request.
    connection_kib: f64,
}

/// mirror; without `--quick`, the other proxies as well. Each begins again for each figure: what an
/// allocator kept of another load would count.
pub(super) fn section(bench: &Bench<'_>, build: &Build) -> Section {
    let line = |name: &str, result: Result<Figures>| {
        let result = result.map_err(|error| format!("{error:#}"));
        ReportRow { peer: name.to_owned(), result }
    };
    let mut lines = vec![line(&build.name, ours(bench, build))];
    if !bench.args.quick {
        let others = [Program::Envoy, Program::Nginx, Program::Traefik];
        for program in others.into_iter().filter(|program| bench.args.wants(program.name())) {
            let fresh = || Peer::other(bench.stage, bench.programs, program);
            lines.push(line(program.name(), measure(bench, fresh)));
        }
    }
    let data = serde_json::json!(lines);
    Section { name: "memory", text: table(&lines), data, goals: goals(&lines) }
}

fn ours(bench: &Bench<'_>, build: &Build) -> Result<Figures> {
    let pod = bench.stage.client("client-of-memory")?;
    measure(bench, || Peer::mirror(bench.stage, &pod, build, 30))
}

fn measure<'a>(bench: &Bench<'_>, fresh: impl Fn() -> Result<Peer<'a>>) -> Result<Figures> {
    let (idle, connection_kib) = held(bench, &fresh()?)?;
    let active = active(bench, &fresh()?)?;
    Ok(Figures { idle_mib: idle / KIB, active_mib: active / KIB, connection_kib })
}

/// KiB without a connection, and for each of many idle ones.
fn held(bench: &Bench<'_>, peer: &Peer<'_>) -> Result<(f64, f64)> {
    // What the start took goes back to the system within a moment.
    sleep(Duration::from_secs(2));
    let idle = rss(peer)?;
    let _held = bench.client.hold(peer.pod, &address(bench, peer)?, IDLE)?;
    // Connections to the primary that have no more use are closed after a second.
    sleep(Duration::from_secs(2));
    Ok((idle, (rss(peer)? - idle) / IDLE as f64))
}

/// KiB at most under the load of many connections.
fn active(bench: &Bench<'_>, peer: &Peer<'_>) -> Result<f64> {
    let url = format!("http://{}/get", address(bench, peer)?);
    let run = bench.generators.wrk(peer.pod, &url, Shape::Get, ACTIVE, Duration::from_secs(3))?;
    ensure!(run.errors == 0, "{} requests failed", run.errors);
    Ok(usage::peak_rss_of_cgroup(peer.pid().context("no proxy")?)? as f64 / KIB)
}

fn rss(peer: &Peer<'_>) -> Result<f64> {
    Ok(usage::memory_of_cgroup(peer.pid().context("no proxy")?)? as f64 / KIB)
}

fn address(bench: &Bench<'_>, peer: &Peer<'_>) -> Result<String> {
    let scenario = bench.stage.scenario("http1-plain").context("no scenario")?;
    Ok(peer.address(bench.stage, scenario).context("no such scenario")?.to_string())
}

fn table(lines: &[ReportRow]) -> String {
    let mut text = format!(
        "{:<16} {:>9} {:>13} {:>20}\n",
        "RSS", "idle MiB", "1,000 act. MiB", "KiB per idle conn."
    );
    for ReportRow { peer, result } in lines {
        let _ = match result {
            Ok(Figures { idle_mib, active_mib, connection_kib }) => {
                writeln!(
                    text,
                    "{peer:<16} {idle_mib:>9.1} {active_mib:>13.1} {connection_kib:>20.2}"
                )
            }
            Err(why) => writeln!(text, "{peer:<16} FAILED: {why}"),
        };
    }
    text
}

fn goals(lines: &[ReportRow]) -> Vec<Goal> {
    let ours = lines.iter().find(|line| line.peer == "mirror");
    let ours = ours.ok_or_else(|| "no mirror".to_owned()).and_then(|line| line.result.clone());
    let connection = ours.map(|figures| figures.connection_kib);
    vec![Goal::new(
        "KiB for an idle captured connection with its upstream",
        connection,
        Bound::AtMost(14.0),
    )]
}

//! What a bad shadow costs the primary: throughput and p99 beside a healthy shadow's, in turns,
//! and the proxy's memory.

use std::fmt::Write as _;

use anyhow::{Context, Result, ensure};
use mirror_tests::{stats::median, usage};
use serde::Serialize;

use super::{
    Bench,
    goals::{Bound, Goal, ratio},
    load::Run,
    peers::{Peer, Program},
    rows::Traffic,
    section::Section,
    stage,
};

/// All budgets of copies together, the default of `--budget-agent`, in MiB.
const BUDGET: f64 = 64.0;
const MIB: f64 = 1_048_576.0;

/// The shadows that rows are about, by name, and the flags of `mirror echo` that make them.
pub(super) const SHADOWS: [(&str, &[&str]); 7] = [
    ("refuses", &["--fault", "refuse"]),
    ("never-answers", &["--fault", "answer-never"]),
    ("never-reads", &["--fault", "accept-never-read"]),
    // Its pod drops what comes to the port.
    (SYN_DROPPED, &[]),
    ("answers-after-1s", &["--fault", "delay=1s"]),
    ("reads-1kib-s", &["--fault", "slow-read=1024"]),
    ("closes-mid-answer", &["--fault", "close-mid-answer"]),
];

/// The shadow whose pod drops SYNs.
pub(super) const SYN_DROPPED: &str = "syn-dropped";

/// A shadow with a peer.
#[derive(Debug, Serialize)]
struct ReportRow {
    peer: String,
    shadow: &'static str,
    result: Result<Figures, String>,
}

/// Medians over the rounds.
#[derive(Clone, Copy, Debug, Serialize)]
struct Figures {
    rate: f64,
    p99_ms: f64,
    /// Requests that failed, in all rounds.
    errors: u64,
    /// The most that resident memory grew, in all rounds.
    grown_mib: f64,
}

/// Every build of mirror with every shadow in turns; without `--quick`, then the other proxies,
/// each begun again for each shadow.
pub(super) fn section(bench: &Bench<'_>) -> Section {
    let mut lines = Vec::new();
    for peer in bench.peers.iter().filter(|peer| peer.agent().is_some()) {
        lines.extend(in_turns(bench, peer));
    }
    if !bench.args.quick {
        let others = [Program::Envoy, Program::EnvoyIstio, Program::Nginx, Program::Traefik];
        for program in others.into_iter().filter(|program| bench.args.wants(program.name())) {
            let fresh = SHADOWS.iter().map(|(shadow, _)| *shadow).chain(["healthy"]);
            lines.extend(fresh.map(|shadow| once(bench, program, shadow)));
        }
    }
    let data = serde_json::json!(lines);
    Section { name: "faults", text: table(&lines), data, goals: goals(&lines) }
}

fn in_turns(bench: &Bench<'_>, peer: &Peer<'_>) -> Vec<ReportRow> {
    let names: Vec<_> =
        ["healthy"].into_iter().chain(SHADOWS.iter().map(|(shadow, _)| *shadow)).collect();
    let mut runs: Vec<Vec<Result<(Run, f64)>>> = names.iter().map(|_| Vec::new()).collect();
    // Not counted: memory grows to what it is without any fault.
    let _ = load(bench, peer, "healthy");
    for round in 0..bench.args.rounds() {
        for at in (0..names.len()).map(|at| (at + round * 3) % names.len()) {
            runs[at].push(load(bench, peer, names[at]));
        }
    }
    let line = |(shadow, runs)| ReportRow {
        peer: peer.name.clone(),
        shadow,
        result: figures(runs).map_err(|error| format!("{error:#}")),
    };
    names.into_iter().zip(runs).map(line).collect()
}

/// A proxy of others, started for this shadow alone: what it holds of one fault is not to count
/// for the next.
fn once(bench: &Bench<'_>, program: Program, shadow: &'static str) -> ReportRow {
    let run = || {
        let peer = Peer::other(bench.stage, bench.programs, program)?;
        load(bench, &peer, "healthy").context("before the fault")?;
        load(bench, &peer, shadow)
    };
    let result = figures(vec![run()]).map_err(|error| format!("{error:#}"));
    ReportRow { peer: program.name().to_owned(), shadow, result }
}

/// One run; with how much the memory grew, in MiB.
fn load(bench: &Bench<'_>, peer: &Peer<'_>, shadow: &str) -> Result<(Run, f64)> {
    let scenario = match shadow {
        "healthy" => "http1-mirror100".to_owned(),
        shadow => stage::fault(shadow),
    };
    let scenario =
        bench.stage.scenario(&scenario).with_context(|| format!("no scenario {scenario}"))?;
    let address = peer.address(bench.stage, scenario).context("no such scenario")?;
    let pid = peer.pid().context("no proxy")?;
    let before = usage::rss_of_cgroup(pid)?;
    usage::reset_peak_of_cgroup(pid)?;
    let run = bench.generators.run(peer.pod, address, Traffic::Get, bench.args.duration())?;
    let grown = usage::peak_rss_of_cgroup(pid)?.saturating_sub(before);
    Ok((run, grown as f64 / MIB))
}

fn figures(runs: Vec<Result<(Run, f64)>>) -> Result<Figures> {
    let runs: Vec<_> = runs.into_iter().collect::<Result<_>>()?;
    ensure!(runs.iter().any(|(run, _)| run.requests > 0), "no request got a response");
    Ok(Figures {
        rate: median(runs.iter().map(|(run, _)| run.rate)),
        p99_ms: median(runs.iter().filter_map(|(run, _)| run.latency).map(|(_, p99)| p99 * 1e3)),
        errors: runs.iter().map(|(run, _)| run.errors).sum(),
        grown_mib: runs.iter().map(|(_, grown)| *grown).fold(0.0, f64::max),
    })
}

fn table(lines: &[ReportRow]) -> String {
    let mut text = format!(
        "{:<16} {:<18} {:>9} {:>8} {:>8} {:>10}\n",
        "GET, 64 at a time", "shadow", "rate/s", "p99 ms", "errors", "grown MiB"
    );
    for ReportRow { peer, shadow, result } in lines {
        let _ = match result {
            Ok(Figures { rate, p99_ms, errors, grown_mib }) => writeln!(
                text,
                "{peer:<16} {shadow:<18} {rate:>9.0} {p99_ms:>8.2} {errors:>8} {grown_mib:>10.1}"
            ),
            Err(why) => writeln!(text, "{peer:<16} {shadow:<18} FAILED: {why}"),
        };
    }
    text
}

fn goals(lines: &[ReportRow]) -> Vec<Goal> {
    let find = |shadow: &str| {
        let line = lines.iter().find(|line| line.peer == "mirror" && line.shadow == shadow);
        line.ok_or_else(|| "no such row".to_owned())?.result.clone()
    };
    let goal = |shadow: &str| {
        let of = |shadow, figure: fn(Figures) -> f64| find(shadow).map(figure);
        let rate = ratio(of(shadow, |f| f.rate), of("healthy", |f| f.rate));
        let p99 = ratio(of(shadow, |f| f.p99_ms), of("healthy", |f| f.p99_ms));
        let named = |what: &str| format!("shadow {shadow}: {what}");
        [
            Goal::new(named("throughput against healthy"), rate, Bound::AtLeast(0.95)),
            Goal::new(named("p99 against healthy"), p99, Bound::AtMost(1.1)),
            Goal::new(named("errors"), of(shadow, |f| f.errors as f64), Bound::AtMost(0.0)),
            Goal::new(named("MiB grown"), of(shadow, |f| f.grown_mib), Bound::AtMost(BUDGET)),
        ]
    };
    SHADOWS.iter().flat_map(|(shadow, _)| goal(shadow)).collect()
}

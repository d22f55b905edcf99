//! Latency at a fixed rate, from the time at which each request was meant to leave: at 1,000
//! requests per second, and at half of what the peer itself can do. Out: what each adds over
//! direct.

use std::fmt::Write as _;

use anyhow::{Context, Result, ensure};
use mirror_tests::{client::paced::Report, stats::median};
use serde::Serialize;

use super::{
    Bench,
    goals::{Bound, Goal, ratio},
    measure::Cell,
    peers::Peer,
    section::Section,
};

const RATE: u32 = 1000;
const SCENARIOS: [(&str, &str); 2] = [("get", "http1-plain"), ("get mirrored", "http1-mirror100")];

/// A scenario with a peer at a rate.
#[derive(Debug, Serialize)]
struct ReportRow {
    row: &'static str,
    peer: String,
    /// `1000/s`, or `half`.
    load: &'static str,
    rate: u32,
    /// Medians over the rounds, in microseconds.
    result: Result<Figures, String>,
}

/// The name of a percentile, and its figure.
type Percentile = (&'static str, fn(Figures) -> f64);

#[derive(Clone, Copy, Debug, Serialize)]
struct Figures {
    p50: f64,
    p99: f64,
    p999: f64,
}

/// Measures; `cells` say what half of the maximum is.
pub(super) fn section(bench: &Bench<'_>, cells: &[Cell]) -> Section {
    let mut lines = Vec::new();
    for (row, scenario) in SCENARIOS {
        lines.extend(at_rate(bench, row, scenario, "1000/s", |_| Some(RATE)));
        if !bench.args.quick {
            let half = |peer: &Peer<'_>| half(cells, row, &peer.name);
            lines.extend(at_rate(bench, row, scenario, "half", half));
        }
    }
    let data = serde_json::json!(lines);
    Section { name: "latency", text: table(&lines), data, goals: goals(&lines) }
}

/// Half of the median rate of the throughput row.
fn half(cells: &[Cell], row: &str, peer: &str) -> Option<u32> {
    let cell = cells.iter().find(|cell| cell.row == row && cell.peer == peer)?;
    Some((cell.median(|sample| Some(sample.rate))? / 2.0) as u32)
}

/// All peers in turns.
fn at_rate(
    bench: &Bench<'_>,
    row: &'static str,
    scenario: &str,
    load: &'static str,
    rate: impl Fn(&Peer<'_>) -> Option<u32>,
) -> Vec<ReportRow> {
    let peers: Vec<_> = bench.peers.iter().filter_map(|peer| Some((peer, rate(peer)?))).collect();
    let mut reports: Vec<Vec<Result<Report>>> = peers.iter().map(|_| Vec::new()).collect();
    for round in 0..bench.args.rounds() {
        for at in (0..peers.len()).map(|at| (at + round) % peers.len()) {
            let (peer, rate) = peers[at];
            reports[at].extend(paced(bench, peer, scenario, rate).transpose());
        }
    }
    let lines = peers.into_iter().zip(reports).filter(|(_, reports)| !reports.is_empty());
    let line = |((peer, rate), reports): ((&Peer<'_>, u32), Vec<_>)| {
        let result = medians(reports).map_err(|error| format!("{error:#}"));
        ReportRow { row, peer: peer.name.clone(), load, rate, result }
    };
    lines.map(line).collect()
}

fn paced(bench: &Bench<'_>, peer: &Peer<'_>, scenario: &str, rate: u32) -> Result<Option<Report>> {
    let scenario =
        bench.stage.scenario(scenario).with_context(|| format!("no scenario {scenario}"))?;
    let Some(address) = peer.address(bench.stage, scenario) else { return Ok(None) };
    let connections = if rate == RATE { "16" } else { "64" };
    let (address, rate) = (address.to_string(), rate.to_string());
    let seconds = (bench.args.duration().as_secs() + 1).to_string();
    let report: Report =
        bench.client.run(peer.pod, &["paced", &address, &rate, connections, &seconds])?;
    ensure!(report.errors == 0, "{} of {} failed", report.errors, report.requests);
    Ok(Some(report))
}

fn medians(reports: Vec<Result<Report>>) -> Result<Figures> {
    let reports: Vec<Report> = reports.into_iter().collect::<Result<_>>()?;
    let of = |figure: fn(&Report) -> f64| median(reports.iter().map(figure));
    Ok(Figures { p50: of(|r| r.p50), p99: of(|r| r.p99), p999: of(|r| r.p999) })
}

fn table(lines: &[ReportRow]) -> String {
    let mut text = format!(
        "{:<14} {:<8} {:<16} {:>8} {:>9} {:>9} {:>9}\n",
        "us", "load", "", "rate/s", "p50", "p99", "p99.9"
    );
    for ReportRow { row, peer, load, rate, result } in lines {
        let _ = match result {
            Ok(Figures { p50, p99, p999 }) => writeln!(
                text,
                "{row:<14} {load:<8} {peer:<16} {rate:>8} {p50:>9.0} {p99:>9.0} {p999:>9.0}"
            ),
            Err(why) => writeln!(text, "{row:<14} {load:<8} {peer:<16} {rate:>8} FAILED: {why}"),
        };
    }
    text
}

/// What mirror adds over direct, against what Envoy adds.
fn goals(lines: &[ReportRow]) -> Vec<Goal> {
    let find = |row: &str, peer: &str| {
        let line = lines.iter().find(|l| l.row == row && l.peer == peer && l.load == "1000/s");
        line.ok_or_else(|| format!("no {peer} in this run"))?.result.clone()
    };
    let percentiles: [Percentile; 2] = [("p50", |f| f.p50), ("p99", |f| f.p99)];
    let goal = |row: &str, (name, figure): Percentile| {
        let added = |peer| Ok(figure(find(row, peer)?) - figure(find("get", "direct")?));
        let what = format!("{name} added to direct at 1,000 requests/s, {row}, against Envoy's");
        Goal::new(what, ratio(added("mirror"), added("envoy")), Bound::AtMost(0.5))
    };
    SCENARIOS
        .iter()
        .flat_map(|(row, _)| percentiles.map(|percentile| goal(row, percentile)))
        .collect()
}

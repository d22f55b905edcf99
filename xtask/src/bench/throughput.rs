//! The throughput table: every row with every peer, in turns. Out: CPU time per request, requests
//! per second, and the goals about them.

use std::time::Duration;

use super::{
    Bench,
    goals::{Bound, Goal, ratio},
    measure::{self, Cell},
    report,
    rows::Row,
    section::Section,
};

/// Against Envoy's CPU time per request: unmirrored, and mirrored with the stretch.
const AGAINST_ENVOY: [(&str, f64); 9] = [
    ("get", 0.30),
    ("post-16k", 0.36),
    ("h2", 0.45),
    ("get mirrored", 0.24),
    ("post-16k mirrored", 0.32),
    ("h2 mirrored", 0.40),
    ("get mirrored", 0.20),
    ("post-16k mirrored", 0.27),
    ("h2 mirrored", 0.33),
];

/// All rows with all peers in turns; each round begins with another peer.
pub(super) fn measure(bench: &Bench<'_>, rows: &[Row]) -> Vec<Cell> {
    let mut cells = Vec::new();
    for row in rows {
        for cell in line(bench, row) {
            if !cell.is_empty() {
                println!("{}", report::line(&cell));
                cells.push(cell);
            }
        }
    }
    cells
}

fn line(bench: &Bench<'_>, row: &Row) -> Vec<Cell> {
    let peers = &bench.peers;
    let mut line: Vec<_> = peers.iter().map(|peer| Cell::new(row, peer)).collect();
    for round in 0..=bench.args.rounds() {
        for at in (0..peers.len()).map(|at| (at + round) % peers.len()) {
            // The first round, not counted, fills pools and caches.
            let counts = round > 0;
            let duration = if counts { bench.args.duration() } else { Duration::from_secs(1) };
            let result = measure::sample(bench.stage, &bench.generators, &peers[at], row, duration);
            if counts || result.is_err() {
                line[at].add(result);
            }
        }
    }
    line
}

/// The table, and what it says about the goals.
pub(super) fn section(bench: &Bench<'_>, rows: &[Row], cells: &[Cell]) -> Section {
    let names: Vec<_> = bench.peers.iter().map(|peer| peer.name.clone()).collect();
    Section {
        name: "throughput",
        text: report::table(rows, &names, cells),
        data: serde_json::json!(cells),
        goals: goals(rows, cells),
    }
}

fn goals(rows: &[Row], cells: &[Cell]) -> Vec<Goal> {
    let measured = |name: &str| rows.iter().any(|row| row.name == name);
    let mut goals = Vec::new();
    for (at, (row, bound)) in AGAINST_ENVOY.into_iter().enumerate().filter(|(_, g)| measured(g.0)) {
        let stretch = if at < 6 { "" } else { " (stretch)" };
        let figure = ratio(cpu(cells, row, "mirror"), cpu(cells, row, "envoy"));
        let what = format!("CPU per request, {row}, against Envoy{stretch}");
        goals.push(Goal::new(what, figure, Bound::AtMost(bound)));
    }
    for row in ["get", "post-16k"].into_iter().filter(|row| measured(row)) {
        let figure = ratio(cpu(cells, row, "mirror"), cpu(cells, row, "nginx"));
        let what = format!("CPU per request, {row}, against nginx");
        goals.push(Goal::new(what, figure, Bound::AtMost(1.0)));
    }
    goals
}

/// A peer's median, unless the row is void for mirror: copies that others lose are reported, and are
/// theirs.
fn cpu(cells: &[Cell], row: &str, peer: &str) -> Result<f64, String> {
    let cell = cells.iter().find(|cell| cell.row == row && cell.peer == peer);
    let cell = cell.ok_or_else(|| format!("no {peer} in this run"))?;
    if let Some(reason) = cell.void().filter(|_| peer == "mirror") {
        return Err(format!("void: {reason}"));
    }
    cell.median(|sample| sample.cpu_us).ok_or_else(|| format!("{peer} failed"))
}

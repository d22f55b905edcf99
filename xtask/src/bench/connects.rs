//! What the connect hook costs: a destination that no route names, with the hook and without, and
//! a captured one against direct.

use std::fmt::Write as _;

use anyhow::{Context, Result};
use mirror_tests::{Pod, client::connects::Report, stats::median};
use serde::Serialize;

use super::{
    Bench,
    goals::{Bound, Goal},
    section::Section,
    stage,
};

/// Of failing connects in each run, and of whole ones.
const UNREACHABLE: &str = "100000";
const ESTABLISHED: &str = "3000";

#[derive(Debug, Serialize)]
struct Figures {
    /// Nanoseconds, medians over the rounds.
    uncaptured: f64,
    uncaptured_without: f64,
    captured: f64,
    direct: f64,
}

/// Measures both in turns: the captured pod of mirror's, and the pod without.
///
/// # Errors
/// A connect does not end as it should.
pub(super) fn section(bench: &Bench<'_>) -> Result<Section> {
    let with = bench.peers.iter().find(|peer| peer.agent().is_some()).context("no mirror")?;
    let (with, without) = (with.pod, &bench.stage.ground.plain);
    let scenario = bench.stage.scenario("http1-plain").context("no scenario")?;
    let service = scenario.service.to_string();
    let established = |pod| report(bench, pod, &["established", &service, ESTABLISHED]);
    let mut runs: [Vec<f64>; 4] = Default::default();
    for _ in 0..2 * bench.args.rounds() {
        runs[0].push(unreachable(bench, with)?);
        runs[1].push(unreachable(bench, without)?);
        runs[2].push(established(with)?);
        runs[3].push(established(without)?);
    }
    let [uncaptured, uncaptured_without, captured, direct] = runs.map(median);
    let figures = Figures { uncaptured, uncaptured_without, captured, direct };
    let data = serde_json::json!(figures);
    let goals = goals(&figures);
    Ok(Section { name: "connects", text: table(&figures), data, goals })
}

/// Nanoseconds of a connect() that ends at a route which leads nowhere: the hook and little else.
///
/// # Errors
/// It ends otherwise.
pub(super) fn unreachable(bench: &Bench<'_>, pod: &Pod) -> Result<f64> {
    report(bench, pod, &["unreachable", stage::NOWHERE, "80", UNREACHABLE])
}

fn report(bench: &Bench<'_>, pod: &Pod, args: &[&str]) -> Result<f64> {
    Ok(bench.client.run::<Report>(pod, args)?.p50)
}

fn table(figures: &Figures) -> String {
    let Figures { uncaptured, uncaptured_without, captured, direct } = figures;
    let mut text = format!("{:<34} {:>10} {:>10}\n", "ns for connect()", "with", "without");
    for (name, with, without) in [
        ("uncaptured, no route to it", uncaptured, uncaptured_without),
        ("captured / direct, established", captured, direct),
    ] {
        let _ = writeln!(text, "{name:<34} {with:>10.0} {without:>10.0}");
    }
    text
}

fn goals(figures: &Figures) -> Vec<Goal> {
    let more = figures.uncaptured - figures.uncaptured_without;
    let captured = (figures.captured - figures.direct) / 1e3;
    vec![
        Goal::new("ns more for an uncaptured connect()", Ok(more), Bound::AtMost(100.0)),
        Goal::new("us more for a captured connect()", Ok(captured), Bound::AtMost(10.0)),
    ]
}

//! Primaries whose requests are copied to a hostile shadow: their p99 against the p99 with a healthy shadow
//! while another process throws the same flood away, in turns, and what the agent spends on the shadow.

use std::{fmt::Write as _, time::Duration};

use anyhow::Result;
use mirror_tests::flood::{
    beside::Programs,
    shadow,
    shadows::{Outcome, Stage},
};
use serde::Serialize;

use super::{
    BenchArgs,
    client::Client,
    goals::{Bound, Goal},
    section::Section,
};

/// What the agent may spend on a hostile shadow beyond what a healthy one takes, in milliseconds of CPU
/// time per second.
const CPU: f64 = 100.0;

#[derive(Debug, Serialize)]
struct ReportRow {
    shadow: &'static str,
    result: Result<Outcome, String>,
}

/// Every kind of shadow, each with a separate agent.
///
/// # Errors
/// The pods or their servers cannot be made.
pub(super) fn section(args: &BenchArgs, client: &Client) -> Result<Section> {
    let (turns, seconds) = if args.quick { (1, 2) } else { (3, 5) };
    let duration = Duration::from_secs(args.seconds.unwrap_or(seconds));
    let turns = args.rounds.unwrap_or(turns);
    let programs =
        Programs { flood: client.program("flood"), client: client.program("bench-client") };
    let stage = Stage::create(programs)?;
    let line = |shadow| {
        let run = || stage.suffer(&stage.agent(&[])?, shadow, turns, duration);
        ReportRow { shadow, result: run().map_err(|error| format!("{error:#}")) }
    };
    let lines: Vec<_> = shadow::NAMES.into_iter().map(line).collect();
    let data = serde_json::json!(lines);
    Ok(Section { name: "hostile-shadows", text: table(&lines), data, goals: goals(&lines) })
}

fn table(lines: &[ReportRow]) -> String {
    let mut text = format!(
        "{:<18} {:>8} {:>17} {:>6} {:>8} {:>7} {:>9} {:>17} {:>9} {:>9}\n",
        "shadow",
        "p99 ms",
        "thrown away, ms",
        "ratio",
        "max ms",
        "errors",
        "sent MB/s",
        "thrown away, MB/s",
        "CPU ms/s",
        "agent MiB"
    );
    for ReportRow { shadow, result } in lines {
        let _ = match result {
            Ok(of) => writeln!(
                text,
                "{shadow:<18} {:>8.1} {:>17.1} {:>6.2} {:>8.1} {:>7} {:>9.2} {:>17.1} {:>9.0} {:>9.1}",
                of.p99,
                of.p99_discarded,
                of.ratio(),
                of.max,
                of.errors,
                of.rate / 1e6,
                of.rate_discarded / 1e6,
                of.cpu,
                of.peak_mib
            ),
            Err(why) => writeln!(text, "{shadow:<18} FAILED: {why}"),
        };
    }
    text
}

fn goals(lines: &[ReportRow]) -> Vec<Goal> {
    let goals = lines.iter().flat_map(|ReportRow { shadow, result }| {
        let of = |figure: fn(&Outcome) -> f64| result.as_ref().map(figure).map_err(Clone::clone);
        let named = |what: &str| format!("shadow {shadow}: {what}");
        [
            Goal::new(named("p99 against thrown away"), of(Outcome::ratio), Bound::AtMost(1.2)),
            Goal::new(named("errors"), of(|o| o.errors as f64), Bound::AtMost(0.0)),
            Goal::new(named("agent's CPU, ms/s"), of(|o| o.cpu), Bound::AtMost(CPU)),
        ]
    });
    goals.collect()
}

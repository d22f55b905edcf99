//! A normal pod beside a hostile one on the same worker: its p99 while the hostile one floods a
//! captured Service, against the p99 while a process throws the same flood away, in turns.

use std::{fmt::Write as _, time::Duration};

use anyhow::Result;
use mirror_tests::flood::{
    attack,
    beside::{Outcome, Programs, Stage},
};
use serde::Serialize;

use super::{
    BenchArgs,
    client::Client,
    goals::{Bound, Goal},
    section::Section,
};

/// The agent's memory under any attack, in MiB.
const MOST_MIB: f64 = 256.0;

#[derive(Debug, Serialize)]
struct ReportRow {
    attack: &'static str,
    result: Result<Outcome, String>,
}

/// Every attack, each with a separate agent.
///
/// # Errors
/// The pods or their servers cannot be made.
pub(super) fn section(args: &BenchArgs, client: &Client) -> Result<Section> {
    let (turns, duration) =
        if args.quick { (1, Duration::from_secs(3)) } else { (1, Duration::from_secs(30)) };
    let duration = args.seconds.map_or(duration, Duration::from_secs);
    let turns = args.rounds.unwrap_or(turns);
    let programs =
        Programs { flood: client.program("flood"), client: client.program("bench-client") };
    let stage = Stage::create(programs)?;
    let line = |attack| {
        let run = || stage.attack(&stage.agent()?, attack, turns, duration);
        ReportRow { attack, result: run().map_err(|error| format!("{error:#}")) }
    };
    let lines: Vec<_> = attack::NAMES.into_iter().map(line).collect();
    let data = serde_json::json!(lines);
    Ok(Section { name: "hostile", text: table(&lines), data, goals: goals(&lines) })
}

fn table(lines: &[ReportRow]) -> String {
    let mut text = format!(
        "{:<18} {:>8} {:>17} {:>6} {:>8} {:>7} {:>10}\n",
        "attack", "p99 ms", "thrown away, ms", "ratio", "max ms", "errors", "agent MiB"
    );
    for ReportRow { attack, result } in lines {
        let _ = match result {
            Ok(outcome) => writeln!(
                text,
                "{attack:<18} {:>8.1} {:>17.1} {:>6.2} {:>8.1} {:>7} {:>10.1}",
                outcome.p99,
                outcome.p99_discarded,
                outcome.ratio(),
                outcome.max,
                outcome.errors,
                outcome.peak_mib
            ),
            Err(why) => writeln!(text, "{attack:<18} FAILED: {why}"),
        };
    }
    text
}

fn goals(lines: &[ReportRow]) -> Vec<Goal> {
    let goals = lines.iter().flat_map(|ReportRow { attack, result }| {
        let of = |figure: fn(&Outcome) -> f64| result.as_ref().map(figure).map_err(Clone::clone);
        let named = |what: &str| format!("beside {attack}: {what}");
        [
            Goal::new(named("p99 against thrown away"), of(Outcome::ratio), Bound::AtMost(1.5)),
            Goal::new(named("errors"), of(|o| o.errors as f64), Bound::AtMost(0.0)),
            Goal::new(named("agent's MiB"), of(|o| o.peak_mib), Bound::AtMost(MOST_MIB)),
        ]
    });
    goals.collect()
}

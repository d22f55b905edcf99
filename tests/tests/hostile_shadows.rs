//! Shadows that send without end, each for a moment. No request of their primary fails or waits long; what
//! the agent reads of them, what it spends on them and what it holds is bounded; every copy is accounted
//! for. (What the p99 is beside the same flood thrown away by another process is printed here, and held
//! against its goal by `cargo xtask bench --only hostile-shadows`.)
#![allow(clippy::unwrap_used, reason = "helpers of tests; clippy knows only the tests themselves")]

use std::time::Duration;

use mirror_tests::{
    flood::{
        beside::Programs,
        shadow,
        shadows::{Outcome, Stage},
    },
    stats::verdict,
};

/// No request may take as long as this, in milliseconds.
const LONGEST: f64 = 1_000.0;

/// What the p99 may be of what it is beside a process that throws the flood away.
const GOAL: f64 = 1.2;

/// What leaves a shadow for one connection, in bytes: what is read of it, and what the kernel holds.
const EACH: f64 = 3.0 * 1_048_576.0;

/// What the agent may spend on a hostile shadow, in milliseconds of CPU time per second. Copies that are
/// dropped cost less than those that a healthy shadow gets, so that it may be less than nothing. (A build
/// without optimization spends ten times as much on each chunk.)
const CPU: f64 = 500.0;

/// The agent's memory, in MiB.
const MOST_MIB: f64 = 256.0;

#[test]
fn a_hostile_shadow_harms_no_primary() {
    let programs = Programs {
        flood: env!("CARGO_BIN_EXE_flood").into(),
        client: env!("CARGO_BIN_EXE_bench-client").into(),
    };
    let stage = Stage::create(programs).unwrap();
    let agent = stage.agent(&["--shadow-response-timeout", "3s"]).unwrap();
    let mut failures = Vec::new();
    for name in shadow::NAMES {
        match stage.suffer(&agent, name, 1, Duration::from_secs(2)) {
            Ok(outcome) => {
                tell(&outcome);
                if !is_real(&outcome) || !is_harmless(&outcome) {
                    failures.push(format!("{outcome:?}"));
                }
            }
            Err(error) => failures.push(format!("{name}: {error:#}")),
        }
    }
    assert!(failures.is_empty(), "{}\n{}", failures.join("\n"), agent.log());
}

fn tell(of: &Outcome) {
    println!(
        "{:<18} p99 {:6.1} ms, thrown away {:6.1} ms ({:4.1}, goal {GOAL}: {}), max {:6.1} ms, {} errors, \
         {:7.2} MB/s sent ({:7.2} thrown away) on {} connections, CPU {:+5.0} ms/s, agent {:5.1} MiB; {}",
        of.shadow,
        of.p99,
        of.p99_discarded,
        of.ratio(),
        verdict(of.ratio(), GOAL),
        of.max,
        of.errors,
        of.rate / 1e6,
        of.rate_discarded / 1e6,
        of.connections,
        of.cpu,
        of.peak_mib,
        of.copies
    );
}

/// Copies went through the agent to this shadow, and it sent what it is for.
fn is_real(of: &Outcome) -> bool {
    let least = match of.shadow {
        "closes-at-once" => 0.0,
        // A byte per millisecond and connection.
        "slow-drip" => 1e3,
        // A connection is closed for more than this.
        _ => 1_048_576.0,
    };
    of.copies.selected >= 400 && of.connections > 0 && of.rate * 2.0 >= least
}

fn is_harmless(of: &Outcome) -> bool {
    let seconds = 2.0;
    of.errors == 0
        && of.max < LONGEST
        && of.rate * seconds <= (of.connections + 64) as f64 * EACH
        && of.cpu < CPU
        && of.peak_mib < MOST_MIB
}

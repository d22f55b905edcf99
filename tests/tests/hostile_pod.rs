//! One hostile pod beside a normal one, on the same worker: each attack in short turns. The normal
//! pod's requests all succeed and none waits long, the agent's memory stays below its bound, and it
//! is never killed. (What the normal pod's p99 is beside the same flood thrown away is printed
//! here, and held against its goal by `cargo xtask bench --only hostile`.)
#![allow(clippy::unwrap_used, reason = "helpers of tests; clippy knows only the tests themselves")]

use std::time::Duration;

use mirror_tests::{
    flood::{attack, beside},
    stats::verdict,
};

/// The agent's memory under any attack.
const MOST_MIB: f64 = 256.0;

/// No request of the normal pod may take as long as this, in milliseconds: a worker that is silent for
/// 3 s has its agent killed.
const LONGEST: f64 = 1_000.0;

/// What the p99 may be of what it is beside a process that throws the flood away.
const GOAL: f64 = 1.5;

#[test]
fn a_hostile_pod_harms_no_other() {
    let programs = beside::Programs {
        flood: env!("CARGO_BIN_EXE_flood").into(),
        client: env!("CARGO_BIN_EXE_bench-client").into(),
    };
    let stage = beside::Stage::create(programs).unwrap();
    let mut failures = Vec::new();
    for name in attack::NAMES {
        // What one attack leaves behind is not to count for the next.
        let agent = stage.agent().unwrap();
        let outcome = match stage.attack(&agent, name, 1, Duration::from_secs(2)) {
            Ok(outcome) => outcome,
            Err(error) => {
                println!("{name:<18} {error:#}");
                failures.push(format!("{name}: {error:#}\n{}", agent.log()));
                continue;
            }
        };
        println!(
            "{name:<18} p99 {:6.1} ms, thrown away {:6.1} ms ({:4.1}, goal {GOAL}: {}), max {:6.1} ms, \
             {} errors, {:4} MiB sent on {} connections ({} at a time, {} of the agent's), agent \
             {:5.1} MiB",
            outcome.p99,
            outcome.p99_discarded,
            outcome.ratio(),
            verdict(outcome.ratio(), GOAL),
            outcome.max,
            outcome.errors,
            outcome.bytes >> 20,
            outcome.connections,
            outcome.parallel,
            outcome.accepted,
            outcome.peak_mib
        );
        // Where an attack takes more memory than the pod has, further connections go direct.
        let real = outcome.bytes > 0 && outcome.accepted >= outcome.parallel.min(500);
        let harmless = outcome.errors == 0 && outcome.max < LONGEST && outcome.peak_mib < MOST_MIB;
        if !real || !harmless {
            failures.push(format!("{outcome:?}\n{}", agent.log()));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

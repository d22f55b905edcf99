//! Two workers against one. Clients and backends need a processor of the same two, so that
//! throughput cannot double; what can be seen is whether a request costs more with two.

use std::fmt::Write as _;

use anyhow::{Context, Result, ensure};
use mirror_tests::stats::median;
use serde::Serialize;

use super::{
    Bench,
    goals::{Bound, Goal},
    load::Run,
    peers::{Build, Peer},
    rows::Traffic,
    section::Section,
};

#[derive(Clone, Copy, Debug, Serialize)]
struct Figures {
    /// Microseconds of CPU time for each request, medians over the rounds.
    cpu_us: f64,
    rate: f64,
}

/// Measures mirror's own build with one worker and with two, neither pinned, in turns.
///
/// # Errors
/// An agent does not start, or a request fails.
pub(super) fn section(bench: &Bench<'_>, build: &Build) -> Result<Section> {
    let scenario = bench.stage.scenario("http1-plain").context("no scenario")?;
    let pods = [1, 2].map(|workers| bench.stage.client(&format!("client-of-{workers}")));
    let [one, two] = pods;
    let pods = [one?, two?];
    let mut runs: [Vec<(Run, f64)>; 2] = Default::default();
    {
        let agent = |workers: u16| {
            let flags = vec!["--workers".to_owned(), workers.to_string()];
            let build = Build { name: format!("workers-{workers}"), flags, ..build.clone() };
            let pod = &pods[usize::from(workers) - 1];
            Peer::mirror_on(bench.stage, pod, &build, 20 + workers, &bench.stage.processors.all())
        };
        let agents = [agent(1)?, agent(2)?];
        for _ in 0..2 * bench.args.rounds() {
            for (agent, runs) in agents.iter().zip(&mut runs) {
                let address = agent.address(bench.stage, scenario).context("no such scenario")?;
                let before = agent.cpu()?.context("no proxy")?;
                let duration = bench.args.duration();
                let run = bench.generators.run(agent.pod, address, Traffic::Get, duration)?;
                let used = agent.cpu()?.context("no proxy")? - before;
                ensure!(run.errors == 0, "{} requests failed", run.errors);
                runs.push((run, used * 1e6 / run.requests.max(1) as f64));
            }
        }
    }
    let [one, two] = runs.map(|runs| Figures {
        cpu_us: median(runs.iter().map(|(_, cpu)| *cpu)),
        rate: median(runs.iter().map(|(run, _)| run.rate)),
    });
    // What two could do on separate processors.
    let capacity = 2.0 * one.cpu_us / two.cpu_us;
    let mut text = String::new();
    for (workers, figures) in [(1, one), (2, two)] {
        let Figures { cpu_us, rate } = figures;
        let _ = writeln!(text, "{workers} worker(s): {cpu_us:.1} us CPU per request, {rate:.0}/s");
    }
    text += "All share two processors with clients and backends: by CPU time, two do as much as\n";
    let _ = writeln!(text, "{capacity:.2} of one, if they had separate processors.");
    let data = serde_json::json!({ "one": one, "two": two, "capacity": capacity });
    let what = "two workers, by CPU per request, against one";
    let goals = vec![Goal::new(what, Ok(capacity), Bound::AtLeast(1.8))];
    Ok(Section { name: "workers", text, data, goals })
}

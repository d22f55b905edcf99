//! Uploads of 64 MiB, one and eight at once, while the shadow does not read or reads 1 KiB/s: their
//! time beside an unmirrored one's, and the proxy's memory.

use std::{fmt::Write as _, fs, time::Duration};

use anyhow::{Context, Result, ensure};
use mirror_tests::{stats::median, usage};
use serde::Serialize;

use super::{
    Bench,
    goals::{Bound, Goal, ratio},
    peers::{Peer, Program},
    pinning::pinned,
    section::Section,
    stage,
};

const SIZE: usize = 64 << 20;
/// An upload that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(20);
/// The default of `--budget-agent`, and what an upload takes otherwise (the primary's buffers, the
/// allocator's slack), in MiB.
const BUDGET: f64 = 64.0 + 16.0;
const MIB: f64 = 1_048_576.0;

/// What the copies of uploads meet: nothing, or one of the bad shadows.
pub(super) const SHADOWS: [Option<&str>; 3] = [None, Some("never-reads"), Some("reads-1kib-s")];
const COUNTS: [usize; 2] = [1, 8];

/// So many uploads at once to a shadow through a peer.
#[derive(Debug, Serialize)]
struct ReportRow {
    peer: String,
    shadow: &'static str,
    count: usize,
    result: Result<Figures, String>,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Figures {
    /// The median over the rounds of the longest upload's time.
    seconds: f64,
    /// The most that resident memory grew.
    grown_mib: f64,
}

/// mirror in turns; without `--quick`, then the other proxies, once.
///
/// # Errors
/// The file to upload cannot be written.
pub(super) fn section(bench: &Bench<'_>) -> Result<Section> {
    let file = bench.stage.ground.node.folder().join("upload");
    fs::write(&file, vec![b'x'; SIZE]).with_context(|| file.display().to_string())?;
    let mut lines = Vec::new();
    for peer in bench.peers.iter().filter(|peer| peer.agent().is_some()) {
        for count in COUNTS {
            lines.extend(in_turns(bench, peer, count));
        }
    }
    if !bench.args.quick {
        let others = [Program::Envoy, Program::EnvoyIstio, Program::Nginx, Program::Traefik];
        for program in others.into_iter().filter(|program| bench.args.wants(program.name())) {
            for count in COUNTS {
                lines.extend(SHADOWS.map(|shadow| once(bench, program, shadow, count)));
            }
        }
    }
    let data = serde_json::json!(lines);
    Ok(Section { name: "uploads", text: table(&lines), data, goals: goals(&lines) })
}

fn in_turns(bench: &Bench<'_>, peer: &Peer<'_>, count: usize) -> Vec<ReportRow> {
    let mut runs: [Vec<Result<Figures>>; 3] = Default::default();
    // Not counted.
    let _ = upload(bench, peer, None, count);
    for round in 0..2 * bench.args.rounds() {
        for at in (0..SHADOWS.len()).map(|at| (at + round) % SHADOWS.len()) {
            runs[at].push(upload(bench, peer, SHADOWS[at], count));
        }
    }
    let line = |(shadow, runs)| line(&peer.name, shadow, count, medians(runs));
    SHADOWS.into_iter().zip(runs).map(line).collect()
}

fn once(
    bench: &Bench<'_>,
    program: Program,
    shadow: Option<&'static str>,
    count: usize,
) -> ReportRow {
    let run = || {
        let peer = Peer::other(bench.stage, bench.programs, program)?;
        upload(bench, &peer, None, count)?;
        upload(bench, &peer, shadow, count)
    };
    line(program.name(), shadow, count, run())
}

fn line(
    peer: &str,
    shadow: Option<&'static str>,
    count: usize,
    result: Result<Figures>,
) -> ReportRow {
    let result = result.map_err(|error| format!("{error:#}"));
    ReportRow { peer: peer.to_owned(), shadow: shadow.unwrap_or("unmirrored"), count, result }
}

/// Uploads the file `count` times at once.
fn upload(
    bench: &Bench<'_>,
    peer: &Peer<'_>,
    shadow: Option<&str>,
    count: usize,
) -> Result<Figures> {
    let scenario = stage::upload(shadow);
    let scenario =
        bench.stage.scenario(&scenario).with_context(|| format!("no scenario {scenario}"))?;
    let address = peer.address(bench.stage, scenario).context("no such scenario")?;
    let pid = peer.pid().context("no proxy")?;
    let file = bench.stage.ground.node.folder().join("upload");
    let script = format!(
        "for i in $(seq {count}); do curl -sS -m {} -H 'Expect:' -T {} -o /dev/null \
         -w '%{{http_code}} %{{time_total}}\\n' http://{address}/put & done; wait",
        PATIENCE.as_secs(),
        file.display()
    );
    let argv = pinned(bench.stage.processors.others, &["sh", "-c", &script]);
    let argv: Vec<_> = argv.iter().map(String::as_str).collect();
    let before = usage::rss_of_cgroup(pid)?;
    usage::reset_peak_of_cgroup(pid)?;
    let output = peer.pod.run(&argv, PATIENCE + Duration::from_secs(10))?;
    let grown = usage::peak_rss_of_cgroup(pid)?.saturating_sub(before) as f64 / MIB;
    let mut seconds = 0.0_f64;
    let mut whole = 0;
    for line in output.stdout.lines() {
        let (code, time) = line.split_once(' ').with_context(|| format!("curl says {line}"))?;
        let time = time.parse()?;
        ensure!(code == "200", "status {code} after {time:.1} s ({grown:.0} MiB grown)");
        seconds = seconds.max(time);
        whole += 1;
    }
    ensure!(whole == count, "{whole} of {count} got a response: {}", output.stderr);
    Ok(Figures { seconds, grown_mib: grown })
}

fn medians(runs: Vec<Result<Figures>>) -> Result<Figures> {
    let runs: Vec<_> = runs.into_iter().collect::<Result<_>>()?;
    Ok(Figures {
        seconds: median(runs.iter().map(|run| run.seconds)),
        grown_mib: runs.iter().map(|run| run.grown_mib).fold(0.0, f64::max),
    })
}

fn table(lines: &[ReportRow]) -> String {
    let mut text = format!(
        "{:<16} {:<14} {:>5} {:>9} {:>10}\n",
        "64 MiB", "shadow", "count", "s", "grown MiB"
    );
    for ReportRow { peer, shadow, count, result } in lines {
        let _ = match result {
            Ok(Figures { seconds, grown_mib }) => {
                writeln!(
                    text,
                    "{peer:<16} {shadow:<14} {count:>5} {seconds:>9.3} {grown_mib:>10.1}"
                )
            }
            Err(why) => writeln!(text, "{peer:<16} {shadow:<14} {count:>5} FAILED: {why}"),
        };
    }
    text
}

fn goals(lines: &[ReportRow]) -> Vec<Goal> {
    let find = |shadow: &str, count| {
        let ours = |l: &&ReportRow| l.peer == "mirror" && l.shadow == shadow && l.count == count;
        lines.iter().find(ours).ok_or_else(|| "no such row".to_owned())?.result.clone()
    };
    let goal = |shadow: &str, count: usize| {
        let time = |shadow| find(shadow, count).map(|figures| figures.seconds);
        let named = |what: &str| format!("{count} upload(s), shadow {shadow}: {what}");
        let grown = find(shadow, count).map(|figures| figures.grown_mib);
        let time = ratio(time(shadow), time("unmirrored"));
        [
            Goal::new(named("time against unmirrored"), time, Bound::AtMost(1.05)),
            Goal::new(named("MiB grown"), grown, Bound::AtMost(BUDGET)),
        ]
    };
    let shadows = SHADOWS.into_iter().flatten();
    shadows
        .flat_map(|shadow| COUNTS.into_iter().flat_map(move |count| goal(shadow, count)))
        .collect()
}

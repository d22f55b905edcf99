//! `cargo xtask bench`: what mirror costs, beside other proxies, on a simulated node. In: flags.
//! Out: a table, JSON, and each goal as met or missed.
//!
//! Everything runs inside network namespaces. A proxy has one processor for itself, all its
//! threads; client and backends share the other. Peers are measured in turns, row by row.

mod backend;
mod install;
mod lane;
mod load;
mod measure;
mod peers;
mod pinning;
mod report;
mod rows;
mod stage;

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use mirror_tests::{Node, Pod, mirror_binary};

use self::{
    load::Generators,
    measure::Cell,
    peers::{Build, Peer, Program},
    pinning::Processors,
    rows::Row,
    stage::{Ground, Stage},
};
use crate::tools;

/// Flags of `cargo xtask bench`.
#[derive(clap::Args)]
pub(crate) struct BenchArgs {
    /// Three minutes: the main rows, fewer and shorter runs
    #[arg(long)]
    quick: bool,
    /// Only rows whose name contains this; may be given several times
    #[arg(long, value_name = "TEXT")]
    row: Vec<String>,
    /// Only these of the others beside mirror: direct, envoy, envoy-h2, envoy-istio, nginx,
    /// traefik; may be
    /// given several times
    #[arg(long, value_name = "NAME")]
    peer: Vec<String>,
    /// Another build of mirror to measure beside, as NAME=PATH of its binary; may be given several
    /// times
    #[arg(long, value_name = "NAME=PATH")]
    beside: Vec<String>,
    /// Runs of each row with each peer
    #[arg(long)]
    rounds: Option<usize>,
    /// Seconds of each run
    #[arg(long)]
    seconds: Option<u64>,
}

/// Runs the bench.
///
/// # Errors
/// Not root, one processor, something cannot be installed, built or started. A row that fails is
/// in the report.
pub(crate) fn run(args: &BenchArgs) -> Result<()> {
    tools::require_root()?;
    let programs = install::install()?;
    if std::env::var_os("MIRROR_BIN").is_none() {
        tools::build_mirror()?;
    }
    let processors = Processors::choose()?;
    let ground = Ground::create()?;
    let stage = Stage::set_up(&ground, processors)?;
    let builds = builds(&args.beside)?;
    let pods = pods(&ground.node, &builds)?;
    let mut peers = Vec::new();
    for (at, (build, pod)) in (0..).zip(builds.iter().zip(&pods)) {
        peers.push(Peer::mirror(&stage, pod, build, at)?);
    }
    if args.wants("direct") {
        peers.push(Peer::direct(&stage));
    }
    for program in Program::ALL.into_iter().filter(|program| args.wants(program.name())) {
        peers.push(Peer::other(&stage, &programs, program)?);
    }
    let rows: Vec<_> = Row::all(args.quick).into_iter().filter(|row| args.takes(row)).collect();
    let cells = measure(args, &stage, &peers, &rows);
    let names: Vec<_> = peers.iter().map(|peer| peer.name.clone()).collect();
    println!("\n{}", report::table(&rows, &names, &cells));
    let file = tools::root().join("target/bench/bench.json");
    fs::write(&file, serde_json::to_string_pretty(&cells)?)
        .with_context(|| file.display().to_string())?;
    println!("{}", file.display());
    Ok(())
}

impl BenchArgs {
    fn wants(&self, peer: &str) -> bool {
        let quick = ["direct", "envoy", "envoy-h2", "nginx"];
        match &self.peer[..] {
            [] => !self.quick || quick.contains(&peer),
            peers => peers.iter().any(|name| name == peer),
        }
    }

    fn takes(&self, row: &Row) -> bool {
        self.row.is_empty() || self.row.iter().any(|text| row.name.contains(&**text))
    }

    fn rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.quick { 2 } else { 3 })
    }

    fn duration(&self) -> Duration {
        Duration::from_secs(self.seconds.unwrap_or(if self.quick { 2 } else { 4 }))
    }
}

/// The build in target/release (or MIRROR_BIN), and those of `--beside`.
fn builds(beside: &[String]) -> Result<Vec<Build>> {
    let build = |name: &str, binary: PathBuf| Build {
        name: name.to_owned(),
        binary,
        flags: vec!["--workers".to_owned(), "1".to_owned()],
    };
    let mut builds = vec![build("mirror", mirror_binary()?)];
    for text in beside {
        let (name, path) = text.split_once('=').context("--beside takes NAME=PATH")?;
        let path = PathBuf::from(path).canonicalize().with_context(|| path.to_owned())?;
        builds.push(build(name, path));
    }
    Ok(builds)
}

/// A client's pod for each build.
fn pods(node: &Node, builds: &[Build]) -> Result<Vec<Pod>> {
    builds.iter().map(|build| stage::client(node, &format!("client-{}", build.name))).collect()
}

/// All rows with all peers in turns; each round begins with another peer.
fn measure(args: &BenchArgs, stage: &Stage<'_>, peers: &[Peer<'_>], rows: &[Row]) -> Vec<Cell> {
    let generators = Generators::new(&stage.ground.node, stage.processors);
    let mut cells = Vec::new();
    for row in rows {
        let mut line: Vec<_> = peers.iter().map(|peer| Cell::new(row, peer)).collect();
        for round in 0..=args.rounds() {
            for at in (0..peers.len()).map(|at| (at + round) % peers.len()) {
                // The first round, not counted, fills pools and caches.
                let duration = if round == 0 { Duration::from_secs(1) } else { args.duration() };
                let result = measure::sample(stage, &generators, &peers[at], row, duration);
                if round > 0 || result.is_err() {
                    line[at].add(result);
                }
            }
        }
        for cell in line {
            if !cell.is_empty() {
                println!("{}", report::line(&cell));
                cells.push(cell);
            }
        }
    }
    cells
}

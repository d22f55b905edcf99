//! `cargo xtask bench`: what mirror costs, beside other proxies, on a simulated node. In: flags.
//! Out: a table, JSON, and each goal as met or missed.
//!
//! Everything runs inside network namespaces. A proxy has one processor for itself, all its
//! threads; client and backends share the other. Peers are measured in turns, row by row.

mod backend;
mod client;
mod connects;
mod faults;
mod goals;
mod growth;
mod hostile;
mod hostile_shadows;
mod install;
mod latency;
mod load;
mod measure;
mod memory;
mod peers;
mod pinning;
mod plot;
mod report;
mod rows;
mod scenario;
mod section;
mod stage;
mod throughput;
mod uploads;
mod workers;

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context, Result, ensure};
use mirror_tests::{Node, Pod, mirror_binary};

use self::{
    client::Client,
    install::Programs,
    load::Generators,
    measure::Cell,
    peers::{Build, Peer, Program},
    pinning::Processors,
    rows::Row,
    section::Section,
    stage::{Ground, Stage},
};
use crate::tools;

/// What can be left out.
const SECTIONS: [&str; 10] = [
    "throughput",
    "latency",
    "faults",
    "uploads",
    "connects",
    "memory",
    "workers",
    "growth",
    "hostile",
    "hostile-shadows",
];

/// Flags of `cargo xtask bench`.
#[derive(clap::Args)]
pub(crate) struct BenchArgs {
    /// Three minutes: the main rows, fewer and shorter runs
    #[arg(long)]
    quick: bool,
    /// Only these sections: throughput, latency, faults, uploads, connects, memory, workers,
    /// growth, hostile, hostile-shadows; may be given several times
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Only rows of throughput whose name contains this; may be given several times
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
    /// Measure mirror also where connections are tapped (`--mode auto`), as `tap`
    #[arg(long)]
    tap: bool,
    /// Runs of each row with each peer
    #[arg(long)]
    rounds: Option<usize>,
    /// Seconds of each run
    #[arg(long)]
    seconds: Option<u64>,
}

/// What every section measures with.
struct Bench<'a> {
    args: &'a BenchArgs,
    stage: &'a Stage<'a>,
    programs: &'a Programs,
    generators: Generators,
    client: &'a Client,
    /// mirror's builds first.
    peers: Vec<Peer<'a>>,
}

/// Runs the bench.
///
/// # Errors
/// Not root, one processor, something cannot be installed, built or started. A row that fails is
/// in the report.
pub(crate) fn run(args: &BenchArgs) -> Result<()> {
    tools::require_root()?;
    for name in &args.only {
        ensure!(SECTIONS.contains(&&**name), "no section {name}: {}", SECTIONS.join(", "));
    }
    let programs = install::install()?;
    if std::env::var_os("MIRROR_BIN").is_none() {
        tools::build_mirror()?;
    }
    let processors = Processors::choose()?;
    let client = Client::build(processors)?;
    let builds = builds(args)?;
    let mut sections = on_stage(args, processors, &programs, &client, &builds)?;
    if args.has("growth") {
        sections.push(growth::section(args, &builds[0], &client));
        print(&sections);
    }
    if args.has("hostile") {
        let measured = hostile::section(args, &client);
        sections.push(measured.unwrap_or_else(|error| Section::failed("hostile", &error)));
        print(&sections);
    }
    if args.has("hostile-shadows") {
        let measured = hostile_shadows::section(args, &client);
        sections.push(measured.unwrap_or_else(|error| Section::failed("hostile-shadows", &error)));
        print(&sections);
    }
    finish(&sections)
}

/// The sections that share the stage.
fn on_stage(
    args: &BenchArgs,
    processors: Processors,
    programs: &Programs,
    client: &Client,
    builds: &[Build],
) -> Result<Vec<Section>> {
    let ground = Ground::create()?;
    let stage = Stage::set_up(&ground, processors)?;
    let pods = pods(&ground.node, builds)?;
    let generators = Generators::new(&ground.node, processors);
    let peers = peers(args, &stage, programs, builds, &pods)?;
    let mut bench = Bench { args, stage: &stage, programs, generators, client, peers };
    let mut sections = Vec::new();
    let rows: Vec<_> = Row::all(args.quick).into_iter().filter(|row| args.takes(row)).collect();
    let mut cells = Vec::new();
    if args.has("throughput") {
        cells = throughput::measure(&bench, &rows);
        sections.push(throughput::section(&bench, &rows, &cells));
        print(&sections);
        draw(&cells)?;
    }
    if args.has("latency") {
        sections.push(latency::section(&bench, &cells));
        print(&sections);
    }
    // The others are started again for each measurement, in the same place.
    bench.peers.retain(Peer::stays);
    let rest: [(&'static str, &dyn Fn() -> Result<Section>); 5] = [
        ("faults", &|| Ok(faults::section(&bench))),
        ("uploads", &|| uploads::section(&bench)),
        ("connects", &|| connects::section(&bench)),
        ("memory", &|| Ok(memory::section(&bench, &builds[0]))),
        ("workers", &|| workers::section(&bench, &builds[0])),
    ];
    for (name, measure) in rest.into_iter().filter(|(name, _)| args.has(name)) {
        sections.push(measure().unwrap_or_else(|error| Section::failed(name, &error)));
        print(&sections);
    }
    Ok(sections)
}

fn peers<'a>(
    args: &BenchArgs,
    stage: &Stage<'a>,
    programs: &Programs,
    builds: &[Build],
    pods: &'a [Pod],
) -> Result<Vec<Peer<'a>>> {
    let builds = (0..).zip(builds.iter().zip(pods));
    let mut peers: Vec<_> = builds
        .map(|(at, (build, pod))| Peer::mirror(stage, pod, build, at))
        .collect::<Result<_>>()?;
    if args.wants("direct") {
        peers.push(Peer::direct(stage));
    }
    if args.has("throughput") || args.has("latency") {
        for program in Program::ALL.into_iter().filter(|program| args.wants(program.name())) {
            peers.push(Peer::other(stage, programs, program)?);
        }
    }
    Ok(peers)
}

/// The section measured last.
fn print(sections: &[Section]) {
    if let Some(Section { name, text, .. }) = sections.last() {
        println!("\n== {name}\n\n{text}");
    }
}

/// The plot for the README.
fn draw(cells: &[Cell]) -> Result<()> {
    let Some(svg) = plot::svg(cells) else { return Ok(()) };
    let file = tools::root().join("target/bench/bench.svg");
    fs::write(&file, svg).with_context(|| file.display().to_string())?;
    println!("{}", file.display());
    Ok(())
}

/// The goals, and the figures as JSON.
fn finish(sections: &[Section]) -> Result<()> {
    let goals: Vec<_> = sections.iter().flat_map(|section| &section.goals).collect();
    println!("\n== goals\n");
    goals.iter().for_each(|goal| println!("{goal}"));
    let met = goals.iter().filter(|goal| goal.is_met()).count();
    println!("\n{met} met, {} missed", goals.len() - met);
    let file = tools::root().join("target/bench/bench.json");
    fs::write(&file, serde_json::to_string_pretty(sections)?)
        .with_context(|| file.display().to_string())?;
    println!("{}", file.display());
    Ok(())
}

impl BenchArgs {
    fn wants(&self, peer: &str) -> bool {
        let quick = ["direct", "envoy", "nginx"];
        match &self.peer[..] {
            [] => !self.quick || quick.contains(&peer),
            peers => peers.iter().any(|name| name == peer),
        }
    }

    fn has(&self, section: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| name == section)
    }

    fn takes(&self, row: &Row) -> bool {
        self.row.is_empty() || self.row.iter().any(|text| row.name.contains(&**text))
    }

    fn rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.quick { 2 } else { 3 })
    }

    fn duration(&self) -> Duration {
        Duration::from_secs(self.seconds.unwrap_or(if self.quick { 1 } else { 4 }))
    }
}

/// The build in target/release (or MIRROR_BIN), the same with a tap, and those of `--beside`.
fn builds(args: &BenchArgs) -> Result<Vec<Build>> {
    let build = |name: &str, binary: PathBuf| Build {
        name: name.to_owned(),
        binary,
        flags: vec!["--workers".to_owned(), "1".to_owned()],
    };
    let mut builds = vec![build("mirror", mirror_binary()?)];
    if args.tap {
        let mut tap = build("tap", mirror_binary()?);
        tap.flags.extend(["--mode", "auto"].map(str::to_owned));
        builds.push(tap);
    }
    for text in &args.beside {
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

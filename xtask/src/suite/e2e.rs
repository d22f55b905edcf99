//! The end-to-end tests. In: the test programs of `tests/`. Out: their counts.
//!
//! Most tests wait far more than they compute, so that several programs run beside each other, each
//! test on a separate node. A program that measures time or memory, or has a simulated kubelet where
//! another node's would hide it ([`ALONE`]), runs by itself, after all others. Within a program, tests run one at a time.

use std::{
    collections::VecDeque,
    io::{BufRead, BufReader, Read},
    path::PathBuf,
    process::{Command, Stdio},
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::{TestSelection, tally::Tally};
use crate::tools;

/// Programs whose results would change if others ran beside them. (An agent that is no Pod looks for
/// kubelet's cgroups all over the machine, and believes those nearest to the root: `selection` has them
/// deeper than the tests on a cluster.)
const ALONE: [&str; 22] = [
    "changes",
    "clients",
    "counts",
    "early",
    "faults",
    "floods",
    "grpc",
    "hostile_namespace",
    "hostile_pod",
    "hostile_shadows",
    "http2",
    "idle",
    "kube_changes",
    "kube_population",
    "large_copies",
    "leaks",
    "life",
    "memory",
    "scale",
    "selection",
    "streams",
    "uploads",
];

/// Programs that take longest, which begin first.
const LONG: [&str; 5] =
    ["kube_source", "conformance", "kube_controller", "cluster_services", "cluster_upgrade"];

/// How many run beside each other; two keep two processors busy about half of the time.
const TOGETHER: usize = 3;

/// A test program.
#[derive(Debug)]
struct Program {
    name: String,
    path: PathBuf,
}

impl Program {
    fn runs_alone(&self) -> bool {
        ALONE.contains(&&*self.name)
    }

    /// Long ones come first.
    fn rank(&self) -> usize {
        LONG.iter().position(|name| *name == self.name).unwrap_or(LONG.len())
    }

    fn command(&self, filter: Option<&str>) -> Command {
        let mut command = Command::new(&self.path);
        command.current_dir(tools::root().join("tests")).env_remove("MIRROR_BIN");
        command.arg("--test-threads=1").args(filter);
        command
    }
}

/// Runs the tests that are selected.
pub(super) fn run(selection: &TestSelection) -> Result<Tally> {
    let mut programs = programs()?;
    if let Some(name) = ALONE.iter().find(|name| !programs.iter().any(|of| of.name == **name)) {
        bail!("xtask/src/suite/e2e.rs: no test program is called {name}");
    }
    programs.retain(|program| selection.has(&program.name));
    let filter = selection.filter();
    let (alone, mut together): (Vec<_>, Vec<_>) =
        programs.into_iter().partition(Program::runs_alone);
    together.sort_by_key(Program::rank);
    let mut total = Tally::default();
    let mut times = Vec::new();
    let mut add = |name: &str, took: Duration, tally: Tally| {
        times.push((took, name.to_owned()));
        total += tally;
    };
    let queue = Mutex::new(VecDeque::from(together));
    let next = || queue.lock().expect("no thread panics with it").pop_front();
    let (done, results) = std::sync::mpsc::channel();
    thread::scope(|scope| -> Result<()> {
        for _ in 0..TOGETHER {
            let done = done.clone();
            scope.spawn(move || {
                while let Some(program) = next() {
                    let start = Instant::now();
                    let output = captured(&program, filter);
                    let _ = done.send((program, start.elapsed(), output));
                }
            });
        }
        drop(done);
        for (program, took, output) in results {
            let (text, tally) = output?;
            println!("\n     Running {} ({:.1} s)\n{text}", program.name, took.as_secs_f64());
            add(&program.name, took, tally);
        }
        Ok(())
    })?;
    for program in alone {
        println!("\n     Running {} (by itself)", program.name);
        let start = Instant::now();
        let tally = shown(&mut program.command(filter))?;
        add(&program.name, start.elapsed(), tally);
    }
    total += shown(&mut tools::cargo(&["test", "-p", "mirror-tests", "--doc"]))?;
    times.sort_unstable();
    println!("\nThe longest:");
    for (took, name) in times.iter().rev().take(12) {
        println!("{:>7.1} s  {name}", took.as_secs_f64());
    }
    Ok(total)
}

/// Runs a program, and returns what it wrote, with its counts.
fn captured(program: &Program, filter: Option<&str>) -> Result<(String, Tally)> {
    let (mut reader, writer) = std::io::pipe().context("no pipe")?;
    let mut command = program.command(filter);
    command.stdout(writer.try_clone().context("no pipe")?).stderr(writer);
    let mut child = command.spawn().with_context(|| program.path.display().to_string())?;
    // The command has the ends to write to, until which the reader does not end.
    drop(command);
    let mut text = Vec::new();
    reader.read_to_end(&mut text).context("cannot read what a test program writes")?;
    let text = String::from_utf8_lossy(&text).into_owned();
    let tally = text.lines().filter_map(Tally::parse).fold(Tally::default(), |mut sum, tally| {
        sum += tally;
        sum
    });
    Ok((text, tally.with_status(child.wait()?)))
}

/// Runs a command, shows its lines as they come, and adds up their counts.
pub(super) fn shown(command: &mut Command) -> Result<Tally> {
    let mut child = command.stdout(Stdio::piped()).spawn().context("cannot run the tests")?;
    let stdout = child.stdout.take().context("a piped stdout is there")?;
    let mut tally = Tally::default();
    for line in BufReader::new(stdout).split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        tally += Tally::parse(&line).unwrap_or_default();
    }
    Ok(tally.with_status(child.wait()?))
}

/// What cargo says of something that it has built.
#[derive(Deserialize)]
struct Message {
    reason: String,
    executable: Option<PathBuf>,
    target: Option<Target>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

/// Builds the test programs.
fn programs() -> Result<Vec<Program>> {
    let args = ["test", "-p", "mirror-tests", "--lib", "--bins", "--tests", "--no-run"];
    let mut command = tools::cargo(&args);
    command.arg("--message-format=json-render-diagnostics").stdout(Stdio::piped());
    let output = command.spawn().context("cannot run cargo")?.wait_with_output()?;
    if !output.status.success() {
        bail!("the end-to-end tests do not build: {}", output.status);
    }
    let mut programs = Vec::new();
    for line in output.stdout.lines() {
        let message: Message = serde_json::from_str(&line?).context("what cargo says")?;
        let (Some(path), Some(target)) = (message.executable, message.target) else { continue };
        if message.reason == "compiler-artifact" && is_test(&path) {
            programs.push(Program { name: target.name, path });
        }
    }
    if programs.is_empty() {
        bail!("cargo names no test program");
    }
    Ok(programs)
}

/// Programs of tests, among them those that tests use, are in this folder.
fn is_test(path: &std::path::Path) -> bool {
    path.parent().is_some_and(|folder| folder.ends_with("deps"))
}

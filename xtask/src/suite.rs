//! `cargo xtask test`: every check, one after the other. A failing one hides none of the others;
//! the last line counts them all.

mod changed;
mod e2e;
mod steps;
mod tally;

use std::{collections::BTreeSet, time::Instant};

use anyhow::{Result, bail};

pub(crate) use tally::Tally;

use crate::kernel::{self, Extent};

/// Flags of `cargo xtask test`.
#[derive(clap::Args)]
pub(crate) struct TestArgs {
    /// Run this step only; may be given several times: tools, format, words, imports, ebpf, committed,
    /// lint, unit, docs, build, cluster, e2e, kernel, licenses, advisories
    #[arg(long, value_name = "STEP")]
    only: Vec<String>,
    /// Run the unit and end-to-end tests whose name contains this
    #[arg(long, value_name = "NAME")]
    filter: Option<String>,
    /// Run only what the files that differ from this commit can affect (default: main); which steps and
    /// end-to-end programs, xtask/src/suite/changed.rs says
    #[arg(long, value_name = "COMMIT", num_args = 0..=1, default_missing_value = "main",
          conflicts_with = "only")]
    changed: Option<String>,
    /// Run the tests that capture on Debian's kernel of this version, in QEMU, and nothing else;
    /// may be given several times. Without it the step "kernel" runs the shorter ones on 6.1
    #[arg(long, value_name = "VERSION", conflicts_with = "only")]
    kernel: Vec<String>,
}

/// Which tests of a step are run.
#[derive(Debug, Default)]
pub(crate) struct TestSelection {
    /// Those whose name contains this.
    filter: Option<String>,
    /// Of the end-to-end tests, those of these programs.
    programs: Option<BTreeSet<String>>,
}

impl TestSelection {
    fn filter(&self) -> Option<&str> {
        self.filter.as_deref()
    }

    fn has(&self, program: &str) -> bool {
        self.programs.as_ref().is_none_or(|programs| programs.contains(program))
    }
}

/// Runs the steps in order.
///
/// # Errors
/// A step failed, or `--only` names none.
pub(crate) fn run(args: &TestArgs) -> Result<()> {
    for name in &args.only {
        if !steps::ALL.iter().any(|(step, _)| step == name) {
            let all: Vec<_> = steps::ALL.iter().map(|(step, _)| *step).collect();
            bail!("no step is called {name}; there are: {}", all.join(", "));
        }
    }
    let filter = args.filter.as_deref();
    if !args.kernel.is_empty() {
        let version = |version: &String| {
            let test = || kernel::test(version, Extent::Long, filter);
            timed(&format!("kernel {version}"), test)
        };
        finish(args.kernel.iter().map(version));
    }
    let mut selection = TestSelection { filter: args.filter.clone(), programs: None };
    let mut only: Vec<&str> = args.only.iter().map(String::as_str).collect();
    if let Some(since) = &args.changed {
        let all: Vec<_> = steps::ALL.iter().map(|(name, _)| *name).collect();
        let affected = changed::affected(&changed::files(since)?, &all);
        only.extend(&affected.steps);
        selection.programs = affected.programs;
    }
    let chosen = |name: &str| only.is_empty() || only.contains(&name);
    let steps = steps::ALL.iter().filter(|(name, _)| chosen(name));
    finish(steps.map(|(name, step)| timed(name, || step(&selection))))
}

/// Runs one step; its line of the summary, and its counts.
fn timed(name: &str, step: impl FnOnce() -> Result<Tally>) -> (String, Tally) {
    println!("\n== {name}");
    let start = Instant::now();
    let tally = step().unwrap_or_else(|error| {
        println!("{name}: {error:#}");
        Tally::FAILED
    });
    let seconds = start.elapsed().as_secs_f64();
    (format!("{name:<11} {seconds:>7.1} s  {tally}"), tally)
}

/// Runs all steps, and says what they counted.
fn finish(steps: impl Iterator<Item = (String, Tally)>) -> ! {
    let mut total = Tally::default();
    let mut lines = Vec::new();
    for (line, tally) in steps {
        lines.push(line);
        total += tally;
    }
    println!("\n{}\n", lines.join("\n"));
    if total.passed + total.failed == 0 {
        println!("nothing ran: no test is called so");
    }
    println!("{total}");
    // The line above is the last one on stdout; the status says the same.
    std::process::exit(i32::from(total.failed > 0 || total.passed == 0));
}

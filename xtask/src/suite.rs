//! `cargo xtask test`: every check, one after the other. A failing one hides none of the others;
//! the last line counts them all.

mod steps;
mod tally;

use std::time::Instant;

use anyhow::{Result, bail};

use tally::Tally;

/// Flags of `cargo xtask test`.
#[derive(clap::Args)]
pub(crate) struct TestArgs {
    /// Run this step only; may be given several times: tools, format, ebpf, committed, lint, unit,
    /// docs, build, e2e, licenses, advisories
    #[arg(long, value_name = "STEP")]
    only: Vec<String>,
    /// Run the unit and end-to-end tests whose name contains this
    #[arg(long, value_name = "NAME")]
    filter: Option<String>,
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
    let chosen = |name: &str| args.only.is_empty() || args.only.iter().any(|only| only == name);
    let mut total = Tally::default();
    let mut lines = Vec::new();
    for (name, step) in steps::ALL.iter().filter(|(name, _)| chosen(name)) {
        println!("\n== {name}");
        let start = Instant::now();
        let tally = step(filter).unwrap_or_else(|error| {
            println!("{name}: {error:#}");
            Tally::FAILED
        });
        let seconds = start.elapsed().as_secs_f64();
        lines.push(format!("{:<10} {seconds:>7.1} s  {tally}", *name));
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

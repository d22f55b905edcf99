//! `mirror check`: what is wrong with routes, before anyone applies them. In: files, folders or
//! stdin. Out: on stdout, each problem with its place, and the conditions that `mirror controller`
//! would write; and an exit code. It needs no cluster, opens no socket and changes nothing.
//!
//! Decoding and resolving are the agent's own, so that the verdict cannot drift from what it is
//! about. What a cluster adds by itself (addresses of Services, EndpointSlices) is taken as given.

mod complete;
mod gather;
mod report;
#[cfg(test)]
mod tests;

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context as _;

use self::{
    complete::complete,
    gather::{Gathered, gather},
    report::Report,
};
use crate::control::resolve;

/// Flags of `mirror check`.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Exit code: 0 no problem; 1 a problem (with --strict, a warning as well); 2 \
                        a wrong command line."
)]
pub struct CheckArgs {
    /// Files of Kubernetes YAML or JSON; folders, of which the files directly within are read; or
    /// - for stdin. References are looked up among all of them together.
    #[arg(required = true, value_name = "FILE")]
    pub paths: Vec<PathBuf>,

    /// Take Services that no file defines for present, with every port that a route asks for.
    #[arg(long)]
    pub assume_services: bool,

    /// Let warnings fail as well.
    #[arg(long)]
    pub strict: bool,

    /// Write one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// Writes the verdict to stdout. The exit code is 0 when there is no problem, 1 when there is one.
///
/// # Errors
/// When stdout cannot be written. (Files that cannot be read are problems of the verdict.)
pub fn run(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let report = examine(gather(&args.paths), args.assume_services);
    write(&report, args.json).context("writing to stdout")?;
    Ok(if report.passes(args.strict) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn examine(mut gathered: Gathered, assume_services: bool) -> Report {
    complete(&mut gathered.objects, assume_services);
    let resolved = resolve::resolve(&gathered.objects);
    Report::new(&gathered, &resolved)
}

fn write(report: &Report, json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if json {
        serde_json::to_writer_pretty(&mut out, report)?;
        writeln!(out)?;
    } else {
        write!(out, "{report}")?;
    }
    out.flush()
}

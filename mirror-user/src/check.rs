//! `mirror check`: what is wrong with routes, before anyone applies them. In: files, folders or
//! stdin. Out: on stdout, each problem with its place, and the conditions that `mirror controller`
//! would write; and an exit code. It needs no cluster, opens no socket and changes nothing.
//!
//! Decoding and resolving are the agent's own, so that the verdict cannot drift from what it is
//! about. What a cluster adds (addresses of Services, EndpointSlices) is assumed to exist.

#![forbid(unsafe_code)]

mod complete;
mod gather;
mod report;
#[cfg(test)]
mod tests;

use std::{io, path::PathBuf, process::ExitCode};

use anyhow::Context as _;

use self::{
    complete::complete,
    gather::{Input, gather},
    report::CheckReport,
};
use crate::{
    cli::SourceKind,
    control::resolve::{self, AddressPolicy},
    plain, stdout,
};

/// Flags of `mirror check`.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Exit code: 0 if there is no problem; 1 if there is one (with --strict, or a \
                        warning); 2 if the command line is wrong."
)]
pub struct CheckArgs {
    /// Files of Kubernetes YAML or JSON, folders (whose files are read, but not subfolders), or - for
    /// stdin. A reference may name an object in any of them.
    #[arg(required = true, value_name = "FILE")]
    pub paths: Vec<PathBuf>,

    /// Assume that Services that no file defines exist and have every port that a route names.
    #[arg(long)]
    pub assume_services: bool,

    /// Check as an agent with this --source would. With kube, EndpointSlices in the files are held to the
    /// rules for tenants: they must name Pods (targetRef) unless their Namespace permits more.
    #[arg(long, value_enum, default_value = "files")]
    pub source: SourceKind,

    /// Treat warnings as problems.
    #[arg(long)]
    pub strict: bool,

    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// Writes the verdict to stdout. The exit code is 0 when there is no problem, 1 when there is one.
///
/// # Errors
/// When stdout cannot be written. (Files that cannot be read are problems of the verdict.)
pub fn run(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let report = examine(gather(&args.paths), args.source, args.assume_services);
    write(&report, args.json).context("writing to stdout")?;
    Ok(if report.passes(args.strict) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn examine(mut input: Input, source: SourceKind, assume_services: bool) -> CheckReport {
    let granted = complete(&mut input.objects, assume_services);
    let policy = match source {
        SourceKind::Files => AddressPolicy::default(),
        SourceKind::Kube => AddressPolicy::of_cluster(),
    };
    let mut resolved = resolve::resolve(&policy, &input.objects);
    resolved.warnings.extend(granted);
    CheckReport::new(&input, &resolved)
}

fn write(report: &CheckReport, json: bool) -> io::Result<()> {
    if json {
        stdout::print(&plain::json(serde_json::to_string_pretty(report)? + "\n"))
    } else {
        stdout::print(&report.to_string())
    }
}

//! `mirror explain`: what the agent would do with one request. In: a folder of YAML, and a
//! request. Out: on stdout, the frontend, the matches in the order in which they are tried, the
//! rule, its backends and each copy; and an exit code.
//!
//! The stages are the agent's own (source, decoding, resolving, framing, matching), so that the
//! explanation cannot drift from what it explains. It opens no socket and needs no privilege.

#![forbid(unsafe_code)]

mod args;
mod find;
mod inspect;
mod reply;
mod report;
mod rule;
#[cfg(test)]
mod tests;
mod text;

use std::{io, process::ExitCode};

use anyhow::Context as _;

pub use self::args::{ExplainArgs, UrlTarget};
use self::{inspect::inspect, report::Explanation};
use crate::{
    control::{
        files,
        resolve::{self, AddressPolicy},
    },
    plain, stdout,
};

/// Explains the request on stdout. The exit code says what becomes of it: 0, a rule matches; 3,
/// mirror itself responds with 404 or 400, or to a gRPC call with what stands for it; 4, its connection is not captured, or passes through
/// unparsed. (1 and 2 are those of errors: the folder, the command line.)
///
/// # Errors
/// The folder cannot be read, or stdout not be written.
pub fn run(args: &ExplainArgs) -> anyhow::Result<ExitCode> {
    let state = files::read(&args.routes)?;
    let resolved = resolve::resolve(&AddressPolicy::default(), &state.objects);
    let explanation = inspect(args, &state, &resolved);
    write(&explanation, args.json).context("writing to stdout")?;
    Ok(ExitCode::from(explanation.verdict.exit_code()))
}

fn write(explanation: &Explanation, json: bool) -> io::Result<()> {
    if json {
        stdout::print(&plain::json(serde_json::to_string_pretty(explanation)? + "\n"))
    } else {
        stdout::print(&plain::page(&explanation.to_string()))
    }
}

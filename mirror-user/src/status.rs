//! `mirror status`: what the agent of this node says of itself. In: the address of its admin server.
//! Out: captured pods and why others are not, frontends, routes with their conditions, copies by
//! outcome, connections that predate capture; as text, or as the JSON that the agent answers with.
//! It changes nothing.

mod ask;
mod text;
mod view;

use std::{net::SocketAddr, process::ExitCode};

use anyhow::Context as _;
use view::Status;

/// Exit code when the agent is not ready.
const UNREADY: u8 = 3;

/// How the status is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// For people.
    Text,
    /// For programs: all that /status has.
    Json,
}

/// Flags of `mirror status`.
#[derive(Clone, Debug, clap::Args)]
pub struct StatusArgs {
    /// Address of the agent's admin server, which is on loopback unless the agent was told
    /// otherwise: run this on the agent's node (in its pod: kubectl exec).
    #[arg(long, env = "MIRROR_ADMIN", value_name = "ADDR", default_value = "127.0.0.1:15920")]
    pub admin: SocketAddr,

    /// How to write it.
    #[arg(long, short, value_enum, default_value = "text")]
    pub output: Output,
}

/// Asks, and prints. The exit code is 0 when the agent is ready, 3 when it is not.
///
/// # Errors
/// No agent answers there, or not with a status, in words that say what to do.
pub async fn run(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let body = ask::get(args.admin, "/status").await?;
    let status: Status = serde_json::from_slice(&body).with_context(|| {
        format!("the answer from {} is not the status of an agent of this version", args.admin)
    })?;
    match args.output {
        Output::Text => print!("{status}"),
        Output::Json => print!("{}", String::from_utf8_lossy(&body)),
    }
    Ok(if status.ready { ExitCode::SUCCESS } else { ExitCode::from(UNREADY) })
}

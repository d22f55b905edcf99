//! `mirror status`: the status that the agent of this node reports. In: the address of its admin server.
//! Out: captured pods and why others are not, frontends, routes with their conditions, copies by
//! outcome, connections that predate capture; as text, or as the JSON of the agent's response.
//! It changes nothing.

#![forbid(unsafe_code)]

mod text;

use std::{net::SocketAddr, process::ExitCode};

use anyhow::Context as _;
use serde::de::IgnoredAny;

use crate::{
    admin_client,
    dump::{ConfigDump, StatusDump},
    plain, stdout,
};

/// The part of the agent's response that the text shows; of matches that is their number.
type Status = StatusDump<ConfigDump<IgnoredAny>>;

/// Exit code when the agent is not ready.
const UNREADY: u8 = 3;

/// How the status is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// A summary as text.
    Text,
    /// The whole response of /status as JSON.
    Json,
}

/// Flags of `mirror status`.
#[derive(Clone, Debug, clap::Args)]
pub struct StatusArgs {
    /// Address of the agent's admin server. It listens on loopback by default, so run this command on the
    /// agent's node, or in the agent's pod with kubectl exec.
    #[arg(long, env = "MIRROR_ADMIN", value_name = "ADDR", default_value = "127.0.0.1:15920",
          value_parser = address)]
    pub admin: SocketAddr,

    /// Output format.
    #[arg(long, short, value_enum, default_value = "text")]
    pub output: Output,

    /// Print one JSON object, like --output json.
    #[arg(long, conflicts_with = "output")]
    pub json: bool,
}

/// An address with a port; `localhost` is IPv4's, where the admin server listens by default.
fn address(text: &str) -> Result<SocketAddr, String> {
    let local = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    let address = local.as_deref().unwrap_or(text).parse();
    address.map_err(|_| "write ADDRESS:PORT, for example 127.0.0.1:15920 or [::1]:15920".into())
}

/// Requests the status, and prints it. The exit code is 0 when the agent is ready, 3 when it is not.
///
/// # Errors
/// No agent listens there, its response is not a status, or stdout cannot be written. The text says what
/// to do.
pub async fn run(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let body = admin_client::get(args.admin, "/status").await?;
    let status: Status = serde_json::from_slice(&body).with_context(|| {
        format!("the response from {} is not the status of an agent of this version", args.admin)
    })?;
    match if args.json { Output::Json } else { args.output } {
        Output::Text => stdout::print(&plain::page(&status.to_string())),
        Output::Json => stdout::print(&plain::json(String::from_utf8_lossy(&body).into_owned())),
    }
    .context("writing to stdout")?;
    Ok(if status.ready { ExitCode::SUCCESS } else { ExitCode::from(UNREADY) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn localhost_is_an_address() {
        assert_eq!(address("localhost:80"), Ok(SocketAddr::from(([127, 0, 0, 1], 80))));
        assert_eq!(address("[::1]:80"), Ok("[::1]:80".parse().unwrap()));
        for text in ["localhost", "localhost:", "a:80", "127.0.0.1", ""] {
            assert!(address(text).unwrap_err().contains("127.0.0.1:15920"), "{text}");
        }
    }
}

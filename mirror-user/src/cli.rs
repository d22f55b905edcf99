//! Flags: the command line goes in, checked values come out. Every flag can also be given by the
//! environment (`MIRROR_` and its name in capitals); the flag wins.

mod capture;
mod log;
mod size;
mod source;

use std::{net::SocketAddr, time::Duration};

use clap::value_parser;

pub(crate) use self::capture::namespace;
pub use self::{
    capture::CaptureError,
    log::{Log, LogArgs, LogFormat},
    size::{BudgetError, Budgets, ByteSize, SizeError},
    source::{SourceArgs, SourceChoice, SourceError, SourceKind},
};
use crate::{
    capture::WorkloadConfig,
    enrol::{Choice, Policy},
    outcome::LineFormat,
};

/// Where the shadow leg's sockets are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ShadowFrom {
    /// In the agent's own network namespace: one pool of connections for the node.
    Node,
    /// In the client's, so that the shadow sees the client's address and its egress policy holds.
    Pod,
}

/// Flags of `mirror agent`.
#[derive(Clone, Debug, clap::Args)]
pub struct AgentArgs {
    /// Where routes come from.
    #[command(flatten)]
    pub source: SourceArgs,

    /// Workload to capture: its cgroup (v2) as a path, and the Namespace and name that it counts
    /// as; the Namespace is "default" when left out. Repeatable; a comma parts several in the
    /// environment.
    #[arg(
        long,
        env = "MIRROR_CAPTURE",
        value_name = "[NAMESPACE/]NAME=CGROUP",
        value_delimiter = ','
    )]
    pub capture: Vec<WorkloadConfig>,

    /// Which pods are captured.
    #[command(flatten)]
    pub enrol: EnrolArgs,

    /// Reset connections to a Service that were opened before it had a route, or before the pod was
    /// captured, once each; else they stay direct until the application reconnects.
    #[arg(long, env = "MIRROR_RESET_EXISTING")]
    pub reset_existing: bool,

    /// Threads that carry traffic, 1 to 64 [default: one per core].
    #[arg(long, env = "MIRROR_WORKERS", value_name = "N", hide_default_value = true,
          default_value_t = cores(), value_parser = value_parser!(u32).range(1..=64))]
    pub workers: u32,

    /// Address of /healthz, /readyz, /metrics and /config.
    #[arg(long, env = "MIRROR_ADMIN", value_name = "ADDR", default_value = "127.0.0.1:15920")]
    pub admin: SocketAddr,

    /// Allow an --admin address that is not loopback: whoever reaches it reads the configuration.
    #[arg(long, env = "MIRROR_ADMIN_REMOTE")]
    pub admin_remote: bool,

    /// Flags of the shadow leg.
    #[command(flatten)]
    pub shadow: ShadowArgs,

    /// Bounds on memory held for shadows.
    #[command(flatten)]
    pub budgets: BudgetArgs,

    /// How long a client may stay silent before the server is given the chance to speak first;
    /// 10ms to 60s.
    #[arg(long, env = "MIRROR_SNIFF_TIMEOUT", value_name = "DURATION", default_value = "200ms",
          value_parser = |s: &str| duration(s, 10, 60_000))]
    pub sniff_timeout: Duration,

    /// How long a request's head may take from its first byte; 100ms to 10m.
    #[arg(long, env = "MIRROR_HEAD_TIMEOUT", value_name = "DURATION", default_value = "30s",
          value_parser = |s: &str| duration(s, 100, 600_000))]
    pub head_timeout: Duration,

    /// How long connections may take to end after SIGTERM; 0s to 1h.
    #[arg(long, env = "MIRROR_GRACE", value_name = "DURATION", default_value = "30s",
          value_parser = |s: &str| duration(s, 0, 3_600_000))]
    pub grace: Duration,

    /// Write one line per request to stdout, in this format [default: none]. Text is: TIME CLIENT
    /// FRONTEND ROUTE#RULE BACKEND ENDPOINT "METHOD TARGET PROTOCOL" "HOST" STATUS ANSWER ENDING
    /// FIRST_BYTE_MS DURATION_MS REQUEST_BYTES RESPONSE_BYTES COPIES "REASON"; absent fields are
    /// '-'. JSON has the same fields by name.
    #[arg(long, env = "MIRROR_ACCESS_LOG", value_name = "FORMAT", value_enum)]
    pub access_log: Option<LineFormat>,

    /// The agent's own log.
    #[command(flatten)]
    pub log: LogArgs,
}

/// Flags of the enrolment of pods.
#[derive(Clone, Debug, clap::Args)]
pub struct EnrolArgs {
    /// Whether pods are captured when neither they nor their Namespace have the label
    /// mirror.dev/capture, which says enabled or disabled.
    #[arg(
        long = "capture-default",
        env = "MIRROR_CAPTURE_DEFAULT",
        value_enum,
        default_value = "enabled"
    )]
    pub default: Choice,

    /// Runtime class whose pods have a network stack of their own, as those of Kata and gVisor
    /// have: they are not captured. Repeatable; a comma parts several in the environment.
    #[arg(
        long = "sandboxed-runtime-class",
        env = "MIRROR_SANDBOXED_RUNTIME_CLASS",
        value_name = "NAME",
        value_delimiter = ','
    )]
    pub sandboxed: Vec<String>,
}

impl EnrolArgs {
    /// The same as a policy.
    #[must_use]
    pub fn policy(&self) -> Policy {
        Policy { default: self.default, sandboxed: self.sandboxed.clone() }
    }
}

/// Flags of the shadow leg.
#[derive(Clone, Debug, clap::Args)]
pub struct ShadowArgs {
    /// Appended to the host part of a copy's Host; empty leaves it as it is. Letters, digits,
    /// '-' and '.', at most 63 of them.
    #[arg(long = "shadow-host-suffix", env = "MIRROR_SHADOW_HOST_SUFFIX", value_name = "SUFFIX",
          default_value = "-shadow", allow_hyphen_values = true, value_parser = suffix)]
    pub host_suffix: String,

    /// Which network namespace copies leave from.
    #[arg(long = "shadow-from", env = "MIRROR_SHADOW_FROM", value_enum, default_value = "node")]
    pub from: ShadowFrom,

    /// Connections per shadow endpoint and worker; as many copies may wait for one for a second, 16
    /// times as many without content; those beyond are dropped. 1 to 4096.
    #[arg(long = "shadow-connections", env = "MIRROR_SHADOW_CONNECTIONS", value_name = "N",
          default_value_t = 64, value_parser = value_parser!(u32).range(1..=4096))]
    pub connections: u32,

    /// How long connecting to a shadow may take; 1ms to 1m.
    #[arg(long = "shadow-connect-timeout", env = "MIRROR_SHADOW_CONNECT_TIMEOUT",
          value_name = "DURATION", default_value = "1s",
          value_parser = |s: &str| duration(s, 1, 60_000))]
    pub connect_timeout: Duration,

    /// How long a shadow may take for its whole answer; 1ms to 1h.
    #[arg(long = "shadow-response-timeout", env = "MIRROR_SHADOW_RESPONSE_TIMEOUT",
          value_name = "DURATION", default_value = "15s",
          value_parser = |s: &str| duration(s, 1, 3_600_000))]
    pub response_timeout: Duration,
}

/// Bounds on what is held in memory for shadows. [`BudgetArgs::checked`] compares them.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct BudgetArgs {
    /// Bytes held for one request's copies; a slower shadow is cut. B, KiB, MiB or GiB; at least
    /// 64KiB, and not more than --budget-backend.
    #[arg(
        long = "budget-request",
        env = "MIRROR_BUDGET_REQUEST",
        value_name = "SIZE",
        default_value = "1MiB"
    )]
    pub request: ByteSize,

    /// Bytes held for one shadow backend; not more than --budget-agent.
    #[arg(
        long = "budget-backend",
        env = "MIRROR_BUDGET_BACKEND",
        value_name = "SIZE",
        default_value = "8MiB"
    )]
    pub backend: ByteSize,

    /// Bytes held for all shadows.
    #[arg(
        long = "budget-agent",
        env = "MIRROR_BUDGET_AGENT",
        value_name = "SIZE",
        default_value = "64MiB"
    )]
    pub agent: ByteSize,
}

impl BudgetArgs {
    /// The three bounds in bytes.
    ///
    /// # Errors
    /// When a smaller circle has the greater budget, or one is below 64 KiB.
    pub fn checked(self) -> Result<Budgets, BudgetError> {
        Budgets::new(self.request, self.backend, self.agent)
    }
}

/// One worker per core, as far as affinity and cgroup quota allow, at most 64.
fn cores() -> u32 {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    u32::try_from(cores).unwrap_or(u32::MAX).clamp(1, 64)
}

/// A duration such as `200ms` within bounds given in milliseconds.
fn duration(text: &str, least: u64, most: u64) -> Result<Duration, String> {
    let value = humantime::parse_duration(text)
        .map_err(|error| format!("{error} (write for example 200ms, 5s or 1m30s)"))?;
    let (least, most) = (Duration::from_millis(least), Duration::from_millis(most));
    if value < least || value > most {
        let (least, most) = (humantime::format_duration(least), humantime::format_duration(most));
        return Err(format!("not within {least} to {most}"));
    }
    Ok(value)
}

/// What may be appended to a host name without ending it.
pub(crate) fn suffix(text: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    if let Some(wrong) = text.chars().find(|c| !allowed(*c)) {
        return Err(format!("{wrong:?} cannot be part of a host name"));
    }
    if text.len() > 63 {
        return Err(format!("{} characters, at most 63 are allowed", text.len()));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests;

//! Flags: the command line goes in, checked values come out. Every flag can also be given by the
//! environment (`MIRROR_` and its name in capitals); the flag wins.

#![forbid(unsafe_code)]

mod addresses;
mod bounds;
mod capture;
mod log;
mod memory;
mod size;
mod source;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{ValueEnum, value_parser};

pub(crate) use self::capture::{namespace, object_name};
pub use self::{
    addresses::AddressArgs,
    bounds::BoundError,
    capture::CaptureArgError,
    log::{Log, LogArgs, LogFormat, Suppressed},
    memory::MemoryArgs,
    size::{BudgetLimits, ByteSize, SizeError},
    source::{SourceArgs, SourceChoice, SourceError, SourceKind},
};
use crate::{
    capture::WorkloadConfig,
    control::resolve::AddressPolicy,
    outcome::LineFormat,
    route::{CaptureMode, EndpointChoice},
    selection::{Choice, PodLogs, Policy},
};

/// Where the shadow leg's sockets are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ShadowFrom {
    /// The agent's network namespace: all clients of the node share one pool of connections.
    Node,
    /// The client's network namespace: the shadow sees the client's address, and the client's egress
    /// policies apply.
    Pod,
}

/// Who chooses the endpoint of a primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum EndpointsArg {
    /// The node's Service load balancer (kube-proxy, Cilium): mirror connects to the address that the
    /// client connected to, or to the ClusterIP of the backend that the route names.
    Service,
    /// mirror itself, for hosts without a Service load balancer.
    Mirror,
}

impl From<EndpointsArg> for EndpointChoice {
    fn from(arg: EndpointsArg) -> Self {
        match arg {
            EndpointsArg::Service => Self::Service,
            EndpointsArg::Mirror => Self::Mirror,
        }
    }
}

/// Flags of `mirror agent`.
#[derive(Clone, Debug, clap::Args)]
pub struct AgentArgs {
    /// Where routes come from.
    #[command(flatten, next_help_heading = "Source of routes")]
    pub source: SourceArgs,

    /// Workload to capture: the path of its cgroup (v2), and the namespace and name to report it
    /// under. The namespace defaults to "default". Repeatable; comma-separated in the environment.
    #[arg(
        long,
        help_heading = "Capture",
        env = "MIRROR_CAPTURE",
        value_name = "[NAMESPACE/]NAME=CGROUP",
        value_delimiter = ','
    )]
    pub capture: Vec<WorkloadConfig>,

    /// How connections are captured: taken to the agent, which passes their requests on (proxy), or
    /// left as they are while the kernel copies what clients send (tap), where the routes only mirror.
    #[command(flatten, next_help_heading = "Capture")]
    pub tap: TapArgs,

    /// Which pods are captured.
    #[command(flatten, next_help_heading = "Capture")]
    pub selection: SelectionArgs,

    /// Reset connections that were opened before their Service had a route, or before their pod was
    /// captured, once each. Without this flag they stay direct until the application reconnects.
    #[arg(long, help_heading = "Capture", env = "MIRROR_RESET_EXISTING")]
    pub reset_existing: bool,

    /// Number of worker threads, 1 to 64 [default: one per core].
    #[arg(long, env = "MIRROR_WORKERS", value_name = "N", hide_default_value = true,
          default_value_t = cores(), value_parser = value_parser!(u32).range(1..=64))]
    pub workers: u32,

    /// Address of the admin server: /healthz, /readyz, /metrics, /config and /status.
    #[arg(
        long,
        help_heading = "Admin server",
        env = "MIRROR_ADMIN",
        value_name = "ADDR",
        default_value = "127.0.0.1:15920"
    )]
    pub admin: SocketAddr,

    /// Allow an --admin address that is not loopback. Everybody who can reach that address can read the
    /// configuration.
    #[arg(long, help_heading = "Admin server", env = "MIRROR_ADMIN_REMOTE")]
    pub admin_remote: bool,

    /// Host name that the admin server accepts in addition to IP addresses and localhost. Requests with
    /// any other Host get 421, because a web page can make its own name resolve to a loopback address.
    /// Repeatable; comma-separated in the environment.
    #[arg(
        long,
        help_heading = "Admin server",
        env = "MIRROR_ADMIN_HOST",
        value_name = "NAME",
        value_delimiter = ','
    )]
    pub admin_host: Vec<String>,

    /// Who chooses the endpoint of a request [default: service with --source kube, mirror with --source
    /// files]. For a headless backend mirror always chooses, once per client connection.
    #[arg(long, env = "MIRROR_ENDPOINTS", value_enum)]
    pub endpoints: Option<EndpointsArg>,

    /// Which addresses are used.
    #[command(flatten, next_help_heading = "Limits on what authors of routes may use")]
    pub addresses: AddressArgs,

    /// Flags of the shadow leg.
    #[command(flatten, next_help_heading = "Copies")]
    pub shadow: ShadowArgs,

    /// Bounds on memory held for shadows.
    #[command(flatten, next_help_heading = "Memory for copies")]
    pub budgets: BudgetArgs,

    /// Bounds on memory held for connections.
    #[command(flatten, next_help_heading = "Memory for connections")]
    pub memory: MemoryArgs,

    /// How long a new connection may stay silent before mirror connects to the original destination, so
    /// that a server that speaks first can do so. 10ms to 60s.
    #[arg(long, env = "MIRROR_SNIFF_TIMEOUT", value_name = "DURATION", default_value = "200ms",
          value_parser = |s: &str| duration(s, 10, 60_000))]
    pub sniff_timeout: Duration,

    /// Timeout of a request head, from its first byte. 100ms to 10m.
    #[arg(long, env = "MIRROR_HEAD_TIMEOUT", value_name = "DURATION", default_value = "30s",
          value_parser = |s: &str| duration(s, 100, 600_000))]
    pub head_timeout: Duration,

    /// How long connections may take to finish after SIGTERM. 0s to 1h.
    #[arg(long, env = "MIRROR_GRACE", value_name = "DURATION", default_value = "30s",
          value_parser = |s: &str| duration(s, 0, 3_600_000))]
    pub grace: Duration,

    /// Write one line per request to stdout, in this format [default: no access log]. deploy/README.md
    /// lists the fields of both formats.
    #[arg(
        long,
        help_heading = "Logs",
        env = "MIRROR_ACCESS_LOG",
        value_name = "FORMAT",
        value_enum
    )]
    pub access_log: Option<LineFormat>,

    /// The agent's own log.
    #[command(flatten, next_help_heading = "Logs")]
    pub log: LogArgs,
}

/// Flags of the tap.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct TapArgs {
    /// How connections are captured. A tap adds no hop: connections stay as they are, and the kernel
    /// copies what clients send. It is possible where each rule at an address only mirrors, its backend
    /// is the parent itself, and a rule matches every request; `mirror explain` and `mirror status` show
    /// what stands against it. A tap does not copy HTTP/2, TLS, what follows an Upgrade, CONNECT or
    /// Expect: 100-continue on a connection, nor what finds no room in --tap-ring;
    /// mirror_tap_stopped_total counts such connections. If the kernel cannot tap, all is proxied.
    #[arg(long, env = "MIRROR_MODE", value_enum, default_value = "proxy")]
    pub mode: ModeArg,

    /// Bytes of each worker's ring, by which the kernel hands over copies. What finds no room is not
    /// copied. A number with B, KiB, MiB or GiB; a power of two from 256KiB to 1GiB.
    #[arg(long = "tap-ring", env = "MIRROR_TAP_RING", value_name = "SIZE", default_value = "4MiB",
          value_parser = ring)]
    pub ring: ByteSize,
}

impl TapArgs {
    /// The length of a ring in bytes.
    #[must_use]
    pub fn ring(self) -> u32 {
        u32::try_from(self.ring.0).expect("at most 1 GiB")
    }
}

/// How connections are captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ModeArg {
    /// The agent stands between client and primary.
    Proxy,
    /// Where the routes only mirror, connections are tapped; others are not captured.
    Tap,
    /// Where the routes only mirror, connections are tapped; others are proxied.
    Auto,
}

impl From<ModeArg> for CaptureMode {
    fn from(mode: ModeArg) -> Self {
        match mode {
            ModeArg::Proxy => Self::Proxy,
            ModeArg::Tap => Self::Tap,
            ModeArg::Auto => Self::Auto,
        }
    }
}

/// Flags of the selection of pods.
#[derive(Clone, Debug, clap::Args)]
pub struct SelectionArgs {
    /// Whether to capture pods if neither the Pod nor its Namespace has the label mirror.dev/capture
    /// (enabled or disabled).
    #[arg(
        long = "capture-default",
        env = "MIRROR_CAPTURE_DEFAULT",
        value_enum,
        default_value = "enabled"
    )]
    pub default: Choice,

    /// Runtime class whose pods run in a sandbox with a separate network stack, in addition to those of
    /// Kata, gVisor, Firecracker and Quark, which are known by name. Such pods are not captured.
    /// Repeatable; comma-separated in the environment.
    #[arg(
        long = "sandboxed-runtime-class",
        env = "MIRROR_SANDBOXED_RUNTIME_CLASS",
        value_name = "NAME",
        value_delimiter = ','
    )]
    pub sandboxed: Vec<String>,

    /// Folder in which kubelet keeps the logs of the node's pods (podLogsDir of its configuration). A
    /// static pod is captured only if its folder NAMESPACE_NAME_HASH exists there, because nothing in a
    /// Pod object proves that it is a static pod. The agent reads names of folders, never logs.
    #[arg(
        long = "pod-logs",
        env = "MIRROR_POD_LOGS",
        value_name = "FOLDER",
        default_value = PodLogs::DEFAULT
    )]
    pub pod_logs: PathBuf,
}

impl AgentArgs {
    /// What may be captured, and where copies may go: who writes the objects decides.
    #[must_use]
    pub fn policy(&self, source: &SourceChoice) -> AddressPolicy {
        match source {
            SourceChoice::Kube { .. } => self.addresses.of_cluster(),
            SourceChoice::Files(_) => self.addresses.of_files(),
        }
    }

    /// Who chooses endpoints: a cluster balances its Services, a plain host does not.
    #[must_use]
    pub fn endpoint_choice(&self, source: &SourceChoice) -> EndpointChoice {
        let default = match source {
            SourceChoice::Kube { .. } => EndpointsArg::Service,
            SourceChoice::Files(_) => EndpointsArg::Mirror,
        };
        self.endpoints.unwrap_or(default).into()
    }
}

impl SelectionArgs {
    /// The same as a policy.
    #[must_use]
    pub fn policy(&self) -> Policy {
        Policy { default: self.default, sandboxed: self.sandboxed.clone() }
    }
}

/// Flags of the shadow leg.
#[derive(Clone, Debug, clap::Args)]
pub struct ShadowArgs {
    /// Suffix appended to the host name in the Host of each copy; an empty suffix leaves Host unchanged.
    /// At most 63 characters: letters, digits, '-' and '.'.
    #[arg(long = "shadow-host-suffix", env = "MIRROR_SHADOW_HOST_SUFFIX", value_name = "SUFFIX",
          default_value = "-shadow", allow_hyphen_values = true, value_parser = suffix)]
    pub host_suffix: String,

    /// Network namespace that copies are sent from.
    #[arg(long = "shadow-from", env = "MIRROR_SHADOW_FROM", value_enum, default_value = "node")]
    pub from: ShadowFrom,

    /// Maximum number of connections per shadow endpoint and worker. For each of them, 16 copies with
    /// content and 16 without may wait for a connection, for at most a second; further copies are
    /// dropped. 1 to 4096.
    #[arg(long = "shadow-connections", env = "MIRROR_SHADOW_CONNECTIONS", value_name = "N",
          default_value_t = 64, value_parser = value_parser!(u32).range(1..=4096))]
    pub connections: u32,

    /// Timeout of connecting to a shadow. 1ms to 1m.
    #[arg(long = "shadow-connect-timeout", env = "MIRROR_SHADOW_CONNECT_TIMEOUT",
          value_name = "DURATION", default_value = "1s",
          value_parser = |s: &str| duration(s, 1, 60_000))]
    pub connect_timeout: Duration,

    /// Timeout of a shadow's whole response. The time that the client takes to send its content does not
    /// count while the shadow keeps up. 1ms to 1h.
    #[arg(long = "shadow-response-timeout", env = "MIRROR_SHADOW_RESPONSE_TIMEOUT",
          value_name = "DURATION", default_value = "15s",
          value_parser = |s: &str| duration(s, 1, 3_600_000))]
    pub response_timeout: Duration,

    /// Most bytes that are read of one response of a shadow. If a response is longer, its connection is
    /// closed, or its stream reset with HTTP/2; the copy still counts as delivered. A number with B, KiB,
    /// MiB or GiB; at least 64KiB.
    #[arg(long = "shadow-response-limit", env = "MIRROR_SHADOW_RESPONSE_LIMIT",
          value_name = "SIZE", default_value = "64MiB", value_parser = response_limit)]
    pub response_limit: ByteSize,
}

impl ShadowArgs {
    /// The bound on a response in bytes.
    #[must_use]
    pub fn response_limit(&self) -> usize {
        size::bytes(self.response_limit)
    }
}

/// Bounds on what is held in memory for shadows. [`BudgetArgs::checked`] compares them.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct BudgetArgs {
    /// Most bytes that one copy may hold [default: what its shadow backend may still hold]. A copy to a
    /// shadow that falls further behind is cut. A number with B, KiB, MiB or GiB; at least 64KiB, at most
    /// --budget-backend.
    #[arg(long = "budget-request", env = "MIRROR_BUDGET_REQUEST", value_name = "SIZE")]
    pub request: Option<ByteSize>,

    /// Most bytes held for one shadow backend [default: twice what the agent may still hold]. At least
    /// 64KiB, at most --budget-agent.
    #[arg(long = "budget-backend", env = "MIRROR_BUDGET_BACKEND", value_name = "SIZE")]
    pub backend: Option<ByteSize>,

    /// Most bytes held for all shadows. One copy may take at most half of what is free, the copies for
    /// one shadow backend at most two thirds. At least 256KiB.
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
    /// When a smaller circle has the greater budget, or one is too small.
    pub fn checked(self) -> Result<BudgetLimits, BoundError> {
        BudgetLimits::new(self.request, self.backend, self.agent)
    }
}

/// A bound on a shadow's response; shorter ones would cut what is read at once anyway.
fn response_limit(text: &str) -> Result<ByteSize, String> {
    const LEAST: ByteSize = ByteSize(64 << 10);
    let size: ByteSize = text.parse().map_err(|error: SizeError| error.to_string())?;
    if size < LEAST { Err(format!("{size} is less than {LEAST}")) } else { Ok(size) }
}

/// The length of a ring, which the kernel wants in whole pages, and a power of two.
fn ring(text: &str) -> Result<ByteSize, String> {
    let size: ByteSize = text.parse().map_err(|error: SizeError| error.to_string())?;
    if size.0.is_power_of_two() && (256 << 10..=1 << 30).contains(&size.0) {
        Ok(size)
    } else {
        Err(format!("{size} is not a power of two from 256KiB to 1GiB"))
    }
}

/// One worker per core, as far as affinity and cgroup quota allow, at most 64.
fn cores() -> u32 {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    u32::try_from(cores).unwrap_or(u32::MAX).clamp(1, 64)
}

/// A duration such as `200ms` within bounds given in milliseconds.
pub(crate) fn duration(text: &str, least: u64, most: u64) -> Result<Duration, String> {
    let value = humantime::parse_duration(text)
        .map_err(|error| format!("{error} (write for example 200ms, 5s or 1m30s)"))?;
    let (least, most) = (Duration::from_millis(least), Duration::from_millis(most));
    if value < least || value > most {
        let (least, most) = (humantime::format_duration(least), humantime::format_duration(most));
        return Err(format!("must be between {least} and {most}"));
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
        return Err(format!("{} characters long, but at most 63 are allowed", text.len()));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests;

//! Flags of `mirror controller` and `mirror uninstall`.

use std::net::SocketAddr;

use crate::cli::{self, AddressArgs, LogArgs};

/// Where the election takes place.
#[derive(Clone, Debug, clap::Args)]
pub struct LeaseArgs {
    /// Namespace that mirror is installed in, which has its Lease.
    #[arg(long, env = "MIRROR_NAMESPACE", value_name = "NAMESPACE", default_value = "mirror-system",
          value_parser = cli::namespace)]
    pub namespace: String,

    /// Name of the Lease by which the replicas elect the one that writes.
    #[arg(long, env = "MIRROR_LEASE", value_name = "NAME", default_value = "mirror-controller",
          value_parser = cli::namespace)]
    pub lease: String,
}

/// Flags of `mirror controller`. The cluster is found by KUBECONFIG, else by the pod that this is,
/// else by ~/.kube/config.
#[derive(Clone, Debug, clap::Args)]
pub struct ControllerArgs {
    /// The Lease.
    #[command(flatten)]
    pub lease: LeaseArgs,

    /// Name of this replica in the Lease and in Events [default: the host name]. A random suffix is
    /// appended, so that a restarted replica is not taken for its predecessor.
    #[arg(long, env = "MIRROR_IDENTITY", value_name = "NAME")]
    pub identity: Option<String>,

    /// Address of the admin server: /healthz, /readyz and /metrics.
    #[arg(
        long,
        help_heading = "Admin server",
        env = "MIRROR_CONTROLLER_ADMIN",
        value_name = "ADDR",
        default_value = "127.0.0.1:15921"
    )]
    pub admin: SocketAddr,

    /// Allow an --admin address that is not loopback.
    #[arg(long, help_heading = "Admin server", env = "MIRROR_ADMIN_REMOTE")]
    pub admin_remote: bool,

    /// Host name that the admin server accepts in addition to IP addresses and localhost. Repeatable;
    /// comma-separated in the environment.
    #[arg(
        long,
        help_heading = "Admin server",
        env = "MIRROR_ADMIN_HOST",
        value_name = "NAME",
        value_delimiter = ','
    )]
    pub admin_host: Vec<String>,

    /// The limits that the agents apply, which have the same flags.
    #[command(
        flatten,
        next_help_heading = "Limits on what authors of routes may use, as the agents' flags"
    )]
    pub addresses: AddressArgs,

    /// The controller's own log.
    #[command(flatten, next_help_heading = "Logs")]
    pub log: LogArgs,
}

/// Flags of `mirror uninstall`.
#[derive(Clone, Debug, clap::Args)]
pub struct UninstallArgs {
    /// The Lease, which is removed.
    #[command(flatten)]
    pub lease: LeaseArgs,

    /// Continue even if a controller still runs, which will write the removed entries again.
    #[arg(long)]
    pub force: bool,
}

impl ControllerArgs {
    /// Unique among replicas, over restarts as well; at most 128 bytes (Event,
    /// `reportingInstance`).
    pub(super) fn unique_identity(&self) -> String {
        let host = || nix::sys::utsname::uname().ok()?.nodename().to_str().map(str::to_owned);
        let name = self.identity.clone().or_else(host).unwrap_or_else(|| "mirror".into());
        let name: String = name.chars().filter(char::is_ascii_graphic).take(100).collect();
        format!("{name}_{:016x}", rand::random::<u64>())
    }
}

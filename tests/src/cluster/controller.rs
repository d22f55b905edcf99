//! A `mirror controller` inside the node, with the rights that the manifests give it.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use anyhow::Result;
use nix::sys::signal::Signal;

use super::{Account, ControlPlane};
use crate::{
    command::mirror_binary,
    http,
    metrics::Metrics,
    node::Node,
    process::{Process, eventually},
};

/// Where `deploy/` puts it.
pub const NAMESPACE: &str = "mirror-system";

/// The repository's manifests.
pub const DEPLOY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy");

/// A running controller.
#[derive(Debug)]
pub struct Controller<'a> {
    node: &'a Node,
    process: Process,
    admin: SocketAddr,
    /// The account whose token it uses; nothing else uses it.
    pub account: Account,
    name: String,
}

impl<'a> Controller<'a> {
    /// Starts one, and waits until it is ready. `deploy/` must have been applied before.
    ///
    /// # Errors
    /// It ends, or is not ready within 20 s; with its log.
    pub fn start(node: &'a Node, plane: &ControlPlane<'_>, name: &str, port: u16) -> Result<Self> {
        let account = Account::new(node, plane, NAMESPACE, "mirror-controller", name)?;
        let mirror = mirror_binary()?.to_string_lossy().into_owned();
        let config = format!("KUBECONFIG={}", account.kubeconfig.display());
        let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let address = admin.to_string();
        let argv = ["env", &config, &mirror, "controller", "--identity", name, "--admin", &address];
        let process = node.spawn(name, &argv)?;
        let controller = Self { node, process, admin, account, name: name.into() };
        let ready = || controller.get("/readyz").is_ok_and(|(status, _)| status == 200);
        eventually(&format!("{name} is ready"), Duration::from_secs(20), ready)
            .map_err(|error| error.context(controller.log()))?;
        Ok(controller)
    }

    /// Whether it believes that it leads.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.metric("mirror_controller_leads", &[]) == 1.0
    }

    /// Statuses that it has written.
    #[must_use]
    pub fn written(&self) -> f64 {
        self.metric("mirror_controller_status_writes_total", &[("outcome", "written")])
    }

    /// A metric's sum, or NaN while it does not respond.
    #[must_use]
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let text = self.get("/metrics").map(|(_, text)| text).unwrap_or_default();
        Metrics::parse(&text).map_or(f64::NAN, |metrics| metrics.sum(name, labels))
    }

    /// Whether a holder of the Lease is this one.
    #[must_use]
    pub fn is(&self, holder: &str) -> bool {
        holder.starts_with(&format!("{}_", self.name))
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.process.pid()
    }

    /// What it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.stderr()
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// It has ended.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// Ends it with SIGKILL.
    ///
    /// # Errors
    /// What kill(2) says.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// Ends it with SIGTERM; its exit code.
    ///
    /// # Errors
    /// It does not end within 10 s.
    pub fn stop(&mut self) -> Result<Option<i32>> {
        self.process.signal(Signal::SIGTERM)?;
        let status = self.process.wait(Duration::from_secs(10))?;
        Ok(status.and_then(|status| status.code()))
    }

    fn get(&self, path: &str) -> Result<(u16, String)> {
        http::get(self.node.netns(), self.admin, path)
    }
}

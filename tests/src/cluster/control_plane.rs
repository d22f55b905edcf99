//! The control plane's processes: started, waited for, killed, started again.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::{Binaries, Channel, Release, relay::Relay};
use crate::{
    command::run,
    node::Node,
    process::{Process, eventually, slowness},
};

/// etcd's port inside the node; its own traffic has the next one.
const ETCD_PORT: u16 = 2379;
/// Of the Services, as the simulated node routes them.
const SERVICES: &str = "10.96.0.0/12";
/// The name that the node's certificate has.
pub(super) const NODE_NAME: &str = "node-1";

/// What a control plane is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whether kube-controller-manager and kube-scheduler run: without them Deployments make no
    /// Pods and Services no EndpointSlices, and an idle cluster costs less.
    pub controllers: bool,
    /// Whether each request is written to [`ControlPlane::audit_log`].
    pub audit: bool,
    /// Further flags of kube-apiserver (`--feature-gates=WatchList=false`, say).
    pub server_flags: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self { controllers: true, audit: false, server_flags: Vec::new() }
    }
}

/// A running control plane. Dropping it kills it; its files go with the node.
#[derive(Debug)]
pub struct ControlPlane<'a> {
    node: &'a Node,
    binaries: Binaries,
    folder: PathBuf,
    options: Options,
    relay: Relay,
    server: Option<Process>,
    /// etcd, the controllers, the scheduler; ended in this order's reverse by their drops.
    others: Vec<Process>,
    /// How often the API server was started; part of the names of its log files.
    starts: u32,
}

impl<'a> ControlPlane<'a> {
    /// Starts everything, and waits until the API server is ready (some 5 s).
    ///
    /// # Errors
    /// The components cannot be built, or one ends, or the server is not ready within 60 s; with
    /// the end of its log.
    pub fn start(node: &'a Node, options: &Options) -> Result<Self> {
        let binaries = Binaries::build()?;
        let folder = node.folder().join("control-plane");
        fs::create_dir_all(&folder)?;
        let relay = Relay::start(node.netns().path())?;
        let mut plane = Self {
            node,
            binaries,
            folder,
            options: options.clone(),
            relay,
            server: None,
            others: Vec::new(),
            starts: 0,
        };
        plane.make_pki()?;
        plane.start_etcd()?;
        plane.start_server()?;
        if options.controllers {
            plane.start_controllers()?;
            // Without it no Pod is admitted.
            plane.wait_for(&["serviceaccount", "default"], Duration::from_secs(30))?;
        }
        Ok(plane)
    }

    fn make_pki(&self) -> Result<()> {
        let address = self.node.ip().to_string();
        run(
            &[
                &self.binaries.path("cluster"),
                "pki",
                "--dir",
                &self.pki(""),
                "--server",
                &self.url(),
                "--address",
                &address,
                "--node",
                NODE_NAME,
            ],
            "",
        )
        .map(drop)
    }

    fn start_etcd(&mut self) -> Result<()> {
        let data = self.folder.join("etcd").to_string_lossy().into_owned();
        let etcd = self.binaries.path("etcd");
        let port = ETCD_PORT.to_string();
        let etcd = self.node.spawn("etcd", &[&etcd, "--dir", &data, "--port", &port])?;
        self.others.push(etcd);
        Ok(())
    }

    /// Starts the API server again after [`ControlPlane::kill_server`], and waits until it is
    /// ready.
    ///
    /// # Errors
    /// It ends, or is not ready within 60 s; with the end of its log.
    pub fn start_server(&mut self) -> Result<()> {
        self.launch_server()?;
        self.wait_ready()
    }

    /// The same without waiting: for who measures what happens from its first responses on.
    ///
    /// # Errors
    /// It runs already, or cannot be started.
    pub fn launch_server(&mut self) -> Result<()> {
        if self.server.is_some() {
            bail!("the API server runs already");
        }
        self.starts += 1;
        let mut argv = vec![self.binaries.path("kube-apiserver")];
        argv.extend(self.server_flags()?);
        let argv: Vec<_> = argv.iter().map(String::as_str).collect();
        self.server = Some(self.node.spawn(&format!("kube-apiserver-{}", self.starts), &argv)?);
        Ok(())
    }

    /// Waits until the API server says that it is ready.
    ///
    /// # Errors
    /// It ends, or is not within 60 s; with the end of its log.
    pub fn wait_ready(&mut self) -> Result<()> {
        let patience = Duration::from_secs(60).mul_f64(slowness());
        let deadline = Instant::now() + patience;
        loop {
            let server = self.server.as_mut().context("the API server was not started")?;
            if let Some(status) = server.wait(Duration::ZERO)? {
                bail!("kube-apiserver: {status}: {}", tail(&server.stderr()));
            }
            if self.kubectl(&["get", "--raw", "/readyz"], "").is_ok_and(|response| response == "ok")
            {
                return Ok(());
            }
            if Instant::now() > deadline {
                let log = self.server.as_ref().map(Process::stderr).unwrap_or_default();
                bail!("kube-apiserver is not ready after {patience:?}: {}", tail(&log));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Ends the API server with SIGKILL.
    ///
    /// # Errors
    /// It does not run.
    pub fn kill_server(&mut self) -> Result<()> {
        self.server.take().context("the API server does not run")?.kill()
    }

    fn server_flags(&self) -> Result<Vec<String>> {
        let pki = |name: &str| self.pki(name);
        let mut flags = vec![
            format!("--etcd-servers=http://127.0.0.1:{ETCD_PORT}"),
            format!("--secure-port={}", self.relay.port()),
            "--bind-address=0.0.0.0".into(),
            format!("--advertise-address={}", self.node.ip()),
            format!("--tls-cert-file={}", pki("apiserver.crt")),
            format!("--tls-private-key-file={}", pki("apiserver.key")),
            format!("--client-ca-file={}", pki("ca.crt")),
            format!("--service-cluster-ip-range={SERVICES}"),
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local".into(),
            format!("--service-account-key-file={}", pki("sa.pub")),
            format!("--service-account-signing-key-file={}", pki("sa.key")),
            "--authorization-mode=Node,RBAC".into(),
            "--enable-admission-plugins=NodeRestriction".into(),
            format!("--kubelet-certificate-authority={}", pki("ca.crt")),
            format!("--kubelet-client-certificate={}", pki("apiserver-kubelet-client.crt")),
            format!("--kubelet-client-key={}", pki("apiserver-kubelet-client.key")),
            "--kubelet-preferred-address-types=InternalIP".into(),
            // A test's burst of objects is no abuse.
            "--max-requests-inflight=800".into(),
            "--shutdown-delay-duration=0s".into(),
        ];
        if self.options.audit {
            let policy = self.folder.join("audit-policy.yaml");
            fs::write(&policy, AUDIT_POLICY)?;
            flags.push(format!("--audit-policy-file={}", policy.display()));
            flags.push(format!("--audit-log-path={}", self.audit_file().display()));
        }
        flags.extend(self.options.server_flags.iter().cloned());
        Ok(flags)
    }

    fn start_controllers(&mut self) -> Result<()> {
        let flags = [
            format!("--kubeconfig={}", self.pki("controller-manager.kubeconfig")),
            "--leader-elect=false".into(),
            "--use-service-account-credentials=true".into(),
            format!("--service-account-private-key-file={}", self.pki("sa.key")),
            format!("--root-ca-file={}", self.pki("ca.crt")),
            "--bind-address=127.0.0.1".into(),
        ];
        self.start_component("kube-controller-manager", &flags)?;
        let flags = [
            format!("--kubeconfig={}", self.pki("scheduler.kubeconfig")),
            "--leader-elect=false".into(),
            "--bind-address=127.0.0.1".into(),
        ];
        self.start_component("kube-scheduler", &flags)
    }

    fn start_component(&mut self, name: &str, flags: &[String]) -> Result<()> {
        let mut argv = vec![self.binaries.path(name)];
        argv.extend_from_slice(flags);
        let argv: Vec<_> = argv.iter().map(String::as_str).collect();
        self.others.push(self.node.spawn(name, &argv)?);
        Ok(())
    }

    /// Forgets all revisions of etcd but the newest: older watches get 410.
    ///
    /// # Errors
    /// What etcd says.
    pub fn compact(&self) -> Result<()> {
        let endpoints = format!("http://127.0.0.1:{ETCD_PORT}");
        let binary = self.binaries.path("cluster");
        self.inside(&[&binary, "compact", "--endpoints", &endpoints], "").map(drop)
    }

    /// Puts the CRDs of a channel into force, and waits until the API server serves them.
    ///
    /// # Errors
    /// Go cannot fetch them, or what kubectl says.
    pub fn install_gateway_api(&self, channel: Channel) -> Result<()> {
        self.install_release(channel, Release::Crate)
    }

    /// The same of a release that is not the usual one.
    ///
    /// # Errors
    /// As above.
    pub fn install_release(&self, channel: Channel, release: Release) -> Result<()> {
        let files = channel.files(release)?;
        let files: Vec<_> = files.iter().map(|file| file.to_string_lossy()).collect();
        // Their schemas are too long for the annotation of a client-side apply.
        let mut args = vec!["apply", "--server-side", "--force-conflicts"];
        args.extend(files.iter().flat_map(|file| ["-f", &**file]));
        self.kubectl(&args, "")?;
        let mut args = vec!["wait", "--for=condition=Established", "--timeout=30s"];
        args.extend(files.iter().flat_map(|file| ["-f", &**file]));
        self.kubectl(&args, "").map(drop)
    }

    /// Runs kubectl as the cluster's administrator, with `input` on its stdin; its stdout.
    ///
    /// # Errors
    /// What kubectl says.
    pub fn kubectl(&self, args: &[&str], input: &str) -> Result<String> {
        let kubectl = self.binaries.path("kubectl");
        let config = self.pki("admin.kubeconfig");
        let cache = self.folder.join("kubectl").to_string_lossy().into_owned();
        let mut argv = vec![&*kubectl, "--kubeconfig", &*config, "--cache-dir", &*cache];
        argv.extend(args);
        self.inside(&argv, input)
    }

    /// Waits until the API server has this object of the namespace `default`, or `-n`'s.
    ///
    /// # Errors
    /// It has not, within `timeout`.
    pub fn wait_for(&self, args: &[&str], timeout: Duration) -> Result<()> {
        let mut argv = vec!["get"];
        argv.extend(args);
        eventually(&argv.join(" "), timeout, || self.kubectl(&argv, "").is_ok())
    }

    fn inside(&self, argv: &[&str], input: &str) -> Result<String> {
        self.node.netns().enter(|| run(argv, input))?
    }

    /// The node that it runs in.
    pub(super) fn node(&self) -> &'a Node {
        self.node
    }

    /// The administrator's kubeconfig: for the host and for the node's namespace alike.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.pki("admin.kubeconfig").into()
    }

    /// The API server's address, inside the node and on the host.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.relay.port())
    }

    /// The components' folder, with kubectl.
    #[must_use]
    pub fn binaries(&self) -> &Binaries {
        &self.binaries
    }

    /// A file of the folder of certificates, keys and kubeconfigs.
    #[must_use]
    pub fn pki(&self, name: &str) -> String {
        self.folder.join("pki").join(name).to_string_lossy().into_owned()
    }

    /// The API server's process id.
    #[must_use]
    pub fn server_pid(&self) -> Option<i32> {
        self.server.as_ref().map(Process::pid)
    }

    /// The requests so far, one JSON object (`audit.k8s.io/v1` Event) a line.
    ///
    /// # Errors
    /// It was not started with `audit`.
    pub fn audit_log(&self) -> Result<String> {
        let file = self.audit_file();
        fs::read_to_string(&file).with_context(|| format!("no audit log {}", file.display()))
    }

    fn audit_file(&self) -> PathBuf {
        Path::new(&self.folder).join("audit.log")
    }
}

impl Drop for ControlPlane<'_> {
    fn drop(&mut self) {
        // The clients first: they would only complain.
        while let Some(mut component) = self.others.pop() {
            if self.others.is_empty() {
                drop(self.server.take());
            }
            let _ = component.kill();
        }
    }
}

/// Who requested what, and the status of the response; bodies would be too much.
const AUDIT_POLICY: &str = "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
";

/// The last lines of a log.
fn tail(log: &str) -> String {
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

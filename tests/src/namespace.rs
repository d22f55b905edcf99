//! Network namespaces of the simulated node.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow};
use nix::sched::{CloneFlags, setns};

use crate::command::run;

/// Where `ip netns` keeps them.
pub(crate) const FOLDER: &str = "/run/netns";

/// A named network namespace. Dropping it removes the name.
#[derive(Debug)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// Makes it, with nothing but `lo`, which is up.
    pub(crate) fn create(name: &str) -> Result<Self> {
        run(&["ip", "netns", "add", name], "")?;
        let netns = Self { name: name.to_owned() };
        netns.ip("link set lo up")?;
        Ok(netns)
    }

    /// Its file, for `nsenter --net=`.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        Path::new(FOLDER).join(&self.name)
    }

    /// Runs `ip` inside it, one command on each line.
    ///
    /// # Errors
    /// What `ip` says.
    pub fn ip(&self, commands: &str) -> Result<String> {
        run(&["ip", "-n", &self.name, "-batch", "-"], commands)
    }

    /// Sets a sysctl below `net/` inside it.
    ///
    /// # Errors
    /// The kernel does not have it (IPv6 is compiled out, or disabled at boot), or refuses it.
    pub fn set(&self, sysctl: &str, value: u32) -> Result<()> {
        let path = format!("/proc/sys/net/{sysctl}");
        let written = self.enter(|| fs::write(&path, value.to_string()))?;
        written.with_context(|| format!("writing {value} to {path} in {}", self.name))
    }

    /// Loads an nftables script inside it.
    ///
    /// # Errors
    /// What `nft` says.
    pub fn nft(&self, script: &str) -> Result<String> {
        self.enter(|| run(&["nft", "-f", "-"], script))?
    }

    /// Calls `f` on a separate thread that is inside: its sockets, its children and its view of
    /// /proc/sys/net belong to this namespace.
    ///
    /// # Errors
    /// The namespace is gone.
    pub fn enter<T: Send>(&self, f: impl FnOnce() -> T + Send) -> Result<T> {
        inside(&self.path(), f)
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        // The node's own cleaning up reports failures.
        let _ = run(&["ip", "netns", "del", &self.name], "");
    }
}

/// Calls `f` on a thread inside the namespace of this file.
pub(crate) fn inside<T: Send>(path: &Path, f: impl FnOnce() -> T + Send) -> Result<T> {
    let file = File::open(path).with_context(|| format!("no namespace {}", path.display()))?;
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            setns(&file, CloneFlags::CLONE_NEWNET).context("setns (is this root?)")?;
            Ok(f())
        });
        thread.join().map_err(|_| anyhow!("panicked inside {}", path.display()))?
    })
}

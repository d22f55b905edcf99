//! `bench-client`, mirror's own clients, on the processor of clients.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result, bail};
use mirror_tests::{Pod, Process, eventually};
use serde::de::DeserializeOwned;

use super::pinning::{Processors, pinned};
use crate::tools;

/// The program, built.
pub(super) struct Client {
    binary: PathBuf,
    /// Where it and its like are.
    folder: PathBuf,
    processors: Processors,
}

impl Client {
    /// Builds it.
    ///
    /// # Errors
    /// The build fails.
    pub(super) fn build(processors: Processors) -> Result<Self> {
        let args =
            ["build", "--release", "-p", "mirror-tests", "--bin", "bench-client", "--bin", "flood"];
        tools::run(&mut tools::cargo(&args))?;
        let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
        let target = target.unwrap_or_else(|| tools::root().join("target"));
        let folder = target.join("release");
        Ok(Self { binary: folder.join("bench-client"), folder, processors })
    }

    /// Where another program of the same crate is, which is built with it.
    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Runs it in a pod to its end: its report.
    ///
    /// # Errors
    /// It fails, or takes more than two minutes.
    pub(super) fn run<T: DeserializeOwned>(&self, pod: &Pod, args: &[&str]) -> Result<T> {
        let argv = self.argv(args);
        let argv: Vec<_> = argv.iter().map(String::as_str).collect();
        let text = pod.run(&argv, Duration::from_secs(120))?.ok()?;
        serde_json::from_str(&text).with_context(|| format!("bench-client reports: {text}"))
    }

    /// Starts holding so many connections to an address, and returns when they are there.
    ///
    /// # Errors
    /// They cannot be made within a minute.
    pub(super) fn hold(&self, pod: &Pod, address: &str, count: usize) -> Result<Process> {
        let argv = self.argv(&["hold", address, &count.to_string(), "60"]);
        let argv: Vec<_> = argv.iter().map(String::as_str).collect();
        let mut process = pod.spawn(&format!("hold{count}"), &argv)?;
        let mut ended = None;
        eventually("the connections are held", Duration::from_secs(60), || {
            ended = process.wait(Duration::ZERO).ok().flatten();
            ended.is_some() || process.stdout().starts_with("held")
        })?;
        match ended {
            Some(status) => bail!("bench-client: {status}: {}", process.stderr()),
            None => Ok(process),
        }
    }

    fn argv(&self, args: &[&str]) -> Vec<String> {
        let binary = self.binary.to_string_lossy();
        pinned(self.processors.others, &[&[&*binary], args].concat())
    }
}

//! What the load generators have in common: where their files go, what starts them, and how they are run in
//! a pod. In: a command line. Out: its stdout.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Result, ensure};

use crate::node::{Node, Pod};

/// A program that sends load, ready to run on one node.
#[derive(Debug)]
pub(crate) struct Generator {
    /// Where its files go.
    folder: PathBuf,
    /// What starts it: `taskset -c 0`, or nothing.
    prefix: Vec<String>,
}

impl Generator {
    pub(crate) fn new(node: &Node) -> Self {
        Self { folder: node.folder().to_owned(), prefix: Vec::new() }
    }

    /// The same on one processor alone.
    pub(crate) fn pinned(self, processor: usize) -> Self {
        let prefix = ["taskset", "-c", &processor.to_string()].map(str::to_owned).to_vec();
        Self { prefix, ..self }
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Runs it in the pod for about `duration`: its stdout. `package`: what apt-get installs it with.
    pub(crate) fn run(
        &self,
        pod: &Pod,
        argv: &[&str],
        duration: Duration,
        package: &str,
    ) -> Result<String> {
        let whole: Vec<_> =
            self.prefix.iter().map(String::as_str).chain(argv.iter().copied()).collect();
        let output = pod.run(&whole, duration + Duration::from_secs(30))?;
        let program = argv.first().copied().unwrap_or_default();
        ensure!(
            output.status.code() != Some(127),
            "`{program}` is not installed: apt-get install {package}"
        );
        output.ok()
    }
}

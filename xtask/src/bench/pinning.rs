//! Which processor runs what: a proxy has one for itself, client and backends share the other.

use std::fmt::Display;

use anyhow::{Result, ensure};

/// The two processors.
#[derive(Clone, Copy, Debug)]
pub(super) struct Processors {
    /// For the proxy, all its threads.
    pub(super) proxy: usize,
    /// For load generators and backends.
    pub(super) others: usize,
}

impl Processors {
    /// The first for the others, the second for the proxy.
    ///
    /// # Errors
    /// The machine has one processor.
    pub(super) fn choose() -> Result<Self> {
        let count = std::thread::available_parallelism()?.get();
        ensure!(count >= 2, "the bench needs two processors: one for a proxy, one for the others");
        Ok(Self { others: 0, proxy: 1 })
    }

    /// Both, as `taskset` has it.
    pub(super) fn all(self) -> String {
        format!("{},{}", self.others, self.proxy)
    }
}

/// `argv` on one processor alone (or on a list of them, as `taskset` has it).
pub(super) fn pinned(processors: impl Display, argv: &[&str]) -> Vec<String> {
    let prefix = ["taskset".to_owned(), "-c".to_owned(), processors.to_string()];
    prefix.into_iter().chain(argv.iter().map(|arg| (*arg).to_owned())).collect()
}

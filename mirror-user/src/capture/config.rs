//! Which workloads are captured.

use std::path::PathBuf;

/// A workload to capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadConfig {
    /// The Namespace that it counts as: decides which consumer routes hold.
    pub namespace: String,
    /// Its name within the Namespace.
    pub name: String,
    /// Its cgroup (v2), as an absolute path; need not exist yet.
    pub cgroup: PathBuf,
    /// Who asked for it.
    pub origin: WorkloadOrigin,
}

/// Who asked for a workload to be captured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WorkloadOrigin {
    /// A flag: anything that has a cgroup, in whichever network namespace.
    Flag,
    /// The selection of pods: a pod, which has a separate network namespace.
    Pod {
        /// `metadata.uid`.
        uid: Box<str>,
    },
}

impl WorkloadConfig {
    /// `namespace/name`.
    #[must_use]
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

//! Where a workload stands, and whose a network namespace is. In: what the thread has found. Out: the
//! same as types.

use std::time::Instant;

use super::{Attached, ExistingConnections, WorkloadConfig, WorkloadOrigin};
use crate::capture::cgroup::{Age, Sandbox};

/// Where one workload stands.
pub(super) enum Phase {
    Waiting {
        why: &'static str,
    },
    /// The agent could not look, or not begin, for want of descriptors or memory.
    Short {
        reason: String,
        since: Instant,
    },
    Refused {
        reason: String,
        since: Instant,
    },
    Captured {
        cookie: u64,
        /// The process whose namespace is captured.
        sandbox: Sandbox,
        attached: Attached,
        checked: Instant,
        predating: ExistingConnections,
    },
}

/// Whose a network namespace is when several workloads have processes in it: the least of them.
/// Nothing here depends on who was seen first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum NetnsClaim {
    /// The operator's own word.
    Flag,
    /// The pod whose sandbox is the oldest.
    Pod(Age),
}

impl NetnsClaim {
    pub(super) fn of(config: &WorkloadConfig, sandbox: &Sandbox) -> Self {
        match config.origin {
            WorkloadOrigin::Flag => Self::Flag,
            WorkloadOrigin::Pod { .. } => Self::Pod(sandbox.age),
        }
    }
}

/// What a workload without a process waits for.
pub(super) const EMPTY: Phase = Phase::Waiting { why: "no process in the cgroup" };
/// What a pod waits for whose processes are the node's still.
pub(super) const AT_HOST: Phase =
    Phase::Waiting { why: "all its processes are in the node's network namespace" };

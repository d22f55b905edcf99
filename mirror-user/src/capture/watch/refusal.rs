//! Why a workload is not captured, in the words of its status.

use std::io;

use mirror_common::MAX_PODS;

use crate::capture::{attach::AttachError, pod::PodError};

/// Why a workload is not captured; tried again.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("reading the cgroup: {0}")]
    Cgroup(#[source] io::Error),
    #[error("opening the network namespace of its processes (needs CAP_SYS_PTRACE): {0}")]
    Netns(#[source] io::Error),
    #[error("the agent itself runs in this cgroup, and would capture its own connections")]
    Own,
    #[error(
        "another agent of mirror runs in this cgroup, and connections would go from one to the other"
    )]
    Agent,
    #[error(
        "it shares its network namespace with {other}, and connections in one network namespace \
         cannot be told apart"
    )]
    Shared { other: String },
    #[error("{MAX_PODS} network namespaces are captured already")]
    Full,
    #[error(transparent)]
    Pod(#[from] PodError),
    #[error(transparent)]
    Attach(#[from] AttachError),
}

//! Why a workload is not captured, in the words of its status.

use std::{error::Error, io};

use mirror_common::MAX_PODS;

use crate::capture::{attach::AttachError, cgroup, pod::PodError};

/// Why a workload is not captured; tried again.
#[derive(Debug, thiserror::Error)]
pub(super) enum CaptureRefusal {
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
         cannot be distinguished"
    )]
    Shared { other: String },
    #[error("{MAX_PODS} network namespaces are captured already")]
    Full,
    #[error(transparent)]
    Pod(#[from] PodError),
    #[error(transparent)]
    Attach(#[from] AttachError),
}

impl CaptureRefusal {
    /// Whether it is for want of descriptors or memory, and says nothing of the workload.
    pub(super) fn is_shortage(&self) -> bool {
        let mut cause: Option<&dyn Error> = Some(self);
        while let Some(error) = cause {
            if error.downcast_ref::<io::Error>().is_some_and(cgroup::is_shortage) {
                return true;
            }
            cause = error.source();
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortage_is_found_below_whatever_it_is_wrapped_in() {
        let short = || io::Error::from_raw_os_error(libc::EMFILE);
        let other = || io::Error::from_raw_os_error(libc::EACCES);
        let address = "127.64.0.0:61440".parse().expect("an address");
        let wraps: [fn(io::Error, std::net::SocketAddr) -> CaptureRefusal; 4] = [
            |error, _| CaptureRefusal::Netns(error),
            |error, _| AttachError::Open(error).into(),
            |source, address| PodError::Listen { address, source }.into(),
            |error, _| {
                let call = "bpf_map_update_elem";
                let source = aya::sys::SyscallError { call, io_error: error };
                PodError::Map(aya::maps::MapError::SyscallError(source)).into()
            },
        ];
        for wrap in wraps {
            let (short, other) = (wrap(short(), address), wrap(other(), address));
            assert!(short.is_shortage() && !other.is_shortage(), "{short}");
        }
        assert!(!CaptureRefusal::Full.is_shortage());
    }
}

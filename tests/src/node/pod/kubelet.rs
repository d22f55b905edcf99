//! Cgroups of pods as kubelet names them. In: a driver, a quality of service and a nesting. Out: the
//! pod's folder and its container's, below the node's own cgroup.

use anyhow::{Context, Result};

/// How kubelet names a pod's cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    /// The systemd driver, and a burstable pod.
    Systemd,
    /// The systemd driver inside a container (kind), and a pod of best effort.
    Kind,
    /// The cgroupfs driver, and a guaranteed pod.
    Cgroupfs,
}

/// What kubelet calls one pod.
#[derive(Clone, Debug)]
pub struct Kubelet {
    /// `metadata.uid`.
    pub uid: String,
    naming: Naming,
}

impl Kubelet {
    /// For a pod that never was.
    ///
    /// # Errors
    /// /proc is not mounted.
    pub fn new(naming: Naming) -> Result<Self> {
        const RANDOM: &str = "/proc/sys/kernel/random/uuid";
        let uid = std::fs::read_to_string(RANDOM).context(RANDOM)?.trim().to_owned();
        Ok(Self { uid, naming })
    }

    /// For a pod of this uid, or of this hash if it is static.
    #[must_use]
    pub fn known(naming: Naming, uid: &str) -> Self {
        Self { uid: uid.to_owned(), naming }
    }

    /// The cgroup of its container.
    pub(super) fn container(&self) -> String {
        let (uid, dashless) = (&self.uid, self.uid.replace('-', "_"));
        match self.naming {
            Naming::Systemd => format!(
                "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{dashless}.slice/\
                 cri-containerd-1.scope"
            ),
            Naming::Kind => format!(
                "docker-1.scope/kubelet.slice/kubelet-kubepods.slice/\
                 kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-pod{dashless}.slice/\
                 cri-containerd-1.scope"
            ),
            Naming::Cgroupfs => format!("kubepods/pod{uid}/1"),
        }
    }
}

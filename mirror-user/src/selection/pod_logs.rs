//! The log folders that kubelet makes for its pods: `NAMESPACE_NAME_UID` below /var/log/pods, where
//! the uid of a static pod is its hash (`BuildPodLogsDirectory()` in
//! pkg/kubelet/kuberuntime/helpers.go; `podLogsDir` in kubelet's configuration). In: a Pod's name
//! and a hash. Out: whether this node's kubelet runs that static pod under that name. It looks at
//! names alone, and never into a log.
//!
//! Only the node's root makes folders there. Names of Namespaces and Pods have no `_`, so that a
//! folder's name is read in one way.

use crate::model::ObjectName;
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Where kubelet keeps the pods' logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodLogs(PathBuf);

/// Why nothing on this node shows that a pod is static.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoEvidence {
    /// The folder of all pods' logs cannot be seen.
    #[error(
        "the agent does not see kubelet's log folders, which alone show that a static pod is \
         this node's: {}: {error} (mount the node's {} read-only where the agent runs, or say \
         with --pod-logs where it is)", .folder.display(), PodLogs::DEFAULT
    )]
    Folder {
        /// Where they should be.
        folder: PathBuf,
        /// What the kernel said.
        error: String,
    },
    /// There is none for this pod.
    #[error(
        "kubelet has no log folder {name} in {}: nothing on this node shows that the static pod is \
         its own", .folder.display()
    )]
    Pod {
        /// Where it should be.
        folder: PathBuf,
        /// Its name.
        name: String,
    },
}

impl PodLogs {
    /// Where kubelet has them unless its configuration says otherwise.
    pub const DEFAULT: &str = "/var/log/pods";

    /// Those in `folder`, which need not exist.
    #[must_use]
    pub fn new(folder: PathBuf) -> Self {
        Self(folder)
    }

    /// Whether kubelet has a folder of the static pod with this hash, which has been checked to
    /// consist of digits and dashes.
    ///
    /// # Errors
    /// It has none, or the agent cannot see it.
    pub(super) fn shows(&self, pod: &ObjectName, hash: &str) -> Result<(), NoEvidence> {
        let name = format!("{}_{}_{hash}", pod.namespace, pod.name);
        // What the API server gives has neither; a document in a file may.
        let plain = !pod.namespace.contains(['_', '/']) && !pod.name.contains(['_', '/']);
        if plain && is_folder(&self.0.join(&name)) {
            return Ok(());
        }
        let folder = self.0.clone();
        match fs::read_dir(&self.0).map(drop) {
            Ok(()) => Err(NoEvidence::Pod { folder, name }),
            Err(error) => Err(NoEvidence::Folder { folder, error: said(&error) }),
        }
    }
}

/// A folder itself: a link could lead to another pod's.
fn is_folder(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_dir())
}

/// Without its number, which is of no use to whoever mounts folders.
fn said(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such folder".into(),
        io::ErrorKind::NotADirectory => "it is not a folder".into(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "2f8dd6d7ab6a2b2f24f6c9a9d3f6b3d1";

    fn name(namespace: &str, name: &str) -> ObjectName {
        ObjectName { namespace: namespace.into(), name: name.into() }
    }

    #[test]
    fn a_folder_of_that_namespace_name_and_hash_is_evidence_and_nothing_else_is() {
        let folder = tempfile::tempdir().unwrap();
        let logs = PodLogs::new(folder.path().to_owned());
        let own = name("kube-system", "etcd-n1");
        let made = format!("kube-system_etcd-n1_{HASH}");
        let none = logs.shows(&own, HASH).unwrap_err();
        assert_eq!(none, NoEvidence::Pod { folder: folder.path().into(), name: made.clone() });
        fs::write(folder.path().join(&made), "").unwrap();
        assert!(logs.shows(&own, HASH).is_err(), "a file");
        fs::remove_file(folder.path().join(&made)).unwrap();
        let other = folder.path().join(format!("a_b_{HASH}"));
        fs::create_dir(&other).unwrap();
        std::os::unix::fs::symlink(&other, folder.path().join(&made)).unwrap();
        assert!(logs.shows(&own, HASH).is_err(), "a link");
        fs::remove_file(folder.path().join(&made)).unwrap();
        fs::create_dir(folder.path().join(&made)).unwrap();
        assert_eq!(logs.shows(&own, HASH), Ok(()));
        for (namespace, pod, hash) in [
            ("kube-system", "etcd-n1", HASH.replace('2', "3")),
            ("attacker", "etcd-n1", HASH.into()),
            ("kube-system", "etcd", HASH.into()),
            ("kube-system_etcd-n1", "", HASH.into()),
        ] {
            assert!(logs.shows(&name(namespace, pod), &hash).is_err(), "{namespace} {pod} {hash}");
        }
    }

    #[test]
    fn a_folder_that_is_not_mounted_is_reported_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let logs = PodLogs::new(folder.path().join("pods"));
        let text = logs.shows(&name("a", "b"), HASH).unwrap_err().to_string();
        assert!(text.contains("/pods: there is no such folder (mount the node's /var/log/pods"));
        assert!(text.contains("--pod-logs"), "{text}");
    }
}

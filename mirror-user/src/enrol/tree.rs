//! The cgroup tree of kubelet's pods. In: the uids of pods. Out: the cgroup of each. It looks at
//! names of folders only, by pattern and not by depth: a cluster inside a container has its tree
//! below that container's cgroup.
//!
//! A pod's cgroup is named (kubelet, pkg/kubelet/cm/cgroup_manager_linux.go and
//! pod_container_manager_linux.go)
//!
//! - by the systemd driver `[ROOT-]kubepods[-QOS]-podUID.slice`, dashes of the uid as underscores;
//! - by the cgroupfs driver `podUID`, below `kubepods` or `kubepods/QOS`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::capture::populated;

/// Between two walks over the whole tree, while a pod is not found where others are.
const WALK: Duration = Duration::from_secs(5);
/// The same while no pod's cgroup is known at all: kubelet may be starting.
const FIRST_WALK: Duration = Duration::from_secs(1);
/// How deep a walk goes: three levels of kubelet's own, below however many.
const MAX_DEPTH: usize = 16;
/// Shorter than a uid, or the hash of a static pod's configuration (both are of 128 bits).
const SHORTEST: usize = 16;

/// The tree, and where in it pods were seen.
#[derive(Debug)]
pub struct Tree {
    root: PathBuf,
    /// Topmost folders of kubelet's: all that is looked through at most times.
    parents: BTreeSet<PathBuf>,
    walked: Option<Instant>,
}

impl Tree {
    /// The tree below `root`, where cgroup v2 is mounted.
    #[must_use]
    pub fn new(root: PathBuf) -> Self {
        Self { root, parents: BTreeSet::new(), walked: None }
    }

    /// The cgroups of those of `uids` that have one. Where kubelet's folders are not known, or one
    /// is missing, the whole tree is walked once in a while.
    pub fn find(&mut self, uids: &BTreeSet<Box<str>>, now: Instant) -> BTreeMap<Box<str>, PathBuf> {
        let mut search = Search { uids, found: BTreeMap::new(), parents: BTreeSet::new() };
        self.parents.retain(|parent| parent.is_dir());
        for parent in &self.parents {
            search.walk(parent, Some(parent), MAX_DEPTH);
        }
        let pause = if self.parents.is_empty() { FIRST_WALK } else { WALK };
        let due = self.walked.is_none_or(|at| now.duration_since(at) >= pause);
        if search.found.len() < uids.len() && due {
            self.walked = Some(now);
            search.walk(&self.root, None, MAX_DEPTH);
            self.parents.append(&mut search.parents);
        }
        search.found
    }
}

struct Search<'a> {
    uids: &'a BTreeSet<Box<str>>,
    found: BTreeMap<Box<str>, PathBuf>,
    parents: BTreeSet<PathBuf>,
}

impl Search<'_> {
    /// Looks through a folder. `parent`: the topmost folder of kubelet's that it is in.
    fn walk(&mut self, folder: &Path, parent: Option<&Path>, depth: usize) {
        let Some(depth) = depth.checked_sub(1) else { return };
        // A folder that vanishes meanwhile has nothing to show.
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            let (name, path) = (entry.file_name(), entry.path());
            let Some(name) = name.to_str() else { continue };
            if let Some(uid) = uid(name) {
                // What is inside is the pod's own, be it another cluster.
                self.parents.insert(parent.unwrap_or(folder).to_owned());
                self.take(&uid, path);
            } else if parent.is_none() && is_kubelets(name) {
                self.parents.insert(path.clone());
                self.walk(&path, Some(&path), depth);
            } else {
                self.walk(&path, parent, depth);
            }
        }
    }

    /// One that has processes wins over what a change of driver has left.
    fn take(&mut self, uid: &str, path: PathBuf) {
        let Some(uid) = self.uids.get(uid) else { return };
        let better = self.found.get(uid).is_none_or(|known| {
            !populated(known).is_ok_and(|lives| lives) && populated(&path).is_ok_and(|lives| lives)
        });
        if better {
            self.found.insert(uid.clone(), path);
        }
    }
}

/// The uid in the name of a pod's cgroup.
fn uid(name: &str) -> Option<String> {
    let uid = match name.strip_suffix(".slice") {
        Some(slice) => slice.rsplit_once("-pod")?.1.replace('_', "-"),
        None => name.strip_prefix("pod")?.to_owned(),
    };
    let is_uid = uid.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    (is_uid && uid.len() >= SHORTEST).then_some(uid)
}

/// Whether the folder is the topmost of kubelet's: `kubepods`, with the names of the folders above
/// where systemd is the driver.
fn is_kubelets(name: &str) -> bool {
    match name.strip_suffix(".slice") {
        Some(slice) => slice == "kubepods" || slice.ends_with("-kubepods"),
        None => name == "kubepods",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "0a95e3f0-55a6-4c0c-8f06-8a4ee1b1d1c5";
    const SLICE: &str = "pod0a95e3f0_55a6_4c0c_8f06_8a4ee1b1d1c5.slice";
    const HASH: &str = "2f8dd6d7ab6a2b2f24f6c9a9d3f6b3d1";

    /// A tree of folders, and other folders as a node has them.
    fn tree(folders: &[&str]) -> (tempfile::TempDir, Tree) {
        let root = tempfile::tempdir().unwrap();
        let others = ["init.scope", "system.slice/containerd.service", "user.slice/podman-0.slice"];
        for folder in others.iter().chain(folders) {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        let tree = Tree::new(root.path().to_owned());
        (root, tree)
    }

    fn uids(uids: &[&str]) -> BTreeSet<Box<str>> {
        uids.iter().map(|uid| (*uid).into()).collect()
    }

    /// Where a pod is found among these folders.
    fn found(folders: &[&str], uid: &str) -> Option<String> {
        let (root, mut tree) = tree(folders);
        let mut found = tree.find(&uids(&[uid]), Instant::now());
        let path = found.remove(uid)?;
        Some(path.strip_prefix(root.path()).unwrap().display().to_string())
    }

    #[test]
    fn every_driver_quality_of_service_and_nesting() {
        let systemd = [
            format!("kubepods.slice/kubepods-{SLICE}"),
            format!("kubepods.slice/kubepods-burstable.slice/kubepods-burstable-{SLICE}"),
            format!("kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-{SLICE}"),
            // As in kind, seen from inside its node and from the machine.
            format!(
                "kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/\
                 kubelet-kubepods-burstable-{SLICE}"
            ),
            format!(
                "system.slice/docker-77aa.scope/kubelet.slice/kubelet-kubepods.slice/\
                 kubelet-kubepods-{SLICE}"
            ),
        ];
        let cgroupfs = [
            format!("kubepods/pod{UID}"),
            format!("kubepods/burstable/pod{UID}"),
            format!("kubepods/besteffort/pod{UID}"),
            format!("kubelet/kubepods/besteffort/pod{UID}"),
            format!("docker/77aa/kubelet/kubepods/burstable/pod{UID}"),
            // Under a name that nobody foresaw.
            format!("machines/pods/pod{UID}"),
        ];
        for folder in systemd.iter().chain(&cgroupfs) {
            assert_eq!(found(&[folder], UID).as_ref(), Some(folder));
            // Its containers are no pods, nor are those of a cluster inside it.
            let inner = format!("{folder}/cri-containerd-12.scope/kubepods/pod{HASH}");
            assert_eq!(found(&[&inner], HASH), None);
        }
    }

    #[test]
    fn a_static_pod_is_found_by_its_hash() {
        for folder in [
            format!("kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{HASH}.slice"),
            format!("kubepods/burstable/pod{HASH}"),
        ] {
            assert_eq!(found(&[&folder], HASH), Some(folder));
        }
    }

    #[test]
    fn another_pods_cgroup_is_not_taken() {
        let other = UID.replace('0', "1");
        let folders = [&*format!("kubepods/pod{other}"), &*format!("kubepods/pod{UID}-x")];
        assert_eq!(found(&folders, UID), None);
        for name in ["pod", "podman.slice", "machine-libpod_pod_77.slice", "x-pod.slice", "pod12"] {
            assert_eq!(uid(name), None, "{name}");
        }
    }

    #[test]
    fn once_kubelets_folders_are_known_nothing_else_is_looked_through() {
        let first = format!("kubepods/pod{UID}");
        let (root, mut tree) = tree(&[&first]);
        let start = Instant::now();
        assert_eq!(tree.find(&uids(&[UID]), start).len(), 1);
        let elsewhere = root.path().join(format!("elsewhere/pod{HASH}"));
        fs::create_dir_all(&elsewhere).unwrap();
        let both = uids(&[UID, HASH]);
        assert_eq!(tree.find(&both, start + WALK / 2).len(), 1);
        assert_eq!(tree.find(&both, start + WALK).len(), 2);
        // And now that place is known as well.
        fs::remove_dir(&elsewhere).unwrap();
        assert_eq!(tree.find(&both, start + WALK).len(), 1);
        fs::create_dir_all(&elsewhere).unwrap();
        assert_eq!(tree.find(&both, start + WALK).len(), 2);
    }

    #[test]
    fn a_new_quality_of_service_below_a_known_folder_is_seen_at_once() {
        let (root, mut tree) = tree(&["kubepods.slice"]);
        let start = Instant::now();
        assert!(tree.find(&uids(&[UID]), start).is_empty());
        let folder = format!("kubepods.slice/kubepods-burstable.slice/kubepods-burstable-{SLICE}");
        fs::create_dir_all(root.path().join(folder)).unwrap();
        assert_eq!(tree.find(&uids(&[UID]), start).len(), 1);
    }
}

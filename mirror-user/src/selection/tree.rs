//! The cgroup tree of kubelet's pods. In: the uids of pods. Out: the cgroup of each. It looks at
//! names of folders only, and takes a pod's cgroup from nowhere but where kubelet makes it: a
//! container that may write its own cgroup can make folders of any name there.
//!
//! Kubelet makes (pkg/kubelet/cm/cgroup_manager_linux.go and pod_container_manager_linux.go)
//!
//! - with the systemd driver `[ROOT-]kubepods.slice/[ROOT-kubepods-QOS.slice/]PARENT-podUID.slice`,
//!   dashes of the uid as underscores;
//! - with the cgroupfs driver `kubepods/[QOS/]podUID`.
//!
//! The topmost of these may be anywhere in the tree: a cluster inside a container has it below that
//! container's cgroup. An agent in a pod believes the one that it is in itself. Another believes
//! those nearest to the root in which processes are, which is where the node's root makes them.

mod names;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::capture::{is_gone, is_shortage, populated};
use names::Level;

/// Between two walks over the whole tree, while a pod is not found where others are.
const WALK: Duration = Duration::from_secs(5);
/// The same while no pod's cgroup is known at all: kubelet may be starting.
const FIRST_WALK: Duration = Duration::from_secs(1);
/// How deep a walk goes.
const MAX_DEPTH: usize = 16;
/// How many folders a walk sees at most; it leaves out those of pods, which may hold any number.
const MAX_FOLDERS: usize = 16_384;

/// The tree, and where in it kubelet's folders are.
#[derive(Debug)]
pub struct Tree {
    root: PathBuf,
    /// The one that the agent is in, which alone counts then.
    own: Option<PathBuf>,
    /// Those that a walk has found.
    found: BTreeSet<PathBuf>,
    /// Those that are believed.
    trusted: Vec<PathBuf>,
    walked: Option<Instant>,
}

impl Tree {
    /// The tree below `root`, where cgroup v2 is mounted. `agent`: the cgroup of the agent itself in
    /// that tree, if it is known.
    #[must_use]
    pub fn new(root: PathBuf, agent: Option<&Path>) -> Self {
        let own = agent.and_then(|agent| names::kubelets_above(&root, agent));
        let trusted = own.iter().cloned().collect();
        Self { root, own, found: BTreeSet::new(), trusted, walked: None }
    }

    /// The cgroups of those of `uids` that have one. Where kubelet's folders are not known, or a pod
    /// is missing, the whole tree is walked once in a while.
    pub fn find(&mut self, uids: &BTreeSet<Box<str>>, now: Instant) -> BTreeMap<Box<str>, PathBuf> {
        self.trust();
        let found = self.search(uids);
        let pause = if self.trusted.is_empty() { FIRST_WALK } else { WALK };
        let due = self.walked.is_none_or(|at| now.duration_since(at) >= pause);
        if self.own.is_some() || found.len() == uids.len() || !due {
            return found;
        }
        self.walked = Some(now);
        self.found.extend(walk(&self.root));
        self.trust();
        self.search(uids)
    }

    /// Whether the cgroup is there still, and where pods' are believed to be.
    pub(super) fn has(&self, cgroup: &Path) -> bool {
        !is_gone(cgroup) && self.trusted.iter().any(|kubelets| cgroup.starts_with(kubelets))
    }

    /// Those without a process are what a change of driver has left, unless there is no other. When
    /// the agent cannot look for want of descriptors, what it believed stands.
    fn trust(&mut self) {
        if self.own.is_some() {
            return;
        }
        self.found.retain(|folder| !is_gone(folder));
        let mut ranked = Vec::with_capacity(self.found.len());
        for folder in &self.found {
            let lives = match populated(folder) {
                Err(error) if is_shortage(&error) => return,
                lives => lives.is_ok_and(|lives| lives),
            };
            ranked.push(((!lives, folder.components().count()), folder));
        }
        let best = ranked.iter().map(|(rank, _)| *rank).min();
        let best = ranked.into_iter().filter(|(rank, _)| Some(*rank) == best);
        self.trusted = best.map(|(_, folder)| folder.clone()).collect();
    }

    fn search(&self, uids: &BTreeSet<Box<str>>) -> BTreeMap<Box<str>, PathBuf> {
        let mut search = TreeSearch { uids, found: BTreeMap::new() };
        for kubelets in &self.trusted {
            search.look_through(kubelets, true);
        }
        search.found
    }
}

struct TreeSearch<'a> {
    uids: &'a BTreeSet<Box<str>>,
    found: BTreeMap<Box<str>, PathBuf>,
}

impl TreeSearch<'_> {
    /// Looks through a folder of kubelet's. `top`: classes of quality of service are in it.
    fn look_through(&mut self, folder: &Path, top: bool) {
        for (name, path) in folders(folder) {
            match names::level(folder, &name) {
                Some(Level::Class) if top => self.look_through(&path, false),
                Some(Level::Pod(uid)) => self.take(&uid, path),
                Some(Level::Class) | None => {}
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

/// Finds kubelet's topmost folders, those nearest to the root first, and looks into none that may be
/// a pod's: what is inside is its own to make.
fn walk(root: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut waiting = VecDeque::from([(root.to_owned(), 0)]);
    let mut seen = 0;
    while let Some((folder, depth)) = waiting.pop_front() {
        for (name, path) in folders(&folder).take(MAX_FOLDERS - seen) {
            seen += 1;
            if names::is_kubelets(&name) {
                found.insert(path);
            } else if depth + 1 < MAX_DEPTH && !names::may_be_a_pods(&name) {
                waiting.push_back((path, depth + 1));
            }
        }
    }
    found
}

/// The folders in a folder. One that vanishes meanwhile has nothing to show.
fn folders(folder: &Path) -> impl Iterator<Item = (String, PathBuf)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let name = entry.file_name().into_string().ok()?;
        is_folder.then(|| (name, entry.path()))
    })
}

#[cfg(test)]
mod tests;

//! Names of kubelet's cgroups. In: names of folders. Out: what each is. Pure.

use std::path::{Path, PathBuf};

/// Shorter than a uid, or the hash of a static pod's configuration (both are of 128 bits).
const SHORTEST: usize = 16;
/// Classes of quality of service that have a folder; guaranteed pods are beside them.
const CLASSES: [&str; 2] = ["burstable", "besteffort"];

/// What a folder inside one of kubelet's is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Level {
    /// That of a class of quality of service.
    Class,
    /// That of the pod with this uid, or of the static pod with this hash.
    Pod(String),
}

/// What the folder `name` in `parent`, which is kubelet's, is by its name; None: nothing of
/// kubelet's. With systemd a slice has its parent's name, a dash and its own.
pub(super) fn level(parent: &Path, name: &str) -> Option<Level> {
    let parent = parent.file_name()?.to_str()?;
    let own = match parent.strip_suffix(".slice") {
        Some(parent) => name.strip_suffix(".slice")?.strip_prefix(parent)?.strip_prefix('-')?,
        None => name,
    };
    if CLASSES.contains(&own) {
        return Some(Level::Class);
    }
    let uid = own.strip_prefix("pod")?;
    let uid = if parent.ends_with(".slice") { uid.replace('_', "-") } else { uid.to_owned() };
    is_uid(&uid).then_some(Level::Pod(uid))
}

/// Whether the folder is the topmost of kubelet's: `kubepods`, with the names of the folders above
/// where systemd is the driver.
pub(super) fn is_kubelets(name: &str) -> bool {
    match name.strip_suffix(".slice") {
        Some(slice) => slice == "kubepods" || slice.ends_with("-kubepods"),
        None => name == "kubepods",
    }
}

/// Whether the name is like that of a pod's cgroup, wherever that is.
pub(super) fn may_be_a_pods(name: &str) -> bool {
    let uid = match name.strip_suffix(".slice") {
        Some(slice) => slice.rsplit_once("-pod").map(|(_, uid)| uid.replace('_', "-")),
        None => name.strip_prefix("pod").map(str::to_owned),
    };
    uid.is_some_and(|uid| is_uid(&uid))
}

/// The topmost of kubelet's folders that a pod's process with this cgroup is in.
pub(super) fn kubelets_above(root: &Path, cgroup: &Path) -> Option<PathBuf> {
    let below = cgroup.strip_prefix(root).ok()?;
    let mut folder = root.to_owned();
    let mut names = below.iter().map(|name| name.to_str());
    let kubelets = loop {
        let name = names.next()??;
        folder.push(name);
        if is_kubelets(name) {
            break folder.clone();
        }
    };
    loop {
        let name = names.next()??;
        match level(&folder, name)? {
            Level::Pod(_) => return Some(kubelets),
            Level::Class => folder.push(name),
        }
    }
}

fn is_uid(text: &str) -> bool {
    text.len() >= SHORTEST && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}

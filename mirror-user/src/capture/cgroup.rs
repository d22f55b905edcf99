//! Reads cgroups (v2): whether anybody lives in one, and in which network namespace.

use std::{
    collections::HashSet,
    fs::{self, File},
    io,
    os::{fd::OwnedFd, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use crate::sockets::fd_path;

/// How deep below the workload's cgroup processes are looked for.
const MAX_DEPTH: usize = 8;

/// Whether a process lives in the cgroup or below: `populated` of cgroup.events. A cgroup that
/// does not exist has none.
pub(crate) fn populated(cgroup: &Path) -> io::Result<bool> {
    match fs::read_to_string(cgroup.join("cgroup.events")) {
        Ok(events) => Ok(is_populated(&events)),
        // ENODEV: removed between open and read.
        Err(error)
            if error.kind() == io::ErrorKind::NotFound
                || error.raw_os_error() == Some(libc::ENODEV) =>
        {
            missing_events(cgroup)
        }
        Err(error) => Err(error),
    }
}

/// What the absence of cgroup.events means; waiting would be in vain where the folder exists.
fn missing_events(cgroup: &Path) -> io::Result<bool> {
    if cgroup.join("cgroup.controllers").exists() {
        // Only the root lacks the one and has the other.
        let text = "the root cgroup holds every process, the agent itself as well";
        Err(io::Error::other(text))
    } else if cgroup.exists() {
        Err(io::Error::other(format!("{} is no cgroup (v2)", cgroup.display())))
    } else {
        Ok(false)
    }
}

fn is_populated(events: &str) -> bool {
    events.lines().any(|line| line == "populated 1")
}

/// The network namespace of the processes of a cgroup.
pub(crate) enum Home {
    /// No process is left.
    Nobody,
    /// An open `/proc/PID/ns/net` with its inode.
    Own(OwnedFd, u64),
    /// The same, of the node or the agent: all processes are there. One may be about to enter
    /// another.
    Host(OwnedFd, u64),
}

/// Where the processes of the cgroup and below live. One in a namespace of its own decides; `hosts`
/// are the inodes of the others.
pub(crate) fn netns(cgroup: &Path, hosts: &[u64]) -> io::Result<Home> {
    let mut members = Vec::new();
    processes(cgroup, MAX_DEPTH, &mut members);
    let mut home = Ok(Home::Nobody);
    if members.iter().any(|(pid, _)| *pid == 0) {
        home = Err(io::Error::other(
            "its processes are in another PID namespace: run the agent in the node's (hostPID)",
        ));
    }
    for (pid, list) in members.into_iter().filter(|(pid, _)| *pid > 0) {
        match netns_of(pid, &list) {
            Ok(Some((file, inode))) if hosts.contains(&inode) => home = Ok(Home::Host(file, inode)),
            Ok(Some((file, inode))) => return Ok(Home::Own(file, inode)),
            Ok(None) => {}
            Err(error) if matches!(home, Ok(Home::Nobody)) => home = Err(error),
            Err(_) => {}
        }
    }
    home
}

/// The network namespace of a process that its cgroup's list names; None when it has ended. The
/// number may have gone to another process since the list was read: `/proc/PID`, once open, is of
/// one process only, so that if the list names the number still, and that process lives still, it
/// is the one.
fn netns_of(pid: u32, list: &Path) -> io::Result<Option<(OwnedFd, u64)>> {
    let opened = File::open(format!("/proc/{pid}")).and_then(|process| {
        let process = OwnedFd::from(process);
        let folder = fd_path(&process);
        let namespace = File::open(folder.join("ns/net"))?;
        let belongs = pids(list).contains(&pid) && fs::metadata(folder.join("ns/net")).is_ok();
        Ok(if belongs { Some((namespace.metadata()?.ino(), namespace)) } else { None })
    });
    match opened {
        Ok(found) => Ok(found.map(|(inode, namespace)| (namespace.into(), inode))),
        // It ended meanwhile, or is a zombie.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The inodes of the agent's own network namespace and, as far as it can be seen, the node's.
pub(crate) fn host_netns() -> Vec<u64> {
    let inode = |path| fs::metadata(path).map(|namespace| namespace.ino()).ok();
    ["/proc/thread-self/ns/net", "/proc/1/ns/net"].into_iter().filter_map(inode).collect()
}

/// Agents that live in a cgroup or below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Agents {
    /// None does.
    None,
    /// This very process: it must not capture itself.
    This,
    /// Another: two that captured each other would pass a connection round in circles.
    Other,
}

/// Which agents live in the cgroup or below.
pub(crate) fn agents(cgroup: &Path) -> Agents {
    let mut members = Vec::new();
    processes(cgroup, MAX_DEPTH, &mut members);
    if members.iter().any(|(pid, _)| *pid == std::process::id()) {
        Agents::This
    } else if members.iter().any(|(pid, _)| is_agent(*pid)) {
        Agents::Other
    } else {
        Agents::None
    }
}

/// Whether the process was started as `mirror agent`.
fn is_agent(pid: u32) -> bool {
    // It may have ended.
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let mut arguments = line.split(|byte| *byte == 0);
    let program = arguments.next().and_then(|path| path.rsplit(|byte| *byte == b'/').next());
    program == Some(b"mirror") && arguments.next() == Some(b"agent")
}

/// The ids of the cgroup and those below: the inodes of their folders.
pub(crate) fn ids(cgroup: &Path) -> HashSet<u64> {
    let mut ids = HashSet::new();
    add_ids(cgroup, MAX_DEPTH, &mut ids);
    ids
}

fn add_ids(cgroup: &Path, depth: usize, ids: &mut HashSet<u64>) {
    ids.extend(fs::metadata(cgroup).map(|folder| folder.ino()));
    let Some(depth) = depth.checked_sub(1) else { return };
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            add_ids(&entry.path(), depth, ids);
        }
    }
}

/// The processes of the cgroup and below, each with the list that names it.
fn processes(cgroup: &Path, depth: usize, members: &mut Vec<(u32, PathBuf)>) {
    let list = cgroup.join("cgroup.procs");
    members.extend(pids(&list).into_iter().map(|pid| (pid, list.clone())));
    let Some(depth) = depth.checked_sub(1) else { return };
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            processes(&entry.path(), depth, members);
        }
    }
}

/// A threaded or vanished cgroup has no list; its siblings may have. 0 stands for a process of
/// another PID namespace.
fn pids(list: &Path) -> Vec<u32> {
    let list = fs::read_to_string(list).unwrap_or_default();
    list.lines().filter_map(|line| line.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn populated_is_read_from_the_events() {
        assert!(is_populated("populated 1\nfrozen 0\n"));
        assert!(!is_populated("populated 0\nfrozen 1\n"));
        assert!(!is_populated(""));
    }

    #[test]
    fn a_cgroup_that_is_not_there_is_not_populated() {
        assert!(!populated(Path::new("/nonexistent/cgroup")).unwrap());
    }

    #[test]
    fn a_folder_that_is_no_cgroup_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        assert!(populated(folder.path()).unwrap_err().to_string().contains("no cgroup"));
    }
}

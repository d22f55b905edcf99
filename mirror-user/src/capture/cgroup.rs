//! Reads cgroups (v2): whether anybody lives in one, and in which network namespace.

use std::{
    fs::{self, File},
    io,
    os::{fd::OwnedFd, unix::fs::MetadataExt as _},
    path::Path,
};

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

/// An open `/proc/PID/ns/net` of a process in the cgroup or below, with its inode. A process that
/// still is in the agent's own namespace (`own`, an inode) counts only when all are: it may be
/// about to enter another. None when there is no process left.
pub(crate) fn netns(cgroup: &Path, own: u64) -> io::Result<Option<(OwnedFd, u64)>> {
    let mut pids = Vec::new();
    processes(cgroup, MAX_DEPTH, &mut pids);
    let mut fallback = None;
    let mut failure = None;
    for pid in pids {
        match File::open(format!("/proc/{pid}/ns/net")).and_then(|f| Ok((f.metadata()?.ino(), f))) {
            Ok((inode, file)) if inode != own => return Ok(Some((file.into(), inode))),
            Ok((inode, file)) => fallback = Some((file.into(), inode)),
            // The process ended meanwhile, or is a zombie.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
            Err(error) => failure = Some(error),
        }
    }
    match (fallback, failure) {
        (None, Some(error)) => Err(error),
        (found, _) => Ok(found),
    }
}

/// The inode of the calling thread's network namespace.
pub(crate) fn own_netns() -> io::Result<u64> {
    Ok(fs::metadata("/proc/thread-self/ns/net")?.ino())
}

/// Whether this very process lives in the cgroup or below: it must not capture itself.
pub(crate) fn holds_self(cgroup: &Path) -> bool {
    let mut pids = Vec::new();
    processes(cgroup, MAX_DEPTH, &mut pids);
    pids.contains(&std::process::id())
}

fn processes(cgroup: &Path, depth: usize, pids: &mut Vec<u32>) {
    // A threaded or vanished cgroup has no list; its siblings may have.
    let list = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    pids.extend(list.lines().filter_map(|line| line.parse::<u32>().ok()));
    let Some(depth) = depth.checked_sub(1) else { return };
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            processes(&entry.path(), depth, pids);
        }
    }
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

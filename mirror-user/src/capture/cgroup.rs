//! Reads cgroups (v2): whether anybody lives in one, in which network namespace, and which agents.
//! What is below a pod's cgroup may be the pod's own to make, and its processes as many as it likes:
//! every look here is bounded.

mod members;
mod sandbox;

use std::{
    collections::HashSet,
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    thread,
};

use nix::sched::{CloneFlags, setns};

use members::{Member, all_members, folders, members};
pub(crate) use sandbox::{Age, NetnsOwner, Sandbox, netns_owner};

/// Of a process's arguments: the program and the first.
const ARGUMENTS: u64 = 512;

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
        Err(io::Error::other(format!("{} is not a cgroup (v2)", cgroup.display())))
    } else {
        Ok(false)
    }
}

fn is_populated(events: &str) -> bool {
    events.lines().any(|line| line == "populated 1")
}

/// Whether there is no such folder (any more). That the agent cannot look now is no such sign.
pub(crate) fn is_gone(folder: &Path) -> bool {
    match fs::metadata(folder) {
        Ok(found) => !found.is_dir(),
        Err(error) => !is_shortage(&error),
    }
}

/// Whether the agent or the machine is short of descriptors or memory: that says nothing of what
/// was looked at.
pub(crate) fn is_shortage(error: &io::Error) -> bool {
    const SHORTAGES: [i32; 4] = [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ENOBUFS];
    error.raw_os_error().is_some_and(|code| SHORTAGES.contains(&code))
}

/// The inodes of the agent's own network namespace and, as far as it can be seen, the node's.
pub(crate) fn host_netns() -> Vec<u64> {
    let inode = |path| fs::metadata(path).map(|namespace| namespace.ino()).ok();
    ["/proc/thread-self/ns/net", "/proc/1/ns/net"].into_iter().filter_map(inode).collect()
}

/// The agent's own cgroup in the tree that is mounted at `root`; None if it cannot be determined. A
/// container has a separate cgroup namespace, in which its cgroup is the root: the path is computed
/// from that of process 1, to which the mount of the node's tree belongs.
#[must_use]
pub fn own_cgroup(root: &Path) -> Option<PathBuf> {
    let reader = thread::spawn(|| {
        let namespace = File::open("/proc/1/ns/cgroup")?;
        setns(namespace, CloneFlags::CLONE_NEWCGROUP)?;
        fs::read_to_string("/proc/thread-self/cgroup")
    });
    let table = reader.join().ok()?.ok()?;
    let path = table.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let cgroup = root.join(path);
    let own = std::process::id();
    let lives_there = all_members(&cgroup).any(|member| member.pid == own);
    lives_there.then_some(cgroup)
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

/// Which agents live in the cgroup or below. A pod's may have any number of processes: of those the
/// first of each container are looked at, which an agent's container begins with.
pub(crate) fn agents(cgroup: &Path, is_pod: bool) -> Agents {
    if is_pod { among(members(cgroup).into_iter()) } else { among(all_members(cgroup)) }
}

fn among(members: impl Iterator<Item = Member>) -> Agents {
    let mut agents = Agents::None;
    for Member { pid, .. } in members {
        if pid == std::process::id() {
            return Agents::This;
        }
        if agents == Agents::None && is_agent(pid) {
            agents = Agents::Other;
        }
    }
    agents
}

/// Whether the process was started as `mirror agent`. It may have ended, and its arguments may be
/// megabytes.
fn is_agent(pid: u32) -> bool {
    let mut line = Vec::new();
    let opened = File::open(format!("/proc/{pid}/cmdline"));
    let _ = opened.and_then(|file| file.take(ARGUMENTS).read_to_end(&mut line));
    let mut arguments = line.split(|byte| *byte == 0);
    let program = arguments.next().and_then(|path| path.rsplit(|byte| *byte == b'/').next());
    program == Some(b"mirror") && arguments.next() == Some(b"agent")
}

/// The ids of the cgroup and those below: the inodes of their folders.
pub(crate) fn ids(cgroup: &Path) -> HashSet<u64> {
    let ids = folders(cgroup).filter_map(|folder| fs::metadata(folder).ok());
    ids.map(|folder| folder.ino()).collect()
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
        assert!(is_gone(Path::new("/nonexistent/cgroup")));
    }

    #[test]
    fn a_folder_that_is_no_cgroup_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        assert!(populated(folder.path()).unwrap_err().to_string().contains("is not a cgroup (v2)"));
    }

    #[test]
    fn a_shortage_of_the_agents_own_is_distinguished_from_what_is_wrong_with_a_cgroup() {
        for code in [libc::EMFILE, libc::ENFILE, libc::ENOMEM] {
            assert!(is_shortage(&io::Error::from_raw_os_error(code)), "{code}");
        }
        for error in [io::Error::from_raw_os_error(libc::EACCES), io::Error::other("no cgroup")] {
            assert!(!is_shortage(&error), "{error}");
        }
    }
}

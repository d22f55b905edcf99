//! The process that stands for a workload: the oldest in a separate network namespace, which in a
//! pod is that of the sandbox (`pause`), made before any container. In: a cgroup. Out: that process
//! and its namespace. Where the workload's other processes are decides nothing: a container may
//! have made further namespaces, and one with the right to may have entered another pod's.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    os::{fd::OwnedFd, unix::fs::MetadataExt as _},
    path::Path,
};

use super::members::{Member, members, names};
use crate::sockets::fd_path;

/// More than a /proc/PID/stat has.
const STAT: u64 = 4096;

/// Where a workload lives.
pub(crate) enum NetnsOwner {
    /// No process is left.
    Nobody,
    /// In a separate network namespace.
    Own(Sandbox),
    /// In the node's or the agent's: all processes are there. One may be about to enter another.
    Host(Sandbox),
}

/// A process that stands for a workload, held by its `/proc/PID`, which is of one process only.
#[derive(Debug)]
pub(crate) struct Sandbox {
    process: OwnedFd,
    /// The line of its cgroup.
    cgroup: String,
    /// Inode of its network namespace.
    pub(crate) inode: u64,
    /// How old it is.
    pub(crate) age: Age,
}

/// How old a process is: the smaller, the older.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Age {
    /// In clock ticks since the boot, commonly of 10 ms.
    started: u64,
    /// Of the same tick, the one with the smaller number.
    pid: u32,
}

/// Where the workload of the cgroup lives; `hosts` are the inodes of the node's and the agent's own
/// network namespace.
///
/// # Errors
/// What the kernel says, where nothing is found.
pub(crate) fn netns_owner(cgroup: &Path, hosts: &[u64]) -> io::Result<NetnsOwner> {
    let members = members(cgroup);
    if members.iter().any(|member| member.pid == 0) {
        return Err(io::Error::other(
            "its processes are in another PID namespace: run the agent in the node's (hostPID)",
        ));
    }
    let (mut own, mut host, mut failed) = (None, None, None);
    for member in &members {
        match Sandbox::of(member) {
            Ok(Some(process)) if hosts.contains(&process.inode) => older(&mut host, process),
            Ok(Some(process)) => older(&mut own, process),
            Ok(None) => {}
            // Of the others the oldest could be one that cannot be looked at now.
            Err(error) if super::is_shortage(&error) => return Err(error),
            Err(error) => failed = Some(error),
        }
    }
    match (own, host, failed) {
        (Some(own), ..) => Ok(NetnsOwner::Own(own)),
        (None, Some(host), _) => Ok(NetnsOwner::Host(host)),
        (None, None, Some(error)) => Err(error),
        (None, None, None) => Ok(NetnsOwner::Nobody),
    }
}

fn older(known: &mut Option<Sandbox>, found: Sandbox) {
    if known.as_ref().is_none_or(|known| found.age < known.age) {
        *known = Some(found);
    }
}

impl Sandbox {
    /// The process that a cgroup's list names; None when it has ended. The number may have gone to
    /// another process since the list was read: if the list names the number still, and the process
    /// that was opened lives still, it is the one.
    fn of(member: &Member) -> io::Result<Option<Self>> {
        let opened = File::open(format!("/proc/{}", member.pid)).and_then(|process| {
            let process = OwnedFd::from(process);
            let folder = fd_path(&process);
            let started = started(&folder)?;
            let cgroup = fs::read_to_string(folder.join("cgroup"))?;
            let belongs = names(&member.list, member.pid);
            let inode = fs::metadata(folder.join("ns/net"))?.ino();
            let age = Age { started, pid: member.pid };
            Ok(belongs.then_some(Self { process, cgroup, inode, age }))
        });
        match opened {
            Err(error) if has_ended(&error) => Ok(None),
            opened => opened,
        }
    }

    /// Its network namespace, held open; None when it has ended or entered another meanwhile.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn netns(&self) -> io::Result<Option<OwnedFd>> {
        let opened = File::open(fd_path(&self.process).join("ns/net")).and_then(|namespace| {
            Ok((namespace.metadata()?.ino() == self.inode).then(|| namespace.into()))
        });
        match opened {
            Err(error) if has_ended(&error) => Ok(None),
            opened => opened,
        }
    }

    /// Whether it lives still, in the same cgroup and network namespace.
    ///
    /// # Errors
    /// It cannot be determined now.
    pub(crate) fn stands(&self) -> io::Result<bool> {
        let folder = fd_path(&self.process);
        let same = fs::metadata(folder.join("ns/net")).and_then(|namespace| {
            let cgroup = fs::read_to_string(folder.join("cgroup"))?;
            Ok(namespace.ino() == self.inode && cgroup == self.cgroup)
        });
        match same {
            Err(error) if has_ended(&error) => Ok(false),
            same => same,
        }
    }
}

/// A process that has ended, or is a zombie.
fn has_ended(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

/// `starttime` of /proc/PID/stat: field 22, of which the second, the process's own name, may hold
/// anything.
fn started(process: &Path) -> io::Result<u64> {
    let mut stat = Vec::new();
    File::open(process.join("stat"))?.take(STAT).read_to_end(&mut stat)?;
    parse_started(&stat).ok_or_else(|| io::Error::other("/proc/PID/stat does not say when"))
}

fn parse_started(stat: &[u8]) -> Option<u64> {
    let name = stat.iter().rposition(|byte| *byte == b')')?;
    let fields = std::str::from_utf8(&stat[name + 1..]).ok()?;
    fields.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processs_name_does_not_make_it_older() {
        let stat = b"7 (x) R 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 1 2) S 1 2 3 4 5 6 7 8 \
                     9 10 11 12 13 14 15 16 17 18 4711 20 21\n";
        assert_eq!(parse_started(stat), Some(4711));
        assert_eq!(parse_started(b"7 (x"), None);
        assert_eq!(parse_started(b"7 (x) S 1"), None);
        let own = started(Path::new("/proc/self")).unwrap();
        let first = started(Path::new("/proc/1")).unwrap();
        assert!(first < own, "{first} {own}");
    }
}

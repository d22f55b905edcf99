//! The trial at start: a process in a separate cgroup and network namespace connects, and the
//! hooks must count it. If they see nothing (programs on cgroups may attach and never run), an
//! agent would look well and mirror nothing. In: the programs. Out: nothing, or why nothing can be
//! captured. Nothing of it stays.
//!
//! Its cgroup is below the agent's own, in a private mount of cgroup v2: the node's
//! tree need not be writable to the agent, nor the root of that tree, which is only root's to read.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use nix::sched::{CloneFlags, unshare};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::{
    Counters,
    attach::{AttachError, Attached},
    programs::{Programs, ProgramsError},
};
use crate::{
    sockets::{fd_path, sys::detached_cgroup2},
    stdout,
};

/// What the trial's cgroup is called; the process id of the agent follows.
const PREFIX: &str = "mirror-trial-";
/// The hidden subcommand by which the agent starts the process that connects.
const SUBCOMMAND: &str = "trial-connect";
/// For a process to start, and to connect to where nothing is.
const PATIENCE: Duration = Duration::from_secs(10);
/// A process is counted out of its cgroup a moment after it was waited for.
const REMOVAL: Duration = Duration::from_secs(1);
/// Addresses for documentation (RFC 5737, RFC 3849), of which there is no route in an empty
/// namespace.
const NOWHERE: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
];

/// Why nothing can be captured on this machine, though the programs load.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    /// The agent's own cgroup cannot be found, or not mounted.
    #[error("mounting cgroup v2 for a trial of the hooks: {0} (CAP_SYS_ADMIN?)")]
    Mount(#[source] io::Error),
    /// No cgroup can be made.
    #[error(
        "making the cgroup {} for a trial, below the agent's own: {source} (does \
         cgroup.max.descendants or cgroup.max.depth forbid it?)", path.display()
    )]
    Cgroup {
        /// The cgroup.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The hooks cannot be attached to it.
    #[error("a trial of the hooks: {0}")]
    Attach(String),
    /// The counters cannot be read.
    #[error(transparent)]
    Programs(#[from] ProgramsError),
    /// The process that was to connect did not.
    #[error("a trial of the hooks: the process that was to connect: {0}")]
    Child(String),
    /// The hooks were not called.
    #[error(
        "a trial of the hooks: they saw {seen} of {made} connect() calls in a separate cgroup; \
         the kernel does not call programs of cgroup v2 for this machine's connections. (Before \
         Linux 5.15 a class of net_cls or net_prio, cgroup v1, has this effect.)"
    )]
    Unseen {
        /// Calls that were made.
        made: u64,
        /// Calls that were counted.
        seen: u64,
    },
}

/// Shows that the hooks see the connections of a cgroup. `program` is `mirror` itself, which connects
/// in its subcommand for that. Takes some 20 ms; to be called before anything is captured.
///
/// # Errors
/// [`TrialError`]: nothing should be captured then.
pub fn trial(programs: &mut Programs, program: &Path) -> Result<(), TrialError> {
    let mount = detached_cgroup2().map_err(TrialError::Mount)?;
    let own = own_path(&fs::read_to_string("/proc/self/cgroup").map_err(TrialError::Mount)?)
        .map_err(TrialError::Mount)?;
    trial_below(programs, &fd_path(&mount).join(own), program)
}

/// The path of a process's cgroup below the root of its cgroup namespace, by its line of cgroup v2.
fn own_path(table: &str) -> io::Result<PathBuf> {
    let path = table.lines().find_map(|line| line.strip_prefix("0::/")).map(PathBuf::from);
    path.filter(|path| !path.starts_with("..")).ok_or_else(|| {
        io::Error::other("the agent is in no cgroup (v2) that its cgroup namespace contains")
    })
}

/// The same in a cgroup below `parent` (of cgroup v2).
///
/// # Errors
/// As of [`trial`].
pub fn trial_below(
    programs: &mut Programs,
    parent: &Path,
    program: &Path,
) -> Result<(), TrialError> {
    remove_stale(parent);
    let cgroup = Cgroup::new(parent.join(format!("{PREFIX}{}", std::process::id())))?;
    let attached = Attached::new(programs, &cgroup.0)
        .map_err(|error: AttachError| TrialError::Attach(error.to_string()))?;
    let counters = Counters::new(programs)?;
    let before = sum(&counters)?;
    let made = connect_in(&cgroup.0, program)?;
    let seen = sum(&counters)?.saturating_sub(before);
    drop(attached);
    if seen < made { Err(TrialError::Unseen { made, seen }) } else { Ok(()) }
}

fn sum(counters: &Counters) -> Result<u64, ProgramsError> {
    Ok(counters.read()?.iter().map(|(_, count)| count).sum())
}

/// Starts the process, and returns how often it has called connect(2).
fn connect_in(cgroup: &Path, program: &Path) -> Result<u64, TrialError> {
    let failed = |what: &str| TrialError::Child(what.to_owned());
    // The kernel asks who has opened the list, and not who writes to it.
    let list = OpenOptions::new().write(true).open(cgroup.join("cgroup.procs"));
    let list = list.map_err(|error| failed(&format!("cgroup.procs: {error}")))?;
    let mut child = Command::new(program)
        .arg(SUBCOMMAND)
        .stdin(list)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(&format!("{}: {error}", program.display())))?;
    let begun = Instant::now();
    // It writes a line at most, so that no pipe fills.
    while child.try_wait().map_err(|error| failed(&error.to_string()))?.is_none() {
        if begun.elapsed() > PATIENCE {
            // It may have just ended.
            let _ = child.kill();
            let _ = child.wait();
            return Err(failed(&format!("it did not end within {PATIENCE:?}")));
        }
        sleep(Duration::from_millis(2));
    }
    let output = child.wait_with_output().map_err(|error| failed(&error.to_string()))?;
    let said = String::from_utf8_lossy(&output.stdout);
    match said.trim().parse() {
        Ok(made) if output.status.success() => Ok(made),
        _ => Err(failed(String::from_utf8_lossy(&output.stderr).trim())),
    }
}

/// Joins the cgroup whose cgroup.procs is stdin, enters a separate network namespace, connects to
/// nowhere by each family that the kernel has, and prints how often.
///
/// # Errors
/// What the kernel says to anything but the connecting itself.
pub fn trial_connect() -> io::Result<()> {
    File::from(io::stdin().as_fd().try_clone_to_owned()?).write_all(b"0")?;
    unshare(CloneFlags::CLONE_NEWNET)?;
    let mut made = 0;
    for address in NOWHERE.map(|ip| SocketAddr::new(ip, 9)) {
        let kind = Type::STREAM.nonblocking();
        match Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP)) {
            Ok(socket) => {
                // There is no route: that the hook was asked first is all that counts.
                let _ = socket.connect(&SockAddr::from(address));
                made += 1;
            }
            // A kernel without the family.
            Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => {}
            Err(error) => return Err(error),
        }
    }
    stdout::print(&format!("{made}\n"))
}

/// The trial's cgroup; removed when dropped.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new(path: PathBuf) -> Result<Self, TrialError> {
        match fs::create_dir(&path) {
            Ok(()) => Ok(Self(path)),
            Err(source) => Err(TrialError::Cgroup { path, source }),
        }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let begun = Instant::now();
        while let Err(error) = fs::remove_dir(&self.0) {
            if begun.elapsed() > REMOVAL {
                let path = self.0.display();
                return tracing::warn!(%path, %error, "cannot remove the trial's cgroup");
            }
            sleep(Duration::from_millis(2));
        }
    }
}

/// Removes what killed agents have left, and not what another agent that starts is about to use.
fn remove_stale(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let maker = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        if maker.is_some_and(|maker| !Path::new("/proc").join(maker).exists()) {
            let _ = fs::remove_dir(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agents_own_cgroup_is_known_by_its_line_of_version_2() {
        let hybrid = "12:pids:/a\n1:name=systemd:/b\n0::/system.slice/mirror.service\n";
        assert_eq!(own_path(hybrid).unwrap(), Path::new("system.slice/mirror.service"));
        assert_eq!(own_path("0::/\n").unwrap(), Path::new(""));
        for table in ["", "1:cpu:/a\n", "0::/../other\n"] {
            assert!(own_path(table).is_err(), "{table}");
        }
    }
}

//! Cgroups of the simulated node: directories below the cgroup v2 mount, wherever that is.

use std::{
    fs, io,
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// Where cgroup v2 is mounted: /sys/fs/cgroup, or /sys/fs/cgroup/unified in the hybrid layout.
pub(crate) fn mount() -> Result<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").context("/proc/self/mountinfo")?;
    find(&table).context("no cgroup v2 is mounted: mount -t cgroup2 none /sys/fs/cgroup/unified")
}

/// proc_pid_mountinfo(5): the mount point is field 5, the type follows the separator.
fn find(table: &str) -> Option<PathBuf> {
    table.lines().find_map(|line| {
        let (mount, source) = line.split_once(" - ")?;
        source.starts_with("cgroup2 ").then(|| mount.split(' ').nth(4).map(PathBuf::from))?
    })
}

/// The cgroup (v2) that a process is in.
pub(crate) fn of(pid: i32) -> Result<PathBuf> {
    let file = format!("/proc/{pid}/cgroup");
    let table = fs::read_to_string(&file).with_context(|| format!("process {pid}"))?;
    let path = table.lines().find_map(|line| line.strip_prefix("0::/"));
    Ok(mount()?.join(path.with_context(|| format!("no cgroup v2 in {file}"))?))
}

pub(crate) fn create(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("cannot make the cgroup {}", path.display()))
}

/// Kills every process below `path` and removes it, with its children. One that is not there is
/// removed already.
pub(crate) fn remove(path: &Path) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let pids = pids(path);
        if pids.is_empty() {
            match remove_tree(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    // A zombie keeps its cgroup busy until its parent has waited for it.
                    if Instant::now() > deadline {
                        bail!("cannot remove the cgroup {}: {error}", path.display());
                    }
                }
                _ => return Ok(()),
            }
        }
        for pid in pids {
            // It may have ended meanwhile.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        if Instant::now() > deadline {
            bail!("processes in the cgroup {} survive SIGKILL", path.display());
        }
        sleep(Duration::from_millis(5));
    }
}

/// Sends every process below `path` a signal. Processes that have ended meanwhile are no error.
pub(crate) fn signal(path: &Path, signal: Signal) -> Result<()> {
    for pid in pids(path) {
        match kill(Pid::from_raw(pid), signal) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => return Err(error).with_context(|| format!("{signal} to {pid}")),
        }
    }
    Ok(())
}

/// The processes in `path` and below.
pub(crate) fn pids(path: &Path) -> Vec<i32> {
    let own = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
    // 0 is a process of another PID namespace: not ours, and kill(0) would hit ourselves.
    let own = own.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 0);
    own.chain(children(path).iter().flat_map(|child| pids(child))).collect()
}

fn remove_tree(path: &Path) -> io::Result<()> {
    for child in children(path) {
        remove_tree(&child)?;
    }
    fs::remove_dir(path)
}

fn children(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(path) else { return Vec::new() };
    entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_is_found_in_both_layouts() {
        let hybrid = "37 31 0:34 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
        assert_eq!(find(hybrid), Some("/sys/fs/cgroup/unified".into()));
        let unified = "35 24 0:30 / /sys/fs/cgroup rw shared:9 - cgroup2 cgroup2 rw\n";
        assert_eq!(find(unified), Some("/sys/fs/cgroup".into()));
        assert_eq!(find("23 1 8:1 / / rw - ext4 /dev/root rw\n"), None);
    }
}

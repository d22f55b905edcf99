//! Who lives in a cgroup and below. In: a cgroup. Out: folders and processes, those nearest to it
//! first: a runtime's own folders are directly below a pod's, and before any that a container makes
//! in its own.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io::Read as _,
    path::{Path, PathBuf},
};

/// How deep below the workload's cgroup is looked.
const MAX_DEPTH: usize = 8;
/// How many folders are looked into.
const MAX_FOLDERS: usize = 512;
/// How many processes are looked at, of all folders and of each. The kernel lists those of a cgroup
/// in the order in which they came.
const MAX_MEMBERS: usize = 256;
const MAX_OF_EACH: usize = 8;
/// How long a number is at most, with the line's end (`PID_MAX_LIMIT` in include/linux/threads.h).
const LINE: usize = 8;

/// A process of a cgroup.
#[derive(Debug)]
pub(super) struct Member {
    /// 0 stands for a process of another PID namespace.
    pub(super) pid: u32,
    /// The list that names it.
    pub(super) list: PathBuf,
}

/// The first processes of the cgroup and of each below.
pub(super) fn members(cgroup: &Path) -> Vec<Member> {
    lists(cgroup).flat_map(|list| listed(&list, MAX_OF_EACH)).take(MAX_MEMBERS).collect()
}

/// The first and all others, without a bound: for cgroups whose owner does not attack the agent.
pub(super) fn all_members(cgroup: &Path) -> impl Iterator<Item = Member> {
    lists(cgroup).flat_map(|list| listed(&list, usize::MAX / LINE))
}

fn lists(cgroup: &Path) -> impl Iterator<Item = PathBuf> {
    folders(cgroup).map(|folder| folder.join("cgroup.procs"))
}

fn listed(list: &Path, most: usize) -> Vec<Member> {
    pids(list, most).into_iter().map(|pid| Member { pid, list: list.to_owned() }).collect()
}

/// Whether a process is among the first of a list.
pub(super) fn names(list: &Path, pid: u32) -> bool {
    pids(list, MAX_OF_EACH).contains(&pid)
}

/// The first processes of a list. A threaded or vanished cgroup has none; its siblings may have.
fn pids(list: &Path, most: usize) -> Vec<u32> {
    let mut part = String::new();
    let room = (most * LINE) as u64;
    let read = File::open(list).and_then(|file| file.take(room).read_to_string(&mut part));
    if read.is_err() {
        return Vec::new();
    }
    // What follows the last line's end was cut.
    let whole = part.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().filter_map(|line| line.parse().ok()).take(most).collect()
}

/// The cgroup and those below.
pub(super) fn folders(cgroup: &Path) -> impl Iterator<Item = PathBuf> {
    let mut waiting = VecDeque::from([(cgroup.to_owned(), 0)]);
    let mut left = MAX_FOLDERS - 1;
    std::iter::from_fn(move || {
        let (folder, depth) = waiting.pop_front()?;
        if depth < MAX_DEPTH {
            let below = fs::read_dir(&folder).into_iter().flatten().flatten();
            let below = below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            for entry in below.take(left) {
                left -= 1;
                waiting.push_back((entry.path(), depth + 1));
            }
        }
        Some(folder)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(folder: &Path, pids: std::ops::Range<u32>) {
        let lines: String = pids.map(|pid| format!("{pid}\n")).collect();
        fs::create_dir_all(folder).unwrap();
        fs::write(folder.join("cgroup.procs"), lines).unwrap();
    }

    #[test]
    fn a_runtimes_folders_come_before_what_a_container_makes_in_its_own() {
        let pod = tempfile::tempdir().unwrap();
        list(pod.path(), 0..0);
        for number in 0..2000 {
            let inner = pod.path().join(format!("a-container/{number}"));
            list(&inner, 1_000_000..1_000_100);
        }
        list(&pod.path().join("a-container"), 10..5000);
        list(&pod.path().join("z-sandbox"), 7..8);
        let members = members(pod.path());
        assert_eq!(members.len(), MAX_MEMBERS);
        let sandbox = members.iter().position(|member| member.pid == 7).expect("it is seen");
        assert!(sandbox <= MAX_OF_EACH, "{sandbox}");
        assert_eq!(folders(pod.path()).count(), MAX_FOLDERS);
    }

    #[test]
    fn a_list_is_read_in_part_and_no_number_is_cut() {
        let pod = tempfile::tempdir().unwrap();
        list(pod.path(), 1_234_560..1_299_999);
        let path = pod.path().join("cgroup.procs");
        assert_eq!(pids(&path, 16), (1_234_560..1_234_576).collect::<Vec<_>>());
        assert_eq!(all_members(pod.path()).count(), 65_439);
        assert!(pids(Path::new("/nonexistent/cgroup.procs"), 16).is_empty());
    }
}

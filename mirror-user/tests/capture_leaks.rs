//! Captures that come and go leave nothing behind: no descriptor, no namespace, no link, no map
//! entry, no route. A test binary of its own, since it counts the process's descriptors.

#[path = "capture/fixture.rs"]
mod fixture;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use aya::programs::loaded_links;
use fixture::{Agent, Sleeper, config, eventually};
use mirror_user::capture::WorkloadState;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

const PODS: usize = 100;
const ROUNDS: usize = 10;

/// The process's descriptors by what they are (sockets and pipes without their number).
fn descriptors() -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    for entry in fs::read_dir("/proc/self/fd").expect("/proc is mounted").flatten() {
        let target = fs::read_link(entry.path()).map(|t| t.display().to_string());
        let target = target.unwrap_or_default();
        let kind = target.split('[').next().unwrap_or_default().to_owned();
        *kinds.entry(kind).or_default() += 1;
    }
    kinds
}

/// The links that this process holds (proc_pid_fdinfo(5)); other processes have links as well.
fn links() -> BTreeSet<u32> {
    let files = fs::read_dir("/proc/self/fdinfo").expect("/proc is mounted").flatten();
    let infos = files.filter_map(|file| fs::read_to_string(file.path()).ok());
    let id = |info: String| {
        info.lines().find_map(|line| line.strip_prefix("link_id:")?.trim().parse().ok())
    };
    infos.filter_map(id).collect()
}

/// The agent's IPv6 routes in a pod.
fn routes(pod: &Sleeper) -> usize {
    pod.shell("ip -6 route show table local proto 109").lines().count()
}

fn a_hundred_captures_ten_times_leave_nothing() {
    let pods: Vec<Sleeper> = (0..PODS).map(|_| Sleeper::new()).collect();
    let configs =
        || pods.iter().enumerate().map(|(i, pod)| config(&format!("default/pod-{i}"), &pod.cgroup));
    // The first agent opens what stays open for the life of a process (aya's probes).
    drop(Agent::new(Vec::new()));
    let before = descriptors();
    for round in 0..ROUNDS {
        let agent = Agent::new(configs().collect());
        agent.wait_for(WorkloadState::On);
        let served = agent.served.lock().expect("no panic").len();
        // One for each family.
        assert_eq!(served, 2 * PODS * fixture::WORKERS as usize);
        assert_eq!(routes(&pods[0]), 1);
        let links = links();
        assert_eq!(links.len(), 7 * PODS, "round {round}");
        drop(agent);
        // The kernel frees links after a grace period.
        eventually("no link left", || {
            let left = loaded_links().filter_map(Result::ok);
            match left.filter(|link| links.contains(&link.id())).count() {
                0 => Ok(()),
                left => Err(format!("{left} links")),
            }
        });
        assert_eq!(descriptors(), before, "round {round}");
        assert_eq!(pods.iter().step_by(10).map(routes).sum::<usize>(), 0, "round {round}");
    }
}

fn pods_that_end_leave_no_namespace_open_while_the_agent_lives() {
    let namespaces = || descriptors().get("net:").copied().unwrap_or(0);
    let pods: Vec<Sleeper> = (0..20).map(|_| Sleeper::new()).collect();
    let configs =
        pods.iter().enumerate().map(|(i, pod)| config(&format!("default/pod-{i}"), &pod.cgroup));
    let agent = Agent::new(configs.collect());
    agent.wait_for(WorkloadState::On);
    assert!(namespaces() >= 20, "{:?}", descriptors());
    drop(pods);
    agent.wait_for(WorkloadState::Waiting);
    assert!(agent.served.lock().expect("no panic").is_empty());
    // The agent's own, which the socket factory returns to.
    assert_eq!(namespaces(), 1, "{:?}", descriptors());
}

/// One after the other: both count this process's descriptors.
#[test]
fn nothing_is_left_behind() {
    // A pod takes 15 or so, and 1024 are allowed by default; `mirror agent` raises it as well.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("the kernel knows it");
    setrlimit(Resource::RLIMIT_NOFILE, most, most).expect("up to the hard limit");
    a_hundred_captures_ten_times_leave_nothing();
    pods_that_end_leave_no_namespace_open_while_the_agent_lives();
}

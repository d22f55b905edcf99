//! Capture against the real kernel: programs attached to real cgroups, pods in network namespaces
//! of their own. Needs root, and fails without.

#[path = "capture/fixture.rs"]
mod fixture;

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use fixture::{
    Agent, Beats, Cgroup, ID, OTHER, POD_IP, Pod, Sleeper, VIP, config, eventually, forbid,
    pod_config,
};
use mirror_user::{
    capture::{Programs, TrialError, WorkloadState, trial, trial_below},
    control::publish::FrontendMap as _,
};
use nix::sched::{CloneFlags, unshare};

fn greeting(name: &str, agent: &Agent) -> String {
    let port = agent.status()[0].port.expect("captured");
    format!("{name} {}:{port}", ID.address())
}

#[test]
fn a_captured_connection_carries_the_id_and_the_application_sees_what_it_requested() {
    let mut pod = Pod::new();
    let agent = Agent::new(vec![pod.config("default/web")]);
    agent.wait_for(WorkloadState::On);
    let seen = pod.connect(VIP);
    assert_eq!(seen.greeting, greeting("default/web", &agent));
    assert_eq!(seen.peer, VIP);
    assert!(seen.own.starts_with(&format!("{POD_IP}:")), "{seen:?}");
    assert_eq!(agent.count("captured"), 1);
}

#[test]
fn what_is_no_frontend_goes_direct() {
    let mut pod = Pod::new();
    let agent = Agent::new(vec![pod.config("default/web")]);
    agent.wait_for(WorkloadState::On);
    assert!(pod.connect(OTHER).is_direct());
    assert_eq!((agent.count("captured"), agent.count("not_a_frontend")), (0, 1));
}

#[test]
fn what_must_not_be_captured_goes_direct_and_is_counted() {
    let mut pod = Pod::new();
    let agent = Agent::new(vec![pod.config("default/web")]);
    agent.wait_for(WorkloadState::On);
    assert!(pod.send("bound", VIP).is_direct());
    assert_eq!(agent.count("bound_device"), 1);
    assert!(pod.send("mesh", VIP).is_direct());
    assert_eq!(agent.count("mesh_uid"), 1);
    assert_eq!(pod.send("udp", VIP).peer, VIP);
    assert_eq!(agent.count("not_tcp"), 1);
    // Of loopback, not of an agent: nobody listens there.
    assert_eq!(pod.connect("127.0.0.1:9").peer, "error");
    assert_eq!(agent.count("loopback"), 1);
    assert_eq!(agent.count("captured"), 0);
}

#[test]
fn a_removed_frontend_goes_direct_and_its_open_connections_keep_their_names() {
    let mut pod = Pod::new();
    let mut agent = Agent::new(vec![pod.config("default/web")]);
    agent.wait_for(WorkloadState::On);
    assert!(!pod.send("keep", VIP).is_direct());
    agent.frontends.remove(VIP.parse().unwrap()).unwrap();
    agent.frontends.remove(VIP.parse().unwrap()).expect("twice is no error");
    assert!(pod.connect(VIP).is_direct());
    assert_eq!(pod.send("again", VIP).peer, VIP);
    agent.frontends.forget(ID).unwrap();
    assert!(pod.send("again", VIP).peer.starts_with(&ID.address().to_string()));
}

#[test]
fn stale_workers_and_full_queues_let_connections_go_direct() {
    let mut pod = Pod::new();
    let agent = Agent::new(vec![pod.config("default/web")]);
    agent.wait_for(WorkloadState::On);
    assert!(!pod.connect(VIP).is_direct());

    agent.beat(Beats::Full);
    thread::sleep(Duration::from_millis(300));
    assert!(pod.connect(VIP).is_direct());
    assert_eq!(agent.count("queue_full"), 1);

    agent.beat(Beats::None);
    thread::sleep(Duration::from_millis(1200));
    assert!(pod.connect(VIP).is_direct());
    // By then the canary may have switched it off as well.
    assert_eq!(agent.count("no_live_worker") + agent.count("pod_off"), 1);

    agent.beat(Beats::Fresh);
    eventually("capturing again", || {
        let seen = pod.connect(VIP);
        if seen.is_direct() { Err(format!("{seen:?}")) } else { Ok(()) }
    });
}

#[test]
fn connections_spread_over_the_workers_and_avoid_a_silent_one() {
    let mut pod = Pod::new();
    let agent = Agent::new(vec![pod.config("default/web")]);
    agent.wait_for(WorkloadState::On);
    for _ in 0..100 {
        assert!(!pod.connect(VIP).is_direct());
    }
    // 100 fair draws fall below 20 on one side once in a billion.
    let spread = agent.accepted();
    assert!(spread.iter().all(|count| *count >= 20), "{spread:?}");

    agent.beat(Beats::First);
    thread::sleep(Duration::from_millis(1200));
    let silent = agent.accepted()[1];
    for _ in 0..50 {
        assert!(!pod.connect(VIP).is_direct());
    }
    assert_eq!(agent.accepted()[1], silent);
}

#[test]
fn two_pods_never_meet() {
    let mut pods = [Pod::new(), Pod::new()];
    let configs = vec![pods[0].config("default/a"), pods[1].config("other/b")];
    let agent = Agent::new(configs);
    agent.wait_for(WorkloadState::On);
    for _ in 0..50 {
        for (pod, name) in pods.iter_mut().zip(["default/a", "other/b"]) {
            assert_eq!(pod.connect(VIP).greeting, greeting(name, &agent));
        }
    }
}

#[test]
fn two_agents_share_a_pod_and_the_second_takes_over() {
    let mut pod = Pod::new();
    let first = Agent::new(vec![pod.config("default/web")]);
    first.wait_for(WorkloadState::On);
    let second = Agent::new(vec![pod.config("default/web")]);
    second.wait_for(WorkloadState::On);
    assert_ne!(first.status()[0].port, second.status()[0].port);
    assert!(!pod.connect(VIP).is_direct());
    assert_eq!(first.count("captured") + second.count("captured"), 1);
    first.capture.as_ref().unwrap().stop_capturing();
    assert_eq!(pod.connect(VIP).greeting, greeting("default/web", &second));
}

#[test]
fn stopping_lets_new_connections_go_direct_and_keeps_the_open_ones() {
    let mut pod = Pod::new();
    let agent = Agent::new(vec![pod.config("default/web")]);
    agent.wait_for(WorkloadState::On);
    assert!(!pod.send("keep", VIP).is_direct());
    agent.capture.as_ref().unwrap().stop_capturing();
    assert!(pod.connect(VIP).is_direct());
    assert_eq!(pod.send("again", VIP).peer, VIP);
    agent.wait_for(WorkloadState::Draining);
    assert!(!agent.served.lock().unwrap().is_empty(), "the listeners stay");
}

#[test]
fn the_canary_switches_a_pod_off_and_on_again() {
    let mut pod = Pod::new();
    let agent = Agent::new(vec![pod.config("default/web")]);
    agent.wait_for(WorkloadState::On);
    agent.beat(Beats::None);
    agent.wait_for(WorkloadState::Off);
    let reason = agent.status()[0].reason.clone().expect("off with a reason");
    assert!(reason.contains("canary"), "{reason}");
    assert!(pod.connect(VIP).is_direct());
    assert!(agent.count("pod_off") > 0);
    agent.beat(Beats::Fresh);
    agent.wait_for(WorkloadState::On);
    assert!(!pod.connect(VIP).is_direct());
}

#[test]
fn a_pod_that_ends_is_let_go_and_its_successor_is_captured() {
    let mut pod = Pod::new();
    let config = pod.config("default/web");
    let agent = Agent::new(vec![config]);
    agent.wait_for(WorkloadState::On);
    let first = agent.status()[0].netns_cookie;
    pod.end();
    agent.wait_for(WorkloadState::Waiting);
    assert!(agent.served.lock().unwrap().is_empty(), "the workers were told to leave");
    let mut next = Pod::new();
    // A process of the successor's namespace joins the captured cgroup.
    next.join(&pod.cgroup);
    agent.wait_for(WorkloadState::On);
    assert_ne!(agent.status()[0].netns_cookie, first);
    assert!(!next.connect(VIP).is_direct());
    next.end();
}

#[test]
fn two_cgroups_of_one_namespace_share_listeners_but_not_across_namespaces() {
    thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("root");
        let mut pod = Pod::here();
        let other = Sleeper::here();
        let third = Sleeper::here();
        let agent = Agent::new(vec![
            pod.config("default/web"),
            config("default/job", &other.cgroup),
            config("other/job", &third.cgroup),
        ]);
        eventually("two on and one refused", || {
            let states: Vec<_> = agent.status().iter().map(|s| s.state).collect();
            let wanted = [WorkloadState::On, WorkloadState::On, WorkloadState::Refused];
            if states == wanted { Ok(()) } else { Err(format!("{:?}", agent.status())) }
        });
        // Each worker's of both families.
        assert_eq!(agent.served.lock().unwrap().len(), 2 * fixture::WORKERS as usize);
        assert!(agent.status()[2].reason.as_ref().unwrap().contains("default/web"));
        // The agent's own namespace is captured here, as for a systemd service.
        assert_eq!(pod.connect(VIP).greeting, greeting("default/web", &agent));
    })
    .join()
    .unwrap();
}

#[test]
fn of_two_pods_in_one_namespace_the_older_sandbox_has_it_whoever_came_first() {
    let mut victim = Pod::new();
    // With the right to, a process of another pod has entered the victim's.
    let intruder = Sleeper::beside(&victim);
    let of_victim = pod_config("shop/victim", &victim.cgroup);
    let of_intruder = pod_config("other/intruder", &intruder.cgroup);
    let agent = Agent::new(Vec::new());
    for first in [&of_intruder, &of_victim] {
        agent.select(vec![first.clone()]);
        agent.wait_for_one(&first.full_name(), WorkloadState::On);
        for both in [[&of_intruder, &of_victim], [&of_victim, &of_intruder]] {
            agent.select(both.map(Clone::clone).to_vec());
            let reason = agent.wait_for_one("other/intruder", WorkloadState::Refused);
            assert!(reason.contains("shop/victim"), "{reason}");
            agent.wait_for_one("shop/victim", WorkloadState::On);
            // It stays so when the one that is refused is tried again.
            thread::sleep(Duration::from_millis(1500));
            let named = victim.connect(VIP).greeting;
            assert!(named.starts_with("shop/victim "), "{named}");
        }
        agent.select(Vec::new());
    }
    // What an operator has said himself stands before either.
    drop(agent);
    let agent = Agent::new(vec![config("ops/flag", &victim.cgroup)]);
    agent.select(vec![of_victim.clone()]);
    agent.wait_for_one("ops/flag", WorkloadState::On);
    agent.wait_for_one("shop/victim", WorkloadState::Refused);
}

#[test]
fn the_namespace_of_a_pod_is_its_sandboxs_and_not_one_that_a_container_has_made() {
    let mut pod = Pod::new();
    let sandbox = pod.cgroup.child();
    // Its container is listed first.
    pod.join(&sandbox);
    let container = Sleeper::new();
    container.join(&pod.cgroup);
    let agent = Agent::new(Vec::new());
    agent.select(vec![pod_config("default/web", &pod.cgroup)]);
    agent.wait_for_one("default/web", WorkloadState::On);
    assert_eq!(pod.connect(VIP).greeting, greeting("default/web", &agent));
    drop((agent, container));
    pod.end();
}

#[test]
fn a_program_on_an_ancestor_that_forbids_attaching_is_named() {
    let parent = Cgroup::new();
    let child = parent.child();
    forbid(&parent);
    let pod = Sleeper::new();
    pod.join(&child);
    let agent = Agent::new(vec![config("default/web", &child)]);
    agent.wait_for(WorkloadState::Refused);
    let reason = agent.status()[0].reason.clone().expect("refused with a reason");
    assert!(reason.contains("forbidder"), "{reason}");
    assert!(reason.contains(&format!("on {} was", parent.0.display())), "{reason}");
    assert!(agent.served.lock().unwrap().is_empty(), "the listeners are taken back");
    drop(agent);
    drop(pod);
    drop(child);
}

#[test]
fn the_cgroup_of_the_agent_itself_is_refused() {
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    let own = own.lines().find_map(|line| line.strip_prefix("0::/")).expect("in cgroup v2");
    let root = mirror_user::capture::check().unwrap().cgroup2;
    let config = format!("default/agent={}", root.join(own).display());
    let agent = Agent::new(vec![config.parse().unwrap()]);
    agent.wait_for(WorkloadState::Refused);
    assert!(agent.status()[0].reason.as_ref().unwrap().contains("agent itself"));
}

/// Where the subscriber writes.
#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn the_programs_log_at_debug_level() {
    let sink = Sink::default();
    let writer = sink.clone();
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::DEBUG)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .init();
    let mut pod = Pod::new();
    let agent = Agent::with_log(vec![pod.config("default/logged")], true);
    agent.wait_for(WorkloadState::On);
    assert!(!pod.connect(VIP).is_direct());
    eventually("the log of the connection", || {
        let text = String::from_utf8_lossy(&sink.0.lock().unwrap()).into_owned();
        let wanted = format!("connect to {VIP} captured with id {}", ID.0);
        if text.contains(&wanted) { Ok(()) } else { Err(text) }
    });
}

/// `mirror` itself; on another kernel than the one it was built on it is elsewhere.
fn mirror() -> PathBuf {
    let elsewhere = std::env::var_os("MIRROR_BIN").map(PathBuf::from);
    elsewhere.unwrap_or_else(|| env!("CARGO_BIN_EXE_mirror").into())
}

fn leftovers(parent: &Path) -> usize {
    let entries = fs::read_dir(parent).expect("a cgroup").flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("mirror-trial-")).count()
}

#[test]
fn the_trial_sees_its_own_connections_and_leaves_nothing() {
    let parent = Cgroup::new();
    let mut programs = Programs::load(1, false).unwrap_or_else(|error| panic!("{error}"));
    // What a killed agent left.
    fs::create_dir(parent.0.join("mirror-trial-0")).expect("a cgroup can be made");
    trial_below(&mut programs, &parent.0, &mirror()).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(leftovers(&parent.0), 0);
}

/// With DAC_OVERRIDE dropped and the node's tree read-only, as in the pod that deploy/ makes.
#[test]
fn the_trial_needs_nothing_of_the_nodes_tree() {
    // The rest of this process has no use for what this thread gives up.
    let apart = thread::spawn(|| {
        let mut programs = Programs::load(1, false).unwrap_or_else(|error| panic!("{error}"));
        unshare(CloneFlags::CLONE_NEWNS).expect("root");
        let root = fixture::cgroup2();
        let run = |command: &str| {
            let status = std::process::Command::new("sh").args(["-c", command]).status();
            assert!(status.expect("sh").success(), "{command}");
        };
        run("mount --make-rprivate /");
        run(&format!("mount -o remount,bind,ro {}", root.display()));
        assert!(fs::create_dir(root.join("mirror-trial-x")).is_err(), "it is read-only");
        trial(&mut programs, &mirror()).unwrap_or_else(|error| panic!("{error}"));
        trial(&mut programs, &mirror()).unwrap_or_else(|error| panic!("again: {error}"));
    });
    apart.join().unwrap();
}

#[test]
fn a_trial_that_fails_says_why_and_leaves_nothing() {
    let mut programs = Programs::load(1, false).unwrap_or_else(|error| panic!("{error}"));
    let parent = Cgroup::new();
    let mut fail = |program: &str| {
        let error =
            trial_below(&mut programs, &parent.0, Path::new(program)).expect_err("it fails");
        assert_eq!(leftovers(&parent.0), 0, "{error}");
        error
    };
    let error = fail("/nonexistent/mirror");
    assert!(error.to_string().contains("/nonexistent/mirror"), "{error}");
    // It ends well, and has not connected.
    let error = fail("/bin/true");
    assert!(matches!(error, TrialError::Child(_)), "{error}");
    // It says that it has connected, and no hook has seen it.
    let folder = tempfile::tempdir().expect("a folder");
    let liar = folder.path().join("liar");
    fs::write(&liar, "#!/bin/sh\necho 2\n").expect("written");
    fs::set_permissions(&liar, PermissionsExt::from_mode(0o755)).expect("ours");
    let error = fail(liar.to_str().expect("UTF-8"));
    assert!(matches!(error, TrialError::Unseen { made: 2, seen: 0 }), "{error}");
    forbid(&parent);
    let error = fail(&mirror().to_string_lossy());
    assert!(error.to_string().contains("BPF_F_ALLOW_MULTI"), "{error}");
    let error = trial_below(&mut programs, Path::new("/nonexistent"), &mirror());
    assert!(matches!(error, Err(TrialError::Cgroup { .. })), "{error:?}");
}

//! The agent's life under load: killed, stopped, one worker blocked, drained, upgraded. New
//! connections go on, and those in flight are answered or reset, never left in silence.
#![allow(clippy::unwrap_used, reason = "helpers of tests; clippy knows only the tests themselves")]

use std::{
    fs::{self, File},
    path::Path,
    time::{Duration, Instant},
};

use mirror_tests::{
    Agent, Node, Pod, Process, Signal, eventually,
    load::{Events, LoadClient, now},
    manifest::{Route, Rule},
};
use nix::{
    sys::{
        ptrace,
        stat::Mode,
        wait::{WaitPidFlag, waitpid},
    },
    unistd::{Pid, mkfifo},
};

/// A worker counts as stale after 1 s without a heartbeat; the last is up to 0.1 s old when it
/// stops, and the client's clock starts a little before its SYN.
const STALE: f64 = 1.2;

/// A client under load, a primary, and a route that marks what the agent has carried.
struct TestBed {
    app: Pod,
    _primary: Pod,
    _echo: Process,
    // Last: its drop removes everything.
    node: Node,
}

impl TestBed {
    fn new(name: &str) -> Self {
        let node = Node::create(name).unwrap();
        let (app, primary) = (node.pod("app").unwrap(), node.pod("primary").unwrap());
        let echo = primary.echo(&["--listen", "0.0.0.0:80", "--quiet"]).unwrap();
        let service = node.service("service", 80, 80, &[&primary]).unwrap();
        let backend = node.service("primary", 80, 80, &[&primary]).unwrap();
        let route = Route::new("route", &service).rule(Rule::to("primary", 80).mark());
        let manifests = [service.manifest(), backend.manifest(), route.manifest()];
        node.routes().write("all.yaml", &manifests.join("---\n")).unwrap();
        Self { app, _primary: primary, _echo: echo, node }
    }

    fn agent(&self, name: &str, flags: &[&str]) -> Agent<'_> {
        let capture = format!("app={}", self.app.cgroup().display());
        let mut all = vec!["--workers", "2"];
        all.extend(flags);
        Agent::start_with(&self.node, name, &[&capture], &all).unwrap()
    }

    /// Runs the client for so many seconds, and `f` in its midst.
    fn under_load<T>(&self, seconds: u32, f: impl FnOnce() -> T) -> (Events, T) {
        let client = LoadClient::start(&self.app, "http://service", seconds).unwrap();
        std::thread::sleep(Duration::from_secs(2));
        let result = f();
        (client.finish().unwrap(), result)
    }
}

/// The agent's stderr is a pipe that nobody reads, as under a container runtime that hangs. What
/// the h2 crate tells of frames at trace level, from many places, fills it within a moment.
#[test]
fn its_log_is_not_read() {
    let test_bed = TestBed::new("log");
    let pipe = test_bed.node.folder().join("unread");
    mkfifo(&pipe, Mode::S_IRWXU).unwrap();
    // Keeps the pipe open, and never reads.
    let _held = File::options().read(true).write(true).open(&pipe).unwrap();
    let binary = mirror_tests::mirror_binary().unwrap();
    let capture = format!("app={}", test_bed.app.cgroup().display());
    let (pipe, binary) = (pipe.to_str().unwrap(), binary.to_str().unwrap());
    let routes = test_bed.node.routes().path().to_str().unwrap();
    let command = "exec \"$@\" 2>\"$0\"";
    let mut argv = vec!["sh", "-c", command, pipe, binary, "agent", "--log", "trace"];
    argv.extend(["--workers", "2", "--routes", routes, "--capture", &capture]);
    let mut agent = test_bed.node.spawn("agent", &argv).unwrap();
    let request = ["curl", "-sS", "-m", "5", "-i", "http://service/get"];
    let via = || {
        test_bed.app.run(&request, Duration::from_secs(9)).unwrap().stdout.contains("x-via: agent")
    };
    eventually("the agent serves", Duration::from_secs(20), via).unwrap();
    let (events, flood) = test_bed.under_load(6, || {
        let load = ["h2load", "-n", "2000", "-c", "4", "http://service/get"];
        test_bed.app.run(&load, Duration::from_secs(20)).unwrap().ok().unwrap()
    });
    println!("a log that nobody reads: {}", events.summary());
    assert!(flood.contains("2000 succeeded"), "{flood}");
    events.check_load(6);
    assert_eq!(events.harmed(0.0, f64::MAX).count(), 0);
    let dropped = dropped_lines(&test_bed.node);
    println!("  {dropped} lines dropped");
    assert!(dropped > 0.0, "the pipe never filled");
    agent.signal(Signal::SIGTERM).unwrap();
    let ended = agent.wait(Duration::from_secs(12)).unwrap();
    assert!(ended.is_some_and(|status| status.success()), "{ended:?}");
}

/// What `/metrics` says of them.
fn dropped_lines(node: &Node) -> f64 {
    let argv = ["curl", "-sSf", "-m", "5", "http://127.0.0.1:15920/metrics"];
    let text = node.run(&argv, Duration::from_secs(9)).unwrap().ok().unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("mirror_log_dropped_total "));
    line.and_then(|value| value.parse().ok()).unwrap()
}

fn sleep_until(at: f64) {
    std::thread::sleep(Duration::from_secs_f64((at - now()).max(0.0)));
}

#[test]
fn killed_and_started_again() {
    let test_bed = TestBed::new("kill");
    let mut agent = test_bed.agent("agent", &[]);
    let (events, (killed, started, _agent)) = test_bed.under_load(8, || {
        let killed = now();
        agent.kill().unwrap();
        sleep_until(killed + 2.5);
        let started = now();
        (killed, started, test_bed.agent("agent2", &[]))
    });
    let back = events.first(started, "agent");
    println!("SIGKILL: {}", events.summary());
    println!(
        "  in flight and reset: {} of new connections, {} of the 50 kept; direct after {:.3} s, \
         harmed for {:.3} s; a new agent captures {back:.2} s after its start",
        events.failed("new").count(),
        events.failed("kept").count(),
        events.first(killed, "direct"),
        events.harmed_for(killed, f64::MAX),
    );
    events.check_load(8);
    assert_eq!(events.harmed(killed + 1.0, f64::MAX).count(), 0);
    assert!(events.longest() < 2.0, "silent for {}", events.longest());
    // Each kept connection was reset at most once: the restart touched none.
    assert!(events.failed("kept").count() <= 50);
    assert!(events.failed("kept").all(|event| event.end < killed + 1.0));
    assert!(back < 2.0, "{back}");
}

#[test]
fn stopped() {
    let test_bed = TestBed::new("stop");
    let mut agent = test_bed.agent("agent", &[]);
    let (events, stopped) = test_bed.under_load(9, || {
        let stopped = now();
        agent.signal(Signal::SIGSTOP).unwrap();
        let status = agent.wait(Duration::from_secs(6)).unwrap();
        assert!(status.is_some(), "the watchdog did not kill the agent: {}", agent.log());
        println!("SIGSTOP: killed by the watchdog after {:.2} s", now() - stopped);
        stopped
    });
    tell_hang(&events, stopped);
    events.check_load(9);
    assert_eq!(events.harmed(stopped + STALE, f64::MAX).count(), 0);
    assert!(events.longest() < 4.0, "silent for {}", events.longest());
}

#[test]
fn one_worker_blocked() {
    let test_bed = TestBed::new("blocked");
    let mut agent = test_bed.agent("agent", &[]);
    let (events, blocked) = test_bed.under_load(9, || {
        let thread = thread(agent.pid(), "worker-0");
        let blocked = now();
        ptrace::seize(thread, ptrace::Options::empty()).unwrap();
        ptrace::interrupt(thread).unwrap();
        // It stops, then it is killed with the agent: both are told to the tracer, who is us, and
        // until the second is heard the agent's own end is not.
        let stop = waitpid(thread, Some(WaitPidFlag::__WALL)).unwrap();
        println!("one worker blocked: {stop:?}");
        let deadline = Instant::now() + Duration::from_secs(6);
        let flags = WaitPidFlag::__WALL | WaitPidFlag::WNOHANG;
        while waitpid(thread, Some(flags)).unwrap().pid().is_none() {
            assert!(Instant::now() < deadline, "the watchdog did not kill: {}", agent.log());
            std::thread::sleep(Duration::from_millis(5));
        }
        println!("  killed by the watchdog after {:.2} s", now() - blocked);
        assert!(agent.wait(Duration::from_secs(2)).unwrap().is_some());
        blocked
    });
    tell_hang(&events, blocked);
    events.check_load(9);
    assert!(events.longest() < 4.0, "silent for {}", events.longest());
    // From when the blocked one is passed over until the kill, the other carries all.
    let (from, to) = (blocked + STALE, blocked + 2.8);
    assert_eq!(events.harmed(from, to).count(), 0);
    let between: Vec<_> =
        events.of("new").filter(|event| event.start > from && event.start < to).collect();
    assert!(between.len() > 250, "{}", between.len());
    let lost: Vec<_> = between.iter().filter(|event| event.via != "agent").collect();
    assert!(lost.is_empty(), "not by the live worker: {} as {:?}", lost.len(), lost[0]);
    // The kill, at 3 s, resets what the live one had in flight.
    assert_eq!(events.harmed(blocked + 4.0, f64::MAX).count(), 0);
}

/// The thread of this name.
fn thread(pid: i32, name: &str) -> Pid {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let named = |path: &Path| {
        fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim_end() == name)
    };
    let task = tasks.map(|task| task.unwrap().path()).find(|path| named(path)).unwrap();
    Pid::from_raw(task.file_name().unwrap().to_str().unwrap().parse().unwrap())
}

fn tell_hang(events: &Events, at: f64) {
    println!("  {}", events.summary());
    println!(
        "  new connections harmed for {:.2} s, direct from {:.2} s; the longest silence {:.2} s",
        events.harmed_for(at, at + 2.8),
        events.first(at, "direct"),
        events.longest(),
    );
}

#[test]
fn drained() {
    let test_bed = TestBed::new("drain");
    let mut agent = test_bed.agent("agent", &[]);
    let (events, (told, gone)) = test_bed.under_load(10, || {
        let told = now();
        let status = agent.stop(Duration::from_secs(30)).unwrap();
        assert_eq!(status.code(), Some(0), "{}", agent.log());
        (told, now())
    });
    println!("SIGTERM: {}", events.summary());
    println!(
        "  direct after {:.3} s, gone after {:.2} s",
        events.first(told, "direct"),
        gone - told
    );
    events.check_load(10);
    events.none_failed("a drain");
    assert!(gone - told < 30.0, "{}", gone - told);
}

#[test]
fn upgraded() {
    let test_bed = TestBed::new("upgrade");
    let mut first = test_bed.agent("agent", &[]);
    let (events, (told, gone, _second)) = test_bed.under_load(12, || {
        let second = test_bed.agent("agent2", &["--admin", "127.0.0.1:15921"]);
        std::thread::sleep(Duration::from_secs(1));
        let told = now();
        let status = first.stop(Duration::from_secs(30)).unwrap();
        assert_eq!(status.code(), Some(0), "{}", first.log());
        (told, now(), second)
    });
    let direct = events.all().filter(|event| event.via == "direct").count();
    println!("upgrade: {}", events.summary());
    println!("  the first agent gone after {:.2} s; {direct} requests went direct", gone - told);
    events.check_load(12);
    events.none_failed("an upgrade");
    let late: Vec<_> = events.of("new").filter(|event| event.start > gone + 0.1).collect();
    assert!(late.len() > 100, "{}", late.len());
    assert!(late.iter().all(|event| event.via == "agent"), "the second does not capture");
}

#[test]
fn two_agents_want_the_same_admin_address() {
    let test_bed = TestBed::new("admin");
    let mut first = test_bed.agent("agent", &["--grace", "0s"]);
    // It finds the first one's admin endpoint, and so is ready at once.
    let second = test_bed.agent("agent2", &["--access-log", "json"]);
    let told = || second.log().contains("127.0.0.1:15920") && second.log().contains("in use");
    eventually("the second agent says so", Duration::from_secs(10), told).unwrap();
    let get = || {
        let argv = ["curl", "-sS", "-m", "5", "-i", "http://service/get"];
        let response = test_bed.app.run(&argv, Duration::from_secs(10)).unwrap().ok().unwrap();
        response.contains("x-via: agent")
    };
    assert!(get());
    assert!(!second.log().contains("\"status\""), "the second captures beside the first");
    first.stop(Duration::from_secs(20)).unwrap();
    eventually("the second takes the address over", Duration::from_secs(5), || {
        second.get("/readyz").is_ok_and(|(code, _)| code == 200)
    })
    .unwrap();
    assert!(get());
    assert!(second.metric("mirror_requests_total", &[]).unwrap() >= 1.0);
}

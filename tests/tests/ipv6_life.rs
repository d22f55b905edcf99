//! IPv6 under load: an agent is killed or upgraded, and IPv6 or `lo` is toggled in the pod. New
//! connections go direct while their way is broken, and are captured again soon after; IPv4 has
//! nothing to do with any of it.
#![allow(clippy::unwrap_used, reason = "helpers of tests; clippy knows only the tests themselves")]

use std::{thread::sleep, time::Duration};

use mirror_tests::{
    Agent, Node, Pod, Process,
    load::{Events, LoadClient, now},
    manifest::{Route, Rule},
    pair::config,
};

/// How long new connections may be harmed by a way that breaks: the netlink socket is looked at
/// every 0.1 s, and the canary's verdict comes at the next look.
const NOTICED: f64 = 0.5;
/// The same where packets are lost in silence: the canary's patience, 0.5 s, comes on top.
const NOTICED_LOST: f64 = 1.0;
/// How long it may take to capture again. Seconds are allowed; 0.1 to 0.3 s is usual.
const RESTORED: f64 = 3.0;

/// A client, a primary behind a dual-stack Service, and a route that marks what the agent carries.
struct TestBed {
    app: Pod,
    _primary: Pod,
    _echo: Process,
    urls: [String; 2],
    // Last: its drop removes everything.
    node: Node,
}

impl TestBed {
    fn new(name: &str) -> Self {
        let node = Node::create(name).unwrap();
        let (app, primary) = (node.pod("app").unwrap(), node.pod("primary").unwrap());
        let echo = primary.echo(&["--listen", "[::]:80", "--quiet"]).unwrap();
        let service = node.dual_service("service", 80, 80, &[&primary]).unwrap();
        let backend = node.dual_service("primary", 80, 80, &[&primary]).unwrap();
        let route = Route::new("route", &service).rule(Rule::to("primary", 80).mark());
        let manifests = [service.manifest(), backend.manifest(), route.manifest()];
        node.routes().write("all.yaml", &manifests.join("---\n")).unwrap();
        let urls = [service.address().to_string(), service.address6().to_string()];
        let urls = urls.map(|address| format!("http://{address}"));
        Self { app, _primary: primary, _echo: echo, urls, node }
    }

    fn agent(&self, name: &str, flags: &[&str]) -> Agent<'_> {
        let capture = format!("app={}", self.app.cgroup().display());
        let mut all = vec!["--workers", "2"];
        all.extend(flags);
        Agent::start_with(&self.node, name, &[&capture], &all).unwrap()
    }

    /// Runs a client over each family for so many seconds, and `f` in their midst: what happened
    /// over IPv4, over IPv6, and what `f` says.
    fn under_load<T>(&self, seconds: u32, f: impl FnOnce() -> T) -> (Events, Events, T) {
        let ([v4, v6], result) = self.with_clients(self.urls.each_ref(), seconds, f);
        (v4, v6, result)
    }

    /// Over IPv6 alone: what would be the same over IPv4 has tests of its own.
    fn under_load_v6<T>(&self, seconds: u32, f: impl FnOnce() -> T) -> (Events, T) {
        let ([v6], result) = self.with_clients([&self.urls[1]], seconds, f);
        (v6, result)
    }

    fn with_clients<const N: usize, T>(
        &self,
        urls: [&String; N],
        seconds: u32,
        f: impl FnOnce() -> T,
    ) -> ([Events; N], T) {
        let clients = urls.map(|url| LoadClient::start(&self.app, url, seconds).unwrap());
        sleep(Duration::from_secs(2));
        let result = f();
        let events = clients.map(|client| client.finish().unwrap());
        for events in &events {
            events.check_new(seconds as usize);
            assert!(events.of("kept").count() > 500, "{}", events.summary());
        }
        (events, result)
    }

    fn shell(&self, command: &str) -> f64 {
        let argv = ["sh", "-c", command];
        self.app.run(&argv, Duration::from_secs(5)).unwrap().ok().unwrap();
        now()
    }
}

fn ipv6_state(agent: &Agent<'_>) -> String {
    let state = config(agent).unwrap()["workloads"][0]["ipv6"]["state"].clone();
    state.as_str().unwrap().to_owned()
}

/// New connections within these seconds: all answered, all by the same way.
fn all_by(events: &Events, from: f64, to: f64, via: &str) {
    let during: Vec<_> =
        events.of("new").filter(|event| event.start > from && event.start < to).collect();
    assert!(during.len() > 50, "{} from {from} to {to}", during.len());
    let other: Vec<_> =
        during.iter().filter(|event| event.outcome != "ok" || event.via != via).collect();
    assert!(other.is_empty(), "{} of {} not by {via}: {:?}", other.len(), during.len(), other[0]);
}

#[test]
fn ipv6_of_lo_is_toggled() {
    let test_bed = TestBed::new("toggle");
    let agent = test_bed.agent("agent", &[]);
    let (v4, v6, (off, on)) = test_bed.under_load(10, || {
        let off = test_bed.shell("echo 1 > /proc/sys/net/ipv6/conf/lo/disable_ipv6");
        sleep(Duration::from_secs(2));
        assert_eq!(ipv6_state(&agent), "off");
        let on = test_bed.shell("echo 0 > /proc/sys/net/ipv6/conf/lo/disable_ipv6");
        (off, on)
    });
    println!("IPv6 of lo off and on: {}", v6.summary());
    println!(
        "  new connections harmed for {:.2} s; captured again after {:.2} s",
        v6.harmed_for(off - NOTICED, on) - NOTICED,
        v6.first(on, "agent")
    );
    v4.none_failed("IPv4");
    all_by(&v4, off - 1.0, on + RESTORED, "agent");
    all_by(&v6, off + NOTICED, on - 0.1, "direct");
    all_by(&v6, on + RESTORED, f64::MAX, "agent");
    assert_eq!(ipv6_state(&agent), "on");
}

#[test]
fn lo_goes_down_and_up() {
    let test_bed = TestBed::new("lo");
    let agent = test_bed.agent("agent", &[]);
    let (v4, v6, (down, up)) = test_bed.under_load(10, || {
        let down = test_bed.shell("ip link set lo down");
        sleep(Duration::from_secs(2));
        assert_eq!(ipv6_state(&agent), "off");
        (down, test_bed.shell("ip link set lo up"))
    });
    for (events, family) in [(&v4, "IPv4"), (&v6, "IPv6")] {
        println!("lo down and up, {family}: {}", events.summary());
        println!(
            "  new connections harmed for {:.2} s; captured again after {:.2} s",
            events.harmed_for(down - 0.5, up) - 0.5,
            events.first(up, "agent")
        );
        all_by(events, down + NOTICED_LOST, up - 0.1, "direct");
        all_by(events, up + RESTORED, f64::MAX, "agent");
    }
}

/// All of it, the pod's address as well: IPv6 has nowhere to go, and is back when it has.
#[test]
fn ipv6_is_disabled_and_enabled() {
    let test_bed = TestBed::new("disable");
    let agent = test_bed.agent("agent", &[]);
    let (v4, v6, on) = test_bed.under_load(10, || {
        test_bed.shell("echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6");
        sleep(Duration::from_secs(2));
        assert_eq!(ipv6_state(&agent), "absent");
        test_bed.shell("echo 0 > /proc/sys/net/ipv6/conf/all/disable_ipv6");
        test_bed.app.give_ipv6().unwrap();
        now()
    });
    println!("IPv6 disabled and enabled: {}", v6.summary());
    println!("  captured again after {:.2} s", v6.first(on, "agent"));
    v4.none_failed("IPv4");
    all_by(&v4, on - 3.0, f64::MAX, "agent");
    all_by(&v6, on + RESTORED, f64::MAX, "agent");
}

#[test]
fn killed_and_started_again() {
    let test_bed = TestBed::new("kill6");
    let mut agent = test_bed.agent("agent", &[]);
    let (v6, (killed, _agent)) = test_bed.under_load_v6(8, || {
        let killed = now();
        agent.kill().unwrap();
        sleep(Duration::from_millis(2500));
        (killed, test_bed.agent("agent2", &[]))
    });
    println!("SIGKILL, IPv6: {}", v6.summary());
    println!(
        "  direct after {:.3} s, harmed for {:.3} s",
        v6.first(killed, "direct"),
        v6.harmed_for(killed, f64::MAX),
    );
    assert_eq!(v6.harmed(killed + 1.0, f64::MAX).count(), 0);
    assert!(v6.longest() < 2.0, "silent for {}", v6.longest());
    assert!(v6.failed("kept").all(|event| event.end < killed + 1.0));
}

#[test]
fn upgraded() {
    let test_bed = TestBed::new("upgrade6");
    let mut first = test_bed.agent("agent", &[]);
    let (v6, (gone, _second)) = test_bed.under_load_v6(12, || {
        let second = test_bed.agent("agent2", &["--admin", "127.0.0.1:15921"]);
        sleep(Duration::from_secs(1));
        let status = first.stop(Duration::from_secs(30)).unwrap();
        assert_eq!(status.code(), Some(0), "{}", first.log());
        (now(), second)
    });
    println!("upgrade, IPv6: {}", v6.summary());
    v6.none_failed("an upgrade");
    let late: Vec<_> = v6.of("new").filter(|event| event.start > gone + 0.1).collect();
    assert!(late.len() > 100, "{}", late.len());
    assert!(late.iter().all(|event| event.via == "agent"), "the second does not capture");
}

//! Pods are selected for capture by their documents and found by their uids, and stay captured through what
//! happens to pods: containers that restart, sandboxes that are replaced, names that come back.
#![allow(clippy::unwrap_used, reason = "helpers of tests; clippy knows only the tests themselves")]

use std::time::{Duration, Instant};

use mirror_tests::{
    Agent, Node, Pod, Process, Service, Signal, bpf, eventually, http,
    kubelet::{Kubelet, Naming},
    load::LoadClient,
    manifest::{PodDocument, Route, Rule},
    mirror_binary, usage,
};
use serde_json::Value;

const SHORT: Duration = Duration::from_secs(20);

/// A primary behind a Service whose route marks what the agent has carried.
struct TestBed {
    service: Service,
    _echo: Process,
    _primary: Pod,
    // Last: its drop removes everything.
    node: Node,
}

impl TestBed {
    fn new(name: &str) -> Self {
        let node = Node::create(name).unwrap();
        let primary = node.pod("primary").unwrap();
        let echo = primary.echo(&["--listen", "0.0.0.0:80", "--quiet"]).unwrap();
        let service = node.service("service", 80, 80, &[&primary]).unwrap();
        let route = Route::new("route", &service).rule(Rule::to("service", 80).mark());
        let manifests = [service.manifest(), route.manifest()];
        node.routes().write("all.yaml", &manifests.join("---\n")).unwrap();
        Self { service, _echo: echo, _primary: primary, node }
    }

    fn agent(&self, name: &str, flags: &[&str]) -> Agent<'_> {
        let mut all = vec!["--workers", "2"];
        all.extend(flags);
        Agent::start_with(&self.node, name, &[], &all).unwrap()
    }

    /// Tells the agent of exactly these pods.
    fn write_pods(&self, pods: &[PodDocument]) {
        let pods: Vec<_> = pods.iter().map(PodDocument::manifest).collect();
        self.node.routes().write("pods.yaml", &pods.join("---\n")).unwrap();
    }
}

fn document(pod: &Pod) -> PodDocument {
    PodDocument::new(pod.name(), pod.uid().unwrap())
}

/// State and reason of a workload of the Namespace `default`.
fn state(agent: &Agent<'_>, name: &str) -> (String, String) {
    agent.workload(&format!("default/{name}")).unwrap()
}

/// Whether a new connection of the pod is carried by the agent.
fn is_captured(pod: &Pod) -> bool {
    let argv = ["curl", "-sS", "-i", "-m", "5", "http://service/get"];
    pod.run(&argv, SHORT).unwrap().ok().unwrap().contains("x-via: agent")
}

#[test]
fn pods_are_found_by_uid_whatever_the_driver_and_the_nesting() {
    let test_bed = TestBed::new("naming");
    // A node has one kubelet.
    for naming in [Naming::Systemd, Naming::Kind, Naming::Cgroupfs] {
        let pods =
            ["one", "two", "three"].map(|name| test_bed.node.kubelet_pod(name, naming).unwrap());
        let documents: Vec<_> = pods.iter().map(document).collect();
        // All but the last are there when the agent starts.
        test_bed.write_pods(&documents[..2]);
        let agent = test_bed.agent("agent", &[]);
        for pod in &pods[..2] {
            assert_eq!(state(&agent, pod.name()).0, "on", "{naming:?}: {}", agent.log());
            assert!(is_captured(pod), "{}", agent.log());
        }
        assert!(!is_captured(&pods[2]));
        test_bed.write_pods(&documents);
        agent.wait_for_workload("default/three", "on").unwrap();
        assert!(is_captured(&pods[2]));
        // Known no more, captured no more.
        test_bed.write_pods(&documents[1..]);
        eventually("let go", SHORT, || state(&agent, "one").0.is_empty()).unwrap();
        assert!(!is_captured(&pods[0]) && is_captured(&pods[1]));
    }
}

#[test]
fn who_is_not_captured_is_reported_with_the_reason() {
    let test_bed = TestBed::new("reasons");
    let pod = |name| test_bed.node.kubelet_pod(name, Naming::Systemd).unwrap();
    let (plain, mesh) = (pod("plain"), pod("mesh"));
    let uid = || Kubelet::new(Naming::Systemd).unwrap().uid;
    let other = |name| PodDocument::new(name, &uid());
    let documents = |label: Option<&str>| {
        let plain = document(&plain);
        [
            label.map_or(plain.clone(), |value| plain.label("mirror.dev/capture", value)),
            document(&mesh).annotation("linkerd.io/proxy-version", "edge-25.1"),
            other("host").spec("hostNetwork: true"),
            other("kata").spec("runtimeClassName: kata-qemu"),
            other("nowhere"),
        ]
    };
    test_bed.write_pods(&documents(None));
    let agent = test_bed.agent("agent", &[]);
    assert_eq!(state(&agent, "plain"), ("on".into(), String::new()), "{}", agent.log());
    for (name, wanted, reason) in [
        ("mesh", "refused", "the sidecar of Linkerd"),
        ("host", "refused", "hostNetwork"),
        ("kata", "refused", "runtime class kata-qemu"),
        ("nowhere", "waiting", "no cgroup"),
    ] {
        let told = agent.wait_for_workload(&format!("default/{name}"), wanted).unwrap();
        assert!(told.contains(reason), "{name}: {told}");
    }
    assert!(is_captured(&plain) && !is_captured(&mesh));
    for (label, wanted, captured) in
        [("disabled", "not_asked", false), ("maybe", "refused", false), ("enabled", "on", true)]
    {
        test_bed.write_pods(&documents(Some(label)));
        agent.wait_for_workload("default/plain", wanted).unwrap();
        assert_eq!(is_captured(&plain), captured, "{label}");
    }
    // The Namespace speaks for pods that say nothing.
    test_bed.write_pods(&documents(None));
    agent.wait_for_workload("default/plain", "on").unwrap();
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: default\n  labels: \
                     {mirror.dev/capture: disabled}\n";
    test_bed.node.routes().write("namespace.yaml", namespace).unwrap();
    let told = agent.wait_for_workload("default/plain", "not_asked").unwrap();
    assert!(told.contains("Namespace"), "{told}");
    assert!(!is_captured(&plain));
}

#[test]
fn the_pod_of_another_agent_is_refused() {
    let test_bed = TestBed::new("agents");
    let pod = test_bed.node.kubelet_pod("other-agent", Naming::Systemd).unwrap();
    test_bed.write_pods(&[]);
    let binary = mirror_binary().unwrap();
    let routes = test_bed.node.routes().path().display().to_string();
    let other = [&*binary.to_string_lossy(), "agent", "--routes", &routes];
    let mut other = pod.spawn("agent", &other).unwrap();
    pod.listening(&mut other, 15920).unwrap();
    test_bed.write_pods(&[document(&pod)]);
    let agent = test_bed.agent("agent", &[]);
    let told = agent.wait_for_workload("default/other-agent", "refused").unwrap();
    assert!(told.contains("another agent"), "{told}");
    other.kill().unwrap();
    agent.wait_for_workload("default/other-agent", "on").unwrap();
}

#[test]
fn a_flag_says_what_becomes_of_pods_that_say_nothing() {
    let test_bed = TestBed::new("default");
    let pod = |name| test_bed.node.kubelet_pod(name, Naming::Cgroupfs).unwrap();
    let (silent, asking) = (pod("silent"), pod("asking"));
    test_bed
        .write_pods(&[document(&silent), document(&asking).label("mirror.dev/capture", "enabled")]);
    let agent = test_bed.agent("agent", &["--capture-default", "disabled"]);
    assert_eq!((&*state(&agent, "silent").0, &*state(&agent, "asking").0), ("not_asked", "on"));
    assert!(!is_captured(&silent) && is_captured(&asking));
}

#[test]
fn a_container_that_restarts_leaves_no_gap() {
    let test_bed = TestBed::new("restart");
    let pod = test_bed.node.kubelet_pod("app", Naming::Systemd).unwrap();
    test_bed.write_pods(&[document(&pod)]);
    let _agent = test_bed.agent("agent", &[]);
    for _ in 0..5 {
        // Each is a new process, as a container's after a crash; the sandbox stays.
        assert!(is_captured(&pod));
    }
    let events = LoadClient::start(&pod, "http://service", 3).unwrap().finish().unwrap();
    println!("{}", events.summary());
    assert_eq!(events.of("new").filter(|event| event.via != "agent").count(), 0);
}

/// How long after now a new connection of the pod is captured, in seconds. Its first process runs
/// already, and nothing of an application would so soon.
fn gap(pod: &Pod) -> f64 {
    let begun = Instant::now();
    eventually("captured", SHORT, || is_captured(pod)).unwrap();
    begun.elapsed().as_secs_f64()
}

#[test]
fn a_new_sandbox_a_new_pod_and_a_new_agent_are_captured_within_a_second() {
    let test_bed = TestBed::new("again");
    let kubelet = Kubelet::new(Naming::Systemd).unwrap();
    let pod = test_bed.node.kubelet_pod_again("app", kubelet.clone()).unwrap();
    test_bed.write_pods(&[document(&pod)]);
    let mut agent = test_bed.agent("agent", &[]);
    assert!(is_captured(&pod));

    // The same pod: its uid, its cgroup's name, another cgroup and another network namespace.
    drop(pod);
    let pod = test_bed.node.kubelet_pod_again("app", kubelet).unwrap();
    let sandbox = gap(&pod);

    // Another pod of the same name, as of a StatefulSet.
    drop(pod);
    let pod = test_bed.node.kubelet_pod("app", Naming::Systemd).unwrap();
    test_bed.write_pods(&[document(&pod)]);
    let recreated = gap(&pod);

    agent.kill().unwrap();
    assert!(!is_captured(&pod));
    let begun = Instant::now();
    let _agent = test_bed.agent("agent2", &[]);
    let started = begun.elapsed().as_secs_f64();
    assert!(is_captured(&pod), "the agent is ready before it captures");
    println!(
        "not captured for {sandbox:.2} s after a new sandbox, {recreated:.2} s after the pod was \
         made again under its name; an agent was ready, with the pod captured, {started:.2} s \
         after its start"
    );
    assert!(sandbox < 1.0 && recreated < 1.0, "{sandbox} {recreated}");
    assert!(started < 5.0, "{started}");
}

/// Made and deleted, so many at a time.
const ROUND: usize = 25;
const ROUNDS: usize = 8;

#[derive(Debug, PartialEq)]
struct HeldConnection {
    descriptors: usize,
    links: usize,
    pods: usize,
    veths: usize,
}

fn held(test_bed: &TestBed, agent: &Agent<'_>) -> HeldConnection {
    let pid = agent.pid();
    HeldConnection {
        descriptors: usage::descriptors(pid).unwrap(),
        links: bpf::links(pid).unwrap(),
        pods: bpf::entries::<8, 28>(pid, "PODS").unwrap(),
        veths: test_bed.node.netns().ip("link show type veth").unwrap().matches("veth").count(),
    }
}

#[test]
fn two_hundred_pods_come_and_go_and_nothing_stays() {
    let test_bed = TestBed::new("churn");
    test_bed.write_pods(&[]);
    let agent = test_bed.agent("agent", &[]);
    let empty = held(&test_bed, &agent);
    let mut times = Vec::new();
    for round in 0..ROUNDS {
        let naming = [Naming::Systemd, Naming::Kind, Naming::Cgroupfs][round % 3];
        let pods: Vec<_> = (0..ROUND)
            .map(|at| test_bed.node.kubelet_pod(&format!("p{at}"), naming).unwrap())
            .collect();
        test_bed.write_pods(&pods.iter().map(document).collect::<Vec<_>>());
        let begun = Instant::now();
        let on = || agent.metric("mirror_workloads", &[("state", "on")]).unwrap() as usize;
        eventually("all are captured", SHORT, || on() == ROUND)
            .unwrap_or_else(|error| panic!("{error}: {}\n{}", on(), agent.log()));
        times.push(begun.elapsed().as_secs_f64());
        assert!(is_captured(&pods[round]));
        assert_eq!(held(&test_bed, &agent).pods, ROUND);
        // The document goes after the pod in every other round, before it in the others.
        if round % 2 == 0 {
            drop(pods);
            test_bed.write_pods(&[]);
        } else {
            test_bed.write_pods(&[]);
            drop(pods);
        }
        let mut now = held(&test_bed, &agent);
        let gone = eventually("all is let go", SHORT, || {
            now = held(&test_bed, &agent);
            now == empty
        });
        assert!(gone.is_ok(), "round {round}: {now:?}, was {empty:?}\n{}", agent.log());
    }
    let worst = times.iter().copied().fold(0.0, f64::max);
    println!(
        "{} pods made and deleted: nothing stays; {ROUND} at once captured {worst:.2} s after \
         their documents at most",
        ROUND * ROUNDS
    );
    assert_eq!(test_bed.service.name, "service");
}

#[test]
fn an_agent_whose_hooks_cannot_be_tried_captures_nothing_stays_unready_and_says_why() {
    let test_bed = TestBed::new("trial");
    let pod = test_bed.node.kubelet_pod("app", Naming::Systemd).unwrap();
    test_bed.write_pods(&[document(&pod)]);
    // Nobody may make a cgroup below its own.
    let binary = mirror_binary().unwrap();
    let script = format!(
        "tree=$(awk '$3 == \"cgroup2\" {{ print $2 }}' /proc/mounts | head -n 1) && \
         own=$(sed -n 's/^0:://p' /proc/self/cgroup) && \
         mkdir \"$tree$own/blind\" && echo 0 > \"$tree$own/blind/cgroup.procs\" && \
         echo 0 > \"$tree$own/blind/cgroup.max.descendants\" && \
         exec {} agent --routes {} --capture flag={}",
        binary.display(),
        test_bed.node.routes().path().display(),
        pod.cgroup().display()
    );
    let argv = ["unshare", "--mount", "sh", "-c", &script];
    let mut agent = test_bed.node.spawn("blind", &argv).unwrap();
    let admin = "127.0.0.1:15920".parse().unwrap();
    let get = |path| http::get(test_bed.node.netns(), admin, path);
    eventually("the admin answers", SHORT, || get("/healthz").is_ok()).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    let (status, why) = get("/readyz").unwrap();
    assert_eq!(status, 503, "{why}");
    assert!(why.contains("nothing is captured") && why.contains("mirror-trial-"), "{why}");
    assert!(why.contains("cgroup.max.descendants"), "{why}");
    assert!(agent.stderr().contains("nothing is captured"), "{}", agent.stderr());
    let (_, config) = get("/config").unwrap();
    let config: Value = serde_json::from_str(&config).unwrap();
    assert_eq!(config["workloads"], serde_json::json!([]));
    assert!(config["obstacle"].as_str().unwrap().contains("mirror-trial-"), "{config}");
    assert!(!is_captured(&pod));
    agent.kill().unwrap();
}

/// Holds a connection to the Service without a word, and opens it again when it ends.
const HOLD: &str = r#"
import socket
def connect():
    connection = socket.create_connection(("service", 80))
    print("open", flush=True)
    return connection
connection = connect()
while True:
    try:
        if not connection.recv(100):
            raise OSError("the end")
    except OSError:
        print("lost", flush=True)
        connection.close()
        connection = connect()
"#;

fn hold(pod: &Pod) -> Process {
    let held = pod.spawn("hold", &["python3", "-c", HOLD]).unwrap();
    eventually("it is open", SHORT, || held.stdout() == "open\n").unwrap();
    held
}

/// Connections of the pod that predate capture: as `/metrics` and as `/config` say.
fn predating(agent: &Agent<'_>, pod: &Pod) -> (f64, u64) {
    let name = format!("default/{}", pod.name());
    let labels = [("workload", name.as_str()), ("service", "default/service:80")];
    let metric = agent.metric("mirror_predating_connections", &labels).unwrap();
    let (_, config) = agent.get("/config").unwrap();
    let config: Value = serde_json::from_str(&config).unwrap();
    let mut workloads = config["workloads"].as_array().unwrap().iter();
    let workload = workloads.find(|workload| workload["name"] == *name).unwrap();
    (metric, workload["predating"]["default/service:80"].as_u64().unwrap_or(0))
}

#[test]
fn connections_that_predate_capture_are_counted_and_left_alone() {
    let test_bed = TestBed::new("predating");
    let pod = |name| test_bed.node.kubelet_pod(name, Naming::Systemd).unwrap();
    let (early, late) = (pod("early"), pod("late"));
    test_bed.write_pods(&[document(&early), document(&late)]);
    let first = hold(&early);
    let agent = test_bed.agent("agent", &[]);
    // Of a process on the node in the pod's network namespace, as the agent's own are.
    let second = hold(&late);
    let counted = || (predating(&agent, &early), predating(&agent, &late));
    eventually("it is counted", SHORT, || counted() == ((1.0, 1), (0.0, 0)))
        .unwrap_or_else(|error| panic!("{error}: {:?}", counted()));
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(counted(), ((1.0, 1), (0.0, 0)));
    assert_eq!((first.stdout(), second.stdout()), ("open\n".into(), "open\n".into()));
    drop(first);
    early.signal(Signal::SIGKILL).unwrap();
    eventually("it is counted no more", SHORT, || counted() == ((0.0, 0), (0.0, 0))).unwrap();
}

#[test]
fn connections_that_predate_capture_are_reset_once_when_a_flag_asks_for_it() {
    let test_bed = TestBed::new("reset");
    let pod = test_bed.node.kubelet_pod("app", Naming::Cgroupfs).unwrap();
    test_bed.write_pods(&[document(&pod)]);
    let route = std::fs::read_to_string(test_bed.node.routes().path().join("all.yaml")).unwrap();
    test_bed.node.routes().write("all.yaml", &test_bed.service.manifest()).unwrap();
    let agent = test_bed.agent("agent", &["--reset-existing"]);
    let held = hold(&pod);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(held.stdout(), "open\n", "no route names the Service yet");
    let routed = Instant::now();
    test_bed.node.routes().write("all.yaml", &route).unwrap();
    let again = "open\nlost\nopen\n";
    eventually("it is reset", SHORT, || held.stdout() == again)
        .unwrap_or_else(|error| panic!("{error}: {}\n{}", held.stdout(), agent.log()));
    println!("reset {:.2} s after the route", routed.elapsed().as_secs_f64());
    let captured = || agent.metric("mirror_capture_connects_total", &[("reason", "captured")]);
    assert_eq!(captured().unwrap() as u64, 1);
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(held.stdout(), again);
    assert_eq!(predating(&agent, &pod), (0.0, 0));
}

#[test]
fn a_route_acts_on_a_connection_that_was_captured_ahead_of_it() {
    let test_bed = TestBed::new("ahead");
    let pod = test_bed.node.kubelet_pod("app", Naming::Systemd).unwrap();
    test_bed.write_pods(&[document(&pod)]);
    let route = std::fs::read_to_string(test_bed.node.routes().path().join("all.yaml")).unwrap();
    let label = "metadata:\n  labels: {mirror.dev/capture: enabled}\n";
    let labelled = route.replacen("metadata:\n", label, 1);
    let (service, _) = labelled.split_once("---\napiVersion: gateway").unwrap();
    test_bed.node.routes().write("all.yaml", service).unwrap();
    let agent = test_bed.agent("agent", &[]);
    let script = "import http.client, sys, time\n\
        connection = http.client.HTTPConnection('service', 80)\n\
        port = None\n\
        for _ in range(200):\n\
        \x20   connection.request('GET', '/get')\n\
        \x20   answer = connection.getresponse()\n\
        \x20   answer.read()\n\
        \x20   now = connection.sock.getsockname()\n\
        \x20   print(answer.status, answer.headers.get('x-via'), port in (None, now), flush=True)\n\
        \x20   port = now\n\
        \x20   time.sleep(0.1)\n";
    let client = pod.spawn("client", &["python3", "-c", script]).unwrap();
    eventually("some requests", SHORT, || client.stdout().lines().count() >= 5).unwrap();
    test_bed.node.routes().write("all.yaml", &labelled).unwrap();
    eventually("the route acts", SHORT, || client.stdout().contains("agent"))
        .unwrap_or_else(|error| panic!("{error}: {}\n{}", client.stdout(), agent.log()));
    let lines = client.stdout();
    assert!(lines.starts_with("200 None True\n"), "{lines}");
    assert!(
        lines.lines().all(|line| line.starts_with("200 ") && line.ends_with("True")),
        "{lines}"
    );
    assert_eq!(agent.metric("mirror_connections_total", &[("kind", "http1")]).unwrap() as u64, 1);
}

#[test]
fn status_shows_who_is_captured_and_who_is_not_and_how_the_copies_ended() {
    const ADMIN: &str = "127.0.0.1:15999";
    let test_bed = TestBed::new("status");
    let pod = test_bed.node.kubelet_pod("app", Naming::Systemd).unwrap();
    let uid = Kubelet::new(Naming::Systemd).unwrap().uid;
    test_bed
        .write_pods(&[document(&pod), PodDocument::new("host", &uid).spec("hostNetwork: true")]);
    let shadow = test_bed.node.pod("shadow").unwrap();
    let _copies = shadow.echo(&["--listen", "0.0.0.0:80", "--quiet"]).unwrap();
    let mirror = test_bed.node.service("mirror", 80, 80, &[&shadow]).unwrap();
    let rule = Rule::to("service", 80).mirror("mirror", 80);
    let broken = Rule::to("nowhere", 80).matching("path: {value: /nowhere}");
    let route = Route::new("route", &test_bed.service).rule(rule).rule(broken);
    let manifests = [test_bed.service.manifest(), mirror.manifest(), route.manifest()];
    test_bed.node.routes().write("all.yaml", &manifests.join("---\n")).unwrap();

    let binary = mirror_binary().unwrap();
    let binary = binary.to_string_lossy();
    let status = |flags: &[&str]| {
        let argv: Vec<_> = [&*binary, "status"].into_iter().chain(flags.iter().copied()).collect();
        test_bed.node.run(&argv, SHORT).unwrap()
    };
    let nobody = status(&[]);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(
        nobody.stderr.contains("cannot connect to an agent at 127.0.0.1:15920"),
        "{}",
        nobody.stderr
    );

    let agent = test_bed.agent("agent", &["--admin", ADMIN]);
    for _ in 0..3 {
        let argv = ["curl", "-sSf", "-m", "5", "-o", "/dev/null", "http://service/get"];
        pod.run(&argv, SHORT).unwrap().ok().unwrap();
    }
    let delivered = || agent.metric("mirror_copies_total", &[("outcome", "delivered")]).unwrap();
    eventually("all delivered", SHORT, || delivered() as u64 == 3).unwrap();
    let text = status(&["--admin", ADMIN]).ok().unwrap();
    println!("{text}");
    for shown in [
        "agent      ready\n",
        "endpoints  chosen by the cluster\n",
        "workloads  1 on, 1 refused\n",
        "default/host",
        "it uses the node's network (hostNetwork)",
        "default/service:80",
        "default/route at default/service:80: Accepted, not ResolvedRefs (BackendNotFound: ",
        "to default/mirror:80: 3 selected, 3 delivered, 0 dropped, 0 unknown, 0 in flight",
    ] {
        assert!(text.contains(shown), "{shown} is not in\n{text}");
    }
    let json = status(&["--admin", ADMIN, "--output", "json"]).ok().unwrap();
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["ready"], &json["copies"][0]["delivered"]), (&true.into(), &3.into()));
    assert_eq!(json["workloads"].as_array().unwrap().len(), 2);
}

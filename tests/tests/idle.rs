//! Idle connections: what each costs the agent, with its upstream connection, for as long as its client
//! keeps it open.
#![allow(clippy::unwrap_used, reason = "helpers of tests; clippy knows only the tests themselves")]

use std::time::Duration;

use mirror_tests::{
    Agent, Node, Pod, Process, eventually,
    manifest::{Route, Rule},
    usage,
};

/// As many as an agent can have whose limit is 20,000 descriptors: each has two, with its upstream connection.
const CONNECTIONS: u32 = 9_900;
/// Connections that are there before, so that the agent's code is in memory.
const WARM: u32 = 20;
const SHORT: Duration = Duration::from_secs(90);

/// More connections, and memory for them, than a pod may have by default.
const FLAGS: [&str; 6] =
    ["--workers", "1", "--pod-connections", "100000", "--agent-memory", "1GiB"];

/// What one may take, with one or two upstream connections.
const MOST_KIB: f64 = 14.0;

/// A connection keeps its buffers for up to 2 s after its last request.
const BUFFERED: Duration = Duration::from_secs(3);
/// And up to 5 s later the agent gives back for the last time what it has free.
const GIVEN_BACK: Duration = Duration::from_secs(7);

/// Opens so many connections one after the other, sends so many requests on each, and keeps them.
const KEEPER: &str = r#"
import resource, socket, sys, time
count, requests, paths = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
resource.setrlimit(resource.RLIMIT_NOFILE, (count + 100, count + 100))
kept = []
for _ in range(count):
    s = socket.create_connection(("service", 80), timeout=10)
    for at in range(requests):
        path = paths[at % len(paths)].encode()
        s.sendall(b"GET " + path + b" HTTP/1.1\r\nHost: service\r\n\r\n")
        got = b""
        while b"\r\n\r\n" not in got:
            got += s.recv(65536)
    kept.append(s)
print("open", flush=True)
time.sleep(600)
"#;

/// Opens connections from a pod, has requests for these paths in turn served on each, and keeps them
/// until it is dropped.
fn keep(pod: &Pod, connections: u32, requests: u32, paths: &[&str]) -> Process {
    let (connections, requests) = (connections.to_string(), requests.to_string());
    let argv = [&["python3", "-c", KEEPER, &connections, &requests], paths].concat();
    let keeper = pod.spawn(&format!("keeper{connections}"), &argv).unwrap();
    eventually("all are open", SHORT, || keeper.stdout().contains("open")).unwrap();
    keeper
}

/// What the agent has resident, in bytes, once it has given back what it has freed since it started.
fn settled(agent: &Agent<'_>) -> u64 {
    std::thread::sleep(GIVEN_BACK);
    usage::rss(agent.pid()).unwrap()
}

/// What the agent has grown by for each of so many connections since it had `before`, in KiB.
fn grown_by(agent: &Agent<'_>, before: u64, connections: u32) -> f64 {
    let each = || {
        let grown = usage::rss(agent.pid()).unwrap().saturating_sub(before);
        grown as f64 / 1024.0 / f64::from(connections)
    };
    std::thread::sleep(BUFFERED);
    // The last look decides; there is nothing to wait for where it is much less already.
    let _ = eventually("memory is given back", GIVEN_BACK, || each() < MOST_KIB / 2.0);
    each()
}

#[test]
fn an_unused_connection_costs_little() {
    let each = idle_connection("unused", 0);
    assert!(each < MOST_KIB, "{each}");
}

#[test]
fn an_idle_connection_costs_little() {
    let each = idle_connection("idle", 3);
    assert!(each < MOST_KIB, "{each}");
}

/// What each connection takes, in KiB, on which so many requests were mirrored.
///
/// Each has a separate node, because the kernel searches long for a port where those of many connections
/// have just ended.
fn idle_connection(name: &str, requests: u32) -> f64 {
    let node = Node::create(name).unwrap();
    let (client, primary) = (node.pod("client").unwrap(), node.pod("primary").unwrap());
    let shadow = node.pod("shadow").unwrap();
    let _echo = primary.echo(&["--listen", "0.0.0.0:80", "--quiet"]).unwrap();
    let _copies = shadow.echo(&["--listen", "0.0.0.0:80", "--quiet"]).unwrap();
    let service = node.service("service", 80, 80, &[&primary]).unwrap();
    let mirror = node.service("mirror", 80, 80, &[&shadow]).unwrap();
    let route = Route::new("route", &service).rule(Rule::to("service", 80).mirror("mirror", 80));
    let manifests = [service.manifest(), mirror.manifest(), route.manifest()];
    node.routes().write("all.yaml", &manifests.join("---\n")).unwrap();
    let agent = Agent::start(&node, &[&client], &FLAGS).unwrap();
    let _warm = keep(&client, WARM, requests, &["/get"]);
    let before = settled(&agent);
    let _kept = keep(&client, CONNECTIONS, requests, &["/get"]);
    let each = grown_by(&agent, before, CONNECTIONS);
    println!("{CONNECTIONS} idle connections after {requests} requests: {each:.1} KiB each");
    let open = agent.metric("mirror_open_connections", &[("kind", "http1")]).unwrap();
    let expected = if requests == 0 { 0.0 } else { f64::from(WARM + CONNECTIONS) };
    assert_eq!(open, expected, "as many are open as the client keeps and has used");
    each
}

/// Requests of one connection go to two backends, so that it has two upstream connections.
#[test]
fn an_idle_connection_with_two_primaries_costs_little_more() {
    const COUNT: u32 = 1_000;
    let node = Node::create("idletwo").unwrap();
    let [client, one, two] = ["client", "one", "two"].map(|name| node.pod(name).unwrap());
    let _echoes = [&one, &two].map(|pod| pod.echo(&["--listen", "0.0.0.0:80", "--quiet"]).unwrap());
    let service = node.service("service", 80, 80, &[&one]).unwrap();
    let other = node.service("other", 80, 80, &[&two]).unwrap();
    let to_other = Rule::to("other", 80).matching("path: {type: PathPrefix, value: /headers}");
    let route = Route::new("route", &service).rule(Rule::to("service", 80)).rule(to_other);
    let manifests = [service.manifest(), other.manifest(), route.manifest()];
    node.routes().write("all.yaml", &manifests.join("---\n")).unwrap();
    let agent = Agent::start(&node, &[&client], &FLAGS).unwrap();
    let _warm = keep(&client, WARM, 4, &["/get", "/headers"]);
    let before = settled(&agent);
    let _kept = keep(&client, COUNT, 4, &["/get", "/headers"]);
    let each = grown_by(&agent, before, COUNT);
    println!("{COUNT} idle connections with two upstream connections: {each:.1} KiB each");
    assert!(each < MOST_KIB, "{each}");
}

//! A captured connection behaves as an uncaptured one: as many connections at the primary, the
//! endpoint that the client asked for, and a dead primary that is noticed.
#![allow(clippy::unwrap_used, reason = "helpers of tests; clippy knows only the tests themselves")]

use std::time::Duration;

use mirror_tests::{
    Agent, Copies, Echo, Node, Pair, Peer, Pod,
    cluster::go as go_command,
    manifest::{CONSENT, Route, Rule},
    pair::script,
    slowness,
};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(60);

/// The route does no more than mirror.
fn mirroring() -> Rule {
    Rule::to("web", 8000).mirror("shadow", 80)
}

/// Connections that servers in the pod's network namespace have accepted so far (RFC 4022,
/// tcpPassiveOpens).
fn accepted(pod: &Pod) -> u64 {
    let text = pod.run(&["cat", "/proc/net/snmp"], SOON).unwrap().ok().unwrap();
    let mut tcp = text.lines().filter(|line| line.starts_with("Tcp:"));
    let (names, values) = (tcp.next().unwrap(), tcp.next().unwrap());
    let at = names.split(' ').position(|name| name == "PassiveOpens").unwrap();
    values.split(' ').nth(at).unwrap().parse().unwrap()
}

/// A client, and how it is called.
struct Caller {
    name: &'static str,
    argv: Vec<String>,
}

impl Caller {
    fn new(name: &'static str, argv: &[&str]) -> Self {
        Self { name, argv: argv.iter().map(ToString::to_string).collect() }
    }
}

fn callers(pair: &Pair) -> Vec<Caller> {
    let url = "http://web:8000/get";
    let go = pair.node.folder().join("requests");
    let go = go.to_string_lossy();
    let built = go_command().unwrap().args(["build", "-o", &go, &script("requests.go")]).status();
    assert!(built.unwrap().success(), "Go 1.22 or later builds scripts/requests.go");
    let each = format!("for i in 1 2 3 4 5 6 7 8 9 10; do curl -sS -m 5 -o /dev/null {url}; done");
    let java = script("Requests.java");
    vec![
        Caller::new("wrk, 8 connections", &["wrk", "-t1", "-c8", "-d1s", url]),
        Caller::new("h2load, 6 connections", &["h2load", "--h1", "-c6", "-n120", url]),
        Caller::new("a connection per request", &["sh", "-c", &each]),
        Caller::new("Go, 20 requests", &[&go, url, "20"]),
        Caller::new("Java, 20 requests", &["java", &java, url, "20"]),
        Caller::new(
            "Python, 21 requests",
            &["python3", &script("keepalive.py"), "web", "8000", "21", "t"],
        ),
    ]
}

#[test]
fn a_primary_gets_as_many_connections_as_without_mirror() {
    let pair = Pair::create("accounting").unwrap();
    let _echoes = [&pair.primary, &pair.shadow].map(|pod| Echo::start(&pair.node, pod).unwrap());
    let callers = callers(&pair);
    let count = |caller: &Caller| {
        let before = accepted(&pair.primary);
        let argv: Vec<_> = caller.argv.iter().map(String::as_str).collect();
        pair.run(&argv).unwrap();
        accepted(&pair.primary) - before
    };
    let direct: Vec<_> = callers.iter().map(count).collect();
    pair.write(&[mirroring()]).unwrap();
    let agent = pair.agent(&[]).unwrap();
    for (caller, direct) in callers.iter().zip(direct) {
        let captured = count(caller);
        println!("{}: {direct} connections direct, {captured} through mirror", caller.name);
        assert_eq!(captured, direct, "{}: {}", caller.name, agent.log());
    }
    let copies = Copies::settled(&agent).unwrap();
    assert!(copies.selected > 150, "{copies}");
}

/// A StatefulSet's client that asks for one pod's own address.
#[test]
fn a_headless_services_client_reaches_the_pod_that_it_requested() {
    let node = Node::create("headless").unwrap();
    let app = node.pod("app").unwrap();
    let pods = ["db-0", "db-1"].map(|name| node.pod(name).unwrap());
    let shadow = node.pod("shadow").unwrap();
    let echoes = [&pods[0], &pods[1]].map(|pod| Echo::start(&node, pod).unwrap());
    let copies = Echo::start(&node, &shadow).unwrap();
    let service = node.service("db", 80, 80, &[&pods[0], &pods[1]]).unwrap();
    let to = node.service("shadow", 80, 80, &[&shadow]).unwrap();
    let headless = service
        .manifest()
        .replace(&format!("clusterIP: {}", service.cluster_ip), "clusterIP: None");
    assert!(headless.contains("clusterIP: None"), "{headless}");
    node.routes().write("namespace.yaml", CONSENT).unwrap();
    node.routes().write("db.yaml", &headless).unwrap();
    node.routes().write("shadow.yaml", &to.manifest()).unwrap();
    let route = Route::new("db", &service).rule(Rule::to("db", 80).mirror("shadow", 80));
    node.routes().write("route.yaml", &route.manifest()).unwrap();
    for choice in ["service", "mirror"] {
        let agent = Agent::start(&node, &[&app], &["--endpoints", choice]).unwrap();
        for at in 0..2 {
            let before: Vec<_> = echoes.iter().map(|echo| echo.seen().len()).collect();
            let script = format!(
                "for i in 1 2 3 4 5 6 7 8 9 10; do curl -sS -m 5 -o /dev/null http://{}/{choice}-{at}; done",
                pods[at].ip()
            );
            app.run(&["sh", "-c", &script], SOON).unwrap().ok().unwrap();
            let seen: Vec<_> = echoes.iter().map(|echo| echo.seen().len()).collect();
            assert_eq!(seen[at] - before[at], 10, "{choice}: {}", agent.log());
            assert_eq!(seen[1 - at], before[1 - at], "{choice}: db-{} was not asked", 1 - at);
            copies.wait(&format!("{choice}-{at}"), 10).unwrap();
        }
    }
}

/// Asks for a stream, cuts the primary's link, and returns how that ended within so many seconds.
fn after_a_cut(pair: &Pair, keepalive: &str, seconds: u32) -> Value {
    let path = script("dead_peer.py");
    let seconds = (f64::from(seconds) * slowness()).to_string();
    let argv = ["python3", &path, "wait", "web", "8000", &seconds, keepalive];
    let mut client = pair.client.spawn("watcher", &argv).unwrap();
    mirror_tests::eventually("the stream begins", SOON, || client.stdout().contains("streaming"))
        .unwrap();
    let drop =
        |hook| format!("chain {hook} {{ type filter hook {hook} priority -300; policy drop; }}\n");
    let cut = format!("table ip cut {{ {} {} }}", drop("input"), drop("output"));
    pair.primary.netns().nft(&cut).unwrap();
    let status = client.wait(SOON * 3).unwrap();
    pair.primary.netns().nft("delete table ip cut").unwrap();
    assert!(status.is_some_and(|status| status.success()), "{}", client.stderr());
    let output = client.stdout();
    serde_json::from_str(output.lines().last().unwrap()).unwrap()
}

#[test]
fn a_dead_primary_is_noticed_by_a_client_with_keepalive_and_by_no_other() {
    let pair = Pair::create("keepalive").unwrap();
    let _server = Peer::start(&pair.node, &pair.primary, "dead_peer.py", &[]).unwrap();
    pair.write(&[mirroring()]).unwrap();
    let direct = after_a_cut(&pair, "2,2,9", 60);
    assert_ne!(direct["end"], "open", "{direct}");
    let agent = pair.agent(&[]).unwrap();
    let captured = after_a_cut(&pair, "2,2,9", 60);
    println!("the primary's link is cut: direct {direct}, through mirror {captured}");
    assert_ne!(captured["end"], "open", "{}", agent.log());
    // The connection is reset: there is no number for "timed out" that it could pass on.
    assert_eq!(captured["end"], "ConnectionResetError");
    let [direct, captured] = [&direct, &captured].map(|seen| seen["after"].as_f64().unwrap());
    assert!((0.9..2.0).contains(&(captured / direct)), "not sooner than direct, nor much later");
    let without = after_a_cut(&pair, "none", 15);
    assert_eq!(without["end"], "open", "a client without keepalive waits, as it does direct");
}

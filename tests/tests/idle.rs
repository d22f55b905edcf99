//! Idle connections: what each costs the agent for as long as its client keeps it open.
#![allow(clippy::unwrap_used, reason = "helpers of tests; clippy knows only the tests themselves")]

use std::time::Duration;

use mirror_tests::{
    Agent, Node, eventually,
    manifest::{Route, Rule},
    stats::verdict,
    usage,
};

const CONNECTIONS: u32 = 5_000;
const SHORT: Duration = Duration::from_secs(90);

/// What one may take, in a debug build as well; and what is wanted of a release build.
const MOST_KIB: f64 = 24.0;
const GOAL_KIB: f64 = 12.0;

/// Opens so many connections one after the other, has so many requests answered on each, and keeps
/// them.
const KEEPER: &str = r#"
import resource, socket, sys, time
count, requests = int(sys.argv[1]), int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_NOFILE, (count + 100, count + 100))
kept = []
for _ in range(count):
    s = socket.create_connection(("service", 80), timeout=10)
    for _ in range(requests):
        s.sendall(b"GET /get HTTP/1.1\r\nHost: service\r\n\r\n")
        got = b""
        while b"\r\n\r\n" not in got:
            got += s.recv(65536)
    kept.append(s)
print("open", flush=True)
time.sleep(600)
"#;

#[test]
fn an_idle_connection_costs_little() {
    let node = Node::create("idle").unwrap();
    let (client, primary) = (node.pod("client").unwrap(), node.pod("primary").unwrap());
    let shadow = node.pod("shadow").unwrap();
    let _echo = primary.echo(&["--listen", "0.0.0.0:80", "--quiet"]).unwrap();
    let _copies = shadow.echo(&["--listen", "0.0.0.0:80", "--quiet"]).unwrap();
    let service = node.service("service", 80, 80, &[&primary]).unwrap();
    let mirror = node.service("mirror", 80, 80, &[&shadow]).unwrap();
    let route = Route::new("route", &service).rule(Rule::to("service", 80).mirror("mirror", 80));
    let manifests = [service.manifest(), mirror.manifest(), route.manifest()];
    node.routes().write("all.yaml", &manifests.join("---\n")).unwrap();
    for requests in ["0", "3"] {
        let agent = Agent::start(&node, &[&client], &["--workers", "1"]).unwrap();
        let before = usage::rss(agent.pid()).unwrap();
        let argv = ["python3", "-c", KEEPER, &CONNECTIONS.to_string(), requests];
        let keeper = client.spawn("keeper", &argv).unwrap();
        eventually("all are open", SHORT, || keeper.stdout().contains("open")).unwrap();
        // A connection keeps its buffers for up to 2 s after its last request.
        std::thread::sleep(Duration::from_secs(3));
        let grown = usage::rss(agent.pid()).unwrap().saturating_sub(before) as f64 / 1024.0;
        let each = grown / f64::from(CONNECTIONS);
        println!(
            "{CONNECTIONS} idle connections after {requests} requests: {each:.1} KiB each (goal \
             {GOAL_KIB}: {})",
            verdict(each, GOAL_KIB)
        );
        let open = agent.metric("mirror_open_connections", &[("kind", "http1")]).unwrap();
        let expected = if requests == "0" { 0.0 } else { f64::from(CONNECTIONS) };
        assert_eq!(open, expected, "as many are open as the client keeps and has used");
        assert!(each < MOST_KIB, "{each}");
    }
}

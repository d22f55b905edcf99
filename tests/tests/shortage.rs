//! An agent that runs out of what it has: of descriptors, and of patience with a peer that makes it
//! write lines. What it carries goes on, new connections go direct, and its log stays readable.
#![allow(clippy::unwrap_used, reason = "helpers of tests; clippy knows only the tests themselves")]

use std::time::Duration;

use mirror_tests::{
    Agent, Node, Pod, Process, Service, eventually,
    manifest::{Route, Rule},
    mirror_binary,
};

const SHORT: Duration = Duration::from_secs(20);

/// A primary behind a Service whose route marks what the agent has carried, and a client.
struct TestBed {
    _service: Service,
    _echo: Process,
    client: Pod,
    _primary: Pod,
    // Last: its drop removes everything.
    node: Node,
}

impl TestBed {
    fn new(name: &str) -> Self {
        let node = Node::create(name).unwrap();
        let (primary, client) = (node.pod("primary").unwrap(), node.pod("client").unwrap());
        let echo = primary.echo(&["--listen", "0.0.0.0:80", "--quiet"]).unwrap();
        let service = node.service("service", 80, 80, &[&primary]).unwrap();
        let route = Route::new("route", &service).rule(Rule::to("service", 80).mark());
        let manifests = [service.manifest(), route.manifest()];
        node.routes().write("all.yaml", &manifests.join("---\n")).unwrap();
        Self { _service: service, _echo: echo, client, _primary: primary, node }
    }

    fn python(&self, name: &str, script: &str) -> Process {
        self.client.spawn(name, &["python3", "-c", script]).unwrap()
    }
}

/// Opens 300 connections with a request on each, and asks again on all of those that the agent
/// carries; then closes them, and asks once more.
const MANY: &str = r#"
import http.client, time
def ask(connection):
    connection.request("GET", "/get")
    response = connection.getresponse()
    response.read()
    return response.headers.get("x-via", "direct")
def connect():
    return http.client.HTTPConnection("service", 80, timeout=5)
carried, counts, failed = [], {"agent": 0, "direct": 0}, 0
for _ in range(300):
    connection = connect()
    try:
        via = ask(connection)
        counts[via] += 1
        if via == "agent":
            carried.append(connection)
    except OSError:
        failed += 1
print("opened", counts["agent"], counts["direct"], failed, flush=True)
time.sleep(2)
lost = 0
for connection in carried:
    connection.auto_open = False
    try:
        ask(connection)
    except Exception:
        lost += 1
print("lost", lost, flush=True)
for connection in carried:
    connection.close()
time.sleep(4)
print("then", ask(connect()), flush=True)
"#;

#[test]
fn without_descriptors_what_is_carried_stays_and_what_is_new_goes_direct() {
    let test_bed = TestBed::new("descriptors");
    let binary = mirror_binary().unwrap();
    let command = ["prlimit", "--nofile=256:256", &*binary.to_string_lossy()];
    let capture = format!("client={}", test_bed.client.cgroup().display());
    let flags = ["--workers", "1"];
    let agent = Agent::start_as(&test_bed.node, "agent", &command, &[&capture], &flags).unwrap();
    let many = test_bed.python("many", MANY);
    eventually("it has asked again", Duration::from_secs(90), || many.stdout().contains("then"))
        .unwrap_or_else(|error| {
            panic!("{error}: {}{}\n{}", many.stdout(), many.stderr(), agent.log())
        });
    let told = many.stdout();
    println!("{told}");
    let numbers = |name: &str| -> Vec<u32> {
        let line = told.lines().find(|line| line.starts_with(name)).unwrap();
        line.split(' ').skip(1).map(|number| number.parse().unwrap()).collect()
    };
    let [carried, direct, failed] = numbers("opened")[..] else { panic!("{told}") };
    assert!(carried >= 50 && direct >= 50, "{told}");
    // Those that were on their way when the last descriptor went.
    assert!(failed <= 5, "{told}\n{}", agent.log());
    assert_eq!(numbers("lost"), [0], "{told}\n{}", agent.log());
    assert!(told.ends_with("then agent\n"), "{told}\n{}", agent.log());
    let log = agent.log();
    assert!(log.lines().count() < 400, "{} lines", log.lines().count());
}

/// 600,000 acknowledgements of PINGs that nobody has sent, 10 MB, on one connection of HTTP/2.
const PINGS: &str = r#"
import socket
connection = socket.create_connection(("service", 80))
connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
ping = bytes([0, 0, 8, 6, 1, 0, 0, 0, 0]) + b"unasked!"
sent = 0
try:
    for _ in range(600):
        connection.sendall(ping * 1000)
        sent += 1000
except OSError:
    pass
print("sent", sent, flush=True)
"#;

#[test]
fn a_peer_that_provokes_warnings_does_not_fill_the_log() {
    let test_bed = TestBed::new("pings");
    let agent = Agent::start(&test_bed.node, &[&test_bed.client], &["--workers", "1"]).unwrap();
    let before = agent.log().len();
    let pings = test_bed.python("pings", PINGS);
    eventually("all is sent", Duration::from_secs(60), || pings.stdout().contains("sent")).unwrap();
    let log = agent.log();
    let grown = log.len() - before;
    println!("{}the log grew by {grown} bytes", pings.stdout());
    assert!(grown < 20_000, "{grown} bytes: {}", &log[before..before + 2000]);
    let suppressed = agent.metric("mirror_log_suppressed_total", &[]).unwrap();
    if suppressed > 0.0 {
        assert!(log[before..].contains("lines of the log were left out"), "{log}");
    }
    let argv = ["curl", "-sS", "-m", "5", "http://service/get"];
    test_bed.client.run(&argv, SHORT).unwrap().ok().unwrap();
}

//! A route that changes 100 times a second, by the watch of an API server, while clients are at it: no request is
//! lost, none goes where no version of the route sends it, and each change is in force soon.
//!
//! The API server is that of `scripts/api_server.py`, which knows when it hands a change over, to the
//! microsecond; a real one would take as much CPU as everything that is measured.
#![allow(clippy::unwrap_used, reason = "helpers of tests; clippy knows only the tests themselves")]

use std::{
    fs,
    time::{Duration, Instant},
};

use mirror_tests::{
    Agent, Copies, Node, Process, eventually,
    pair::{Echo, script},
    slowness,
    stats::verdict,
};
use serde_json::{Value, json};

const PORT: u16 = 18_001;
const CHANGES: usize = 1_000;
const RATE: usize = 100;
/// In seconds: longer than the changes take.
const LOAD: &str = "13";

/// Connections that are kept, and new ones a second.
const KEPT: &str = "4";
const NEW: &str = "50";

/// How soon 99 of 100 changes must be in force.
const SOON: Duration = Duration::from_millis(300);

/// One exchange of the client.
struct Exchange {
    start: f64,
    end: f64,
    outcome: String,
    /// The number of the version that it met.
    state: Option<usize>,
}

/// Asks the API server of the test, on the node.
fn post(node: &Node, path: &str, body: &Value) -> String {
    let url = format!("http://127.0.0.1:{PORT}/test/{path}");
    let body = body.to_string();
    let argv = ["curl", "-sSf", "-m", "60", "--data-binary", &body, &url];
    node.run(&argv, Duration::from_secs(70)).unwrap().ok().unwrap()
}

fn api_server(node: &Node) -> Process {
    let (path, port) = (script("api_server.py"), PORT.to_string());
    // Of the hostile Namespace nothing; the normal one's Service is none of the test's.
    let argv = ["python3", &path, &port, "0", "0", "x", "10.96.255.1", "192.0.2.9"];
    let server = node.spawn("api-server", &argv).unwrap();
    let populated = || server.stdout().contains("populated");
    eventually("the API server is populated", Duration::from_secs(20), populated).unwrap();
    server
}

/// Versions of the route: requests go to this backend, are marked with the version, and are copied.
fn version(backend: &str) -> Value {
    let mark = |kind: &str, field: &str| json!({"type": kind, field: {"set": [{"name": "x-state", "value": "STATE"}]}});
    let mirror = json!({"backendRef": {"name": "shadow", "port": 80}});
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "web", "namespace": "default", "uid": "web", "generation": 1},
        "spec": {
            "parentRefs": [{"group": "", "kind": "Service", "name": "web"}],
            "rules": [{
                "filters": [
                    mark("RequestHeaderModifier", "requestHeaderModifier"),
                    mark("ResponseHeaderModifier", "responseHeaderModifier"),
                    {"type": "RequestMirror", "requestMirror": mirror},
                ],
                "backendRefs": [{"name": backend, "port": 80}],
            }],
        },
    })
}

/// One of them.
fn numbered(versions: &Value, number: usize) -> Value {
    let text = versions.to_string().replace("STATE", &number.to_string());
    serde_json::from_str(&text).unwrap()
}

fn exchanges(client: &Process) -> Vec<Exchange> {
    let text = client.stdout();
    let parse = |line| {
        let (start, end, _kind, outcome, state): (f64, f64, String, String, String) =
            serde_json::from_str(line).unwrap();
        Exchange { start, end, outcome, state: state.parse().ok() }
    };
    text.lines().map(parse).collect()
}

/// For each change (number 1 is the first), how long until a response met it or a later one. In seconds, in ascending order.
fn delays(times: &[f64], exchanges: &[Exchange]) -> Vec<f64> {
    let mut ends: Vec<_> = exchanges.iter().filter_map(|e| Some((e.end, e.state?))).collect();
    ends.sort_by(|a, b| a.0.total_cmp(&b.0));
    let delay = |(at, time): (usize, &f64)| {
        let met = ends.iter().find(|(end, state)| end > time && *state > at);
        met.map_or(f64::INFINITY, |(end, _)| end - time)
    };
    let mut delays: Vec<_> = times.iter().enumerate().map(delay).collect();
    delays.sort_by(f64::total_cmp);
    delays
}

/// No request meets a version that was not handed over yet, nor an older one than a response before it met.
fn check_order(times: &[f64], exchanges: &[Exchange]) {
    let state = |exchange: &Exchange| exchange.state.expect("each response says its version");
    let mut ended: Vec<_> = exchanges.iter().collect();
    ended.sort_by(|a, b| a.end.total_cmp(&b.end));
    let mut begun: Vec<_> = exchanges.iter().collect();
    begun.sort_by(|a, b| a.start.total_cmp(&b.start));
    let (mut ended, mut newest) = (ended.into_iter().peekable(), 0);
    for exchange in begun {
        while let Some(before) = ended.next_if(|before| before.end < exchange.start) {
            newest = newest.max(state(before));
        }
        let state = state(exchange);
        assert!(state >= newest, "version {state} after version {newest}");
        let handed_over = state == 0 || times[state - 1] < exchange.end;
        assert!(handed_over, "version {state} came before it was handed over");
    }
}

/// The versions of the requests that a server got: all must have this remainder of 2.
fn check_server(echo: &Echo, parity: usize) -> usize {
    let seen = echo.seen();
    for line in &seen {
        let fields = line["headers"].as_array().unwrap();
        let state = fields.iter().find(|field| field[0] == "x-state").unwrap();
        let state: usize = state[1].as_str().unwrap().parse().unwrap();
        assert_eq!(state % 2, parity, "a request went to the backend of another version: {line}");
    }
    seen.len()
}

#[test]
fn a_route_that_changes_100_times_a_second_loses_nothing() {
    let node = Node::create("rapid").unwrap();
    let [app, even, odd, copies] =
        ["app", "even", "odd", "copies"].map(|name| node.pod(name).unwrap());
    let echoes = [&even, &odd].map(|pod| Echo::start(&node, pod).unwrap());
    let _shadow = copies.echo(&["--listen", "0.0.0.0:80", "--quiet"]).unwrap();
    let web = node.service("web", 80, 80, &[&even]).unwrap();
    let _server = api_server(&node);
    for (name, pod) in [("even", &even), ("odd", &odd), ("shadow", &copies)] {
        let service = node.service(name, 80, 80, &[pod]).unwrap();
        put(&node, &service.manifest());
    }
    put(&node, &web.manifest());
    let versions = json!([version("even"), version("odd")]);
    post(&node, "put?kind=httproutes", &numbered(&version("even"), 0));

    let config = node.routes().path().with_extension("kubeconfig");
    fs::write(&config, kubeconfig()).unwrap();
    let mut agent = Agent::follow(&node, "agent", &config, &[&app], &[]).unwrap();
    agent.wait_ready().unwrap();

    let (path, host) = (script("observe.py"), web.cluster_ip.to_string());
    let argv = ["python3", &path, &host, "80", LOAD, KEPT, NEW];
    let mut client = app.spawn("observe", &argv).unwrap();
    let runs = || client.stderr().contains("running");
    eventually("the client runs", Duration::from_secs(10), runs).unwrap();
    let begun = Instant::now();
    let times = post(&node, &format!("changes?count={CHANGES}&rate={RATE}"), &versions);
    let took = begun.elapsed();
    let times: Vec<f64> = serde_json::from_str(&times).unwrap();
    client.wait(Duration::from_secs(30)).unwrap().unwrap();

    let exchanges = exchanges(&client);
    let delays = delays(&times, &exchanges);
    let (half, most) = (delays[CHANGES / 2], delays[CHANGES * 99 / 100]);
    println!(
        "{CHANGES} changes in {took:?} under {} requests: in force after p50 {:.1} ms, p99 {:.1} ms, \
         longest {:.1} ms",
        exchanges.len(),
        half * 1e3,
        most * 1e3,
        delays[CHANGES - 1] * 1e3,
    );
    println!("goal: p99 within {SOON:?}: {}", verdict(most, SOON.as_secs_f64()));
    let failed: Vec<_> = exchanges.iter().filter(|e| e.outcome != "200").collect();
    let first = failed.first().map(|e| (&e.outcome, e.start));
    assert!(failed.is_empty(), "{} failed: {first:?}\n{}", failed.len(), agent.log());
    assert!(exchanges.len() > 2_000, "the client was too slow: {}", exchanges.len());
    check_order(&times, &exchanges);
    let arrived = check_server(&echoes[0], 0) + check_server(&echoes[1], 1);
    assert_eq!(arrived, exchanges.len(), "each request arrived once");
    let copies = Copies::settled(&agent).unwrap();
    assert_eq!(copies.selected, exchanges.len() as u64, "{copies:?}");
    assert!(most < SOON.as_secs_f64() * slowness(), "p99 {most} s\n{}", agent.log());
}

/// The objects of a manifest, put into the API server.
fn put(node: &Node, manifest: &str) {
    for document in serde_saphyr::from_multiple::<Value>(manifest).unwrap() {
        let kind = match document["kind"].as_str().unwrap() {
            "Service" => "services",
            "EndpointSlice" => "endpointslices",
            other => panic!("{other}"),
        };
        post(node, &format!("put?kind={kind}"), &document);
    }
}

fn kubeconfig() -> String {
    format!(
        "apiVersion: v1\nkind: Config\nclusters: [{{name: c, cluster: {{server: \
         'http://127.0.0.1:{PORT}'}}}}]\nusers: [{{name: u, user: {{}}}}]\ncontexts: [{{name: c, \
         context: {{cluster: c, user: u}}}}]\ncurrent-context: c\n"
    )
}

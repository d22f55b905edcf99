//! Tapped routes: no hop between the client and its primary, and copies that equal what the client has sent.
#![allow(clippy::unwrap_used, reason = "helpers of tests; clippy knows only the tests themselves")]

use std::{collections::HashMap, time::Duration};

use mirror_tests::{
    Agent, Copies, Pair, Peer, Process, Signal, eventually,
    manifest::Rule,
    pair::{config, script},
};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(60);

/// The route does no more than mirror.
fn mirroring() -> Rule {
    Rule::to("web", 8000).mirror("shadow", 80)
}

/// A stage with servers that take down what they get, and an agent that taps.
fn stage(name: &str) -> (Pair, [Peer; 2]) {
    let pair = Pair::dual(name).unwrap();
    let peers = Peer::both(&pair, "tap_server.py", &[]).unwrap();
    pair.write(&[mirroring()]).unwrap();
    (pair, peers)
}

/// What the client sent, by number.
fn sent(report: &Value) -> HashMap<String, Value> {
    let sent = report["sent"].as_array().unwrap().iter();
    sent.map(|request| (request["id"].as_str().unwrap().to_owned(), request.clone())).collect()
}

/// What of a request must be the same everywhere.
fn essence(request: &Value) -> [&Value; 4] {
    ["id", "method", "length", "digest"].map(|field| &request[field])
}

/// How `/config` says that connections to `web` are captured.
fn capture(agent: &Agent<'_>) -> Value {
    let config = config(agent).unwrap();
    let frontends = config["frontends"].as_object().unwrap().values();
    let mut web = frontends.filter(|frontend| frontend["service"] == "default/web:8000");
    web.next().unwrap()["capture"].clone()
}

fn run(pair: &Pair, host: &str, prefix: &str, numbers: [u32; 4], shapes: &str) -> Value {
    let numbers = numbers.map(|number| number.to_string());
    let mut args = vec![host, "8000", prefix];
    args.extend(numbers.iter().map(String::as_str));
    args.push(shapes);
    pair.script("tap_client.py", &args).unwrap()
}

/// Everything that arrived whole equals what was sent, once. Returns how many did.
fn check(sent: &HashMap<String, Value>, seen: &[Value], prefix: &str) -> usize {
    let mut whole = HashMap::new();
    let with_prefix = |line: &&Value| line["id"].as_str().is_none_or(|id| id.starts_with(prefix));
    for line in seen.iter().filter(with_prefix).filter(|line| line["whole"] == true) {
        let id = line["id"].as_str().unwrap_or_else(|| panic!("not sent: {line}"));
        let request = sent.get(id).unwrap_or_else(|| panic!("not sent: {line}"));
        assert_eq!(essence(line), essence(request), "{line}");
        let before = whole.insert(id.to_owned(), ());
        assert!(before.is_none(), "twice: {line}");
    }
    whole.len()
}

#[test]
fn a_tapped_client_has_no_hop_and_its_copies_equal_what_it_sent() {
    let (pair, [primary, shadow]) = stage("tap");
    let agent = pair.agent(&["--mode", "auto"]).unwrap();
    assert_eq!(capture(&agent), "tapped", "{}", agent.log());
    let web = pair.web.address().ip().to_string();
    let web6 = pair.web.address6().ip().to_string();
    let mut all = HashMap::new();
    for (family, host) in [("v4", &web), ("v6", &web6)] {
        let report = run(&pair, host, family, [8, 40, 1 << 20, 0], "get,post,chunked,pipelined");
        assert_eq!(report["failed"], serde_json::json!([]), "{}", agent.log());
        let requests = sent(&report);
        // Each connection ends with a batch that may go beyond its number.
        assert!(requests.len() >= 320);
        // The client's own address and port: nothing stands between.
        for line in primary.seen().iter().filter(|l| l["id"].as_str().unwrap().starts_with(family))
        {
            assert_eq!(line["peer"], requests[line["id"].as_str().unwrap()]["peer"], "{line}");
        }
        all.extend(requests);
    }
    let copies = Copies::settled(&agent).unwrap();
    println!("{copies}; {}", Copies::losses(&agent).unwrap());
    assert_eq!(check(&all, &primary.seen(), "v"), all.len());
    let copied = check(&all, &shadow.seen(), "v");
    let metrics = agent.metrics().unwrap();
    assert_eq!(metrics.sum("mirror_requests_total", &[]), 0.0, "nothing was proxied");
    assert_eq!(metrics.sum("mirror_tapped_requests_total", &[]), all.len() as f64);
    assert_eq!(metrics.sum("mirror_tap_stopped_total", &[]), 0.0);
    assert_eq!(metrics.sum("mirror_tapped_connections_total", &[]), 16.0);
    assert_eq!(copies.selected, all.len() as u64, "{copies}");
    assert_eq!(copied as u64, copies.delivered, "{copies}: {}", agent.log());
    // What is not delivered found no room with a server that takes its time, and is counted.
    assert!(copied * 10 >= all.len() * 9, "{copies}: {}", Copies::losses(&agent).unwrap());
}

/// Starts the client for so many seconds, on 16 connections that it never opens again.
fn load(pair: &Pair, prefix: &str, seconds: u32) -> Process {
    let path = script("tap_client.py");
    let seconds = seconds.to_string();
    let argv = ["python3", &path, "web", "8000", prefix, "16", "0", "20000", &seconds];
    pair.client.spawn(prefix, &argv).unwrap()
}

/// Waits for its end: what it reports.
fn report(mut client: Process) -> Value {
    let status = client.wait(SOON).unwrap();
    assert!(status.is_some_and(|status| status.success()), "{}", client.stderr());
    serde_json::from_str(&client.stdout()).unwrap()
}

#[test]
fn an_agent_that_dies_or_stops_breaks_no_connection() {
    let (pair, [primary, shadow]) = stage("tap-death");
    for (signal, prefix) in [(Signal::SIGKILL, "kill"), (Signal::SIGSTOP, "stop")] {
        let mut agent = pair.agent(&["--mode", "auto"]).unwrap();
        let client = load(&pair, prefix, 8);
        let copied = || {
            let seen = shadow.seen();
            seen.iter()
                .filter(|l| l["id"].as_str().is_some_and(|id| id.starts_with(prefix)))
                .count()
        };
        eventually("copies are made", SOON, || copied() > 200).unwrap();
        agent.signal(signal).unwrap();
        let report = report(client);
        assert_eq!(report["failed"], serde_json::json!([]), "{prefix}");
        let requests = sent(&report);
        assert_eq!(check(&requests, &primary.seen(), prefix), requests.len());
        let copied = check(&requests, &shadow.seen(), prefix);
        println!("{prefix}: {copied} of {} were copied before", requests.len());
        assert!(copied > 200 && copied < requests.len(), "the agent was gone before the client");
        agent.kill().unwrap();
    }
}

#[test]
fn a_route_that_begins_or_ceases_to_only_mirror_moves_new_connections() {
    let (pair, [primary, shadow]) = stage("tap-mode");
    let more = mirroring().field("timeouts: {request: 30s}");
    pair.write(std::slice::from_ref(&more)).unwrap();
    // What is tapped leads to the frontend itself, as what predates capture does.
    let agent = pair.agent(&["--mode", "auto", "--reset-existing"]).unwrap();
    let mut requests = HashMap::new();
    let mut proxied = 0.0;
    let rounds = [("proxied", "a"), ("tapped", "b"), ("proxied", "c"), ("tapped", "d")];
    for (round, (expected, prefix)) in rounds.into_iter().enumerate() {
        assert_eq!(capture(&agent), expected, "{}", agent.log());
        let across = load(&pair, &format!("{prefix}-across"), 4);
        let of_across = || {
            let ids = |line: &Value| line["id"].as_str().map(str::to_owned);
            let seen = primary.seen().iter().filter_map(ids).collect::<Vec<_>>();
            seen.iter().filter(|id| id.starts_with(&format!("{prefix}-across"))).count()
        };
        eventually("the long one runs", SOON, || of_across() > 100).unwrap();
        let report_new = run(&pair, "web", prefix, [4, 10, 10_000, 0], "get,post,chunked");
        assert_eq!(report_new["failed"], serde_json::json!([]));
        let own = |line: &Value| {
            let request = &sent(&report_new)[line["id"].as_str().unwrap()];
            line["peer"] == request["peer"]
        };
        let new = |line: &&Value| line["id"].as_str().unwrap().starts_with(&format!("{prefix}-0-"));
        let seen = primary.seen();
        assert!(seen.iter().filter(new).all(|line| own(line) == (expected == "tapped")));
        requests.extend(sent(&report_new));
        assert_eq!(agent.metric("mirror_predating_connections", &[]).unwrap(), 0.0);
        // The open connections stay what they are.
        let next = if round % 2 == 0 { mirroring() } else { more.clone() };
        pair.apply(&agent, &[next]).unwrap();
        let across = report(across);
        assert_eq!(across["failed"], serde_json::json!([]), "{prefix}: {}", agent.log());
        requests.extend(sent(&across));
        let now = agent.metric("mirror_requests_total", &[]).unwrap();
        assert_eq!(now > proxied, expected == "proxied", "{prefix}: {now} of {proxied}");
        proxied = now;
    }
    Copies::settled(&agent).unwrap();
    assert_eq!(check(&requests, &primary.seen(), ""), requests.len());
    check(&requests, &shadow.seen(), "");
    // Those that were open, and tapped, when the route began to do more: no longer copied.
    let untapped = agent.metric("mirror_tap_stopped_total", &[("reason", "untapped")]).unwrap();
    assert_eq!(untapped, 32.0);
}

#[test]
fn what_cannot_be_read_from_the_clients_side_ends_the_copies_of_its_connection() {
    let (pair, [_primary, shadow]) = stage("tap-odd");
    let agent = pair.agent(&["--mode", "auto"]).unwrap();
    for (shape, reason, copied) in [
        ("tls", "tls", 0),
        ("http2", "http2", 0),
        ("redis", "malformed", 0),
        ("binary", "not_http", 0),
        ("expect", "expect", 0),
        ("connect", "connect", 0),
        ("websocket", "upgrade", 0),
        ("offer", "upgrade", 1),
        ("twice", "malformed", 0),
        ("urgent", "urgent", 1),
    ] {
        let stopped = || agent.metric("mirror_tap_stopped_total", &[("reason", reason)]).unwrap();
        let before = stopped();
        pair.script("tap_odd.py", &["web", "8000", shape]).unwrap();
        eventually(shape, SOON, || stopped() >= before + 1.0).unwrap();
        Copies::settled(&agent).unwrap();
        let seen = shadow.seen();
        let own = seen.iter().filter(|l| l["id"].as_str().is_some_and(|id| id.starts_with(shape)));
        let own: Vec<_> = own.map(|line| line["id"].clone()).collect();
        assert_eq!(own.len(), copied, "{shape}: {own:?}");
        assert_eq!(stopped(), before + 1.0, "{shape}");
    }
    // What a client sends behind its last request is no request.
    pair.script("tap_odd.py", &["web", "8000", "close"]).unwrap();
    eventually("the last one", SOON, || shadow.seen().iter().any(|l| l["id"] == "close")).unwrap();
    Copies::settled(&agent).unwrap();
    assert!(shadow.seen().iter().all(|line| line["id"] != "close-after"));
    let all = agent.metric("mirror_tap_stopped_total", &[]).unwrap();
    assert_eq!(all, 10.0, "the end of a connection is no reason");
}

#[test]
fn with_a_small_ring_no_copy_is_wrong_and_all_are_accounted_for() {
    let (pair, [primary, shadow]) = stage("tap-ring");
    let agent = pair.agent(&["--mode", "tap", "--tap-ring", "256KiB", "--workers", "1"]).unwrap();
    let report = run(&pair, "web", "r", [50, 100, 200_000, 0], "get,post,chunked,pipelined");
    assert_eq!(report["failed"], serde_json::json!([]));
    let requests = sent(&report);
    let copies = Copies::settled(&agent).unwrap();
    assert_eq!(check(&requests, &primary.seen(), ""), requests.len());
    let whole = check(&requests, &shadow.seen(), "");
    let metrics = agent.metrics().unwrap();
    let sum = |name, labels: &[(&str, &str)]| metrics.sum(name, labels);
    let lost = sum("mirror_tap_bytes_total", &[("outcome", "lost")]);
    let stopped = sum("mirror_tap_stopped_total", &[]);
    println!(
        "{whole} of {} copied whole; {copies}; {lost} bytes lost, {stopped} of 50 connections ended; {}",
        requests.len(),
        Copies::losses(&agent).unwrap()
    );
    assert!(lost > 0.0, "the ring is to be too small");
    assert!(copies.selected <= requests.len() as u64, "{copies}");
    assert!(whole as u64 <= copies.delivered + copies.unknown, "{copies}");
    assert!(copies.delivered <= whole as u64, "{copies}: a copy counts that was not whole");
    let unseen = sum("mirror_tap_stopped_total", &[("reason", "no_room")]);
    assert_eq!(sum("mirror_tapped_connections_total", &[]) + unseen, 50.0);
}

#[test]
fn an_upgrade_of_the_agent_neither_doubles_nor_loses_copies() {
    let (pair, [primary, shadow]) = stage("tap-upgrade");
    let capture = format!("client={}", pair.client.cgroup().display());
    let start = |name, admin| {
        let flags = ["--mode", "auto", "--admin", admin];
        Agent::start_with(&pair.node, name, &[&capture], &flags).unwrap()
    };
    let mut old = start("old", "127.0.0.1:15920");
    let mut requests = HashMap::new();
    let mut round = 0;
    let mut some = |requests: &mut HashMap<_, _>| {
        round += 1;
        let report = run(&pair, "web", &format!("u{round}"), [5, 4, 3000, 0], "get,post,chunked");
        assert_eq!(report["failed"], serde_json::json!([]));
        requests.extend(sent(&report));
    };
    some(&mut requests);
    let mut new = start("new", "127.0.0.1:15921");
    (0..5).for_each(|_| some(&mut requests));
    old.signal(Signal::SIGTERM).unwrap();
    while old.wait(Duration::ZERO).unwrap().is_none() {
        some(&mut requests);
    }
    (0..5).for_each(|_| some(&mut requests));
    let tapped = || new.metric("mirror_tapped_connections_total", &[]).unwrap();
    let before = tapped();
    some(&mut requests);
    assert_eq!(tapped(), before + 5.0, "the new agent taps: {}", new.log());
    Copies::settled(&new).unwrap();
    assert_eq!(check(&requests, &primary.seen(), "u"), requests.len());
    let all = || check(&requests, &shadow.seen(), "u");
    eventually("all copies", SOON, || all() == requests.len()).unwrap();
    println!("{} requests, each copied once", requests.len());
    new.stop(SOON).unwrap();
}

#[test]
fn in_mode_tap_what_cannot_be_tapped_is_left_alone() {
    let (pair, [primary, shadow]) = stage("tap-only");
    pair.write(&[mirroring().field("timeouts: {request: 30s}")]).unwrap();
    let agent = pair.agent(&["--mode", "tap"]).unwrap();
    let why =
        config(&agent).unwrap()["frontends"].as_object().unwrap().values().next().unwrap().clone();
    assert_eq!(why["capture"], "direct", "{why}");
    assert_eq!(why["not_tapped"]["reason"], "timeouts", "{why}");
    let report = run(&pair, "web", "d", [2, 5, 100, 0], "get,post");
    let requests = sent(&report);
    assert_eq!(check(&requests, &primary.seen(), ""), requests.len());
    for line in primary.seen() {
        assert_eq!(line["peer"], requests[line["id"].as_str().unwrap()]["peer"]);
    }
    assert!(shadow.seen().is_empty());
    pair.apply(&agent, &[mirroring()]).unwrap();
    assert_eq!(capture(&agent), "tapped");
    let report = run(&pair, "web", "t", [2, 5, 100, 0], "get,post");
    let copies = Copies::settled(&agent).unwrap();
    assert_eq!(copies.delivered, sent(&report).len() as u64, "{copies}");
}

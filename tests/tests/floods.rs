//! What hostile HTTP/2 clients send, each for itself and bounded. The agent lives, its memory is
//! bounded, and a client of another connection notices nothing.
#![allow(clippy::unwrap_used, reason = "helpers of tests; clippy knows only the tests themselves")]

use std::{thread, time::Duration};

use mirror_tests::{Agent, Copies, Pair, Peer, Process, usage};
use serde_json::Value;

const MIB: u64 = 1 << 20;

/// The agent's memory may grow by this much under a flood.
const BOUND: u64 = 64 * MIB;

/// A flood of this kind, beside which another client goes on. Both pass the agent.
fn flood(pair: &Pair, agent: &Agent<'_>, kind: &str, count: u32) -> Value {
    let connections = || {
        let metrics = agent.metrics().unwrap();
        metrics.sum("mirror_connections_total", &[("kind", "http2")])
    };
    let accepted = connections();
    usage::reset_peak(agent.pid()).unwrap();
    let before = usage::rss(agent.pid()).unwrap();
    let count = count.to_string();
    let (told, other) = thread::scope(|scope| {
        let flood = scope.spawn(|| pair.peer("h2_flood.py", &[kind, "web", "8000", &count]));
        let other = bystander(pair);
        (flood.join().unwrap().unwrap(), other)
    });
    let growth = usage::peak_rss(agent.pid()).unwrap().saturating_sub(before);
    println!(
        "{kind}: {told}; the agent's RSS grew by {} KiB; the other client: {other}",
        growth / 1024
    );
    assert!(growth < BOUND, "{kind}: {growth} bytes");
    assert_eq!(connections() - accepted, 2.0, "{kind}: not both went through the agent");
    told
}

/// All of the flood was written, and taken.
fn taken_whole(told: &Value, count: u32) {
    assert!(told["written"] == count && told["stopped"].is_null(), "not all was taken: {told}");
    assert_eq!(told["end"], "open", "{told}");
}

/// The agent ended the connection: behind all of the flood, or while it was being written. Whether the
/// client sees a GOAWAY, and how far it comes, is a race with what it still sends.
fn stopped(told: &Value, count: u32) {
    assert!(told["end"] != "open", "it must be stopped: {told}");
    let error = told["stopped"].as_str();
    let broken =
        error.is_some_and(|error| ["ConnectionResetError", "BrokenPipeError"].contains(&error));
    assert!(told["written"] == count || broken, "not all was written: {told}");
}

/// 100 requests, one after the other on one connection: what h2load says of their times.
fn bystander(pair: &Pair) -> String {
    let argv = ["h2load", "-n100", "-c1", "-m1", "-T5", "http://web:8000/echo?id=other-0"];
    let report = pair.run(&argv).unwrap();
    assert!(report.contains("status codes: 100 2xx"), "{report}");
    let times = report.lines().find_map(|line| line.strip_prefix("time for request:"));
    let mut times = times.unwrap().split_whitespace();
    format!("{} to {}", times.next().unwrap(), times.next().unwrap())
}

fn stage(name: &str) -> (Pair, [Peer; 2]) {
    let pair = Pair::create(name).unwrap();
    let servers = Peer::both(&pair, "h2_server.py", &[]).unwrap();
    (pair, servers)
}

/// Still the same process, and ready.
fn alive(agent: &Agent<'_>) {
    assert_eq!(agent.get("/readyz").unwrap().0, 200, "{}", agent.log());
    assert!(agent.parsed("http2").unwrap() >= 100, "{}", agent.log());
    Copies::settled(agent).unwrap();
}

#[test]
fn rapid_resets() {
    let (pair, _servers) = stage("floodresets");
    let agent = pair.mirroring(&[]).unwrap();
    stopped(&flood(&pair, &agent, "resets", 20_000), 20_000);
    alive(&agent);
}

#[test]
fn heads_without_an_end() {
    let (pair, _servers) = stage("floodheads");
    let agent = pair.mirroring(&[]).unwrap();
    // 160 MB in all.
    stopped(&flood(&pair, &agent, "continuation", 10_000), 10_001);
    // 60 MB once its references are followed, in two frames.
    stopped(&flood(&pair, &agent, "hpack", 15_000), 2);
    alive(&agent);
}

#[test]
fn frames_that_want_responses_or_say_nothing() {
    let (pair, _servers) = stage("floodframes");
    let agent = pair.mirroring(&[]).unwrap();
    taken_whole(&flood(&pair, &agent, "settings", 100_000), 100_000);
    taken_whole(&flood(&pair, &agent, "pings", 100_000), 100_000);
    stopped(&flood(&pair, &agent, "empty", 100_000), 100_001);
    alive(&agent);
}

#[test]
fn many_idle_connections_and_streams() {
    let (pair, _servers) = stage("floodidle");
    let agent = pair.mirroring(&[]).unwrap();
    let spawn = |i: u32| -> Process {
        let python = mirror_tests::pair::venv("python").unwrap();
        let script = mirror_tests::pair::script("h2_parallel.py");
        let argv = [&*python, &*script, "web", "8000", "90", "/delay/2?id=idle-{}"];
        pair.client.spawn(&format!("idle{i}"), &argv).unwrap()
    };
    usage::reset_peak(agent.pid()).unwrap();
    let before = usage::rss(agent.pid()).unwrap();
    let mut clients: Vec<_> = (0..8).map(spawn).collect();
    thread::sleep(Duration::from_secs(1));
    bystander(&pair);
    for client in &mut clients {
        let status = client.wait(Duration::from_secs(20)).unwrap();
        assert!(status.is_some_and(|status| status.success()), "{}", client.stderr());
        let told: Value = serde_json::from_str(&client.stdout()).unwrap();
        assert_eq!(told["statuses"]["200"], 90, "{told}");
    }
    let growth = usage::peak_rss(agent.pid()).unwrap().saturating_sub(before);
    println!("720 streams that wait: the agent's RSS grew by {} KiB", growth / 1024);
    assert!(growth < BOUND, "{growth} bytes");
    alive(&agent);
}

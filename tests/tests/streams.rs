//! Single HTTP/2 streams and the bounds of connections: how streams end, GOAWAY, limits of
//! concurrent streams, windows that nobody opens. One stream's trouble is no other's.
#![allow(clippy::unwrap_used, reason = "helpers of tests; clippy knows only the tests themselves")]

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use mirror_tests::{Copies, Pair, Peer, eventually, usage};
use serde_json::{Value, json};

const MIB: u64 = 1 << 20;

/// How the streams ended whose target holds this, as the server saw it.
fn resets(lines: &[Value], part: &str) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    for line in lines.iter().filter(|line| line["target"].as_str().unwrap().contains(part)) {
        *counts.entry(line["reset"].as_str().unwrap_or("none").to_owned()).or_default() += 1;
    }
    counts
}

#[test]
fn streams_end_the_same_way_on_both_sides() {
    let pair = Pair::create("h2ends").unwrap();
    let [primary, shadow] = Peer::both(&pair, "h2_server.py", &[]).unwrap();
    let direct = pair.peer("h2_streams.py", &["web", "8000", "direct"]).unwrap();
    primary.wait("id=direct-before", 1).unwrap();
    // The copies of requests that the client gave up when they were complete go on that long.
    let agent = pair.mirroring(&["--shadow-response-timeout", "2s"]).unwrap();
    let captured = pair.peer("h2_streams.py", &["web", "8000", "captured"]).unwrap();
    assert_eq!(captured, direct, "{}", agent.log());
    assert_eq!(captured["hints"], json!([103]));
    assert_eq!(captured["reset"]["ENHANCE_YOUR_CALM"], "ENHANCE_YOUR_CALM");
    assert_eq!(captured["cut"]["REFUSED_STREAM"]["reset"], "REFUSED_STREAM");
    assert_eq!(captured["after_burst"], 200);
    // The client's resets arrive, of whole requests and of parts. Which code says so is the
    // proxy's affair, but for the one that clients use.
    primary.wait("id=captured-whole-", 5).unwrap();
    primary.wait("id=captured-part-", 5).unwrap();
    let seen = primary.seen();
    for part in ["id=captured-whole-", "id=captured-part-"] {
        let resets = resets(&seen, part);
        println!("{part}: {resets:?}");
        assert!(!resets.contains_key("none") && !resets.contains_key("connection"), "{resets:?}");
    }
    assert_eq!(resets(&seen, "id=captured-whole-CANCEL")["CANCEL"], 1);
    assert_eq!(resets(&seen, "id=captured-part-CANCEL")["CANCEL"], 1);
    for (part, complete) in [("id=captured-both", false), ("id=captured-read", true)] {
        let line = &primary.wait(part, 1).unwrap()[0];
        assert_eq!((&line["reset"], &line["complete"]), (&json!("CANCEL"), &json!(complete)));
    }
    let cut = &shadow.wait("id=captured-both", 1).unwrap()[0];
    assert_eq!((&cut["reset"], &cut["complete"]), (&json!("CANCEL"), &json!(false)));
    assert!(seen.iter().all(|line| line["error"].is_null()), "a broken connection: {seen:?}");
    let trailers = |server: &Peer| server.wait("id=captured-t", 1).unwrap()[0]["trailers"].clone();
    assert_eq!(
        (trailers(&primary), trailers(&shadow)),
        (json!({"x-hash": "abc"}), json!({"x-hash": "abc"}))
    );
    assert!(agent.parsed("http2").unwrap() > 60, "{}", agent.log());
    let copies = Copies::settled(&agent).unwrap();
    println!("{copies}\n{}", Copies::losses(&agent).unwrap());
    assert!(copies.delivered > 10, "{copies}");
    assert!(shadow.seen().iter().all(|line| line["error"].is_null()), "{:?}", shadow.seen());
}

#[test]
fn what_one_connection_does_not_take_waits_for_it_and_copies_take_another() {
    let pair = Pair::create("h2limit").unwrap();
    let [primary, shadow] = Peer::both(&pair, "h2_server.py", &["--streams", "10"]).unwrap();
    let agent = pair.mirroring(&[]).unwrap();
    let request = |tag: &str, count: usize| {
        let path = format!("/delay/0.3?id={tag}-{{}}");
        let got = pair.peer("h2_parallel.py", &["web", "8000", &count.to_string(), &path]).unwrap();
        assert_eq!(got["statuses"], json!({ "200": count }), "{got}\n{}", agent.log());
    };
    request("few", 30);
    let copies = Copies::settled(&agent).unwrap();
    let all = Copies { selected: 31, delivered: 31, ..Copies::default() };
    assert_eq!(copies, all, "{}", Copies::losses(&agent).unwrap());
    // More than a shadow's connections may be, which is four of ten streams.
    request("many", 80);
    let copies = Copies::settled(&agent).unwrap();
    let losses = Copies::losses(&agent).unwrap();
    println!("{copies}\n{losses}");
    assert!(losses.lines().all(|line| line.contains("reason=\"connections\"")), "{losses}");
    assert!(copies.delivered >= 31 + 41, "{copies}");
    let connections = |server: &Peer, tag: &str, count: usize| {
        assert!(server.seen().iter().all(|line| line["error"].is_null()), "more than the limit");
        let seen = server.wait(tag, count).unwrap();
        seen.iter().map(|line| line["connection"].as_u64()).collect::<HashSet<_>>().len()
    };
    assert_eq!(connections(&primary, "id=few-", 31), 1);
    assert_eq!(connections(&primary, "id=many-", 81), 1);
    assert!(connections(&shadow, "id=few-", 31) >= 3);
    assert_eq!(agent.parsed("http2").unwrap(), 112);
}

#[test]
fn a_goaway_costs_no_request_and_repeats_none() {
    let pair = Pair::create("h2last").unwrap();
    let [primary, shadow] = Peer::both(&pair, "h2_server.py", &["--last", "40"]).unwrap();
    let agent = pair.mirroring(&[]).unwrap();
    let got =
        pair.peer("h2_parallel.py", &["web", "8000", "90", "/delay/0.05?id=last-{}"]).unwrap();
    assert_eq!(got["statuses"], json!({ "200": 90 }), "{got}\n{}", agent.log());
    assert_eq!(got["goaway"], Value::Null, "the client's connection is not the primary's");
    let copies = Copies::settled(&agent).unwrap();
    println!("{copies}\n{}", Copies::losses(&agent).unwrap());
    assert_eq!(copies.delivered, 91, "{}", Copies::losses(&agent).unwrap());
    for server in [&primary, &shadow] {
        let seen = server.wait("id=last-", 91).unwrap();
        let targets: HashSet<_> = seen.iter().map(|line| line["target"].to_string()).collect();
        let connections: HashSet<_> = seen.iter().map(|line| line["connection"].as_u64()).collect();
        println!("{} connections", connections.len());
        assert_eq!(targets.len(), 91);
        assert!(connections.len() >= 3, "{connections:?}");
    }
    // A body cannot be sent again; what was not looked at is refused, so that the client may.
    let path = "/delay/0.05?id=post-{}";
    let got = pair.peer("h2_parallel.py", &["web", "8000", "90", path, "body"]).unwrap();
    println!("{got}");
    let ok = got["statuses"]["200"].as_u64().unwrap();
    let refused = got["resets"]["REFUSED_STREAM"].as_u64().unwrap_or(0);
    assert_eq!(ok + refused, 90, "{got}\n{}", agent.log());
    let seen = primary.wait("id=post-", usize::try_from(ok + 1).unwrap()).unwrap();
    let targets: HashSet<_> = seen.iter().map(|line| line["target"].to_string()).collect();
    assert_eq!(targets.len() as u64, ok + 1, "none twice");
    assert_eq!(agent.parsed("http2").unwrap(), 182);
}

#[test]
fn streams_that_nobody_reads_hold_up_no_other() {
    let pair = Pair::create("h2windows").unwrap();
    let [primary, shadow] = Peer::both(&pair, "h2_server.py", &[]).unwrap();
    let agent = pair.mirroring(&[]).unwrap();
    // What the first requests allocate for good is not growth.
    pair.peer("h2_parallel.py", &["web", "8000", "50", "/echo?id=warm-{}"]).unwrap();
    Copies::settled(&agent).unwrap();
    usage::reset_peak(agent.pid()).unwrap();
    let before = usage::rss(agent.pid()).unwrap();
    let got = pair.peer("h2_windows.py", &["web", "8000", "windows", "0.5"]).unwrap();
    let growth = usage::peak_rss(agent.pid()).unwrap().saturating_sub(before);
    println!("{got}: the agent's RSS grew by {} KiB", growth / 1024);
    assert_eq!(got["answered"], 200, "{}", agent.log());
    assert!(got["seconds"].as_f64().unwrap() < 5.0, "{got}");
    // 128 MiB were asked for and as much was to be sent: only windows let something through.
    assert!(got["got"].as_u64().unwrap() < 16 * MIB, "{got}");
    assert!(got["sent"].as_u64().unwrap() < 32 * MIB, "{got}");
    assert!(growth < 32 * MIB, "{growth} bytes");
    assert!(agent.parsed("http2").unwrap() >= 268);
    // Gone clients leave nothing behind.
    let copies = Copies::settled(&agent).unwrap();
    println!("{copies}\n{}", Copies::losses(&agent).unwrap());
    primary.wait("id=windows-down-", 8).unwrap();
    primary.wait("id=windows-up-", 8).unwrap();
    drop(shadow);
}

#[test]
fn a_thousand_watches_leave_room_for_a_request() {
    let pair = Pair::create("h2watches").unwrap();
    let servers = Peer::both(&pair, "h2_server.py", &["--streams", "5000"]).unwrap();
    let watch = |tag| {
        let got = pair.peer("h2_watches.py", &["web", "8000", "1000", tag]).unwrap();
        println!("{tag}: {got}");
        got
    };
    let direct = watch("direct");
    let agent = pair.mirroring(&[]).unwrap();
    usage::reset_peak(agent.pid()).unwrap();
    let before = usage::rss(agent.pid()).unwrap();
    let captured = watch("captured");
    let growth = usage::peak_rss(agent.pid()).unwrap().saturating_sub(before);
    println!("the agent's RSS grew by {} KiB for 1,000 streams and their copies", growth / 1024);
    for got in [&direct, &captured] {
        assert_eq!((&got["begun"], &got["beside"]), (&json!(1000), &json!(200)), "{}", agent.log());
    }
    let seen = servers[0].wait("id=captured-", 1002).unwrap();
    let connections: HashSet<_> = seen.iter().map(|line| line["connection"].as_u64()).collect();
    assert_eq!(connections.len(), 1, "{connections:?}");
    assert!(growth < 64 * MIB, "{growth} bytes");
}

/// Seconds until a client that sends PINGs knows that the primary is gone.
fn noticed(pair: &Pair, tag: &str) -> f64 {
    let python = mirror_tests::pair::venv("python").unwrap();
    let script = mirror_tests::pair::script("h2_keepalive.py");
    let mut client = pair.client.spawn(tag, &[&python, &script, "web", "8000", tag, "20"]).unwrap();
    let opened = || client.stdout().contains("open");
    eventually("the stream is open", Duration::from_secs(10), opened).unwrap();
    // So that some are acknowledged before.
    std::thread::sleep(Duration::from_millis(2500));
    // Nothing comes from it any more, and nothing goes to it: no FIN, no RST.
    let nft = |rules: &str| {
        pair.primary.run(&["nft", rules], Duration::from_secs(5)).unwrap().ok().unwrap();
    };
    nft("add table inet cut; \
         add chain inet cut in { type filter hook input priority 0; policy drop; }; \
         add chain inet cut out { type filter hook output priority 0; policy drop; }");
    let cut = Instant::now();
    let status = client.wait(Duration::from_secs(25)).unwrap();
    let seconds = cut.elapsed().as_secs_f64();
    nft("delete table inet cut");
    assert!(status.is_some_and(|status| status.success()), "{}", client.stderr());
    let told: Value = serde_json::from_str(client.stdout().lines().last().unwrap()).unwrap();
    println!("{tag}: {told} after {seconds:.1} s");
    assert!(told["acknowledged"].as_u64().unwrap() >= 2, "{told}");
    assert!(told["given_up"].is_f64(), "the client never noticed: {told}");
    seconds
}

#[test]
fn a_client_that_sends_pings_notices_that_its_primary_is_gone() {
    let pair = Pair::create("h2gone").unwrap();
    let _servers = Peer::both(&pair, "h2_server.py", &[]).unwrap();
    let direct = noticed(&pair, "direct");
    let agent = pair.mirroring(&[]).unwrap();
    let captured = noticed(&pair, "captured");
    assert!(captured < direct + 2.0, "{captured} s, direct {direct} s\n{}", agent.log());
}

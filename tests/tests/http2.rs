//! HTTP/2 without TLS, by prior knowledge, with clients and servers not written by us, through the
//! capture and with every request mirrored: both ends see what they see without a mirror, and the
//! shadow what the primary saw. That the agent took the requests apart is checked each time: bytes
//! that only pass through look right as well.
#![allow(clippy::unwrap_used, reason = "helpers of tests; clippy knows only the tests themselves")]

#[path = "http2/nginx.rs"]
mod nginx;

use std::{collections::HashSet, fs, path::Path};

use mirror_tests::{Agent, Copies, Pair, Peer};
use nginx::Nginx;
use serde_json::{Value, json};

/// What of a request a shadow sees as the primary does: all but whom it is for.
fn alike(lines: &[Value]) -> Vec<String> {
    let fields = ["method", "target", "length", "sha256", "trailers", "cookie", "complete"];
    let mut seen: Vec<_> =
        lines.iter().map(|line| json!(fields.map(|field| &line[field])).to_string()).collect();
    seen.sort();
    seen
}

/// All requests came out of HTTP/2 connections, and each copy was delivered.
fn all_copied(agent: &Agent<'_>, count: u64) {
    let copies = Copies::settled(agent).unwrap();
    println!("{copies}\n{}", Copies::losses(agent).unwrap());
    assert_eq!(agent.parsed("http2").unwrap(), count, "{}", agent.log());
    let all = Copies { selected: count, delivered: count, ..Copies::default() };
    assert_eq!(copies, all, "{}\n{}", Copies::losses(agent).unwrap(), agent.log());
}

/// curl in all its ways; what it printed.
fn curl(pair: &Pair, tag: &str, upload: &Path) -> Vec<String> {
    let url = |path: &str, id: usize| format!("http://web:8000/{path}?id={tag}-{id}");
    let (echo, head, again) = (url("echo", 0), url("echo", 1), url("echo", 2));
    let (put, trailers, bytes) = (url("echo", 3), url("trailers", 4), url("bytes/30000000", 5));
    let upload = upload.to_str().unwrap();
    let runs: [&[&str]; 6] = [
        &["-i", "-d", "form=1&x=%20y", "-H", "X-Odd-CASE: 1", "-H", "x-b: 2", &echo],
        &["-I", "-w", "%{http_code} %{http_version}\n", &head],
        // One only: curl 7.88 fails with the second on a connection of prior knowledge, to any
        // server.
        &["-w", "%{num_connects}\n", &again],
        &["-i", "-T", upload, &put],
        &["-i", &trailers],
        &["-o", "/dev/null", "-w", "%{http_code} %{size_download}\n", &bytes],
    ];
    let run = |args: &&[&str]| {
        let fixed = ["curl", "-sS", "-m", "30", "--http2-prior-knowledge"];
        let argv: Vec<_> = fixed.iter().chain(*args).copied().collect();
        pair.run(&argv).unwrap().replace(tag, "TAG")
    };
    runs.iter().map(run).collect()
}

#[test]
fn curl_sees_no_difference() {
    let pair = Pair::create("h2curl").unwrap();
    let [primary, shadow] = Peer::both(&pair, "h2_server.py", &[]).unwrap();
    let upload = pair.node.folder().join("upload");
    fs::write(&upload, "0123456789abcdef".repeat(4 << 20)).unwrap();
    let direct = curl(&pair, "direct", &upload);
    // The upload comes at the full speed of memory: a shadow that lags behind has its copy cut
    // beyond its budget, which is not what this is about.
    let agent = pair.mirroring(&["--budget-agent", "160MiB"]).unwrap();
    let captured = curl(&pair, "captured", &upload);
    assert_eq!(direct, captured, "{}", agent.log());
    assert!(captured[3].contains("\"length\": 67108864"), "{}", captured[3]);
    assert!(captured[4].contains("x-sum: 12"), "trailers: {}", captured[4]);
    let (before, after) =
        (primary.wait("id=direct-", 6).unwrap(), primary.wait("id=captured-", 6).unwrap());
    let headers =
        |lines: &[Value]| lines.iter().map(|line| line["headers"].clone()).collect::<Vec<_>>();
    assert_eq!(headers(&before), headers(&after), "no field is added or lost");
    assert!(after.iter().all(|line| line["authority"] == "web:8000"), "{after:?}");
    let copied = shadow.wait("id=captured-", 6);
    let copied = copied.unwrap_or_else(|e| panic!("{e:#} {}", Copies::losses(&agent).unwrap()));
    assert_eq!(alike(&copied), alike(&after));
    assert!(copied.iter().all(|line| line["authority"] == "web-shadow:8000"), "{copied:?}");
    all_copied(&agent, 6);
}

/// Runs h2load and checks its own counts.
fn h2load(pair: &Pair, args: &[&str], count: u64) {
    let argv: Vec<_> = ["h2load"].iter().chain(args).copied().collect();
    let report = pair.run(&argv).unwrap();
    let lines = report.lines().filter(|line| {
        ["finished", "requests:", "status", "time for r"].iter().any(|part| line.contains(part))
    });
    println!("{}", lines.collect::<Vec<_>>().join("\n"));
    assert!(
        report.contains(&format!("{count} succeeded, 0 failed, 0 errored, 0 timeout")),
        "{report}"
    );
    assert!(
        report.contains(&format!("status codes: {count} 2xx, 0 3xx, 0 4xx, 0 5xx")),
        "{report}"
    );
}

#[test]
fn h2load_meets_no_error_and_every_copy_arrives() {
    let pair = Pair::create("h2load").unwrap();
    let [primary, shadow] = Nginx::both(&pair, 100_000).unwrap();
    let agent = pair.mirroring(&[]).unwrap();
    // 1,000 requests per second: a shadow keeps up.
    h2load(&pair, &["-n3000", "-c4", "-m32", "--rps=250", "http://web:8000/"], 3000);
    all_copied(&agent, 3000);
    assert_eq!((primary.count(), shadow.count()), (3000, 3000));
    // As many as the machine can do.
    h2load(&pair, &["-n10000", "-c1", "-m32", "http://web:8000/"], 10_000);
    h2load(&pair, &["-n10000", "-c8", "-m4", "http://web:8000/"], 10_000);
    let copies = Copies::settled(&agent).unwrap();
    let losses = Copies::losses(&agent).unwrap();
    println!("{copies}\n{losses}");
    assert_eq!((agent.parsed("http2").unwrap(), copies.selected), (23_000, 23_000));
    assert_eq!((primary.count(), shadow.count() as u64), (23_000, copies.delivered));
    // The cores are saturated: what may be lost is what found all streams taken.
    assert!(losses.lines().all(|line| line.contains("reason=\"connections\"")), "{losses}");
}

#[test]
fn nginx_says_goaway_after_every_hundred_requests() {
    let pair = Pair::create("h2goaway").unwrap();
    let [primary, shadow] = Nginx::both(&pair, 100).unwrap();
    let agent = pair.mirroring(&[]).unwrap();
    // The client's connection ends with the primary's when nothing is under way: h2load would take
    // the rest of its requests for failed, as it does without us.
    for _ in 0..20 {
        let got = pair.peer("h2_parallel.py", &["web", "8000", "119", "/{}"]).unwrap();
        assert_eq!(got["statuses"], json!({ "200": 119 }), "{got}\n{}", agent.log());
    }
    let copies = Copies::settled(&agent).unwrap();
    println!("{copies}\n{}", Copies::losses(&agent).unwrap());
    assert_eq!(agent.parsed("http2").unwrap(), 2400);
    assert_eq!(primary.count(), 2400, "{}", agent.log());
    assert_eq!(copies.delivered, 2400, "{}\n{}", Copies::losses(&agent).unwrap(), agent.log());
    assert_eq!(shadow.count(), 2400);
}

#[test]
fn httpx_gets_what_it_sent() {
    let pair = Pair::create("httpx").unwrap();
    let [primary, shadow] = Peer::both(&pair, "h2_server.py", &[]).unwrap();
    let agent = pair.mirroring(&[]).unwrap();
    let got = pair.peer("h2_httpx.py", &["web", "8000", "httpx", "500"]).unwrap();
    let expected =
        json!({ "right": 500, "versions": { "HTTP/2": 500 }, "statuses": { "200": 500 } });
    assert_eq!(got, expected, "{}", agent.log());
    let seen = [&primary, &shadow].map(|server| alike(&server.wait("id=httpx-", 500).unwrap()));
    assert_eq!(seen[0], seen[1]);
    assert_eq!(seen[0].iter().collect::<HashSet<_>>().len(), 500);
    all_copied(&agent, 500);
}

#[test]
fn nodes_client_and_server_see_no_difference() {
    let pair = Pair::create("h2node").unwrap();
    let [primary, shadow] = Peer::both(&pair, "h2_server.js", &[]).unwrap();
    let direct = pair.peer("h2_client.js", &["web", "8000", "direct"]).unwrap();
    let agent = pair.mirroring(&[]).unwrap();
    let captured = pair.peer("h2_client.js", &["web", "8000", "captured"]).unwrap();
    assert_eq!(captured, direct, "{}", agent.log());
    assert_eq!(captured["cancelled"], 8, "{captured}");
    let before = primary.wait("id=direct-", 204).unwrap();
    let after = primary.wait("id=captured-", 204).unwrap();
    let untagged = |lines: &[Value], tag| json!(alike(lines)).to_string().replace(tag, "TAG");
    assert_eq!(untagged(&before, "direct"), untagged(&after, "captured"));
    // All but the tunnels, and the copy of what was cancelled looks cancelled as well.
    let copied = shadow.wait("id=captured-", 203).unwrap();
    let mirrored: Vec<_> = after.into_iter().filter(|line| line["method"] != "CONNECT").collect();
    let [copied_alike, mirrored] = [&copied, &mirrored].map(|lines| alike(lines));
    assert_eq!(copied_alike.len(), mirrored.len(), "{}", agent.log());
    let differ: Vec<_> = copied_alike.iter().filter(|line| !mirrored.contains(line)).collect();
    assert!(differ.is_empty(), "{differ:?}\n{}\n{}", Copies::losses(&agent).unwrap(), agent.log());
    let cut = copied.iter().find(|line| line["complete"] == false).unwrap();
    assert_eq!(cut["code"], 8, "{cut}");
    let copies = Copies::settled(&agent).unwrap();
    assert_eq!(
        (copies.selected, copies.delivered),
        (203, 202),
        "{}",
        Copies::losses(&agent).unwrap()
    );
    assert_eq!(agent.parsed("http2").unwrap(), 205, "203 and two tunnels");
}

//! What a user sees of requests without a copy, and of requests without a primary: an offer of another
//! protocol changes nothing, and whatever mirror refuses stands in the access log, in the metrics and
//! in `mirror status`.
#![allow(clippy::unwrap_used, reason = "helpers of tests; clippy knows only the tests themselves")]

use std::{collections::HashSet, time::Duration};

use mirror_tests::{Agent, Copies, Echo, Pair, eventually, mirror_binary};
use serde_json::{Value, json};

const SHORT: Duration = Duration::from_secs(10);

/// What `mirror status` says.
fn status(pair: &Pair, flags: &[&str]) -> String {
    let binary = mirror_binary().unwrap();
    let binary = binary.to_string_lossy();
    let argv: Vec<_> = [&*binary, "status"].into_iter().chain(flags.iter().copied()).collect();
    pair.node.run(&argv, SHORT).unwrap().ok().unwrap()
}

fn status_json(pair: &Pair) -> Value {
    serde_json::from_str(&status(pair, &["--output", "json"])).unwrap()
}

/// The lines of the access log so far.
fn access(agent: &Agent<'_>) -> Vec<Value> {
    let log = agent.log();
    log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

#[test]
fn requests_that_offer_another_protocol_are_copied() {
    let pair = Pair::create("offers").unwrap();
    let primary = Echo::start(&pair.node, &pair.primary).unwrap();
    let shadow = Echo::start(&pair.node, &pair.shadow).unwrap();
    let agent = pair.mirroring(&[]).unwrap();
    // As Apache HttpClient 5.4 says it, five times on one connection; then a WebSocket.
    let offer = |path: &str, to: &str| {
        format!("GET {path} HTTP/1.1\\nHost: web\\nConnection: keep-alive, Upgrade\\nUpgrade: {to}")
    };
    let mut lines: Vec<_> =
        (0..5).map(|n| format!("={}", offer(&format!("/get?id={n}"), "TLS/1.2"))).collect();
    lines[0].remove(0);
    lines.push(offer("/get?ws", "websocket"));
    let mut args = vec!["web", "8000"];
    args.extend(lines.iter().map(String::as_str));
    assert_eq!(
        pair.script("raw_client.py", &args).unwrap(),
        json!(vec![200; 6]),
        "{}",
        agent.log()
    );

    let seen = primary.wait("id=", 5).unwrap();
    let connections: HashSet<_> = seen.iter().map(|line| line["peer"].to_string()).collect();
    assert_eq!(connections.len(), 1, "{connections:?}");
    let upgrade = json!(["upgrade", "TLS/1.2"]);
    let has = |line: &Value, field: &Value| line["headers"].as_array().unwrap().contains(field);
    assert!(seen.iter().all(|line| has(line, &upgrade)), "{seen:?}");
    let copied = shadow.wait("id=", 5).unwrap();
    assert!(
        !copied.iter().any(|line| line["headers"].to_string().contains("pgrade")),
        "{copied:?}"
    );
    let copies = Copies::settled(&agent).unwrap();
    assert_eq!(copies, Copies { selected: 5, delivered: 5, ..Copies::default() });

    // Why the sixth has no copy.
    let labels = [("reason", "websocket")];
    assert_eq!(agent.metric("mirror_uncopied_requests_total", &labels).unwrap(), 1.0);
    assert_eq!(status_json(&pair)["uncopied"], json!({ "websocket": 1 }));
    let text = status(&pair, &[]);
    assert!(text.contains("\nuncopied   1 request (websocket 1)\n"), "{text}");
}

#[test]
fn refusals_are_seen_by_whoever_looks() {
    let pair = Pair::create("refused").unwrap();
    let _primary = Echo::start(&pair.node, &pair.primary).unwrap();
    let agent = pair.mirroring(&["--access-log", "json"]).unwrap();
    let requests = [
        "GET /get HTTP/1.1\\nHost: web",
        "GET /odd HTTP/1.1\\nHost: web\\nX : y",
        "GET /two HTTP/1.1\\nHost: web\\nContent-Length: 1\\nContent-Length: 2",
        "GET /host HTTP/1.1\\nHost: a\\nHost: b",
        "GET /host2 HTTP/1.1",
    ];
    let args: Vec<_> = ["web", "8000"].into_iter().chain(requests).collect();
    let statuses = pair.script("raw_client.py", &args).unwrap();
    assert_eq!(statuses, json!([200, 400, 400, 400, 400]), "{}", agent.log());

    let refused = json!({ "malformed_head": 1, "invalid_length": 1, "invalid_host": 2 });
    assert_eq!(status_json(&pair)["refused"], refused);
    let text = status(&pair, &[]);
    let line = "\nrefused    4 requests or connections (invalid host 2, invalid length 1, malformed head 1)\n";
    assert!(text.contains(line), "{text}");
    let count = |reason| agent.metric("mirror_refused_total", &[("reason", reason)]).unwrap();
    assert_eq!([count("malformed_head"), count("invalid_host")], [1.0, 2.0]);
    let requested = agent.metric("mirror_requests_total", &[("answer", "bad_request")]).unwrap();
    assert_eq!(requested, 4.0);

    eventually("a line for each", SHORT, || access(&agent).len() >= 5).unwrap();
    let lines = access(&agent);
    let told: Vec<_> = lines.iter().map(|line| json!([line["target"], line["status"]])).collect();
    let expected = ["/get", "/odd", "/two", "/host", "/host2"];
    let expected: Vec<_> = expected
        .iter()
        .map(|target| json!([target, if *target == "/get" { 200 } else { 400 }]))
        .collect();
    assert_eq!(told, expected);
    assert!(lines[1..].iter().all(|line| line["reason"].is_string()), "{lines:?}");
}

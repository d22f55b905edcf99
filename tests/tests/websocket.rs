//! WebSockets and other tunnels with clients and servers not written by us: over HTTP/1.1
//! (RFC 6455), inside HTTP/2 streams (RFC 8441), and plain CONNECT. Both ends see what they see
//! without a mirror; a tunnel is never mirrored, the requests beside it are.
#![allow(clippy::unwrap_used, reason = "helpers of tests; clippy knows only the tests themselves")]

use mirror_tests::{Agent, Copies, Pair, Peer};
use serde_json::{Value, json};

/// Requests that became tunnels.
fn tunnels(agent: &Agent<'_>) -> f64 {
    agent.metric("mirror_requests_total", &[("ending", "tunnel")]).unwrap()
}

/// A server's lines in an order of their own: connections that run at once end in any.
fn sorted(mut lines: Vec<Value>) -> Vec<Value> {
    lines.sort_by_key(Value::to_string);
    lines
}

#[test]
fn websockets_are_the_same_through_the_agent() {
    let pair = Pair::create("websocket").unwrap();
    let server = Peer::start(&pair.node, &pair.primary, "ws_server.py", &[]).unwrap();
    let direct = pair.peer("ws_client.py", &["web", "8000"]).unwrap();
    let seen_directly = server.wait("path", 59).unwrap();
    let agent = pair.mirroring(&[]).unwrap();
    let captured = pair.peer("ws_client.py", &["web", "8000"]).unwrap();
    let seen = server.wait("path", 118).unwrap();
    assert_eq!(captured, direct, "{}", agent.log());
    assert_eq!(sorted(seen[59..].to_vec()), sorted(seen_directly));
    // What the two have in common is right as well.
    assert_eq!(captured["large"], json!({ "whole": true, "frames": true }));
    assert_eq!(captured["server_closes"], json!([[1000, "bye"], [4321, "tired"]]));
    assert_eq!(captured["client_closes"], json!([[1001, "leaving"], [4999, ""]]));
    assert_eq!(captured["both_ways"], 50);
    let close =
        |path: &str| seen[59..].iter().find(|line| line["path"] == path).unwrap()["close"].clone();
    assert_eq!(close("/client-closes-4999"), json!([4999, ""]));
    assert_eq!(close("/client-aborts"), json!([1006, ""]));
    assert_eq!((agent.parsed("http1").unwrap(), tunnels(&agent)), (59, 59.0));
    assert_eq!(Copies::settled(&agent).unwrap(), Copies::default());
}

#[test]
fn a_websocket_reaches_a_port_that_is_said_to_be_for_them() {
    let pair = Pair::speaking("wsport", Some("kubernetes.io/ws")).unwrap();
    let _server = Peer::start(&pair.node, &pair.primary, "ws_server.py", &[]).unwrap();
    let agent = pair.mirroring(&[]).unwrap();
    let captured = pair.peer("ws_client.py", &["web", "8000"]).unwrap();
    assert_eq!(captured["echoes"]["same"], true, "{captured}\n{}", agent.log());
    assert_eq!(tunnels(&agent), 59.0);
}

#[test]
fn websockets_inside_of_http2() {
    let pair = Pair::create("websocketh2").unwrap();
    let [primary, shadow] = Peer::both(&pair, "asgi_server.py", &[]).unwrap();
    let direct = pair.peer("ws_h2_client.py", &["web", "8000", "direct"]).unwrap();
    let seen_directly = primary.wait("id=direct-", 5).unwrap();
    let agent = pair.mirroring(&[]).unwrap();
    let captured = pair.peer("ws_h2_client.py", &["web", "8000", "captured"]).unwrap();
    assert_eq!(captured, direct, "{}", agent.log());
    assert_eq!(captured["status"], json!([200, 200]), "{captured}");
    let seen = primary.wait("id=captured-", 5).unwrap();
    let untagged = |lines: Vec<Value>, tag| {
        let text = json!(sorted(lines)).to_string();
        text.replace(tag, "TAG")
    };
    assert_eq!(untagged(seen, "captured"), untagged(seen_directly, "direct"));
    // The plain requests beside them are mirrored, the tunnels are not.
    let copied = shadow.wait("id=captured-", 3).unwrap();
    assert!(
        copied.iter().all(|line| line["type"] == "http" && line["version"] == "2"),
        "{copied:?}"
    );
    let copies = Copies::settled(&agent).unwrap();
    assert_eq!(copies, Copies { selected: 3, delivered: 3, ..Copies::default() });
    assert_eq!(agent.parsed("http2").unwrap(), 5, "{}", agent.log());
}

#[test]
fn websockets_inside_of_http2_reach_a_port_of_http1() {
    let pair = Pair::speaking("websocketh1", Some("kubernetes.io/ws")).unwrap();
    let [primary, shadow] = Peer::both(&pair, "asgi_server.py", &[]).unwrap();
    let direct = pair.peer("ws_h2_client.py", &["web", "8000", "direct"]).unwrap();
    let agent = pair.mirroring(&[]).unwrap();
    let captured = pair.peer("ws_h2_client.py", &["web", "8000", "captured"]).unwrap();
    assert_eq!(captured, direct, "{}", agent.log());
    let old = |lines: Vec<Value>| lines.iter().all(|line| line["version"] == "1.1");
    let seen = primary.wait("id=captured-", 5).unwrap();
    assert_eq!(seen.iter().filter(|line| line["type"] == "websocket").count(), 2);
    assert!(old(seen) && old(shadow.wait("id=captured-", 3).unwrap()));
    assert_eq!(agent.parsed("http2").unwrap(), 5, "{}", agent.log());
    let copies = Copies::settled(&agent).unwrap();
    assert_eq!(copies, Copies { selected: 3, delivered: 3, ..Copies::default() });
}

#[test]
fn plain_connect_is_a_tunnel() {
    let pair = Pair::create("connect").unwrap();
    let server = Peer::start(&pair.node, &pair.primary, "connect_server.py", &[]).unwrap();
    let direct = pair.peer("connect_client.py", &["web", "8000"]).unwrap();
    let agent = pair.mirroring(&[]).unwrap();
    let captured = pair.peer("connect_client.py", &["web", "8000"]).unwrap();
    assert_eq!(captured, direct, "{}", agent.log());
    assert_eq!(captured["agreed"], json!(["HTTP/1.1 200 Connected", true]));
    let seen = server.wait("line", 4).unwrap();
    assert_eq!(seen[..2], seen[2..], "{}", agent.log());
    assert_eq!((agent.parsed("http1").unwrap(), tunnels(&agent)), (2, 1.0), "{}", agent.log());
    assert_eq!(Copies::settled(&agent).unwrap(), Copies::default());
}

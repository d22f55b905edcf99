//! Which rule, which backend, and what mirror answers itself.

use std::{collections::HashMap, sync::Arc};

use http::{HeaderName, HeaderValue};
use mirror_user::{
    outcome::ConnectionKind,
    route::{
        BackendRef, Filter, Frontend, FrontendState, HeaderModifier, InvalidBackend, Matcher,
        PathMatch, RuleEntry,
    },
};

use super::{
    harness::{FRONTEND, Setup, backend_ref, frontend, rule},
    raw_connection::Message,
    server::Server,
};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// A rule for a path and what is below it.
pub(crate) fn at(path: &str, entry: RuleEntry) -> RuleEntry {
    let path = PathMatch::Prefix(path.into());
    RuleEntry { matches: vec![Matcher { path, ..Matcher::default() }], ..entry }
}

fn named(name: &'static str) -> Server {
    Server::responding(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len()))
}

fn pair(name: &str, value: &str) -> (HeaderName, HeaderValue) {
    (name.parse().expect("a name"), value.parse().expect("a value"))
}

/// The response to a request under one rule, whose connection must go on.
fn responded(rules: Vec<RuleEntry>) -> Message {
    let original = Server::ok();
    let rig = Setup::rules(original.address, rules).start();
    let mut client = rig.client();
    let first = client.request(GET);
    assert_eq!(client.request(GET), first);
    assert_eq!(original.connections(), 0);
    first
}

#[test]
fn the_rule_that_matches_decides() {
    let (one, two) = (named("one"), named("two"));
    let rules = vec![
        at("/", rule(Vec::new(), vec![backend_ref("one", &[one.address])])),
        at("/two", rule(Vec::new(), vec![backend_ref("two", &[two.address])])),
    ];
    let rig = Setup::rules(one.address, rules).start();
    let mut client = rig.client();
    for (path, body) in [("/", "one"), ("/two", "two"), ("/twofold", "one"), ("/two/x?y", "two")] {
        let response = client.request(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(response.body, body.as_bytes(), "{path}");
    }
}

#[test]
fn no_match_is_404() {
    let response = responded(vec![at("/only", rule(Vec::new(), Vec::new()))]);
    assert_eq!(response.status(), 404);
    assert!(response.value("x-mirror-reason").unwrap().contains("no rule"), "{}", response.head);
}

#[test]
fn an_invalid_backend_is_500() {
    let target = Err(InvalidBackend::NoService("default/gone".into()));
    let refs = vec![BackendRef { weight: 1, filters: Vec::new(), target }];
    let response = responded(vec![rule(Vec::new(), refs)]);
    assert_eq!(response.status(), 500);
    assert!(
        response.value("x-mirror-reason").unwrap().contains("default/gone"),
        "{}",
        response.head
    );
}

#[test]
fn no_backend_is_500() {
    assert_eq!(responded(vec![rule(Vec::new(), Vec::new())]).status(), 500);
}

#[test]
fn no_ready_endpoint_is_503() {
    let response = responded(vec![rule(Vec::new(), vec![backend_ref("empty", &[])])]);
    assert_eq!(response.status(), 503);
    let reason = response.value("x-mirror-reason").unwrap();
    assert!(reason.contains("default/empty:80"), "{}", response.head);
}

#[test]
fn our_responses_to_head_have_no_body() {
    let original = Server::ok();
    let rig = Setup::rules(original.address, Vec::new()).start();
    let mut client = rig.client();
    for _ in 0..2 {
        client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.head().status(), 404);
    }
}

#[test]
fn our_response_to_an_upload_arrives() {
    let original = Server::ok();
    let rig = Setup::rules(original.address, Vec::new()).start();
    for _ in 0..20 {
        let mut client = rig.client();
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n\r\n");
        let block = [b'x'; 50_000];
        let taken = (0..60).take_while(|_| client.try_send(block)).count();
        assert_eq!(client.message().status(), 404, "{taken}");
    }
}

#[test]
fn backends_get_their_weights() {
    let names = ["a", "b", "c"];
    let servers = names.map(named);
    // Each is a Service of its own: endpoints that one Service has and then has not are lost.
    let refs = servers.iter().zip(names).zip([1, 3, 0]).map(|((server, name), weight)| {
        BackendRef { weight, ..backend_ref(name, &[server.address]) }
    });
    let rig = Setup::rules(servers[0].address, vec![rule(Vec::new(), refs.collect())]).start();
    let mut client = rig.client();
    let mut counts = HashMap::<Vec<u8>, u32>::new();
    for _ in 0..2_000 {
        *counts.entry(client.request(GET).body).or_default() += 1;
    }
    // Seven standard deviations around 500.
    assert!((365..=635).contains(&counts[&b"a"[..]]), "{counts:?}");
    assert_eq!(counts[&b"a"[..]] + counts[&b"b"[..]], 2_000);
}

#[test]
fn modifiers_of_rule_and_backend_are_applied_both_ways() {
    let primary = Server::responding(
        "HTTP/1.1 200 OK\r\nA: 1\r\nGone: 1\r\nServer: x\r\nContent-Length: 2\r\n\r\nok",
    );
    let modifier = |set: &str, remove: &str| HeaderModifier {
        set: vec![pair(set, "set")],
        add: vec![pair("x-added", "more")],
        remove: vec![remove.parse().unwrap()],
    };
    let mut refs = vec![backend_ref("primary", &[primary.address])];
    refs[0].filters = vec![
        Filter::RequestHeaders(modifier("x-backend", "cookie")),
        Filter::ResponseHeaders(modifier("a", "server")),
    ];
    let filters = vec![
        Filter::RequestHeaders(modifier("user-agent", "accept")),
        Filter::ResponseHeaders(modifier("x-rule", "gone")),
    ];
    let rig = Setup::rules(primary.address, vec![rule(filters, refs)]).start();
    let mut client = rig.client();
    let response = client.request(
        "GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: u\r\nAccept: */*\r\nCookie: c\r\nLast: l\r\n\r\n",
    );
    assert_eq!(
        response.head,
        "HTTP/1.1 200 OK\r\nA: set\r\nContent-Length: 2\r\nx-added: more\r\nx-added: more\r\n\
         x-rule: set\r\n\r\n"
    );
    assert_eq!(
        primary.requests()[0].head,
        "GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: set\r\nLast: l\r\nx-added: more\r\n\
         x-added: more\r\nx-backend: set\r\n\r\n"
    );
}

#[test]
fn a_new_snapshot_holds_for_the_next_request_of_a_connection() {
    use super::harness::{FRONTEND, frontend};
    use mirror_user::route::FrontendState;

    let (one, two) = (named("one"), named("two"));
    let rig = Setup::to(&one).start();
    let mut client = rig.client();
    assert_eq!(client.request(GET).body, b"one");
    let rules = vec![rule(Vec::new(), vec![backend_ref("two", &[two.address])])];
    rig.publish([(FRONTEND, FrontendState::Live(frontend(FRONTEND, one.address, Some(rules))))]);
    assert_eq!(client.request(GET).body, b"two");
}

#[test]
fn a_route_acts_at_once_on_a_connection_that_was_captured_ahead_of_it() {
    let (original, routed) = (named("original"), named("routed"));
    let rig = Setup::to(&original).start();
    let made = |rules| Arc::into_inner(frontend(FRONTEND, original.address, rules)).expect("one");
    let publish = |front: Frontend| rig.publish([(FRONTEND, FrontendState::Live(Arc::new(front)))]);
    publish(Frontend { ahead: true, ..made(None) });
    let mut client = rig.client();
    for _ in 0..3 {
        assert_eq!(client.request(GET).body, b"original");
    }
    let refs = vec![backend_ref("routed", &[routed.address])];
    publish(Frontend { ahead: true, ..made(Some(vec![rule(Vec::new(), refs)])) });
    assert_eq!(client.request(GET).body, b"routed");
    publish(Frontend { ahead: true, ..made(None) });
    assert_eq!(client.request(GET).body, b"original");
    let report = rig.report();
    assert_eq!(report.connections[ConnectionKind::Http1 as usize], 1, "the same connection");
    assert_eq!(report.connections[ConnectionKind::NoRoute as usize], 0);
}

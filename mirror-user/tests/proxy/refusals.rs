//! What mirror refuses or ends on its own account: each leaves one line in the access log, which says
//! why, and one count by reason.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue};
use mirror_user::{
    outcome::RefusalReason,
    route::{
        Filter, FrontendId, FrontendState, HeaderModifier, Matcher, PathMatch, RuleEntry, Timeouts,
    },
};
use serde_json::{Value, json};

use super::{
    access::logged,
    harness::{FRONTEND, Rig, Setup, backend_ref, eventually, frontend, rule},
    raw_connection::{End, RawConnection, text},
    server::{Server, refusing},
};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Waits until this was counted, and nothing else.
fn counted(rig: &Rig, reason: RefusalReason) {
    eventually("a refusal is counted", || rig.report().refused.iter().sum::<u64>() > 0);
    let refused = rig.report().refused;
    let told: Vec<_> =
        RefusalReason::ALL.into_iter().filter(|reason| refused[*reason as usize] > 0).collect();
    assert_eq!((told, refused[reason as usize]), (vec![reason], 1));
}

/// The one line of it.
fn only(lines: Vec<Value>) -> Value {
    let [line] = <[Value; 1]>::try_from(lines).expect("one line");
    assert!(line["reason"].as_str().is_some_and(|reason| reason.starts_with("mirror: ")), "{line}");
    line
}

/// The one line of what a client says, and the status that it gets.
fn said(setup: Setup, says: &[u8], reason: RefusalReason) -> (Value, Vec<u8>, End) {
    let mut got = None;
    let lines = logged(setup, |rig| {
        let mut client = rig.client();
        client.send(says);
        got = Some(client.rest());
        counted(rig, reason);
    });
    let (bytes, end) = got.expect("it was asked");
    (only(lines), bytes, end)
}

fn refused(
    says: impl AsRef<[u8]>,
    status: u16,
    reason: RefusalReason,
    requested: [Option<&str>; 3],
) {
    let primary = Server::ok();
    let (line, response, end) = said(Setup::to(&primary), says.as_ref(), reason);
    let response = text(response);
    assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{reason:?}: {response}");
    let why = line["reason"].as_str().expect("a reason");
    assert!(
        response.contains(&format!("x-mirror-reason: {why}\r\n")),
        "{why} is not in {response}"
    );
    assert_eq!(end, End::Fin);
    let shown = ["method", "target", "protocol"].map(|field| line[field].clone());
    assert_eq!(shown, requested.map(|part| json!(part)), "{line}");
    assert_eq!(
        [&line["client"], &line["frontend"], &line["status"], &line["answer"]],
        [
            &json!("default/client-1"),
            &json!("default/front:80"),
            &json!(status),
            &json!("bad_request")
        ]
    );
    assert_eq!((primary.connections(), &line["copies"]), (0, &json!(0)));
}

#[test]
fn a_head_that_is_no_request() {
    use RefusalReason as Why;
    let get = [Some("GET"), Some("/"), Some("HTTP/1.1")];
    let head = |fields: &str| format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    refused(
        "GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n",
        400,
        Why::InvalidTarget,
        [Some("GET"), Some("/\u{1}"), Some("HTTP/1.1")],
    );
    refused(head("X : y\r\n"), 400, Why::MalformedHead, get);
    refused(head("X: \0\r\n"), 400, Why::MalformedHead, get);
    refused(head("Content-Length: 1\r\nContent-Length: 2\r\n"), 400, Why::InvalidLength, get);
    refused(head("Transfer-Encoding: gzip\r\n"), 400, Why::InvalidEncoding, get);
    refused(head(&"A: b\r\n".repeat(1001)), 431, Why::TooManyFields, get);
    let long = format!("/{}", "x".repeat(70_000));
    let shown = [Some("GET"), Some(&long[..1024]), Some("HTTP/1.1")];
    refused(format!("GET {long} HTTP/1.1\r\nHost: a\r\n\r\n"), 414, Why::TargetTooLong, shown);
    refused(head(&format!("A: {}\r\n", "x".repeat(300_000))), 431, Why::HeadTooLarge, get);
}

#[test]
fn a_request_that_could_be_read_in_two_ways() {
    use RefusalReason as Why;
    let host = |host: &str| format!("GET / HTTP/1.1\r\n{host}\r\n");
    let get = [Some("GET"), Some("/"), Some("HTTP/1.1")];
    refused(host(""), 400, Why::InvalidHost, get);
    refused(host("Host: a\r\nHost: b\r\n"), 400, Why::InvalidHost, get);
    refused(host("Host: a/b\r\n"), 400, Why::InvalidHost, get);
    refused(
        "GET x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        400,
        Why::InvalidTarget,
        [Some("GET"), Some("x"), Some("HTTP/1.1")],
    );
    refused(
        "CONNECT a:1 HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx",
        400,
        Why::ConnectContent,
        [Some("CONNECT"), Some("a:1"), Some("HTTP/1.1")],
    );
}

#[test]
fn a_refused_head_counts_as_a_request_as_well() {
    let primary = Server::ok();
    let rig = Setup::to(&primary).start();
    let mut client = rig.client();
    client.send("GET / HTTP/1.1\r\nX : y\r\n\r\n");
    client.rest();
    let requests = || rig.report().exchanges.values().map(|e| e.requests[4]).collect::<Vec<_>>();
    eventually("it is counted", || !requests().is_empty());
    assert_eq!(requests()[0].as_flattened().iter().sum::<u64>(), 1);
}

#[test]
fn a_head_that_does_not_come_to_its_end() {
    let primary = Server::ok();
    let mut setup = Setup::to(&primary);
    setup.options.head_timeout = Duration::from_millis(50);
    let head = b"GET / HTTP/1.1\r\nHost: a\r\n";
    let (line, response, end) = said(setup, head, RefusalReason::HeadTimeout);
    assert_eq!((response, end), (Vec::new(), End::Fin));
    assert_eq!((&line["status"], &line["ending"]), (&Value::Null, &json!("refused")));
    let lines = logged(Setup::to(&primary), |rig| {
        let mut client = rig.client();
        client.send(head);
        client.finish();
        assert_eq!(client.rest(), (Vec::new(), End::Reset));
        counted(rig, RefusalReason::IncompleteHead);
    });
    assert_eq!(only(lines)["target"], Value::Null);
}

#[test]
fn a_connection_for_nobody() {
    let primary = Server::ok();
    let lines = logged(Setup::to(&primary), |rig| {
        let (_, address) = rig.serve(FrontendId(77));
        assert_eq!(RawConnection::connect(address).rest(), (Vec::new(), End::Reset));
        counted(rig, RefusalReason::UnknownId);
    });
    let line = only(lines);
    assert_eq!((&line["client"], &line["frontend"]), (&json!("default/client-2"), &Value::Null));
}

#[test]
fn a_destination_that_cannot_be_reached() {
    let (_held, nobody) = refusing();
    // Without a route nothing is read before the destination is there; then opaque bytes, and HTTP.
    let lines = logged(Setup::rules(nobody, Vec::new()), |rig| {
        rig.publish([(FRONTEND, FrontendState::Live(frontend(FRONTEND, nobody, None)))]);
        assert_eq!(rig.client().rest(), (Vec::new(), End::Reset));
        counted(rig, RefusalReason::ConnectRefused);
    });
    let opaque = b"\x16\x03\x01";
    let (line, ..) = said(Setup::rules(nobody, Vec::new()), opaque, RefusalReason::ConnectRefused);
    for line in [only(lines), line] {
        let why = line["reason"].as_str().expect("a reason");
        assert!(why.contains(&nobody.to_string()), "{why}");
    }
    let rules = vec![rule(Vec::new(), vec![backend_ref("gone", &[nobody])])];
    let request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let setup = Setup::rules(nobody, rules);
    let (line, ..) = said(setup, request, RefusalReason::ConnectRefused);
    assert_eq!((&line["status"], &line["target"]), (&json!(503), &json!("/")));
}

#[test]
fn content_that_is_malformed() {
    let primary = Server::silent();
    let request = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n";
    let (line, _, end) = said(Setup::to(&primary), request, RefusalReason::MalformedBody);
    assert_eq!(end, End::Reset, "{line}");
    let get = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let primary = Server::start(|mut visit| {
        visit.request();
        visit
            .raw_connection
            .send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\nzz\r\n");
        visit.raw_connection.rest();
    });
    let (line, ..) = said(Setup::to(&primary), get, RefusalReason::MalformedResponse);
    assert_eq!(line["ending"], "primary_failed");
    // A head that is none, for a client whose route reads the fields of responses.
    let set = HeaderModifier {
        add: vec![(HeaderName::from_static("a"), HeaderValue::from_static("b"))],
        ..HeaderModifier::default()
    };
    let nonsense = Server::responding("nonsense\r\n\r\n");
    let get = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let setup = Setup::with(&nonsense, vec![Filter::ResponseHeaders(set)]);
    let (line, ..) = said(setup, get, RefusalReason::MalformedResponse);
    assert_eq!(line["status"], 502, "{line}");
}

/// A rule for `/known` alone.
fn rules(entry: RuleEntry) -> Vec<RuleEntry> {
    let path = PathMatch::Exact("/known".into());
    vec![RuleEntry { matches: vec![Matcher { path, ..Matcher::default() }], ..entry }]
}

fn timed(to: SocketAddr) -> RuleEntry {
    let mut entry = rule(Vec::new(), vec![backend_ref("slow", &[to])]);
    let limits = Timeouts { request: Some(Duration::from_millis(500)), ..Timeouts::default() };
    Arc::get_mut(&mut entry.rule).expect("nobody else has it").timeouts = limits;
    entry
}

#[test]
fn what_no_primary_responds_to() {
    let silent = Server::silent();
    let late = Server::start(|mut visit| {
        visit.request();
        visit.raw_connection.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf");
        visit.raw_connection.rest();
    });
    let to = |path: &str| {
        format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").into_bytes()
    };
    let empty = rule(Vec::new(), vec![backend_ref("empty", &[])]);
    let none = rule(Vec::new(), Vec::new());
    for (entry, path, status, reason) in [
        (none, "/known", json!(500), RefusalReason::InvalidBackend),
        (empty, "/known", json!(503), RefusalReason::NoEndpoint),
        (timed(silent.address), "/known", json!(504), RefusalReason::Timeout),
        (timed(late.address), "/known", json!(200), RefusalReason::Timeout),
        (timed(silent.address), "/unknown", json!(404), RefusalReason::NoMatch),
    ] {
        let (line, ..) = said(Setup::rules(silent.address, rules(entry)), &to(path), reason);
        assert_eq!(line["status"], status, "{line}");
    }
}

#[test]
fn frames_that_are_none_of_http2() {
    let primary = Server::ok();
    let settings: &[u8] = b"\0\0\0\x04\0\0\0\0\0";
    // DATA on a stream that nobody opened.
    let stray = [PREFACE, settings, b"\0\0\x01\0\0\0\0\0\x01x"].concat();
    let (line, ..) = said(Setup::to(&primary), &stray, RefusalReason::MalformedHttp2);
    assert_eq!((&line["status"], &line["frontend"]), (&Value::Null, &json!("default/front:80")));
    // The first frame is not SETTINGS.
    let first = [PREFACE, &b"\0\0\x01\0\0\0\0\0\x01x"[..]].concat();
    said(Setup::to(&primary), &first, RefusalReason::MalformedHttp2);
    // A header block of many pieces.
    let mut flood = [PREFACE, settings, &b"\0\0\0\x01\0\0\0\0\x01"[..]].concat();
    flood.extend(b"\0\0\0\x09\0\0\0\0\x01".repeat(1000));
    said(Setup::to(&primary), &flood, RefusalReason::Http2Flood);
}

/// A header block of one frame, its fields as literals without an index.
fn headers(stream: u8, fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            // A length of 7 bits, and what is beyond as a varint (RFC 7541, section 5.1).
            let mut rest = text.len();
            if rest < 127 {
                block.push(rest as u8);
            } else {
                block.push(127);
                rest -= 127;
                while rest >= 128 {
                    block.push((rest % 128) as u8 | 128);
                    rest /= 128;
                }
                block.push(rest as u8);
            }
            block.extend_from_slice(text.as_bytes());
        }
    }
    let len = u32::try_from(block.len()).expect("one frame").to_be_bytes();
    [&len[1..], &[1, 5, 0, 0, 0, stream], &block].concat()
}

#[test]
fn requests_of_http2_that_end_before_there_is_an_exchange() {
    let primary = Server::silent();
    let settings: &[u8] = b"\0\0\0\x04\0\0\0\0\0";
    let usual = [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/")];
    // A field of 4,000 bytes for the dynamic table, and 70 times its index.
    let mut field = headers(1, &[("x", &"y".repeat(3_960))]).split_off(9);
    field[0] = 0x40;
    field.extend([0xbe; 70]);
    let mut oversize = headers(1, &usual);
    // Another piece follows.
    oversize[4] = 1;
    let len = u32::try_from(field.len()).expect("one frame").to_be_bytes();
    oversize.extend([&len[1..], &[9, 4, 0, 0, 0, 1], &field].concat());
    for (bad, reason, status) in [
        (headers(1, &usual[..3]), RefusalReason::MalformedStream, Value::Null),
        (
            headers(1, &[&usual[..], &[("X-Upper", "y")]].concat()),
            RefusalReason::MalformedStream,
            Value::Null,
        ),
        (oversize, RefusalReason::HeadTooLarge, json!(431)),
    ] {
        let lines = logged(Setup::to(&primary), |rig| {
            let mut client = rig.client();
            client.send([PREFACE, settings, &bad].concat());
            counted(rig, reason);
        });
        let line = only(lines);
        assert_eq!((&line["status"], &line["protocol"]), (&status, &json!("HTTP/2.0")), "{line}");
    }
}

#[test]
fn a_connection_of_http2_that_goes_on_too_slowly() {
    let primary = Server::ok();
    let settings: &[u8] = b"\0\0\0\x04\0\0\0\0\0";
    let block = [PREFACE, settings, &b"\0\0\0\x01\0\0\0\0\x01"[..]].concat();
    let mut setup = Setup::to(&primary);
    setup.options.head_timeout = Duration::from_millis(50);
    said(setup, &block, RefusalReason::HeadTimeout);
}

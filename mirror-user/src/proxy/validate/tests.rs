//! What is refused, what is rewritten, and what stays as it came.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Version, request};

use super::*;
use crate::route::ServicePort;

fn head(line: &str, fields: &[(&str, &str)]) -> request::Parts {
    let (method, target) = line.split_once(' ').unwrap();
    let mut head = Request::builder().method(method).body(()).unwrap().into_parts().0;
    target::set(&mut head, &Bytes::copy_from_slice(target.as_bytes()), 0..target.len()).unwrap();
    for (name, value) in fields {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        head.headers.append(name, HeaderValue::from_str(value).unwrap());
    }
    head
}

/// To port 8000 of a Service that has every name of `real`.
fn prepare_request(head: &mut request::Parts) -> Result<RequestKind, Malformed> {
    let service = ServicePort { namespace: "shop".into(), name: "real".into(), port: 8000 };
    let address = ([10, 96, 0, 10], 8000).into();
    super::prepare_request(head, Connected { service: &service, address, namespace: "shop" })
}

fn names(head: &request::Parts) -> Vec<String> {
    head.headers.iter().map(|(n, v)| format!("{n}: {}", v.to_str().unwrap())).collect()
}

#[test]
fn host_is_required_once_in_http11() {
    assert_eq!(prepare_request(&mut head("GET /", &[])), Err(Malformed::NoHost));
    let twice = &[("Host", "a"), ("Host", "a")];
    assert_eq!(prepare_request(&mut head("GET /", twice)), Err(Malformed::ManyHosts));
    for bad in ["a b", "a/b", "a@b", "a, b", "a\\b"] {
        assert_eq!(prepare_request(&mut head("GET /", &[("Host", bad)])), Err(Malformed::BadHost));
    }
    for good in ["", "a", "a:80", "[::1]:80", "a_b.c~d", "a,b"] {
        let carried = prepare_request(&mut head("GET /", &[("Host", good)]));
        assert_eq!(carried, Ok(RequestKind::Message), "{good}");
    }
    let mut old = head("GET /", &[]);
    old.version = Version::HTTP_10;
    assert_eq!(prepare_request(&mut old), Ok(RequestKind::Message));
}

#[test]
fn only_chunked_alone_is_an_encoding() {
    for bad in [&["gzip, chunked"][..], &["chunked", "chunked"], &["gzip", "chunked"]] {
        let mut fields = vec![("Host", "a")];
        fields.extend(bad.iter().map(|v| ("Transfer-Encoding", *v)));
        assert_eq!(prepare_request(&mut head("POST /", &fields)), Err(Malformed::Encoding));
    }
    let fine = &[("Host", "a"), ("Transfer-Encoding", "Chunked")];
    assert_eq!(prepare_request(&mut head("POST /", fine)), Ok(RequestKind::Message));
}

#[test]
fn absolute_form_of_the_services_own_authority_becomes_origin_form() {
    let mut absolute = head("GET http://user@real:8000/x?y=z", &[("Host", "other"), ("A", "b")]);
    assert_eq!(prepare_request(&mut absolute), Ok(RequestKind::Message));
    assert_eq!(absolute.uri, "/x?y=z");
    assert_eq!(names(&absolute), ["host: real:8000", "a: b"]);
    for (line, expected) in [
        ("GET http://real", "/"),
        ("GET http://real?x=1", "/?x=1"),
        ("POST http://10.96.0.10:8000?", "/?"),
        ("OPTIONS http://real.shop", "*"),
        ("OPTIONS http://real.shop?x", "/?x"),
        ("OPTIONS http://real.shop/", "/"),
        ("GET https://real/x", "/x"),
        ("GET HTTP://real/caf\u{e9}", "/caf\u{e9}"),
    ] {
        let mut head = head(line, &[("Host", "Real")]);
        assert_eq!(prepare_request(&mut head), Ok(RequestKind::Message));
        assert_eq!(head.uri, expected, "{line}");
    }
    let mut odd = head("GET http://real?x=<5>", &[("Host", "Real")]);
    assert_eq!(prepare_request(&mut odd), Ok(RequestKind::Message));
    assert_eq!(Verbatim::of(&odd).unwrap().as_bytes(), "/?x=<5>");
    assert_eq!(names(&odd), ["host: Real"], "a Host that says the same stays as it came");
}

#[test]
fn absolute_form_of_another_authority_stays_as_it_came() {
    for (target, host) in [
        ("http://other", "other"),
        ("HTTP://u:p@other:80?x", "other:80"),
        ("ftp://other/<", "other"),
        ("http://real:80/x", "real:80"),
    ] {
        let mut head = head(&format!("GET {target}"), &[("Host", "real"), ("A", "b")]);
        assert_eq!(prepare_request(&mut head), Ok(RequestKind::Message));
        assert_eq!(Verbatim::of(&head).unwrap().as_bytes(), target);
        assert_eq!(names(&head), [&format!("host: {host}"), "a: b"], "{target}");
    }
}

#[test]
fn one_length_leaves() {
    let (one, other) = (("Content-Length", "5"), ("Content-Length", "3"));
    let fields = [("Host", "a"), one, ("A", "b"), one, one];
    let mut equal = head("POST /", &fields);
    assert_eq!(prepare_request(&mut equal), Ok(RequestKind::Message));
    assert_eq!(names(&equal), ["host: a", "content-length: 5", "a: b"]);
    for fields in [[("Host", "a"), one, other], [("Host", "a"), one, ("Content-Length", "05")]] {
        assert_eq!(prepare_request(&mut head("POST /", &fields)), Err(Malformed::Lengths));
    }
}

#[test]
fn an_authority_alone_is_the_target_of_connect_only() {
    for line in ["GET x", "GET other:80", "POST a.example", "CONNECT /x"] {
        let refused = prepare_request(&mut head(line, &[("Host", "a")]));
        assert_eq!(refused, Err(Malformed::BadTarget), "{line}");
    }
    for line in ["OPTIONS *", "GET /x", "GET http://other"] {
        let fine = prepare_request(&mut head(line, &[("Host", "a")]));
        assert_eq!(fine, Ok(RequestKind::Message), "{line}");
    }
}

#[test]
fn connect_has_no_content() {
    for field in [("Content-Length", "4"), ("Transfer-Encoding", "chunked")] {
        let refused = prepare_request(&mut head("CONNECT b:80", &[("Host", "b:80"), field]));
        assert_eq!(refused, Err(Malformed::ConnectContent), "{field:?}");
    }
    let fine = prepare_request(&mut head("CONNECT b:80", &[("Host", "b:80")]));
    assert_eq!(fine, Ok(RequestKind::Tunnel));
    let mut extended = head("CONNECT /chat", &[("Host", "a")]);
    extended.version = Version::HTTP_2;
    assert_eq!(prepare_request(&mut extended), Ok(RequestKind::Tunnel));
}

#[test]
fn hop_by_hop_fields_go_and_the_order_stays() {
    let mut head = head(
        "GET /",
        &[
            ("Host", "a"),
            ("Connection", "keep-alive, X-Hop, host"),
            ("A", "1"),
            ("X-Hop", "2"),
            ("Keep-Alive", "timeout=5"),
            ("B", "3"),
            ("A", "4"),
        ],
    );
    assert_eq!(prepare_request(&mut head), Ok(RequestKind::Message));
    // HeaderMap groups the values of a name; the order within it is what counts.
    assert_eq!(names(&head), ["host: a", "a: 1", "a: 4", "b: 3"]);
}

#[test]
fn an_upgrade_is_a_tunnel_with_its_fields_kept() {
    let fields = &[("Host", "a"), ("Connection", "Upgrade"), ("Upgrade", "websocket")];
    let mut requested = head("GET /", fields);
    assert_eq!(prepare_request(&mut requested), Ok(RequestKind::Tunnel));
    assert_eq!(requested.headers.len(), 3);
    assert_eq!(prepare_request(&mut head("CONNECT a:443", fields)), Ok(RequestKind::Tunnel));
}

#[test]
fn another_upgrade_is_a_message_whose_fields_are_kept() {
    for (connection, left) in [
        (&["Upgrade"][..], "Upgrade"),
        (&["upgrade"], "upgrade"),
        (&["keep-alive, Upgrade"], "Upgrade"),
        (&["X-Hop, Upgrade, close", "TE"], "Upgrade"),
    ] {
        let mut fields = vec![("Host", "a"), ("X-Hop", "1"), ("Upgrade", "TLS/1.2"), ("A", "b")];
        fields.extend(connection.iter().map(|value| ("Connection", *value)));
        let mut requested = head("GET /", &fields);
        assert_eq!(prepare_request(&mut requested), Ok(RequestKind::Upgrade), "{connection:?}");
        let hop = if connection[0].contains("X-Hop") { &[][..] } else { &["x-hop: 1"] };
        let rest = ["upgrade: TLS/1.2", "a: b", &format!("connection: {left}")].map(str::to_owned);
        let expected = ["host: a"].iter().chain(hop).map(|field| (*field).to_owned()).chain(rest);
        assert_eq!(names(&requested), expected.collect::<Vec<_>>());
        let copy = without_upgrade(&requested);
        assert!(names(&copy).iter().all(|f| !f.starts_with("upgrade") && !f.starts_with("conn")));
        assert_eq!(copy.headers.len(), requested.headers.len() - 2);
    }
}

#[test]
fn an_upgrade_that_is_meant_for_nobody_is_removed() {
    let mut old = head("GET /", &[("Connection", "Upgrade"), ("Upgrade", "websocket")]);
    old.version = Version::HTTP_10;
    let unnamed = head("GET /", &[("Host", "a"), ("Upgrade", "websocket")]);
    let empty = head("GET /", &[("Host", "a"), ("Connection", "Upgrade"), ("Upgrade", " ,")]);
    for mut head in [old, unnamed, empty] {
        assert_eq!(prepare_request(&mut head), Ok(RequestKind::Message));
        assert!(!head.headers.contains_key("upgrade") && !head.headers.contains_key("connection"));
    }
}

#[test]
fn h2c_among_others_is_taken_out() {
    let settings = ("HTTP2-Settings", "AAMA");
    let connection = ("Connection", "HTTP2-Settings, Upgrade");
    let fields = |upgrade| [("Host", "a"), connection, settings, ("Upgrade", upgrade)];
    let mut other = head("GET /", &fields("foo, h2c"));
    assert_eq!(prepare_request(&mut other), Ok(RequestKind::Upgrade));
    assert_eq!(names(&other), ["host: a", "connection: Upgrade", "upgrade: foo"]);
    let mut tunnel = head("GET /", &fields("h2c, websocket"));
    assert_eq!(prepare_request(&mut tunnel), Ok(RequestKind::Tunnel));
    assert_eq!(names(&tunnel), ["host: a", "connection: Upgrade", "upgrade: websocket"]);
}

#[test]
fn h2c_upgrades_are_taken_out() {
    let mut head = head(
        "GET /",
        &[
            ("Host", "a"),
            ("Connection", "Upgrade, HTTP2-Settings"),
            ("Upgrade", "h2c"),
            ("HTTP2-Settings", "AAMAAABkAAQAAP__"),
        ],
    );
    assert_eq!(prepare_request(&mut head), Ok(RequestKind::Message));
    assert_eq!(names(&head), ["host: a"]);
}

#[test]
fn a_length_is_a_number() {
    for bad in ["", "+1", "1,1", "0x1", "1 1"] {
        let fields = &[("Host", "a"), ("Content-Length", bad)];
        let refused = prepare_request(&mut head("POST /", fields));
        assert_eq!(refused, Err(Malformed::Lengths), "{bad:?}");
    }
}

#[test]
fn options_of_connection_take_linear_time() {
    // Each names a field that is there: a product of the two once.
    let of = |n: usize| {
        let fields: Vec<_> = (0..n).map(|n| (format!("x-{n}"), format!("x-{n}"))).collect();
        let options: Vec<_> = fields.iter().map(|(name, _)| name.as_str()).collect();
        let (mut all, options) = (vec![("Host", "a")], options.join(","));
        all.extend(fields.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        all.push(("Connection", &options));
        head("GET /", &all)
    };
    let heads = [of(1000), of(4000)];
    let grows = crate::work::ratio(
        |n| {
            let mut head = heads[usize::from(n > 1)].clone();
            assert_eq!(prepare_request(&mut head), Ok(RequestKind::Message));
            assert_eq!(head.headers.len(), 1, "all but Host are of one hop");
        },
        1,
    );
    assert!(grows < 8.0, "{grows:.1} times the work for 4 times the length");
}

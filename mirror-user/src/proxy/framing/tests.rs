//! What is refused, what is rewritten, and what stays as it came.

use http::{HeaderName, HeaderValue, Request, Version, request};

use super::*;

fn head(line: &str, fields: &[(&str, &str)]) -> request::Parts {
    let (method, target) = line.split_once(' ').unwrap();
    let mut head = Request::builder().method(method).uri(target).body(()).unwrap().into_parts().0;
    for (name, value) in fields {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        head.headers.append(name, HeaderValue::from_str(value).unwrap());
    }
    head
}

fn names(head: &request::Parts) -> Vec<String> {
    head.headers.iter().map(|(n, v)| format!("{n}: {}", v.to_str().unwrap())).collect()
}

#[test]
fn host_is_required_once_in_http11() {
    assert_eq!(prepare_request(&mut head("GET /", &[])), Err(Malformed::NoHost));
    let twice = &[("Host", "a"), ("Host", "a")];
    assert_eq!(prepare_request(&mut head("GET /", twice)), Err(Malformed::ManyHosts));
    for bad in ["a b", "a/b", "a@b", "a,b", "a\\b"] {
        assert_eq!(prepare_request(&mut head("GET /", &[("Host", bad)])), Err(Malformed::BadHost));
    }
    for good in ["", "a", "a:80", "[::1]:80", "a_b.c~d"] {
        let carried = prepare_request(&mut head("GET /", &[("Host", good)]));
        assert_eq!(carried, Ok(Carriage::Message), "{good}");
    }
    let mut old = head("GET /", &[]);
    old.version = Version::HTTP_10;
    assert_eq!(prepare_request(&mut old), Ok(Carriage::Message));
}

#[test]
fn only_chunked_alone_is_an_encoding() {
    for bad in [&["gzip, chunked"][..], &["chunked", "chunked"], &["gzip", "chunked"]] {
        let mut fields = vec![("Host", "a")];
        fields.extend(bad.iter().map(|v| ("Transfer-Encoding", *v)));
        assert_eq!(prepare_request(&mut head("POST /", &fields)), Err(Malformed::Encoding));
    }
    let fine = &[("Host", "a"), ("Transfer-Encoding", "Chunked")];
    assert_eq!(prepare_request(&mut head("POST /", fine)), Ok(Carriage::Message));
}

#[test]
fn absolute_form_becomes_origin_form() {
    let mut head = head("GET http://user@real:8000/x?y=z", &[("Host", "other"), ("A", "b")]);
    assert_eq!(prepare_request(&mut head), Ok(Carriage::Message));
    assert_eq!(head.uri, "/x?y=z");
    assert_eq!(names(&head), ["host: real:8000", "a: b"]);
}

#[test]
fn one_length_leaves() {
    let (one, other) = (("Content-Length", "5"), ("Content-Length", "3"));
    let fields = [("Host", "a"), one, ("A", "b"), one, one];
    let mut equal = head("POST /", &fields);
    assert_eq!(prepare_request(&mut equal), Ok(Carriage::Message));
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
        assert_eq!(fine, Ok(Carriage::Message), "{line}");
    }
}

#[test]
fn connect_has_no_content() {
    for field in [("Content-Length", "4"), ("Transfer-Encoding", "chunked")] {
        let refused = prepare_request(&mut head("CONNECT b:80", &[("Host", "b:80"), field]));
        assert_eq!(refused, Err(Malformed::ConnectContent), "{field:?}");
    }
    let fine = prepare_request(&mut head("CONNECT b:80", &[("Host", "b:80")]));
    assert_eq!(fine, Ok(Carriage::Tunnel));
    let mut extended = head("CONNECT /chat", &[("Host", "a")]);
    extended.version = Version::HTTP_2;
    assert_eq!(prepare_request(&mut extended), Ok(Carriage::Tunnel));
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
    assert_eq!(prepare_request(&mut head), Ok(Carriage::Message));
    // HeaderMap groups the values of a name; the order within it is what counts.
    assert_eq!(names(&head), ["host: a", "a: 1", "a: 4", "b: 3"]);
}

#[test]
fn an_upgrade_is_a_tunnel_with_its_fields_kept() {
    let fields = &[("Host", "a"), ("Connection", "Upgrade"), ("Upgrade", "websocket")];
    let mut asking = head("GET /", fields);
    assert_eq!(prepare_request(&mut asking), Ok(Carriage::Tunnel));
    assert_eq!(asking.headers.len(), 3);
    assert_eq!(prepare_request(&mut head("CONNECT a:443", fields)), Ok(Carriage::Tunnel));
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
    assert_eq!(prepare_request(&mut head), Ok(Carriage::Message));
    assert_eq!(names(&head), ["host: a"]);
}

//! That heads and trailers take work in proportion to their length, however they are made and however
//! they come: for each kind of input that once took its square.

use bytes::BytesMut;
use http::Method;

use super::{
    chunked::{ChunkStep, Chunked},
    encode_head,
    fields::{self, OriginalHead},
    parse,
};
use crate::work::{cpu, ratio};

/// Fields of the largest heads.
const FIELDS: usize = super::FIELD_LIMIT - 1;

/// Bytes of a field's name, so that all of them fill a head.
const NAME: usize = 240;

/// More than 4 by what else happens on the machine, less than the 16 of what is quadratic.
const LINEAR: f64 = 8.0;

/// So many fields without a value, each with another name.
fn empty_fields(count: usize) -> String {
    (0..count).map(|n| format!("x-{n:0>NAME$}:\r\n")).collect()
}

fn request(fields: &str) -> Vec<u8> {
    let mut input = BytesMut::from(format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n").as_str());
    let parsed_request = parse::request(&mut input, &mut 0).unwrap().unwrap();
    let mut to = Vec::new();
    encode_head::request(&mut to, &parsed_request.head);
    to
}

fn response(fields: &str) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{fields}\r\n");
    let mut input = BytesMut::from(head.as_str());
    let parsed_response =
        parse::response(&mut input, &mut 0, &Method::GET, false).unwrap().unwrap();
    let mut to = Vec::new();
    fields::write(
        &mut to,
        &parsed_response.head.headers,
        OriginalHead::of(&parsed_response.head.extensions),
    );
    to
}

/// Feeds `bytes` one by one.
fn dribble(bytes: &[u8], mut take: impl FnMut(&mut BytesMut) -> bool) {
    let mut input = BytesMut::with_capacity(bytes.len());
    for byte in bytes {
        input.extend_from_slice(&[*byte]);
        if take(&mut input) {
            return;
        }
    }
    panic!("it came to no end");
}

fn assert_linear(what: &str, work: impl FnMut(usize), n: usize) {
    let grows = ratio(work, n);
    assert!(grows < LINEAR, "{what}: {grows:.1} times the work for 4 times the length");
}

#[test]
fn empty_fields_pass() {
    let heads: Vec<_> = [FIELDS / 4, FIELDS].map(empty_fields).into();
    assert!(request(&heads[1]).len() > heads[1].len());
    assert_linear("requests", |n| drop(request(&heads[usize::from(n > 1)])), 1);
    assert_linear("responses", |n| drop(response(&heads[usize::from(n > 1)])), 1);
}

#[test]
fn repaired_heads() {
    for (what, line) in [
        ("folds", " folded\r\n"),
        ("empty folds", " \r\n"),
        ("long folds", &format!(" {:>200}\r\n", "x")),
        ("lines that are no fields", "x\r\n"),
        ("blanks", "\r\r\n"),
    ] {
        let fields = |n: usize| format!("X: y\r\nZ : a\r\n{}", line.repeat(n / line.len()));
        let heads: Vec<_> = [30 * 1024, 120 * 1024].map(fields).into();
        assert_linear(what, |n| drop(response(&heads[usize::from(n > 1)])), 1);
    }
}

#[test]
fn heads_that_come_byte_by_byte() {
    let long = |n: usize| format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "y".repeat(n));
    let work = |n: usize| {
        let mut seen = 0;
        dribble(long(n).as_bytes(), |input| parse::request(input, &mut seen).unwrap().is_some());
    };
    assert_linear("a request", work, 16 * 1024);
    let long = |n: usize| format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(n / 6));
    let work = |n: usize| {
        let (mut seen, head) = (0, long(n));
        dribble(head.as_bytes(), |input| {
            parse::response(input, &mut seen, &Method::GET, true).unwrap().is_some()
        });
    };
    assert_linear("a response", work, 1400);
    // One that is to be repaired is looked at as rarely.
    let long = |n: usize| format!("HTTP/1.1 200 OK\r\nZ : a\r\nX: {}\r\n\r\n", "y".repeat(n));
    let work = |n: usize| {
        let (mut seen, head) = (0, long(n));
        dribble(head.as_bytes(), |input| {
            parse::response(input, &mut seen, &Method::GET, true).unwrap().is_some()
        });
    };
    assert_linear("a mended response", work, 16 * 1024);
}

#[test]
fn blank_lines_that_come_byte_by_byte() {
    // A request's are dropped at once; a response's stay until it is clear that it is none.
    let work = |n: usize| {
        let mut seen = 0;
        let bytes = [&b"\r\n".repeat(n / 2)[..], b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
        dribble(&bytes, |input| parse::request(input, &mut seen).unwrap().is_some());
    };
    assert_linear("before a request", work, 16 * 1024);
    let took = cpu(|| {
        let mut seen = 0;
        let bytes = b"\n".repeat(64 * 1024);
        dribble(&bytes, |input| parse::response(input, &mut seen, &Method::GET, true).is_err());
    });
    // Were each looked at with each, it would be two thousand million steps.
    assert!(took.as_millis() < 500, "before a response: {took:?}");
}

#[test]
fn chunks_that_come_byte_by_byte() {
    let decode = |bytes: &[u8]| {
        let mut chunked = Chunked::of_response();
        dribble(bytes, |input| {
            matches!(chunked.decode(input).unwrap(), ChunkStep::End | ChunkStep::Trailers(_))
        });
    };
    for (what, n, bytes) in [
        ("an extension", 900, |n: usize| format!("0;{}\r\n\r\n", "x".repeat(n))),
        ("trailers", 4000, |n: usize| format!("0\r\nX: {}\r\n\r\n", "y".repeat(n))),
        ("mended trailers", 4000, |n: usize| format!("0\r\nX : {}\r\n\r\n", "y".repeat(n))),
    ] as [(&str, usize, fn(usize) -> String); 3]
    {
        assert_linear(what, |n| decode(bytes(n).as_bytes()), n);
    }
}

#[test]
fn fields_that_are_set_are_looked_for_quickly() {
    // Each is looked for in the whole head: a filter sets 64 at most.
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{}\r\n", empty_fields(FIELDS - 64));
    let mut input = BytesMut::from(head.as_str());
    let mut parsed_response =
        parse::response(&mut input, &mut 0, &Method::GET, false).unwrap().unwrap();
    for n in 0..64 {
        let name = http::HeaderName::from_bytes(format!("ours-{n}").as_bytes()).unwrap();
        parsed_response.head.headers.insert(name, http::HeaderValue::from_static("x"));
    }
    let took = cpu(|| {
        let mut to = Vec::new();
        fields::write(
            &mut to,
            &parsed_response.head.headers,
            OriginalHead::of(&parsed_response.head.extensions),
        );
    });
    // Without optimization 64 looks at each byte would be 16 million steps of 20 ns.
    assert!(took.as_millis() < 100, "{took:?}");
}

//! Tests of the parsing of heads.

use proptest::prelude::*;

use super::{super::line::TARGET_LIMIT, *};

fn ask(head: &str) -> Result<Option<Asking>, HeadError> {
    request(&mut BytesMut::from(head), &mut 0)
}

fn asked(head: &str) -> Asking {
    ask(head).unwrap().unwrap()
}

fn answered(head: &[u8], to: &Method) -> Answering {
    answer(&mut BytesMut::from(head), &mut 0, to, false).unwrap().unwrap()
}

#[test]
fn a_request_is_taken_off_the_front() {
    let mut input =
        BytesMut::from("POST /a?b HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabcGET");
    let asking = request(&mut input, &mut 0).unwrap().unwrap();
    assert_eq!(asking.head.method, Method::POST);
    assert_eq!(asking.head.uri, "/a?b");
    assert_eq!(asking.head.headers["host"], "h");
    assert_eq!(asking.content.left(), Some(3));
    assert!(asking.persists);
    assert_eq!(&input[..], b"abcGET");
}

#[test]
fn a_head_in_pieces_is_whole_with_its_last_byte() {
    let head = "GET / HTTP/1.1\r\nHost: h\r\nX: y\r\n\r\n";
    let (mut input, mut seen) = (BytesMut::new(), 0);
    for byte in head.as_bytes() {
        assert!(request(&mut input, &mut seen).unwrap().is_none(), "{input:?}");
        input.extend_from_slice(&[*byte]);
    }
    let asking = request(&mut input, &mut seen).unwrap().unwrap();
    assert_eq!(asking.head.headers["x"], "y");
    assert!(input.is_empty());
}

#[test]
fn empty_lines_before_a_request_are_dropped_as_they_come() {
    let (mut input, mut seen) = (BytesMut::new(), 0);
    for _ in 0..100_000 {
        input.extend_from_slice(b"\r\n\n");
        assert!(request(&mut input, &mut seen).unwrap().is_none());
        assert!(input.is_empty());
    }
    input.extend_from_slice(b"\r\nGET / HTTP/1.1\r\n\r\n");
    assert!(request(&mut input, &mut seen).unwrap().is_some());
}

#[test]
fn whether_the_connection_persists() {
    let persists = |head: &str| asked(head).persists;
    assert!(persists("GET / HTTP/1.1\r\n\r\n"));
    assert!(!persists("GET / HTTP/1.1\r\nConnection: x, Close\r\n\r\n"));
    assert!(!persists("GET / HTTP/1.0\r\n\r\n"));
    assert!(persists("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n"));
    // Close holds whatever else is said.
    assert!(!persists("GET / HTTP/1.1\r\nConnection: close\r\nConnection: keep-alive\r\n\r\n"));
    // Somebody else may have read the length (RFC 9112, section 6.1).
    let both = "POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert!(!persists(both));
}

#[test]
fn a_request_has_one_framing() {
    let left = |fields: &str| asked(&format!("POST / HTTP/1.1\r\n{fields}\r\n")).content.left();
    assert_eq!(left(""), Some(0));
    assert_eq!(left("Content-Length: 0\r\n"), Some(0));
    assert_eq!(left("Content-Length: 18446744073709551615\r\n"), Some(u64::MAX));
    assert_eq!(left("Transfer-Encoding: gzip, Chunked\r\n"), None);
    let twice = asked("POST / HTTP/1.1\r\nContent-Length: 7\r\nContent-Length: 7\r\n\r\n");
    assert_eq!(twice.content.left(), Some(7));
    assert_eq!(twice.head.headers.get_all("content-length").iter().count(), 1);
    let orders = [
        "POST / HTTP/1.1\r\nContent-Length: 7\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 7\r\n\r\n",
    ];
    for both in orders {
        let asking = asked(both);
        assert_eq!(asking.content.left(), None);
        assert!(!asking.head.headers.contains_key("content-length"));
    }
}

#[test]
fn what_is_no_request_is_refused() {
    for (head, error) in [
        ("POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", HeadError::Length),
        ("POST / HTTP/1.1\r\nContent-Length: 1,1\r\n\r\n", HeadError::Length),
        ("POST / HTTP/1.1\r\nContent-Length: +1\r\n\r\n", HeadError::Length),
        ("POST / HTTP/1.1\r\nContent-Length:\r\n\r\n", HeadError::Length),
        ("POST / HTTP/1.1\r\nContent-Length: 18446744073709551616\r\n\r\n", HeadError::Length),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked, gzip\r\n\r\n", HeadError::Encoding),
        ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", HeadError::Encoding),
        ("GET / HTTP/2.0\r\n\r\n", HeadError::Syntax(httparse::Error::Version)),
        ("GET / HTTP/1.1\r\nX : y\r\n\r\n", HeadError::Syntax(httparse::Error::HeaderName)),
        ("GET / HTTP/1.1\r\nX: y\r\n z\r\n\r\n", HeadError::Syntax(httparse::Error::HeaderName)),
        ("GET / HTTP/1.1\r\nX: a\0b\r\n\r\n", HeadError::Syntax(httparse::Error::HeaderValue)),
    ] {
        assert_eq!(ask(head).map(drop), Err(error), "{head}");
    }
}

#[test]
fn limits_are_those_that_are_documented() {
    let fields = |n: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(n));
    assert_eq!(asked(&fields(FIELD_LIMIT)).head.headers.len(), FIELD_LIMIT);
    assert_eq!(ask(&fields(FIELD_LIMIT + 1)).map(drop), Err(HeadError::TooMany));
    let target = |n: usize| format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(n - 1));
    assert!(ask(&target(TARGET_LIMIT)).unwrap().is_some());
    assert_eq!(ask(&target(TARGET_LIMIT + 1)).map(drop), Err(HeadError::LongTarget));
    let large = format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(HEAD_LIMIT));
    assert_eq!(ask(&large).map(drop), Err(HeadError::TooLarge));
    assert_eq!(ask(&format!("{large}\r\n\r\n")).map(drop), Err(HeadError::TooLarge));
}

#[test]
fn an_answer_is_framed_by_its_status_its_request_and_its_fields() {
    let left = |status: &str, fields: &str, to: Method| {
        let answering = answered(format!("HTTP/1.1 {status}\r\n{fields}\r\n").as_bytes(), &to);
        (answering.content.left(), answering.persists)
    };
    let length = "Content-Length: 5\r\n";
    assert_eq!(left("200 OK", length, Method::GET), (Some(5), true));
    assert_eq!(left("200 OK", length, Method::HEAD), (Some(0), true));
    assert_eq!(left("200 OK", length, Method::CONNECT), (Some(0), true));
    assert_eq!(left("404 Not Found", length, Method::CONNECT), (Some(5), true));
    assert_eq!(left("204 No Content", length, Method::GET), (Some(0), true));
    assert_eq!(left("304 Not Modified", length, Method::GET), (Some(0), true));
    assert_eq!(left("200 OK", "", Method::GET), (None, false));
    assert_eq!(left("200 OK", "Transfer-Encoding: chunked\r\n", Method::GET), (None, true));
    assert_eq!(left("200 OK", "Transfer-Encoding: gzip\r\n", Method::GET), (None, false));
    assert_eq!(
        left("200 OK", "Content-Length: 0\r\nConnection: close\r\n", Method::GET),
        (Some(0), false)
    );
}

#[test]
fn an_answer_that_two_recipients_read_in_two_ways_is_refused() {
    let refused = |fields: &str| {
        let head = format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
        answer(&mut BytesMut::from(head.as_str()), &mut 0, &Method::GET, false).map(drop)
    };
    let both = "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n";
    assert_eq!(refused(both), Err(HeadError::Both));
    assert_eq!(refused("Content-Length: 1\r\nContent-Length: 2\r\n"), Err(HeadError::Length));
}

#[test]
fn folded_lines_of_an_answer_are_joined() {
    let head = b"HTTP/1.1 200 OK\r\nX: one\r\n\t two \r\n  three\r\nY: z\r\n\r\n";
    let headers = answered(head, &Method::GET).head.headers;
    assert_eq!(headers["x"], "one two three");
    assert_eq!(headers["y"], "z");
}

#[test]
fn a_reason_phrase_is_kept_where_it_is_unusual() {
    let reason = |head: &[u8]| {
        let extensions = answered(head, &Method::GET).head.extensions;
        extensions.get::<Reason>().map(|reason| reason.0.clone())
    };
    assert_eq!(reason(b"HTTP/1.1 200 OK\r\n\r\n"), None);
    assert_eq!(reason(b"HTTP/1.1 200 Fine\r\n\r\n").unwrap(), " Fine");
    assert_eq!(reason(b"HTTP/1.1 200 \r\n\r\n").unwrap(), " ");
    assert_eq!(reason(b"HTTP/1.1 200\r\n\r\n").unwrap(), "");
    assert_eq!(reason(b"\r\nHTTP/1.1 200 d\xe9j\xe0\r\n\r\n").unwrap(), b" d\xe9j\xe0".as_slice());
}

proptest! {
    /// Whatever comes, in whatever pieces: no panic, and the pieces do not change what it is.
    #[test]
    fn pieces_do_not_change_what_a_head_is(
        bytes in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..200),
            "(GET|POST|x y|) ?/[a-z ]{0,5} HTTP/1[.][01](\r\n|\n)((Host|Content-Length|Transfer-Encoding|X):? ?[a-z0-9, ]{0,9}(\r\n|\n)){0,4}(\r\n|\n)?[a-z]{0,4}"
                .prop_map(String::into_bytes),
        ],
        cuts in proptest::collection::vec(1_usize..20, 0..20),
    ) {
        let whole = request(&mut BytesMut::from(&bytes[..]), &mut 0);
        let (mut input, mut seen, mut rest) = (BytesMut::new(), 0, &bytes[..]);
        let mut cuts = cuts.into_iter().chain(std::iter::repeat(usize::MAX));
        let pieced = loop {
            let (piece, left) = rest.split_at(cuts.next().unwrap().min(rest.len()));
            input.extend_from_slice(piece);
            rest = left;
            match request(&mut input, &mut seen) {
                Ok(None) if !rest.is_empty() => {}
                told => break told,
            }
        };
        match (whole, pieced) {
            (Ok(Some(whole)), Ok(Some(pieced))) => {
                prop_assert_eq!(whole.head.headers, pieced.head.headers);
                prop_assert_eq!(whole.content.left(), pieced.content.left());
            }
            // What is malformed may show only when the head is whole.
            (Err(_), Ok(None)) => {}
            (whole, pieced) => {
                prop_assert_eq!(whole.map(|w| w.is_some()), pieced.map(|p| p.is_some()));
            }
        }
    }
}

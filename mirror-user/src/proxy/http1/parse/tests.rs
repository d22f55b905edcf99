//! Tests of the parsing of heads.

use proptest::prelude::*;

use super::{super::line::TARGET_LIMIT, *};

fn try_request(head: &str) -> Result<Option<ParsedRequest>, HeadError> {
    request(&mut BytesMut::from(head), &mut 0)
}

fn parse_request(head: &str) -> ParsedRequest {
    try_request(head).unwrap().unwrap()
}

fn parse_response(head: &[u8], to: &Method) -> ParsedResponse {
    response(&mut BytesMut::from(head), &mut 0, to, false).unwrap().unwrap()
}

#[test]
fn a_request_is_taken_off_the_front() {
    let mut input =
        BytesMut::from("POST /a?b HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabcGET");
    let parsed_request = request(&mut input, &mut 0).unwrap().unwrap();
    assert_eq!(parsed_request.head.method, Method::POST);
    assert_eq!(parsed_request.head.uri, "/a?b");
    assert_eq!(parsed_request.head.headers["host"], "h");
    assert_eq!(parsed_request.content.left(), Some(3));
    assert!(parsed_request.persists);
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
    let parsed_request = request(&mut input, &mut seen).unwrap().unwrap();
    assert_eq!(parsed_request.head.headers["x"], "y");
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
    let persists = |head: &str| parse_request(head).persists;
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
    let left =
        |fields: &str| parse_request(&format!("POST / HTTP/1.1\r\n{fields}\r\n")).content.left();
    assert_eq!(left(""), Some(0));
    assert_eq!(left("Content-Length: 0\r\n"), Some(0));
    assert_eq!(left("Content-Length: 18446744073709551615\r\n"), Some(u64::MAX));
    assert_eq!(left("Transfer-Encoding: gzip, Chunked\r\n"), None);
    let twice = parse_request("POST / HTTP/1.1\r\nContent-Length: 7\r\nContent-Length: 7\r\n\r\n");
    assert_eq!(twice.content.left(), Some(7));
    assert_eq!(twice.head.headers.get_all("content-length").iter().count(), 1);
    let orders = [
        "POST / HTTP/1.1\r\nContent-Length: 7\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 7\r\n\r\n",
    ];
    for both in orders {
        let parsed_request = parse_request(both);
        assert_eq!(parsed_request.content.left(), None);
        assert!(!parsed_request.head.headers.contains_key("content-length"));
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
        ("GET / HTTP/1.1\r\n X: y\r\n\r\n", HeadError::Syntax(httparse::Error::HeaderName)),
        ("GET / HTTP/1.1\r\nHost:\r\n y\r\n\r\n", HeadError::Syntax(httparse::Error::HeaderName)),
        ("GET / HTTP/1.1\r\nX: a\0b\r\n\r\n", HeadError::Syntax(httparse::Error::HeaderValue)),
    ] {
        assert_eq!(try_request(head).map(drop), Err(error), "{head}");
    }
}

#[test]
fn limits_are_those_that_are_documented() {
    let fields = |n: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(n));
    assert_eq!(parse_request(&fields(FIELD_LIMIT)).head.headers.len(), FIELD_LIMIT);
    assert_eq!(try_request(&fields(FIELD_LIMIT + 1)).map(drop), Err(HeadError::TooMany));
    let target = |n: usize| format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(n - 1));
    assert!(try_request(&target(TARGET_LIMIT)).unwrap().is_some());
    assert_eq!(try_request(&target(TARGET_LIMIT + 1)).map(drop), Err(HeadError::LongTarget));
    let large = format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(HEAD_LIMIT));
    assert_eq!(try_request(&large).map(drop), Err(HeadError::TooLarge));
    assert_eq!(try_request(&format!("{large}\r\n\r\n")).map(drop), Err(HeadError::TooLarge));
}

#[test]
fn a_response_is_framed_by_its_status_its_request_and_its_fields() {
    let left = |status: &str, fields: &str, to: Method| {
        let parsed_response =
            parse_response(format!("HTTP/1.1 {status}\r\n{fields}\r\n").as_bytes(), &to);
        (parsed_response.content.left(), parsed_response.persists)
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
fn targets_are_any_bytes_but_whitespace_and_control_characters() {
    for target in [&b"/caf\xe9?\xff"[..], b"/q?x=<5>", b"/a\"`^|\\{}#c", "/\u{e9}".as_bytes()] {
        for end in ["\r\n", "\n"] {
            let rest = format!(" HTTP/1.1{end}Host: h{end}X: y{end}{end}rest");
            let mut input = BytesMut::from(&[b"GET ", target, rest.as_bytes()].concat()[..]);
            let parsed_request = request(&mut input, &mut 0).unwrap().unwrap();
            assert_eq!(&input[..], b"rest");
            assert_eq!(parsed_request.head.headers["x"], "y");
            let mut encoded = Vec::new();
            super::super::encode_head::request(&mut encoded, &parsed_request.head);
            let line = [b"GET ", target, b" HTTP/1.1\r\n"].concat();
            assert!(encoded.starts_with(&line), "{}", encoded.escape_ascii());
        }
    }
    let refused = |line: &[u8]| {
        request(&mut BytesMut::from(&[line, b"\r\nHost: h\r\n\r\n"].concat()[..]), &mut 0).map(drop)
    };
    let lines: [&[u8]; 8] = [
        b"GET /\xe9\x00 HTTP/1.1",
        b"GET /\xe9\t HTTP/1.1",
        b"GET /\x7f HTTP/1.1",
        b"GET /\xe9\r HTTP/1.1",
        b"GET  HTTP/1.1",
        b"GET \xe9 HTTP/1.1",
        b"GET x<y HTTP/1.1",
        b"GET http://a<b/ HTTP/1.1",
    ];
    for line in lines {
        assert_eq!(refused(line), Err(HeadError::Target), "{}", line.escape_ascii());
    }
    let syntax = |error| Err(HeadError::Syntax(error));
    assert_eq!(refused(b"GET /\xe9 HTTP/2.0"), syntax(httparse::Error::Version));
    assert_eq!(refused(b"GET /\xe9 2 HTTP/1.1"), syntax(httparse::Error::Version));
    assert_eq!(refused(b"GET /\xe9 HTTP/1.1 "), syntax(httparse::Error::Version));
    assert_eq!(refused(b"G\xe9T / HTTP/1.1"), syntax(httparse::Error::Token));
    let long = [b"GET /\xe9", &vec![b'x'; TARGET_LIMIT][..], b" HTTP/1.1"].concat();
    assert_eq!(refused(&long), Err(HeadError::LongTarget));
}

/// What leaves of a request.
fn sent_on(head: &str) -> String {
    let mut input = BytesMut::from(format!("{head}rest").as_str());
    let parsed_request = request(&mut input, &mut 0).unwrap().unwrap();
    assert_eq!(&input[..], b"rest");
    let mut encoded = Vec::new();
    super::super::encode_head::request(&mut encoded, &parsed_request.head);
    String::from_utf8(encoded).unwrap()
}

#[test]
fn a_request_with_one_reading_is_repaired() {
    assert_eq!(
        sent_on(
            "GET   /a<b    HTTP/1.1\r\nHost: h\r\nX: y\r\n z\r\nCookie: \u{1}\u{7f}\r\nX[1]: 2\r\nA: b\r\n\r\n"
        ),
        "GET /a<b HTTP/1.1\r\nHost: h\r\nX: y z\r\nCookie: \u{1}\u{7f}\r\nA: b\r\nX[1]: 2\r\n\r\n"
    );
    let many = "A: b\r\n".repeat(40);
    let head = format!("GET / HTTP/1.1\r\n{many}X: \u{1}\r\n\r\n");
    assert_eq!(sent_on(&head), head);
}

#[test]
fn a_request_line_of_any_bytes_may_come_in_pieces() {
    let head = b"GET /caf\xe9 HTTP/1.1\r\nHost: h\r\nX: y\r\n\r\n";
    let (mut input, mut seen) = (BytesMut::new(), 0);
    for byte in head {
        assert!(request(&mut input, &mut seen).unwrap().is_none(), "{input:?}");
        input.extend_from_slice(&[*byte]);
    }
    assert!(request(&mut input, &mut seen).unwrap().is_some());
}

/// What leaves of a response; its content's length, where it is known, and whether the connection
/// persists.
fn repaired(head: &[u8], to: &Method) -> (String, Option<u64>, bool) {
    let mut input = BytesMut::from(&[head, b"rest"].concat()[..]);
    let parsed_response = response(&mut input, &mut 0, to, true).unwrap().unwrap();
    assert_eq!(&input[..], b"rest");
    let mut encoded = Vec::new();
    super::super::encode_head::response(
        &mut encoded,
        &parsed_response.head,
        http::Version::HTTP_11,
    );
    let mut summary = BytesMut::from(head);
    let summary = parse_summary(&mut summary, &mut 0, to).unwrap().unwrap();
    assert_eq!(summary.persists, parsed_response.persists);
    assert_eq!(summary.content.left(), parsed_response.content.left());
    (encoded.escape_ascii().to_string(), parsed_response.content.left(), parsed_response.persists)
}

#[test]
fn responses_are_repaired_as_the_rfc_says() {
    let get = |fields: &str| {
        let (head, left, persists) =
            repaired(format!("HTTP/1.1 200 OK\r\n{fields}\r\n").as_bytes(), &Method::GET);
        let head = head.strip_prefix(r"HTTP/1.1 200 OK\r\n").unwrap().strip_suffix(r"\r\n");
        (head.unwrap().replace(r"\r\n", "|"), left, persists)
    };
    let expected = |head: &str, left, persists| (head.to_owned(), left, persists);
    let cases = [
        ("A : b\r\nContent-Length : 2\r\n", expected("A: b|Content-Length: 2|", Some(2), true)),
        (
            "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n",
            expected("Transfer-Encoding: chunked|", None, false),
        ),
        (
            "Transfer-Encoding: chunked\r\nContent-Length: 2\r\nContent-Length: 2\r\n",
            expected("Transfer-Encoding: chunked|", None, false),
        ),
        ("Content-Length: 2, 2\r\n", expected("Content-Length: 2|", Some(2), true)),
        (
            "content-length: 2\r\nContent-Length: 2,2\r\n",
            expected("content-length: 2|", Some(2), true),
        ),
        (
            "Transfer-Encoding: identity\r\nContent-Length: 2\r\n",
            expected("Content-Length: 2|", Some(2), true),
        ),
        (
            "Set-Cookie: a=\u{1}\r\nSet-Cookie: b=2\r\nContent-Length: 2\r\n",
            expected(r"Set-Cookie: a=\x01|Set-Cookie: b=2|Content-Length: 2|", Some(2), true),
        ),
        (
            "X Y: z\r\n<html>\r\nContent-Length: 2\r\nX(1): z\r\n",
            expected("Content-Length: 2|X Y: z|<html>|X(1): z|", Some(2), true),
        ),
    ];
    for (fields, expected) in cases {
        assert_eq!(get(fields), expected, "{fields}");
    }
    let old = |fields: &str| {
        repaired(format!("HTTP/1.0 200 OK\r\n{fields}\r\n").as_bytes(), &Method::GET)
    };
    let chunked = "Transfer-Encoding: chunked\r\nConnection: keep-alive\r\n";
    assert_eq!(
        old(chunked),
        expected(r"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", None, false)
    );
    let reason = repaired(b"HTTP/1.1  200 O\x01K\r\nContent-Length: 2\r\n\r\n", &Method::GET).0;
    assert_eq!(reason, r"HTTP/1.1 200 O\x01K\r\nContent-Length: 2\r\n\r\n");
    let head = repaired(b"HTTP/1.1 200 OK\r\nA : b\r\nContent-Length: 2\r\n\r\n", &Method::HEAD);
    assert_eq!((head.1, head.2), (Some(0), true));
}

#[test]
fn a_response_whose_framing_is_unknown_stays_unread() {
    let many = "A: b\r\n".repeat(FIELD_LIMIT + 1);
    for (fields, error) in [
        ("Content-Length: 1\r\nContent-Length: 2\r\n", HeadError::Length),
        ("Content-Length: 1, 2\r\n", HeadError::Length),
        ("Content-Length: 1,\r\n", HeadError::Length),
        ("Content-Length:\r\n", HeadError::Length),
        ("Content-Length: +1\r\n", HeadError::Length),
        ("A : b\r\nContent-Length: -1\r\n", HeadError::Length),
        ("(Content-Length): 1\r\n", HeadError::Syntax(httparse::Error::HeaderName)),
        (&many, HeadError::TooMany),
    ] {
        for unread in [false, true] {
            let head = format!("HTTP/1.1 200 OK\r\nX: y\r\n{fields}\r\nrest");
            let mut input = BytesMut::from(head.as_str());
            let refused = response(&mut input, &mut 0, &Method::GET, unread).map(drop);
            assert_eq!(refused, Err(error), "{fields}");
            assert_eq!(&input[..], head.as_bytes(), "nothing was taken");
        }
    }
    let mut input = BytesMut::from("garbage\r\n");
    assert!(response(&mut input, &mut 0, &Method::GET, false).is_err());
    assert_eq!(&input[..], b"garbage\r\n");
}

#[test]
fn a_head_to_be_repaired_may_come_in_pieces() {
    let head = b"HTTP/1.1  200 OK\r\nA : b\r\nX Y: z\r\nContent-Length: 2\r\n\r\n";
    let (mut input, mut seen) = (BytesMut::new(), 0);
    for byte in head {
        let half = response(&mut input, &mut seen, &Method::GET, true).unwrap();
        assert!(half.is_none(), "{input:?}");
        input.extend_from_slice(&[*byte]);
    }
    assert!(response(&mut input, &mut seen, &Method::GET, true).unwrap().is_some());
}

#[test]
fn folded_lines_of_a_response_are_joined() {
    let head = b"HTTP/1.1 200 OK\r\nX: one\r\n\t two \r\n  three\r\nY: z\r\n\r\n";
    let headers = parse_response(head, &Method::GET).head.headers;
    assert_eq!(headers["x"], "one two three");
    assert_eq!(headers["y"], "z");
}

#[test]
fn a_reason_phrase_is_kept_where_it_is_unusual() {
    let reason = |head: &[u8]| {
        let extensions = parse_response(head, &Method::GET).head.extensions;
        extensions.get::<ReasonPhrase>().map(|reason| reason.0.clone())
    };
    assert_eq!(reason(b"HTTP/1.1 200 OK\r\n\r\n"), None);
    assert_eq!(reason(b"HTTP/1.1 200 Fine\r\n\r\n").unwrap(), " Fine");
    assert_eq!(reason(b"HTTP/1.1 200 \r\n\r\n").unwrap(), " ");
    assert_eq!(reason(b"HTTP/1.1 200\r\n\r\n").unwrap(), "");
    assert_eq!(reason(b"\r\nHTTP/1.1 200 d\xe9j\xe0\r\n\r\n").unwrap(), b" d\xe9j\xe0".as_slice());
}

proptest! {
    /// A target of any bytes leaves as it came.
    #[test]
    fn a_target_of_any_bytes_leaves_as_it_came(
        rest in proptest::collection::vec(any::<u8>(), 0..60),
    ) {
        let graphic = rest.iter().filter(|byte| **byte > b' ' && **byte != 0x7f);
        let target: Vec<_> = std::iter::once(b'/').chain(graphic.copied()).collect();
        let head = [b"GET ", &target[..], b" HTTP/1.1\r\nHost: h\r\n\r\n"].concat();
        let parsed_request = request(&mut BytesMut::from(&head[..]), &mut 0).unwrap().unwrap();
        let mut encoded = Vec::new();
        super::super::encode_head::request(&mut encoded, &parsed_request.head);
        prop_assert_eq!(encoded, head);
    }

    /// Whatever an upstream says is read or left as it is; what is read leaves with one framing.
    #[test]
    fn a_response_leaves_with_one_framing_or_stays_unread(
        fields in proptest::collection::vec(
            "(Content-Length|Transfer-Encoding|Connection|X)[ \\x01(]?:? ?(2, 2|2|5|chunked|identity|gzip|close|a\\x01b|\\x00|\\r)?(\r\n|\n|\r\n )",
            0..5,
        ),
        line in "HTTP/1[.][0-2]  ?200 (OK|O\\x01)",
    ) {
        let head = format!("{line}\r\n{}\r\nrest", fields.concat());
        let mut input = BytesMut::from(head.as_str());
        match response(&mut input, &mut 0, &Method::GET, true) {
            Ok(None) | Err(_) => prop_assert_eq!(&input[..], head.as_bytes()),
            Ok(Some(mut parsed_response)) => {
                let to = super::super::encode_head::ResponseContext {
                    head: false,
                    connect: false,
                    version: http::Version::HTTP_11,
                    persists: true,
                };
                let body = http_body_util::Empty::<Bytes>::new();
                super::super::encode_head::frame_response(&mut parsed_response.head, &body, to);
                let mut encoded = Vec::new();
                super::super::encode_head::response(&mut encoded, &parsed_response.head, http::Version::HTTP_11);
                let encoded = String::from_utf8(encoded).unwrap().to_ascii_lowercase();
                let lengths = encoded.matches("\r\ncontent-length:").count();
                let coded = encoded.lines().rfind(|line| line.starts_with("transfer-encoding:"));
                prop_assert!(coded.is_none_or(|last| last.ends_with("chunked")), "{}", encoded);
                prop_assert!(lengths == usize::from(coded.is_none()), "{}", encoded);
                prop_assert!(!encoded.replace("\r\n", "").contains(['\r', '\n', '\0']), "{}", encoded);
            }
        }
    }

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

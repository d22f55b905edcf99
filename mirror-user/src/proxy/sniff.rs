//! Sniffing: what a client's first bytes are. In: a stream and what was read of it. Out: a
//! [`Protocol`], and the bytes, none of them consumed. Time alone never decides
//! who may speak.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::BytesMut;
use tokio::{net::TcpStream, time::timeout};
use tokio_util::io::poll_read_buf;

/// The HTTP/2 connection preface (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A line this long that still looks like a request line is left to the HTTP/1 parser, which
/// answers 414.
const LINE_LIMIT: usize = 16 * 1024;

/// Methods are registered tokens; the longest registered one has 16 characters (RFC 9110 18.2).
const METHOD_LIMIT: usize = 32;

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
    Opaque,
    /// The client ended without a byte.
    Silent,
}

/// Reads until the protocol is known; the bytes stay in `buffer`. The first byte is waited for
/// without end. A client that pauses for `patience` before a line is whole may be waiting for a
/// response to what it said, in a protocol without lines: then what there is decides.
pub(super) async fn sniff(
    stream: &mut TcpStream,
    buffer: &mut BytesMut,
    patience: Duration,
) -> io::Result<Protocol> {
    let mut seen = 0;
    loop {
        if let Some(protocol) = classify(buffer, seen) {
            return Ok(protocol);
        }
        seen = buffer.len();
        let begun = !buffer.is_empty();
        let read = poll_fn(|cx| poll_read(stream, buffer, cx));
        let read = if begun {
            match timeout(patience, read).await {
                Ok(read) => read?,
                Err(_) => return Ok(guess(buffer)),
            }
        } else {
            read.await?
        };
        if read == 0 {
            return Ok(if begun { Protocol::Opaque } else { Protocol::Silent });
        }
    }
}

/// Reads once. A client may stay silent for as long as it likes, and has no buffer meanwhile.
fn poll_read(
    stream: &mut TcpStream,
    buffer: &mut BytesMut,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    buffer.reserve(4096);
    let polled = poll_read_buf(Pin::new(stream), cx, buffer);
    if polled.is_pending() && buffer.is_empty() {
        *buffer = BytesMut::new();
    }
    polled
}

/// What the beginning of a line most likely is: HTTP where a known method and the beginning of a
/// target are there, which the HTTP/1 parser's own timeout then watches.
fn guess(bytes: &[u8]) -> Protocol {
    const METHODS: [&[u8]; 9] = [
        b"GET ",
        b"HEAD ",
        b"POST ",
        b"PUT ",
        b"DELETE ",
        b"CONNECT ",
        b"OPTIONS ",
        b"TRACE ",
        b"PATCH ",
    ];
    let http = METHODS.iter().any(|method| bytes.starts_with(method) && bytes.len() > method.len());
    if http { Protocol::Http1 } else { Protocol::Opaque }
}

/// What bytes from the start of a connection are; None while they could still be either, as `seen` of
/// them were.
fn classify(bytes: &[u8], seen: usize) -> Option<Protocol> {
    // A server ignores empty lines before a request line (RFC 9112, section 2.2).
    let blank = bytes.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
    let line = &bytes[blank..];
    if line.is_empty() {
        return (blank > 64).then_some(Protocol::Opaque);
    }
    if blank == 0 && PREFACE.starts_with(&line[..line.len().min(PREFACE.len())]) {
        return (line.len() >= PREFACE.len()).then_some(Protocol::Http2);
    }
    let method = line.iter().take(METHOD_LIMIT + 1).take_while(|b| is_token(**b)).count();
    match line.get(method) {
        None if method <= METHOD_LIMIT => return None,
        Some(b' ') if (1..=METHOD_LIMIT).contains(&method) => {}
        _ => return Some(Protocol::Opaque),
    }
    let seen = seen.saturating_sub(blank);
    match line[seen..].iter().position(|b| *b == b'\n').map(|end| seen + end) {
        Some(end) => {
            Some(if ends_with_version(&line[..end]) { Protocol::Http1 } else { Protocol::Opaque })
        }
        None if line.len() > LINE_LIMIT => Some(match line[method + 1] {
            b'/' | b'h' | b'H' => Protocol::Http1,
            _ => Protocol::Opaque,
        }),
        None => None,
    }
}

fn ends_with_version(line: &[u8]) -> bool {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    line.ends_with(b" HTTP/1.1") || line.ends_with(b" HTTP/1.0")
}

/// `tchar` of RFC 9110, section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_lines_are_http1() {
        for line in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"GET / HTTP/1.0\n",
            b"\r\n\r\nPOST /x?y HTTP/1.1\r\nHost: a\r\n",
            b"OPTIONS * HTTP/1.1\r\n",
            b"CONNECT a:443 HTTP/1.1\r\n",
            b"PROPFIND http://a/ HTTP/1.1\r\n",
            b"PRINT /x HTTP/1.1\r\n",
        ] {
            assert_eq!(classify(line, 0), Some(Protocol::Http1), "{}", line.escape_ascii());
        }
    }

    #[test]
    fn other_protocols_are_opaque() {
        for line in [
            &b"\x16\x03\x01\x02\x00\x01"[..],
            b"PING\r\n",
            b"EHLO example.org\r\n",
            b"*1\r\n$4\r\nPING\r\n",
            b"SSH-2.0-OpenSSH_9\r\n",
            b"GET /\r\n",
            b"GET / HTTP/2.0\r\n",
            b" GET / HTTP/1.1\r\n",
            &[b'A'; 33],
        ] {
            assert_eq!(classify(line, 0), Some(Protocol::Opaque), "{}", line.escape_ascii());
        }
    }

    #[test]
    fn every_prefix_of_a_request_line_is_undecided() {
        let line = b"DELETE /a/b HTTP/1.1\r\n";
        for n in 0..line.len() {
            assert_eq!(classify(&line[..n], 0), None, "{n}");
        }
    }

    #[test]
    fn half_a_line_is_http_only_with_a_method_and_more() {
        for (half, expected) in [
            (&b"GET /a"[..], Protocol::Http1),
            (b"PATCH h", Protocol::Http1),
            (b"GET ", Protocol::Opaque),
            (b"GE", Protocol::Opaque),
            (b"hello", Protocol::Opaque),
            (b"hello world", Protocol::Opaque),
        ] {
            assert_eq!(guess(half), expected, "{}", half.escape_ascii());
        }
    }

    #[test]
    fn the_preface_is_http2_only_when_whole() {
        for n in 1..PREFACE.len() {
            assert_eq!(classify(&PREFACE[..n], 0), None, "{n}");
        }
        assert_eq!(classify(PREFACE, 0), Some(Protocol::Http2));
        assert_eq!(classify(b"PRI * HTTP/1.1\r\n", 0), Some(Protocol::Http1));
    }

    #[test]
    fn a_long_line_is_left_to_the_parser() {
        let mut line = b"GET /".to_vec();
        line.resize(LINE_LIMIT + 1, b'a');
        assert_eq!(classify(&line, 0), Some(Protocol::Http1));
    }

    #[test]
    fn a_line_that_comes_byte_by_byte_is_looked_at_once() {
        let line = |n: usize| format!("GET /{} HTTP/1.1\r\n", "a".repeat(n)).into_bytes();
        let lines = [line(LINE_LIMIT / 5), line(LINE_LIMIT - LINE_LIMIT / 5)];
        let grows = crate::work::ratio(
            |n| {
                let line = &lines[usize::from(n > 1)];
                let protocol = (1..=line.len()).find_map(|end| classify(&line[..end], end - 1));
                assert_eq!(protocol, Some(Protocol::Http1));
            },
            1,
        );
        assert!(grows < 8.0, "{grows:.1} times the work for 4 times the length");
    }
}

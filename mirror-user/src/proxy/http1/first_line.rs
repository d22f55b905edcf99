//! The first line of a head that was refused, for the access log. In: what was read. Out: method,
//! target and protocol as far as they can be told apart, each of a bounded length. A line is only
//! shown, and never acted on.

/// Longest part that is kept, in bytes.
const LIMIT: usize = 1024;

/// Three parts of a line, each of which may be missing.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::proxy) struct FirstLine([Option<String>; 3]);

impl FirstLine {
    /// Of a head that stands at the front of `input`, perhaps not whole.
    pub(super) fn of(input: &[u8]) -> Self {
        let line = input.trim_ascii_start();
        let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default().trim_ascii_end();
        let (method, rest) = cut(line, line.iter().position(|byte| *byte == b' '));
        let last = rest.iter().rposition(|byte| *byte == b' ');
        let (target, protocol) = match last {
            Some(at) if rest[at + 1..].starts_with(b"HTTP/") => cut(rest, Some(at)),
            _ => (rest, &b""[..]),
        };
        Self([method, target, protocol].map(|part| {
            let shown = &part[..part.len().min(LIMIT)];
            (!shown.is_empty()).then(|| String::from_utf8_lossy(shown).into_owned())
        }))
    }

    /// Method, target and protocol.
    pub(in crate::proxy) fn parts(&self) -> [Option<&str>; 3] {
        self.0.each_ref().map(Option::as_deref)
    }
}

/// What stands before the space at this place, and behind it.
fn cut(line: &[u8], at: Option<usize>) -> (&[u8], &[u8]) {
    at.map_or((line, b""), |at| (&line[..at], &line[at + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_taken_apart_as_far_as_it_goes() {
        for (line, expected) in [
            ("GET /a HTTP/1.1\r\nHost: a\r\n\r\n", [Some("GET"), Some("/a"), Some("HTTP/1.1")]),
            ("\r\nGET /a b HTTP/1.0\n", [Some("GET"), Some("/a b"), Some("HTTP/1.0")]),
            ("GET /a b", [Some("GET"), Some("/a b"), None]),
            ("GET", [Some("GET"), None, None]),
            ("GET \r\n", [Some("GET"), None, None]),
            ("", [None; 3]),
            ("\r\n\r\n", [None; 3]),
        ] {
            assert_eq!(FirstLine::of(line.as_bytes()).parts(), expected, "{line:?}");
        }
        let long = FirstLine::of(&[b'a'; 5000]);
        assert_eq!(long.parts()[0].map(str::len), Some(LIMIT));
        assert_eq!(FirstLine::of(b"GET /\xff HTTP/1.1\r\n").parts()[1], Some("/\u{fffd}"));
    }
}

//! A strict reader of requests: what a primary may be sent. In: raw bytes. Out: requests, or what
//! two recipients could understand in two ways.
//!
//! It shares no code with the agent, nor with the parser that the agent uses: RFC 9112 read
//! literally, without any of its leniency.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A request with one framing and one Host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// As it stands in the request line.
    pub method: String,
    /// As it stands in the request line.
    pub target: String,
    /// The value of Host.
    pub host: String,
    /// The content, without its framing; bytes that are not ASCII are escaped.
    pub body: String,
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} {:?}", self.method, self.target, self.host, self.body)
    }
}

/// What bytes begin with.
#[derive(Debug, PartialEq, Eq)]
pub enum Read {
    /// A request, and its length.
    Whole(Request, usize),
    /// The beginning of one.
    Part,
    /// Not a request, or one with two meanings.
    Bad(String),
}

/// Reads one request.
#[must_use]
pub fn read(bytes: &[u8]) -> Read {
    match request(bytes) {
        Ok(Some((request, length))) => Read::Whole(request, length),
        Ok(None) => Read::Part,
        Err(why) => Read::Bad(why),
    }
}

type Result<T> = std::result::Result<T, String>;

fn request(bytes: &[u8]) -> Result<Option<(Request, usize)>> {
    let Some((line, mut at)) = line(bytes, 0)? else { return Ok(None) };
    let (method, target) = request_line(line)?;
    let mut fields = Fields::default();
    loop {
        let Some((line, next)) = self::line(bytes, at)? else { return Ok(None) };
        at = next;
        if line.is_empty() {
            break;
        }
        fields.add(line)?;
    }
    let host = fields.host.ok_or("no Host")?;
    // RFC 9112, section 3.2.2.
    if named(&target).is_some_and(|authority| authority != host) {
        return Err(format!("the target {target} and the Host {host}"));
    }
    let (body, end) = match (fields.length, fields.chunked) {
        (Some(_), true) => return Err("Content-Length and Transfer-Encoding".into()),
        (None, false) => (Vec::new(), at),
        (Some(length), false) => match bytes.get(at..at.saturating_add(length)) {
            Some(body) => (body.to_vec(), at + length),
            None => return Ok(None),
        },
        (None, true) => match chunks(bytes, at)? {
            Some(chunked) => chunked,
            None => return Ok(None),
        },
    };
    let body = body.escape_ascii().to_string();
    Ok(Some((Request { method, target, host, body }, end)))
}

/// The line that begins here without its CRLF, and where the next one begins.
fn line(bytes: &[u8], at: usize) -> Result<Option<(&[u8], usize)>> {
    let rest = &bytes[at..];
    let Some(end) = rest.iter().position(|b| matches!(b, b'\r' | b'\n' | 0)) else {
        return Ok(None);
    };
    match (rest[end], rest.get(end + 1)) {
        (b'\r', Some(b'\n')) => Ok(Some((&rest[..end], at + end + 2))),
        (b'\r', None) => Ok(None),
        (b'\r', _) => Err("a bare CR".into()),
        (b'\n', _) => Err("a bare LF".into()),
        _ => Err("NUL".into()),
    }
}

fn request_line(line: &[u8]) -> Result<(String, String)> {
    let text = std::str::from_utf8(line).map_err(|_| "a request line beyond ASCII")?;
    let parts: Vec<_> = text.split(' ').collect();
    let [method, target, version] = parts.as_slice() else {
        return Err(format!("a request line of {} parts: {text}", parts.len()));
    };
    if !is_token(method.as_bytes()) {
        return Err(format!("no method: {method}"));
    }
    if !matches!(*version, "HTTP/1.1" | "HTTP/1.0") {
        return Err(format!("the version {version}"));
    }
    let graphic = target.bytes().all(|b| b.is_ascii_graphic());
    let form = target.starts_with('/') || *target == "*" || *method == "CONNECT";
    let form = form || named(target).is_some();
    if !graphic || !form {
        return Err(format!("the target {target}"));
    }
    Ok(((*method).to_owned(), (*target).to_owned()))
}

/// The authority of a target in absolute form, which a forward proxy gets, without its userinfo.
fn named(target: &str) -> Option<&str> {
    let (scheme, rest) = target.split_once("://")?;
    let plain = !scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_alphanumeric());
    let authority = rest.split(['/', '?', '#']).next().filter(|_| plain)?;
    Some(authority.rsplit_once('@').map_or(authority, |(_, host)| host))
}

#[derive(Default)]
struct Fields {
    host: Option<String>,
    length: Option<usize>,
    chunked: bool,
}

impl Fields {
    fn add(&mut self, line: &[u8]) -> Result<()> {
        let colon = line.iter().position(|b| *b == b':').ok_or("a field without a colon")?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        let special = |name: &[u8]| {
            let names: [&[u8]; 4] =
                [b"host", b"content-length", b"transfer-encoding", b"connection"];
            names.iter().any(|special| name.eq_ignore_ascii_case(special))
        };
        // An invalid name that no recipient takes for one that matters is ignored or refused.
        let letters: Vec<_> = name.iter().copied().filter(|b| is_token(&[*b])).collect();
        let odd = !name.is_empty() && name.iter().all(u8::is_ascii_graphic) && !special(&letters);
        if !is_token(name) && !odd {
            return Err(format!("a field's name: {}", name.escape_ascii()));
        }
        // RFC 9110, section 5.5, lets a recipient keep them in a safe context.
        if special(name) && value.iter().any(|b| *b < b' ' && *b != b'\t' || *b == 0x7f) {
            return Err(format!("a control character in {}", name.escape_ascii()));
        }
        let text = String::from_utf8_lossy(value).into_owned();
        match name.to_ascii_lowercase().as_slice() {
            b"host" if self.host.is_some() => Err("a second Host".into()),
            b"host" => {
                self.host = Some(text);
                Ok(())
            }
            b"content-length" if self.length.is_some() => Err("a second Content-Length".into()),
            b"content-length" => {
                let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
                let length = text.parse().ok().filter(|_| digits);
                self.length = Some(length.ok_or(format!("the Content-Length {text}"))?);
                Ok(())
            }
            // Names of codings have no case (RFC 9112, section 7).
            b"transfer-encoding" if self.chunked || !text.eq_ignore_ascii_case("chunked") => {
                Err(format!("the Transfer-Encoding {text}"))
            }
            b"transfer-encoding" => {
                self.chunked = true;
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// The content of chunks that begin here, and where they end.
fn chunks(bytes: &[u8], mut at: usize) -> Result<Option<(Vec<u8>, usize)>> {
    let mut body = Vec::new();
    loop {
        let Some((size, next)) = line(bytes, at)? else { return Ok(None) };
        let digits = std::str::from_utf8(size).unwrap_or_default();
        let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit());
        let size = usize::from_str_radix(digits, 16).ok().filter(|_| plain);
        let size = size.ok_or(format!("the chunk size {digits}"))?;
        at = next;
        if size == 0 {
            return trailers(bytes, at).map(|end| end.map(|end| (body, end)));
        }
        let Some(data) = bytes.get(at..at.saturating_add(size)) else { return Ok(None) };
        body.extend(data);
        match line(bytes, at + size)? {
            None => return Ok(None),
            Some((b"", next)) => at = next,
            Some(_) => return Err("a chunk longer than its size".into()),
        }
    }
}

fn trailers(bytes: &[u8], mut at: usize) -> Result<Option<usize>> {
    loop {
        let Some((line, next)) = line(bytes, at)? else { return Ok(None) };
        at = next;
        if line.is_empty() {
            return Ok(Some(at));
        }
        let mut fields = Fields::default();
        fields.add(line)?;
        if fields.host.is_some() || fields.length.is_some() || fields.chunked {
            return Err("framing or Host among the trailers".into());
        }
    }
}

/// RFC 9110, section 5.6.2.
fn is_token(bytes: &[u8]) -> bool {
    let special = b"!#$%&'*+-.^_`|~";
    !bytes.is_empty() && bytes.iter().all(|b| b.is_ascii_alphanumeric() || special.contains(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_requests_are_read() {
        let text =
            b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\
                     T: u\r\n\r\nGET";
        let Read::Whole(request, length) = read(text) else { panic!("{:?}", read(text)) };
        assert_eq!((request.to_string(), length), ("POST /a h \"abc\"".into(), text.len() - 3));
        for end in 0..length {
            assert_eq!(read(&text[..end]), Read::Part, "{end}");
        }
    }

    #[test]
    fn two_meanings_are_refused() {
        for (text, why) in [
            ("GET / HTTP/1.1\nHost: a\r\n\r\n", "LF"),
            ("GET / HTTP/1.1\r\n\r\n", "no Host"),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", "second Host"),
            ("GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n", "colon"),
            ("GET / HTTP/1.1\r\nHost: a\r\nX: y\rz\r\n\r\n", "CR"),
            ("GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n", "NUL"),
            ("GET http://u@b/x HTTP/1.1\r\nHost: a\r\n\r\n", "and the Host"),
            ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", "name"),
            ("GET / HTTP/1.1\r\nHost: a\r\n(Host): b\r\n\r\n", "name"),
            ("GET / HTTP/1.1\r\nHost: a\x01\r\n\r\n", "control"),
            ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", "parts"),
            ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\na", "Length +1"),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
                "second",
            ),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
                "and Transfer",
            ),
            ("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n", "xchunked"),
            ("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\na", "size 0x1"),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n",
                "longer",
            ),
        ] {
            let Read::Bad(found) = read(text.as_bytes()) else { panic!("{text}") };
            assert!(found.contains(why), "{text}: {found}");
        }
    }
}

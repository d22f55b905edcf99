//! Heads that senders send though they should not, and recipients take: repaired as RFC 9112 says, so
//! that they are read as any other. In: a head that the parser refuses. Out: a well-formed one that
//! says the same; or that it is none. It costs copies, and is rare.
//!
//! Of responses:
//!
//! - Whitespace between a name and its colon goes (section 5.1). A folded line is joined by a space
//!   (section 5.2), one before the first field is dropped (section 2.2). A bare CR and NUL become
//!   spaces (section 2.2; RFC 9110, section 5.5).
//! - Other control characters in a value pass as they came: a client that minds them would mind
//!   them without us.
//! - A line that is no field (without a colon, or with a name that is no token) passes as it came,
//!   behind the fields: Python and Java pass over it, Go and Node refuse it (curl 7.88 takes such
//!   names, and no line without a colon), and each does the same without us. Not one that somebody
//!   could take for a field of the framing: such a head is unreadable.
//! - Whitespace around the status code becomes a space (section 4); a minor version above 1 is 1
//!   (RFC 9110, section 2.5).
//!
//! Trailers are repaired alike. Of requests only what has one reading is: folded lines, control
//! characters in values, names that are visible and no tokens (servers of nginx, Java and Python take
//! them); not in fields of the framing or Host, and neither NUL nor a bare CR anywhere.
//!
//! HTTP/2 carries none of it: there `?` stands for a control character, and what is no field is
//! left out.

use super::framing::is_framing;

/// Beside those of the framing: what else says where a request belongs.
const HOST: &[u8] = b"host";

/// A head that was repaired.
#[derive(Debug)]
pub(super) struct RepairedHead {
    /// Of the head as it came.
    pub(super) len: usize,
    /// Well-formed, with `?` where there is a control character in `text`.
    pub(super) parsed: Vec<u8>,
    /// As it leaves.
    pub(super) text: Vec<u8>,
    /// Lines that are no fields, each with its end.
    pub(super) odd: Vec<u8>,
}

/// Not a head in any reading that two recipients share.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotRepairable;

/// Repairs a request's head at the front of `input`; None while it is not whole.
pub(super) fn request(input: &[u8]) -> Result<Option<RepairedHead>, NotRepairable> {
    check_request(input)?;
    let Some((len, lines)) = logical_lines(input, 1) else { return Ok(None) };
    let mut lines = lines.iter();
    let first = lines.next().ok_or(NotRepairable)?;
    Ok(Some(RepairedHead::new(len, [first, &b"\r\n"[..]].concat(), lines)?))
}

/// Whether the lines that are there of a request's head have one reading.
fn check_request(input: &[u8]) -> Result<(), NotRepairable> {
    let (mut before, mut first) = (&b""[..], true);
    for line in input.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n")) {
        let line = &line[..line.len() - 1];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            break;
        }
        let folded = matches!(line[0], b' ' | b'\t');
        let colon = line.iter().position(|byte| *byte == b':');
        let (name, control) = (&line[..colon.unwrap_or(0)], line.iter().any(|b| is_control(*b)));
        let framing = |name: &[u8]| is_framing(name) || name.eq_ignore_ascii_case(HOST);
        let fits = match (first, folded) {
            (true, _) => !folded && !control,
            // An empty one ends the head to some.
            (false, true) => {
                !before.is_empty() && !framing(before) && !line.trim_ascii().is_empty()
            }
            // No whitespace before the colon (RFC 9112, section 5.1).
            (false, false) => {
                name.iter().all(u8::is_ascii_graphic)
                    && !name.is_empty()
                    && !(control && framing(name))
            }
        };
        if !fits || line.contains(&b'\r') || line.contains(&0) {
            return Err(NotRepairable);
        }
        if !folded && !first {
            before = name;
        }
        first = false;
    }
    Ok(())
}

/// Repairs the head of a response at the front of `input`; None while it is not whole.
pub(super) fn response(input: &[u8]) -> Result<Option<RepairedHead>, NotRepairable> {
    const START: &[u8] = b"HTTP/1.";
    let blank = input.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    let begun = &input[blank..];
    if begun[..begun.len().min(START.len())] != START[..begun.len().min(START.len())] {
        return Err(NotRepairable);
    }
    let Some((len, lines)) = logical_lines(begun, 1) else { return Ok(None) };
    let mut lines = lines.iter();
    let first = lines.next().ok_or(NotRepairable)?;
    Ok(Some(RepairedHead::new(blank + len, status_line(first)?, lines)?))
}

impl RepairedHead {
    /// `text`: the first line.
    fn new<'l>(
        len: usize,
        mut text: Vec<u8>,
        lines: impl Iterator<Item = &'l [u8]>,
    ) -> Result<Self, NotRepairable> {
        let mut odd = Vec::new();
        for line in lines {
            let to = if is_field(line)? { &mut text } else { &mut odd };
            match line.iter().position(|byte| *byte == b':') {
                Some(colon) if is_token(trim_end(&line[..colon])) => {
                    to.extend_from_slice(trim_end(&line[..colon]));
                    to.extend_from_slice(&line[colon..]);
                }
                _ => to.extend_from_slice(line),
            }
            to.extend_from_slice(b"\r\n");
        }
        text.extend_from_slice(b"\r\n");
        let parsed = text.iter().map(|byte| if is_control(*byte) { b'?' } else { *byte }).collect();
        Ok(Self { len, parsed, text, odd })
    }
}

/// Lines, one behind the other, without their ends: one buffer, since a head may have a hundred
/// thousand of them.
#[derive(Default)]
struct LineBuffer {
    text: Vec<u8>,
    /// Where each ends.
    ends: Vec<usize>,
}

impl LineBuffer {
    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| &self.text[start..*end])
    }

    /// Adds a line, or joins it to the last one by a space. What is never passed on becomes spaces.
    fn push(&mut self, line: &[u8], joins: bool) {
        let line = if joins { trim_blank(line) } else { line };
        if joins {
            self.ends.pop();
            let start = self.ends.last().copied().unwrap_or_default();
            self.text.truncate(start + trim_end(&self.text[start..]).len());
            self.text.push(b' ');
        }
        let passed = line.iter().map(|byte| if matches!(byte, b'\r' | 0) { b' ' } else { *byte });
        self.text.extend(passed);
        self.ends.push(self.text.len());
    }
}

/// The lines up to the empty one, folded ones joined, without what is never passed on; and the
/// length of all. None while there is no empty one. `first`: lines before the first field.
fn logical_lines(input: &[u8], first: usize) -> Option<(usize, LineBuffer)> {
    let (mut lines, mut len) = (LineBuffer::default(), 0);
    for line in input.split_inclusive(|byte| *byte == b'\n') {
        len += line.len();
        let line = line.strip_suffix(b"\n")?;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            return Some((len, lines));
        }
        let folded = matches!(line[0], b' ' | b'\t' | b'\r' | 0);
        // One before the first field is dropped.
        if !folded || lines.ends.len() > first {
            lines.push(line, folded);
        }
    }
    None
}

fn status_line(line: &[u8]) -> Result<Vec<u8>, NotRepairable> {
    let [b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor @ b'0'..=b'9', b' ' | b'\t', rest @ ..] =
        line
    else {
        return Err(NotRepairable);
    };
    let (code, reason) = trim_start(rest).split_at_checked(3).ok_or(NotRepairable)?;
    let parted = matches!(reason.first(), None | Some(b' ' | b'\t'));
    if !parted || !code.iter().all(u8::is_ascii_digit) {
        return Err(NotRepairable);
    }
    let minor = if *minor == b'0' { b"0 " } else { b"1 " };
    let space: &[u8] = if reason.is_empty() { b"" } else { b" " };
    let phrase = reason.get(1..).unwrap_or_default();
    Ok([b"HTTP/1.", &minor[..], code, space, phrase, b"\r\n"].concat())
}

/// Whether the line is a field; an error where somebody may take it for another than it is.
fn is_field(line: &[u8]) -> Result<bool, NotRepairable> {
    let Some(colon) = line.iter().position(|byte| *byte == b':') else { return Ok(false) };
    let (name, value) = (trim_end(&line[..colon]), &line[colon + 1..]);
    if is_token(name) {
        let control = value.iter().any(|byte| is_control(*byte));
        return if is_framing(name) && control { Err(NotRepairable) } else { Ok(true) };
    }
    let letters: Vec<_> = name.iter().copied().filter(|byte| is_token(&[*byte])).collect();
    let framing = is_framing(&letters) || letters.eq_ignore_ascii_case(HOST);
    if framing { Err(NotRepairable) } else { Ok(false) }
}

/// The fields of the trailer section at the front of `input`, well-formed, and its length; None
/// while it is not whole. What is no field is dropped: nobody waits for it there.
pub(super) fn trailers(input: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (len, lines) = logical_lines(input, 0)?;
    let mut text = Vec::with_capacity(len);
    for line in lines.iter() {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let name = trim_end(&line[..colon]);
        if is_token(name) && !line.iter().any(|byte| is_control(*byte)) {
            text.extend_from_slice(&[name, &line[colon..], b"\r\n"].concat());
        }
    }
    text.extend_from_slice(b"\r\n");
    Some((text, len))
}

/// `connection_ref` (RFC 9110, section 5.6.2).
fn is_token(name: &[u8]) -> bool {
    !name.is_empty()
        && name.iter().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b))
}

/// Of those of ASCII, all but what ends a line or is whitespace in it.
fn is_control(byte: u8) -> bool {
    byte.is_ascii_control() && !matches!(byte, b'\r' | b'\n' | b'\t')
}

/// Without what is whitespace or becomes it.
fn trim_blank(line: &[u8]) -> &[u8] {
    let is_text = |byte: &u8| !byte.is_ascii_whitespace() && *byte != 0;
    let start = line.iter().position(is_text).unwrap_or(line.len());
    let end = line.iter().rposition(is_text).map_or(start, |at| at + 1);
    &line[start..end]
}

fn trim_start(part: &[u8]) -> &[u8] {
    let blank = part.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    &part[blank..]
}

fn trim_end(part: &[u8]) -> &[u8] {
    let end = part.iter().rposition(|byte| !matches!(byte, b' ' | b'\t')).map_or(0, |at| at + 1);
    &part[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repaired(head: &[u8]) -> Option<(String, String)> {
        let repaired = response(head).ok()?.expect("the head is whole");
        assert_eq!(repaired.parsed.len(), repaired.text.len());
        Some((repaired.text.escape_ascii().to_string(), repaired.odd.escape_ascii().to_string()))
    }

    fn fields(fields: &str) -> Option<(String, String)> {
        let (text, odd) = repaired(format!("HTTP/1.1 200 OK\r\n{fields}\r\n").as_bytes())?;
        let text = text.strip_prefix(r"HTTP/1.1 200 OK\r\n").expect("the status line stays");
        let text = text.strip_suffix(r"\r\n").expect("an empty line");
        Some((text.to_owned(), odd))
    }

    fn expected(text: &str, odd: &str) -> Option<(String, String)> {
        Some((text.escape_default().to_string(), odd.escape_default().to_string()))
    }

    #[test]
    fn what_the_rfc_repairs_is_repaired() {
        assert_eq!(fields("A : b\r\nC\t :d\r\n"), expected("A: b\r\nC:d\r\n", ""));
        assert_eq!(
            fields("A: b\r\n c \r\n\t d\r\nE:\r\n f\r\n"),
            expected("A: b c d\r\nE: f\r\n", "")
        );
        assert_eq!(fields(" folded\r\nA: b\r\n"), expected("A: b\r\n", ""));
        assert_eq!(fields("A: b\rc\0d\r\nE: f\n"), expected("A: b c d\r\nE: f\r\n", ""));
        assert_eq!(fields("A: b\r\n\r\r\n"), expected("A: b \r\n", ""));
        let controls = Some((r"A: b\x01c\x7f\r\n".to_owned(), String::new()));
        assert_eq!(fields("A: b\u{1}c\u{7f}\r\n"), controls);
    }

    #[test]
    fn what_is_no_field_passes_behind_them() {
        assert_eq!(fields("<html>\r\nA: b\r\n"), expected("A: b\r\n", "<html>\r\n"));
        assert_eq!(fields("A b: c\r\nD: e\r\n"), expected("D: e\r\n", "A b: c\r\n"));
        assert_eq!(fields("A(b) : c\r\n d\r\n: e\r\n"), expected("", "A(b) : c d\r\n: e\r\n"));
        let controls = Some((String::new(), r"A\x01b: c\x02\r\nno\x03\r\n".to_owned()));
        assert_eq!(fields("A\u{1}b: c\u{2}\r\nno\u{3}\r\n"), controls);
    }

    #[test]
    fn what_may_be_taken_for_framing_is_unreadable() {
        for line in [
            "(Content-Length): 5",
            "\"transfer-encoding\": chunked",
            "Content-Length\u{1}: 5",
            "Content-Length: 5\u{1}",
            "Transfer-Encoding: chunked\u{b}",
            "Connection: close\u{c}",
        ] {
            assert_eq!(fields(&format!("{line}\r\n")), None, "{line:?}");
        }
    }

    #[test]
    fn status_lines() {
        let line = |line: &str| Some(repaired(format!("{line}\r\n\r\n").as_bytes())?.0);
        let whole = |line: &str| Some(format!(r"{line}\r\n\r\n"));
        assert_eq!(line("HTTP/1.1  200 OK"), whole("HTTP/1.1 200 OK"));
        assert_eq!(line("\r\n\nHTTP/1.1 200 OK"), whole("HTTP/1.1 200 OK"));
        assert_eq!(line("HTTP/1.7 200"), whole("HTTP/1.1 200"));
        assert_eq!(line("HTTP/1.1\t \t200\tOK"), whole("HTTP/1.1 200 OK"));
        assert_eq!(line("HTTP/1.0 200  a\u{1} b"), whole(r"HTTP/1.0 200  a\x01 b"));
        for none in
            ["HTTP/2.0 200 OK", "http/1.1 200 OK", "HTTP/1.1 2000", "HTTP/1.1 20", "ICY 200"]
        {
            assert_eq!(line(none), None, "{none}");
        }
    }

    #[test]
    fn of_a_request_what_has_one_reading_is_repaired() {
        let head = |fields: &str| {
            let head = format!("GET /\u{e9} HTTP/1.1\r\nHost: a\r\n{fields}\r\nrest");
            let repaired = request(head.as_bytes()).ok()?.expect("it is whole");
            assert_eq!(&head[repaired.len..], "rest");
            let text = String::from_utf8(repaired.text).expect("text");
            let text =
                text.strip_prefix("GET /\u{e9} HTTP/1.1\r\nHost: a\r\n").expect("as it came");
            Some((text.to_owned(), String::from_utf8(repaired.odd).expect("text")))
        };
        let expected = |text: &str, odd: &str| Some((format!("{text}\r\n"), odd.to_owned()));
        assert_eq!(head("A: b\r\n\tc\r\nD: e\r\n"), expected("A: b c\r\nD: e\r\n", ""));
        assert_eq!(head("A: \u{1}\u{7f}\n"), expected("A: \u{1}\u{7f}\r\n", ""));
        assert_eq!(head("X[1]: a\r\nB: c\r\n"), expected("B: c\r\n", "X[1]: a\r\n"));
        for fields in [
            "A : b\r\n",
            "A B: c\r\n",
            "no colon\r\n",
            ": a\r\n",
            "A: b\0\r\n",
            "A: b\rc\r\n",
            "A\u{1}: b\r\n",
            "A\u{e9}: b\r\n",
            "Content-Length: 1\r\n 2\r\n",
            "A: b\r\n \r\n",
            "Transfer-Encoding:\r\n chunked\r\n",
            "Transfer-Encoding: \u{b}chunked\r\n",
            "[Content-Length]: 1\r\n",
            "host[]: b\r\n",
            "Connection: close\r\n ,x\r\n",
        ] {
            assert_eq!(head(fields), None, "{fields:?}");
        }
        for whole in [
            "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
            " GET / HTTP/1.1\r\n\r\n",
            "GET /\u{1} HTTP/1.1\r\nHost: a\r\n\r\n",
        ] {
            assert_eq!(request(whole.as_bytes()).map(drop), Err(NotRepairable), "{whole:?}");
        }
        assert!(matches!(request(b"GET / HTTP/1.1\r\nA: b\r\n c\r\n"), Ok(None)));
        assert!(request(b"GET / HTTP/1.1\r\nA : b\r\n").is_err(), "at once");
    }

    #[test]
    fn trailers_keep_what_is_a_field() {
        let section = "X : y\r\nZ(1): a\r\nfoo\r\nC: \u{1}\r\n\tfolded\r\nD: e\n f\r\n\r\nrest";
        let (text, len) = trailers(section.as_bytes()).expect("it is whole");
        assert_eq!(text, b"X: y\r\nD: e f\r\n\r\n");
        assert_eq!(&section[len..], "rest");
        assert_eq!(trailers(b"X : y\r\n"), None);
    }

    #[test]
    fn what_begins_otherwise_is_refused_at_once_and_half_a_head_is_waited_for() {
        assert_eq!(response(b"SSH-2").map(drop), Err(NotRepairable));
        for half in ["", "\r\n", "HTT", "HTTP/1.1 200 OK\r\nA : b\r\n", "HTTP/1.1 200 OK\r\n\r"] {
            assert!(matches!(response(half.as_bytes()), Ok(None)), "{half:?}");
        }
    }
}

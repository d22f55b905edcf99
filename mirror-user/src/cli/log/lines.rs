//! The lines of the log as they leave. In: a line that the formatter has written. Out: the same,
//! with nothing in it that a terminal would obey, no longer than [`LONGEST`], and nothing that
//! looks like another line: names, targets and messages of peers stand in it.

use std::io::{self, Write};

use tracing_subscriber::fmt::MakeWriter;

use super::LogFormat;
use crate::plain;

/// The longest line, in bytes without its mark: the verifier's log of a program that the kernel
/// refuses is the longest that means something.
pub(super) const LONGEST: usize = 16 * 1024;

/// Makes writers of whole lines.
#[derive(Clone, Debug)]
pub(super) struct LineWriters<W> {
    inner: W,
    format: LogFormat,
}

impl<W> LineWriters<W> {
    pub(super) fn new(inner: W, format: LogFormat) -> Self {
        Self { inner, format }
    }
}

impl<'a, W: MakeWriter<'a>> MakeWriter<'a> for LineWriters<W> {
    type Writer = LineWriter<W::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        LineWriter { inner: self.inner.make_writer(), format: self.format }
    }
}

/// Takes one whole line in one call, as the formatters write them.
#[derive(Debug)]
pub(super) struct LineWriter<W> {
    inner: W,
    format: LogFormat,
}

impl<W: Write> Write for LineWriter<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match sanitized(line, self.format) {
            None => self.inner.write_all(line)?,
            Some(sanitized) => self.inner.write_all(&sanitized)?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// The line without what must not leave; None when there is nothing of that in it.
fn sanitized(line: &[u8], format: LogFormat) -> Option<Vec<u8>> {
    let text = line.strip_suffix(b"\n").unwrap_or(line);
    let harmless = text.iter().all(|byte| (b' '..0x7f).contains(byte));
    if harmless && text.len() <= LONGEST {
        return None;
    }
    let text = String::from_utf8_lossy(text);
    let (kept, cut) = text.split_at(text.floor_char_boundary(LONGEST));
    let mut sanitized = match format {
        LogFormat::Text if cut.is_empty() => plain::message(kept),
        LogFormat::Text => format!("{}...({} bytes more)", plain::message(kept), cut.len()),
        LogFormat::Json if cut.is_empty() => plain::json(kept.into()),
        LogFormat::Json => plain::json(cut_json(kept, cut)),
    };
    sanitized.push('\n');
    Some(sanitized.into_bytes())
}

/// Half a line is no JSON: another is written in its place.
fn cut_json(kept: &str, cut: &str) -> String {
    let message = "a line of the log was too long and has been cut";
    serde_json::json!({
        "level": "WARN",
        "target": "mirror_user::log",
        "fields": {"message": message, "line": kept, "bytes_more": cut.len()},
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(line: &str) -> String {
        let sanitized = sanitized(line.as_bytes(), LogFormat::Text);
        sanitized.map_or_else(|| line.to_owned(), |sanitized| String::from_utf8(sanitized).unwrap())
    }

    fn json(line: &str) -> serde_json::Value {
        let sanitized = sanitized(line.as_bytes(), LogFormat::Json).unwrap();
        assert_eq!(
            sanitized.iter().filter(|byte| byte.is_ascii_control()).count(),
            1,
            "its end alone"
        );
        serde_json::from_slice(&sanitized).unwrap()
    }

    #[test]
    fn a_plain_line_leaves_as_it_is() {
        assert_eq!(sanitized(b"2026 WARN a: b=\"c\"\n", LogFormat::Text), None);
        assert_eq!(sanitized(b"{\"a\":1}\n", LogFormat::Json), None);
        assert_eq!(text("caf\u{e9}\tx\n"), "caf\u{e9}\tx\n");
    }

    #[test]
    fn no_field_makes_a_terminal_obey_or_passes_for_a_line() {
        let forged = "WARN a: host=x\n2026 ERROR all is lost\u{1b}[31m\u{9b}2J\r\n";
        let expected = "WARN a: host=x\n    2026 ERROR all is lost\\u{1b}[31m\\u{9b}2J\\r\n";
        assert_eq!(text(forged), expected);
        let invalid = sanitized(b"a\xff\x1b\n", LogFormat::Text).unwrap();
        assert_eq!(String::from_utf8(invalid).unwrap(), "a\u{fffd}\\u{1b}\n");
        let value = json("{\"host\":\"\u{9b}2J\u{7f}\"}\n");
        assert_eq!(value["host"], "\u{9b}2J\u{7f}");
    }

    #[test]
    fn a_long_line_is_cut_and_says_so() {
        let long = format!("WARN {}\n", "\u{e9}".repeat(LONGEST));
        let line = text(&long);
        assert!(line.len() < LONGEST + 64, "{}", line.len());
        assert!(line.ends_with(&format!("...({} bytes more)\n", long.len() - 1 - LONGEST + 1)));
        let long = format!("{{\"a\":\"{}\"}}\n", "\"\\".repeat(LONGEST));
        let value = json(&long);
        assert_eq!(value["level"], "WARN");
        assert!(value["fields"]["line"].as_str().unwrap().starts_with("{\"a\":"), "{value}");
    }

    #[test]
    fn a_writer_takes_whole_lines() {
        let mut out = Vec::new();
        let mut line = LineWriter { inner: &mut out, format: LogFormat::Text };
        line.write_all(b"a\x07\n").unwrap();
        line.write_all(b"b\n").unwrap();
        assert_eq!(out, b"a\\u{7}\nb\n");
    }
}

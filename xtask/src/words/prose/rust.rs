//! The prose of Rust source: comments, and strings. In: source that compiles. Out: pieces.

use super::{Kind, Prose, end};

/// Macros, attributes and methods whose first string is the text of an error.
const ERRORS: [&str; 6] =
    ["#[error(", "context(", "context(|| format!(", "bail!(", "anyhow!(", "eprintln!("];

/// `strings`: whether strings are data and left out, as they are in tests; those of a module of tests
/// within the file always are.
pub(super) fn prose(source: &str, strings_are_data: bool) -> Vec<Prose> {
    let mut scan = Scan { source, at: 0, line: 1, strings: !strings_are_data, ..Scan::default() };
    while scan.at < source.len() {
        scan.next();
    }
    end(&mut scan.pieces, &mut scan.comment, Kind::Comment);
    scan.pieces
}

#[derive(Default)]
struct Scan<'s> {
    source: &'s str,
    at: usize,
    line: usize,
    strings: bool,
    /// The comment that goes on, line by line.
    comment: Vec<(usize, String)>,
    pieces: Vec<Prose>,
}

impl<'s> Scan<'s> {
    fn rest(&self) -> &'s str {
        &self.source[self.at..]
    }

    /// Takes one token, as far as that matters here.
    fn next(&mut self) {
        let rest = self.rest();
        if rest.starts_with("//") {
            return self.line_comment();
        }
        if rest.starts_with("/*") {
            let length = rest.find("*/").map_or(rest.len(), |at| at + 2);
            return self.skip(length);
        }
        if let Some((open, close)) = raw_string(rest).filter(|_| !self.within_a_word()) {
            return self.string(open, &close);
        }
        if rest.starts_with('"') {
            return self.string(1, "\"");
        }
        if let Some(length) = char_literal(rest) {
            return self.skip(length);
        }
        if rest.starts_with("#[cfg(test)]\nmod ") && rest.lines().nth(1).is_some_and(opens) {
            self.strings = false;
        }
        let first = rest.chars().next().expect("not at the end");
        if !first.is_whitespace() {
            end(&mut self.pieces, &mut self.comment, Kind::Comment);
        }
        self.skip(first.len_utf8());
    }

    fn skip(&mut self, length: usize) {
        self.line += self.rest()[..length].matches('\n').count();
        self.at += length;
    }

    /// `r` in `br` and in `for` is none that begins a raw string.
    fn within_a_word(&self) -> bool {
        let before = self.source[..self.at].chars().next_back();
        before.is_some_and(|c| c.is_alphanumeric() || c == '_')
    }

    fn line_comment(&mut self) {
        let line = self.rest().lines().next().unwrap_or_default();
        let text = line.trim_start_matches('/').trim_start_matches('!').to_owned();
        let length = line.len();
        self.comment.push((self.line, text));
        self.skip(length);
    }

    /// A string that begins after `open` bytes and goes to `close`.
    fn string(&mut self, open: usize, close: &str) {
        end(&mut self.pieces, &mut self.comment, Kind::Comment);
        let code = self.source[..self.at].trim_end();
        let is_error = ERRORS.iter().any(|error| code.ends_with(error));
        let kind = if is_error { Kind::Error } else { Kind::String };
        let (text, length) = if close == "\"" {
            unescaped(&self.rest()[open..])
        } else {
            let text = &self.rest()[open..];
            let length = text.find(close).unwrap_or(text.len());
            (text[..length].to_owned(), length)
        };
        if self.strings {
            let lines = (self.line..).zip(text.split('\n').map(str::to_owned)).collect();
            self.pieces.push(Prose { kind, lines });
        }
        let length = (open + length + close.len()).min(self.rest().len());
        self.skip(length);
    }
}

/// The content of a string up to its closing quote, escapes as spaces, and its length in the source.
fn unescaped(text: &str) -> (String, usize) {
    let mut content = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (content, at),
            '\\' => match chars.next() {
                // A line that goes on keeps its number.
                Some((_, '\n')) => content.push('\n'),
                _ => content.push(' '),
            },
            c => content.push(c),
        }
    }
    (content, text.len())
}

/// The length of `r#"`, `br"` and their like, and what closes it.
fn raw_string(rest: &str) -> Option<(usize, String)> {
    let after = rest.strip_prefix("br").or_else(|| rest.strip_prefix('r'))?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    let opened = after[hashes..].starts_with('"');
    opened.then(|| (rest.len() - after.len() + hashes + 1, format!("\"{}", "#".repeat(hashes))))
}

/// The length of a literal such as `'"'`; a lifetime is none.
fn char_literal(rest: &str) -> Option<usize> {
    let inner = rest.strip_prefix('\'')?;
    let length = match inner.strip_prefix('\\') {
        Some(escaped) => 1 + escaped.char_indices().nth(1)?.0,
        None => inner.chars().next()?.len_utf8(),
    };
    if inner.starts_with("\\u") || inner.starts_with("\\x") {
        return inner.find('\'').map(|end| end + 2);
    }
    inner[length..].starts_with('\'').then_some(length + 2)
}

fn opens(line: &str) -> bool {
    line.trim_end().ends_with('{')
}

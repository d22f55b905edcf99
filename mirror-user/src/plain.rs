//! Text of others for a terminal or a log. In: anything. Out: the same, with nothing in it that a
//! terminal would obey, or that would make it read as something else.

#![forbid(unsafe_code)]

use std::fmt::{self, Display, Formatter, Write as _};

/// Text whose control characters are written escaped, as `\u{1b}` or `\n`.
#[derive(Debug)]
pub struct Plain<'a>(pub &'a str);

impl Display for Plain<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|character| match is_harmless(character) {
            true => f.write_char(character),
            false => write!(f, "{}", character.escape_default()),
        })
    }
}

/// A message of several lines: those after the first are indented, so that none looks like a separate
/// message.
#[must_use]
pub fn message(text: &str) -> String {
    escaped(text, "\n    ")
}

/// A whole page of lines that are ours, with fields of others in them.
#[must_use]
pub fn page(text: &str) -> String {
    escaped(text, "\n")
}

fn escaped(text: &str, line_end: &str) -> String {
    let mut plain = String::with_capacity(text.len() + 64);
    for character in text.chars() {
        match character {
            '\n' => plain.push_str(line_end),
            '\t' => plain.push('\t'),
            _ if is_harmless(character) => plain.push(character),
            _ => plain.extend(character.escape_default()),
        }
    }
    plain
}

/// A document of JSON, which means the same afterwards: its strings may hold what a terminal obeys,
/// but for the control characters of ASCII, which its writer has escaped.
#[must_use]
pub fn json(document: String) -> String {
    if document.bytes().all(|byte| matches!(byte, b' '..0x7f | b'\n' | b'\t')) {
        return document;
    }
    let mut plain = String::with_capacity(document.len() + 64);
    for character in document.chars() {
        match character {
            '\n' | '\t' => plain.push(character),
            // Between tokens alone.
            '\r' => plain.push(' '),
            _ if is_harmless(character) => plain.push(character),
            _ => plain += &format!("\\u{:04x}", u32::from(character)),
        }
    }
    plain
}

/// Whether a terminal only shows the character: it is no control character (of ASCII, or of the
/// second set of ISO 6429, U+0080 to U+009F), parts no lines, and turns no direction of what follows
/// (CVE-2021-42574).
#[must_use]
pub fn is_harmless(character: char) -> bool {
    const TURNS: [char; 3] = ['\u{61c}', '\u{200e}', '\u{200f}'];
    !character.is_control()
        && !TURNS.contains(&character)
        && !matches!(character, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_is_left() {
        for (text, shown) in [
            ("a b\u{e9}\u{4e16}", "a b\u{e9}\u{4e16}"),
            ("\u{1b}[2J\r\n\t\u{7f}", "\\u{1b}[2J\\r\\n\\t\\u{7f}"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("a\u{202e}b\u{2066}\u{2028}", "a\\u{202e}b\\u{2066}\\u{2028}"),
        ] {
            assert_eq!(Plain(text).to_string(), shown);
        }
    }

    #[test]
    fn lines_stay_lines_where_they_are_ours() {
        assert_eq!(page("a\tb\n\u{1b}c\n"), "a\tb\n\\u{1b}c\n");
        assert_eq!(message("a\nerror: b\r"), "a\n    error: b\\r");
    }

    #[test]
    fn a_document_of_json_means_the_same() {
        let value = serde_json::json!({"a\u{9b}": "\u{7f}\u{202e}\u{1b}\n\u{e9}"});
        let text = serde_json::to_string_pretty(&value).unwrap();
        let plain = json(text.clone());
        assert!(plain.chars().all(|character| character == '\n' || is_harmless(character)));
        assert_eq!(serde_json::from_str::<serde_json::Value>(&plain).unwrap(), value);
        assert_eq!(json("{\r\n}".into()), "{ \n}");
        assert_eq!(json("{\"a\": 1}".into()), "{\"a\": 1}");
    }
}

//! The prose of a file. In: its path and text. Out: pieces of what people read (paragraphs, comments,
//! strings), with the lines that they stand on, and without code.

mod rust;

/// Where a piece stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Markdown, which users read first.
    Markdown,
    /// The text of an error.
    Error,
    /// A comment.
    Comment,
    /// Any other string of a program.
    String,
}

impl Kind {
    /// Whether no word at all is allowed there, whatever the allow-list says.
    pub(super) fn is_forbidden(self) -> bool {
        matches!(self, Self::Markdown | Self::Error)
    }
}

/// A piece: a phrase may go on in its next line, never in the next piece.
#[derive(Debug)]
pub(super) struct Prose {
    pub(super) kind: Kind,
    /// Number of a line, and its text.
    pub(super) lines: Vec<(usize, String)>,
}

/// A word in lower case.
#[derive(Debug)]
pub(super) struct Token {
    pub(super) word: String,
    pub(super) line: usize,
}

impl Prose {
    /// Its words. Hyphens and underscores are part of a word: identifiers are another kind of word.
    pub(super) fn tokens(&self) -> Vec<Token> {
        let mut tokens = Vec::new();
        // Code spans may go on in the next line.
        let mut in_code = false;
        for (line, text) in &self.lines {
            for (place, part) in text.split('`').enumerate() {
                in_code ^= place > 0;
                if !in_code {
                    tokens.extend(words(part).map(|word| Token { word, line: *line }));
                }
            }
        }
        tokens
    }
}

fn words(text: &str) -> impl Iterator<Item = String> {
    let is_part = |c: char| c.is_alphanumeric() || "-_'/".contains(c);
    text.split(move |c| !is_part(c)).filter(|word| !word.is_empty()).map(|word| {
        let word = word.to_lowercase();
        word.strip_suffix("'s").unwrap_or(&word).trim_matches(['\'', '-', '/']).to_owned()
    })
}

/// The pieces of a file; None if its kind has no prose.
pub(super) fn of(file: &str, text: &str) -> Option<Vec<Prose>> {
    let name = file.rsplit('/').next().unwrap_or(file);
    match name.rsplit_once('.').map_or(name, |(_, extension)| extension) {
        "md" => Some(markdown(text)),
        "rs" => Some(rust::prose(text, is_test(file))),
        "yaml" | "yml" | "toml" | "sh" | "py" | "Dockerfile" => Some(comments(text, "#")),
        "js" | "go" | "java" => Some(comments(text, "//")),
        _ => None,
    }
}

/// The strings of tests are data.
fn is_test(file: &str) -> bool {
    file.ends_with("/tests.rs") || file.split('/').any(|folder| folder == "tests")
}

/// Paragraphs, without code blocks.
fn markdown(text: &str) -> Vec<Prose> {
    let (mut pieces, mut lines, mut fenced) = (Vec::new(), Vec::new(), false);
    for (number, line) in (1..).zip(text.lines()) {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        let code = fence || fenced || line.starts_with("    ");
        if code || line.trim().is_empty() || line.starts_with('|') {
            end(&mut pieces, &mut lines, Kind::Markdown);
        }
        if !code {
            lines.push((number, line.to_owned()));
        }
    }
    end(&mut pieces, &mut lines, Kind::Markdown);
    pieces
}

/// Comments of a language that has those of one line alone.
fn comments(text: &str, mark: &str) -> Vec<Prose> {
    let (mut pieces, mut lines) = (Vec::new(), Vec::new());
    for (number, line) in (1..).zip(text.lines()) {
        let comment = match line.split_once(mark) {
            Some((before, comment)) if before.is_empty() || before.ends_with(' ') => comment,
            _ => {
                end(&mut pieces, &mut lines, Kind::Comment);
                continue;
            }
        };
        lines.push((number, comment.to_owned()));
    }
    end(&mut pieces, &mut lines, Kind::Comment);
    pieces
}

/// Ends a piece, if there is one.
fn end(pieces: &mut Vec<Prose>, lines: &mut Vec<(usize, String)>, kind: Kind) {
    if !lines.is_empty() {
        pieces.push(Prose { kind, lines: std::mem::take(lines) });
    }
}

//! Regular expressions of a route: linear in the input, and always over the whole value.

use regex::bytes::{Regex, RegexBuilder};

/// Bytes that a compiled expression may take; a route cannot make an agent run out of memory.
const SIZE_LIMIT: usize = 1 << 20;

/// An expression in the syntax of the `regex` crate (RE2's, in essence: no look-around and no
/// back-references), anchored at both ends.
#[derive(Clone, Debug)]
pub struct Pattern {
    source: String,
    anchored: Regex,
}

impl Pattern {
    /// Compiles an expression.
    ///
    /// # Errors
    /// When it is malformed, or its compiled form is larger than 1 MiB.
    pub fn new(source: &str) -> Result<Self, regex::Error> {
        // Alone first: `a)|(b` must not become valid inside the group that anchors it.
        build(source)?;
        Ok(Self { source: source.into(), anchored: build(&format!(r"\A(?:{source})\z"))? })
    }

    /// Whether the whole of `value` matches.
    #[must_use]
    pub fn matches(&self, value: &[u8]) -> bool {
        self.anchored.is_match(value)
    }

    /// The expression as the route has it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.source
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

fn build(source: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(source).size_limit(SIZE_LIMIT).build()
}

//! Regular expressions of a route. In: an expression. Out: a deterministic automaton of a bounded
//! size, or why there is none. Whether a value matches takes one step for each of its bytes, whatever
//! the expression and the value are; an engine that simulates all states at once would take as many
//! steps for each byte as the expression has states, which a route and a request could choose so that
//! a worker does nothing else for seconds.

use std::sync::Arc;

use regex_automata::{
    Anchored, MatchKind,
    dfa::{Automaton, StartKind, dense},
    nfa::thompson::{self, NFA, WhichCaptures},
    util::{primitives::StateID, start},
};

mod syntax;

/// Longest expression, in bytes: four times as long as the API's longest of ASCII (HTTPHeaderMatch,
/// `value`).
const SOURCE_LIMIT: usize = 16 * 1024;

/// Bytes that the nondeterministic automaton may take while an expression is compiled. With the two
/// below it bounds the time: 7 ms were the longest of some 50 expressions made to take long (opt-level
/// 2, one core of a small virtual machine).
const NFA_LIMIT: usize = 64 * 1024;

/// Bytes that intermediate states may take while an expression is compiled.
const STATES_LIMIT: usize = 256 * 1024;

/// Bytes that a compiled expression may take. (Most take 1 to 40 KiB, `\p{L}+` takes 170.)
const DFA_LIMIT: usize = 256 * 1024;

/// An expression in the syntax of the `regex` crate (RE2's, in essence: no look-around and no
/// back-references), which must match the whole value. As in RE2, `\d`, `\s`, `\w` and `\b` are those
/// of ASCII; `\p{..}` has the classes of Unicode.
#[derive(Clone, Debug)]
pub struct Pattern {
    source: Arc<str>,
    automaton: Arc<dense::DFA<Vec<u32>>>,
    start: StateID,
    /// See [`Pattern::cost`].
    cost: usize,
}

/// Why an expression is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// It is malformed, or uses what cannot be matched in time that is linear in the value.
    #[error("is not a regular expression: {0}")]
    Syntax(String),
    /// See `SOURCE_LIMIT`.
    #[error("is longer than 16 KiB, which is the limit of a regular expression")]
    Long,
    /// Compiling it would take too long.
    #[error(
        "has too many non-ASCII classes to be compiled in time: leave out (?i), or write fewer \
         \\p{{..}} and ranges"
    )]
    Wide,
    /// See `NFA_LIMIT` and its neighbours.
    #[error(
        "is too large: so that each byte of a request takes one step, it is compiled to an automaton, \
         of which 256 KiB are the limit; lower the numbers in {{..}}, leave out what may follow \
         anything (.*x.{{50}}), or write fewer \\p{{..}}"
    )]
    Large,
}

impl PatternError {
    /// Stable name, for metrics.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Syntax(_) => "syntax",
            Self::Long => "long",
            Self::Wide => "wide",
            Self::Large => "large",
        }
    }
}

impl Pattern {
    /// Compiles an expression.
    ///
    /// # Errors
    /// When it is malformed, or too large; see [`PatternError`].
    pub fn new(source: &str) -> Result<Self, PatternError> {
        if source.len() > SOURCE_LIMIT {
            return Err(PatternError::Long);
        }
        let nfa = nfa(source)?;
        let config = dense::Config::new()
            .start_kind(StartKind::Anchored)
            // Not the first of several alternatives that match a part: any that matches the whole.
            .match_kind(MatchKind::All)
            .accelerate(false)
            .dfa_size_limit(Some(DFA_LIMIT))
            .determinize_size_limit(Some(STATES_LIMIT));
        let built = dense::Builder::new().configure(config).build_from_nfa(&nfa);
        let automaton = built.map_err(|error| match error.is_size_limit_exceeded() {
            true => PatternError::Large,
            false => PatternError::Syntax(error.to_string()),
        })?;
        let from = start::Config::new().anchored(Anchored::Yes);
        let start = automaton.start_state(&from);
        let start = start.map_err(|error| PatternError::Syntax(error.to_string()))?;
        let cost = nfa.memory_usage()
            + size_of::<dense::DFA<Vec<u32>>>()
            + automaton.memory_usage()
            + source.len();
        Ok(Self { source: source.into(), automaton: Arc::new(automaton), start, cost })
    }

    /// Bytes that the expression holds, and what was held to compile it, which stands for the time
    /// that this took.
    #[must_use]
    pub fn cost(&self) -> usize {
        self.cost
    }

    /// Whether the whole of `value` matches.
    #[must_use]
    pub fn matches(&self, value: &[u8]) -> bool {
        self.matches_parts(|| std::iter::once(value))
    }

    /// Whether the concatenation of `parts` does, of which none ends within a character of UTF-8.
    pub(super) fn matches_parts<'v, P: Iterator<Item = &'v [u8]>>(
        &self,
        parts: impl Fn() -> P,
    ) -> bool {
        // Without the second look not even `.*` holds for bytes that are no UTF-8.
        self.accepts(parts())
            || parts().any(|part| str::from_utf8(part).is_err())
                && self.accepts(parts().flat_map(lossy))
    }

    fn accepts<'v>(&self, parts: impl Iterator<Item = &'v [u8]>) -> bool {
        let mut state = self.start;
        for part in parts {
            for byte in part {
                state = self.automaton.next_state(state, *byte);
                // None of ours ever quits.
                if self.automaton.is_special_state(state) && self.automaton.is_dead_state(state) {
                    return false;
                }
            }
        }
        self.automaton.is_match_state(self.automaton.next_eoi_state(state))
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

fn nfa(source: &str) -> Result<NFA, PatternError> {
    let hir = syntax::parse(source)?;
    let config = thompson::Config::new()
        .utf8(false)
        .nfa_size_limit(Some(NFA_LIMIT))
        .which_captures(WhichCaptures::None);
    let built = thompson::Compiler::new().configure(config).build_from_hir(&hir);
    built.map_err(|error| match error.size_limit() {
        Some(_) => PatternError::Large,
        None => PatternError::Syntax(error.to_string()),
    })
}

/// The same text with U+FFFD for what is no UTF-8.
fn lossy(part: &[u8]) -> impl Iterator<Item = &[u8]> {
    part.utf8_chunks().flat_map(|chunk| {
        let replaced = if chunk.invalid().is_empty() { "" } else { "\u{fffd}" };
        [chunk.valid().as_bytes(), replaced.as_bytes()]
    })
}

#[cfg(test)]
mod tests;

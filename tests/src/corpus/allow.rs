//! The allow-list: which conversation may differ through the agent, in which way, and why.
//!
//! In: `tests/corpus/allowed.list`, and the two traces of each conversation. Out: a verdict. An
//! entry is `= kind: reason`, then the names of conversations. The kind is one of `kinds`, or
//! `exact`: then the lines that differ follow, as [`diff`] tells them, once the kinds that are
//! allowed as well are taken out. A kind that is not needed where it is allowed is an error: the
//! list says what is, not what might be.

use std::{collections::BTreeMap, fs};

use anyhow::{Context, Result, bail, ensure};

use super::{
    folder, kinds,
    trace::{Trace, diff},
};

/// The committed list.
#[derive(Debug)]
pub struct AllowList {
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    kind: String,
    reason: String,
    conversations: Vec<String>,
    /// Of the kind `exact`.
    lines: Vec<String>,
}

/// What the list says to a conversation.
#[derive(Debug)]
pub enum Verdict {
    /// Not a byte differs.
    Equal,
    /// It differs for these reasons.
    Allowed(Vec<String>),
    /// It differs in another way, or in fewer ways than the list says; what it is.
    Failed(String),
}

impl AllowList {
    /// Reads the committed list.
    ///
    /// # Errors
    /// It cannot be read or understood.
    pub fn load() -> Result<Self> {
        let path = folder().join("allowed.list");
        Self::parse(&fs::read_to_string(&path).with_context(|| path.display().to_string())?)
    }

    fn parse(text: &str) -> Result<Self> {
        let mut entries: Vec<Entry> = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            let context = || format!("allowed.list, line {}: {line}", at + 1);
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(head) = line.strip_prefix("= ") {
                let (kind, reason) = head.split_once(": ").with_context(context)?;
                let known = kind == "exact" || kinds::ALL.iter().any(|(name, _)| *name == kind);
                ensure!(known, "unknown kind: {}", context());
                let (kind, reason) = (kind.to_owned(), reason.to_owned());
                entries.push(Entry { kind, reason, conversations: Vec::new(), lines: Vec::new() });
                continue;
            }
            let entry = entries.last_mut().with_context(context)?;
            if line.starts_with("- ") || line.starts_with("+ ") {
                ensure!(entry.kind == "exact", "lines belong to exact: {}", context());
                entry.lines.push(line.to_owned());
            } else {
                entry.conversations.extend(line.split_whitespace().map(str::to_owned));
            }
        }
        Ok(Self { entries })
    }

    /// Every name in the list is a conversation's.
    ///
    /// # Errors
    /// One is not.
    pub fn check_names(&self, names: &[&str]) -> Result<()> {
        for entry in &self.entries {
            for name in &entry.conversations {
                let known = names.contains(&name.as_str());
                ensure!(known, "allowed.list: there is no conversation {name}");
            }
            if entry.conversations.is_empty() {
                bail!("allowed.list: an entry for nothing: {}", entry.reason);
            }
        }
        Ok(())
    }

    fn entries<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Entry> {
        self.entries.iter().filter(move |e| e.conversations.iter().any(|other| other == name))
    }

    fn kinds<'a>(&'a self, name: &'a str) -> Vec<&'a str> {
        self.entries(name)
            .map(|entry| entry.kind.as_str())
            .filter(|kind| *kind != "exact")
            .collect()
    }

    /// Compares what was seen without the agent and through it.
    #[must_use]
    pub fn judge(&self, name: &str, direct: &Trace, agent: &Trace) -> Verdict {
        let kinds = self.kinds(name);
        let exact: Vec<_> =
            self.entries(name).flat_map(|entry| &entry.lines).map(String::as_str).collect();
        let left =
            |kinds: &[&str]| diff(&kinds::without(direct, kinds), &kinds::without(agent, kinds));
        let found = left(&kinds);
        if found != exact {
            let says =
                if exact.is_empty() { String::new() } else { block("the list says", &exact) };
            return Verdict::Failed(format!(
                "{}{says}{}",
                block("differs", &found),
                suggestion(direct, agent)
            ));
        }
        for kind in &kinds {
            let others: Vec<_> = kinds.iter().copied().filter(|other| other != kind).collect();
            if left(&others) == found {
                return Verdict::Failed(format!("{kind} is allowed but does not occur\n"));
            }
        }
        let reasons: Vec<_> =
            self.entries(name).map(|e| format!("{}: {}", e.kind, e.reason)).collect();
        if reasons.is_empty() { Verdict::Equal } else { Verdict::Allowed(reasons) }
    }

    /// How the trace with a mirror differs from that without, but for the kinds that are allowed.
    #[must_use]
    pub fn harm(&self, name: &str, plain: &Trace, mirrored: &Trace) -> Vec<String> {
        let kinds = self.kinds(name);
        diff(&kinds::without(plain, &kinds), &kinds::without(mirrored, &kinds))
    }
}

/// The fewest kinds that explain most, and what they leave.
fn suggestion(direct: &Trace, agent: &Trace) -> String {
    let left = |kinds: &[&str]| diff(&kinds::without(direct, kinds), &kinds::without(agent, kinds));
    let mut needed: Vec<_> = kinds::ALL.iter().map(|(name, _)| *name).collect();
    let fewest = left(&needed).len();
    for (kind, _) in kinds::ALL {
        let fewer: Vec<_> = needed.iter().copied().filter(|other| *other != kind).collect();
        if left(&fewer).len() == fewest {
            needed = fewer;
        }
    }
    let rest = left(&needed);
    let rest = if rest.is_empty() { String::new() } else { block("beyond these", &rest) };
    format!("    kinds that would explain it: {}\n{rest}", needed.join(" "))
}

fn block<T: std::fmt::Display>(title: &str, lines: &[T]) -> String {
    lines.iter().fold(format!("    {title}:\n"), |text, line| text + &format!("      {line}\n"))
}

/// How many conversations have each reason.
#[must_use]
pub fn summary<'a>(reasons: impl IntoIterator<Item = &'a String>) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for reason in reasons {
        *counts.entry(reason).or_default() += 1;
    }
    counts
        .iter()
        .fold(String::new(), |text, (reason, count)| text + &format!("  {count:>4}  {reason}\n"))
}

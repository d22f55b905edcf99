//! The allow-list: which conversation may differ through the agent, in which way, and why.
//!
//! In: `tests/corpus/allowed.list`, and the two traces of each conversation. Out: a verdict. An
//! entry is `= kind: reason`, then the names of conversations. The kind is one of `kinds`, or
//! `exact`: then the lines that differ follow, as [`diff`] prints them, once the kinds that are
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
    pub fn check(&self, name: &str, direct: &Trace, agent: &Trace) -> Verdict {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::{
        message::{MessageToken, Part},
        script::Role,
        trace::{Entry, Saw},
    };

    /// What the server saw: one head of these lines.
    fn trace(lines: &[&str]) -> Trace {
        let entry = |(at, line): (usize, &&str)| {
            let part = if at == 0 { Part::Start } else { Part::Field };
            let line = format!("{line}\r\n").into_bytes();
            let saw = Saw::MessageToken(MessageToken::Line(part, line));
            Entry { step: Some(1), side: Role::Server, connection: 0, saw }
        };
        Trace(lines.iter().enumerate().map(entry).collect())
    }

    fn failure(list: &str, direct: &Trace, agent: &Trace) -> String {
        match AllowList::parse(list).unwrap().check("it", direct, agent) {
            Verdict::Failed(why) => why,
            other => panic!("{other:?}"),
        }
    }

    const START: &str = "GET / HTTP/1.1";

    #[test]
    fn only_what_the_list_names_may_differ() {
        let direct = trace(&[START, "A: 1", "Connection: close", "B: 2"]);
        let agent = trace(&[START, "B: 2", "A: 1"]);
        let why = failure("", &direct, &agent);
        assert!(why.contains("kinds that would explain it: hop-by-hop field-order\n"), "{why}");
        assert!(failure("= hop-by-hop: why\nit", &direct, &agent).contains("differs"));
        assert!(failure("= field-order: why\nit", &direct, &agent).contains("differs"));
        let both = "= hop-by-hop: why\nit\n= field-order: because\nother it";
        let verdict = AllowList::parse(both).unwrap().check("it", &direct, &agent);
        let Verdict::Allowed(reasons) = verdict else { panic!("{verdict:?}") };
        assert_eq!(reasons, ["hop-by-hop: why", "field-order: because"]);
        let verdict = AllowList::parse(both).unwrap().check("third", &direct, &direct);
        assert!(matches!(verdict, Verdict::Equal), "{verdict:?}");
    }

    #[test]
    fn what_is_not_needed_fails() {
        let same = trace(&[START, "A: 1"]);
        assert!(failure("= field-order: why\nit", &same, &same).contains("does not occur"));
        let list = "= exact: why\nit\n- 2 S0 \"A: 1\\r\\n\"";
        assert!(failure(list, &same, &same).contains("the list says"));
        let verdict = AllowList::parse(list).unwrap().check("it", &same, &trace(&[START]));
        assert!(matches!(verdict, Verdict::Allowed(_)), "{verdict:?}");
        assert!(failure(list, &same, &trace(&[START, "A: 2"])).contains("differs"));
        let unknown = AllowList::parse("= field-order: why\nnobody").unwrap();
        assert!(unknown.check_names(&["it"]).is_err());
        assert!(AllowList::parse("= whim: why\nit").is_err());
    }

    #[test]
    fn a_mirror_may_change_nothing_else() {
        let list = AllowList::parse("= field-order: why\nit").unwrap();
        let (plain, other) = (trace(&[START, "A: 1", "B: 2"]), trace(&[START, "B: 2", "A: 1"]));
        assert!(list.harm("it", &plain, &other).is_empty());
        assert_eq!(list.harm("other", &plain, &other).len(), 2);
        assert_eq!(list.harm("it", &plain, &trace(&[START, "A: 1"])).len(), 1);
    }
}

//! The allow-list: how many of the words each file may have. In and out: lines of COUNT PATH.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use anyhow::{Context, Result};

/// Relative to the root.
pub(super) const FILE: &str = "xtask/words-allowed.txt";

const HEADER: &str = "# Words of xtask/words.txt that each file still has. A count may only fall: cargo xtask words --update\n";

/// Counts by file.
#[derive(Debug, Default)]
pub(super) struct Allowed(BTreeMap<String, usize>);

impl Allowed {
    /// Files without any are left out.
    pub(super) fn new(counts: impl IntoIterator<Item = (String, usize)>) -> Self {
        Self(counts.into_iter().filter(|(_, count)| *count > 0).collect())
    }

    pub(super) fn read(root: &Path) -> Result<Self> {
        Self::parse(&fs::read_to_string(root.join(FILE)).context(FILE)?)
    }

    pub(super) fn parse(text: &str) -> Result<Self> {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let entry = |line: &str| {
            let (count, file) =
                line.split_once(' ').with_context(|| format!("COUNT PATH: {line}"))?;
            let count = count.parse().with_context(|| format!("not a count: {line}"))?;
            Ok((file.to_owned(), count))
        };
        lines.map(entry).collect::<Result<_>>().map(Self)
    }

    pub(super) fn write(&self, root: &Path) -> Result<()> {
        let mut text = HEADER.to_owned();
        for (file, count) in &self.0 {
            let _ = writeln!(text, "{count} {file}");
        }
        fs::write(root.join(FILE), text).context(FILE)
    }

    pub(super) fn of(&self, file: &str) -> usize {
        self.0.get(file).copied().unwrap_or(0)
    }

    pub(super) fn total(&self) -> usize {
        self.0.values().sum()
    }

    pub(super) fn files(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

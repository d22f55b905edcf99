//! Counting: how many checks passed, failed, and were skipped.

use std::{fmt, ops::AddAssign, process::ExitStatus};

/// Counts of one step, or of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) skipped: usize,
}

impl Tally {
    pub(crate) const PASSED: Self = Self { passed: 1, failed: 0, skipped: 0 };
    pub(crate) const FAILED: Self = Self { passed: 0, failed: 1, skipped: 0 };
    pub(crate) const SKIPPED: Self = Self { passed: 0, failed: 0, skipped: 1 };

    /// Reads one line of cargo test: `test result: ok. 5 passed; 0 failed; 1 ignored; ...`, which
    /// each test binary ends with. None for every other line.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
        let count = |what| {
            let mut items = counts.split("; ");
            items.find_map(|item| item.strip_suffix(what)?.trim().parse().ok())
        };
        Some(Self {
            passed: count("passed")?,
            failed: count("failed")?,
            skipped: count("ignored")?,
        })
    }
}

impl Tally {
    /// The same for a program that ended so: it failed if it did not end well, whatever it has counted.
    pub(crate) fn with_status(mut self, status: ExitStatus) -> Self {
        if !status.success() && self.failed == 0 {
            // It did not compile, or died without its summary.
            println!("the tests ended with {status}");
            self += Self::FAILED;
        }
        self
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { passed, failed, skipped } = self;
        write!(f, "{passed} passed, {failed} failed, {skipped} skipped")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_read() {
        let line = "test result: FAILED. 5 passed; 2 failed; 1 ignored; 0 measured; 3 filtered out; \
                    finished in 0.21s";
        assert_eq!(Tally::parse(line), Some(Tally { passed: 5, failed: 2, skipped: 1 }));
        assert_eq!(Tally::parse("test cgroup::tests::found ... ok"), None);
        assert_eq!(Tally::parse("test result: ok"), None);
    }

    #[test]
    fn tallies_add_up() {
        let mut tally = Tally::PASSED;
        tally += Tally::SKIPPED;
        tally += Tally::FAILED;
        assert_eq!(tally.to_string(), "1 passed, 1 failed, 1 skipped");
    }
}

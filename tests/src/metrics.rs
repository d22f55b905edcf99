//! What `/metrics` says, parsed.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

/// The samples of one reading.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    samples: Vec<Sample>,
}

#[derive(Clone, Debug, PartialEq)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Metrics {
    /// Parses the text format of Prometheus and OpenMetrics.
    ///
    /// # Errors
    /// A line that is no sample, with the line.
    pub fn parse(text: &str) -> Result<Self> {
        let lines = text.lines().map(str::trim);
        let samples = lines
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(|line| sample(line).with_context(|| format!("not a sample: {line}")))
            .collect::<Result<_>>()?;
        Ok(Self { samples })
    }

    /// The sum of all samples of this name that carry (at least) these labels; 0 when there is
    /// none, as a counter that never counted is not shown.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let carries = |sample: &&Sample| {
            labels.iter().all(|(k, v)| sample.labels.get(*k).is_some_and(|value| value == v))
        };
        let named = self.samples.iter().filter(|sample| sample.name == name);
        named.filter(carries).map(|sample| sample.value).sum()
    }

    /// Whether any sample has this name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.samples.iter().any(|sample| sample.name == name)
    }
}

fn sample(line: &str) -> Option<Sample> {
    let (name, labels, rest) = match line.split_once('{') {
        Some((name, rest)) => {
            let (labels, rest) = labels(rest)?;
            (name, labels, rest)
        }
        None => {
            let (name, rest) = line.split_once(' ')?;
            (name, BTreeMap::new(), rest)
        }
    };
    // A timestamp may follow the value.
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some(Sample { name: name.to_owned(), labels, value })
}

/// `a="b",c="d"} 1` as the labels and what follows them; values may hold escapes.
fn labels(mut text: &str) -> Option<(BTreeMap<String, String>, &str)> {
    let mut labels = BTreeMap::new();
    loop {
        text = text.trim_start_matches([',', ' ']);
        if let Some(rest) = text.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (name, rest) = text.split_once("=\"")?;
        let mut value = String::new();
        let mut characters = rest.char_indices();
        loop {
            match characters.next()? {
                (at, '"') => {
                    text = &rest[at + 1..];
                    break;
                }
                (_, '\\') => value.push(match characters.next()?.1 {
                    'n' => '\n',
                    other => other,
                }),
                (_, other) => value.push(other),
            }
        }
        labels.insert(name.to_owned(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_summed_by_labels() {
        let text = "# HELP copies x\n# TYPE copies counter\n\
                    copies_total{outcome=\"delivered\",backend=\"a/b:80\"} 3\n\
                    copies_total{outcome=\"dropped\",reason=\"a, \\\"b\\\" }\"} 4 1700000000\n\
                    up 1\n# EOF\n";
        let metrics = Metrics::parse(text).unwrap();
        let copies = |labels| metrics.sum("copies_total", labels);
        assert_eq!(copies(&[]), 7.0);
        assert_eq!(copies(&[("outcome", "delivered")]), 3.0);
        assert_eq!(copies(&[("reason", "a, \"b\" }")]), 4.0);
        assert_eq!(copies(&[("reason", "other")]), 0.0);
        assert!(metrics.has("up") && !metrics.has("down"));
    }

    #[test]
    fn nonsense_is_refused() {
        for line in ["nonsense", "a{b=\"c} 1", "a{b} 1", "a one"] {
            assert!(Metrics::parse(line).is_err(), "{line}");
        }
    }
}

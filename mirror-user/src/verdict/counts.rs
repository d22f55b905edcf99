//! What agents have counted of one route and one of its shadows. In: statuses. Out: the difference of two of one agent, the
//! sum over agents. Pure.

use std::{borrow::Borrow, collections::BTreeMap};

use crate::dump::{CopiesDump, HistogramDump, LabelText, PairsDump};

/// Responses by the class of the primary's, then of the shadow's.
pub(super) type Classes = BTreeMap<String, BTreeMap<String, u64>>;

/// Copies by the reason why they were lost.
pub(super) type Reasons = BTreeMap<String, u64>;

/// What was counted of a route and a shadow, but for the copies: those of other routes to the shadow count too.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Counts {
    pub(super) classes: Classes,
    pub(super) primary: HistogramDump,
    pub(super) shadow: HistogramDump,
    pub(super) delivered: u64,
    pub(super) dropped: Reasons,
    pub(super) unknown: Reasons,
}

/// Why two counts make no third.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum CountError {
    #[error("its counts went back")]
    WentBack,
    #[error("its histograms have other buckets: all agents must have one version")]
    Buckets,
}

impl Counts {
    pub(super) fn new(responses: Option<&PairsDump>, copies: Option<&CopiesDump>) -> Self {
        let mut counts = Self::default();
        if let Some(responses) = responses {
            let rows = responses.classes.iter();
            counts.classes = rows.map(|(class, row)| (class.to_string(), owned(row))).collect();
            counts.primary = responses.primary_times.clone();
            counts.shadow = responses.shadow_times.clone();
        }
        if let Some(copies) = copies {
            counts.delivered = copies.delivered;
            counts.dropped = owned(&copies.dropped);
            counts.unknown = owned(&copies.unknown);
        }
        counts
    }

    /// What was counted since `earlier`, by the same run of the same agent.
    pub(super) fn since(&self, earlier: &Self) -> Result<Self, CountError> {
        let mut classes = Classes::new();
        let none = Reasons::new();
        for primary in self.classes.keys().chain(earlier.classes.keys()) {
            let row = |classes: &'_ Classes| classes.get(primary).unwrap_or(&none).clone();
            let row = difference(&row(&self.classes), &row(&earlier.classes))?;
            classes.insert(primary.clone(), row);
        }
        classes.retain(|_, row| !row.is_empty());
        Ok(Self {
            classes,
            primary: self.primary.since(&earlier.primary)?,
            shadow: self.shadow.since(&earlier.shadow)?,
            delivered: minus(self.delivered, earlier.delivered)?,
            dropped: difference(&self.dropped, &earlier.dropped)?,
            unknown: difference(&self.unknown, &earlier.unknown)?,
        })
    }

    /// Adds what another agent has counted.
    pub(super) fn absorb(&mut self, other: &Self) -> Result<(), CountError> {
        for (primary, row) in &other.classes {
            add(self.classes.entry(primary.clone()).or_default(), row);
        }
        self.primary.absorb(&other.primary)?;
        self.shadow.absorb(&other.shadow)?;
        self.delivered += other.delivered;
        add(&mut self.dropped, &other.dropped);
        add(&mut self.unknown, &other.unknown);
        Ok(())
    }

    /// Classes of the primary's and the shadow's response, and how often both occurred.
    pub(super) fn cells(&self) -> impl Iterator<Item = (&str, &str, u64)> {
        let rows = self.classes.iter();
        rows.flat_map(|(primary, row)| {
            row.iter().map(move |(shadow, n)| (&**primary, &**shadow, *n))
        })
    }
}

impl HistogramDump {
    fn since(&self, earlier: &Self) -> Result<Self, CountError> {
        if earlier.counts.is_empty() {
            return Ok(self.clone());
        }
        if self.counts.is_empty() {
            return Err(CountError::WentBack);
        }
        self.must_fit(earlier)?;
        let counts = self.counts.iter().zip(&earlier.counts).map(|(now, then)| minus(*now, *then));
        Ok(Self {
            bounds_seconds: self.bounds_seconds.clone(),
            counts: counts.collect::<Result<_, _>>()?,
            sum_seconds: (self.sum_seconds - earlier.sum_seconds).max(0.0),
        })
    }

    fn absorb(&mut self, other: &Self) -> Result<(), CountError> {
        if other.counts.is_empty() {
            return Ok(());
        }
        if self.counts.is_empty() {
            *self = other.clone();
            return Ok(());
        }
        self.must_fit(other)?;
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.sum_seconds += other.sum_seconds;
        Ok(())
    }

    fn must_fit(&self, other: &Self) -> Result<(), CountError> {
        let fits =
            self.bounds_seconds == other.bounds_seconds && self.counts.len() == other.counts.len();
        if fits { Ok(()) } else { Err(CountError::Buckets) }
    }
}

fn owned(counts: &BTreeMap<LabelText, u64>) -> Reasons {
    counts.iter().map(|(label, count)| (label.to_string(), *count)).collect()
}

fn minus(now: u64, then: u64) -> Result<u64, CountError> {
    now.checked_sub(then).ok_or(CountError::WentBack)
}

/// What has grown.
fn difference(now: &Reasons, then: &Reasons) -> Result<Reasons, CountError> {
    let mut grown = Reasons::new();
    for label in now.keys().chain(then.keys()) {
        let count = |counts: &Reasons| counts.get::<str>(label.borrow()).copied().unwrap_or(0);
        let more = minus(count(now), count(then))?;
        if more > 0 {
            grown.insert(label.clone(), more);
        }
    }
    Ok(grown)
}

fn add(mine: &mut Reasons, theirs: &Reasons) {
    for (label, count) in theirs {
        *mine.entry(label.clone()).or_default() += count;
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(in crate::verdict) fn reasons(of: &[(&str, u64)]) -> Reasons {
        of.iter().map(|(label, count)| ((*label).to_owned(), *count)).collect()
    }

    /// Counts of 0 occur nowhere, as in a status.
    fn some() -> impl Strategy<Value = Counts> {
        let labels = || proptest::sample::select(vec!["2xx", "4xx", "5xx"]).prop_map(str::to_owned);
        let reasons = || proptest::collection::btree_map(labels(), 1_u64..1000, 0..3);
        let times = || {
            (proptest::collection::vec(0_u64..1000, 3), 0_u32..1000).prop_map(|(counts, sum)| {
                HistogramDump {
                    bounds_seconds: vec![0.001, 0.01],
                    counts,
                    // Whole numbers, whose sums are exact.
                    sum_seconds: sum.into(),
                }
            })
        };
        let rows = proptest::collection::btree_map(labels(), reasons(), 0..3);
        (rows, times(), times(), 0_u64..1000, reasons(), reasons()).prop_map(
            |(mut classes, primary, shadow, delivered, dropped, unknown)| {
                classes.retain(|_, row| !row.is_empty());
                Counts { classes, primary, shadow, delivered, dropped, unknown }
            },
        )
    }

    fn sum(parts: &[&Counts]) -> Counts {
        let mut sum = Counts::default();
        parts.iter().for_each(|part| sum.absorb(part).unwrap());
        sum
    }

    proptest! {
        #[test]
        fn the_sum_over_agents_does_not_depend_on_their_order(a in some(), b in some(), c in some()) {
            prop_assert_eq!(sum(&[&a, &b, &c]), sum(&[&c, &a, &b]));
            prop_assert_eq!(sum(&[&sum(&[&a, &b]), &c]), sum(&[&a, &b, &c]));
            let cells = |counts: &Counts| counts.cells().map(|(_, _, n)| n).sum::<u64>();
            prop_assert_eq!(cells(&sum(&[&a, &b])), cells(&a) + cells(&b));
        }

        #[test]
        fn what_was_counted_in_between_is_what_was_added(before in some(), between in some()) {
            let after = sum(&[&before, &between]);
            prop_assert_eq!(after.since(&before).unwrap(), between);
            prop_assert_eq!(after.since(&Counts::default()).unwrap(), after);
        }
    }

    #[test]
    fn counts_that_went_back_or_do_not_fit_are_errors() {
        let one = Counts { delivered: 1, dropped: reasons(&[("connect", 2)]), ..Counts::default() };
        assert_eq!(Counts::default().since(&one), Err(CountError::WentBack));
        let gone = Counts { delivered: 5, ..Counts::default() };
        assert_eq!(gone.since(&one), Err(CountError::WentBack));
        let with = |bounds_seconds: Vec<f64>| {
            let counts = vec![1; bounds_seconds.len() + 1];
            let primary = HistogramDump { bounds_seconds, counts, sum_seconds: 1.0 };
            Counts { primary, ..Counts::default() }
        };
        let (two, three) = (with(vec![1.0]), with(vec![1.0, 2.0]));
        assert_eq!(three.since(&two), Err(CountError::Buckets));
        assert_eq!(two.clone().absorb(&three), Err(CountError::Buckets));
        assert_eq!(Counts::default().since(&two), Err(CountError::WentBack));
    }
}

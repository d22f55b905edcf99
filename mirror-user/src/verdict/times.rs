//! Times. In: histograms of the primary's and the shadow's. Out: their means and percentiles, and how many times
//! longer the shadow takes, with an interval. Pure.
//!
//! The upper bound of a bucket is two to three times its lower one, so that percentiles cannot show a difference of 20 %.
//! Means can: sum and count are exact. What the buckets do not hold is the variance; they bound it, though, and the
//! interval is the one of the greatest variance that they permit.

use serde::Serialize;

use super::share::{Interval, Z};
use crate::dump::HistogramDump;

/// Fewer responses say nothing of a mean, whose distribution is normal only if there are many.
pub(super) const LEAST: u64 = 100;

/// A percentile, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Percentile {
    /// As if the times of a bucket were evenly distributed; None in the last bucket.
    pub(super) seconds: Option<f64>,
    /// Bounds of its bucket: this much is certain.
    pub(super) above_seconds: f64,
    pub(super) up_to_seconds: Option<f64>,
}

/// How many times as long the shadow takes on average, and the same times as one interval of 95 %.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct TimeRatio {
    pub(super) ratio: f64,
    pub(super) interval: Interval,
    /// The standard error of the ratio's logarithm.
    error: f64,
    least: u64,
}

impl HistogramDump {
    pub(super) fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    pub(super) fn mean(&self) -> Option<f64> {
        let count = self.count();
        (count > 0).then(|| self.sum_seconds / count as f64)
    }

    /// Lower bound, upper bound and count of each bucket.
    fn buckets(&self) -> impl DoubleEndedIterator<Item = (f64, Option<f64>, u64)> {
        self.counts.iter().enumerate().map(|(at, count)| {
            let below = at.checked_sub(1).and_then(|at| self.bounds_seconds.get(at));
            (below.copied().unwrap_or(0.0), self.bounds_seconds.get(at).copied(), *count)
        })
    }

    /// `part`: 0.5 is the median.
    pub(super) fn percentile(&self, part: f64) -> Option<Percentile> {
        let rank = self.count() as f64 * part;
        let mut before = 0;
        for (lower, upper, count) in self.buckets().filter(|(_, _, count)| *count > 0) {
            if (before + count) as f64 >= rank {
                let inside = (rank - before as f64) / count as f64;
                let seconds = upper.map(|upper| lower + inside * (upper - lower));
                return Some(Percentile { seconds, above_seconds: lower, up_to_seconds: upper });
            }
            before += count;
        }
        None
    }

    /// The greatest sum of squares that times in these buckets with this sum can have: if all were at the
    /// lower bounds, and as much as is missing to the sum were added where it counts most, from the top.
    /// (x^2 lies below the chord of its bucket, lower^2 + (lower + upper) * (x - lower).)
    fn squares(&self) -> f64 {
        let least: f64 = self.buckets().map(|(lower, _, count)| lower * count as f64).sum();
        let mut missing = (self.sum_seconds - least).max(0.0);
        let mut squares = 0.0;
        for (lower, upper, count) in self.buckets().rev().filter(|(_, _, count)| *count > 0) {
            // Without a bound, a single time can be all that is missing.
            let upper = upper.unwrap_or(lower + missing);
            let added = missing.min((upper - lower) * count as f64);
            squares += lower * lower * count as f64 + (lower + upper) * added;
            missing -= added;
        }
        squares
    }

    /// The standard error of the mean, as a share of it, at most.
    fn relative_error(&self) -> Option<f64> {
        let (mean, count) = (self.mean().filter(|mean| *mean > 0.0)?, self.count() as f64);
        let variance = (self.squares() / count - mean * mean).max(0.0);
        (count > 1.0).then(|| (variance / (count - 1.0)).sqrt() / mean)
    }
}

/// How much slower the shadow is; None if there are too few times to say.
///
/// The logarithm of a ratio of means is normal if there are many, and its standard error is at most the sum of
/// both relative errors, however the two times of a request depend on each other.
pub(super) fn ratio(primary: &HistogramDump, shadow: &HistogramDump) -> Option<TimeRatio> {
    let least = primary.count().min(shadow.count());
    if least < LEAST {
        return None;
    }
    let ratio = shadow.mean()? / primary.mean().filter(|mean| *mean > 0.0)?;
    let error = primary.relative_error()? + shadow.relative_error()?;
    let factor = (Z * error).exp();
    let interval = Interval { lower: ratio / factor, upper: ratio * factor };
    Some(TimeRatio { ratio, interval, error, least })
}

impl TimeRatio {
    /// How many responses would put the interval on one side of the limit, if nothing else changes; None if none do.
    pub(super) fn needed(&self, limit: f64) -> Option<u64> {
        let distance = (self.ratio / limit).ln();
        let times = Z * self.error / distance;
        let needed = self.least as f64 * times * times;
        (needed < 1e15).then_some(needed.ceil() as u64)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn histogram(times: &[f64]) -> HistogramDump {
        within(&[0.001, 0.0025, 0.005, 0.01], times)
    }

    fn within(bounds: &[f64], times: &[f64]) -> HistogramDump {
        let bounds_seconds = bounds.to_vec();
        let mut counts = vec![0; bounds_seconds.len() + 1];
        for time in times {
            counts[bounds_seconds.partition_point(|bound| bound < time)] += 1;
        }
        HistogramDump { bounds_seconds, counts, sum_seconds: times.iter().sum() }
    }

    #[test]
    fn percentiles_lie_in_their_buckets() {
        // Ten of 2 ms, and one for which there is no bound.
        let times: Vec<_> = [0.002; 10].into_iter().chain([7.0]).collect();
        let some = histogram(&times);
        let median = some.percentile(0.5).unwrap();
        assert_eq!((median.above_seconds, median.up_to_seconds), (0.001, Some(0.0025)));
        // Rank 5.5 of 10 in (1 ms, 2.5 ms].
        assert!((median.seconds.unwrap() - 0.001_825).abs() < 1e-9, "{median:?}");
        let last = some.percentile(0.99).unwrap();
        assert_eq!(last, Percentile { seconds: None, above_seconds: 0.01, up_to_seconds: None });
        assert_eq!(histogram(&[]).percentile(0.5), None);
        assert_eq!(HistogramDump::default().mean(), None);
    }

    #[test]
    fn a_ratio_has_the_interval_of_the_greatest_variance() {
        // 1 ms each is the upper bound of the first bucket, and 2.5 ms of the second: no variance is possible.
        let (primary, shadow) = (histogram(&[0.001; 400]), histogram(&[0.0025; 400]));
        let exact = ratio(&primary, &shadow).unwrap();
        assert!((exact.ratio - 2.5).abs() < 1e-9, "{exact:?}");
        assert!(exact.interval.upper - exact.interval.lower < 1e-6, "{exact:?}");
        // 4 ms each: at most a third of (2.5, 5] at 2.5 ms and the rest at 5 ms, whatever they really are:
        // variance 2/5 * 3/5 * 2.5^2 = 1.5, standard error sqrt(1.5 / 400) / 4 = 0.0153.
        let wide = histogram(&[0.004; 401]);
        assert!((wide.relative_error().unwrap() - 0.015_309).abs() < 1e-6);
        let found = ratio(&primary, &wide).unwrap();
        assert!((found.interval.upper - 4.0 * (Z * 0.015_309_f64).exp()).abs() < 1e-4, "{found:?}");
        assert!((found.interval.lower - 4.0 / (Z * 0.015_309_f64).exp()).abs() < 1e-4, "{found:?}");
    }

    /// Exponential times with this mean, from a linear congruential generator (Knuth, MMIX).
    fn exponential(state: &mut u64, mean: f64, count: usize) -> Vec<f64> {
        let mut next = || {
            *state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            -mean * (1.0 - (*state >> 11) as f64 / (1_u64 << 53) as f64).ln()
        };
        (0..count).map(|_| next()).collect()
    }

    #[test]
    fn the_true_ratio_is_in_the_interval_at_least_as_often_as_is_said() {
        let bounds = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05];
        let of = |primary: &[f64], shadow: &[f64]| {
            ratio(&within(&bounds, primary), &within(&bounds, shadow)).unwrap().interval
        };
        let mut state = 1;
        let mut trial = || {
            let primary = exponential(&mut state, 0.002, 200);
            let noise = exponential(&mut state, 0.0024, 200);
            // Half of a shadow's time depends on its primary's, or none of it; or the longer the one, the
            // shorter the other.
            let half = |(time, noise): (&f64, &f64)| (1.2 * time + noise) / 2.0;
            let alike: Vec<_> = primary.iter().zip(&noise).map(half).collect();
            let reverse = |time: &f64| -0.0024 * (1.0 - (-time / 0.002).exp()).ln();
            let opposed: Vec<_> = primary.iter().map(reverse).collect();
            [&alike, &noise, &opposed].map(|shadow| of(&primary, shadow))
        };
        let trials: Vec<_> = (0..1_000).map(|_| trial()).collect();
        let contains = |interval: &Interval| interval.lower <= 1.2 && 1.2 <= interval.upper;
        for kind in 0..3 {
            let covered = trials.iter().filter(|trial| contains(&trial[kind])).count();
            assert!(covered >= 950, "{kind}: {covered} of 1,000");
        }
        // Of 200 exponential times the relative error of the mean is 1 / sqrt(200), of two of them 0.1: without
        // the buckets, and if the times did not depend on each other, the half width would be 0.196.
        let width = |interval: &Interval| (interval.upper / interval.lower).ln() / 2.0;
        let widths: f64 = trials.iter().map(|trial| width(&trial[1])).sum();
        assert!((0.196..0.196 * 2.5).contains(&(widths / 1_000.0)), "{}", widths / 1_000.0);
    }

    #[test]
    fn too_few_times_have_no_ratio_and_more_decide() {
        let times = [0.004; 100];
        assert_eq!(ratio(&histogram(&times[..99]), &histogram(&times)), None);
        let found = ratio(&histogram(&times), &histogram(&times)).unwrap();
        assert_eq!(found.needed(1.0), None);
        let limit = found.interval.upper - 0.01;
        let needed = usize::try_from(found.needed(limit).unwrap()).unwrap();
        assert!(needed > 100, "{needed}");
        let more =
            |count: usize| ratio(&histogram(&vec![0.004; count]), &histogram(&vec![0.004; count]));
        assert!(more(needed + 2).unwrap().interval.upper <= limit);
        assert!(more(needed - 2).unwrap().interval.upper > limit);
    }

    proptest! {
        #[test]
        fn no_times_have_more_variance_than_is_assumed(
            times in proptest::collection::vec(0.000_01..0.02_f64, 2..200),
        ) {
            let histogram = histogram(&times);
            let squares: f64 = times.iter().map(|time| time * time).sum();
            prop_assert!(histogram.squares() >= squares * (1.0 - 1e-9));
            // As much as times can have: none is beyond what is left for the last bucket.
            let most = times.iter().copied().fold(0.0, f64::max).max(histogram.sum_seconds);
            prop_assert!(histogram.squares() <= most * most * times.len() as f64 * (1.0 + 1e-9));
        }

        #[test]
        fn the_interval_contains_the_ratio_and_narrows(
            primary in proptest::collection::vec(0.000_01..0.02_f64, 100..200),
            shadow in proptest::collection::vec(0.000_01..0.02_f64, 100..200),
        ) {
            let one = ratio(&histogram(&primary), &histogram(&shadow)).unwrap();
            prop_assert!(one.interval.lower <= one.ratio && one.ratio <= one.interval.upper);
            let four = ratio(&histogram(&primary.repeat(4)), &histogram(&shadow.repeat(4))).unwrap();
            prop_assert!((four.ratio / one.ratio - 1.0).abs() < 1e-9);
            // A time beyond the last bound may be all that is missing, so that four may vary more than one.
            let bounded = |times: &[f64]| times.iter().all(|time| *time <= 0.01);
            if bounded(&primary) && bounded(&shadow) {
                prop_assert!(four.interval.upper <= one.interval.upper);
            }
        }
    }
}

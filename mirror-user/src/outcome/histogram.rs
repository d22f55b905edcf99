//! A latency histogram with fixed buckets: durations go in, counts per bucket come out.

use std::time::Duration;

/// Upper bounds of the buckets in microseconds, 0.5 ms to 60 s, about two per factor of five.
const BOUNDS: [u64; 16] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000, 30_000_000, 60_000_000,
];

/// Counts of durations by bucket. Adding one allocates nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// One per bound, and the last for all that is longer.
    counts: [u64; BOUNDS.len() + 1],
    /// Nanoseconds; u64 would overflow after three weeks of ten thousand requests at once.
    sum: u128,
}

impl Histogram {
    /// Adds one duration. A bucket contains its upper bound.
    pub fn observe(&mut self, duration: Duration) {
        let nanos = duration.as_nanos();
        let bucket = BOUNDS.partition_point(|bound| u128::from(*bound) * 1_000 < nanos);
        self.counts[bucket] += 1;
        self.sum += nanos;
    }

    /// Adds all that `other` has counted.
    pub fn absorb(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.sum += other.sum;
    }

    /// How many durations were added.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Their mean; None without any.
    #[must_use]
    pub fn mean(&self) -> Option<Duration> {
        let mean = self.sum.checked_div(u128::from(self.count()))?;
        u64::try_from(mean).ok().map(Duration::from_nanos)
    }

    /// Their sum in seconds.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.sum as f64 / 1e9
    }

    /// Upper bound in seconds and count of each bucket, not cumulative; the last bound is
    /// infinity, which the encoder writes as `+Inf`.
    #[must_use]
    pub fn buckets(&self) -> Vec<(f64, u64)> {
        let bounds = BOUNDS.iter().map(|micros| *micros as f64 / 1e6).chain([f64::INFINITY]);
        bounds.zip(self.counts).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_lands_in_the_first_bucket_that_is_not_too_short() {
        let mut histogram = Histogram::default();
        for micros in [0, 500, 501, 60_000_000] {
            histogram.observe(Duration::from_micros(micros));
        }
        histogram.observe(Duration::from_nanos(500_001));
        histogram.observe(Duration::from_secs(3600));
        let buckets = histogram.buckets();
        assert_eq!(buckets[0], (0.0005, 2));
        assert_eq!(buckets[1], (0.001, 2));
        assert_eq!(buckets[15], (60.0, 1));
        assert_eq!(buckets[16], (f64::INFINITY, 1));
        assert_eq!(histogram.count(), 6);
        assert!((histogram.seconds() - 3_660.001_501).abs() < 1e-6);
    }

    #[test]
    fn merging_adds() {
        let mut one = Histogram::default();
        one.observe(Duration::from_millis(3));
        let mut two = one.clone();
        two.observe(Duration::from_secs(2));
        two.absorb(&one);
        assert_eq!(two.count(), 3);
        assert!((two.seconds() - 2.006).abs() < 1e-9);
    }
}

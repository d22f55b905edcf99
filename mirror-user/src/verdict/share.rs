//! Shares. In: how many of how many. Out: the interval of 95 % that the true share is in (Wilson, 1927), and how many
//! would have to be counted to decide by a limit. Pure.

use serde::Serialize;

/// The quantile of the normal distribution that leaves 2.5 % on each side.
pub(super) const Z: f64 = 1.959_963_984_540_054;

/// A range of numbers, with both ends.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Interval {
    pub(super) lower: f64,
    pub(super) upper: f64,
}

/// The interval for the share of `count` in `of`, from 0 to 1 where nothing was counted.
pub(super) fn wilson(count: u64, of: u64) -> Interval {
    if of == 0 {
        return Interval { lower: 0.0, upper: 1.0 };
    }
    let (share, n) = (count as f64 / of as f64, of as f64);
    let square = Z * Z;
    let scale = 1.0 + square / n;
    let center = (share + square / (2.0 * n)) / scale;
    let half = Z / scale * (share * (1.0 - share) / n + square / (4.0 * n * n)).sqrt();
    // Exact at the ends, where rounding would leave the interval without the share itself.
    Interval {
        lower: if count == 0 { 0.0 } else { (center - half).max(0.0) },
        upper: if count == of { 1.0 } else { (center + half).min(1.0) },
    }
}

/// How many must be counted until the interval of this share is on one side of the limit; None if it never is. The
/// ends of Wilson's interval are where (share - limit)^2 = z^2 * limit * (1 - limit) / n.
pub(super) fn needed(share: f64, limit: f64) -> Option<u64> {
    let distance = share - limit;
    let needed = Z * Z * limit * (1.0 - limit) / (distance * distance);
    // Further than any cluster counts: the share is the limit, as good as exactly.
    (needed < 1e15).then_some(needed.ceil() as u64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn close(found: f64, expected: f64) -> bool {
        (found - expected).abs() < 5e-6
    }

    #[test]
    fn intervals_are_those_of_textbooks() {
        for (count, of, lower, upper) in [
            // Newcombe (1998), Statistics in Medicine 17, table I, method 3.
            (81, 263, 0.2553, 0.3662),
            (15, 148, 0.0624, 0.1605),
            (0, 20, 0.0, 0.1611),
            (1, 29, 0.0061, 0.1718),
            (10, 100, 0.0552, 0.1744),
        ] {
            let interval = wilson(count, of);
            assert!((interval.lower - lower).abs() < 5e-5, "{count}/{of}: {interval:?}");
            assert!((interval.upper - upper).abs() < 5e-5, "{count}/{of}: {interval:?}");
        }
        assert!(close(wilson(0, 3840).upper, 0.000_999), "{:?}", wilson(0, 3840));
        assert_eq!(wilson(0, 0), Interval { lower: 0.0, upper: 1.0 });
        assert_eq!((wilson(5, 5).upper, wilson(0, 5).lower), (1.0, 0.0));
    }

    #[test]
    fn what_is_needed_is_the_least_that_decides() {
        // z^2 * (1 - 0.001) / 0.001 = 3837.6
        assert_eq!(needed(0.0, 0.001), Some(3838));
        assert!(wilson(0, 3838).upper <= 0.001 && wilson(0, 3837).upper > 0.001);
        assert_eq!(needed(0.01, 0.01), None);
    }

    proptest! {
        #[test]
        fn the_interval_contains_the_share_and_narrows(of in 1_u64..1_000_000, part in 0.0..=1.0) {
            let count = (of as f64 * part) as u64;
            let (one, ten) = (wilson(count, of), wilson(10 * count, 10 * of));
            let share = count as f64 / of as f64;
            prop_assert!(one.lower <= share && share <= one.upper, "{one:?}");
            prop_assert!(ten.upper - ten.lower < one.upper - one.lower, "{one:?} {ten:?}");
            prop_assert!(0.0 <= one.lower && one.upper <= 1.0);
        }

        #[test]
        fn so_many_decide_and_fewer_do_not(count in 0_u64..100, hundreds in 1_u64..100, limit in 0.001..0.5) {
            let of = 100 * hundreds;
            let share = count as f64 / of as f64;
            let Some(needed) = needed(share, limit) else { return Ok(()) };
            // Multiples of `of` have the very same share.
            let enough = needed / of + 1;
            let decides = |times: u64| {
                let interval = wilson(times * count, times * of);
                interval.upper <= limit || interval.lower > limit
            };
            prop_assert!(decides(enough));
            prop_assert!(enough < 3 || !decides(enough - 2));
        }
    }
}

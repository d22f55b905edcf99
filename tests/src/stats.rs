//! Statistics of a few measurements, as the suites print them.

/// The median; of an even number, the mean of the two in the middle.
///
/// # Panics
/// Without a value.
#[must_use]
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    assert!(!values.is_empty(), "nothing was measured");
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { values[middle - 1].midpoint(values[middle]) }
}

/// `met` or `missed`: a goal is reported, not asserted, if it depends on the machine.
#[must_use]
pub fn verdict(value: f64, goal: f64) -> &'static str {
    if value <= goal { "met" } else { "missed" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!((verdict(1.2, 1.2), verdict(1.3, 1.2)), ("met", "missed"));
    }
}

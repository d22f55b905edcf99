//! Durations of the Gateway API (GEP-2257): `1h30m`, `500ms`; up to four numbers of up to five
//! digits, each with h, m, s or ms; at most 99999h59m59s999ms in all.

use std::time::Duration;

/// Parses a duration; None if the text is not one.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let duration: gateway_api::Duration = text.parse().ok()?;
    u64::try_from(duration.as_millis()).ok().map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_gep_and_what_it_forbids() {
        for (text, milliseconds) in [
            ("1h", 3_600_000),
            ("1m", 60_000),
            ("30s", 30_000),
            ("1ms", 1),
            ("10h20m30s40ms", 37_230_040),
            ("0s", 0),
            ("99999h", 359_996_400_000),
            ("1m1m", 120_000),
        ] {
            assert_eq!(duration(text), Some(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in
            ["", "1", "s", "1d", "-1s", "1.5s", "1s ", "100000s", "1h1m1s1ms1s", "1us", "99999h1h"]
        {
            assert_eq!(duration(text), None, "{text}");
        }
    }
}

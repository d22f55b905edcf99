//! Durations of the Gateway API (GEP-2257): `1h30m`, `500ms`; up to four numbers of up to five
//! digits, each with h, m, s or ms.

use std::time::Duration;

/// None when it is no such duration.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text;
    for _ in 0..4 {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if !(1..=5).contains(&digits) {
            return None;
        }
        let (number, after) = rest.split_at(digits);
        let unit = after.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, after) = after.split_at(unit);
        let milliseconds = match unit {
            "h" => 3_600_000,
            "m" => 60_000,
            "s" => 1_000,
            "ms" => 1,
            _ => return None,
        };
        total += Duration::from_millis(number.parse::<u64>().ok()? * milliseconds);
        if after.is_empty() {
            return Some(total);
        }
        rest = after;
    }
    None
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
        ] {
            assert_eq!(duration(text), Some(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "1", "s", "1d", "-1s", "1.5s", "1s ", "100000s", "1h1m1s1ms1s", "1us"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }
}

//! Numbers as people read them.

use std::time::Duration;

/// With three significant digits, and no zeros at the end: `0.0999`, `5.5`, `120`.
pub(super) fn short(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return value.abs().to_string();
    }
    let digits = 2 - value.abs().log10().floor() as i32;
    let text = format!("{value:.*}", usize::try_from(digits.clamp(0, 12)).unwrap_or_default());
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

/// A share in percent, without the sign.
pub(super) fn percent(share: f64) -> String {
    short(share * 100.0)
}

/// With commas: `48,210`.
pub(super) fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Seconds, as milliseconds where they are few.
pub(super) fn seconds(value: f64) -> String {
    if value < 1.0 { format!("{} ms", short(value * 1e3)) } else { format!("{} s", short(value)) }
}

/// A time to wait, in whole seconds.
pub(super) fn duration(value: f64) -> String {
    let value = Duration::try_from_secs_f64(value.round()).unwrap_or_default();
    humantime::format_duration(value).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (value, text) in [
            (0.0, "0"),
            (0.000_999_4, "0.000999"),
            (0.31, "0.31"),
            (5.5, "5.5"),
            (5.516, "5.52"),
            (17.44, "17.4"),
            (99.96, "100"),
            (48_210.4, "48210"),
            (100.0, "100"),
        ] {
            assert_eq!(short(value), text);
        }
        assert_eq!((percent(0.0031), percent(1.0)), ("0.31".into(), "100".into()));
        assert_eq!(
            [0, 999, 1_000, 48_210, 1_234_567].map(count),
            ["0", "999", "1,000", "48,210", "1,234,567"]
        );
        assert_eq!((seconds(0.00121), seconds(2.5)), ("1.21 ms".into(), "2.5 s".into()));
        assert_eq!(duration(300.4), "5m");
    }
}

//! Query strings: finding a parameter and comparing its form-decoded value without a copy.

use std::borrow::Cow;

/// The value, still encoded, of the first parameter called `name`.
pub(super) fn first<'q>(query: &'q str, name: &str) -> Option<&'q str> {
    query
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .find(|(key, _)| equals(key, name))
        .map(|(_, value)| value)
}

/// Whether `encoded` decodes to `plain`.
pub(super) fn equals(encoded: &str, plain: &str) -> bool {
    Decoder(encoded.as_bytes()).eq(plain.bytes())
}

/// The decoded value; borrowed when there is nothing to decode.
pub(super) fn decode(encoded: &str) -> Cow<'_, [u8]> {
    if encoded.bytes().any(|b| matches!(b, b'%' | b'+')) {
        Cow::Owned(Decoder(encoded.as_bytes()).collect())
    } else {
        Cow::Borrowed(encoded.as_bytes())
    }
}

/// Yields the decoded bytes. A `%` that two hexadecimal digits do not follow stands for itself.
struct Decoder<'q>(&'q [u8]);

impl Iterator for Decoder<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        match (byte, rest) {
            (b'+', _) => Some(b' '),
            (b'%', [high, low, rest @ ..]) => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => {
                    self.0 = rest;
                    Some(high << 4 | low)
                }
                _ => Some(byte),
            },
            _ => Some(byte),
        }
    }
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

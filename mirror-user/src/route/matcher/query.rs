//! Query strings: finding a parameter and comparing its form-decoded value without a copy; or all
//! parameters, where many are asked for.

use std::{borrow::Cow, collections::HashMap};

/// The value, still encoded, of the first parameter called `name`.
pub(super) fn first<'q>(query: &'q [u8], name: &str) -> Option<&'q [u8]> {
    Pairs::of(query).find(|(key, _)| equals(key, name)).map(|(_, value)| value)
}

/// The same of all parameters, by their decoded names.
pub(super) fn index(query: &[u8]) -> HashMap<Cow<'_, [u8]>, &[u8]> {
    let mut params = HashMap::new();
    for (key, value) in Pairs::of(query) {
        params.entry(decode(key)).or_insert(value);
    }
    params
}

/// Names and values, still encoded.
pub(in crate::route) struct Pairs<'q>(Option<&'q [u8]>);

impl<'q> Pairs<'q> {
    pub(super) fn of(query: &'q [u8]) -> Self {
        Self(Some(query))
    }
}

impl<'q> Iterator for Pairs<'q> {
    type Item = (&'q [u8], &'q [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let query = self.0?;
        let place = |bytes: &[u8], sign| bytes.iter().position(|byte| *byte == sign);
        let (pair, rest) = match place(query, b'&') {
            Some(at) => (&query[..at], Some(&query[at + 1..])),
            None => (query, None),
        };
        self.0 = rest;
        Some(match place(pair, b'=') {
            Some(at) => (&pair[..at], &pair[at + 1..]),
            None => (pair, &pair[pair.len()..]),
        })
    }
}

/// Whether `encoded` decodes to `plain`.
pub(super) fn equals(encoded: &[u8], plain: &str) -> bool {
    QueryDecoder(encoded).eq(plain.bytes())
}

/// The decoded value; borrowed when there is nothing to decode.
pub(in crate::route) fn decode(encoded: &[u8]) -> Cow<'_, [u8]> {
    if encoded.iter().any(|b| matches!(b, b'%' | b'+')) {
        Cow::Owned(QueryDecoder(encoded).collect())
    } else {
        Cow::Borrowed(encoded)
    }
}

/// Yields the decoded bytes. A `%` that two hexadecimal digits do not follow stands for itself.
struct QueryDecoder<'q>(&'q [u8]);

impl Iterator for QueryDecoder<'_> {
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

//! Fields of a head or of a trailer section, read and written. A field leaves with the spelling
//! that it came with: the `http` crate knows names in lower case, but a value that came from a head
//! lies behind its name there, where it is looked up.

use std::ops::Range;

use bytes::Bytes;
use http::{Extensions, HeaderMap, HeaderName, HeaderValue};

/// The head that a message's fields came from, as it was received.
#[derive(Clone, Debug)]
pub(super) struct Raw(pub(super) Bytes);

impl Raw {
    pub(super) fn of(extensions: &Extensions) -> &[u8] {
        extensions.get::<Self>().map_or(&[], |raw| &raw.0)
    }
}

/// A field's value that the `http` crate does not take, though the parser did.
#[derive(Debug)]
pub(super) struct Unfit;

/// The field at this place of `raw`.
pub(super) fn read(raw: &Bytes, field: &Field) -> Result<(HeaderName, HeaderValue), Unfit> {
    let name = HeaderName::from_bytes(&raw[field.name.range()]).map_err(|_| Unfit)?;
    let value = raw.slice(field.value.range());
    let value = HeaderValue::from_maybe_shared(value).map_err(|_| Unfit)?;
    Ok((name, value))
}

/// Where a field stands in its head: its name, and its value.
#[derive(Clone, Copy, Default)]
pub(super) struct Field {
    pub(super) name: Place,
    pub(super) value: Place,
}

/// From the first byte to the one behind the last. (A head is no longer than 256 KiB.)
#[derive(Clone, Copy, Default)]
pub(super) struct Place {
    pub(super) from: u32,
    pub(super) to: u32,
}

impl Place {
    /// Where `part` lies in `buffer`, which it was parsed from.
    fn of(buffer: &[u8], part: &[u8]) -> Self {
        let from = (part.as_ptr() as usize).wrapping_sub(buffer.as_ptr() as usize) as u32;
        Self { from, to: from + part.len() as u32 }
    }

    pub(super) fn range(self) -> Range<usize> {
        self.from as usize..self.to as usize
    }
}

impl Field {
    /// Where `header` stands in `buffer`, which it was parsed from.
    pub(super) fn locate(buffer: &[u8], header: &httparse::Header<'_>) -> Self {
        Self {
            name: Place::of(buffer, header.name.as_bytes()),
            value: Place::of(buffer, header.value),
        }
    }
}

/// Writes the fields of a message that came as `raw`.
pub(super) fn write(to: &mut Vec<u8>, headers: &HeaderMap, raw: &[u8]) {
    for (name, value) in headers {
        write_one(to, name, value, raw);
    }
}

/// Writes one field of a message that came as `raw`.
pub(super) fn write_one(to: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue, raw: &[u8]) {
    match as_it_came(raw, name, value) {
        Some(field) => {
            to.extend_from_slice(field);
            to.extend_from_slice(b"\r\n");
        }
        None => write_anew(to, name, value, raw),
    }
}

/// Writes a field that did not come with `raw`, though one of its name may have.
pub(super) fn write_anew(to: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue, raw: &[u8]) {
    to.extend_from_slice(spelled(raw, name).unwrap_or(name.as_str().as_bytes()));
    to.extend_from_slice(b": ");
    to.extend_from_slice(value.as_bytes());
    to.extend_from_slice(b"\r\n");
}

/// A field's name and value as they came; None where it did not come with `raw`.
fn as_it_came<'a>(raw: &'a [u8], name: &HeaderName, value: &HeaderValue) -> Option<&'a [u8]> {
    let name = name.as_str().as_bytes();
    if value.is_empty() {
        // It lies nowhere.
        let empty = |line: &&[u8]| line[name.len() + 1..].trim_ascii().is_empty();
        return lines(raw, name).find(empty).map(<[u8]>::trim_ascii_end);
    }
    let at = (value.as_bytes().as_ptr() as usize).wrapping_sub(raw.as_ptr() as usize);
    let before = raw.get(..at)?.trim_ascii_end().strip_suffix(b":")?;
    let start = before.len().checked_sub(name.len())?;
    // No value ever moves to a field of another name.
    debug_assert!(before[start..].eq_ignore_ascii_case(name));
    raw.get(start..at + value.len())
}

/// The name of a field whose value is another than the one that came.
fn spelled<'a>(raw: &'a [u8], name: &HeaderName) -> Option<&'a [u8]> {
    let name = name.as_str().as_bytes();
    lines(raw, name).next().map(|line| &line[..name.len()])
}

/// The lines of the fields of this name.
fn lines<'a>(raw: &'a [u8], name: &[u8]) -> impl Iterator<Item = &'a [u8]> {
    raw.split(|byte| *byte == b'\n').filter(move |line| {
        line.get(name.len()) == Some(&b':') && line[..name.len()].eq_ignore_ascii_case(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(head: &'static str) -> String {
        let raw = Bytes::from_static(head.as_bytes());
        let mut rows = [httparse::EMPTY_HEADER; 16];
        let (_, parsed) = httparse::parse_headers(&raw, &mut rows).unwrap().unwrap();
        let mut headers = HeaderMap::new();
        for header in parsed {
            let (name, value) = read(&raw, &Field::locate(&raw, header)).ok().unwrap();
            headers.append(name, value);
        }
        headers.insert("x-ours", HeaderValue::from_static("1"));
        headers.insert("x-replaced", HeaderValue::from_static("new"));
        let mut out = Vec::new();
        write(&mut out, &headers, &raw);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn fields_leave_as_they_came_and_ours_in_lower_case() {
        let head =
            "hOsT: a\r\nX-EMPTY:\r\nx-tight:b\r\nX-Two: 1\r\nx-TWO:  2 \r\nX-Replaced: old\r\n\r\n";
        let expected = "hOsT: a\r\nX-EMPTY:\r\nx-tight:b\r\nX-Two: 1\r\nx-TWO:  2\r\nX-Replaced: new\r\nx-ours: 1\r\n";
        assert_eq!(round(head), expected);
    }

    #[test]
    fn a_value_from_elsewhere_has_no_spelling() {
        let raw = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec();
        let (name, value) = (http::header::HOST, HeaderValue::from_static("a"));
        assert_eq!(as_it_came(&raw, &name, &value), None);
        assert_eq!(as_it_came(&[], &name, &value), None);
        assert_eq!(as_it_came(&raw, &name, &HeaderValue::from_static("")), None);
    }
}

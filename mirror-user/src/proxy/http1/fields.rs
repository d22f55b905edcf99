//! Fields of a head or of a trailer section, read and written. A field leaves with the spelling
//! that it came with: the `http` crate knows names in lower case, but a value that came from a head
//! lies behind its name there, where it is looked up, whatever else the head has. Only what was set
//! since is looked for in the whole head, and of that there are a few.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use http::{Extensions, HeaderMap, HeaderName, HeaderValue};

use super::repair::RepairedHead;

/// The head that a message's fields came from, as it was received.
#[derive(Clone, Debug)]
pub(super) struct OriginalHead {
    parsed: Bytes,
    repaired: Option<Arc<RepairedHead>>,
}

/// The same, where it is written from.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct HeadSource<'a> {
    /// What values lie in.
    parsed: &'a [u8],
    /// As long, and what leaves: it may have characters that a value cannot have.
    text: &'a [u8],
    /// Lines that are no fields, which leave behind them.
    odd: &'a [u8],
}

impl OriginalHead {
    pub(super) fn new(parsed: Bytes) -> Self {
        Self { parsed, repaired: None }
    }

    pub(super) fn repaired(&mut self, repaired: RepairedHead) {
        debug_assert_eq!(repaired.text.len(), self.parsed.len());
        self.repaired = Some(Arc::new(repaired));
    }

    pub(super) fn of(extensions: &Extensions) -> HeadSource<'_> {
        let Some(Self { parsed, repaired }) = extensions.get() else {
            return HeadSource::default();
        };
        match repaired {
            None => HeadSource::from(&parsed[..]),
            Some(repaired) => HeadSource { parsed, text: &repaired.text, odd: &repaired.odd },
        }
    }
}

impl<'a> From<&'a [u8]> for HeadSource<'a> {
    fn from(raw: &'a [u8]) -> Self {
        Self { parsed: raw, text: raw, odd: &[] }
    }
}

impl HeadSource<'_> {
    /// Of the head.
    pub(super) fn len(self) -> usize {
        self.text.len()
    }
}

/// A field's value that the `http` crate does not take, though the parser did.
#[derive(Debug)]
pub(super) struct InvalidField;

/// The field at this place of `raw`.
pub(super) fn read(raw: &Bytes, field: &Field) -> Result<(HeaderName, HeaderValue), InvalidField> {
    let name = HeaderName::from_bytes(&raw[field.name.range()]).map_err(|_| InvalidField)?;
    let value = raw.slice(field.value.range());
    let value = HeaderValue::from_maybe_shared(value).map_err(|_| InvalidField)?;
    Ok((name, value))
}

/// Where a field stands in its head: its name, and its value.
#[derive(Clone, Copy, Default)]
pub(super) struct Field {
    pub(super) name: ByteRange,
    pub(super) value: ByteRange,
}

/// From the first byte to the one behind the last. (A head is no longer than 256 KiB.)
#[derive(Clone, Copy, Default)]
pub(super) struct ByteRange {
    pub(super) from: u32,
    pub(super) to: u32,
}

impl ByteRange {
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
            name: ByteRange::of(buffer, header.name.as_bytes()),
            value: ByteRange::of(buffer, header.value),
        }
    }
}

/// Writes the fields of a message that came as `raw`, and what stood among them.
pub(super) fn write(to: &mut Vec<u8>, headers: &HeaderMap, raw: HeadSource<'_>) {
    for (name, value) in headers {
        write_one(to, name, value, raw);
    }
    write_odd(to, raw);
}

/// Writes what stood among the fields and is none.
pub(super) fn write_odd(to: &mut Vec<u8>, raw: HeadSource<'_>) {
    to.extend_from_slice(raw.odd);
}

/// Writes one field of a message that came as `raw`.
pub(super) fn write_one(
    to: &mut Vec<u8>,
    name: &HeaderName,
    value: &HeaderValue,
    raw: HeadSource<'_>,
) {
    match as_it_came(raw, name, value) {
        Some(field) => {
            to.extend_from_slice(field);
            to.extend_from_slice(b"\r\n");
        }
        None => write_new(to, name, value, raw),
    }
}

/// Writes a field that did not come with `raw`, though one of its name may have.
pub(super) fn write_new(
    to: &mut Vec<u8>,
    name: &HeaderName,
    value: &HeaderValue,
    raw: HeadSource<'_>,
) {
    to.extend_from_slice(spelled(raw.parsed, name).unwrap_or(name.as_str().as_bytes()));
    to.extend_from_slice(b": ");
    to.extend_from_slice(value.as_bytes());
    to.extend_from_slice(b"\r\n");
}

/// A field's name and value as they came; None where it did not come with `raw`.
fn as_it_came<'a>(
    HeadSource { parsed: raw, text, .. }: HeadSource<'a>,
    name: &HeaderName,
    value: &HeaderValue,
) -> Option<&'a [u8]> {
    let name = name.as_str().as_bytes();
    // An empty one points behind its colon (`Bytes::slice` keeps the place); one from elsewhere may
    // point anywhere.
    let at = (value.as_bytes().as_ptr() as usize).wrapping_sub(raw.as_ptr() as usize);
    let before = raw.get(..at)?.trim_ascii_end().strip_suffix(b":")?;
    let start = before.len().checked_sub(name.len())?;
    if value.is_empty() {
        let came = before[start..].eq_ignore_ascii_case(name);
        return came.then_some(&text[start..=before.len()]);
    }
    // No value ever moves to a field of another name.
    debug_assert!(before[start..].eq_ignore_ascii_case(name));
    text.get(start..at + value.len())
}

/// The name of a field whose value is another than the one that came.
fn spelled<'a>(raw: &'a [u8], name: &HeaderName) -> Option<&'a [u8]> {
    let name = name.as_str().as_bytes();
    let mut from = 0;
    let lines = memchr::memchr_iter(b'\n', raw).map(|end| {
        let line = &raw[from..end];
        from = end + 1;
        line
    });
    let mut lines = lines.filter(|line| {
        line.get(name.len()) == Some(&b':') && line[..name.len()].eq_ignore_ascii_case(name)
    });
    lines.next().map(|line| &line[..name.len()])
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
        write(&mut out, &headers, HeadSource::from(&raw[..]));
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
        let raw = HeadSource::from(&raw[..]);
        assert_eq!(as_it_came(raw, &name, &value), None);
        assert_eq!(as_it_came(HeadSource::default(), &name, &value), None);
        assert_eq!(as_it_came(raw, &name, &HeaderValue::from_static("")), None);
    }

    #[test]
    fn an_empty_value_leaves_as_it_came_whatever_stands_behind_its_colon() {
        let head = "a:\r\nB: \r\na:\t \r\nA:x\r\nb:\r\n\r\n";
        assert_eq!(round(head), "a:\r\na:\r\nA:x\r\nB:\r\nb:\r\nx-ours: 1\r\nx-replaced: new\r\n");
    }
}

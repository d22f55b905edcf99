//! A head's first line, and where its fields stand. In: what was read. Out: places in it, by httparse,
//! without a copy; or what is malformed.

use std::mem::MaybeUninit;

use http::{Method, StatusCode, Version};

use super::{HEAD_LIMIT, HeadError, fields::Field};

/// Longest target of a request, in bytes: what the `http` crate's Uri holds.
pub(super) const TARGET_LIMIT: usize = u16::MAX as usize - 1;

/// As long as the beginning of each status line.
const STATUS: &[u8] = b"HTTP/1.1 200";

/// A request line, and what is known of its head.
pub(super) struct RequestLine {
    /// Of the whole head.
    pub(super) len: usize,
    pub(super) fields: usize,
    pub(super) method: Method,
    pub(super) target: (usize, usize),
    pub(super) version: Version,
}

pub(super) fn locate_request<const N: usize>(
    input: &[u8],
    fields: &mut [Field],
) -> Result<Option<RequestLine>, HeadError> {
    let mut rows = [const { MaybeUninit::uninit() }; N];
    let mut parsed = httparse::Request::new(&mut []);
    let len = match parsed.parse_with_uninit_headers(input, &mut rows) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return Ok(None),
        // So it calls a target that is no UTF-8.
        Err(httparse::Error::Token) => return locate_bytes::<N>(input, fields),
        Err(error) => return Err(syntax(error)),
    };
    let (Some(method), Some(target)) = (parsed.method, parsed.path) else {
        return Err(HeadError::Target);
    };
    if len > HEAD_LIMIT {
        return Err(HeadError::TooLarge);
    }
    if target.len() > TARGET_LIMIT {
        return Err(HeadError::LongTarget);
    }
    let at = target.as_ptr() as usize - input.as_ptr() as usize;
    let line = RequestLine {
        len,
        fields: parsed.headers.len(),
        method: Method::from_bytes(method.as_bytes())
            .map_err(|_| HeadError::Syntax(httparse::Error::Token))?,
        target: (at, at + target.len()),
        version: version(parsed.version),
    };
    for (netns, header) in fields.iter_mut().zip(parsed.headers.iter()) {
        *netns = Field::locate(input, header);
    }
    Ok(Some(line))
}

/// The same for a request line that httparse refuses: its target may be any bytes but whitespace and
/// control characters (RFC 9112, section 3.2), which would leave two readings of the line. More
/// spaces than one part it as well (section 3).
fn locate_bytes<const N: usize>(
    input: &[u8],
    fields: &mut [Field],
) -> Result<Option<RequestLine>, HeadError> {
    const TOKEN: HeadError = HeadError::Syntax(httparse::Error::Token);
    let end = input.iter().position(|byte| *byte == b'\n');
    let line = &input[..end.unwrap_or(input.len())];
    let (method, rest) = part(line).ok_or(TOKEN)?;
    let method = Method::from_bytes(method).map_err(|_| TOKEN)?;
    let (target, rest) = part(rest).unwrap_or((rest, b""));
    // Of a line that is not yet whole the last byte may be a CR.
    if target.is_empty() || target.iter().any(|byte| *byte <= b' ' || *byte == 0x7f) {
        return Err(HeadError::Target);
    }
    if target.len() > TARGET_LIMIT {
        return Err(HeadError::LongTarget);
    }
    let Some(end) = end else { return Ok(None) };
    let version = match rest {
        b"HTTP/1.1" | b"HTTP/1.1\r" => Version::HTTP_11,
        b"HTTP/1.0" | b"HTTP/1.0\r" => Version::HTTP_10,
        _ => return Err(HeadError::Syntax(httparse::Error::Version)),
    };
    let at = target.as_ptr() as usize - input.as_ptr() as usize;
    let target = (at, at + target.len());
    let mut rows = [httparse::EMPTY_HEADER; N];
    match httparse::parse_headers(&input[end + 1..], &mut rows) {
        Ok(httparse::Status::Complete((len, _))) if end + 1 + len > HEAD_LIMIT => {
            Err(HeadError::TooLarge)
        }
        Ok(httparse::Status::Complete((len, headers))) => {
            for (netns, header) in fields.iter_mut().zip(headers) {
                *netns = Field::locate(input, header);
            }
            let (len, fields) = (end + 1 + len, headers.len());
            Ok(Some(RequestLine { len, fields, method, target, version }))
        }
        Ok(httparse::Status::Partial) => Ok(None),
        Err(error) => Err(syntax(error)),
    }
}

/// A word, and what stands behind the spaces that follow it.
fn part(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let (word, rest) = line.split_at(line.iter().position(|byte| *byte == b' ')?);
    let spaces = rest.iter().take_while(|byte| **byte == b' ').count();
    Some((word, &rest[spaces..]))
}

/// A status line, and what is known of its head.
pub(super) struct StatusLine {
    /// Of the whole head.
    pub(super) len: usize,
    pub(super) fields: usize,
    pub(super) status: StatusCode,
    /// Where it stands, if it is not the usual one.
    pub(super) reason: Option<(usize, usize)>,
    pub(super) version: Version,
}

pub(super) fn locate_response<const N: usize>(
    input: &[u8],
    fields: &mut [Field],
) -> Result<Option<StatusLine>, HeadError> {
    let mut rows = [const { MaybeUninit::uninit() }; N];
    let mut parsed = httparse::Response::new(&mut []);
    let Some(len) = parse_response(&mut parsed, input, &mut rows)? else { return Ok(None) };
    let status = status(&parsed)?;
    let line = StatusLine {
        len,
        fields: parsed.headers.len(),
        status,
        reason: (!has_usual_reason(&parsed, status)).then(|| locate_reason(input)),
        version: version(parsed.version),
    };
    for (netns, header) in fields.iter_mut().zip(parsed.headers.iter()) {
        *netns = Field::locate(input, header);
    }
    Ok(Some(line))
}

/// How long the head is; None while it is not whole.
pub(super) fn parse_response<'r, 'i>(
    parsed: &mut httparse::Response<'r, 'i>,
    input: &'i [u8],
    rows: &'r mut [MaybeUninit<httparse::Header<'i>>],
) -> Result<Option<usize>, HeadError> {
    match httparse::ParserConfig::default().parse_response_with_uninit_headers(parsed, input, rows)
    {
        Ok(httparse::Status::Complete(len)) if len > HEAD_LIMIT => Err(HeadError::TooLarge),
        Ok(httparse::Status::Complete(len)) => Ok(Some(len)),
        Ok(httparse::Status::Partial) => Ok(None),
        Err(error) => Err(syntax(error)),
    }
}

pub(super) fn status(parsed: &httparse::Response<'_, '_>) -> Result<StatusCode, HeadError> {
    let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok());
    status.ok_or(HeadError::Syntax(httparse::Error::Status))
}

fn has_usual_reason(parsed: &httparse::Response<'_, '_>, status: StatusCode) -> bool {
    let said = parsed.reason.filter(|reason| !reason.is_empty());
    said.is_some() && said == status.canonical_reason()
}

/// What stands behind the status code: it may be no text, and even the space may be missing.
pub(super) fn locate_reason(input: &[u8]) -> (usize, usize) {
    let start = input.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    let line = input[start..].split(|byte| *byte == b'\n').next().unwrap_or(&[]);
    let end = start + line.strip_suffix(b"\r").unwrap_or(line).len();
    ((start + STATUS.len()).min(end), end)
}

fn syntax(error: httparse::Error) -> HeadError {
    match error {
        httparse::Error::TooManyHeaders => HeadError::TooMany,
        other => HeadError::Syntax(other),
    }
}

pub(super) fn version(minor: Option<u8>) -> Version {
    if minor == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 }
}

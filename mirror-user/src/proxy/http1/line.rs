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
    places: &mut [Field],
) -> Result<Option<RequestLine>, HeadError> {
    let mut rows = [const { MaybeUninit::uninit() }; N];
    let mut parsed = httparse::Request::new(&mut []);
    let len = match parsed.parse_with_uninit_headers(input, &mut rows) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return Ok(None),
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
    for (place, header) in places.iter_mut().zip(parsed.headers.iter()) {
        *place = Field::locate(input, header);
    }
    Ok(Some(line))
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

pub(super) fn locate_answer<const N: usize>(
    input: &[u8],
    places: &mut [Field],
) -> Result<Option<StatusLine>, HeadError> {
    let mut rows = [const { MaybeUninit::uninit() }; N];
    let mut parsed = httparse::Response::new(&mut []);
    let Some(len) = parse_answer(&mut parsed, input, &mut rows)? else { return Ok(None) };
    let status = status(&parsed)?;
    let line = StatusLine {
        len,
        fields: parsed.headers.len(),
        status,
        reason: (!has_usual_reason(&parsed, status)).then(|| locate_reason(input)),
        version: version(parsed.version),
    };
    for (place, header) in places.iter_mut().zip(parsed.headers.iter()) {
        *place = Field::locate(input, header);
    }
    Ok(Some(line))
}

/// How long the head is; None while it is not whole.
pub(super) fn parse_answer<'r, 'i>(
    parsed: &mut httparse::Response<'r, 'i>,
    input: &'i [u8],
    rows: &'r mut [MaybeUninit<httparse::Header<'i>>],
) -> Result<Option<usize>, HeadError> {
    let mut config = httparse::ParserConfig::default();
    config.allow_obsolete_multiline_headers_in_responses(true);
    match config.parse_response_with_uninit_headers(parsed, input, rows) {
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
fn locate_reason(input: &[u8]) -> (usize, usize) {
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

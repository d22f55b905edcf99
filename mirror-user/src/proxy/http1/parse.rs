//! Heads, from bytes. In: what was read. Out: the head in the types of the `http` crate, how its
//! content is framed, and whether the connection outlives the message; or what is malformed.

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode, Uri, Version, header, request, response};

use super::{
    FIELD_LIMIT, HEAD_LIMIT,
    decode::Decoder,
    fields::{self, Field, Raw},
};

/// Longest target of a request, in bytes: what the `http` crate's Uri holds.
const TARGET_LIMIT: usize = u16::MAX as usize - 1;

/// As long as the beginning of each status line.
const STATUS: &[u8] = b"HTTP/1.1 200";

/// Fields that most heads do not exceed.
const FEW: usize = 32;

/// Why a head is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::proxy) enum HeadError {
    #[error("the head is malformed: {0} (RFC 9112, section 2)")]
    Syntax(httparse::Error),
    #[error("the head is larger than 256 KiB")]
    TooLarge,
    #[error("the head has more than 1000 fields")]
    TooMany,
    #[error("the target is longer than 65,534 bytes")]
    LongTarget,
    #[error("the target is none (RFC 9112, section 3.2)")]
    Target,
    #[error("a field's name or value is none (RFC 9110, section 5.5)")]
    Field,
    #[error("Content-Length fields that differ or are no numbers (RFC 9110, section 8.6)")]
    Length,
    #[error("an answer with both Content-Length and Transfer-Encoding (RFC 9112, section 6.3)")]
    Both,
    #[error(
        "a Transfer-Encoding that does not end with \"chunked\", or by HTTP/1.0 (RFC 9112, section 6.1)"
    )]
    Encoding,
}

impl HeadError {
    /// What a client is told.
    pub(in crate::proxy) fn status(self) -> StatusCode {
        match self {
            Self::TooLarge | Self::TooMany => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::LongTarget => StatusCode::URI_TOO_LONG,
            _ => StatusCode::BAD_REQUEST,
        }
    }
}

/// A request's head.
#[derive(Debug)]
pub(super) struct Asking {
    pub(super) head: request::Parts,
    pub(super) content: Decoder,
    /// The client may send another on this connection.
    pub(super) persists: bool,
}

/// An answer's head.
#[derive(Debug)]
pub(super) struct Answering {
    pub(super) head: response::Parts,
    pub(super) content: Decoder,
    /// The server takes another request on this connection.
    pub(super) persists: bool,
}

/// Parses a request's head off the front of `input`; None while it is not whole. `seen` remembers
/// how much was looked at in vain.
pub(super) fn request(input: &mut BytesMut, seen: &mut usize) -> Result<Option<Asking>, HeadError> {
    if !worth_a_try(input, seen) {
        return too_large(input);
    }
    let (mut few, mut many) = ([Field::default(); FEW], Vec::new());
    let (located, places): (_, &[Field]) = match locate_request::<FEW>(input, &mut few) {
        Err(HeadError::TooMany) => {
            many.resize(FIELD_LIMIT, Field::default());
            (locate_request::<FIELD_LIMIT>(input, &mut many), &many)
        }
        located => (located, &few),
    };
    match located? {
        Some(line) => asking(input, line, places).map(Some),
        None => too_large(input),
    }
}

/// Parses an answer's head off the front of `input`, as [`request`] does. `to`: the request's
/// method, which an answer's framing depends on.
pub(super) fn answer(
    input: &mut BytesMut,
    seen: &mut usize,
    to: &Method,
) -> Result<Option<Answering>, HeadError> {
    if !worth_a_try(input, seen) {
        return too_large(input);
    }
    let (mut few, mut many) = ([Field::default(); FEW], Vec::new());
    let (located, places): (_, &mut [Field]) = match locate_answer::<FEW>(input, &mut few) {
        Err(HeadError::TooMany) => {
            many.resize(FIELD_LIMIT, Field::default());
            (locate_answer::<FIELD_LIMIT>(input, &mut many), &mut many)
        }
        located => (located, &mut few),
    };
    match located? {
        Some(line) => answering(input, &line, places, to).map(Some),
        None => too_large(input),
    }
}

/// What an answer is that nobody reads: its head is taken off the front of `input`, as [`answer`]
/// does, and forgotten.
pub(super) fn skim(
    input: &mut BytesMut,
    seen: &mut usize,
    to: &Method,
) -> Result<Option<Skimmed>, HeadError> {
    if !worth_a_try(input, seen) {
        return too_large(input);
    }
    let skimmed = match skim_with::<FEW>(input, to) {
        Err(HeadError::TooMany) => skim_with::<FIELD_LIMIT>(input, to)?,
        skimmed => skimmed?,
    };
    let Some((len, skimmed)) = skimmed else { return too_large(input) };
    input.advance(len);
    Ok(Some(skimmed))
}

/// What is to be known of an answer that nobody reads.
pub(super) struct Skimmed {
    pub(super) interim: bool,
    pub(super) content: Decoder,
    pub(super) persists: bool,
}

fn skim_with<const N: usize>(
    input: &[u8],
    to: &Method,
) -> Result<Option<(usize, Skimmed)>, HeadError> {
    let mut rows = [const { std::mem::MaybeUninit::uninit() }; N];
    let mut parsed = httparse::Response::new(&mut []);
    let Some(len) = parse_answer(&mut parsed, input, &mut rows)? else { return Ok(None) };
    let mut told = Told::default();
    for field in parsed.headers.iter() {
        told.field(field.name.as_bytes(), field.value)?;
    }
    told.settle();
    let status = status(&parsed)?;
    let version = version(parsed.version);
    let interim = status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS;
    let (content, persists) = answer_content(&told, status, version, to)?;
    Ok(Some((len, Skimmed { interim, content, persists })))
}

/// A head that comes byte by byte is parsed at its beginning, where most of what is malformed
/// shows, and at its end; parsing it at each byte would cost the square of its length.
fn worth_a_try(input: &[u8], seen: &mut usize) -> bool {
    let from = seen.saturating_sub(3);
    let first = *seen == 0;
    *seen = input.len();
    let new = &input[from.min(input.len())..];
    first && !new.is_empty()
        || new.windows(2).any(|two| two == b"\n\n")
        || new.windows(3).any(|three| three == b"\n\r\n")
}

fn too_large<T>(input: &[u8]) -> Result<Option<T>, HeadError> {
    if input.len() > HEAD_LIMIT { Err(HeadError::TooLarge) } else { Ok(None) }
}

/// A request line, and what is known of its head.
struct RequestLine {
    /// Of the whole head.
    len: usize,
    fields: usize,
    method: Method,
    target: (usize, usize),
    version: Version,
}

fn locate_request<const N: usize>(
    input: &[u8],
    places: &mut [Field],
) -> Result<Option<RequestLine>, HeadError> {
    let mut rows = [const { std::mem::MaybeUninit::uninit() }; N];
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
struct StatusLine {
    /// Of the whole head.
    len: usize,
    fields: usize,
    status: StatusCode,
    /// Where it stands, if it is not the usual one.
    reason: Option<(usize, usize)>,
    version: Version,
}

fn locate_answer<const N: usize>(
    input: &[u8],
    places: &mut [Field],
) -> Result<Option<StatusLine>, HeadError> {
    let mut rows = [const { std::mem::MaybeUninit::uninit() }; N];
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
fn parse_answer<'r, 'i>(
    parsed: &mut httparse::Response<'r, 'i>,
    input: &'i [u8],
    rows: &'r mut [std::mem::MaybeUninit<httparse::Header<'i>>],
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

fn status(parsed: &httparse::Response<'_, '_>) -> Result<StatusCode, HeadError> {
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

fn version(minor: Option<u8>) -> Version {
    if minor == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 }
}

fn asking(input: &mut BytesMut, line: RequestLine, places: &[Field]) -> Result<Asking, HeadError> {
    let raw = input.split_to(line.len).freeze();
    let target = raw.slice(line.target.0..line.target.1);
    let (mut head, ()) = http::Request::new(()).into_parts();
    head.method = line.method;
    head.uri = Uri::from_maybe_shared(target).map_err(|_| HeadError::Target)?;
    head.version = line.version;
    let told = read_fields(&raw, &places[..line.fields], &mut head.headers)?;
    let content = match told.framing(line.version)? {
        Framing::Chunked => Decoder::chunked(),
        Framing::Length(length) => Decoder::length(length),
        Framing::Neither => Decoder::length(0),
        Framing::Unchunked => return Err(HeadError::Encoding),
    };
    let persists = told.persists(line.version);
    head.extensions.insert(Raw(raw));
    Ok(Asking { head, content, persists })
}

fn answering(
    input: &mut BytesMut,
    line: &StatusLine,
    places: &mut [Field],
    to: &Method,
) -> Result<Answering, HeadError> {
    let mut raw = input.split_to(line.len);
    let places = &mut places[..line.fields];
    places.iter_mut().for_each(|place| unfold(&mut raw, place));
    let raw = raw.freeze();
    let (mut head, ()) = http::Response::new(()).into_parts();
    head.status = line.status;
    head.version = line.version;
    let told = read_fields(&raw, places, &mut head.headers)?;
    let (content, persists) = answer_content(&told, line.status, line.version, to)?;
    if let Some((from, to)) = line.reason {
        head.extensions.insert(Reason(raw.slice(from..to)));
    }
    head.extensions.insert(Raw(raw));
    Ok(Answering { head, content, persists })
}

/// RFC 9112, section 6.3: how an answer's content is framed, and whether the connection outlives it.
fn answer_content(
    told: &Told,
    status: StatusCode,
    version: Version,
    to: &Method,
) -> Result<(Decoder, bool), HeadError> {
    if told.both {
        return Err(HeadError::Both);
    }
    let bodiless = *to == Method::HEAD
        || (*to == Method::CONNECT && status.is_success())
        || status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let content = if bodiless {
        Decoder::length(0)
    } else {
        match told.framing(version)? {
            Framing::Chunked => Decoder::chunked(),
            Framing::Length(length) => Decoder::length(length),
            Framing::Neither | Framing::Unchunked => Decoder::until_close(),
        }
    };
    let persists = told.persists(version) && !content.is_until_close();
    Ok((content, persists))
}

/// What stood behind the status code, where it is not a space and the usual phrase.
#[derive(Clone, Debug)]
pub(super) struct Reason(pub(super) Bytes);

/// RFC 9112, section 5.2: a folded line in an answer is joined by a space.
fn unfold(raw: &mut [u8], place: &mut Field) {
    let value = &mut raw[place.value.range()];
    if !value.contains(&b'\n') {
        return;
    }
    let lines = value.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let joined = lines.collect::<Vec<_>>().join(&b' ');
    value[..joined.len()].copy_from_slice(&joined);
    place.value.to = place.value.from + joined.len() as u32;
}

/// What the fields say of the message and its connection.
#[derive(Default)]
struct Told {
    length: Option<u64>,
    /// Transfer-Encoding is there, and whether it ends with `chunked`.
    encoded: Option<bool>,
    both: bool,
    close: bool,
    keep_alive: bool,
}

enum Framing {
    Chunked,
    Length(u64),
    /// Transfer-Encoding does not end with `chunked`.
    Unchunked,
    Neither,
}

fn read_fields(raw: &Bytes, places: &[Field], headers: &mut HeaderMap) -> Result<Told, HeadError> {
    headers.reserve(places.len());
    let mut told = Told::default();
    for place in places {
        let (name, value) = fields::read(raw, place).map_err(|_| HeadError::Field)?;
        let known = name == header::CONTENT_LENGTH
            || name == header::TRANSFER_ENCODING
            || name == header::CONNECTION;
        if !known || told.field(name.as_str().as_bytes(), value.as_bytes())? {
            headers.append(name, value);
        }
    }
    told.settle();
    if told.both {
        headers.remove(header::CONTENT_LENGTH);
    }
    Ok(told)
}

impl Told {
    /// One more field; false where it goes no further: a length that is said again, and what
    /// concerns this connection alone.
    fn field(&mut self, name: &[u8], value: &[u8]) -> Result<bool, HeadError> {
        if name.eq_ignore_ascii_case(b"content-length") {
            let length = decimal(value).ok_or(HeadError::Length)?;
            match self.length.replace(length) {
                Some(other) if other != length => return Err(HeadError::Length),
                Some(_) => return Ok(false),
                None => {}
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.encoded = Some(ends_chunked(value));
        } else if name.eq_ignore_ascii_case(b"connection") {
            let mut others = false;
            for option in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                let close = option.eq_ignore_ascii_case(b"close");
                let keep_alive = option.eq_ignore_ascii_case(b"keep-alive");
                self.close |= close;
                self.keep_alive |= keep_alive;
                others |= !close && !keep_alive;
            }
            return Ok(others);
        }
        Ok(true)
    }

    /// RFC 9112, section 6.3: the encoding overrides the length, which must not be passed on.
    fn settle(&mut self) {
        self.both = self.encoded.is_some() && self.length.take().is_some();
    }

    fn framing(&self, version: Version) -> Result<Framing, HeadError> {
        match (self.encoded, self.length) {
            (Some(_), _) if version == Version::HTTP_10 => Err(HeadError::Encoding),
            (Some(true), _) => Ok(Framing::Chunked),
            (Some(false), _) => Ok(Framing::Unchunked),
            (None, Some(length)) => Ok(Framing::Length(length)),
            (None, None) => Ok(Framing::Neither),
        }
    }

    /// RFC 9112, sections 6.1 and 9.3.
    fn persists(&self, version: Version) -> bool {
        !self.close && !self.both && (version == Version::HTTP_11 || self.keep_alive)
    }
}

pub(super) fn ends_chunked(value: &[u8]) -> bool {
    let last = value.rsplit(|byte| *byte == b',').next();
    last.is_some_and(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"chunked"))
}

/// Digits alone: neither sign nor space nor list (RFC 9110, section 8.6).
fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests;

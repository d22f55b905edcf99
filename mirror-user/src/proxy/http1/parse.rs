//! Heads, from bytes. In: what was read. Out: the head in the types of the `http` crate, how its
//! content is framed, and whether the connection outlives the message; or what is malformed.

use std::mem::MaybeUninit;

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header, request, response};

use super::{
    FIELD_LIMIT, HEAD_LIMIT,
    decode::BodyDecoder,
    encode_head::{ConnectionClose, Persistence},
    fields::{self, Field, OriginalHead},
    framing::{Framing, FramingHeaders, response_content},
    line::{
        RequestLine, StatusLine, locate_reason, locate_request, locate_response, parse_response,
        status, version,
    },
    raw_head::RawHeadCandidate,
    repair,
};
use crate::{memory::MemoryExceeded, route::target};

/// Fields that most heads do not exceed.
const FEW: usize = 32;

/// Blank lines before a response, at most, in bytes.
const BLANK_LIMIT: usize = 1024;

/// Why a head is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::proxy) enum HeadError {
    #[error("the head is malformed: {0} (RFC 9112, section 2)")]
    Syntax(httparse::Error),
    #[error("the head is larger than 256 KiB")]
    TooLarge,
    #[error("the head has more than 1000 fields, or options of Connection")]
    TooMany,
    #[error("no memory for the head: {0}")]
    Memory(#[from] MemoryExceeded),
    #[error("the request target is longer than 65,534 bytes")]
    LongTarget,
    #[error("invalid request target (RFC 9112, section 3.2)")]
    Target,
    #[error("a field's name or value is none (RFC 9110, section 5.5)")]
    Field,
    #[error("Content-Length fields that differ or are no numbers (RFC 9110, section 8.6)")]
    Length,
    #[error(
        "a Transfer-Encoding that does not end with \"chunked\", or by HTTP/1.0 (RFC 9112, section 6.1)"
    )]
    Encoding,
}

impl HeadError {
    /// What a client is told.
    pub(in crate::proxy) fn status(self) -> StatusCode {
        match self {
            Self::TooLarge | Self::TooMany | Self::Memory(_) => {
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
            }
            Self::LongTarget => StatusCode::URI_TOO_LONG,
            _ => StatusCode::BAD_REQUEST,
        }
    }
}

/// A request's head.
#[derive(Debug)]
pub(super) struct ParsedRequest {
    /// Boxed, because it is handed from stage to stage.
    pub(super) head: Box<request::Parts>,
    pub(super) content: BodyDecoder,
    /// The client may send another on this connection.
    pub(super) persists: bool,
    /// It has a length as well as an encoding, which overrides it.
    pub(super) both: bool,
}

/// A response's head.
#[derive(Debug)]
pub(super) struct ParsedResponse {
    pub(super) head: response::Parts,
    pub(super) content: BodyDecoder,
    /// The server takes another request on this connection.
    pub(super) persists: bool,
}

/// Parses a request's head off the front of `input`; None while it is not whole. `seen` remembers
/// how much was looked at in vain.
pub(super) fn request(
    input: &mut BytesMut,
    seen: &mut usize,
) -> Result<Option<ParsedRequest>, HeadError> {
    match unrepaired_request(input, seen) {
        Err(
            error @ HeadError::Syntax(httparse::Error::HeaderName | httparse::Error::HeaderValue),
        ) => repaired_request(input, error),
        parsed => parsed,
    }
}

/// As [`request`], of what reaches its server as it came: a head that is not well-formed may be read
/// otherwise there, and is refused.
pub(super) fn unambiguous_request(
    input: &mut BytesMut,
    seen: &mut usize,
) -> Result<Option<ParsedRequest>, HeadError> {
    match unrepaired_request(input, seen) {
        Ok(Some(parsed)) if parsed.both => Err(HeadError::Encoding),
        parsed => parsed,
    }
}

/// As [`request`], without a second look at what is not well-formed.
fn unrepaired_request(
    input: &mut BytesMut,
    seen: &mut usize,
) -> Result<Option<ParsedRequest>, HeadError> {
    skip_empty_lines(input, seen);
    if !worth_a_try(input, seen) {
        return too_large(input);
    }
    match well_formed_request(input)? {
        None => too_large(input),
        parsed => Ok(parsed),
    }
}

/// The head that `input` begins with; None while it is not whole.
fn well_formed_request(input: &mut BytesMut) -> Result<Option<ParsedRequest>, HeadError> {
    let (mut few, mut many) = ([Field::default(); FEW], Vec::new());
    let (located, fields): (_, &[Field]) = match locate_request::<FEW>(input, &mut few) {
        Err(HeadError::TooMany) => {
            many.resize(FIELD_LIMIT, Field::default());
            (locate_request::<FIELD_LIMIT>(input, &mut many), &many)
        }
        located => (located, &few),
    };
    let Some(line) = located? else { return Ok(None) };
    let raw = input.split_to(line.len).freeze();
    match parsed_request(&raw, line, fields) {
        Ok(mut parsed_request) => {
            parsed_request.head.extensions.insert(OriginalHead::new(raw));
            Ok(Some(parsed_request))
        }
        Err(error) => {
            // Whoever tells of it looks at it again.
            let behind = std::mem::replace(input, BytesMut::from(&raw[..]));
            input.unsplit(behind);
            Err(error)
        }
    }
}

/// As [`request`], of a head that is not well-formed.
fn repaired_request(
    input: &mut BytesMut,
    error: HeadError,
) -> Result<Option<ParsedRequest>, HeadError> {
    let Some(repaired) = repair::request(input).map_err(|repair::NotRepairable| error)? else {
        return too_large(input);
    };
    if repaired.len > HEAD_LIMIT {
        return Err(HeadError::TooLarge);
    }
    let mut parsed = BytesMut::from(&repaired.parsed[..]);
    let mut parsed_request = well_formed_request(&mut parsed)?.ok_or(error)?;
    input.advance(repaired.len);
    if let Some(raw) = parsed_request.head.extensions.get_mut::<OriginalHead>() {
        raw.repaired(repaired);
    }
    Ok(Some(parsed_request))
}

/// Parses a response's head off the front of `input`, as [`request`] does. `to`: the request's
/// method, which a response's framing depends on. `unread`: nobody wants its fields, so that it may
/// pass as it came (see [`RawHead`](super::raw_head::RawHead)).
pub(super) fn response(
    input: &mut BytesMut,
    seen: &mut usize,
    to: &Method,
    unread: bool,
) -> Result<Option<ParsedResponse>, HeadError> {
    if !blank_lines(input)? || !worth_a_try(input, seen) {
        return too_large(input);
    }
    match well_formed(input, to, unread) {
        Err(error @ HeadError::Syntax(_)) => repaired(input, to, error),
        Ok(None) => too_large(input),
        parsed => parsed,
    }
}

/// As [`response`], without a second look at what is not well-formed.
fn well_formed(
    input: &mut BytesMut,
    to: &Method,
    unread: bool,
) -> Result<Option<ParsedResponse>, HeadError> {
    let (mut few, mut many) = ([Field::default(); FEW], Vec::new());
    let (located, fields): (_, &[Field]) = match locate_response::<FEW>(input, &mut few) {
        Err(HeadError::TooMany) => {
            many.resize(FIELD_LIMIT, Field::default());
            (locate_response::<FIELD_LIMIT>(input, &mut many), &many)
        }
        located => (located, &few),
    };
    let Some(line) = located? else { return Ok(None) };
    let fields = &fields[..line.fields];
    let candidate = if unread { RawHeadCandidate::find(input, &line, fields, to)? } else { None };
    match candidate {
        Some(candidate) => Ok(Some(raw_response(input, &line, candidate))),
        None => parsed_response(input, &line, fields, to).map(Some),
    }
}

/// As [`response`], of a head that is not well-formed: its fields are read in any case.
fn repaired(
    input: &mut BytesMut,
    to: &Method,
    error: HeadError,
) -> Result<Option<ParsedResponse>, HeadError> {
    let Some(repaired) = repair::response(input).map_err(|repair::NotRepairable| error)? else {
        return too_large(input);
    };
    if repaired.len > HEAD_LIMIT {
        return Err(HeadError::TooLarge);
    }
    let mut parsed = BytesMut::from(&repaired.parsed[..]);
    let mut parsed_response = well_formed(&mut parsed, to, false)?.ok_or(error)?;
    input.advance(repaired.len);
    let extensions = &mut parsed_response.head.extensions;
    if let Some(reason) = extensions.get_mut::<ReasonPhrase>() {
        let (from, to) = locate_reason(&repaired.text);
        reason.0 = Bytes::copy_from_slice(&repaired.text[from..to]);
    }
    if let Some(raw) = extensions.get_mut::<OriginalHead>() {
        raw.repaired(repaired);
    }
    Ok(Some(parsed_response))
}

/// What a response is that nobody reads: its head is taken off the front of `input`, as [`response`]
/// does, and forgotten.
pub(super) fn parse_summary(
    input: &mut BytesMut,
    seen: &mut usize,
    to: &Method,
) -> Result<Option<ResponseSummary>, HeadError> {
    if !blank_lines(input)? || !worth_a_try(input, seen) {
        return too_large(input);
    }
    let summary = match parse_summary_any(input, to) {
        Err(error @ HeadError::Syntax(_)) => match repair::response(input).map_err(|_| error)? {
            Some(repaired) => {
                parse_summary_any(&repaired.parsed, to)?.map(|(_, summary)| (repaired.len, summary))
            }
            None => None,
        },
        summary => summary?,
    };
    let Some((len, summary)) = summary else { return too_large(input) };
    input.advance(len);
    Ok(Some(summary))
}

/// What is to be known of a response that nobody reads.
pub(super) struct ResponseSummary {
    pub(super) status: u16,
    pub(super) interim: bool,
    pub(super) content: BodyDecoder,
    pub(super) persists: bool,
}

fn parse_summary_any(
    input: &[u8],
    to: &Method,
) -> Result<Option<(usize, ResponseSummary)>, HeadError> {
    match parse_summary_with::<FEW>(input, to) {
        Err(HeadError::TooMany) => parse_summary_with::<FIELD_LIMIT>(input, to),
        summary => summary,
    }
}

fn parse_summary_with<const N: usize>(
    input: &[u8],
    to: &Method,
) -> Result<Option<(usize, ResponseSummary)>, HeadError> {
    let mut rows = [const { MaybeUninit::uninit() }; N];
    let mut parsed = httparse::Response::new(&mut []);
    let Some(len) = parse_response(&mut parsed, input, &mut rows)? else { return Ok(None) };
    let mut framing_headers = FramingHeaders::response();
    for field in parsed.headers.iter() {
        framing_headers.field(field.name.as_bytes(), field.value)?;
    }
    framing_headers.settle();
    let status = status(&parsed)?;
    let version = version(parsed.version);
    let interim = status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS;
    let (content, persists) = response_content(&framing_headers, status, version, to)?;
    Ok(Some((len, ResponseSummary { status: status.as_u16(), interim, content, persists })))
}

/// RFC 9112, section 2.2. Left to the parser, a client that sends nothing else would have all of
/// them looked at again with each.
fn skip_empty_lines(input: &mut BytesMut, seen: &mut usize) {
    while let [b'\r', b'\n', ..] | [b'\n', ..] = input[..] {
        input.advance(if input[0] == b'\r' { 2 } else { 1 });
        *seen = 0;
    }
}

/// Whether more than blank lines are there, which some servers send before a response. They stay, since
/// what turns out to be no response passes as it came, and would be looked at again with each.
fn blank_lines(input: &[u8]) -> Result<bool, HeadError> {
    let begun = &input[..input.len().min(BLANK_LIMIT)];
    let blank = begun.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    match blank {
        BLANK_LIMIT => Err(HeadError::Syntax(httparse::Error::Status)),
        _ => Ok(input.is_empty() || blank < input.len()),
    }
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

fn parsed_request(
    raw: &Bytes,
    line: RequestLine,
    fields: &[Field],
) -> Result<ParsedRequest, HeadError> {
    let (mut head, ()) = http::Request::new(()).into_parts();
    head.method = line.method;
    target::set(&mut head, raw, line.target.0..line.target.1).map_err(|_| HeadError::Target)?;
    head.version = line.version;
    let framing_headers = FramingHeaders::default();
    let framing_headers =
        read_fields(raw, &fields[..line.fields], framing_headers, &mut head.headers)?;
    let content = match framing_headers.framing(line.version)? {
        Framing::Chunked => BodyDecoder::chunked(),
        Framing::Length(length) => BodyDecoder::length(length),
        Framing::Neither => BodyDecoder::length(0),
        Framing::Unchunked => return Err(HeadError::Encoding),
    };
    let persists = framing_headers.persists(line.version);
    if framing_headers.closes() {
        head.extensions.insert(Persistence::Close);
    } else if persists && line.version == Version::HTTP_10 {
        head.extensions.insert(Persistence::KeepAlive);
    }
    let both = framing_headers.both;
    Ok(ParsedRequest { head: Box::new(head), content, persists, both })
}

fn raw_response(
    input: &mut BytesMut,
    line: &StatusLine,
    candidate: RawHeadCandidate,
) -> ParsedResponse {
    let raw = input.split_to(line.len).freeze();
    let (mut head, ()) = http::Response::new(()).into_parts();
    head.status = line.status;
    head.extensions.insert(candidate.pass(raw));
    ParsedResponse { head, content: candidate.content, persists: candidate.persists }
}

fn parsed_response(
    input: &mut BytesMut,
    line: &StatusLine,
    fields: &[Field],
    to: &Method,
) -> Result<ParsedResponse, HeadError> {
    let raw = input.split_to(line.len).freeze();
    let (mut head, ()) = http::Response::new(()).into_parts();
    head.status = line.status;
    head.version = line.version;
    let framing_headers = read_fields(&raw, fields, FramingHeaders::response(), &mut head.headers);
    let framed = framing_headers.and_then(|framing_headers| {
        if framing_headers.closes() {
            head.extensions.insert(ConnectionClose);
        }
        response_content(&framing_headers, line.status, line.version, to)
    });
    let (content, persists) = match framed {
        Ok(framed) => framed,
        Err(error) => {
            // It stays unread.
            let rest = std::mem::replace(input, BytesMut::from(&raw[..]));
            input.extend_from_slice(&rest);
            return Err(error);
        }
    };
    if let Some((from, to)) = line.reason {
        head.extensions.insert(ReasonPhrase(raw.slice(from..to)));
    }
    head.extensions.insert(OriginalHead::new(raw));
    Ok(ParsedResponse { head, content, persists })
}

/// What stood behind the status code, where it is not a space and the usual phrase.
#[derive(Clone, Debug)]
pub(super) struct ReasonPhrase(pub(super) Bytes);

fn read_fields(
    raw: &Bytes,
    fields: &[Field],
    mut framing_headers: FramingHeaders,
    headers: &mut HeaderMap,
) -> Result<FramingHeaders, HeadError> {
    headers.reserve(fields.len());
    for netns in fields {
        let (name, value) = fields::read(raw, netns).map_err(|_| HeadError::Field)?;
        let known = name == header::CONTENT_LENGTH
            || name == header::TRANSFER_ENCODING
            || name == header::CONNECTION;
        if !known || framing_headers.field(name.as_str().as_bytes(), value.as_bytes())? {
            headers.append(name, value);
        }
    }
    framing_headers.settle();
    if framing_headers.both {
        headers.remove(header::CONTENT_LENGTH);
    } else if let Some(length) = framing_headers.length().filter(|_| framing_headers.listed) {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    Ok(framing_headers)
}

#[cfg(test)]
mod tests;

//! Heads, from bytes. In: what was read. Out: the head in the types of the `http` crate, how its
//! content is framed, and whether the connection outlives the message; or what is malformed.

use std::mem::MaybeUninit;

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode, Uri, header, request, response};

use super::{
    FIELD_LIMIT, HEAD_LIMIT,
    decode::Decoder,
    fields::{self, Field, Raw},
    line::{RequestLine, StatusLine, locate_answer, locate_request, parse_answer, status, version},
    passing::Passable,
    told::{Framing, Told, answer_content},
};

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
    skip_empty_lines(input, seen);
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
/// method, which an answer's framing depends on. `unread`: nobody wants its fields, so that it may
/// pass as it came (see [`Passing`](super::passing::Passing)).
pub(super) fn answer(
    input: &mut BytesMut,
    seen: &mut usize,
    to: &Method,
    unread: bool,
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
        Some(line) => {
            let fields = &mut places[..line.fields];
            let passable = if unread { Passable::find(input, &line, fields, to)? } else { None };
            match passable {
                Some(passable) => Ok(Some(passing(input, &line, passable))),
                None => answering(input, &line, fields, to).map(Some),
            }
        }
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
    let mut rows = [const { MaybeUninit::uninit() }; N];
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

/// RFC 9112, section 2.2. Left to the parser, a client that sends nothing else would have all of
/// them looked at again with each.
fn skip_empty_lines(input: &mut BytesMut, seen: &mut usize) {
    while let [b'\r', b'\n', ..] | [b'\n', ..] = input[..] {
        input.advance(if input[0] == b'\r' { 2 } else { 1 });
        *seen = 0;
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

fn passing(input: &mut BytesMut, line: &StatusLine, passable: Passable) -> Answering {
    let raw = input.split_to(line.len).freeze();
    let (mut head, ()) = http::Response::new(()).into_parts();
    head.status = line.status;
    head.extensions.insert(passable.pass(raw));
    Answering { head, content: passable.content, persists: passable.persists }
}

fn answering(
    input: &mut BytesMut,
    line: &StatusLine,
    places: &mut [Field],
    to: &Method,
) -> Result<Answering, HeadError> {
    let mut raw = input.split_to(line.len);
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

#[cfg(test)]
mod tests;

//! Chunked content (RFC 9112, section 7.1), decoded as it comes. In: what was read. Out: the
//! chunks' data without a copy, then trailers; or what is malformed. Lines end with CR LF and
//! nothing else: a recipient that took a bare LF would see another message than the next one.

use bytes::{Bytes, BytesMut};
use http::HeaderMap;

use super::{
    Error,
    fields::{self, Field},
};

/// Longest line of a chunk's size with its extensions, in bytes.
const LINE_LIMIT: usize = 4 * 1024;

/// Bytes of extensions in one message, at most: they mean nothing to anybody.
const EXTENSIONS_LIMIT: usize = 16 * 1024;

/// Largest trailer section, in bytes.
const TRAILERS_LIMIT: usize = 16 * 1024;

/// Most fields of a trailer section.
const TRAILER_FIELDS: usize = 100;

/// What comes next.
#[derive(Debug)]
pub(super) enum Step {
    /// More has to be read.
    More,
    Data(Bytes),
    Trailers(HeaderMap),
    End,
}

/// Where the decoding stands.
#[derive(Debug)]
pub(super) struct Chunked {
    at: At,
    /// Bytes of extensions so far.
    extensions: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Size,
    /// So much is left of a chunk.
    Data(u64),
    /// The line's end behind a chunk.
    DataEnd,
    Trailers,
    End,
}

impl Chunked {
    pub(super) fn new() -> Self {
        Self { at: At::Size, extensions: 0 }
    }

    pub(super) fn is_done(&self) -> bool {
        self.at == At::End
    }

    /// Takes the next piece off the front of `input`.
    ///
    /// # Errors
    /// [`Error::Chunk`].
    pub(super) fn decode(&mut self, input: &mut BytesMut) -> Result<Step, Error> {
        loop {
            match self.at {
                At::Size => {
                    let Some(line) = self.take_size(input)? else { return Ok(Step::More) };
                    self.at = if line == 0 { At::Trailers } else { At::Data(line) };
                }
                At::Data(left) => {
                    if input.is_empty() {
                        return Ok(Step::More);
                    }
                    let taken = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
                    let left = left - taken as u64;
                    self.at = if left == 0 { At::DataEnd } else { At::Data(left) };
                    return Ok(Step::Data(input.split_to(taken).freeze()));
                }
                At::DataEnd => match &input[..] {
                    [b'\r', b'\n', ..] => {
                        let _ = input.split_to(2);
                        self.at = At::Size;
                    }
                    [] | [b'\r'] => return Ok(Step::More),
                    _ => return Err(Error::Chunk("a chunk is longer than its size")),
                },
                At::Trailers => return self.take_trailers(input),
                At::End => return Ok(Step::End),
            }
        }
    }

    fn take_size(&mut self, input: &mut BytesMut) -> Result<Option<u64>, Error> {
        let looked_at = &input[..input.len().min(LINE_LIMIT)];
        let end = looked_at.iter().position(|byte| *byte == b'\n');
        let line = &looked_at[..end.unwrap_or(looked_at.len())];
        let (size, extensions) = parse_size(line, end.is_some())?;
        let Some(end) = end else {
            let long = input.len() >= LINE_LIMIT;
            return if long { Err(Error::Chunk("a long extension")) } else { Ok(None) };
        };
        self.extensions += extensions;
        if self.extensions > EXTENSIONS_LIMIT {
            return Err(Error::Chunk("many extensions"));
        }
        let _ = input.split_to(end + 1);
        Ok(Some(size))
    }

    fn take_trailers(&mut self, input: &mut BytesMut) -> Result<Step, Error> {
        match &input[..] {
            [b'\r', b'\n', ..] => {
                let _ = input.split_to(2);
                self.at = At::End;
                return Ok(Step::End);
            }
            [] | [b'\r'] => return Ok(Step::More),
            _ => {}
        }
        let mut places = [Field::default(); TRAILER_FIELDS];
        let Some((len, count)) = locate_trailers(input, &mut places)? else {
            return Ok(Step::More);
        };
        let raw = input.split_to(len).freeze();
        self.at = At::End;
        let mut trailers = HeaderMap::with_capacity(count);
        for place in &places[..count] {
            let (name, value) =
                fields::read(&raw, place).map_err(|_| Error::Chunk("a trailer field is none"))?;
            trailers.append(name, value);
        }
        Ok(Step::Trailers(trailers))
    }
}

/// The size, and how long the extensions are. A line that is not yet whole is looked at as well, so
/// that what is no chunk is refused at once.
fn parse_size(line: &[u8], whole: bool) -> Result<(u64, usize), Error> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (number, rest) = line.split_at(digits);
    if digits > 16 || (digits == 0 && (whole || !rest.is_empty())) {
        return Err(Error::Chunk("a chunk's size is none"));
    }
    let size = number.iter().fold(0_u64, |size, digit| {
        size << 4 | u64::from(char::from(*digit).to_digit(16).unwrap_or(0))
    });
    let extension = if whole {
        let rest = rest.strip_suffix(b"\r").ok_or(Error::Chunk("a line ends without CR"))?;
        if rest.contains(&b'\r') {
            return Err(Error::Chunk("a bare CR"));
        }
        rest
    } else {
        rest.strip_suffix(b"\r").unwrap_or(rest)
    };
    match extension.trim_ascii_start() {
        [] | [b';', ..] => Ok((size, extension.len())),
        _ => Err(Error::Chunk("a chunk's size is none")),
    }
}

/// How long the section is, and how many fields it has; None while it is not whole.
fn locate_trailers(input: &[u8], places: &mut [Field]) -> Result<Option<(usize, usize)>, Error> {
    let mut rows = [httparse::EMPTY_HEADER; TRAILER_FIELDS];
    match httparse::parse_headers(input, &mut rows) {
        Ok(httparse::Status::Complete((len, parsed))) => {
            for (place, header) in places.iter_mut().zip(parsed.iter()) {
                *place = Field::locate(input, header);
            }
            Ok(Some((len, parsed.len())))
        }
        Ok(httparse::Status::Partial) if input.len() > TRAILERS_LIMIT => {
            Err(Error::Chunk("a large trailer section"))
        }
        Ok(httparse::Status::Partial) => Ok(None),
        Err(httparse::Error::TooManyHeaders) => Err(Error::Chunk("many trailer fields")),
        Err(_) => Err(Error::Chunk("a trailer field is none")),
    }
}

#[cfg(test)]
mod tests;

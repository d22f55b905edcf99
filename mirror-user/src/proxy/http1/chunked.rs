//! Chunked content (RFC 9112, section 7.1), decoded as it comes. In: what was read. Out: the
//! chunks' data without a copy, then trailers; or what is malformed. A request's lines end with CR LF
//! and nothing else: a recipient that took a bare LF would see another message than the next one.
//! Of a response, which nobody reads but its client, what clients take is taken.

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;

use super::{
    Error,
    fields::{self, Field},
    repair,
};

/// Longest line of a chunk's size with its extensions, in bytes.
const LINE_LIMIT: usize = 4 * 1024;

/// Bytes of extensions in one message, at most: they mean nothing to anybody.
const EXTENSIONS_LIMIT: usize = 16 * 1024;

/// Largest trailer section, in bytes.
const TRAILERS_LIMIT: usize = 16 * 1024;

/// Most fields of a trailer section.
const TRAILER_FIELDS: usize = 100;

/// Chunks that are some work: 10 to 20 µs.
const STEPS: u32 = 64;

/// Of a size that is not yet whole, so much is looked at each time, so that what is none is refused at
/// once.
const SIZE_SEEN: usize = 64;

/// What comes next.
#[derive(Debug)]
pub(super) enum ChunkStep {
    /// More has to be read.
    More,
    Data(Bytes),
    Trailers(HeaderMap),
    End,
}

/// What is at the front: so many bytes of data, or something else.
enum Next {
    Data(usize),
    Other(ChunkStep),
}

/// Where the decoding stands.
#[derive(Debug)]
pub(super) struct Chunked {
    state: ChunkState,
    /// Bytes of extensions so far.
    extensions: usize,
    /// A size may end with LF alone, and trailers may be malformed.
    lenient: bool,
    /// How much was looked at in vain of a size or a trailer section, so that what comes byte by byte
    /// is not looked at again with each.
    seen: usize,
    /// Chunks since the last [`Chunked::take_steps`].
    steps: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ChunkState {
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
        Self { state: ChunkState::Size, extensions: 0, lenient: false, seen: 0, steps: 0 }
    }

    /// Of a response: at least three of curl, Python, Go, Java and Node take each of a bare LF behind
    /// a size, and trailers with whitespace before a colon, with odd names or control characters.
    pub(super) fn of_response() -> Self {
        Self { lenient: true, ..Self::new() }
    }

    pub(super) fn is_done(&self) -> bool {
        self.state == ChunkState::End
    }

    /// Whether so many chunks were decoded that it was some work, though not much was read; they are
    /// counted from 0 again.
    pub(super) fn take_steps(&mut self) -> bool {
        let many = self.steps >= STEPS;
        if many {
            self.steps = 0;
        }
        many
    }

    /// Takes the next piece off the front of `input`.
    ///
    /// # Errors
    /// [`Error::Chunk`].
    pub(super) fn decode(&mut self, input: &mut BytesMut) -> Result<ChunkStep, Error> {
        match self.take_data(input)? {
            Next::Data(taken) => Ok(ChunkStep::Data(input.split_to(taken).freeze())),
            Next::Other(step) => Ok(step),
        }
    }

    /// Passes over the next piece at the front of `input`: as [`Chunked::decode`], and its data is let go of.
    ///
    /// # Errors
    /// [`Error::Chunk`].
    pub(super) fn discard(&mut self, input: &mut BytesMut) -> Result<Option<ChunkStep>, Error> {
        match self.take_data(input)? {
            Next::Data(taken) => {
                input.advance(taken);
                Ok(None)
            }
            Next::Other(step) => Ok(Some(step)),
        }
    }

    /// How much of the next data is at the front of `input`, which counts as taken; or what comes instead.
    fn take_data(&mut self, input: &mut BytesMut) -> Result<Next, Error> {
        loop {
            match self.state {
                ChunkState::Size => {
                    let Some(line) = self.take_size(input)? else {
                        return Ok(Next::Other(ChunkStep::More));
                    };
                    self.state =
                        if line == 0 { ChunkState::Trailers } else { ChunkState::Data(line) };
                }
                ChunkState::Data(left) => {
                    if input.is_empty() {
                        return Ok(Next::Other(ChunkStep::More));
                    }
                    let taken = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
                    let left = left - taken as u64;
                    self.state =
                        if left == 0 { ChunkState::DataEnd } else { ChunkState::Data(left) };
                    return Ok(Next::Data(taken));
                }
                ChunkState::DataEnd => match &input[..] {
                    [b'\r', b'\n', ..] => {
                        input.advance(2);
                        self.state = ChunkState::Size;
                    }
                    [] | [b'\r'] => return Ok(Next::Other(ChunkStep::More)),
                    _ => return Err(Error::Chunk("a chunk is longer than its size")),
                },
                ChunkState::Trailers => return self.take_trailers(input).map(Next::Other),
                ChunkState::End => return Ok(Next::Other(ChunkStep::End)),
            }
        }
    }

    fn take_size(&mut self, input: &mut BytesMut) -> Result<Option<u64>, Error> {
        let looked_at = &input[..input.len().min(LINE_LIMIT)];
        let seen = self.seen.min(looked_at.len());
        let Some(end) = looked_at[seen..].iter().position(|byte| *byte == b'\n') else {
            if looked_at.len() == LINE_LIMIT {
                return Err(Error::Chunk("a long extension"));
            }
            self.seen = looked_at.len();
            parse_size(&looked_at[..looked_at.len().min(SIZE_SEEN)], false, self.lenient)?;
            return Ok(None);
        };
        let end = seen + end;
        self.seen = 0;
        self.steps += 1;
        let (size, extensions) = parse_size(&looked_at[..end], true, self.lenient)?;
        self.extensions += extensions;
        if self.extensions > EXTENSIONS_LIMIT {
            return Err(Error::Chunk("many extensions"));
        }
        input.advance(end + 1);
        Ok(Some(size))
    }

    /// Whether a trailer section is to be parsed: at its beginning, where most of what is malformed
    /// shows, and at its end.
    fn is_worth_a_try(&mut self, input: &[u8]) -> bool {
        let new = &input[self.seen.saturating_sub(2).min(input.len())..];
        let first = self.seen == 0;
        self.seen = input.len();
        first
            || new.windows(2).any(|two| two == b"\n\n")
            || new.windows(3).any(|three| three == b"\n\r\n")
    }

    fn take_trailers(&mut self, input: &mut BytesMut) -> Result<ChunkStep, Error> {
        match &input[..] {
            [b'\r', b'\n', ..] => {
                let _ = input.split_to(2);
                self.state = ChunkState::End;
                return Ok(ChunkStep::End);
            }
            [] | [b'\r'] => return Ok(ChunkStep::More),
            _ if !self.is_worth_a_try(input) => {
                let large = input.len() > TRAILERS_LIMIT;
                return if large { Err(LARGE_TRAILERS) } else { Ok(ChunkStep::More) };
            }
            _ => {}
        }
        let mut fields = [Field::default(); TRAILER_FIELDS];
        let (raw, count) = match locate_trailers(input, &mut fields) {
            Ok(None) => return Ok(ChunkStep::More),
            Ok(Some((len, count))) => (input.split_to(len).freeze(), count),
            Err(_) if self.lenient && input.len() <= TRAILERS_LIMIT => {
                let Some((text, len)) = repair::trailers(input) else { return Ok(ChunkStep::More) };
                let (_, count) = locate_trailers(&text, &mut fields)?.unwrap_or_default();
                let _ = input.split_to(len);
                (Bytes::from(text), count)
            }
            Err(error) => return Err(error),
        };
        if !self.lenient && has_bare_lf(&raw) {
            return Err(Error::Chunk("a line ends without CR"));
        }
        self.state = ChunkState::End;
        if count == 0 {
            return Ok(ChunkStep::End);
        }
        let mut trailers = HeaderMap::with_capacity(count);
        for netns in &fields[..count] {
            let (name, value) =
                fields::read(&raw, netns).map_err(|_| Error::Chunk("a trailer field is none"))?;
            trailers.append(name, value);
        }
        Ok(ChunkStep::Trailers(trailers))
    }
}

const LARGE_TRAILERS: Error = Error::Chunk("a large trailer section");

fn has_bare_lf(raw: &[u8]) -> bool {
    let before = |at: usize| at.checked_sub(1).map(|before| raw[before]);
    memchr::memchr_iter(b'\n', raw).any(|at| before(at) != Some(b'\r'))
}

/// The size, and how long the extensions are. A line that is not yet whole is looked at as well, so
/// that what is no chunk is refused at once.
fn parse_size(line: &[u8], whole: bool, lenient: bool) -> Result<(u64, usize), Error> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (number, rest) = line.split_at(digits);
    if digits > 16 || (digits == 0 && (whole || !rest.is_empty())) {
        return Err(Error::Chunk("a chunk's size is none"));
    }
    let size = number.iter().fold(0_u64, |size, digit| {
        size << 4 | u64::from(char::from(*digit).to_digit(16).unwrap_or(0))
    });
    let extension = if whole {
        let bare = || lenient.then_some(rest).ok_or(Error::Chunk("a line ends without CR"));
        let rest = rest.strip_suffix(b"\r").map_or_else(bare, Ok)?;
        if rest.contains(&b'\r') {
            return Err(Error::Chunk("a bare CR"));
        }
        rest
    } else {
        rest.strip_suffix(b"\r").unwrap_or(rest)
    };
    let is_control = |byte: &u8| byte.is_ascii_control() && *byte != b'\t';
    if !lenient && extension.iter().any(is_control) {
        return Err(Error::Chunk("a control character in an extension"));
    }
    match extension.trim_ascii_start() {
        [] | [b';', ..] => Ok((size, extension.len())),
        _ => Err(Error::Chunk("a chunk's size is none")),
    }
}

/// How long the section is, and how many fields it has; None while it is not whole.
fn locate_trailers(input: &[u8], fields: &mut [Field]) -> Result<Option<(usize, usize)>, Error> {
    let mut rows = [httparse::EMPTY_HEADER; TRAILER_FIELDS];
    match httparse::parse_headers(input, &mut rows) {
        Ok(httparse::Status::Complete((len, parsed))) => {
            for (netns, header) in fields.iter_mut().zip(parsed.iter()) {
                *netns = Field::locate(input, header);
            }
            Ok(Some((len, parsed.len())))
        }
        Ok(httparse::Status::Partial) if input.len() > TRAILERS_LIMIT => Err(LARGE_TRAILERS),
        Ok(httparse::Status::Partial) => Ok(None),
        Err(httparse::Error::TooManyHeaders) => Err(Error::Chunk("many trailer fields")),
        Err(_) => Err(Error::Chunk("a trailer field is none")),
    }
}

#[cfg(test)]
mod tests;

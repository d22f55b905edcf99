//! HTTP/1 messages taken apart, so that differences can be named. In: the bytes of one direction,
//! in pieces. Out: tokens that keep every byte.

use std::collections::VecDeque;

/// A piece of a message, with its bytes as they were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum MessageToken {
    /// A line with its end.
    Line(Part, Vec<u8>),
    /// Bytes of a body.
    Data(Vec<u8>),
    /// What is not HTTP, or comes behind it.
    Raw(Vec<u8>),
}

/// What a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Start,
    Field,
    /// The end of a head.
    Blank,
    /// The size of a chunk that is not the last.
    Chunk,
    /// Behind a chunk's data.
    ChunkEnd,
    LastChunk,
    Trailer,
    /// The end of a chunked body.
    End,
}

/// Reads one direction of a connection.
#[derive(Clone, Debug)]
pub(super) struct Walker {
    responses: bool,
    /// Methods of the requests that wait for a response, in their order.
    methods: VecDeque<Vec<u8>>,
    state: State,
    line: Vec<u8>,
    head: Head,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Head,
    Length(u64),
    Chunk,
    ChunkData(u64),
    ChunkEnd,
    Trailers,
    UntilEnd,
    Raw,
}

#[derive(Clone, Debug, Default)]
struct Head {
    start: Vec<u8>,
    length: Option<u64>,
    chunked: bool,
}

impl Walker {
    pub(super) fn requests() -> Self {
        Self {
            responses: false,
            methods: VecDeque::new(),
            state: State::Head,
            line: Vec::new(),
            head: Head::default(),
        }
    }

    /// `methods`: of the requests that the responses belong to.
    pub(super) fn responses(methods: Vec<Vec<u8>>) -> Self {
        Self { responses: true, methods: methods.into(), ..Self::requests() }
    }

    /// What these bytes are. A line that is not whole is held back until it is.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) -> Vec<MessageToken> {
        let mut tokens = Vec::new();
        while !bytes.is_empty() {
            let taken = match self.state {
                State::Length(left) | State::ChunkData(left) => {
                    let taken = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    tokens.push(MessageToken::Data(bytes[..taken].to_vec()));
                    self.counted(left - taken as u64);
                    taken
                }
                State::UntilEnd => {
                    tokens.push(MessageToken::Data(bytes.to_vec()));
                    bytes.len()
                }
                State::Raw => {
                    tokens.push(MessageToken::Raw(bytes.to_vec()));
                    bytes.len()
                }
                State::Head | State::Chunk | State::ChunkEnd | State::Trailers => {
                    let end = bytes.iter().position(|b| *b == b'\n').map(|at| at + 1);
                    let taken = end.unwrap_or(bytes.len());
                    self.line.extend(&bytes[..taken]);
                    if end.is_some() {
                        let line = std::mem::take(&mut self.line);
                        tokens.push(self.whole(line));
                    }
                    taken
                }
            };
            bytes = &bytes[taken..];
        }
        tokens
    }

    /// A line that never ended.
    pub(super) fn finish(&mut self) -> Option<MessageToken> {
        let line = std::mem::take(&mut self.line);
        (!line.is_empty()).then_some(MessageToken::Raw(line))
    }

    /// Whether a message has just ended, and nothing of the next has come.
    pub(super) fn is_between(&self) -> bool {
        self.state == State::Head && self.line.is_empty() && self.head.start.is_empty()
    }

    fn counted(&mut self, left: u64) {
        self.state = match (self.state, left) {
            (State::ChunkData(_), 0) => State::ChunkEnd,
            (State::ChunkData(_), left) => State::ChunkData(left),
            (_, 0) => State::Head,
            (_, left) => State::Length(left),
        };
    }

    fn whole(&mut self, line: Vec<u8>) -> MessageToken {
        let content = line.trim_ascii_end();
        let (part, next) = match self.state {
            State::Head if self.head.start.is_empty() => {
                if !self.is_start(content) {
                    // Empty lines before a request are ignored (RFC 9112, section 2.2).
                    self.state = if content.is_empty() { State::Head } else { State::Raw };
                    return MessageToken::Raw(line);
                }
                self.head.start = content.to_vec();
                (Part::Start, State::Head)
            }
            State::Head if content.is_empty() => (Part::Blank, self.body()),
            State::Head => {
                self.field(content);
                (Part::Field, State::Head)
            }
            State::Chunk => {
                let digits = content.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
                let digits = std::str::from_utf8(digits).unwrap_or_default();
                match u64::from_str_radix(digits, 16) {
                    Ok(0) => (Part::LastChunk, State::Trailers),
                    Ok(size) => (Part::Chunk, State::ChunkData(size)),
                    Err(_) => {
                        self.state = State::Raw;
                        return MessageToken::Raw(line);
                    }
                }
            }
            State::ChunkEnd => (Part::ChunkEnd, State::Chunk),
            _ if content.is_empty() => (Part::End, State::Head),
            _ => (Part::Trailer, State::Trailers),
        };
        self.state = next;
        MessageToken::Line(part, line)
    }

    fn is_start(&self, line: &[u8]) -> bool {
        if self.responses {
            line.starts_with(b"HTTP/1.")
        } else {
            line.windows(7).any(|w| w == b"HTTP/1.")
        }
    }

    fn field(&mut self, line: &[u8]) {
        let Some(colon) = line.iter().position(|b| *b == b':') else { return };
        let value = line[colon + 1..].trim_ascii();
        if line[..colon].eq_ignore_ascii_case(b"content-length") {
            self.head.length = std::str::from_utf8(value).ok().and_then(|v| v.parse().ok());
        } else if line[..colon].eq_ignore_ascii_case(b"transfer-encoding") {
            self.head.chunked = value.to_ascii_lowercase().ends_with(b"chunked");
        }
    }

    /// RFC 9112, section 6.3.
    fn body(&mut self) -> State {
        let Head { start, length, chunked } = std::mem::take(&mut self.head);
        let framed = if chunked { Some(State::Chunk) } else { length.map(State::Length) };
        if !self.responses {
            self.methods.push_back(start.split(|b| *b == b' ').next().unwrap_or_default().to_vec());
            return framed.filter(|state| *state != State::Length(0)).unwrap_or(State::Head);
        }
        let status = start.get(9..12).unwrap_or_default();
        if status == b"101" {
            return State::Raw;
        }
        if status.starts_with(b"1") {
            return State::Head;
        }
        let method = self.methods.pop_front().unwrap_or_default();
        if method == b"CONNECT" && status.starts_with(b"2") {
            return State::Raw;
        }
        if method == b"HEAD" || matches!(status, b"204" | b"304") {
            return State::Head;
        }
        framed.map_or(
            State::UntilEnd,
            |state| {
                if state == State::Length(0) { State::Head } else { state }
            },
        )
    }
}

/// The methods of the requests in these bytes.
pub(super) fn methods(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut walker = Walker::requests();
    walker.feed(bytes);
    walker.methods.into()
}

/// How long the message is that these bytes begin with; None while it is not whole.
pub(super) fn length(bytes: &[u8], responses: bool, bodiless: bool) -> Option<usize> {
    let method = if bodiless { &b"HEAD"[..] } else { b"GET" };
    let mut walker = Walker { responses, methods: [method.to_vec()].into(), ..Walker::requests() };
    let mut taken = 0;
    for token in walker.clone().feed(bytes) {
        let (MessageToken::Line(_, piece) | MessageToken::Data(piece) | MessageToken::Raw(piece)) =
            token;
        walker.feed(&piece);
        taken += piece.len();
        if walker.is_between() {
            return Some(taken);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_taken_apart() {
        let mut walker = Walker::requests();
        let text =
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2;x\r\nab\r\n0\r\n\
                     T: u\r\n\r\nGET / HTTP/1.1\r\n\r\nGE";
        let tokens = walker.feed(text);
        let parts: Vec<_> = tokens
            .iter()
            .map(|token| match token {
                MessageToken::Line(part, _) => format!("{part:?}"),
                MessageToken::Data(data) => data.escape_ascii().to_string(),
                MessageToken::Raw(_) => "raw".into(),
            })
            .collect();
        let expected =
            "Start Field Field Blank Chunk ab ChunkEnd LastChunk Trailer End Start Blank";
        assert_eq!(parts.join(" "), expected);
        assert_eq!(walker.finish(), Some(MessageToken::Raw(b"GE".to_vec())));
        assert_eq!(methods(text), [b"POST".to_vec(), b"GET".to_vec()]);
    }

    #[test]
    fn the_end_of_a_message_is_found() {
        let response = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokrest";
        assert_eq!(length(response, true, false), Some(response.len() - 4));
        assert_eq!(length(response, true, true), Some(response.len() - 6));
        assert_eq!(length(&response[..response.len() - 5], true, false), None);
        assert_eq!(length(b"HTTP/1.1 100 Continue\r\n\r\nHTTP", true, false), Some(25));
        assert_eq!(length(b"GET / HTTP/1.1\r\nA: b\r\n\r\nGET", false, false), Some(24));
        assert_eq!(length(b"HTTP/1.1 200 OK\r\n\r\nuntil the end", true, false), None);
    }
}

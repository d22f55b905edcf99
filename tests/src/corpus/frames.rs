//! HTTP/2 frames (RFC 9113, section 6): enough to write them by hand, and to read them as what they
//! mean for each stream.
//!
//! In: a step's words. Out: bytes. Header blocks are written as literals without indexing, and read
//! by a whole HPACK decoder.

mod malformed;
mod reader;

use anyhow::{Context, Result, bail};

use super::script::Word;

pub(super) use reader::{Event, Reader, Wanted};

/// What a client's connection begins with (RFC 9113, section 3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 0x1;
const ACK: u8 = 0x1;
const END_HEADERS: u8 = 0x4;

/// A frame to send.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Frame {
    kind: u8,
    flags: u8,
    stream: Stream,
    payload: Vec<u8>,
    /// A header block in two frames.
    split: bool,
    preface: bool,
}

/// A stream by its id, or (`#1`) as the first one that the peer has opened.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Stream {
    Id(u32),
    Nth(usize),
}

impl Frame {
    /// Reads the words of a step.
    pub(super) fn parse(verb: &str, words: &[Word]) -> Result<Self> {
        let mut plain = Vec::new();
        let mut texts = Vec::new();
        for word in words {
            match word {
                Word::Plain(word) => plain.push(word.as_str()),
                Word::Text(text) => texts.push(text.as_slice()),
            }
        }
        let has = |flag| plain.contains(&flag);
        let number = |at: usize| -> Result<u32> {
            plain.get(at).context("a number is missing")?.parse().context("a number")
        };
        let stream = || Stream::parse(plain.first().context("a stream is missing")?);
        let end = if has("end") { END_STREAM } else { 0 };
        let joined = || texts.concat();
        let (kind, flags, stream, payload) = match verb {
            "preface" | "settings" => (SETTINGS, 0, Stream::Id(0), settings(&plain)?),
            "headers" => (HEADERS, end | END_HEADERS, stream()?, fields(&texts)?),
            "data" => (DATA, end, stream()?, joined()),
            "rst" => (RST_STREAM, 0, stream()?, number(1)?.to_be_bytes().to_vec()),
            "window" => (WINDOW_UPDATE, 0, stream()?, number(1)?.to_be_bytes().to_vec()),
            "goaway" => {
                let payload = [number(0)?.to_be_bytes(), number(1)?.to_be_bytes()].concat();
                (GOAWAY, 0, Stream::Id(0), payload)
            }
            "ping" => (PING, 0, Stream::Id(0), joined()),
            "raw" => {
                let byte = |at| anyhow::Ok(u8::try_from(number(at)?)?);
                (byte(0)?, byte(1)?, Stream::Id(number(2)?), joined())
            }
            other => bail!("unknown act {other}"),
        };
        let (split, preface) = (has("split"), verb == "preface");
        Ok(Self { kind, flags, stream, payload, split, preface })
    }

    /// The bytes; `opened` are the streams that the peer has opened, in their order.
    pub(super) fn bytes(&self, opened: &[u32]) -> Vec<u8> {
        let id = self.stream.id(opened).unwrap_or_default();
        let mut bytes = if self.preface { PREFACE.to_vec() } else { Vec::new() };
        if self.split {
            let (first, rest) = self.payload.split_at(self.payload.len() / 2);
            bytes.extend(frame(self.kind, self.flags & !END_HEADERS, id, first));
            bytes.extend(frame(CONTINUATION, END_HEADERS, id, rest));
        } else {
            bytes.extend(frame(self.kind, self.flags, id, &self.payload));
        }
        bytes
    }
}

impl Stream {
    fn parse(word: &str) -> Result<Self> {
        Ok(match word.strip_prefix('#') {
            Some(nth) => Self::Nth(nth.parse().context("#N")?),
            None => Self::Id(word.parse().context("a stream")?),
        })
    }

    fn id(self, opened: &[u32]) -> Option<u32> {
        match self {
            Self::Id(id) => Some(id),
            Self::Nth(nth) => opened.get(nth.checked_sub(1)?).copied(),
        }
    }
}

/// The connection preface of a server: its settings.
pub(super) fn server_preface() -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[])
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("scripts are smaller than 4 GiB");
    let mut bytes = length.to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

fn settings(words: &[&str]) -> Result<Vec<u8>> {
    let mut payload = Vec::new();
    for word in words {
        let (id, value) = word.split_once('=').context("ID=VALUE")?;
        payload.extend(id.parse::<u16>()?.to_be_bytes());
        payload.extend(value.parse::<u32>()?.to_be_bytes());
    }
    Ok(payload)
}

/// Literal header fields without indexing (RFC 7541, section 6.2.2), each text `name value`.
fn fields(texts: &[&[u8]]) -> Result<Vec<u8>> {
    let mut block = Vec::new();
    for text in texts {
        let space = text.iter().position(|b| *b == b' ').context("\"name value\"")?;
        block.push(0);
        for part in [&text[..space], &text[space + 1..]] {
            length(part.len(), &mut block);
            block.extend(part);
        }
    }
    Ok(block)
}

/// An integer with a prefix of 7 bits (RFC 7541, section 5.1).
fn length(mut n: usize, block: &mut Vec<u8>) {
    let low = |n: usize| u8::try_from(n & 0x7f).expect("seven bits");
    if n < 0x7f {
        return block.push(low(n));
    }
    block.push(0x7f);
    n -= 0x7f;
    while n > 0x7f {
        block.push(low(n) | 0x80);
        n >>= 7;
    }
    block.push(low(n));
}

#[cfg(test)]
mod tests {
    use super::{reader::window, *};
    use crate::corpus::script::words;

    fn sent(verb: &str, rest: &str) -> Vec<u8> {
        Frame::parse(verb, &words(rest).unwrap()).unwrap().bytes(&[7])
    }

    #[test]
    fn frames_are_read_as_they_were_written() {
        let long = format!("1 \"x {}\"", "y".repeat(300));
        let mut buffer = [
            sent("preface", "3=100"),
            sent("headers", "1 split \":method POST\" \":scheme http\" \":path /\" \"a b\""),
            sent("data", "1 end \"hello\""),
            sent("headers", &long),
            sent("rst", "#1 8"),
            sent("goaway", "1 2"),
        ]
        .concat();
        let mut reader = Reader::of_server();
        let responses = reader.read(&mut buffer);
        assert_eq!(responses, [frame(SETTINGS, ACK, 0, &[]), window(1, END_STREAM, 5)].concat());
        assert!(buffer.is_empty());
        let field = |n: &str, v: &str| (n.to_owned(), v.to_owned());
        let events = reader.take(&Wanted::parse("end #1").unwrap()).unwrap();
        let head = [(":method", "POST"), (":scheme", "http"), (":path", "/"), ("a", "b")];
        let head = head.map(|(name, value)| field(name, value)).to_vec();
        let expected = [
            Event::Settings,
            Event::Headers(1, head),
            Event::Data(1, b"hello".to_vec()),
            Event::End(1),
        ];
        assert_eq!(events, expected);
        assert_eq!(reader.take(&Wanted::parse("end 1").unwrap()), None);
        let expected = [
            Event::Headers(1, vec![field("x", &"y".repeat(300))]),
            Event::Rst(7, 8),
            Event::GoAway(2),
        ];
        assert_eq!(reader.rest(), expected);
    }

    #[test]
    fn a_malformed_message_is_reset_and_nothing_of_it_is_passed_on() {
        let good = "\":method GET\" \":scheme http\" \":path /\"";
        for bad in [
            "\"X 1\"",
            "\"x a\\x01\"",
            "\"te gzip\"",
            "\":path /\"",
            "\" 1\"",
            "\"x a\" \":authority b\"",
        ] {
            let mut buffer = [
                sent("preface", ""),
                sent("headers", &format!("1 {good} {bad}")),
                sent("data", "1 end \"x\""),
            ]
            .concat();
            let mut reader = Reader::of_server();
            let responses = reader.read(&mut buffer);
            let reset = frame(RST_STREAM, 0, 1, &[0, 0, 0, 1]);
            let expected = [frame(SETTINGS, ACK, 0, &[]), reset, window(0, END_STREAM, 1)];
            assert_eq!(responses, expected.concat(), "{bad}");
            assert_eq!(reader.rest(), [Event::Settings], "{bad}");
        }
    }

    #[test]
    fn data_counts_over_several_waits() {
        let mut buffer = [sent("data", "1 \"abc\""), sent("data", "1 \"def\"")].concat();
        let mut reader = Reader::of_client();
        reader.read(&mut buffer);
        assert_eq!(reader.take(&Wanted::parse("data 1 2").unwrap()).unwrap().len(), 1);
        assert_eq!(reader.take(&Wanted::parse("data 1 7").unwrap()), None);
        assert_eq!(reader.take(&Wanted::parse("data 1 6").unwrap()).unwrap().len(), 1);
    }
}

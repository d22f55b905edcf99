//! Reading frames. In: bytes of a connection. Out: events of its streams, and what HTTP/2 wants said
//! at once: settings and pings are acknowledged, windows given back, and a stream whose message is
//! malformed is reset, as any peer does (RFC 9113, section 8.1.1): its content is not recorded, only that
//! it was reset.

use std::collections::{HashMap, HashSet};

use anyhow::{Context, Result, bail, ensure};
use loona_hpack::Decoder;
use serde::{Deserialize, Serialize};

use super::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PREFACE, PRIORITY,
    RST_STREAM, SETTINGS, Stream, WINDOW_UPDATE, frame,
    malformed::{List, is_malformed},
};

const PADDED: u8 = 0x8;
const HAS_PRIORITY: u8 = 0x20;

const PROTOCOL_ERROR: u32 = 1;

/// What a frame means, for the stream or the connection that it is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::corpus) enum Event {
    Headers(u32, Vec<(String, String)>),
    Data(u32, Vec<u8>),
    End(u32),
    Rst(u32, u32),
    GoAway(u32),
    /// The peer's own ping or settings were acknowledged.
    Pong,
    Settings,
    /// Not a frame, or a header block that cannot be decoded.
    Broken(String),
}

/// What a wait wants to see.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::corpus) struct Wanted {
    what: What,
    stream: Stream,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum What {
    Headers,
    /// So many bytes since the stream was opened.
    Data(usize),
    End,
    Rst,
    GoAway,
    Pong,
    Settings,
}

impl Wanted {
    /// Reads `headers STREAM`, `data STREAM BYTES`, `end STREAM`, `rst STREAM`, `goaway`, `pong`,
    /// `settings`.
    pub(in crate::corpus) fn parse(text: &str) -> Result<Self> {
        let words = text.split_whitespace().take_while(|word| *word != "#");
        let words: Vec<_> = words.collect();
        let what = match *words.first().context("what to wait for is missing")? {
            "headers" => What::Headers,
            "data" => What::Data(words.get(2).context("how many bytes")?.parse()?),
            "end" => What::End,
            "rst" => What::Rst,
            "goaway" => What::GoAway,
            "pong" => What::Pong,
            "settings" => What::Settings,
            other => bail!("unknown event {other}"),
        };
        let connection = matches!(what, What::GoAway | What::Pong | What::Settings);
        ensure!(connection || words.len() > 1, "a stream is missing");
        let stream = if connection { Stream::Id(0) } else { Stream::parse(words[1])? };
        Ok(Self { what, stream })
    }
}

/// Reads a connection's frames.
pub(in crate::corpus) struct Reader {
    decoder: Decoder<'static>,
    is_server: bool,
    /// Bytes of the client's preface that are still to come.
    preface: usize,
    /// A header block that is not whole: its stream, its flags, what there is of it.
    block: Option<(u32, u8, Vec<u8>)>,
    /// Not yet taken by a step.
    events: Vec<Event>,
    /// Streams in the order in which they were first seen.
    pub(in crate::corpus) opened: Vec<u32>,
    data: HashMap<u32, usize>,
    /// Streams that were reset here.
    refused: HashSet<u32>,
}

impl Reader {
    pub(in crate::corpus) fn of_client() -> Self {
        Self::new(0, false)
    }

    pub(in crate::corpus) fn of_server() -> Self {
        Self::new(PREFACE.len(), true)
    }

    fn new(preface: usize, is_server: bool) -> Self {
        Self {
            decoder: Decoder::new(),
            is_server,
            preface,
            block: None,
            events: Vec::new(),
            opened: Vec::new(),
            data: HashMap::new(),
            refused: HashSet::new(),
        }
    }

    /// Takes whole frames from the buffer; what is to be said to them at once.
    pub(in crate::corpus) fn read(&mut self, buffer: &mut Vec<u8>) -> Vec<u8> {
        if buffer.len() < self.preface {
            return Vec::new();
        }
        buffer.drain(..std::mem::take(&mut self.preface));
        let mut responses = Vec::new();
        while let Some(head) = buffer.first_chunk::<9>() {
            let length =
                usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
            let (kind, flags) = (head[3], head[4]);
            let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
            if buffer.len() < 9 + length {
                break;
            }
            let payload = buffer.drain(..9 + length).skip(9).collect::<Vec<_>>();
            responses.extend(self.frame(kind, flags, stream, &payload));
        }
        responses
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let number = |at: usize| {
            payload.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_be_bytes)
        };
        match kind {
            HEADERS => {
                let (skip, pad) = padding(flags, payload);
                let skip = skip + if flags & HAS_PRIORITY == 0 { 0 } else { 5 };
                let block = payload.get(skip..payload.len().saturating_sub(pad));
                self.block = Some((stream, flags, block.unwrap_or_default().to_vec()));
                return self.end_block(flags);
            }
            CONTINUATION => {
                if let Some((_, _, block)) = &mut self.block {
                    block.extend(payload);
                }
                return self.end_block(flags);
            }
            DATA if self.refused.contains(&stream) => return window(0, END_STREAM, payload.len()),
            RST_STREAM if self.refused.contains(&stream) => {}
            DATA => {
                let (skip, pad) = padding(flags, payload);
                let data = payload.get(skip..payload.len().saturating_sub(pad)).unwrap_or_default();
                *self.data.entry(stream).or_default() += data.len();
                if !data.is_empty() {
                    self.events.push(Event::Data(stream, data.to_vec()));
                }
                self.end(stream, flags);
                return window(stream, flags, payload.len());
            }
            RST_STREAM => self.events.push(Event::Rst(stream, number(0))),
            GOAWAY => self.events.push(Event::GoAway(number(4))),
            SETTINGS if flags & ACK == 0 => {
                self.events.push(Event::Settings);
                return frame(SETTINGS, ACK, 0, &[]);
            }
            PING if flags & ACK == 0 => return frame(PING, ACK, 0, payload),
            PING => self.events.push(Event::Pong),
            SETTINGS | WINDOW_UPDATE | PRIORITY => {}
            // To be ignored (RFC 9113, section 5.5), but worth seeing.
            other => self.events.push(Event::Broken(format!("frame of type {other}"))),
        }
        Vec::new()
    }

    fn end_block(&mut self, flags: u8) -> Vec<u8> {
        if flags & END_HEADERS == 0 {
            return Vec::new();
        }
        let Some((stream, flags, block)) = self.block.take() else {
            self.events.push(Event::Broken("CONTINUATION of nothing".into()));
            return Vec::new();
        };
        let decoded = self.decoder.decode(&block);
        if self.refused.contains(&stream) {
            return Vec::new();
        }
        if decoded.as_ref().is_ok_and(|fields| is_malformed(fields, self.list(stream, fields))) {
            return self.refuse(stream);
        }
        if !self.opened.contains(&stream) {
            self.opened.push(stream);
        }
        let text = |bytes: Vec<u8>| bytes.escape_ascii().to_string();
        match decoded {
            Ok(fields) => {
                let fields = fields.into_iter().map(|(n, v)| (text(n), text(v))).collect();
                self.events.push(Event::Headers(stream, fields));
            }
            Err(error) => self.events.push(Event::Broken(format!("{error:?}"))),
        }
        self.end(stream, flags);
        Vec::new()
    }

    fn list(&self, stream: u32, fields: &[(Vec<u8>, Vec<u8>)]) -> List {
        let pseudo = fields.first().is_some_and(|(name, _)| name.starts_with(b":"));
        match self.is_server {
            _ if self.opened.contains(&stream) && !pseudo => List::Trailers,
            true => List::Request,
            false => List::Response,
        }
    }

    fn refuse(&mut self, stream: u32) -> Vec<u8> {
        self.refused.insert(stream);
        if !self.is_server || self.opened.contains(&stream) {
            self.events.push(Event::Rst(stream, PROTOCOL_ERROR));
        }
        frame(RST_STREAM, 0, stream, &PROTOCOL_ERROR.to_be_bytes())
    }

    fn end(&mut self, stream: u32, flags: u8) {
        if flags & END_STREAM != 0 {
            self.events.push(Event::End(stream));
        }
    }

    /// All events up to the one that is wanted; None when it is not there.
    pub(in crate::corpus) fn take(&mut self, wanted: &Wanted) -> Option<Vec<Event>> {
        let id = wanted.stream.id(&self.opened)?;
        // Bytes that steps before have taken count as well.
        let pending: usize = self.events.iter().map(|event| event.data_of(id)).sum();
        let mut total = self.data.get(&id).copied().unwrap_or_default() - pending;
        let found = self.events.iter().position(|event| {
            total += event.data_of(id);
            match (wanted.what, event) {
                (What::Headers, Event::Headers(stream, _))
                | (What::End, Event::End(stream))
                | (What::Rst, Event::Rst(stream, _)) => *stream == id,
                (What::Data(wanted), Event::Data(stream, _)) => *stream == id && total >= wanted,
                (What::GoAway, Event::GoAway(_))
                | (What::Pong, Event::Pong)
                | (What::Settings, Event::Settings) => true,
                _ => false,
            }
        });
        Some(self.events.drain(..=found?).collect())
    }

    pub(in crate::corpus) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// All events.
    pub(in crate::corpus) fn rest(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }
}

impl Event {
    fn data_of(&self, id: u32) -> usize {
        match self {
            Self::Data(stream, data) if *stream == id => data.len(),
            _ => 0,
        }
    }
}

/// How many bytes stand before the content, and how many behind it.
fn padding(flags: u8, payload: &[u8]) -> (usize, usize) {
    if flags & PADDED == 0 {
        return (0, 0);
    }
    (1, payload.first().copied().unwrap_or_default().into())
}

/// Gives back what a DATA frame took of the connection's and the stream's window.
pub(super) fn window(stream: u32, flags: u8, length: usize) -> Vec<u8> {
    let length = u32::try_from(length).expect("a frame is at most 16 MiB");
    if length == 0 {
        return Vec::new();
    }
    let mut frames = frame(WINDOW_UPDATE, 0, 0, &length.to_be_bytes());
    if flags & END_STREAM == 0 {
        frames.extend(frame(WINDOW_UPDATE, 0, stream, &length.to_be_bytes()));
    }
    frames
}

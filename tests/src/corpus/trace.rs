//! Traces: what both sides saw of a conversation, as lines that can be compared and read.
//!
//! HTTP/1 is split into lines and bodies with every byte kept; HTTP/2 is shown by stream, because
//! settings, windows, pings and the bounds of frames belong to one hop (RFC 9113, sections 5.2, 6.5,
//! 6.7, 6.9), as do the ids of a server's streams, which are numbered in the order they came.

use std::{collections::HashMap, fmt};

use super::{
    frames::Event,
    message::{self, MessageToken, Part, Walker},
    peer::End,
    play::Outcome,
    script::{Act, Conversation, Protocol, Role},
};

/// What both sides saw, in the order of the script's steps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace(pub(super) Vec<Entry>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// None at the end.
    pub(super) step: Option<usize>,
    pub(super) side: Role,
    pub(super) connection: usize,
    pub(super) saw: Saw,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Saw {
    MessageToken(MessageToken),
    Headers(u32, Vec<(String, String)>),
    Data(u32, Vec<u8>),
    /// Anything else of HTTP/2.
    Frame(String),
    End(End),
}

impl Trace {
    /// Shows the outcomes of a conversation.
    #[must_use]
    pub fn of(conversation: &Conversation, outcomes: &[Outcome]) -> Self {
        let sent = conversation.steps.iter().filter(|step| step.side == Role::Client);
        let sent: Vec<u8> = sent
            .flat_map(|step| match &step.act {
                Act::Send(bytes) => bytes.clone(),
                _ => Vec::new(),
            })
            .collect();
        let mut teller = Teller {
            methods: message::methods(&sent),
            walkers: HashMap::new(),
            opened: HashMap::new(),
            entries: Vec::new(),
        };
        for outcome in outcomes {
            match conversation.speaks {
                Protocol::Bytes => teller.bytes(outcome),
                Protocol::Frames => teller.frames(outcome),
            }
        }
        Self(teller.entries)
    }

    pub(super) fn lines(&self) -> Vec<String> {
        self.0.iter().map(ToString::to_string).collect()
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|entry| writeln!(f, "      {entry}"))
    }
}

struct Teller {
    methods: Vec<Vec<u8>>,
    walkers: HashMap<(Role, usize), Walker>,
    /// Streams of a server's connections, in their order.
    opened: HashMap<usize, Vec<u32>>,
    entries: Vec<Entry>,
}

impl Teller {
    fn push(&mut self, outcome: &Outcome, saw: Saw) {
        let Outcome { step, side, connection, .. } = *outcome;
        // Pieces of a body side by side are one.
        if let (Saw::Data(stream, more), Some(last)) = (&saw, self.entries.last_mut())
            && (last.step, last.side, last.connection) == (step, side, connection)
            && let Saw::Data(other, data) = &mut last.saw
            && stream == other
        {
            return data.extend(more);
        }
        self.entries.push(Entry { step, side, connection, saw });
    }

    fn bytes(&mut self, outcome: &Outcome) {
        let key = (outcome.side, outcome.connection);
        let methods = &self.methods;
        let walker = self.walkers.entry(key).or_insert_with(|| match outcome.side {
            Role::Client => Walker::responses(methods.clone()),
            Role::Server => Walker::requests(),
        });
        let mut tokens = walker.feed(&outcome.got);
        if outcome.step.is_none() {
            tokens.extend(walker.finish());
        }
        for token in tokens {
            self.push(outcome, Saw::MessageToken(token));
        }
        self.end(outcome);
    }

    fn end(&mut self, outcome: &Outcome) {
        match outcome.end {
            Some(end) => self.push(outcome, Saw::End(end)),
            // Open, and no step closed it: it stayed so until we closed it.
            None if outcome.step.is_none() => self.push(outcome, Saw::End(End::Missed)),
            None => {}
        }
    }

    fn frames(&mut self, outcome: &Outcome) {
        for event in &outcome.events {
            let id = match event {
                Event::Headers(id, _) | Event::Data(id, _) | Event::End(id) | Event::Rst(id, _) => {
                    *id
                }
                _ => 0,
            };
            let id = self.stream(outcome, id);
            let saw = match event {
                Event::Headers(_, fields) => Saw::Headers(id, fields.clone()),
                Event::Data(_, data) => Saw::Data(id, data.clone()),
                Event::End(_) => Saw::Frame(format!("END {id}")),
                Event::Rst(_, code) => Saw::Frame(format!("RST_STREAM {id} code {code}")),
                Event::GoAway(code) => Saw::Frame(format!("GOAWAY code {code}")),
                Event::Broken(what) => Saw::Frame(format!("BROKEN {what}")),
                Event::Pong | Event::Settings => continue,
            };
            self.push(outcome, saw);
        }
        if !outcome.got.is_empty() {
            self.push(outcome, Saw::MessageToken(MessageToken::Raw(outcome.got.clone())));
        }
        self.end(outcome);
    }

    fn stream(&mut self, outcome: &Outcome, id: u32) -> u32 {
        if outcome.side == Role::Client || id == 0 {
            return id;
        }
        let opened = self.opened.entry(outcome.connection).or_default();
        let at = opened.iter().position(|other| *other == id).unwrap_or_else(|| {
            opened.push(id);
            opened.len() - 1
        });
        u32::try_from(at + 1).expect("few streams")
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.step {
            // Counted from 1, as a reader does.
            Some(step) => write!(f, "{} ", step + 1)?,
            None => write!(f, "end ")?,
        }
        match self.side {
            Role::Client => write!(f, "C ")?,
            Role::Server => write!(f, "S{} ", self.connection)?,
        }
        match &self.saw {
            Saw::MessageToken(MessageToken::Line(part, line)) => {
                write!(f, "{}{}", name(*part), text(line))
            }
            Saw::MessageToken(MessageToken::Data(data)) => write!(f, "body {}", text(data)),
            Saw::MessageToken(MessageToken::Raw(bytes)) => write!(f, "raw {}", text(bytes)),
            Saw::Data(stream, data) => write!(f, "DATA {stream} {}", text(data)),
            Saw::Frame(frame) => write!(f, "{frame}"),
            Saw::Headers(stream, fields) => {
                write!(f, "HEADERS {stream}")?;
                fields.iter().try_for_each(|(name, value)| write!(f, " {name}={value}"))
            }
            Saw::End(end) => write!(f, "{}", ending(*end)),
        }
    }
}

fn name(part: Part) -> &'static str {
    match part {
        Part::Start | Part::Field | Part::Blank => "",
        Part::Chunk | Part::ChunkEnd | Part::LastChunk => "chunk ",
        Part::Trailer | Part::End => "trailer ",
    }
}

fn ending(end: End) -> &'static str {
    match end {
        End::Fin => "FIN",
        End::Rst => "RST",
        End::Ours => "closed by the script",
        End::Missed => "open",
        End::Noise => "not silent",
        End::None => "no connection",
        End::Refused => "cannot connect",
    }
}

/// Quoted; a long one by its beginning, its length and a hash.
fn text(bytes: &[u8]) -> String {
    const LIMIT: usize = 160;
    if bytes.len() <= LIMIT {
        return format!("\"{}\"", bytes.escape_ascii());
    }
    // FNV-1a: the same everywhere, as the allow-list needs it.
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325, step);
    let begin = bytes[..32].escape_ascii();
    format!("\"{begin}...\" {} bytes, hash {hash:016x}", bytes.len())
}

/// The lines that only one of them has, `-` for the first and `+` for the second, in order.
#[must_use]
pub fn diff(one: &Trace, other: &Trace) -> Vec<String> {
    let (a, b) = (one.lines(), other.lines());
    // The longest common subsequence; traces are short.
    let mut best = vec![vec![0_usize; b.len() + 1]; a.len() + 1];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            best[i][j] = if a[i] == b[j] {
                best[i + 1][j + 1] + 1
            } else {
                best[i + 1][j].max(best[i][j + 1])
            };
        }
    }
    let (mut i, mut j, mut lines) = (0, 0, Vec::new());
    while i < a.len() || j < b.len() {
        if i < a.len() && j < b.len() && a[i] == b[j] {
            (i, j) = (i + 1, j + 1);
        } else if j == b.len() || (i < a.len() && best[i + 1][j] >= best[i][j + 1]) {
            lines.push(format!("- {}", a[i]));
            i += 1;
        } else {
            lines.push(format!("+ {}", b[j]));
            j += 1;
        }
    }
    lines
}

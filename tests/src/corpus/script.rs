//! The language of the conversations. In: a file's text. Out: steps, checked as far as they can be
//! without sockets.
//!
//! A conversation is a line `== name`, then one step on each line: who (`C`, the client, or `S`,
//! the server), what, and its arguments. Texts stand in quotes with `\r \n \t \0 \\ \" \xHH`;
//! `"a"*70` repeats one; texts side by side are joined. `# ` begins a comment.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::frames;

/// One conversation.
#[derive(Clone, Debug)]
pub struct Conversation {
    /// Unique in the corpus.
    pub name: String,
    pub(super) steps: Vec<Step>,
    pub(super) speaks: Protocol,
}

/// What is read from the sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// Bytes, shown as HTTP/1 where they are.
    Bytes,
    /// HTTP/2 frames.
    Frames,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) enum Role {
    Client,
    Server,
}

#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) side: Role,
    pub(super) act: Act,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Act {
    /// Writes all of it.
    Send(Vec<u8>),
    /// Writes a frame.
    Frame(frames::Frame),
    Wait(Until),
    /// For this long nothing should come; if something does, that is reported.
    Quiet(Duration),
    Pause(Duration),
    /// Half-close.
    Fin,
    /// close(2).
    Close,
    /// close(2) with `SO_LINGER` of zero: RST.
    Reset,
    /// The server does not listen; only as the first step.
    Absent,
}

/// What a side waits for; all up to it is taken from what has arrived.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Until {
    Marker(Vec<u8>),
    Count(usize),
    /// A whole HTTP/1 message; a bodiless one ends with its head whatever the head says.
    Message {
        bodiless: bool,
    },
    /// FIN or RST.
    End,
    Event(frames::Wanted),
}

/// Reads a file's text.
///
/// # Errors
/// With the line.
pub fn parse(text: &str) -> Result<Vec<Conversation>> {
    let mut all: Vec<Conversation> = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let context = || format!("line {}: {line}", at + 1);
        if let Some(name) = line.strip_prefix("== ") {
            let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
            ensure!(plain, "a name has letters, digits and hyphens: {}", context());
            let speaks = if name.starts_with("h2-") { Protocol::Frames } else { Protocol::Bytes };
            all.push(Conversation { name: name.to_owned(), steps: Vec::new(), speaks });
            continue;
        }
        let conversation = all.last_mut().with_context(context)?;
        let step = step(line, conversation.speaks).with_context(context)?;
        conversation.steps.push(step);
    }
    Ok(all)
}

fn step(line: &str, speaks: Protocol) -> Result<Step> {
    let (side, rest) = line.split_once(' ').context("a step has a side and an act")?;
    let side = match side {
        "C" => Role::Client,
        "S" => Role::Server,
        other => bail!("C or S, not {other}"),
    };
    let (verb, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    let rest = rest.trim();
    let act = match (verb, speaks) {
        ("send", _) => Act::Send(texts(rest)?),
        ("fin", _) => Act::Fin,
        ("close", _) => Act::Close,
        ("reset", _) => Act::Reset,
        ("absent", _) => Act::Absent,
        ("quiet", _) => Act::Quiet(millis(rest)?),
        ("pause", _) => Act::Pause(millis(rest)?),
        ("end", _) => Act::Wait(Until::End),
        ("head", Protocol::Bytes) => Act::Wait(Until::Marker(b"\r\n\r\n".to_vec())),
        ("until", Protocol::Bytes) => Act::Wait(Until::Marker(texts(rest)?)),
        ("take", Protocol::Bytes) => Act::Wait(Until::Count(rest.parse()?)),
        ("message", Protocol::Bytes) => {
            Act::Wait(Until::Message { bodiless: rest == "without-body" })
        }
        ("wait", Protocol::Frames) => Act::Wait(Until::Event(frames::Wanted::parse(rest)?)),
        (verb, Protocol::Frames) => Act::Frame(frames::Frame::parse(verb, &words(rest)?)?),
        (verb, _) => bail!("unknown act {verb}"),
    };
    Ok(Step { side, act })
}

fn millis(text: &str) -> Result<Duration> {
    Ok(Duration::from_millis(text.parse().context("milliseconds")?))
}

/// Texts side by side, joined.
pub(super) fn texts(line: &str) -> Result<Vec<u8>> {
    let words = words(line)?;
    ensure!(!words.is_empty(), "a text is missing");
    let parts = words.into_iter().map(|word| match word {
        Word::Text(text) => Ok(text),
        Word::Plain(plain) => bail!("a text stands in quotes: {plain}"),
    });
    Ok(parts.collect::<Result<Vec<_>>>()?.concat())
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Word {
    Text(Vec<u8>),
    Plain(String),
}

/// The words of a line; a comment at its end is none.
pub(super) fn words(line: &str) -> Result<Vec<Word>> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while !rest.is_empty() && !rest.starts_with("# ") {
        if let Some(quoted) = rest.strip_prefix('"') {
            let (text, after) = unquote(quoted)?;
            let (times, after) = repetition(after)?;
            words.push(Word::Text(text.repeat(times)));
            rest = after.trim_start();
        } else {
            let end = rest.find(' ').unwrap_or(rest.len());
            words.push(Word::Plain(rest[..end].to_owned()));
            rest = rest[end..].trim_start();
        }
    }
    Ok(words)
}

fn repetition(after: &str) -> Result<(usize, &str)> {
    let Some(count) = after.strip_prefix('*') else { return Ok((1, after)) };
    let end = count.find(' ').unwrap_or(count.len());
    Ok((count[..end].parse().context("a count after *")?, &count[end..]))
}

fn unquote(text: &str) -> Result<(Vec<u8>, &str)> {
    let mut bytes = Vec::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        let byte = match c {
            '"' => return Ok((bytes, &text[at + 1..])),
            '\\' => match chars.next().context("a lone backslash")?.1 {
                'r' => b'\r',
                'n' => b'\n',
                't' => b'\t',
                '0' => 0,
                'x' => {
                    let digits = text.get(at + 2..at + 4).context("two digits after \\x")?;
                    chars.nth(1);
                    u8::from_str_radix(digits, 16)?
                }
                other @ ('\\' | '"') => other as u8,
                other => bail!("unknown escape \\{other}"),
            },
            c => u8::try_from(c).context("ASCII only: use \\xHH")?,
        };
        bytes.push(byte);
    }
    bail!("a quote is not closed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conversations_are_read() {
        let text = "# About\n== one\nC send \"a\\r\\n\" \"b\"*3 # why\nS head\nS reset\n\n== h2-two\n\
                    C wait end 1\n";
        let all = parse(text).unwrap();
        assert_eq!(all.len(), 2);
        assert_eq!(all[0].steps[0].act, Act::Send(b"a\r\nbbb".to_vec()));
        assert_eq!(all[0].steps[1].act, Act::Wait(Until::Marker(b"\r\n\r\n".to_vec())));
        assert_eq!(all[0].steps[2].side, Role::Server);
        assert_eq!(all[1].speaks, Protocol::Frames);
    }

    #[test]
    fn mistakes_are_reported_with_their_line() {
        for (text, what) in [
            ("== a\nC sned \"x\"", "sned"),
            ("== a\nX send \"x\"", "C or S"),
            ("== a\nC send \"x", "not closed"),
            ("C send \"x\"", "line 1"),
            ("== a b", "letters"),
            ("== a\nC send x", "in quotes"),
        ] {
            let error = format!("{:#}", parse(text).unwrap_err());
            assert!(error.contains(what), "{error}");
            assert!(error.contains("line "), "{error}");
        }
    }
}

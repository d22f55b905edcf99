//! Kinds of differences that have no meaning, by name. In: a trace. Out: the trace without what
//! differs in that way alone. Which conversation may differ how is the allow-list's to say.

use super::{
    message::{MessageToken, Part},
    peer::End,
    script::Role,
    trace::{Entry, Saw, Trace},
};

/// Takes one kind of difference out of a trace.
pub(super) type Kind = fn(&mut Vec<Entry>);

/// All kinds, in the order in which they are applied: what drops lines comes before what orders
/// the rest.
pub(super) const ALL: [(&str, Kind); 15] = [
    ("empty-lines", empty_lines),
    ("line-ends", |entries| line_ends(entries)),
    ("field-whitespace", |entries| field_whitespace(entries)),
    ("hop-by-hop", hop_by_hop),
    ("request-version", |entries| version(entries, Role::Server)),
    ("answer-version", |entries| version(entries, Role::Client)),
    ("chunk-extensions", |entries| chunk_extensions(entries)),
    ("chunk-sizes", |entries| chunk_sizes(entries)),
    ("chunk-bounds", chunk_bounds),
    ("trailer-case", |entries| trailer_case(entries)),
    ("trailer-order", |entries| trailer_order(entries)),
    ("field-order", field_order),
    ("goaway", goaway),
    ("connections", connections),
    ("server-end", |entries| server_end(entries)),
];

/// The trace without the differences of these kinds.
pub(super) fn without(trace: &Trace, kinds: &[&str]) -> Trace {
    let mut entries = trace.0.clone();
    for (_, kind) in ALL.iter().filter(|(name, _)| kinds.contains(name)) {
        kind(&mut entries);
    }
    Trace(entries)
}

/// Each line of the message with its kind.
fn lines(entries: &mut [Entry]) -> impl Iterator<Item = (Part, &mut Vec<u8>)> {
    entries.iter_mut().filter_map(|entry| match &mut entry.saw {
        Saw::MessageToken(MessageToken::Line(part, line)) => Some((*part, line)),
        _ => None,
    })
}

fn drop_lines(entries: &mut Vec<Entry>, drop: impl Fn(Part) -> bool) {
    entries.retain(|entry| !matches!(&entry.saw, Saw::MessageToken(MessageToken::Line(part, _)) if drop(*part)));
}

fn empty_lines(entries: &mut Vec<Entry>) {
    let empty = |bytes: &[u8]| bytes.iter().all(|b| b.is_ascii_whitespace());
    entries.retain(
        |entry| !matches!(&entry.saw, Saw::MessageToken(MessageToken::Raw(raw)) if empty(raw)),
    );
}

fn line_ends(entries: &mut [Entry]) {
    for (_, line) in lines(entries) {
        if line.ends_with(b"\n") && !line.ends_with(b"\r\n") {
            line.insert(line.len() - 1, b'\r');
        }
    }
}

fn field_whitespace(entries: &mut [Entry]) {
    for (part, line) in lines(entries) {
        if let (Part::Field | Part::Trailer, Some(colon)) =
            (part, line.iter().position(|b| *b == b':'))
        {
            let value = line[colon + 1..].trim_ascii().to_vec();
            let end: &[u8] = if line.ends_with(b"\r\n") { b"\r\n" } else { b"\n" };
            line.truncate(line[..colon].trim_ascii_end().len());
            line.extend([b": ", &value[..], end].concat());
        }
    }
}

fn hop_by_hop(entries: &mut Vec<Entry>) {
    let mut drop = vec![false; entries.len()];
    for head in heads(entries) {
        let fields: Vec<_> =
            head.clone().filter_map(|at| Some((at, field(&entries[at])?))).collect();
        let mut names = vec!["connection".into(), "keep-alive".into(), "proxy-connection".into()];
        for (_, (name, value)) in &fields {
            if name == "connection" {
                names.extend(value.split(',').map(|name| name.trim().to_ascii_lowercase()));
            }
        }
        for (at, (name, _)) in &fields {
            drop[*at] = names.contains(name);
        }
    }
    let mut drop = drop.into_iter();
    entries.retain(|_| !drop.next().unwrap_or_default());
}

/// The ranges of entries that are one head each.
fn heads(entries: &[Entry]) -> Vec<std::ops::Range<usize>> {
    let is = |at: usize, wanted: Part| matches!(&entries[at].saw, Saw::MessageToken(MessageToken::Line(part, _)) if *part == wanted);
    let starts = (0..entries.len()).filter(|at| is(*at, Part::Start));
    let end = |start: usize| (start + 1..entries.len()).find(|at| !is(*at, Part::Field));
    starts.map(|start| start + 1..end(start).unwrap_or(entries.len())).collect()
}

fn field(entry: &Entry) -> Option<(String, String)> {
    let Saw::MessageToken(MessageToken::Line(Part::Field, line)) = &entry.saw else { return None };
    let line = String::from_utf8_lossy(line);
    let (name, value) = line.split_once(':')?;
    Some((name.to_ascii_lowercase(), value.trim().to_owned()))
}

fn version(entries: &mut [Entry], side: Role) {
    for entry in entries.iter_mut().filter(|entry| entry.side == side) {
        if let Saw::MessageToken(MessageToken::Line(Part::Start, line)) = &mut entry.saw {
            let text = line.escape_ascii().to_string().replace("HTTP/1.0", "HTTP/1.1");
            // Escaped on both sides alike.
            *line = text.into_bytes();
        }
    }
}

fn chunk_extensions(entries: &mut [Entry]) {
    for (part, line) in lines(entries) {
        if let (Part::Chunk | Part::LastChunk, Some(at)) =
            (part, line.iter().position(|b| *b == b';'))
        {
            line.truncate(at);
            line.truncate(line.trim_ascii_end().len());
            line.extend(b"\r\n");
        }
    }
}

fn chunk_sizes(entries: &mut [Entry]) {
    for (part, line) in lines(entries) {
        if matches!(part, Part::Chunk | Part::LastChunk) {
            let text = String::from_utf8_lossy(line);
            let digits = text.trim_end().trim_start_matches('0').to_ascii_uppercase();
            let digits = if part == Part::LastChunk { "0".to_owned() } else { digits };
            *line = (digits + "\r\n").into_bytes();
        }
    }
}

fn chunk_bounds(entries: &mut Vec<Entry>) {
    drop_lines(entries, |part| matches!(part, Part::Chunk | Part::ChunkEnd));
    let mut merged: Vec<Entry> = Vec::new();
    for entry in entries.drain(..) {
        if let (Some(last), Saw::MessageToken(MessageToken::Data(more))) =
            (merged.last_mut(), &entry.saw)
            && (last.step, last.side, last.connection) == (entry.step, entry.side, entry.connection)
            && let Saw::MessageToken(MessageToken::Data(data)) = &mut last.saw
        {
            data.extend(more);
        } else {
            merged.push(entry);
        }
    }
    *entries = merged;
}

fn trailer_case(entries: &mut [Entry]) {
    for (part, line) in lines(entries) {
        if let (Part::Trailer, Some(colon)) = (part, line.iter().position(|b| *b == b':')) {
            line[..colon].make_ascii_lowercase();
        }
    }
}

fn trailer_order(entries: &mut [Entry]) {
    let name = |entry: &Entry| match &entry.saw {
        Saw::MessageToken(MessageToken::Line(Part::Trailer, line)) => {
            line.split(|b| *b == b':').next().map(<[u8]>::to_ascii_lowercase)
        }
        _ => None,
    };
    for run in entries.chunk_by_mut(|one, other| name(one).is_some() && name(other).is_some()) {
        run.sort_by_key(name);
    }
}

/// The order between different names; that within a name stays.
fn field_order(entries: &mut Vec<Entry>) {
    for head in heads(entries) {
        entries[head].sort_by_key(|entry| field(entry).map(|(name, _)| name));
    }
    for entry in entries {
        if let Saw::Headers(_, fields) = &mut entry.saw {
            fields.sort_by(|(one, _), (other, _)| one.cmp(other));
        }
    }
}

/// A connection of HTTP/2 that says it ends, without an error.
fn goaway(entries: &mut Vec<Entry>) {
    entries.retain(|entry| entry.saw != Saw::Frame("GOAWAY code 0".into()));
}

/// Which of a server's connections carries a request. The first one's end is that of all.
fn connections(entries: &mut Vec<Entry>) {
    let end = |e: &Entry| e.step.is_none() && e.side == Role::Server && e.connection > 0;
    entries.retain(|entry| !(end(entry) && matches!(entry.saw, Saw::End(_))));
    entries.iter_mut().for_each(|entry| entry.connection = 0);
}

/// Whether a server's connection ends with RST or with FIN.
fn server_end(entries: &mut [Entry]) {
    for entry in entries.iter_mut().filter(|entry| entry.side == Role::Server) {
        if entry.saw == Saw::End(End::Rst) {
            entry.saw = Saw::End(End::Fin);
        }
    }
}

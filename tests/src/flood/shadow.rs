//! A hostile shadow, and what throws its flood away. In: a kind, an address. Out: bytes on sockets as fast
//! as the other side takes them, and how many there were.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use socket2::SockRef;

/// Of a shadow's socket, in bytes: what waits there has not been read.
const SEND_BUFFER: usize = 64 << 10;

/// A connection floods no longer than this, if it is not closed before.
const LONG: Duration = Duration::from_secs(60);

/// How often the counts are written.
const PAUSE: Duration = Duration::from_millis(200);

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";

/// `:method GET`, `:scheme http`, `:path /`, `:authority a`, on stream 1, and nothing behind them.
const GET: &[u8] = b"\0\0\x06\x01\x05\0\0\0\x01\x82\x86\x84\x01\x01a";

/// What a shadow sends in response to the first request of a connection.
#[derive(Clone, Debug)]
pub struct Kind {
    /// Sent once.
    first: Vec<u8>,
    /// Sent again and again.
    piece: Vec<u8>,
    /// How long it waits between two pieces.
    pause: Option<Duration>,
    /// It speaks HTTP/2.
    pub http2: bool,
}

/// Every kind, by name.
pub const NAMES: [&str; 12] = [
    "endless-body",
    "one-byte-chunks",
    "endless-headers",
    "interim-flood",
    "slow-drip",
    "h2-pings",
    "h2-settings",
    "h2-window-updates",
    "h2-resets",
    "h2-empty-data",
    "h2-unknown",
    "closes-at-once",
];

/// The kind of this name.
#[must_use]
pub fn named(name: &str) -> Option<Kind> {
    let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let h1 = |first: &[u8], piece: Vec<u8>| Kind {
        first: first.to_vec(),
        piece,
        pause: None,
        http2: false,
    };
    let h2 = |first: &[u8], kind: u8, stream: u8, payload: &[u8]| {
        let length = u8::try_from(payload.len()).expect("short");
        let frame = [&[0, 0, length, kind, 0, 0, 0, 0, stream][..], payload].concat();
        Kind { http2: true, ..h1(first, frame.repeat(500)) }
    };
    // `:status 200`.
    let ok = b"\0\0\x01\x01\x04\0\0\0\x01\x88";
    Some(match name {
        "endless-body" => {
            h1(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n", vec![b'x'; 64 << 10])
        }
        "one-byte-chunks" => h1(chunked, b"1\r\nx\r\n".repeat(2000)),
        "endless-headers" => h1(b"HTTP/1.1 200 OK\r\n", b"X-Field: a value\r\n".repeat(500)),
        "interim-flood" => {
            h1(b"", b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n".repeat(200))
        }
        "slow-drip" => {
            let drip = h1(b"HTTP/1.1 200 OK\r\n\r\n", b"x".to_vec());
            Kind { pause: Some(Duration::from_millis(1)), ..drip }
        }
        "h2-pings" => h2(b"", 6, 0, b"12345678"),
        "h2-settings" => h2(b"", 4, 0, b""),
        "h2-window-updates" => h2(b"", 8, 0, b"\0\0\0\x01"),
        "h2-resets" => h2(b"", 3, 1, b"\0\0\0\x08"),
        "h2-empty-data" => h2(ok, 0, 1, b""),
        "h2-unknown" => h2(b"", 0x77, 0, b"nobody knows"),
        "closes-at-once" => h1(b"", Vec::new()),
        _ => return None,
    })
}

/// What left a shadow, or was thrown away.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Report {
    /// Bytes.
    pub bytes: u64,
    /// Connections so far.
    pub connections: u64,
}

#[derive(Default)]
struct Counts {
    bytes: AtomicU64,
    connections: AtomicU64,
}

impl Counts {
    fn report(&self) -> Report {
        Report { bytes: self.bytes.load(Relaxed), connections: self.connections.load(Relaxed) }
    }
}

/// Serves until it is killed, and writes its counts as a line of JSON all the time.
///
/// # Errors
/// The address cannot be listened on.
pub fn serve(kind: Kind, address: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind(address).with_context(|| address.to_string())?;
    let (kind, counts) = (Arc::new(kind), Arc::<Counts>::default());
    let all = Arc::clone(&counts);
    thread::spawn(move || {
        let mut last = None;
        loop {
            let report = all.report();
            if last != Some(report) {
                println!("{}", serde_json::to_string(&report).expect("numbers"));
                last = Some(report);
            }
            thread::sleep(PAUSE);
        }
    });
    for stream in listener.incoming() {
        let (kind, counts) = (Arc::clone(&kind), Arc::clone(&counts));
        counts.connections.fetch_add(1, Relaxed);
        thread::spawn(move || {
            // How it failed is of no interest: the other side has closed it.
            let _ = stream.and_then(|stream| kind.flood(stream, &counts));
        });
    }
    Ok(())
}

impl Kind {
    /// What a client of this kind of shadow sends.
    fn request(&self) -> Vec<u8> {
        if self.http2 {
            [PREFACE, SETTINGS, GET].concat()
        } else {
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()
        }
    }

    fn flood(&self, mut stream: TcpStream, counts: &Counts) -> std::io::Result<()> {
        let mut scratch = [0; 16 << 10];
        if self.piece.is_empty() {
            return Ok(());
        }
        stream.set_nodelay(true)?;
        SockRef::from(&stream).set_send_buffer_size(SEND_BUFFER)?;
        if self.http2 {
            stream.write_all(SETTINGS)?;
            // Its preface alone is no request.
            loop {
                let count = stream.read(&mut scratch)?;
                if count == 0 || has_headers(&scratch[..count]) {
                    break;
                }
            }
        } else if stream.read(&mut scratch)? == 0 {
            return Ok(());
        }
        stream.write_all(&self.first)?;
        // What it says meanwhile is read as well, so that it can say more.
        let mut reader = stream.try_clone()?;
        thread::spawn(move || while reader.read(&mut scratch).is_ok_and(|count| count > 0) {});
        let begun = Instant::now();
        while begun.elapsed() < LONG {
            stream.write_all(&self.piece)?;
            counts.bytes.fetch_add(self.piece.len() as u64, Relaxed);
            self.pause.into_iter().for_each(thread::sleep);
        }
        Ok(())
    }
}

/// Whether a frame of the type HEADERS begins here, or behind frames that are whole.
fn has_headers(mut bytes: &[u8]) -> bool {
    bytes = bytes.strip_prefix(PREFACE).unwrap_or(bytes);
    while let [a, b, c, kind, ..] = *bytes {
        if kind == 1 {
            return true;
        }
        let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        bytes = bytes.get(9 + length..).unwrap_or_default();
    }
    false
}

/// Asks a hostile shadow on so many connections and throws away what it sends, for so long; a connection
/// that ends is made again.
///
/// # Errors
/// Threads cannot be made.
pub fn throw_away(
    kind: &Kind,
    address: SocketAddr,
    connections: usize,
    duration: Duration,
) -> Result<Report> {
    let counts = Counts::default();
    let end = Instant::now() + duration;
    thread::scope(|scope| {
        for _ in 0..connections {
            scope.spawn(|| {
                while Instant::now() < end {
                    // One that fails is made again.
                    let _ = read_all(kind, address, end, &counts);
                    thread::sleep(Duration::from_millis(10));
                }
            });
        }
    });
    Ok(counts.report())
}

fn read_all(kind: &Kind, address: SocketAddr, end: Instant, counts: &Counts) -> Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_millis(100)))?;
    stream.write_all(&kind.request())?;
    counts.connections.fetch_add(1, Relaxed);
    let mut scratch = vec![0; 256 << 10];
    while Instant::now() < end {
        match stream.read(&mut scratch) {
            Ok(0) => break,
            Ok(count) => {
                counts.bytes.fetch_add(count as u64, Relaxed);
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_known_and_requested_in_its_own_protocol() {
        for name in NAMES {
            let kind = named(name).unwrap();
            assert_eq!(kind.http2, name.starts_with("h2-"));
            assert_eq!(has_headers(&kind.request()), kind.http2, "{name}");
        }
        assert!(named("another").is_none());
        assert!(!has_headers(&[PREFACE, SETTINGS].concat()));
    }
}

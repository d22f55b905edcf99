//! Shadows that send without end. What is read of them is bounded, whatever it is made of; their
//! connections are closed, and copies are accounted for. Bytes are counted where they leave.

use std::{
    io::Write,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread::sleep,
    time::{Duration, Instant},
};

use mirror_user::{
    outcome::{
        CopyOutcome::{Delivered, Dropped, Unknown},
        DropReason, ShadowClosed, UnknownReason,
    },
    route::{AppProtocol, Backend, Filter, Fraction, Mirror},
};
use socket2::SockRef;

use super::{
    faults::unharmed,
    frames::{DATA, Frame, HEADERS, PING, RST_STREAM, RawFrames, SETTINGS, WINDOW_UPDATE, indexed},
    harness::{Rig, Setup, backend_ref, describe, ended, eventually, rule, service},
    raw_connection::RawConnection,
    server::Server,
};

/// Copies at once, and connections of HTTP/1.
const COPIES: usize = 8;

/// Of a shadow's socket, in bytes: what waits there was not read.
const SEND_BUFFER: usize = 16 * 1024;

/// What the kernel may hold of one connection on both sides, in bytes.
const KERNEL: usize = 512 * 1024;

/// What is read of one connection, in bytes: at once, then per tick until it is closed.
const READ: usize = (128 << 10) + (1 << 20) + (128 << 10);

/// How long a flood lasts that nobody ends.
const LONG: Duration = Duration::from_secs(20);

/// After so long they have been closed.
const SOON: Duration = Duration::from_secs(10);

/// What left a shadow's sockets.
#[derive(Clone, Default)]
struct Sent {
    bytes: Arc<AtomicUsize>,
    over: Arc<AtomicUsize>,
}

impl Sent {
    /// Writes pieces until the other side closes, or for too long.
    fn flood(&self, raw_connection: &RawConnection, piece: &[u8]) {
        let mut stream = raw_connection.stream();
        SockRef::from(stream).set_send_buffer_size(SEND_BUFFER).expect("a socket has buffers");
        let begun = Instant::now();
        while begun.elapsed() < LONG && stream.write_all(piece).is_ok() {
            self.bytes.fetch_add(piece.len(), SeqCst);
        }
        self.over.fetch_add(1, SeqCst);
    }

    fn bytes(&self) -> usize {
        self.bytes.load(SeqCst)
    }
}

/// A shadow of HTTP/1 that reads a request, sends `first`, and then `piece` without end.
fn flooding(first: &'static [u8], piece: Vec<u8>) -> (Server, Sent) {
    let sent = Sent::default();
    let count = sent.clone();
    let server = Server::start(move |mut visit| {
        if visit.request().is_some() {
            visit.raw_connection.send(first);
            count.flood(&visit.raw_connection, &piece);
        }
    });
    (server, sent)
}

/// Sends copies at once, and waits until the agent has closed `connections` of the shadow's, while
/// other requests are answered as promptly as ever.
fn all_closed(rig: &Rig, sent: &Sent, connections: usize) {
    let begun = Instant::now();
    let mut wires: Vec<_> = (0..COPIES).map(|_| rig.client()).collect();
    for raw_connection in &mut wires {
        raw_connection.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nxx");
    }
    for raw_connection in &mut wires {
        assert_eq!(raw_connection.message().body, b"ok");
    }
    eventually("the agent has closed them", || sent.over.load(SeqCst) >= connections);
    assert!(begun.elapsed() < SOON, "only when the flood ended: {} bytes", sent.bytes());
}

fn closed(rig: &Rig, reason: ShadowClosed) -> u64 {
    rig.copies("shadow").closed[reason as usize]
}

#[test]
fn of_a_body_without_end_little_is_read_and_its_connection_is_closed() {
    for (first, piece) in [
        (&b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n"[..], vec![b'x'; 16 << 10]),
        (b"HTTP/1.1 200 OK\r\n\r\n", vec![b'x'; 16 << 10]),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            [&b"4000\r\n"[..], &[b'x'; 16 << 10], b"\r\n"].concat(),
        ),
    ] {
        let (primary, (shadow, sent)) = (Server::ok(), flooding(first, piece));
        let rig = Setup::mirrored(&primary, shadow.address).start();
        all_closed(&rig, &sent, COPIES);
        rig.all_ended("shadow", COPIES as u64, Delivered);
        assert!(sent.bytes() < COPIES * (READ + KERNEL), "{}", sent.bytes());
        eventually("they are counted", || closed(&rig, ShadowClosed::LongResponse) == 8);
        assert_eq!(closed(&rig, ShadowClosed::Flood), 0);
    }
}

#[test]
fn what_carries_no_content_is_a_flood_and_sends_its_endpoint_to_rest() {
    let chunked = &b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"[..];
    let interim = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    for (first, piece, outcome) in [
        (chunked, b"1\r\nx\r\n".repeat(1000), Delivered),
        (&b""[..], interim.repeat(100), Unknown(UnknownReason::Flood)),
        (b"HTTP/1.1 100 Continue\r\n\r\n", interim.repeat(100), Unknown(UnknownReason::Flood)),
    ] {
        let (primary, (shadow, sent)) = (Server::ok(), flooding(first, piece));
        let rig = Setup::mirrored(&primary, shadow.address).start();
        all_closed(&rig, &sent, COPIES);
        rig.all_ended("shadow", COPIES as u64, outcome);
        assert!(sent.bytes() < COPIES * (READ / 4 + KERNEL), "{}", sent.bytes());
        eventually("they are counted", || closed(&rig, ShadowClosed::Flood) == COPIES as u64);
        // It comes with the count.
        unharmed(&rig, 1, 5);
        let copies = rig.settled("shadow", COPIES as u64 + 1);
        assert_eq!(ended(&copies, Dropped(DropReason::Backoff)), 1, "{}", describe(&copies));
    }
}

#[test]
fn a_head_without_end_is_malformed_long_before() {
    let (primary, (shadow, sent)) =
        (Server::ok(), flooding(b"HTTP/1.1 200 OK\r\n", b"X-Field: some value\r\n".repeat(500)));
    let rig = Setup::mirrored(&primary, shadow.address).start();
    all_closed(&rig, &sent, COPIES);
    rig.all_ended("shadow", COPIES as u64, Unknown(UnknownReason::Malformed));
    assert!(sent.bytes() < COPIES * (READ / 2 + KERNEL), "{}", sent.bytes());
}

#[test]
fn copies_behind_an_endless_response_are_accounted_for() {
    let sent = Sent::default();
    let count = sent.clone();
    let ok = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let shadow = Server::start(move |mut visit| {
        for _ in 0..3 {
            if visit.request().is_none() {
                return;
            }
            visit.raw_connection.send(ok);
        }
        visit.request();
        sleep(Duration::from_millis(20));
        visit.raw_connection.send("HTTP/1.1 200 OK\r\n\r\n");
        count.flood(&visit.raw_connection, &[b'x'; 16 << 10]);
    });
    let primary = Server::ok();
    let mut setup = Setup::mirrored(&primary, shadow.address);
    setup.options.shadow.connections = 1;
    let rig = setup.start();
    let mut client = rig.client();
    for n in 1..=3 {
        client.request("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        rig.all_ended("shadow", n, Delivered);
    }
    for _ in 0..4 {
        client.request("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    eventually("it is closed", || sent.over.load(SeqCst) == 1);
    let copies = rig.settled("shadow", 7);
    // The first of the four is answered; what was behind it may have been carried out.
    assert_eq!(ended(&copies, Delivered), 4, "{}", describe(&copies));
    assert_eq!(ended(&copies, Unknown(UnknownReason::Flood)), 3, "{}", describe(&copies));
}

/// A shadow that answers with content of this length.
fn responding(length: usize) -> Server {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
    Server::responding([head.into_bytes(), vec![b'x'; length]].concat())
}

#[test]
fn ordinary_responses_are_read_as_they_come_and_longer_ones_to_their_end() {
    for (length, copies, limit) in
        [(64 << 10, 100, Duration::from_secs(2)), (600 << 10, 4, Duration::from_secs(8))]
    {
        let (primary, shadow) = (Server::ok(), responding(length));
        let mut setup = Setup::mirrored(&primary, shadow.address);
        setup.options.shadow.connections = 1;
        let rig = setup.start();
        let begun = Instant::now();
        for n in 1..=copies {
            unharmed(&rig, 1, 5);
            rig.all_ended("shadow", n, Delivered);
            eventually("the next may go", || shadow.requests().len() as u64 == n);
        }
        let took = begun.elapsed();
        assert!(took < limit, "{length}: {took:?}");
        assert_eq!(shadow.connections(), 1, "{length}");
    }
}

/// Mirrored to a shadow that is spoken to in HTTP/2.
fn mirrored_to_h2c(primary: SocketAddr, shadow: SocketAddr) -> Rig {
    let backend = Backend {
        service: service("shadow"),
        protocol: AppProtocol::H2c,
        addresses: Vec::new(),
        endpoints: vec![shadow],
        unready: Vec::new(),
        affinity: false,
    };
    let mirror = Filter::Mirror(Mirror { target: Ok(Arc::new(backend)), share: Fraction::ALL });
    let refs = vec![backend_ref("primary", &[primary])];
    Setup::rules(primary, vec![rule(vec![mirror], refs)]).start()
}

/// A shadow of HTTP/2 that sends these frames without end once it has a request on stream 1; `response`: it
/// responds before, and with this it ends the stream.
fn flooding_frames(response: Option<bool>, frames: &[Frame]) -> (Server, Sent) {
    let sent = Sent::default();
    let count = sent.clone();
    let piece: Vec<u8> = frames.iter().flat_map(Frame::bytes).collect();
    let piece = piece.repeat(1 + 8192 / piece.len());
    let server = Server::start(move |visit| {
        let mut raw = RawFrames::accepted(visit.raw_connection, &[]);
        raw.next(HEADERS);
        if let Some(end) = response {
            raw.headers(1, end, indexed(8));
        }
        count.flood(&raw.0, &piece);
    });
    (server, sent)
}

#[test]
fn frames_that_nobody_requested_are_a_flood() {
    let frames = [
        ("PING", vec![Frame::new(PING, 0, 0, [7; 8])]),
        ("SETTINGS", vec![Frame::new(SETTINGS, 0, 0, [])]),
        ("WINDOW_UPDATE", vec![Frame::new(WINDOW_UPDATE, 0, 1, 1_u32.to_be_bytes())]),
        ("PRIORITY", vec![Frame::new(2, 0, 1, [0, 0, 0, 3, 7])]),
        ("unknown", vec![Frame::new(0x77, 0, 0, [7; 20])]),
        ("empty DATA", vec![Frame::new(DATA, 0, 1, [])]),
        ("interim", vec![Frame::new(HEADERS, 4, 1, b"\x08\x03103")]),
        ("RST_STREAM", vec![Frame::new(RST_STREAM, 0, 1, 8_u32.to_be_bytes())]),
    ];
    for (name, frames) in frames {
        let response = if name == "empty DATA" { Some(false) } else { None };
        let (primary, (shadow, sent)) = (Server::ok(), flooding_frames(response, &frames));
        let rig = mirrored_to_h2c(primary.address, shadow.address);
        all_closed(&rig, &sent, 1);
        let copies = rig.settled("shadow", COPIES as u64);
        println!("{name}: {} bytes; {}", sent.bytes(), describe(&copies));
        assert!(sent.bytes() < READ + KERNEL, "{name}: {}", sent.bytes());
    }
}

#[test]
fn a_flood_on_an_idle_connection_is_one_as_well() {
    let ping = [Frame::new(PING, 0, 0, [7; 8])];
    let (primary, (shadow, sent)) = (Server::ok(), flooding_frames(Some(true), &ping));
    let rig = mirrored_to_h2c(primary.address, shadow.address);
    unharmed(&rig, 1, 5);
    rig.all_ended("shadow", 1, Delivered);
    eventually("it is closed", || sent.over.load(SeqCst) == 1);
    assert!(sent.bytes() < READ / 4 + KERNEL, "{}", sent.bytes());
}

#[test]
fn a_long_response_on_a_stream_costs_that_stream_alone() {
    let piece = [7; 16 << 10];
    let sent = Sent::default();
    let count = sent.clone();
    let shadow = Server::start(move |visit| {
        let mut raw = RawFrames::accepted(visit.raw_connection, &[]);
        // What the other side allows from the beginning, in pieces; and as it takes them.
        let mut pieces = 256 / 16;
        while let Ok(frame) = raw.try_next() {
            match (frame.kind, frame.stream) {
                (HEADERS, 1) => raw.headers(1, false, indexed(8)),
                (HEADERS, stream) => raw.headers(stream, true, indexed(8)),
                (WINDOW_UPDATE, 1) => {
                    let more = frame.payload[..].try_into().expect("four bytes");
                    pieces += u32::from_be_bytes(more) / (16 << 10);
                }
                (RST_STREAM, 1) => {
                    count.over.fetch_add(1, SeqCst);
                }
                _ => {}
            }
            if sent_to(&frame) == 1 {
                for _ in 0..std::mem::take(&mut pieces) {
                    raw.send(DATA, 0, 1, piece);
                    count.bytes.fetch_add(piece.len(), SeqCst);
                }
            }
        }
    });
    let primary = Server::ok();
    let rig = mirrored_to_h2c(primary.address, shadow.address);
    unharmed(&rig, 1, 5);
    eventually("its stream is reset", || sent.over.load(SeqCst) == 1);
    assert!(sent.bytes() < READ + KERNEL, "{}", sent.bytes());
    unharmed(&rig, 3, 5);
    rig.all_ended("shadow", 4, Delivered);
    assert_eq!(shadow.connections(), 1);
    eventually("it is counted", || closed(&rig, ShadowClosed::LongResponse) == 1);
}

/// The stream that a frame says something of.
fn sent_to(frame: &Frame) -> u32 {
    if matches!(frame.kind, HEADERS | WINDOW_UPDATE) { frame.stream } else { 0 }
}

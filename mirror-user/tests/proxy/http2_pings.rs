//! PINGs of a client mean its primary, and so does what the primary says when it goes away.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    time::Duration,
};

use super::{
    frames::{ACK, DATA, END_STREAM, GOAWAY, HEADERS, PING, RawFrames, WINDOW_UPDATE, request},
    harness::{Rig, Setup, backend_ref, rule},
    http2::to,
    raw_connection::End,
    server::Server,
};

const QUIET: Duration = Duration::from_millis(200);

const NO_ERROR: u32 = 0;
const ENHANCE_YOUR_CALM: u32 = 11;

/// A primary that responds to each request, and acknowledges PINGs while it may.
struct Primary {
    server: Server,
    pings: Arc<AtomicUsize>,
    lives: Arc<AtomicBool>,
}

impl Primary {
    fn start() -> Self {
        let (pings, lives) = (Arc::<AtomicUsize>::default(), Arc::new(AtomicBool::new(true)));
        let (counted, alive) = (Arc::clone(&pings), Arc::clone(&lives));
        let server = Server::start(move |visit| {
            let mut raw = RawFrames::accepted(visit.raw_connection, &[]);
            while let Ok(frame) = raw.try_next() {
                match frame.kind {
                    HEADERS => raw.headers(frame.stream, true, [0x88]),
                    PING if frame.flags & ACK == 0 => {
                        counted.fetch_add(1, SeqCst);
                        while !alive.load(SeqCst) {
                            std::thread::sleep(Duration::from_millis(5));
                        }
                        raw.send(PING, ACK, 0, frame.payload);
                    }
                    _ => {}
                }
            }
        });
        Self { server, pings, lives }
    }

    fn pings(&self) -> usize {
        self.pings.load(SeqCst)
    }
}

/// A client with one response.
fn client(rig: &Rig) -> RawFrames {
    let mut raw = RawFrames::connect(rig.address());
    get(&mut raw, 1);
    raw
}

fn get(raw: &mut RawFrames, stream: u32) {
    raw.headers(stream, true, request("/"));
    assert_eq!(raw.next(HEADERS).stream, stream);
}

fn pong(raw: &mut RawFrames) -> Vec<u8> {
    let frame = raw.next(PING);
    assert_eq!(frame.flags, ACK);
    frame.payload
}

#[test]
fn a_ping_goes_as_far_as_the_primary() {
    let primary = Primary::start();
    let rig = to(primary.server.address);
    let mut raw = client(&rig);
    assert_eq!(primary.pings(), 0, "none but in response to the client's");
    for n in 1..=20_u8 {
        raw.ping(&[n; 8]);
        assert_eq!(pong(&mut raw), [n; 8]);
        assert_eq!(primary.pings(), usize::from(n));
    }
    get(&mut raw, 3);
}

#[test]
fn a_ping_before_any_request_is_acknowledged_at_once() {
    let primary = Primary::start();
    let rig = to(primary.server.address);
    let mut raw = RawFrames::connect(rig.address());
    raw.ping(b"12345678");
    assert_eq!(pong(&mut raw), b"12345678");
    assert_eq!(primary.server.connections(), 0);
}

#[test]
fn no_ping_is_acknowledged_for_a_primary_that_says_nothing() {
    let primary = Primary::start();
    let rig = to(primary.server.address);
    let mut raw = client(&rig);
    primary.lives.store(false, SeqCst);
    for n in 0..3 {
        raw.ping(&[n; 8]);
    }
    assert!(raw.no_pong_for(QUIET));
    assert_eq!(primary.pings(), 1, "one on its way at a time");
    primary.lives.store(true, SeqCst);
    for n in 0..3 {
        assert_eq!(pong(&mut raw), [n; 8], "in their order");
    }
    assert!(primary.pings() <= 3, "not more than the client's");
}

#[test]
fn pings_beyond_a_bound_are_held_by_nobody() {
    let primary = Primary::start();
    let rig = to(primary.server.address);
    let mut raw = client(&rig);
    primary.lives.store(false, SeqCst);
    for n in 0..1000_u64 {
        raw.ping(&n.to_be_bytes());
    }
    assert!(raw.no_pong_for(QUIET));
    primary.lives.store(true, SeqCst);
    let mut acknowledged = vec![pong(&mut raw)];
    while acknowledged.last().is_some_and(|last| *last != 999_u64.to_be_bytes()) {
        acknowledged.push(pong(&mut raw));
    }
    assert_eq!(acknowledged.len(), 16, "the first ones, and the newest");
    assert!(raw.no_pong_for(QUIET));
    raw.ping(b"and more");
    assert_eq!(pong(&mut raw), b"and more");
}

#[test]
fn with_two_primaries_a_ping_is_acknowledged_at_once() {
    let primaries = [Primary::start(), Primary::start()];
    let addresses = primaries.each_ref().map(|primary| primary.server.address);
    let refs = vec![backend_ref("one", &addresses[..1]), backend_ref("other", &addresses[1..])];
    let rig = Setup::rules(addresses[0], vec![rule(Vec::new(), refs)]).start();
    let mut raw = RawFrames::connect(rig.address());
    let mut stream = 1;
    while primaries.iter().any(|primary| primary.server.connections() == 0) {
        get(&mut raw, stream);
        stream += 2;
    }
    primaries.iter().for_each(|primary| primary.lives.store(false, SeqCst));
    raw.ping(b"12345678");
    assert_eq!(pong(&mut raw), b"12345678");
    assert_eq!(primaries.iter().map(Primary::pings).sum::<usize>(), 0);
}

/// A primary whose connection plays `end` once it is told to, after one response.
fn told(end: fn(RawFrames)) -> (Server, mpsc::Sender<()>) {
    let (tell, told) = mpsc::channel();
    let told = Arc::new(std::sync::Mutex::new(told));
    let server = Server::start(move |visit| {
        let mut raw = RawFrames::accepted(visit.raw_connection, &[]);
        let stream = raw.next(HEADERS).stream;
        raw.headers(stream, true, [0x88]);
        let _ = told.lock().expect("no panic").recv();
        end(raw);
    });
    (server, tell)
}

#[test]
fn a_primary_that_closes_with_a_ping_on_its_way_takes_the_clients_connection_with_it() {
    let (server, tell) = told(drop);
    let rig = to(server.address);
    let mut raw = client(&rig);
    raw.ping(b"12345678");
    assert!(raw.no_pong_for(QUIET));
    tell.send(()).unwrap();
    let mut seen = Vec::new();
    while let Ok(frame) = raw.try_next() {
        seen.push((frame.kind, frame.flags));
    }
    assert_eq!(seen, [(GOAWAY, 0)], "nobody has acknowledged it");
}

#[test]
fn a_primary_that_goes_away_ends_an_idle_client_in_good_order() {
    let (server, tell) = told(|mut raw| {
        raw.send(GOAWAY, 0, 0, [0, 0, 0, 1, 0, 0, 0, 0]);
        let _ = raw.0.rest();
    });
    let rig = to(server.address);
    let mut raw = client(&rig);
    assert!(raw.0.is_silent_for(QUIET));
    tell.send(()).unwrap();
    let goaway = raw.next(GOAWAY);
    assert_eq!((goaway.code(), &goaway.payload[..4]), (NO_ERROR, &[0, 0, 0, 1][..]));
    assert_eq!(raw.try_next(), Err(End::Fin));
}

#[test]
fn a_primary_that_goes_away_cuts_no_response_that_waits_for_its_client() {
    for code in [0, 11] {
        let server = Server::start(move |visit| {
            let mut raw = RawFrames::accepted(visit.raw_connection, &[]);
            let stream = raw.next(HEADERS).stream;
            raw.headers(stream, false, [0x88]);
            raw.send(DATA, END_STREAM, stream, [7; 10_000]);
            raw.send(GOAWAY, 0, 0, [0, 0, 0, 1, 0, 0, 0, code]);
        });
        let rig = to(server.address);
        // A window of 1,000 bytes for each stream.
        let mut raw = RawFrames::connect_as(rig.address(), &[(4, 1000)]);
        raw.headers(1, true, request("/"));
        assert_eq!(raw.data(1).len(), 1000);
        assert!(raw.0.is_silent_for(QUIET), "{code}");
        raw.send(WINDOW_UPDATE, 0, 1, 20_000_u32.to_be_bytes());
        let mut left = 9000;
        while left > 0 {
            left -= raw.data(1).len();
        }
        assert_eq!(raw.next(GOAWAY).code(), u32::from(code));
        assert_eq!(raw.try_next(), Err(End::Fin));
    }
}

/// GOAWAY as a server of gRPC says it, and the end.
fn too_many_pings(mut raw: RawFrames) {
    raw.send(GOAWAY, 0, 0, [&[0, 0, 0, 3, 0, 0, 0, 11][..], b"too_many_pings"].concat());
}

#[test]
fn the_reason_why_a_primary_goes_away_is_the_clients_to_know() {
    for busy in [false, true] {
        let (server, tell) = told(too_many_pings);
        let rig = to(server.address);
        let mut raw = client(&rig);
        if busy {
            raw.headers(3, true, request("/"));
            assert!(raw.0.is_silent_for(QUIET));
        }
        tell.send(()).unwrap();
        let goaway = raw.next(GOAWAY);
        assert_eq!(
            (goaway.code(), &goaway.payload[8..]),
            (ENHANCE_YOUR_CALM, &b"too_many_pings"[..])
        );
        assert_eq!(raw.try_next(), Err(End::Fin), "{busy}");
    }
}

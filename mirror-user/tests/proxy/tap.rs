//! Tapped connections: copies of what a client sends to its primary itself, with holes where segments were
//! lost.
#![allow(clippy::unwrap_used, reason = "helpers of tests; clippy knows only the tests themselves")]

use std::{
    collections::VecDeque,
    io::pipe,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    sync::{Arc, Mutex},
};

use mirror_user::{
    outcome::{CopyOutcome, DropReason, TapEnd},
    route::{Fraction, FrontendState},
    segment::{Segment, SegmentKind, SegmentSource, TappedSocket},
};

use super::{
    access::logged,
    harness::{
        FRONTEND, Rig, Setup, ended, eventually, frontend, mirror, mirror_of, own_ref, rule,
    },
    server::Server,
};

/// A segment that waits to be read: connection, place, kind, bytes.
type Queued = (u64, u64, SegmentKind, Vec<u8>);

/// What clients send, by hand.
#[derive(Clone, Default)]
struct Ring {
    segments: Arc<Mutex<VecDeque<Queued>>>,
    stopped: Arc<Mutex<Vec<u64>>>,
}

struct Source {
    ring: Ring,
    /// Never readable: the worker looks by itself.
    quiet: OwnedFd,
    _writer: OwnedFd,
}

impl SegmentSource for Source {
    fn read(&mut self, with: &mut dyn FnMut(Segment<'_>)) -> bool {
        let next = self.ring.segments.lock().unwrap().pop_front();
        let Some((connection, place, kind, bytes)) = next else { return false };
        with(Segment {
            socket: socket(connection),
            // Of the rig's first workload.
            netns: 1,
            frontend: FRONTEND,
            place,
            kind,
            bytes: &bytes,
        });
        true
    }

    fn stop(&mut self, socket: TappedSocket) {
        self.ring.stopped.lock().unwrap().push(socket.cookie);
    }

    fn fall_asleep(&mut self) {}

    fn fd(&self) -> BorrowedFd<'_> {
        self.quiet.as_fd()
    }
}

fn socket(connection: u64) -> TappedSocket {
    TappedSocket { cookie: connection, generation: 7 }
}

impl Ring {
    fn source(&self) -> Box<Source> {
        let (quiet, writer) = pipe().unwrap();
        Box::new(Source { ring: self.clone(), quiet: quiet.into(), _writer: writer.into() })
    }

    fn push(&self, connection: u64, place: u64, kind: SegmentKind, bytes: &[u8]) {
        self.segments.lock().unwrap().push_back((connection, place, kind, bytes.into()));
    }

    fn start(&self, connection: u64) {
        self.push(connection, 0, SegmentKind::Start, b"");
    }

    fn data(&self, connection: u64, place: usize, bytes: &[u8]) {
        self.push(connection, place as u64, SegmentKind::Data, bytes);
    }

    /// A connection that sends this, in segments of `length` bytes, and is closed.
    fn whole(&self, connection: u64, text: &[u8], length: usize) {
        self.start(connection);
        for (at, piece) in text.chunks(length).enumerate() {
            self.data(connection, at * length, piece);
        }
        self.push(connection, text.len() as u64, SegmentKind::End, b"");
    }
}

/// A tapped frontend whose requests are mirrored by these filters.
fn setup(ring: &Ring, primary: &Server, filters: Vec<mirror_user::route::Filter>) -> Setup {
    let mut setup =
        Setup::rules(primary.address, vec![rule(filters, vec![own_ref(primary.address)])]);
    setup.tap = Some(ring.source());
    setup
}

fn post(number: usize, content: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST /{number} HTTP/1.1\r\nHost: front\r\nContent-Length: {}\r\n\r\n",
        content.len()
    );
    [head.as_bytes(), content].concat()
}

fn ends(rig: &Rig, end: TapEnd) -> u64 {
    rig.report().tap_ends[end as usize]
}

#[test]
fn requests_are_copied_from_segments_of_any_length() {
    for length in [1, 7, 100, 100_000] {
        let (ring, primary, shadow) = (Ring::default(), Server::ok(), Server::ok());
        let rig = setup(&ring, &primary, vec![mirror("shadow", shadow.address)]).start();
        let text = [
            b"GET /0 HTTP/1.1\r\nHost: front\r\n\r\nGET /1 HTTP/1.1\r\nHost: front\r\n\r\n"
                .to_vec(),
            post(2, &[7; 3000]),
            b"POST /3 HTTP/1.1\r\nHost: front\r\nTransfer-Encoding: chunked\r\n\r\n\
              3;a=b\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n"
                .to_vec(),
        ]
        .concat();
        ring.whole(5, &text, length);
        rig.all_ended("shadow", 4, CopyOutcome::Delivered);
        let mut got = shadow.requests();
        got.sort_by_key(|message| message.head.as_bytes()[5..7].to_vec());
        let lines: Vec<_> = got.iter().map(|m| m.head.lines().next().unwrap()).collect();
        let expected = ["GET /0", "GET /1", "POST /2", "POST /3"].map(|l| format!("{l} HTTP/1.1"));
        let sorted = |mut lines: Vec<String>| {
            lines.sort();
            lines
        };
        assert_eq!(
            sorted(lines.iter().map(ToString::to_string).collect()),
            sorted(expected.to_vec()),
            "{length}"
        );
        for message in &got {
            assert_eq!(message.values("Host"), ["front-shadow"]);
            match message.head.split(' ').nth(1).unwrap() {
                "/2" => assert_eq!(message.body, [7; 3000]),
                "/3" => {
                    assert_eq!(message.body, b"abc");
                    assert!(message.trailers.eq_ignore_ascii_case("X-Sum: 1\r\n"), "{message:?}");
                }
                _ => assert!(message.body.is_empty()),
            }
        }
        let report = rig.report();
        assert_eq!(report.exchanges.values().map(|counts| counts.tapped).sum::<u64>(), 4);
        assert_eq!(report.tap_ends.iter().sum::<u64>(), 0);
        assert_eq!(primary.connections(), 0, "its client talks to it");
    }
}

#[test]
fn a_hole_in_content_cuts_one_copy_and_reading_goes_on_behind_it() {
    let (ring, primary, shadow) = (Ring::default(), Server::ok(), Server::ok());
    let rig = setup(&ring, &primary, vec![mirror("shadow", shadow.address)]).start();
    let requests = [post(1, &[1; 5000]), post(2, &[2; 5000]), post(3, &[3; 10])];
    let text = requests.concat();
    let second = requests[0].len() + requests[1].len() - 4000;
    ring.start(5);
    ring.data(5, 0, &text[..second]);
    // What looks like a request is missing as well.
    ring.data(5, second + 1000, &text[second + 1000..]);
    ring.push(5, text.len() as u64, SegmentKind::End, b"");
    let copies = rig.settled("shadow", 3);
    assert_eq!(ended(&copies, CopyOutcome::Delivered), 2);
    assert_eq!(ended(&copies, CopyOutcome::Dropped(DropReason::Tap)), 1);
    let mut whole: Vec<_> = shadow.requests().into_iter().map(|m| m.body).collect();
    whole.sort();
    assert!(whole.contains(&vec![1; 5000]) && whole.contains(&vec![3; 10]));
    assert!(!whole.contains(&vec![2; 5000]));
    assert!(ring.stopped.lock().unwrap().is_empty());
}

#[test]
fn a_lost_head_ends_the_copies_of_its_connection_and_of_no_other() {
    let (ring, primary, shadow) = (Ring::default(), Server::ok(), Server::ok());
    let rig = setup(&ring, &primary, vec![mirror("shadow", shadow.address)]).start();
    // The content looks like requests.
    let trap = b"GET /trap HTTP/1.1\r\nHost: front\r\n\r\n".repeat(9);
    let requests = [post(1, b"one"), post(2, &trap), post(3, b"three")];
    let text = requests.concat();
    let (second, third) = (requests[0].len(), requests[0].len() + requests[1].len());
    ring.start(5);
    ring.data(5, 0, &text[..second]);
    ring.data(5, third - trap.len(), &text[third - trap.len()..third]);
    ring.data(5, third, &text[third..]);
    ring.whole(6, &post(4, b"four"), 10);
    rig.all_ended("shadow", 2, CopyOutcome::Delivered);
    eventually("it is given up", || ends(&rig, TapEnd::Lost) == 1);
    eventually("nothing more of it is wanted", || ring.stopped.lock().unwrap().contains(&5));
    let mut bodies: Vec<_> = shadow.requests().into_iter().map(|m| m.body).collect();
    bodies.sort();
    assert_eq!(bodies, [b"four".to_vec(), b"one".to_vec()]);
}

#[test]
fn a_client_that_goes_away_within_its_content_has_its_copy_cut() {
    let (ring, primary, shadow) = (Ring::default(), Server::ok(), Server::ok());
    let rig = setup(&ring, &primary, vec![mirror("shadow", shadow.address)]).start();
    let text = post(1, &[1; 500]);
    for (connection, kind) in [(5, SegmentKind::End), (6, SegmentKind::Reset)] {
        ring.start(connection);
        ring.data(connection, 0, &text[..text.len() - 1]);
        ring.push(connection, text.len() as u64 - 1, kind, b"");
    }
    rig.all_ended("shadow", 2, CopyOutcome::Dropped(DropReason::ClientGone));
    // Its end is known, and its last byte is not.
    ring.start(7);
    ring.data(7, 0, &text[..text.len() - 1]);
    ring.push(7, text.len() as u64, SegmentKind::End, b"");
    let copies = rig.settled("shadow", 3);
    assert_eq!(ended(&copies, CopyOutcome::Dropped(DropReason::Tap)), 1);
    assert!(shadow.requests().is_empty(), "no copy is made to look whole");
}

#[test]
fn several_mirrors_and_shares_apply() {
    let (ring, primary) = (Ring::default(), Server::ok());
    let [one, two] = [Server::ok(), Server::ok()];
    let never = Fraction { numerator: 0, denominator: 100 };
    let filters = vec![
        mirror("one", one.address),
        mirror_of("never", one.address, never),
        mirror("two", two.address),
    ];
    let rig = setup(&ring, &primary, filters).start();
    ring.whole(5, &post(1, b"x"), 9);
    for (name, server) in [("one", &one), ("two", &two)] {
        rig.all_ended(name, 1, CopyOutcome::Delivered);
        assert_eq!(server.wait_requests(1)[0].body, b"x");
    }
    assert_eq!(rig.copies("never").selected, 0);
}

#[test]
fn a_line_of_the_log_says_that_it_was_tapped() {
    let (ring, primary, shadow) = (Ring::default(), Server::ok(), Server::ok());
    let lines = logged(setup(&ring, &primary, vec![mirror("shadow", shadow.address)]), |rig| {
        ring.whole(5, &post(1, b"four"), 1000);
        rig.all_ended("shadow", 1, CopyOutcome::Delivered);
    });
    let [line] = &lines[..] else { panic!("{lines:?}") };
    for (field, value) in [
        ("mode", "tap".into()),
        ("target", "/1".into()),
        ("client", "default/client-1".into()),
        ("ending", "complete".into()),
        ("answer", "none".into()),
        ("status", serde_json::Value::Null),
        ("request_bytes", 4.into()),
        ("copies", 1.into()),
        ("attempts", 0.into()),
    ] {
        assert_eq!(line[field], value, "{field}: {line}");
    }
}

#[test]
fn what_a_worker_holds_is_bounded() {
    let (ring, primary, shadow) = (Ring::default(), Server::ok(), Server::ok());
    let rig = setup(&ring, &primary, vec![mirror("shadow", shadow.address)]).start();
    // Heads of 200 KiB that never end, on a hundred connections.
    let head = [b"GET / HTTP/1.1\r\nX: ".to_vec(), vec![b'x'; 200 << 10]].concat();
    for connection in 0..100 {
        ring.start(connection);
        ring.data(connection, 0, &head);
    }
    ring.whole(1000, &post(1, b"x"), 1000);
    rig.all_ended("shadow", 1, CopyOutcome::Delivered);
    // Two thirds of 16 MiB are some 53 of them.
    let refused = ends(&rig, TapEnd::Memory);
    assert!((42..52).contains(&refused), "{refused}");
    // More connections than are kept track of.
    for connection in 2000..2000 + 17 * 1024 {
        ring.start(connection);
    }
    eventually("the silent have gone", || ends(&rig, TapEnd::Evicted) >= 1024);
    ring.whole(1001, &post(1, b"x"), 1000);
    rig.all_ended("shadow", 2, CopyOutcome::Delivered);
}

#[test]
fn what_is_not_tapped_any_more_is_not_copied() {
    let (ring, primary, shadow) = (Ring::default(), Server::ok(), Server::ok());
    let rig = setup(&ring, &primary, vec![mirror("shadow", shadow.address)]).start();
    ring.start(5);
    let first = post(1, b"x");
    ring.data(5, 0, &first);
    rig.all_ended("shadow", 1, CopyOutcome::Delivered);
    let front = frontend(FRONTEND, primary.address, None);
    rig.publish([(FRONTEND, FrontendState::Tombstone(front))]);
    ring.data(5, first.len(), &first);
    eventually("it is given up", || ends(&rig, TapEnd::Untapped) == 1);
    ring.start(6);
    eventually("so are new ones", || ends(&rig, TapEnd::Untapped) == 2);
    assert_eq!(rig.copies("shadow").selected, 1);
    assert_eq!(*ring.stopped.lock().unwrap(), [5, 6]);
}

//! The tap against the real kernel: what a pod sends on a connection that nothing takes from it, byte for
//! byte and with its place. Needs root, and fails without.
#![allow(clippy::unwrap_used, reason = "helpers of tests; clippy knows only the tests themselves")]

#[path = "capture/fixture.rs"]
mod fixture;

use fixture::{Agent, ID, ID6, OTHER, Pod, VIP, VIP6, eventually};
use mirror_common::TapCount;
use mirror_user::{
    capture::{TapCounters, TapRing, WorkloadState},
    control::publish::{FrontendMap as _, MapEntry},
    segment::{SegmentKind, SegmentSource as _, TappedSocket},
};

/// A segment that outlives its record.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Copied {
    socket: TappedSocket,
    kind: SegmentKind,
    frontend: u32,
    place: u64,
    bytes: Vec<u8>,
}

/// What is in the rings now.
fn drain(rings: &mut [TapRing]) -> Vec<Copied> {
    let mut all = Vec::new();
    for ring in rings {
        while ring.read(&mut |segment| {
            all.push(Copied {
                socket: segment.socket,
                kind: segment.kind,
                frontend: segment.frontend.0,
                place: segment.place,
                bytes: segment.bytes.to_vec(),
            });
        }) {}
    }
    all
}

/// The rings until a connection has ended.
fn until_over(rings: &mut [TapRing]) -> Vec<Copied> {
    let mut all = Vec::new();
    eventually("the connection ends", || {
        all.extend(drain(rings));
        let over = |copied: &Copied| !matches!(copied.kind, SegmentKind::Start | SegmentKind::Data);
        if all.iter().any(over) { Ok(()) } else { Err(format!("{} segments", all.len())) }
    });
    all
}

fn count(counters: &TapCounters, wanted: TapCount) -> u64 {
    let counts = counters.read().unwrap();
    counts.into_iter().find(|(count, _)| *count == wanted).unwrap().1
}

/// What a pod says that says a text and so many bytes more.
fn said(text: &str, more: usize) -> Vec<u8> {
    let bytes = text.bytes().collect::<Vec<_>>();
    let behind = (bytes.len()..bytes.len() + more).map(|place| u8::try_from(place % 251).unwrap());
    bytes.iter().copied().chain(behind).collect()
}

/// Each piece stands at its place. Returns how many bytes there are.
fn check(pieces: &[Copied], said: &[u8]) -> usize {
    let (mut next, mut all) = (0, 0);
    for piece in pieces.iter().filter(|piece| piece.kind == SegmentKind::Data) {
        let place = usize::try_from(piece.place).unwrap();
        assert!(place >= next, "at most once, and in order");
        assert_eq!(piece.bytes, said[place..place + piece.bytes.len()], "at {place}");
        next = place + piece.bytes.len();
        all += piece.bytes.len();
    }
    all
}

#[test]
fn what_a_tapped_pod_sends_is_copied_and_stays_its_own() {
    let mut pod = Pod::new();
    let (agent, mut rings, counters) = Agent::tapping(vec![pod.config("default/web")], 4 << 20);
    agent.wait_for(WorkloadState::On);
    let mut connections = 0;
    for (vip, id) in [(VIP, ID), (VIP6, ID6)] {
        for more in [0, 1, 200, 5000, 700_000] {
            let seen = pod.send(&format!("say+{more}+GET"), vip);
            // The client is connected to the very address, from its own.
            assert!(seen.is_direct(), "{seen:?}");
            assert_eq!(seen.peer, vip);
            connections += 1;
            let pieces = until_over(&mut rings);
            let said = said("GET", more);
            assert_eq!(check(&pieces, &said), said.len(), "{vip}, {more}");
            let (first, last) = (&pieces[0], pieces.last().unwrap());
            assert_eq!((first.kind, first.place), (SegmentKind::Start, 0));
            assert_eq!((last.kind, last.place), (SegmentKind::End, said.len() as u64));
            assert!(pieces.iter().all(|p| p.socket == first.socket && p.frontend == id.0));
        }
    }
    assert_eq!(agent.count("tapped"), connections);
    assert_eq!(agent.count("captured"), 0);
    assert_eq!(count(&counters, TapCount::Connections), connections);
    assert_eq!(count(&counters, TapCount::LostBytes), 0);
}

#[test]
fn what_is_not_tapped_is_not_copied() {
    let mut pod = Pod::new();
    let (mut agent, mut rings, counters) =
        Agent::tapping(vec![pod.config("default/web")], 256 << 10);
    agent.wait_for(WorkloadState::On);
    assert!(pod.send("say+9+GET", OTHER).is_direct());
    assert_eq!(agent.count("not_a_frontend"), 1);
    // Its routes begin to do more.
    agent.frontends.insert(ID, VIP.parse().unwrap(), MapEntry::Proxied).unwrap();
    assert!(!pod.connect(VIP).is_direct());
    agent.frontends.insert(ID, VIP.parse().unwrap(), MapEntry::Tapped).unwrap();
    assert!(pod.send("say+9+GET", VIP).is_direct());
    agent.frontends.remove(VIP.parse().unwrap()).unwrap();
    assert!(pod.send("say+9+GET", VIP).is_direct());
    let pieces = until_over(&mut rings);
    assert_eq!(check(&pieces, &said("GET", 9)), 12, "of one connection alone");
    assert_eq!(drain(&mut rings), []);
    assert_eq!(count(&counters, TapCount::Connections), 1);
}

#[test]
fn what_is_no_http_is_copied_no_further() {
    let mut pod = Pod::new();
    let (agent, mut rings, counters) = Agent::tapping(vec![pod.config("default/web")], 256 << 10);
    agent.wait_for(WorkloadState::On);
    for (text, why) in [("\\x16\\x03\\x01\\x00", TapCount::Tls), ("\\x00", TapCount::NotHttp)] {
        assert!(pod.send(&format!("say+90000+{text}"), VIP).is_direct());
        let pieces = until_over(&mut rings);
        let kinds: Vec<_> = pieces.iter().map(|piece| piece.kind).collect();
        assert_eq!(kinds, [SegmentKind::Start, SegmentKind::Stopped], "{why:?}");
        assert_eq!(count(&counters, why), 1);
    }
    assert_eq!(count(&counters, TapCount::Bytes), 0);
}

#[test]
fn a_full_ring_leaves_a_hole_of_the_right_length_and_no_wrong_byte() {
    let mut pod = Pod::new();
    let (agent, mut rings, counters) = Agent::tapping(vec![pod.config("default/web")], 64 << 10);
    agent.wait_for(WorkloadState::On);
    assert!(pod.send("keep", VIP).is_direct());
    // Nothing is read meanwhile, and the application notices nothing of that.
    assert_eq!(pod.send("fill", VIP).peer, VIP);
    let said = said("GET", 300_000);
    let begun = drain(&mut rings);
    let copied = check(&begun, &said);
    let lost = usize::try_from(count(&counters, TapCount::LostBytes)).unwrap();
    println!("{copied} of {} bytes copied, {lost} lost", said.len());
    assert!(copied > 0 && lost > 0);
    assert_eq!(copied + lost, said.len());
    // Where there is room again, the place is right.
    assert_eq!(pod.send("more", VIP).peer, VIP);
    let more = drain(&mut rings);
    let [more] = &more[..] else { panic!("{more:?}") };
    assert_eq!((more.place, &*more.bytes), (said.len() as u64, &b"GET / HTTP/1.1"[..]));
    assert_eq!(more.socket, begun[0].socket);
}

#[test]
fn a_connection_that_the_agent_wants_nothing_more_of_is_copied_no_further() {
    let mut pod = Pod::new();
    let (agent, mut rings, counters) = Agent::tapping(vec![pod.config("default/web")], 4 << 20);
    agent.wait_for(WorkloadState::On);
    assert!(pod.send("keep", VIP).is_direct());
    let start = drain(&mut rings);
    let [start] = &start[..] else { panic!("{start:?}") };
    for ring in &mut rings {
        ring.stop(start.socket);
    }
    assert_eq!(pod.send("more", VIP).peer, VIP);
    assert_eq!(count(&counters, TapCount::Bytes), 0);
    assert_eq!(drain(&mut rings), []);
}

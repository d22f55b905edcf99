//! Copies without content on their way together: which, how many, and what becomes of them when the
//! shadow ends the connection.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use mirror_user::outcome::{
    CopyOutcome::{Delivered, Unknown},
    UnknownReason,
};

use super::{
    harness::{Rig, Setup},
    server::{OK, Server, Visit},
    wire::{Wire, text},
};

pub(crate) const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// How many copies lay before the shadow at a time, each time that it answered.
type Depths = Arc<Mutex<Vec<usize>>>;

/// Answers two at once, which proves it fit, then only what came until nothing more did; `end` says
/// what to answer to so many, and whether to go on.
fn gathering(end: impl Fn(usize) -> (Vec<u8>, bool) + Send + Sync + 'static) -> (Server, Depths) {
    let depths = Depths::default();
    let seen = Arc::clone(&depths);
    let server = Server::start(move |mut visit| {
        for _ in 0..2 {
            if visit.request().is_none() {
                return;
            }
            visit.wire.send(OK);
        }
        while let Some(held) = gather(&mut visit) {
            seen.lock().expect("no panic").push(held);
            let (answer, goes_on) = end(held);
            visit.wire.send(answer);
            if !goes_on {
                return;
            }
        }
    });
    (server, depths)
}

fn gather(visit: &mut Visit) -> Option<usize> {
    visit.request()?;
    let mut held = 1;
    while !visit.wire.is_silent_for(Duration::from_millis(100)) {
        visit.request()?;
        held += 1;
    }
    Some(held)
}

fn deepest(depths: &Depths) -> usize {
    depths.lock().expect("no panic").iter().copied().max().unwrap_or(0)
}

/// One after the other, so that a connection has proven itself; then all of `requests` at once.
fn burst(rig: &Rig, requests: &[&str]) {
    let mut client = rig.client();
    for n in 1..=2 {
        assert_eq!(client.ask(GET).body, b"ok");
        rig.all_ended("shadow", n, Delivered);
    }
    at_once(rig, requests);
}

fn at_once(rig: &Rig, requests: &[&str]) {
    let mut clients: Vec<Wire> = requests.iter().map(|_| rig.client()).collect();
    for (client, request) in clients.iter_mut().zip(requests) {
        client.send(request);
    }
    for client in &mut clients {
        assert_eq!(client.message().body, b"ok");
    }
}

#[test]
fn many_are_on_their_way_together_but_no_more_than_32() {
    let primary = Server::ok();
    let (shadow, depths) = gathering(|held| (OK.repeat(held), true));
    let rig = Setup::mirrored(&primary, shadow.address).start();
    burst(&rig, &[GET; 60]);
    rig.all_ended("shadow", 62, Delivered);
    assert!((2..=32).contains(&deepest(&depths)), "{depths:?}");
}

#[test]
fn those_that_wait_for_a_connection_follow_each_other_on_it() {
    let primary = Server::ok();
    let (shadow, depths) = gathering(|held| (OK.repeat(held), true));
    let mut setup = Setup::mirrored(&primary, shadow.address);
    setup.options.shadow.connections = 1;
    let rig = setup.start();
    at_once(&rig, &[GET; 17]);
    rig.all_ended("shadow", 17, Delivered);
    // Two by themselves, which prove it fit.
    assert_eq!((deepest(&depths), shadow.connections()), (15, 1), "{depths:?}");
}

#[test]
fn a_connection_carries_a_hundred_and_the_last_says_so() {
    let (primary, shadow) = (Server::ok(), Server::ok());
    let rig = Setup::mirrored(&primary, shadow.address).start();
    for _ in 0..40 {
        at_once(&rig, &[GET; 10]);
    }
    rig.all_ended("shadow", 400, Delivered);
    let carried = (0..shadow.connections()).map(|n| text(shadow.bytes(n)));
    let mut full = 0;
    for carried in carried {
        let count = carried.matches("GET / ").count();
        assert!(count <= 100, "{count}");
        if count == 100 {
            full += 1;
            assert!(carried.ends_with("Connection: close\r\n\r\n"), "{carried}");
        }
        assert_eq!(carried.matches("Connection").count(), usize::from(count == 100), "{carried}");
    }
    assert!(full > 0, "no connection was used up");
}

#[test]
fn what_lay_behind_a_close_goes_again_by_itself() {
    let primary = Server::ok();
    let close = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok";
    let (shadow, depths) =
        gathering(move |held| if held > 1 { (close.to_vec(), false) } else { (OK.to_vec(), true) });
    let rig = Setup::mirrored(&primary, shadow.address).start();
    burst(&rig, &[GET; 8]);
    rig.all_ended("shadow", 10, Delivered);
    let first = deepest(&depths);
    assert!(first > 1, "{depths:?}");
    // From then on nothing is sent behind another.
    at_once(&rig, &[GET; 8]);
    rig.all_ended("shadow", 18, Delivered);
    let together = depths.lock().expect("no panic").iter().filter(|depth| **depth > 1).count();
    assert_eq!(together, 1, "{depths:?}");
    assert_eq!(shadow.requests().len(), 18 + first - 1);
}

#[test]
fn what_lay_behind_a_close_without_a_word_is_unknown() {
    let primary = Server::ok();
    let (shadow, depths) =
        gathering(|held| if held > 1 { (Vec::new(), false) } else { (OK.to_vec(), true) });
    let rig = Setup::mirrored(&primary, shadow.address).start();
    burst(&rig, &[GET; 8]);
    rig.settled("shadow", 10);
    at_once(&rig, &[GET; 8]);
    let copies = rig.settled("shadow", 18);
    let lost = deepest(&depths) as u64;
    assert!(lost > 1, "{depths:?}");
    assert_eq!(copies.ended[Unknown(UnknownReason::Closed).index()], lost, "{depths:?}");
    assert_eq!(copies.ended[Delivered.index()], 18 - lost, "{depths:?}");
    let together = depths.lock().expect("no panic").iter().filter(|depth| **depth > 1).count();
    assert_eq!(together, 1, "{depths:?}");
}

#[test]
fn what_is_not_safe_or_does_not_end_has_a_connection_for_itself() {
    let primary = Server::ok();
    let (shadow, depths) = gathering(|held| (OK.repeat(held), true));
    let rig = Setup::mirrored(&primary, shadow.address).start();
    let alone = [
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        "DELETE / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nAccept: text/html, text/event-stream;q=0.5\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx",
    ];
    burst(&rig, &alone.repeat(3));
    rig.all_ended("shadow", 14, Delivered);
    assert_eq!(deepest(&depths), 1, "{depths:?}");
}

#[test]
fn all_on_their_way_are_given_up_when_the_oldest_is_late() {
    let primary = Server::ok();
    let shadow = Server::start(|mut visit| {
        for _ in 0..2 {
            visit.request();
            visit.wire.send(OK);
        }
        visit.wire.rest();
    });
    let mut setup = Setup::mirrored(&primary, shadow.address);
    setup.options.shadow.response_timeout = Duration::from_millis(300);
    let rig = setup.start();
    burst(&rig, &[GET; 8]);
    let copies = rig.settled("shadow", 10);
    let late = copies.ended[Unknown(UnknownReason::Timeout).index()];
    assert_eq!((copies.ended[Delivered.index()], late), (2, 8));
}

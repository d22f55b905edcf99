//! Copies without content in flight together: which, how many, and what becomes of them when the
//! shadow ends the connection.

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use mirror_user::outcome::{
    CopyOutcome::{Delivered, Unknown},
    UnknownReason,
};

use super::{
    harness::{Rig, Setup, eventually, gate},
    raw_connection::{PATIENCE, RawConnection, text},
    server::{OK, Server, Visit},
};

pub(crate) const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// What gathering shadows have got, on all connections together.
#[derive(Debug, Default)]
struct Arrivals {
    arrived: usize,
    /// Nothing is responded to before so many have arrived.
    awaited: usize,
    /// How many copies lay before the shadow at a time, each time that it responded.
    depths: Vec<usize>,
}

#[derive(Clone, Debug, Default)]
struct Gathering(Arc<Mutex<Arrivals>>);

impl Gathering {
    fn arrivals(&self) -> MutexGuard<'_, Arrivals> {
        self.0.lock().expect("no panic")
    }

    /// So many more are in flight: all of them must have arrived before one has its response.
    fn expect(&self, more: usize) {
        let mut arrivals = self.arrivals();
        arrivals.awaited = arrivals.arrived + more;
    }

    fn has_all(&self) -> bool {
        let arrivals = self.arrivals();
        arrivals.arrived >= arrivals.awaited
    }

    fn take(&self, visit: &mut Visit) -> Option<()> {
        visit.request()?;
        self.arrivals().arrived += 1;
        Some(())
    }

    /// What lies before the shadow on this connection once all that are expected have arrived on any.
    fn gather(&self, visit: &mut Visit) -> Option<usize> {
        self.take(visit)?;
        let (mut held, begun) = (1, Instant::now());
        while !self.has_all() {
            assert!(begun.elapsed() < PATIENCE, "{self:?}");
            if !visit.raw_connection.is_silent_for(Duration::from_millis(2)) {
                self.take(visit)?;
                held += 1;
            }
        }
        self.arrivals().depths.push(held);
        Some(held)
    }

    fn deepest(&self) -> usize {
        self.arrivals().depths.iter().copied().max().unwrap_or(0)
    }

    /// How often more than one lay before it.
    fn together(&self) -> usize {
        self.arrivals().depths.iter().filter(|depth| **depth > 1).count()
    }
}

/// What a gathering shadow responds to so many.
enum GatheredResponse {
    /// All have their response.
    Each(Vec<u8>),
    /// The first has, with the word that the connection ends: the others come again.
    Last(Vec<u8>),
    /// The connection ends without a word.
    Nothing,
}

/// Responds to all that lie before it on a connection, once all that are expected have arrived.
fn gathering(
    respond: impl Fn(usize) -> GatheredResponse + Send + Sync + 'static,
) -> (Server, Gathering) {
    let gathering = Gathering::default();
    let seen = gathering.clone();
    let server = Server::start(move |mut visit| {
        while let Some(held) = seen.gather(&mut visit) {
            match respond(held) {
                GatheredResponse::Each(response) => visit.raw_connection.send(response),
                GatheredResponse::Last(response) => {
                    seen.expect(held - 1);
                    return visit.raw_connection.send(response);
                }
                GatheredResponse::Nothing => return,
            }
        }
    });
    (server, gathering)
}

/// One after the other, so that a connection has proven itself.
fn prove(rig: &Rig, expect: impl Fn(usize)) {
    let mut client = rig.client();
    for n in 1..=2 {
        expect(1);
        assert_eq!(client.request(GET).body, b"ok");
        rig.all_ended("shadow", n, Delivered);
    }
}

/// A connection proves itself; then all of `requests` are sent at once.
fn burst(rig: &Rig, gathering: &Gathering, requests: &[&str]) {
    prove(rig, |more| gathering.expect(more));
    gathering.expect(requests.len());
    at_once(rig, requests);
}

fn at_once(rig: &Rig, requests: &[&str]) {
    let mut clients: Vec<RawConnection> = requests.iter().map(|_| rig.client()).collect();
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
    let (shadow, seen) = gathering(|held| GatheredResponse::Each(OK.repeat(held)));
    let rig = Setup::mirrored(&primary, shadow.address).start();
    burst(&rig, &seen, &[GET; 60]);
    rig.all_ended("shadow", 62, Delivered);
    assert!((2..=32).contains(&seen.deepest()), "{seen:?}");
}

#[test]
fn those_that_wait_for_a_connection_follow_each_other_on_it() {
    let primary = Server::ok();
    let (open, wait) = gate();
    let seen = Gathering::default();
    let gathered = seen.clone();
    let shadow = Server::start(move |mut visit| {
        // Two by themselves, which prove it fit; the first once all copies are there.
        for n in 0..2 {
            if gathered.take(&mut visit).is_none() {
                return;
            }
            if n == 0 {
                wait();
            } else {
                gathered.expect(15);
            }
            visit.raw_connection.send(OK);
        }
        while let Some(held) = gathered.gather(&mut visit) {
            visit.raw_connection.send(OK.repeat(held));
        }
    });
    let mut setup = Setup::mirrored(&primary, shadow.address);
    setup.options.shadow.connections = 1;
    let rig = setup.start();
    at_once(&rig, &[GET; 17]);
    eventually("all copies are there", || rig.copies("shadow").selected == 17);
    drop(open);
    rig.all_ended("shadow", 17, Delivered);
    assert_eq!((seen.deepest(), shadow.connections()), (15, 1), "{seen:?}");
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
    let (shadow, seen) = gathering(move |held| match held {
        1 => GatheredResponse::Each(OK.to_vec()),
        _ => GatheredResponse::Last(close.to_vec()),
    });
    let rig = Setup::mirrored(&primary, shadow.address).start();
    burst(&rig, &seen, &[GET; 8]);
    rig.all_ended("shadow", 10, Delivered);
    let first = seen.deepest();
    assert!(first > 1, "{seen:?}");
    // From then on nothing is sent behind another.
    seen.expect(8);
    at_once(&rig, &[GET; 8]);
    rig.all_ended("shadow", 18, Delivered);
    assert_eq!(seen.together(), 1, "{seen:?}");
    assert_eq!(shadow.requests().len(), 18 + first - 1);
}

#[test]
fn what_lay_behind_a_close_without_a_word_is_unknown() {
    let primary = Server::ok();
    let (shadow, seen) = gathering(|held| match held {
        1 => GatheredResponse::Each(OK.to_vec()),
        _ => GatheredResponse::Nothing,
    });
    let rig = Setup::mirrored(&primary, shadow.address).start();
    burst(&rig, &seen, &[GET; 8]);
    rig.settled("shadow", 10);
    seen.expect(8);
    at_once(&rig, &[GET; 8]);
    let copies = rig.settled("shadow", 18);
    let lost = seen.deepest() as u64;
    assert!(lost > 1, "{seen:?}");
    assert_eq!(copies.ended[Unknown(UnknownReason::Closed).index()], lost, "{seen:?}");
    assert_eq!(copies.ended[Delivered.index()], 18 - lost, "{seen:?}");
    assert_eq!(seen.together(), 1, "{seen:?}");
}

#[test]
fn what_is_not_safe_or_does_not_end_has_a_connection_for_itself() {
    let primary = Server::ok();
    let (shadow, seen) = gathering(|held| GatheredResponse::Each(OK.repeat(held)));
    let rig = Setup::mirrored(&primary, shadow.address).start();
    let alone = [
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        "DELETE / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nAccept: text/html, text/event-stream;q=0.5\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx",
    ];
    burst(&rig, &seen, &alone.repeat(3));
    rig.all_ended("shadow", 14, Delivered);
    assert_eq!(seen.deepest(), 1, "{seen:?}");
}

#[test]
fn all_on_their_way_are_given_up_when_the_oldest_is_late() {
    let primary = Server::ok();
    let shadow = Server::start(|mut visit| {
        for _ in 0..2 {
            visit.request();
            visit.raw_connection.send(OK);
        }
        visit.raw_connection.rest();
    });
    let mut setup = Setup::mirrored(&primary, shadow.address);
    setup.options.shadow.response_timeout = Duration::from_millis(300);
    let rig = setup.start();
    prove(&rig, |_| {});
    at_once(&rig, &[GET; 8]);
    let copies = rig.settled("shadow", 10);
    let late = copies.ended[Unknown(UnknownReason::Timeout).index()];
    assert_eq!((copies.ended[Delivered.index()], late), (2, 8));
}

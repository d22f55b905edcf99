//! Limits of the connections to a shadow: how many, and how long connecting may take.

use std::{
    sync::{Arc, Mutex, mpsc},
    time::{Duration, Instant},
};

use mirror_user::outcome::{
    CopyOutcome::{Delivered, Dropped, Unknown},
    DropReason, UnknownReason,
};

use super::{
    faults::unharmed,
    harness::{Setup, describe, ended, eventually, gate},
    pipelining::GET,
    server::{OK, Server, full},
};

#[test]
fn connections_to_a_shadow_are_limited() {
    let (primary, shadow) = (Server::ok(), Server::silent());
    let mut setup = Setup::mirrored(&primary, shadow.address);
    setup.options.shadow.connections = 4;
    setup.options.shadow.response_timeout = Duration::from_secs(3);
    let rig = setup.start();
    unharmed(&rig, 20, 10);
    // Four are carried, the others wait in vain for a second.
    let copies = rig.settled("shadow", 20);
    assert_eq!(ended(&copies, Dropped(DropReason::Connections)), 16, "{}", describe(&copies));
    assert_eq!(ended(&copies, Unknown(UnknownReason::Timeout)), 4, "{}", describe(&copies));
    assert_eq!(shadow.connections(), 4);
}

#[test]
fn sixteen_wait_for_each_connection() {
    let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody";
    for request in [GET, post] {
        let (primary, shadow) = (Server::ok(), Server::silent());
        let mut setup = Setup::mirrored(&primary, shadow.address);
        setup.options.shadow.connections = 1;
        setup.options.shadow.response_timeout = Duration::from_secs(3);
        let rig = setup.start();
        let mut client = rig.client();
        for _ in 0..20 {
            assert_eq!(client.request(request).body, b"ok");
        }
        let dropped = || ended(&rig.copies("shadow"), Dropped(DropReason::Connections));
        eventually("some are dropped", || dropped() > 0);
        assert_eq!(dropped(), 3);
        let copies = rig.settled("shadow", 20);
        assert_eq!(ended(&copies, Dropped(DropReason::Connections)), 19, "{}", describe(&copies));
    }
}

/// On each connection the time from the first response to the second request.
type Gaps = Arc<Mutex<Vec<Duration>>>;

/// Answers three on each connection once the gate is open, and says with the third that it closes.
fn closing_after_three() -> (Server, mpsc::Sender<()>, Gaps) {
    let (open, wait) = gate();
    let gaps = Gaps::default();
    let seen = Arc::clone(&gaps);
    let server = Server::start(move |mut visit| {
        let mut responded: Option<Instant> = None;
        for n in 1..=3 {
            if visit.request().is_none() {
                return;
            }
            if n == 2 {
                seen.lock().expect("no panic").extend(responded.map(|at| at.elapsed()));
            }
            wait();
            let close = if n == 3 { "Connection: close\r\n" } else { "" };
            visit
                .raw_connection
                .send(format!("HTTP/1.1 200 OK\r\n{close}Content-Length: 0\r\n\r\n"));
            responded = Some(Instant::now());
        }
    });
    (server, open, gaps)
}

// nginx does so after 1,000 requests, on all connections at about the same time.
#[test]
fn a_shadow_that_says_that_it_closes_gets_every_copy_with_content() {
    let primary = Server::ok();
    let (shadow, open, gaps) = closing_after_three();
    let mut setup = Setup::mirrored(&primary, shadow.address);
    setup.options.shadow.connections = 4;
    let rig = setup.start();
    unharmed(&rig, 60, 10);
    assert_eq!(shadow.connections(), 4);
    drop(open);
    rig.all_ended("shadow", 60, Delivered);
    // The last of each may have nothing more to carry.
    assert!((20..24).contains(&shadow.connections()), "{}", shadow.connections());
    // Once the shadow is known to keep connections open, a new one is used at once: not before 5 ms
    // had passed otherwise.
    let shortest = gaps.lock().unwrap().iter().skip(8).min().copied();
    assert!(shortest < Some(Duration::from_millis(4)), "{shortest:?}");
}

#[test]
fn copies_wait_a_moment_for_a_connection() {
    let primary = Server::ok();
    // Slow, and closes after each response without saying so.
    let shadow = Server::start(|mut visit| {
        visit.request();
        std::thread::sleep(Duration::from_millis(100));
        visit.raw_connection.send(OK);
    });
    let mut setup = Setup::mirrored(&primary, shadow.address);
    setup.options.shadow.connections = 3;
    let rig = setup.start();
    let mut client = rig.client();
    for _ in 0..6 {
        assert_eq!(client.request("GET / HTTP/1.1\r\nHost: a\r\n\r\n").body, b"ok");
    }
    rig.all_ended("shadow", 6, Delivered);
    assert_eq!(shadow.connections(), 6);
}

#[test]
fn syns_without_a_reply_time_out() {
    let primary = Server::ok();
    let (address, _held) = full();
    let mut setup = Setup::mirrored(&primary, address);
    // All are in progress before the first has ended, after which the shadow rests. That the time is kept
    // is seen on a paused clock in the tests of the pool.
    setup.options.shadow.connect_timeout = Duration::from_secs(3);
    let rig = setup.start();
    unharmed(&rig, 10, 10);
    let copies = rig.settled("shadow", 10);
    assert_eq!(ended(&copies, Dropped(DropReason::ConnectTimeout)), 10, "{}", describe(&copies));
}

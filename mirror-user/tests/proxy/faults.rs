//! Shadows that fail in every way: the primary's exchange is whole and prompt, and every copy is
//! accounted for.

use std::{
    sync::atomic::Ordering::SeqCst,
    time::{Duration, Instant},
};

use mirror_user::outcome::{
    Copies,
    CopyOutcome::{Delivered, Dropped, Unknown},
    DropReason, UnknownReason,
};

use super::{
    harness::{Rig, Setup, describe, ended, eventually, gate},
    raw_connection::RawConnection,
    server::{OK, Server, Visit, refusing},
};

/// Far more than an exchange takes, far less than any timeout of the shadow leg here.
const PROMPT: Duration = Duration::from_secs(5);

/// As many broken connections in a row as send a shadow not yet to rest.
const TOLERATED: u64 = 16;

fn post(length: usize) -> Vec<u8> {
    let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
    [head.into_bytes(), vec![b'x'; length]].concat()
}

/// Sends `requests` one after the other on one connection; each must be answered.
pub(crate) fn unharmed(rig: &Rig, requests: usize, length: usize) {
    let mut client = rig.client();
    let request = post(length);
    for n in 0..requests {
        let begun = Instant::now();
        assert_eq!(client.request(&request).body, b"ok", "{n}");
        assert!(begun.elapsed() < PROMPT, "{n}: {:?}", begun.elapsed());
    }
}

/// Runs requests of two sizes against a primary that is well and a shadow of this script.
fn under(script: impl Fn(Visit) + Send + Sync + 'static, requests: u64) -> (Copies, Server) {
    within(Duration::from_secs(15), script, requests)
}

/// The same with this response timeout.
fn within(
    timeout: Duration,
    script: impl Fn(Visit) + Send + Sync + 'static,
    requests: u64,
) -> (Copies, Server) {
    let (primary, shadow) = (Server::ok(), Server::start(script));
    let mut setup = Setup::mirrored(&primary, shadow.address);
    setup.options.shadow.response_timeout = timeout;
    let rig = setup.start();
    for length in [5, 300_000] {
        unharmed(&rig, requests as usize / 2, length);
    }
    assert_eq!(primary.requests().len() as u64, requests);
    assert!(primary.requests().iter().all(|r| [5, 300_000].contains(&r.body.len())));
    (rig.settled("shadow", requests), shadow)
}

#[test]
fn a_refusing_shadow_rests_between_attempts() {
    let primary = Server::ok();
    let (_socket, dead) = refusing();
    let rig = Setup::mirrored(&primary, dead).start();
    unharmed(&rig, 200, 100);
    let copies = rig.settled("shadow", 200);
    // The primary's one, and the attempts.
    assert!(rig.sockets.made.load(SeqCst) <= 8);
    let (connect, backoff) = (Dropped(DropReason::Connect), Dropped(DropReason::Backoff));
    assert_eq!(ended(&copies, connect) + ended(&copies, backoff), 200, "{}", describe(&copies));
    // After 0, 100, 300, 700 ms...: more than these would take over six seconds.
    assert!((1..=7).contains(&ended(&copies, connect)), "{}", describe(&copies));
}

#[test]
fn a_shadow_that_comes_back_is_used_again() {
    let primary = Server::ok();
    let (socket, dead) = refusing();
    let rig = Setup::mirrored(&primary, dead).start();
    unharmed(&rig, 3, 10);
    eventually("the first copies ended", || rig.copies("shadow").in_flight() == 0);
    socket.listen(16).unwrap();
    std::thread::spawn(move || {
        while let Ok((stream, _)) = socket.accept() {
            let mut raw_connection =
                RawConnection::new(stream.into(), super::raw_connection::Tap::default());
            std::thread::spawn(move || {
                while raw_connection.try_message().is_ok() {
                    raw_connection.send(OK);
                }
            });
        }
    });
    let mut client = rig.client();
    eventually("a copy is delivered", || {
        client.request(post(10));
        ended(&rig.copies("shadow"), Delivered) > 0
    });
    let selected = rig.copies("shadow").selected;
    rig.settled("shadow", selected);
}

#[test]
fn a_shadow_that_accepts_and_never_reads_holds_up_nothing() {
    let (hold, held) = gate();
    let (copies, _shadow) = within(
        Duration::from_secs(2),
        move |visit| {
            visit.raw_connection.narrow();
            held();
        },
        20,
    );
    drop(hold);
    late(&copies, 20);
}

/// None had a response in time. The short ones were sent whole; whether the kernel took all of a long one
/// is a race.
fn late(copies: &Copies, requests: u64) {
    let whole = ended(copies, Unknown(UnknownReason::Timeout));
    let part = ended(copies, Dropped(DropReason::SendTimeout));
    assert_eq!(whole + part, requests, "{}", describe(copies));
    assert!(whole >= requests / 2, "{}", describe(copies));
}

#[test]
fn a_shadow_that_never_responds_is_given_up_after_the_timeout() {
    let (copies, shadow) =
        within(Duration::from_secs(2), |mut visit| drop(visit.raw_connection.rest()), 20);
    assert_eq!(ended(&copies, Unknown(UnknownReason::Timeout)), 20, "{}", describe(&copies));
    // None is sent twice, and each connection is closed.
    assert_eq!(shadow.connections(), 20);
    eventually("all are closed", || (0..20).all(|n| shadow.ended(n).is_some()));
}

#[test]
fn a_shadow_that_closes_after_some_requests_loses_none_that_got_a_response() {
    let (copies, shadow) = under(
        |mut visit| {
            for _ in 0..3 {
                if visit.request().is_some() {
                    visit.raw_connection.send(OK);
                }
            }
        },
        60,
    );
    let lost = ended(&copies, Unknown(UnknownReason::Closed))
        + ended(&copies, Dropped(DropReason::ShadowClosed));
    let delivered = ended(&copies, Delivered);
    assert_eq!(delivered + lost, 60, "{}", describe(&copies));
    assert!(delivered >= 50, "{}", describe(&copies));
    assert_eq!(shadow.requests().len() as u64, delivered);
}

#[test]
fn a_shadow_that_says_close_each_time_gets_every_copy() {
    let (copies, shadow) = under(
        |mut visit| {
            visit.request();
            visit
                .raw_connection
                .send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
        },
        60,
    );
    assert_eq!(ended(&copies, Delivered), 60, "{}", describe(&copies));
    assert_eq!(shadow.requests().len(), 60);
}

#[test]
fn a_shadow_that_closes_in_its_response_has_responded() {
    let (copies, shadow) = under(
        |mut visit| {
            visit.request();
            visit.raw_connection.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart");
        },
        TOLERATED,
    );
    assert_eq!(ended(&copies, Delivered), TOLERATED, "{}", describe(&copies));
    assert_eq!(shadow.requests().len() as u64, TOLERATED);
}

#[test]
fn a_shadow_that_closes_without_a_response_is_unknown() {
    for reset in [false, true] {
        let (copies, shadow) = under(
            move |mut visit| {
                visit.request();
                if reset {
                    visit.raw_connection.reset();
                }
            },
            TOLERATED,
        );
        assert_eq!(
            ended(&copies, Unknown(UnknownReason::Closed)),
            TOLERATED,
            "{}",
            describe(&copies)
        );
        assert_eq!(shadow.requests().len() as u64, TOLERATED);
    }
}

#[test]
fn a_shadow_that_closes_at_once_is_dropped_or_unknown() {
    let (copies, shadow) = under(drop, 40);
    // Which of the two is a race: whether the kernel takes all of a copy before it sees the RST.
    let broken = ended(&copies, Dropped(DropReason::ShadowClosed))
        + ended(&copies, Unknown(UnknownReason::Closed));
    // Each has a connection for itself; after the 17th in a row the shadow rests.
    assert_eq!(broken, shadow.connections() as u64, "{}", describe(&copies));
    assert!(broken > TOLERATED, "{}", describe(&copies));
    let rested = ended(&copies, Dropped(DropReason::Backoff));
    assert_eq!(broken + rested, 40, "{}", describe(&copies));
}

#[test]
fn an_early_413_is_a_response() {
    let (copies, _shadow) = under(
        |mut visit| {
            if visit.raw_connection.try_until(b"\r\n\r\n").is_ok() {
                visit.raw_connection.send(
                    "HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
                );
                visit.raw_connection.finish();
                visit.raw_connection.rest();
            }
        },
        40,
    );
    assert_eq!(ended(&copies, Delivered), 40, "{}", describe(&copies));
}

#[test]
fn garbage_is_malformed() {
    let (copies, _shadow) = under(
        |mut visit| {
            visit.request();
            visit.raw_connection.send("garbage\r\n\r\n");
            visit.raw_connection.rest();
        },
        TOLERATED,
    );
    assert_eq!(
        ended(&copies, Unknown(UnknownReason::Malformed)),
        TOLERATED,
        "{}",
        describe(&copies)
    );
}

#[test]
fn a_shadow_that_breaks_every_connection_costs_no_connection_per_request() {
    let (copies, shadow) = under(
        |mut visit| {
            visit.request();
        },
        400,
    );
    let rested = ended(&copies, Dropped(DropReason::Backoff));
    assert_eq!(rested + shadow.connections() as u64, 400, "{}", describe(&copies));
    assert!(rested > 200, "{}", describe(&copies));
}

#[test]
fn a_slow_reader_holds_up_nothing() {
    let (copies, _shadow) = within(
        Duration::from_secs(2),
        |mut visit| {
            visit.raw_connection.narrow();
            while visit.raw_connection.try_exactly(1024).is_ok() {
                std::thread::sleep(Duration::from_millis(10));
            }
        },
        20,
    );
    late(&copies, 20);
}

#[test]
fn a_response_without_end_blocks_its_connection_until_the_timeout() {
    let (copies, shadow) = within(
        Duration::from_secs(2),
        |mut visit| {
            visit.request();
            visit.raw_connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            while visit.raw_connection.try_send("1\r\nx\r\n") {
                std::thread::sleep(Duration::from_millis(5));
            }
            visit.raw_connection.rest();
        },
        10,
    );
    assert_eq!(ended(&copies, Delivered), 10, "{}", describe(&copies));
    assert_eq!(shadow.connections(), 10);
    eventually("all are closed", || (0..10).all(|n| shadow.ended(n).is_some()));
}

#[test]
fn bytes_that_nobody_requested_cost_no_copy() {
    let (copies, shadow) = under(
        |mut visit| {
            while visit.request().is_some() {
                visit
                    .raw_connection
                    .send([OK, b"HTTP/1.1 408 Late\r\nContent-Length: 0\r\n\r\n"].concat());
            }
        },
        40,
    );
    assert_eq!(ended(&copies, Delivered), 40, "{}", describe(&copies));
    assert_eq!(shadow.requests().len(), 40);
}

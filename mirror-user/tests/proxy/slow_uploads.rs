//! Uploads that last longer than a shadow may take for its response: the time that the client takes is
//! not the shadow's.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use mirror_user::outcome::{
    CopyOutcome::{Delivered, Dropped, Unknown},
    DropReason, UnknownReason,
};

use super::{
    budgets::stalled,
    harness::{Rig, Setup, backend_ref, mirror, rule},
    raw_connection::RawConnection,
    server::{OK, Server},
    streams::{Client, ReceivedResponse, Upstream, post, run},
};

/// What a shadow may take, and how often the client sends something.
const LIMIT: Duration = Duration::from_secs(1);
const PACE: Duration = Duration::from_millis(300);

/// More than the time that a shadow may take.
const PIECES: usize = 10;

fn limited(mut setup: Setup) -> Rig {
    setup.options.shadow.response_timeout = LIMIT;
    setup.start()
}

fn begin(rig: &Rig) -> RawConnection {
    let mut client = rig.client();
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", PIECES * 1000));
    client
}

fn upload(rig: &Rig) {
    let mut client = begin(rig);
    for _ in 1..PIECES {
        client.send(vec![b'x'; 1000]);
        sleep(PACE);
    }
    assert_eq!(client.request(vec![b'x'; 1000]).body, b"ok");
}

#[test]
fn a_slow_client_does_not_make_its_shadow_late() {
    let primary = Server::ok();
    // It has a time of its own once it has everything.
    let shadow = Server::start(|mut visit| {
        if visit.request().is_some() {
            sleep(LIMIT * 2 / 3);
            visit.raw_connection.send(OK);
            visit.raw_connection.rest();
        }
    });
    let rig = limited(Setup::mirrored(&primary, shadow.address));
    upload(&rig);
    rig.all_ended("shadow", 1, Delivered);
    assert_eq!(shadow.requests()[0].body.len(), PIECES * 1000);
}

#[test]
fn a_slow_client_does_not_make_its_shadow_of_http_2_late() {
    run(async {
        let (primary, shadow) = (Upstream::echo().await, Upstream::echo().await);
        let filters = vec![mirror("shadow", shadow.address)];
        let refs = vec![backend_ref("primary", &[primary.address])];
        let rig = limited(Setup::rules(primary.address, vec![rule(filters, refs)]));
        let mut client = Client::connect(rig.address()).await;
        let (response, mut body) = client.send(post("/"), false).await;
        for n in 1..=PIECES {
            body.send_data(vec![0; 1000].into(), n == PIECES).expect("open");
            tokio::time::sleep(PACE).await;
        }
        assert_eq!(
            ReceivedResponse::of(response).await.expect("an answer").body.len(),
            PIECES * 1000
        );
        rig.all_ended("shadow", 1, Delivered);
        assert_eq!(shadow.got()[0].body.len(), PIECES * 1000);
    });
}

#[test]
fn a_shadow_that_does_not_respond_to_what_it_has_is_late() {
    let (primary, shadow) = (Server::ok(), Server::silent());
    let rig = limited(Setup::mirrored(&primary, shadow.address));
    upload(&rig);
    let begun = Instant::now();
    rig.all_ended("shadow", 1, Unknown(UnknownReason::Timeout));
    assert!(begun.elapsed() < LIMIT * 3, "{:?}", begun.elapsed());
}

#[test]
fn a_shadow_that_takes_nothing_is_late_though_the_client_goes_on() {
    let primary = Server::ok();
    let (shadow, release) = stalled();
    let mut setup = Setup::mirrored(&primary, shadow.address);
    setup.send_buffer = Some(4096);
    let rig = limited(setup);
    let mut client = rig.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n");
    let begun = Instant::now();
    while rig.copies("shadow").in_flight() > 0 || rig.copies("shadow").selected == 0 {
        client.send(vec![b'x'; 300_000]);
        sleep(PACE / 3);
        assert!(begun.elapsed() < LIMIT * 5, "it is not late");
    }
    rig.all_ended("shadow", 1, Dropped(DropReason::SendTimeout));
    drop(release);
}

#[test]
fn a_client_that_sends_nothing_for_so_long_does_not_hold_a_connection() {
    let (primary, shadow) = (Server::ok(), Server::ok());
    let rig = limited(Setup::mirrored(&primary, shadow.address));
    let mut client = begin(&rig);
    client.send(vec![b'x'; 1000]);
    rig.all_ended("shadow", 1, Dropped(DropReason::SendTimeout));
    client.send(vec![b'x'; 8000]);
    assert_eq!(client.request(vec![b'x'; 1000]).body, b"ok");
}

//! What a primary of HTTP/1 says before its response: 100 and what depends on it, and the others.

use std::time::{Duration, Instant};

use super::{
    harness::{Setup, eventually, gate},
    raw_connection::{End, text},
    server::{OK, Server},
};

const EXPECTING: &str =
    "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

#[test]
fn the_client_is_to_send_its_body_once_the_primary_wants_it() {
    let (open, wait) = gate();
    let primary = Server::start(move |mut visit| {
        let head = visit.raw_connection.head();
        assert!(head.head.contains("Expect: 100-continue\r\n"), "{}", head.head);
        wait();
        visit.raw_connection.send(CONTINUE);
        assert_eq!(visit.raw_connection.exactly(4), b"body");
        visit.raw_connection.send(OK);
        visit.raw_connection.rest();
    });
    let rig = Setup::to(&primary).start();
    let mut client = rig.client();
    client.send(EXPECTING);
    assert!(client.is_silent_for(Duration::from_millis(200)), "100 before the primary said so");
    open.send(()).expect("the primary waits");
    assert_eq!(client.exactly(CONTINUE.len()), CONTINUE);
    client.send("body");
    assert_eq!(client.exactly(OK.len()), OK);
}

#[test]
fn a_primary_that_says_nothing_gets_the_body_after_a_second() {
    let primary = Server::start(|mut visit| {
        while visit.request().is_some() {
            visit.raw_connection.send(OK);
        }
    });
    let rig = Setup::to(&primary).start();
    let mut client = rig.client();
    let begun = Instant::now();
    client.send(EXPECTING);
    assert_eq!(client.exactly(CONTINUE.len()), CONTINUE);
    assert!(begun.elapsed() > Duration::from_millis(900), "{:?}", begun.elapsed());
    client.send("body");
    assert_eq!(client.exactly(OK.len()), OK);
}

#[test]
fn a_refusal_arrives_without_100_and_without_the_body() {
    let primary = Server::start(|mut visit| {
        visit.raw_connection.head();
        visit.raw_connection.send("HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\n\r\nno");
        visit.raw_connection.rest();
    });
    let rig = Setup::to(&primary).start();
    let mut client = rig.client();
    client.send(EXPECTING);
    let (response, end) = client.rest();
    let response = String::from_utf8(response).expect("text");
    assert!(response.starts_with("HTTP/1.1 417 Expectation Failed\r\n"), "{response}");
    assert!(response.ends_with("\r\n\r\nno"), "{response}");
    assert_eq!(end, End::Fin);
    eventually("no body", || primary.bytes(0).ends_with(b"\r\n\r\n"));
}

#[test]
fn a_client_that_does_not_wait_loses_nothing() {
    let primary = Server::ok();
    let rig = Setup::to(&primary).start();
    let mut client = rig.client();
    client.send(format!("{EXPECTING}body"));
    let response = client.exactly(OK.len());
    assert!(response == OK || response.starts_with(CONTINUE), "{}", response.escape_ascii());
    eventually("the body is there", || primary.bytes(0).ends_with(b"\r\n\r\nbody"));
}

#[test]
fn other_interim_responses_arrive_as_they_were_said() {
    const HINTS: &str = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nLink:</b>\r\n\r\n";
    let primary = Server::start(|mut visit| {
        while visit.request().is_some() {
            visit.raw_connection.send(HINTS);
            std::thread::sleep(Duration::from_millis(100));
            visit.raw_connection.send("HTTP/1.1 100 Continue\r\n\r\n");
            visit.raw_connection.send(OK);
        }
    });
    let rig = Setup::to(&primary).start();
    let mut client = rig.client();
    let expected = [HINTS.as_bytes(), b"HTTP/1.1 100 Continue\r\n\r\n", OK].concat();
    for _ in 0..3 {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.exactly(HINTS.len()), HINTS.as_bytes());
        assert_eq!(client.exactly(expected.len() - HINTS.len()), expected[HINTS.len()..]);
    }
}

#[test]
fn a_client_of_http_1_0_gets_no_interim_response() {
    let primary = Server::start(|mut visit| {
        visit.request();
        visit.raw_connection.send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
        visit.raw_connection.send(OK);
    });
    let rig = Setup::to(&primary).start();
    let mut client = rig.client();
    client.send("GET / HTTP/1.0\r\n\r\n");
    let response = text(client.rest().0);
    assert!(response.starts_with("HTTP/1.0 200"), "{response}");
    assert_eq!(rig.report().interim_dropped, 1);
}

#[test]
fn a_client_that_leaves_within_a_refusal_leaves_no_connection_behind() {
    let primary = Server::start(|mut visit| {
        visit.raw_connection.head();
        visit
            .raw_connection
            .send("HTTP/1.1 417 Expectation Failed\r\nContent-Length: 20\r\n\r\nhalf");
        visit.raw_connection.rest();
    });
    let rig = Setup::to(&primary).start();
    let mut client = rig.client();
    client.send(EXPECTING);
    client.until(b"half");
    client.reset();
    eventually("the primary's connection has ended", || primary.ended(0).is_some());
}

//! Opaque bytes: what is not HTTP/1 passes unharmed to the original destination.

use std::time::Duration;

use mirror_user::{
    outcome::ConnectionKind,
    route::{FrontendId, FrontendState},
};

use super::{
    harness::{FRONTEND, Rig, Setup, eventually, frontend},
    raw_connection::{End, RawConnection},
    server::{OK, Server},
};

/// Sends back what it read once the client is done, then "bye".
fn parrot() -> Server {
    Server::start(|mut visit| {
        let (bytes, _) = visit.raw_connection.rest();
        visit.raw_connection.send(bytes);
        visit.raw_connection.send("bye");
    })
}

/// The routes lead to a server that must see nothing.
fn rig_before(original: &Server) -> (Rig, Server) {
    let routed = Server::ok();
    let mut setup = Setup::to(&routed);
    setup.original = original.address;
    (setup.start(), routed)
}

fn closed_of(rig: &Rig, kind: ConnectionKind) -> u64 {
    let report = rig.report();
    report.connections[kind as usize] - report.open[kind as usize]
}

#[test]
fn bytes_pass_both_ways_with_half_close() {
    let original = parrot();
    let (rig, routed) = rig_before(&original);
    for (bytes, kind) in [
        (&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], ConnectionKind::Opaque),
        (b"*1\r\n$4\r\nPING\r\n", ConnectionKind::Opaque),
        (b"GET", ConnectionKind::Opaque),
    ] {
        let before = closed_of(&rig, kind);
        let mut client = rig.client();
        client.send(bytes);
        client.finish();
        assert_eq!(client.rest(), ([bytes, b"bye"].concat(), End::Fin));
        eventually("the end is counted", || closed_of(&rig, kind) == before + 1);
    }
    assert_eq!(routed.connections(), 0);
    let total = 11 + 14 + 3;
    assert_eq!(rig.report().passed, [total, total + 3 * 3]);
}

#[test]
fn many_bytes_pass_while_both_sides_send() {
    let original = Server::start(|mut visit| {
        visit.raw_connection.send(vec![b's'; 3_000_000]);
        visit.raw_connection.finish();
        visit.raw_connection.rest();
    });
    let (rig, _routed) = rig_before(&original);
    let mut client = rig.client();
    client.send([0; 10]);
    let (bytes, end) = client.rest();
    assert_eq!((bytes.len(), end), (3_000_000, End::Fin));
    client.send(vec![0; 2_000_000]);
    client.finish();
    eventually("all at the server", || original.bytes(0).len() == 2_000_010);
    eventually("the half-close", || original.ended(0) == Some(End::Fin));
}

#[test]
fn a_reset_passes_in_both_directions() {
    let original = Server::start(|mut visit| {
        visit.raw_connection.exactly(1);
        if visit.index == 0 {
            visit.raw_connection.reset();
        } else {
            drop(visit.raw_connection.rest());
        }
    });
    let (rig, _routed) = rig_before(&original);
    let mut client = rig.client();
    client.send([0]);
    assert_eq!(client.rest().1, End::Reset);
    let mut client = rig.client();
    client.send([0]);
    eventually("the byte arrived", || original.bytes(1) == [0]);
    client.reset();
    eventually("the reset arrived", || original.ended(1) == Some(End::Reset));
}

#[test]
fn a_server_may_speak_first() {
    let original = Server::start(|mut visit| {
        visit.raw_connection.send("220 ready\r\n");
        assert_eq!(visit.raw_connection.until(b"\r\n"), "EHLO me\r\n");
        visit.raw_connection.send("250 ok\r\n");
        visit.raw_connection.rest();
    });
    let routed = Server::ok();
    let mut setup = Setup::to(&routed);
    setup.original = original.address;
    setup.options.sniff_timeout = Duration::from_millis(20);
    let rig = setup.start();
    let mut client = rig.client();
    assert_eq!(client.until(b"\r\n"), "220 ready\r\n");
    client.send("EHLO me\r\n");
    assert_eq!(client.until(b"\r\n"), "250 ok\r\n");
    assert_eq!(rig.report().open[ConnectionKind::ServerFirst as usize], 1);
}

#[test]
fn a_silent_client_that_then_speaks_http_is_routed() {
    let original = Server::silent();
    let routed = Server::ok();
    let mut setup = Setup::to(&routed);
    setup.original = original.address;
    setup.options.sniff_timeout = Duration::from_millis(20);
    let rig = setup.start();
    let mut client = rig.client();
    eventually("the original is opened", || original.connections() == 1);
    assert_eq!(client.request("GET / HTTP/1.1\r\nHost: a\r\n\r\n").body, b"ok");
    eventually("the original is closed", || original.ended(0).is_some());
    assert_eq!(routed.requests().len(), 1);
    assert!(original.bytes(0).is_empty());
}

#[test]
fn a_silent_client_that_then_speaks_another_protocol_is_passed_on() {
    let original = parrot();
    let routed = Server::ok();
    let mut setup = Setup::to(&routed);
    setup.original = original.address;
    setup.options.sniff_timeout = Duration::from_millis(20);
    let rig = setup.start();
    let mut client = rig.client();
    eventually("the original is opened", || original.connections() == 1);
    client.send([0, 1, 2]);
    client.finish();
    assert_eq!(client.rest(), (b"\0\x01\x02bye".to_vec(), End::Fin));
    assert_eq!(original.connections(), 1);
}

#[test]
fn a_client_that_waits_for_a_response_to_half_a_line_gets_it() {
    let original = Server::start(|mut visit| {
        let requested = visit.raw_connection.exactly(5);
        visit.raw_connection.send(requested);
    });
    let (rig, routed) = rig_before(&original);
    let mut client = rig.client();
    client.send("hello");
    assert_eq!(client.exactly(5), b"hello");
    assert_eq!(routed.connections(), 0);
}

#[test]
fn a_request_line_in_pieces_is_routed() {
    let original = Server::silent();
    let routed = Server::ok();
    let mut setup = Setup::to(&routed);
    setup.original = original.address;
    setup.options.sniff_timeout = Duration::from_millis(20);
    let rig = setup.start();
    let mut client = rig.client();
    client.send("GET /a");
    // Several times the patience with half a line.
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(client.request("/b HTTP/1.1\r\nHost: a\r\n\r\n").body, b"ok");
    assert!(routed.requests()[0].head.starts_with("GET /a/b HTTP/1.1\r\n"));
    assert_eq!(original.connections(), 0);
}

#[test]
fn a_client_that_ends_without_a_byte_is_shown_to_the_server() {
    let original = parrot();
    let (rig, _routed) = rig_before(&original);
    let mut client = rig.client();
    client.finish();
    assert_eq!(client.rest(), (b"bye".to_vec(), End::Fin));
    eventually("the end is counted", || closed_of(&rig, ConnectionKind::Silent) == 1);
}

#[test]
fn a_tombstone_passes_everything_to_the_original_destination() {
    let original = Server::ok();
    let (rig, routed) = rig_before(&original);
    rig.publish([(FRONTEND, FrontendState::Tombstone(frontend(FRONTEND, original.address, None)))]);
    assert_eq!(rig.client().request("GET / HTTP/1.1\r\nHost: a\r\n\r\n").body, b"ok");
    assert_eq!((original.connections(), routed.connections()), (1, 0));
    eventually("the end is counted", || closed_of(&rig, ConnectionKind::Tombstone) == 1);
}

#[test]
fn a_client_of_another_namespace_passes_when_no_route_holds_for_it() {
    let original = Server::ok();
    let (rig, routed) = rig_before(&original);
    rig.publish([(FRONTEND, FrontendState::Live(frontend(FRONTEND, original.address, None)))]);
    assert_eq!(rig.client().request("GET / HTTP/1.1\r\nHost: a\r\n\r\n").body, b"ok");
    assert_eq!((original.connections(), routed.connections()), (1, 0));
    eventually("the end is counted", || closed_of(&rig, ConnectionKind::NoRoute) == 1);
}

#[test]
fn an_id_never_issued_is_reset_and_counted() {
    let original = Server::ok();
    let (rig, _routed) = rig_before(&original);
    let (_, address) = rig.serve(FrontendId(99));
    let mut client = RawConnection::connect(address);
    assert_eq!(client.rest(), (Vec::new(), End::Reset));
    assert_eq!(closed_of(&rig, ConnectionKind::UnknownId), 1);
    assert_eq!(original.connections(), 0);
}

#[test]
fn the_canary_is_accepted_and_closed() {
    let original = Server::ok();
    let (rig, _routed) = rig_before(&original);
    let (_, address) = rig.serve(FrontendId::CANARY);
    assert_eq!(RawConnection::connect(address).rest(), (Vec::new(), End::Fin));
    assert_eq!(closed_of(&rig, ConnectionKind::Canary), 1);
}

#[test]
fn a_route_that_is_removed_leaves_its_connections_working() {
    let original = Server::ok();
    let (rig, routed) = rig_before(&original);
    let mut client = rig.client();
    let get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(client.request(get).body, b"ok");
    rig.publish([(FRONTEND, FrontendState::Tombstone(frontend(FRONTEND, original.address, None)))]);
    for _ in 0..3 {
        assert_eq!(client.request(get).body, &OK[OK.len() - 2..]);
    }
    assert_eq!((routed.requests().len(), original.requests().len()), (1, 3));
}

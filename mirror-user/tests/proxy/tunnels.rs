//! Tunnels: Upgrade and CONNECT. What asks for nothing else is never mirrored, whatever the response; a
//! request that only offers another protocol is one like any other, until the primary switches.

use std::time::Duration;

use mirror_user::outcome::{CopyOutcome, ResponseSource, Uncopied};

use super::{
    harness::{Rig, Setup, eventually},
    raw_connection::{End, RawConnection, text},
    server::{OK, Server},
};

const UPGRADE: &str = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\n\
                       Upgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n";
const SWITCH: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

/// Agrees with `response`, greets, then sends everything back, and "bye" at the end.
fn agreeing(response: &'static str) -> Server {
    Server::start(move |mut visit| {
        visit.request();
        visit.raw_connection.send(format!("{response}hi"));
        loop {
            match visit.raw_connection.try_exactly(1) {
                Ok(byte) => visit.raw_connection.send(byte),
                Err(_) => return visit.raw_connection.send("bye"),
            }
        }
    })
}

fn mirrored(primary: &Server) -> (Rig, Server) {
    let shadow = Server::ok();
    (Setup::mirrored(primary, shadow.address).start(), shadow)
}

fn never_mirrored(rig: &Rig, shadow: &Server) {
    assert_eq!(rig.copies("shadow").selected, 0);
    assert_eq!(shadow.connections(), 0);
}

/// Talks through an open tunnel and closes it.
fn talk(mut client: RawConnection) {
    assert_eq!(client.exactly(2), b"hi");
    for byte in b"\0\xffGET / HTTP/1.1\r\n\r\n" {
        client.send([*byte]);
        assert_eq!(client.exactly(1), [*byte]);
    }
    client.finish();
    assert_eq!(client.rest(), (b"bye".to_vec(), End::Fin));
}

#[test]
fn an_accepted_upgrade_passes_bytes_both_ways() {
    let primary = agreeing(SWITCH);
    let (rig, shadow) = mirrored(&primary);
    let mut client = rig.client();
    client.send(UPGRADE);
    assert_eq!(client.head().head, SWITCH);
    assert_eq!(primary.requests()[0].head, UPGRADE);
    talk(client);
    never_mirrored(&rig, &shadow);
    eventually("the bytes are counted", || rig.report().passed == [20, 2 + 20 + 3]);
}

#[test]
fn bytes_behind_the_upgrade_are_not_lost() {
    for filler in [0, 6_000, 15_000] {
        let primary = agreeing(SWITCH);
        let (rig, _shadow) = mirrored(&primary);
        let mut client = rig.client();
        let path = "p".repeat(filler);
        client.send(UPGRADE.replace("/chat", &format!("/{path}")) + "early");
        assert_eq!(client.head().head, SWITCH);
        assert_eq!(client.exactly(7), b"hiearly");
        client.finish();
        assert_eq!(client.rest(), (b"bye".to_vec(), End::Fin));
    }
}

#[test]
fn a_refused_upgrade_is_an_ordinary_response() {
    let primary = Server::ok();
    let (rig, shadow) = mirrored(&primary);
    let mut client = rig.client();
    for _ in 0..3 {
        assert_eq!(client.request(UPGRADE).body, b"ok");
    }
    never_mirrored(&rig, &shadow);
    // The connection goes on, and what no longer asks for a tunnel is mirrored.
    assert_eq!(client.request("GET / HTTP/1.1\r\nHost: a\r\n\r\n").body, b"ok");
    rig.settled("shadow", 1);
    assert_eq!(rig.report().uncopied[Uncopied::WebSocket as usize], 3);
}

#[test]
fn connect_opens_a_tunnel() {
    let response = "HTTP/1.1 200 Connected\r\n\r\n";
    let primary = agreeing(response);
    let (rig, shadow) = mirrored(&primary);
    let mut client = rig.client();
    client.send("CONNECT other:443 HTTP/1.1\r\nHost: other:443\r\n\r\n");
    assert_eq!(client.head().head, response);
    assert_eq!(primary.requests()[0].head, "CONNECT other:443 HTTP/1.1\r\nHost: other:443\r\n\r\n");
    talk(client);
    never_mirrored(&rig, &shadow);
}

#[test]
fn a_refused_connect_is_an_ordinary_response() {
    let primary =
        Server::responding("HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 2\r\n\r\nno");
    let (rig, shadow) = mirrored(&primary);
    let mut client = rig.client();
    for _ in 0..2 {
        let response = client.request("CONNECT other:443 HTTP/1.1\r\nHost: other:443\r\n\r\n");
        assert_eq!((response.status(), &response.body[..]), (405, &b"no"[..]));
    }
    never_mirrored(&rig, &shadow);
    assert_eq!(rig.report().uncopied[Uncopied::Connect as usize], 2);
}

#[test]
fn h2c_is_not_forwarded_and_the_request_goes_on() {
    let primary = Server::ok();
    let (rig, _shadow) = mirrored(&primary);
    let mut client = rig.client();
    let response = client.request(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\
         HTTP2-Settings: x\r\n\r\n",
    );
    assert_eq!(response.body, &OK[OK.len() - 2..]);
    assert_eq!(primary.requests()[0].head, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    rig.settled("shadow", 1);
}

#[test]
fn a_reset_in_a_tunnel_passes() {
    let primary = Server::start(|mut visit| {
        visit.request();
        visit.raw_connection.send(SWITCH);
        visit.raw_connection.exactly(1);
        visit.raw_connection.reset();
    });
    let (rig, _shadow) = mirrored(&primary);
    let mut client = rig.client();
    client.send(UPGRADE);
    client.head();
    client.send("x");
    assert_eq!(client.rest(), (Vec::new(), End::Reset));
}

/// What Apache HttpClient 5.4 says in each GET, HEAD and OPTIONS.
const OFFER: &str = "Connection: keep-alive, Upgrade\r\nUpgrade: TLS/1.2\r\n";
const AGREED: &str =
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: TLS/1.2, HTTP/1.1\r\nConnection: Upgrade\r\n\r\n";

#[test]
fn an_offer_that_the_primary_passes_over_is_a_request_like_any_other() {
    let primary = Server::ok();
    let (rig, shadow) = mirrored(&primary);
    let mut client = rig.client();
    for n in 0..5 {
        let response = client.request(format!("GET /{n} HTTP/1.1\r\nHost: a\r\n{OFFER}\r\n"));
        assert_eq!(response.body, b"ok");
    }
    let posted = client.request(format!(
        "POST /p HTTP/1.1\r\nHost: a\r\n{OFFER}HTTP2-Settings: x\r\nContent-Length: 4\r\n\r\nbody"
    ));
    assert_eq!(posted.body, b"ok");
    assert_eq!(primary.connections(), 1);
    for (n, request) in primary.wait_requests(6)[..5].iter().enumerate() {
        let expected = format!(
            "GET /{n} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: TLS/1.2\r\n\r\n"
        );
        assert_eq!(request.head, expected);
    }
    rig.all_ended("shadow", 6, CopyOutcome::Delivered);
    for copy in shadow.wait_requests(6) {
        let head = copy.head.to_lowercase();
        assert!(!head.contains("upgrade") && !head.contains("http2"), "{head}");
    }
    assert_eq!(rig.report().uncopied.iter().sum::<u64>(), 0);
}

#[test]
fn an_offer_that_the_primary_takes_up_is_a_tunnel() {
    let primary = agreeing(AGREED);
    let (rig, shadow) = mirrored(&primary);
    let mut client = rig.client();
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{OFFER}Content-Length: 4\r\n\r\nbody"));
    assert_eq!(client.head().head, AGREED);
    talk(client);
    rig.settled("shadow", 1);
    assert_eq!(shadow.wait_requests(1)[0].body, b"body");
    assert_eq!(primary.connections(), 1);
}

#[test]
fn a_switch_that_nobody_requested_is_refused() {
    let to = |protocol: &str| {
        format!("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n{protocol}\r\nsecret")
    };
    let upgrade = |to: &str| format!("Connection: Upgrade\r\nUpgrade: {to}\r\n");
    for (line, fields, response) in [
        ("GET /", String::new(), to("Upgrade: websocket\r\n")),
        ("GET /", String::new(), to("")),
        ("GET /", "Upgrade: foo\r\n".into(), to("Upgrade: foo\r\n")),
        ("GET /", upgrade("h2c"), to("Upgrade: h2c\r\n")),
        ("GET /", upgrade("foo, h2c"), to("Upgrade: h2c\r\n")),
        ("GET /", upgrade("TLS/1.2"), to("Upgrade: websocket\r\n")),
        ("GET /", upgrade("TLS/1.2"), to("Upgrade: TLS/1.2, h2c\r\n")),
        ("GET /", upgrade("websocket"), to("Upgrade: h2c\r\n")),
        ("GET /", upgrade("websocket, h2c"), to("Upgrade: h2c\r\n")),
        ("CONNECT a:1", String::new(), to("Upgrade: foo\r\n")),
    ] {
        let primary = Server::start(move |mut visit| {
            while let Some(request) = visit.request() {
                if request.head.contains(" /next ") {
                    return visit.raw_connection.send(OK);
                }
                visit.raw_connection.send(&response);
            }
        });
        let (rig, _shadow) = mirrored(&primary);
        let mut client = rig.client();
        let refused = client.request(format!("{line} HTTP/1.1\r\nHost: a:1\r\n{fields}\r\n"));
        assert_eq!(refused.status(), 502, "{line} {fields}: {}", refused.head);
        assert!(refused.head.contains("x-mirror-reason: mirror: the primary's 101 switches"));
        assert!(!text(refused.body).contains("secret"));
        eventually("the primary's connection ends", || primary.ended(0).is_some());
        // The client's own goes on.
        assert_eq!(client.request("GET /next HTTP/1.1\r\nHost: a\r\n\r\n").body, b"ok");
        drop(client);
        let report = rig.report();
        let refused = report.exchanges.values().map(|exchanges| {
            exchanges.requests[5][ResponseSource::UnrequestedUpgrade as usize].iter().sum::<u64>()
        });
        assert_eq!(refused.sum::<u64>(), 1);
    }
}

#[test]
fn a_switch_before_the_request_is_whole_is_refused() {
    for to in ["TLS/1.2", "websocket"] {
        let primary = Server::start(move |mut visit| {
            visit.raw_connection.head();
            visit.raw_connection.send(format!(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {to}\r\n\r\n"
            ));
            visit.raw_connection.rest();
        });
        let (rig, _shadow) = mirrored(&primary);
        let mut client = rig.client();
        client.send(format!(
            "POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: {to}\r\n\
             Content-Length: 9\r\n\r\nbody"
        ));
        let (response, end) = client.rest();
        let response = text(response);
        assert!(response.starts_with("HTTP/1.1 502 "), "{to}: {response}");
        assert_eq!(end, End::Fin);
    }
}

#[test]
fn h2c_is_taken_out_of_a_list() {
    let primary = Server::ok();
    let (rig, shadow) = mirrored(&primary);
    let mut client = rig.client();
    for (upgrade, left) in [
        ("Upgrade: foo, h2c\r\n", "Connection: Upgrade\r\nUpgrade: foo\r\n"),
        ("Upgrade: foo\r\nUpgrade: H2C\r\n", "Connection: Upgrade\r\nUpgrade: foo\r\n"),
        ("Upgrade: h2c foo\r\n", "Connection: Upgrade\r\nUpgrade: foo\r\n"),
        ("Upgrade: h2c, HTTP/2.0\r\n", ""),
        ("Upgrade: ,\r\n", ""),
    ] {
        client.request(format!(
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\n{upgrade}\
             HTTP2-Settings: x\r\n\r\n"
        ));
        let seen = primary.requests().pop().expect("a request").head;
        assert_eq!(seen, format!("GET / HTTP/1.1\r\nHost: a\r\n{left}\r\n"), "{upgrade}");
    }
    rig.settled("shadow", 5);
    assert_eq!((primary.connections(), shadow.wait_requests(5).len()), (1, 5));
}

#[test]
fn a_shadow_that_switches_gets_nothing_more_on_that_connection() {
    let primary = Server::ok();
    let shadow = Server::start(|mut visit| {
        visit.request();
        visit.raw_connection.send(SWITCH);
        visit.raw_connection.rest();
    });
    let rig = Setup::mirrored(&primary, shadow.address).start();
    let mut client = rig.client();
    for n in 0..3 {
        client.request("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        rig.settled("shadow", n + 1);
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(shadow.requests().len(), 3);
    for connection in 0..3 {
        eventually("it is closed", || shadow.ended(connection).is_some());
    }
}

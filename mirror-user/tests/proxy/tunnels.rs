//! Tunnels: Upgrade and CONNECT. Never mirrored, whatever the answer.

use super::{
    harness::{Rig, Setup, eventually},
    server::{OK, Server},
    wire::{End, Wire},
};

const UPGRADE: &str = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\n\
                       Upgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n";
const SWITCH: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

/// Agrees with `answer`, greets, then sends everything back, and "bye" at the end.
fn agreeing(answer: &'static str) -> Server {
    Server::start(move |mut visit| {
        visit.request();
        visit.wire.send(format!("{answer}hi"));
        loop {
            match visit.wire.try_exactly(1) {
                Ok(byte) => visit.wire.send(byte),
                Err(_) => return visit.wire.send("bye"),
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
fn talk(mut client: Wire) {
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
fn a_refused_upgrade_is_an_ordinary_answer() {
    let primary = Server::ok();
    let (rig, shadow) = mirrored(&primary);
    let mut client = rig.client();
    for _ in 0..3 {
        assert_eq!(client.ask(UPGRADE).body, b"ok");
    }
    never_mirrored(&rig, &shadow);
    // The connection goes on, and what no longer asks for a tunnel is mirrored.
    assert_eq!(client.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").body, b"ok");
    rig.settled("shadow", 1);
}

#[test]
fn connect_opens_a_tunnel() {
    let answer = "HTTP/1.1 200 Connected\r\n\r\n";
    let primary = agreeing(answer);
    let (rig, shadow) = mirrored(&primary);
    let mut client = rig.client();
    client.send("CONNECT other:443 HTTP/1.1\r\nHost: other:443\r\n\r\n");
    assert_eq!(client.head().head, answer);
    assert_eq!(primary.requests()[0].head, "CONNECT other:443 HTTP/1.1\r\nHost: other:443\r\n\r\n");
    talk(client);
    never_mirrored(&rig, &shadow);
}

#[test]
fn a_refused_connect_is_an_ordinary_answer() {
    let primary =
        Server::answering("HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 2\r\n\r\nno");
    let (rig, shadow) = mirrored(&primary);
    let mut client = rig.client();
    for _ in 0..2 {
        let answer = client.ask("CONNECT other:443 HTTP/1.1\r\nHost: other:443\r\n\r\n");
        assert_eq!((answer.status(), &answer.body[..]), (405, &b"no"[..]));
    }
    never_mirrored(&rig, &shadow);
}

#[test]
fn h2c_is_not_forwarded_and_the_request_goes_on() {
    let primary = Server::ok();
    let (rig, _shadow) = mirrored(&primary);
    let mut client = rig.client();
    let answer = client.ask(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\
         HTTP2-Settings: x\r\n\r\n",
    );
    assert_eq!(answer.body, &OK[OK.len() - 2..]);
    assert_eq!(primary.requests()[0].head, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    rig.settled("shadow", 1);
}

#[test]
fn a_reset_in_a_tunnel_passes() {
    let primary = Server::start(|mut visit| {
        visit.request();
        visit.wire.send(SWITCH);
        visit.wire.exactly(1);
        visit.wire.reset();
    });
    let (rig, _shadow) = mirrored(&primary);
    let mut client = rig.client();
    client.send(UPGRADE);
    client.head();
    client.send("x");
    assert_eq!(client.rest(), (Vec::new(), End::Reset));
}

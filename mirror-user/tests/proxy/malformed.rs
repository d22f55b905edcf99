//! Responses that servers give though they should not, and clients take: they pass, repaired as RFC 9112
//! says, and what leaves has one framing. Those whose framing cannot be told do not.

use super::{
    harness::Setup,
    raw_connection::{End, Message},
    server::Server,
};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// What a client gets of a primary that says this and closes.
fn responded(words: &'static [u8], request: &str) -> (Vec<u8>, End) {
    let primary = Server::start(move |mut visit| {
        if visit.request().is_some() {
            visit.raw_connection.send(words);
        }
    });
    let rig = Setup::to(&primary).start();
    let mut client = rig.client();
    client.send(request);
    client.finish();
    client.rest()
}

/// The same for a response that passes with the content `ok`.
fn passed(words: &'static [u8]) -> Message {
    let primary = Server::start(move |mut visit| {
        if visit.request().is_some() {
            visit.raw_connection.send(words);
        }
    });
    let rig = Setup::to(&primary).start();
    let response = rig.client().request(GET);
    assert_eq!((response.status(), &response.body[..]), (200, &b"ok"[..]), "{response:?}");
    response
}

#[test]
fn what_the_rfc_repairs_passes() {
    for (words, head) in [
        (
            &b"HTTP/1.1 200 OK\r\nAllow : true\r\nContent-Length : 2\r\n\r\nok"[..],
            "Allow: true\r\nContent-Length: 2\r\n",
        ),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            "Transfer-Encoding: chunked\r\n",
        ),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            "Transfer-Encoding: chunked\r\n",
        ),
        (
            b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            "Transfer-Encoding: chunked\r\n",
        ),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok", "Content-Length: 2\r\n"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\ncontent-length: 2\r\n\r\nok",
            "Content-Length: 2\r\n",
        ),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nContent-Length: 2\r\n\r\nok",
            "Content-Length: 2\r\n",
        ),
        (
            b"HTTP/1.1 200 OK\r\nA: b\r\n\tc\r\nContent-Length: 2\r\n\r\nok",
            "A: b c\r\nContent-Length: 2\r\n",
        ),
        (
            b"HTTP/1.1 200 OK\r\nA:\r\n b\r\nC: \r\n\td\r\n e\r\nContent-Length: 2\r\n\r\nok",
            "A: b\r\nC: d e\r\nContent-Length: 2\r\n",
        ),
        (b"HTTP/1.1  200 OK\r\nContent-Length: 2\r\n\r\nok", "Content-Length: 2\r\n"),
        (b"HTTP/1.2 200\tOK\r\nContent-Length: 2\r\n\r\nok", "Content-Length: 2\r\n"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\nok\r\n0\r\nX : y\r\nfoo\r\n\r\n",
            "Transfer-Encoding: chunked\r\n",
        ),
    ] {
        let head = format!("HTTP/1.1 200 OK\r\n{head}\r\n");
        // A connection whose response had two framings ends, and says so.
        let passed = passed(words).head.replace("connection: close\r\n", "");
        assert_eq!(passed, head, "{}", words.escape_ascii());
    }
}

#[test]
fn what_clients_take_passes_as_it_came() {
    for (words, head) in [
        (
            &b"HTTP/1.1 200 OK\r\nSet-Cookie: a=\x01b; path=/\r\nSet-Cookie: c=\x7f\r\nContent-Length: 2\r\n\r\nok"[..],
            "Set-Cookie: a=\u{1}b; path=/\r\nSet-Cookie: c=\u{7f}\r\nContent-Length: 2\r\n",
        ),
        (
            b"HTTP/1.1 200 OK\r\nX Test: x\r\nContent-Length: 2\r\n\r\nok",
            "Content-Length: 2\r\nX Test: x\r\n",
        ),
        (
            b"HTTP/1.1 200 OK\r\nX-Powered(By): x\r\nContent-Length: 2\r\n\r\nok",
            "Content-Length: 2\r\nX-Powered(By): x\r\n",
        ),
        (
            b"HTTP/1.1 200 OK\r\nA: b\r\n<!DOCTYPE html>\r\nContent-Length: 2\r\n\r\nok",
            "A: b\r\nContent-Length: 2\r\n<!DOCTYPE html>\r\n",
        ),
    ] {
        let head = format!("HTTP/1.1 200 OK\r\n{head}\r\n");
        assert_eq!(passed(words).head, head, "{}", words.escape_ascii());
    }
}

#[test]
fn a_client_of_http_1_0_gets_them_as_well() {
    let old = "GET / HTTP/1.0\r\nHost: a\r\n\r\n";
    let words = b"HTTP/1.1 200 OK\r\nA : b\r\nC D: e\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    let (got, end) = responded(words, old);
    assert_eq!(super::raw_connection::text(got), "HTTP/1.0 200 OK\r\nA: b\r\nC D: e\r\n\r\nok");
    assert_eq!(end, End::Fin);
}

#[test]
fn a_connection_whose_response_had_two_framings_is_not_used_again() {
    let primary = Server::start(|mut visit| {
        while visit.request().is_some() {
            visit.raw_connection.send(
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            );
        }
    });
    let rig = Setup::to(&primary).start();
    for n in 1..=3 {
        let mut client = rig.client();
        let response = client.request(GET);
        assert_eq!((&response.body[..], response.value("connection")), (&b"ok"[..], Some("close")));
        // The next request would not get there: what follows could be read in two ways.
        client.try_send(GET);
        client.rest();
        assert_eq!(primary.connections(), n);
        assert_eq!(primary.requests().len(), n);
    }
}

#[test]
fn interim_responses_are_repaired_too() {
    let words = b"HTTP/1.1 103 Early Hints\r\nLink : x\r\nno colon\r\n\r\nHTTP/1.1 200 OK\r\nA : b\r\nContent-Length: 2\r\n\r\nok";
    let (got, _) = responded(words, GET);
    assert_eq!(
        super::raw_connection::text(got),
        "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nA: b\r\nContent-Length: 2\r\n\r\nok"
    );
}

#[test]
fn a_shadow_may_respond_so_as_well() {
    let primary = Server::ok();
    let shadow =
        Server::responding("HTTP/1.1 200 OK\r\nA : b\r\nC D: e\r\nContent-Length: 2, 2\r\n\r\nok");
    let rig = Setup::mirrored(&primary, shadow.address).start();
    let mut client = rig.client();
    for _ in 0..100 {
        assert_eq!(client.request(GET).status(), 200);
    }
    let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx";
    assert_eq!(client.request(post).status(), 200);
    rig.all_ended("shadow", 101, mirror_user::outcome::CopyOutcome::Delivered);
}

//! Framing and Host: what leaves has one framing and one Host; what is malformed is answered, and
//! the response arrives.

use super::{
    harness::Setup,
    raw_connection::{End, Message, RawConnection, text},
    server::Server,
};

/// The response to a request that no primary may see, and the connection's end.
fn refused(request: impl AsRef<[u8]>) -> Message {
    let primary = Server::ok();
    let rig = Setup::to(&primary).start();
    let mut client = rig.client();
    // We may stop reading before all of it is sent.
    client.try_send(request);
    let response = client.message();
    assert_eq!(client.rest(), (Vec::new(), End::Fin), "{}", response.head);
    assert!(primary.requests().is_empty());
    response
}

/// What the primary got of a request, which was answered.
fn passed(request: &str) -> Message {
    let primary = Server::ok();
    let rig = Setup::to(&primary).start();
    let mut client = rig.client();
    assert_eq!(client.request(request).status(), 200, "{request:?}");
    primary.requests()[0].clone()
}

#[test]
fn malformed_requests_get_400() {
    for request in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX[]\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n[Host]: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX : a\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\na",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\nab",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ] {
        assert_eq!(refused(request).status(), 400, "{request:?}");
    }
}

#[test]
fn what_we_refuse_says_why() {
    let response = refused("GET / HTTP/1.1\r\n\r\n");
    assert!(response.value("x-mirror-reason").unwrap().contains("Host"), "{}", response.head);
    assert_eq!(response.value("connection"), Some("close"));
}

#[test]
fn long_targets_get_414_and_large_heads_431() {
    let long = "a".repeat(70_000);
    assert_eq!(refused(format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n")).status(), 414);
    let large = "b".repeat(300_000);
    let request = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {large}\r\n\r\n");
    assert_eq!(refused(request).status(), 431);
    let many = "X: y\r\n".repeat(1_001);
    assert_eq!(refused(format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n")).status(), 431);
}

#[test]
fn heads_below_the_limits_pass() {
    let long = "a".repeat(60_000);
    let request = format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(passed(&request).head, request);
    let large = "b".repeat(200_000);
    let request = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {large}\r\n\r\n");
    assert_eq!(passed(&request).head, request);
    let many = "X: y\r\n".repeat(900);
    let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n");
    assert_eq!(passed(&request).head, request);
}

#[test]
fn a_length_beside_chunks_leaves_as_chunks_alone() {
    let primary = Server::ok();
    let rig = Setup::to(&primary).start();
    let mut client = rig.client();
    let response = client.request(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n\
         5\r\nhello\r\n0\r\n\r\n",
    );
    match response.status() {
        400 => assert!(primary.requests().is_empty()),
        200 => {
            let request = &primary.requests()[0];
            assert_eq!(request.value("content-length"), None);
            assert_eq!(request.values("transfer-encoding"), ["chunked"]);
            assert_eq!(request.body, b"hello");
        }
        other => panic!("{other}"),
    }
}

#[test]
fn equal_lengths_leave_as_one() {
    let request =
        passed("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nab");
    assert_eq!(request.values("content-length"), ["2"]);
    assert_eq!(request.body, b"ab");
}

#[test]
fn what_servers_take_of_a_head_reaches_primary_and_shadow() {
    let (primary, shadow) = (Server::ok(), Server::ok());
    let rig = Setup::mirrored(&primary, shadow.address).start();
    let head = "GET  / HTTP/1.1\r\nHost: a,b\r\nX: y\r\n z\r\nCookie: a=\u{1}\u{7f}\r\nX[1]: 2\r\nA: b\r\n\r\n";
    let sent =
        "GET / HTTP/1.1\r\nHost: a,b\r\nX: y z\r\nCookie: a=\u{1}\u{7f}\r\nA: b\r\nX[1]: 2\r\n\r\n";
    assert_eq!(rig.client().request(head).status(), 200);
    assert_eq!(primary.wait_requests(1)[0].head, sent);
    assert_eq!(shadow.wait_requests(1)[0].head, sent.replace("a,b", "a,b-shadow"));
}

#[test]
fn bare_line_feeds_leave_as_proper_lines() {
    let request = passed("GET /x HTTP/1.1\nHost: a\nX: y\n\n");
    assert_eq!(request.head, "GET /x HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n");
}

#[test]
fn absolute_targets_of_the_service_become_origin_form() {
    let request = passed("GET http://u:p@front:80/x?y HTTP/1.1\r\nA: b\r\nHost: a\r\n\r\n");
    assert_eq!(request.head, "GET /x?y HTTP/1.1\r\nA: b\r\nHost: front:80\r\n\r\n");
    let request = passed("GET http://front HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(request.head, "GET / HTTP/1.1\r\nHost: front\r\n\r\n");
}

#[test]
fn fields_of_one_hop_stay_behind_in_both_directions() {
    let primary = Server::responding(
        "HTTP/1.1 200 OK\r\nA: 1\r\nConnection: keep-alive, X-Hop\r\nKeep-Alive: timeout=5\r\n\
         X-Hop: 1\r\nZ: 2\r\nContent-Length: 2\r\n\r\nok",
    );
    let rig = Setup::to(&primary).start();
    let mut client = rig.client();
    let response = client.request(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, X-Secret, Host\r\nX-Secret: 1\r\n\
         Keep-Alive: 1\r\nProxy-Connection: keep-alive\r\nX-Kept: 1\r\n\r\n",
    );
    assert_eq!(response.head, "HTTP/1.1 200 OK\r\nA: 1\r\nZ: 2\r\nContent-Length: 2\r\n\r\n");
    assert_eq!(primary.requests()[0].head, "GET / HTTP/1.1\r\nHost: a\r\nX-Kept: 1\r\n\r\n");
}

#[test]
fn a_bad_chunk_aborts_the_primarys_request() {
    for bad in ["zz\r\n", "5\r\nhelloXX", "fffffffffffffffff\r\n"] {
        let primary = Server::start(|mut visit| {
            visit.request();
            visit.raw_connection.rest();
        });
        let rig = Setup::to(&primary).start();
        let mut client = rig.client();
        client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
        super::harness::eventually("the good chunk", || primary.bytes(0).ends_with(b"abc\r\n"));
        client.send(bad);
        ends_badly(client);
        super::harness::eventually("the primary sees an end", || primary.ended(0).is_some());
        assert!(primary.requests().is_empty(), "{bad:?}");
        assert!(!String::from_utf8_lossy(&primary.bytes(0)).contains("\r\n0\r\n"));
    }
}

/// Closed without a response that could be taken for the primary's.
fn ends_badly(mut client: RawConnection) {
    let (rest, _) = client.rest();
    let rest = text(rest);
    assert!(rest.is_empty() || rest.starts_with("HTTP/1.1 400"), "{rest:?}");
}

#[test]
fn a_request_behind_a_malformed_one_is_never_executed() {
    let primary = Server::ok();
    let rig = Setup::to(&primary).start();
    let mut client = rig.client();
    client.send(
        "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n\
         GET /3 HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    assert_eq!(client.message().status(), 200);
    assert_eq!(client.message().status(), 400);
    assert_eq!(client.rest(), (Vec::new(), End::Fin));
    assert_eq!(primary.requests().len(), 1);
}

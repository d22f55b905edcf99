//! HTTP/1.1 and 1.0 between a client and its primary: every byte as it would be without us.

use std::{fmt::Write, time::Duration};

use super::{
    harness::Setup,
    raw_connection::{End, text},
    server::Server,
};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn a_request_and_its_response_pass_byte_for_byte() {
    let answer = "HTTP/1.1 200 Fine\r\nX-Case: One\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\
                  etag: \"x\"\r\ncOnTeNt-LeNgTh: 2\r\n\r\nok";
    let request = "POST /a/b?c=%20d HTTP/1.1\r\nhOsT: httpbin:8000\r\nUser-Agent: curl\r\n\
                   X-Two: 1\r\nx-two: 2\r\nAccept: */*\r\nCONTENT-LENGTH: 5\r\n\r\nhello";
    let primary = Server::responding(answer);
    let rig = Setup::to(&primary).start();
    let mut client = rig.client();
    client.send(request);
    let got = client.exactly(answer.len());
    assert_eq!(got.escape_ascii().to_string(), answer.as_bytes().escape_ascii().to_string());
    assert_eq!(primary.bytes(0).escape_ascii().to_string(), request.escape_default().to_string());
}

#[test]
fn a_bare_request_gets_nothing_added() {
    for request in [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "DELETE /x HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "GET / HTTP/1.0\r\nHost: a\r\n\r\n",
    ] {
        let primary = Server::responding("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        let rig = Setup::to(&primary).start();
        let mut client = rig.client();
        assert_eq!(client.request(request).status(), 200);
        assert_eq!(text(primary.bytes(0)), request);
    }
}

#[test]
fn keep_alive_uses_one_connection_on_each_leg() {
    let primary = Server::ok();
    let rig = Setup::to(&primary).start();
    let mut client = rig.client();
    for _ in 0..200 {
        assert_eq!(client.request(GET).body, b"ok");
    }
    assert_eq!(primary.requests().len(), 200);
    assert_eq!(primary.connections(), 1);
}

#[test]
fn pipelined_requests_get_responses_in_order() {
    let primary = Server::start(|mut visit| {
        while let Some(request) = visit.request() {
            let path = request.head.split(' ').nth(1).unwrap().to_owned();
            let length = path.len() + request.body.len();
            visit
                .raw_connection
                .send(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{path}"));
            visit.raw_connection.send(request.body);
        }
    });
    let rig = Setup::to(&primary).start();
    let mut client = rig.client();
    let mut all = String::new();
    for n in 0..50 {
        write!(all, "GET /get/{n} HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        write!(all, "POST /post/{n} HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n+{n:02}")
            .unwrap();
    }
    client.send(all);
    client.finish();
    for n in 0..50 {
        assert_eq!(client.message().body, format!("/get/{n}").as_bytes());
        assert_eq!(client.message().body, format!("/post/{n}+{n:02}").as_bytes());
    }
    assert_eq!(client.rest(), (Vec::new(), End::Fin));
}

#[test]
fn chunked_bodies_and_declared_trailers_pass_both_ways() {
    let primary = Server::responding(
        "HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n\
         3\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 5\r\n\r\n",
    );
    let rig = Setup::to(&primary).start();
    let mut client = rig.client();
    let answer = client.request(
        "POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nTrailer: X-Check\r\n\
         Transfer-Encoding: chunked\r\n\r\n4\r\nwxyz\r\n1\r\n!\r\n0\r\nX-Check: yes\r\n\r\n",
    );
    assert_eq!(answer.body, b"abcde");
    assert_eq!(answer.trailers.to_lowercase(), "x-sum: 5\r\n");
    let request = &primary.requests()[0];
    assert_eq!(request.body, b"wxyz!");
    assert_eq!(request.trailers.to_lowercase(), "x-check: yes\r\n");
    assert_eq!(request.value("trailer"), Some("X-Check"));
}

#[test]
fn chunks_arrive_as_they_are_sent() {
    let primary = Server::start(|mut visit| {
        visit.raw_connection.head();
        visit.raw_connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        for _ in 0..3 {
            let chunk = visit.raw_connection.until(b"\r\n");
            let data = visit.raw_connection.until(b"\r\n");
            visit.raw_connection.send(format!("{chunk}{data}"));
        }
        visit.raw_connection.rest();
    });
    let rig = Setup::to(&primary).start();
    let mut client = rig.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.head();
    for word in ["one", "two", "six"] {
        client.send(format!("3\r\n{word}\r\n"));
        assert_eq!(client.until(b"\r\n").trim(), "3");
        assert_eq!(client.until(b"\r\n").trim(), word);
    }
}

#[test]
fn a_client_that_expects_100_continue_gets_it_before_its_body() {
    let primary = Server::ok();
    let rig = Setup::to(&primary).start();
    let mut client = rig.client();
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
    assert_eq!(client.head().status(), 100);
    assert_eq!(client.request("body").body, b"ok");
    assert_eq!(primary.requests()[0].body, b"body");
}

#[test]
fn responses_without_a_body_keep_their_fields_and_the_connection() {
    for (request, answer) in [
        ("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n"),
        ("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200 OK\r\nX: y\r\n\r\n"),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 204 No Content\r\nX: y\r\n\r\n"),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n"),
    ] {
        let primary = Server::start(move |mut visit| {
            while let Ok(_head) = visit.raw_connection.try_until(b"\r\n\r\n") {
                visit.raw_connection.send(answer);
            }
        });
        let rig = Setup::to(&primary).start();
        let mut client = rig.client();
        for _ in 0..3 {
            client.send(request);
            assert_eq!(client.head().head, answer);
        }
        assert_eq!(primary.connections(), 1, "{answer:?}");
    }
}

#[test]
fn http_1_0_without_keep_alive_ends_with_the_connection() {
    let primary = Server::responding(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    );
    let rig = Setup::to(&primary).start();
    let mut client = rig.client();
    client.send("GET / HTTP/1.0\r\n\r\n");
    let (answer, end) = client.rest();
    let answer = text(answer);
    assert!(answer.starts_with("HTTP/1.0 200 OK\r\n"), "{answer:?}");
    assert!(answer.ends_with("\r\n\r\nok"), "{answer:?}");
    assert!(!answer.to_lowercase().contains("transfer-encoding"), "{answer:?}");
    assert_eq!(end, End::Fin);
}

#[test]
fn http_1_0_with_keep_alive_goes_on() {
    let primary = Server::ok();
    let rig = Setup::to(&primary).start();
    let mut client = rig.client();
    for _ in 0..3 {
        let answer = client.request("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        assert!(answer.head.starts_with("HTTP/1.0 200"), "{}", answer.head);
        assert_eq!(
            answer.value("connection").map(str::to_lowercase).as_deref(),
            Some("keep-alive")
        );
        assert_eq!(answer.body, b"ok");
    }
}

#[test]
fn a_response_that_ends_with_the_primarys_connection_ends_with_the_clients() {
    let primary = Server::start(|mut visit| {
        visit.request();
        visit.raw_connection.send("HTTP/1.0 200 OK\r\nX: y\r\n\r\nall of it");
    });
    let rig = Setup::to(&primary).start();
    let mut client = rig.client();
    client.send(GET);
    let (response, end) = client.rest();
    assert_eq!(text(response), "HTTP/1.1 200 OK\r\nX: y\r\n\r\nall of it");
    assert_eq!(end, End::Fin);
}

#[test]
fn connection_close_from_the_client_is_kept() {
    let primary = Server::ok();
    let rig = Setup::to(&primary).start();
    let mut client = rig.client();
    let answer = client.request("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert_eq!(answer.value("connection"), Some("close"));
    assert_eq!(client.rest(), (Vec::new(), End::Fin));
    assert_eq!(primary.requests()[0].value("connection"), Some("close"));
}

#[test]
fn a_client_may_close_its_side_before_the_response() {
    let primary = Server::ok();
    let rig = Setup::to(&primary).start();
    let mut client = rig.client();
    client.send(GET);
    client.finish();
    assert_eq!(client.message().body, b"ok");
    assert_eq!(client.rest(), (Vec::new(), End::Fin));
}

/// What these say is what the content would be.
#[test]
fn a_response_without_a_body_keeps_its_framing() {
    for (method, answer, framing) in [
        ("HEAD", "HTTP/1.1 200 OK\r\n", "Transfer-Encoding: chunked\r\n"),
        ("GET", "HTTP/1.1 304 Not Modified\r\n", "Content-Length: 1234\r\n"),
    ] {
        let primary = Server::start(move |mut visit| {
            while let Ok(_head) = visit.raw_connection.try_until(b"\r\n\r\n") {
                visit.raw_connection.send(format!("{answer}{framing}X: y\r\n\r\n"));
            }
        });
        let rig = Setup::to(&primary).start();
        let mut client = rig.client();
        for _ in 0..2 {
            client.send(format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n"));
            assert_eq!(client.head().head, format!("{answer}{framing}X: y\r\n\r\n"));
        }
        assert_eq!(primary.connections(), 1);
    }
}

#[test]
fn an_idle_connection_goes_on() {
    let primary = Server::ok();
    let rig = Setup::to(&primary).start();
    // Longer than a quiet connection keeps its buffers.
    let idle = Duration::from_millis(2500);
    let mut clients: Vec<_> = (0..4).map(|_| rig.client()).collect();
    for client in &mut clients {
        assert_eq!(client.request(GET).body, b"ok");
    }
    std::thread::sleep(idle);
    assert_eq!(clients[0].request(GET).body, b"ok");
    // A head in two parts.
    let (begin, end) = GET.split_at(9);
    clients[1].send(begin);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(clients[1].request(end).body, b"ok");
    // Two requests at once.
    clients[2].send(GET.repeat(2));
    assert_eq!(clients[2].message().body, b"ok");
    assert_eq!(clients[2].message().body, b"ok");
    clients[3].finish();
    assert_eq!(clients[3].rest(), (Vec::new(), End::Fin));
    std::thread::sleep(idle);
    assert_eq!(clients[0].request(GET).body, b"ok");
}

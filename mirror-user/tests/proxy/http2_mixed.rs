//! HTTP/2 on one side and HTTP/1 on the other, and WebSocket over either.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use h2::{ext::Protocol, server::Builder};
use http::{Request, Response};
use mirror_user::{
    outcome::Uncopied,
    route::{AppProtocol, BackendRef},
};

use super::{
    harness::{Setup, backend, rule},
    http2::{mirrored, to},
    raw_connection::{End, RawConnection},
    server::{OK, Server},
    streams::{Client, ReceivedResponse, Upstream, fields, post, read, run, until},
};

/// What a server of HTTP/1 says to the preface of HTTP/2.
const NOT_HTTP2: &str = "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n";

#[test]
fn a_primary_of_http1_is_found_out_and_remembered() {
    let primary = Server::start(|mut visit| {
        while let Some(request) = visit.request() {
            if request.head.starts_with("PRI ") {
                return visit.raw_connection.send(NOT_HTTP2);
            }
            visit.raw_connection.send(OK);
        }
    });
    let rig = to(primary.address);
    run(async {
        let mut client = Client::connect(rig.address()).await;
        for _ in 0..3 {
            let answer = client.get("/x").await.unwrap();
            assert_eq!((answer.status(), &*answer.body), (200, &b"ok"[..]));
        }
        let (response, mut body) = client.send(post("/up"), false).await;
        body.send_data(Bytes::from_static(b"abc"), true).unwrap();
        assert_eq!(ReceivedResponse::of(response).await.unwrap().status(), 200);
    });
    let requests = primary.requests();
    let heads: Vec<_> = requests.iter().map(|r| r.head.lines().next().unwrap_or("")).collect();
    assert_eq!(&heads[..2], ["PRI * HTTP/2.0", "GET /x HTTP/1.1"]);
    assert_eq!(heads.last(), Some(&"POST /up HTTP/1.1"));
    assert!(requests[1].head.contains("host: front:8000\r\n"), "{}", requests[1].head);
    assert_eq!(heads.iter().filter(|head| head.starts_with("PRI")).count(), 1);
}

#[test]
fn a_client_of_http1_reaches_a_primary_that_says_h2c() {
    run(async {
        let primary = Upstream::echo().await;
        let mut spoken = backend("primary", &[primary.address]);
        Arc::get_mut(&mut spoken).unwrap().protocol = AppProtocol::H2c;
        let spoken = BackendRef { weight: 1, filters: Vec::new(), target: Ok(spoken) };
        let rig = Setup::rules(primary.address, vec![rule(Vec::new(), vec![spoken])]).start();
        let address = rig.address();
        let talk = std::thread::spawn(move || {
            let mut client = RawConnection::connect(address);
            client.send(
                "POST /a HTTP/1.1\r\nHost: front\r\nConnection: close, x-hop\r\nX-Hop: 1\r\n\
                         Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            );
            client.rest()
        });
        until("the client has its answer", || talk.is_finished()).await;
        let (answer, end) = talk.join().unwrap();
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.ends_with("3\r\nabc\r\n0\r\n\r\n"), "{answer}");
        assert_eq!(end, End::Fin);
        let [got] = &primary.got()[..] else { panic!("one request") };
        assert_eq!((&*got.uri, &*got.body), ("http://front/a", &b"abc"[..]));
        assert_eq!(got.headers, fields(&[]));
    });
}

#[test]
fn what_is_odd_in_a_head_of_http1_reaches_a_client_of_http2_as_far_as_it_can() {
    let primary = Server::start(|mut visit| {
        while let Some(request) = visit.request() {
            if request.head.starts_with("PRI ") {
                return visit.raw_connection.send(NOT_HTTP2);
            }
            visit.raw_connection.send(
                "HTTP/1.1 200 OK\r\nA : b\r\nSet-Cookie: c=\u{1}d\r\nX Y: z\r\nno colon\r\n\
                 Content-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            );
        }
    });
    let rig = to(primary.address);
    run(async {
        let mut client = Client::connect(rig.address()).await;
        let answer = client.get("/x").await.unwrap();
        assert_eq!((answer.status(), &*answer.body), (200, &b"ok"[..]));
        assert_eq!(*answer.head.headers(), fields(&[("a", "b"), ("set-cookie", "c=?d")]));
    });
}

#[test]
fn a_websocket_over_http2_reaches_a_primary_of_http2() {
    run(async {
        let mut builder = Builder::new();
        builder.enable_connect_protocol();
        let primary = Upstream::start(builder, |mut stream| async move {
            let protocol = stream.request.as_ref().unwrap().extensions().get::<Protocol>().cloned();
            assert_eq!(protocol.unwrap().as_str(), "websocket");
            let mut body = stream.response(Response::new(()), false);
            let got = stream.take().await;
            body.send_data(got.body.into(), true).unwrap();
        })
        .await;
        let shadow = Upstream::echo().await;
        let rig = mirrored(primary.address, shadow.address);
        let mut client = Client::connect(rig.address()).await;
        let (response, mut body) = client.send(websocket(), false).await;
        let mut answer = response.await.unwrap();
        assert_eq!(answer.status(), 200);
        body.send_data(Bytes::from_static(b"frame"), true).unwrap();
        assert_eq!(read(answer.body_mut()).await.0, b"frame");
        assert_eq!((rig.copies("shadow").selected, shadow.connections()), (0, 0));
        assert_eq!(rig.report().uncopied[Uncopied::WebSocket as usize], 1);
    });
}

fn websocket() -> Request<()> {
    let mut request = Request::connect("http://front:8000/chat").body(()).expect("a request");
    request.headers_mut().insert("sec-websocket-version", "13".parse().expect("a value"));
    request.extensions_mut().insert(Protocol::from_static("websocket"));
    request
}

#[test]
fn a_websocket_over_http2_is_bridged_to_a_primary_of_http1() {
    let primary = Server::start(|mut visit| {
        let request = visit.request().expect("a request");
        if request.head.starts_with("PRI ") {
            return visit.raw_connection.send(NOT_HTTP2);
        }
        visit.raw_connection.send(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Accept: x\r\nSec-WebSocket-Protocol: chat\r\n\r\nhi",
        );
        let said = visit.raw_connection.exactly(5);
        visit.raw_connection.send(said);
        visit.raw_connection.rest();
        visit.raw_connection.send("bye");
    });
    let rig = to(primary.address);
    run(async {
        let mut client = Client::connect(rig.address()).await;
        let (response, mut body) = client.send(websocket(), false).await;
        let mut answer = response.await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers(), &fields(&[("sec-websocket-protocol", "chat")]));
        body.send_data(Bytes::from_static(b"frame"), true).unwrap();
        assert_eq!(read(answer.body_mut()).await.0, b"hiframebye");
    });
    let head = &primary.requests()[1].head;
    for line in [
        "GET /chat HTTP/1.1\r\n",
        "host: front:8000\r\n",
        "connection: Upgrade\r\n",
        "upgrade: websocket\r\n",
        "sec-websocket-version: 13\r\n",
        "sec-websocket-key: ",
    ] {
        assert!(head.contains(line), "{line} in {head}");
    }
}

#[test]
fn connect_over_http2_is_bridged_to_a_primary_of_http1() {
    let primary = Server::start(|mut visit| {
        let request = visit.request().expect("a request");
        if request.head.starts_with("PRI ") {
            return visit.raw_connection.send(NOT_HTTP2);
        }
        visit.raw_connection.send("HTTP/1.1 200 OK\r\n\r\nhi");
        let said = visit.raw_connection.exactly(5);
        visit.raw_connection.send(said);
        visit.raw_connection.rest();
        visit.raw_connection.send("bye");
    });
    let rig = to(primary.address);
    run(async {
        let mut client = Client::connect(rig.address()).await;
        let request = Request::connect("far:443").body(()).expect("a request");
        let (response, mut body) = client.send(request, false).await;
        let mut answer = response.await.expect("an answer");
        assert_eq!(answer.status(), 200);
        body.send_data(Bytes::from_static(b"frame"), true).expect("open");
        assert_eq!(read(answer.body_mut()).await.0, b"hiframebye");
    });
    let head = &primary.requests()[1].head;
    assert!(head.starts_with("CONNECT far:443 HTTP/1.1\r\nhost: far:443\r\n"), "{head}");
}

#[test]
fn a_bridge_whose_primary_does_not_read_ends_with_its_client() {
    let (tell, told) = std::sync::mpsc::channel();
    let primary = Server::start(move |mut visit| {
        let request = visit.request().expect("a request");
        if request.head.starts_with("PRI ") {
            return visit.raw_connection.send(NOT_HTTP2);
        }
        visit.raw_connection.send(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\n\r\n",
        );
        // It reads nothing, and learns of the end when it cannot write.
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(5) {
            if !visit.raw_connection.try_send("x") {
                return tell.send(()).expect("the test waits");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    });
    let rig = to(primary.address);
    run(async {
        let mut client = Client::connect(rig.address()).await;
        let (response, mut body) = client.send(websocket(), false).await;
        assert_eq!(response.await.expect("an answer").status(), 200);
        // More than what the buffers between take.
        body.send_data(vec![0; 16 << 20].into(), false).expect("open");
        tokio::time::sleep(Duration::from_millis(300)).await;
        client.connection.abort();
        until("the primary's connection has ended", || told.try_recv().is_ok()).await;
    });
}

#[test]
fn a_switch_that_a_client_of_http2_cannot_have_requested_is_refused() {
    let primary = Server::start(|mut visit| {
        while let Some(request) = visit.request() {
            match () {
                () if request.head.starts_with("PRI ") => return visit.raw_connection.send(NOT_HTTP2),
                () if request.head.contains(" /next ") => visit.raw_connection.send(OK),
                () => visit.raw_connection.send(
                    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: foo\r\n\r\n",
                ),
            }
        }
    });
    let rig = to(primary.address);
    run(async {
        let mut client = Client::connect(rig.address()).await;
        for path in ["/x", "/y"] {
            assert_eq!(client.get(path).await.unwrap().status(), 502);
            assert_eq!(client.get("/next").await.unwrap().status(), 200);
        }
        // A WebSocket, and a switch to something else.
        let (response, _body) = client.send(websocket(), false).await;
        assert_eq!(response.await.unwrap().status(), 502);
    });
}

#[test]
fn a_101_by_http2_is_passed_over() {
    run(async {
        let primary = Upstream::start(Builder::new(), |mut stream| async move {
            let mut switch = Response::new(());
            *switch.status_mut() = http::StatusCode::SWITCHING_PROTOCOLS;
            stream.respond.send_informational(switch).expect("an interim answer");
            stream.response(Response::new(()), true);
        })
        .await;
        let mut spoken = backend("primary", &[primary.address]);
        Arc::get_mut(&mut spoken).unwrap().protocol = AppProtocol::H2c;
        let spoken = BackendRef { weight: 1, filters: Vec::new(), target: Ok(spoken) };
        let rig = Setup::rules(primary.address, vec![rule(Vec::new(), vec![spoken])]).start();
        let address = rig.address();
        let talk = std::thread::spawn(move || {
            let mut client = RawConnection::connect(address);
            client.send(
                "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: TLS/1.2\r\n\r\n",
            );
            client.head().head
        });
        until("the client has its answer", || talk.is_finished()).await;
        let answer = talk.join().unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    });
}

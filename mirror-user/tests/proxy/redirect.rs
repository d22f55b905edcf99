//! RequestRedirect: mirror's whole response, on connections that go on; and what stands beside it in a
//! rule.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, StatusCode};
use mirror_user::{
    outcome::{CopyOutcome, DropReason, Ending, RefusalReason, ResponseSource},
    route::{Filter, HeaderModifier, HttpScheme, PathModifier, Redirect},
};
use serde_json::json;

use super::{
    access::logged,
    harness::{Rig, Setup, describe, ended, mirror, rule},
    raw_connection::Message,
    server::Server,
    streams::{Client, ReceivedResponse, Upstream, get, post, run, until},
};

pub(crate) const PLAIN: Redirect =
    Redirect { scheme: None, hostname: None, port: None, path: None, status: StatusCode::FOUND };

/// To one.example by https.
pub(crate) fn elsewhere() -> Redirect {
    let hostname = Some("one.example".to_owned());
    Redirect { scheme: Some(HttpScheme::Https), hostname, ..PLAIN }
}

pub(crate) fn redirect(redirect: Redirect) -> Filter {
    Filter::Redirect(Arc::new(redirect))
}

/// A rule without backends, in front of `original`.
fn setup(original: &Server, filters: Vec<Filter>) -> Setup {
    Setup::rules(original.address, vec![rule(filters, Vec::new())])
}

/// Responses of redirects with a status of this class, and of refusals.
fn counted(rig: &Rig, class: usize) -> (u64, u64) {
    let report = rig.report();
    let by = |source: ResponseSource| {
        let counts = report.exchanges.values();
        counts.map(|e| e.requests[class][source as usize][Ending::Complete as usize]).sum::<u64>()
    };
    (by(ResponseSource::Redirect), report.refused.iter().sum())
}

#[test]
fn a_redirect_is_the_whole_response() {
    let original = Server::ok();
    let rig = setup(&original, vec![redirect(PLAIN)]).start();
    let port = original.address.port();
    let mut client = rig.client();
    for (target, host) in [("/a/b?c=d&e", "front:8000"), ("/", "FRONT"), ("/x?", "[fd00::1]:80")] {
        let response = client.request(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        let host = host.strip_suffix(":8000").or(host.strip_suffix(":80")).unwrap_or(host);
        assert_eq!(
            response.head,
            format!(
                "HTTP/1.1 302 Found\r\nlocation: http://{host}:{port}{target}\r\n\
                 content-length: 0\r\n\r\n"
            )
        );
    }
    client.send("HEAD /a HTTP/1.1\r\nHost: front\r\n\r\n");
    let location = format!("location: http://front:{port}/a\r\n");
    assert_eq!(client.head().head, format!("HTTP/1.1 302 Found\r\n{location}\r\n"));
    let old = client.request("GET /a HTTP/1.0\r\nHost: front\r\nConnection: keep-alive\r\n\r\n");
    assert!(old.head.starts_with(&format!("HTTP/1.0 302 Found\r\n{location}")), "{}", old.head);
    assert_eq!(old.value("connection"), Some("keep-alive"), "{}", old.head);
    let nameless = client.request("GET /a HTTP/1.0\r\n\r\n");
    let address = format!("http://{}/a", original.address);
    assert_eq!(nameless.value("location"), Some(&*address), "what the client connected to");
    assert_eq!(original.connections(), 0);
    assert_eq!(counted(&rig, 3), (6, 0));
}

#[test]
fn each_part_of_the_location_can_be_replaced() {
    let original = Server::ok();
    let port = original.address.port();
    let at_port = |text: &str| text.replace("PORT", &port.to_string());
    let path = |path| Redirect { path: Some(path), ..PLAIN };
    let status = |code| Redirect { status: StatusCode::from_u16(code).unwrap(), ..elsewhere() };
    for (filter, status, location) in [
        (elsewhere(), 302, "https://one.example/a/b?c"),
        (Redirect { port: Some(8443), ..elsewhere() }, 302, "https://one.example:8443/a/b?c"),
        (Redirect { port: Some(80), ..PLAIN }, 302, "http://front/a/b?c"),
        (path(PathModifier::full("/one")), 302, "http://front:PORT/one?c"),
        (path(PathModifier::prefix("/a", "/xyz")), 302, "http://front:PORT/xyz/b?c"),
        (path(PathModifier::prefix("/", "/xyz")), 302, "http://front:PORT/xyz/a/b?c"),
        (status(301), 301, "https://one.example/a/b?c"),
        (status(303), 303, "https://one.example/a/b?c"),
        (status(307), 307, "https://one.example/a/b?c"),
        (status(308), 308, "https://one.example/a/b?c"),
    ] {
        let rig = setup(&original, vec![redirect(filter)]).start();
        let response = rig.client().request("GET /a/b?c HTTP/1.1\r\nHost: front:8000\r\n\r\n");
        assert_eq!(response.status(), status);
        assert_eq!(response.value("location"), Some(&*at_port(location)));
        assert_eq!(response.value("x-mirror-reason"), None);
    }
}

#[test]
fn a_body_that_is_not_read_does_not_disturb_the_next_request() {
    let original = Server::ok();
    let rig = setup(&original, vec![redirect(elsewhere())]).start();
    let mut client = rig.client();
    for request in [
        "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
        "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        "GET /a HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        let response = client.request(request);
        assert_eq!((response.status(), response.body.len()), (302, 0), "{request}");
        assert_eq!(response.value("connection"), None, "{}", response.head);
    }
    for _ in 0..20 {
        let mut client = rig.client();
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n\r\n");
        let taken = (0..60).take_while(|_| client.try_send([b'x'; 50_000])).count();
        assert_eq!(client.message().status(), 302, "{taken}");
    }
    let waits = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    assert_eq!(rig.client().request(waits).status(), 302, "and no 100 before it");
    assert_eq!(counted(&rig, 3), (25, 0));
}

#[test]
fn requests_for_a_tunnel_are_redirected_too() {
    let original = Server::ok();
    let rig = setup(&original, vec![redirect(elsewhere())]).start();
    let mut client = rig.client();
    let websocket = client.request(
        "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    );
    assert_eq!(websocket.status(), 302);
    assert_eq!(websocket.value("location"), Some("https://one.example/chat"));
    let connect = rig.client().request("CONNECT ext:443 HTTP/1.1\r\nHost: ext:443\r\n\r\n");
    assert_eq!((connect.status(), connect.value("location")), (302, Some("https://one.example")));
    let options = rig.client().request("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(options.value("location"), Some("https://one.example"));
}

#[test]
fn filters_before_it_act_and_those_behind_it_do_not() {
    let (original, before, behind) = (Server::ok(), Server::ok(), Server::ok());
    let set = |name: &str| {
        let set = vec![(name.parse().unwrap(), "two.example:81".parse().unwrap())];
        HeaderModifier { set, ..HeaderModifier::default() }
    };
    let filters = vec![
        Filter::RequestHeaders(set("host")),
        mirror("before", before.address),
        redirect(Redirect { port: Some(80), ..PLAIN }),
        Filter::ResponseHeaders(set("x-by")),
        mirror("behind", behind.address),
    ];
    let rig = setup(&original, filters).start();
    let mut client = rig.client();
    let response = client.request("GET /a?b HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(
        response.head,
        "HTTP/1.1 302 Found\r\nlocation: http://two.example/a?b\r\nx-by: two.example:81\r\n\
         content-length: 0\r\n\r\n"
    );
    rig.all_ended("before", 1, CopyOutcome::Delivered);
    assert_eq!(
        before.wait_requests(1)[0].head,
        "GET /a?b HTTP/1.1\r\nHost: two.example-shadow:81\r\n\r\n"
    );
    assert_eq!(rig.copies("behind").selected, 0);
    assert_eq!((original.connections(), behind.connections()), (0, 0));
}

/// Copies of a request that is redirected: how many were whole, what they had, and how many were cut.
fn copied(request: &[u8]) -> (Vec<Message>, u64) {
    let (original, shadow) = (Server::ok(), Server::ok());
    let filters = vec![mirror("shadow", shadow.address), redirect(PLAIN)];
    let rig = setup(&original, filters).start();
    let mut client = rig.client();
    client.send(request);
    assert_eq!(client.message().status(), 302);
    let copies = rig.settled("shadow", 1);
    let cut = ended(&copies, CopyOutcome::Dropped(DropReason::PrimaryEnded));
    assert_eq!(ended(&copies, CopyOutcome::Delivered) + cut, 1, "{}", describe(&copies));
    (shadow.requests(), cut)
}

#[test]
fn a_copy_of_what_is_redirected_is_whole_if_its_content_is_short_and_there() {
    let head = "POST / HTTP/1.1\r\nHost: a\r\n";
    let counted = format!("{head}Content-Length: 5\r\n\r\nhello");
    let chunked =
        format!("{head}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n");
    for (request, trailers) in [(counted, ""), (chunked, "x-sum: 1\r\n")] {
        let (copies, cut) = copied(request.as_bytes());
        assert_eq!((copies.len(), cut), (1, 0));
        assert_eq!(
            (&*copies[0].body, &*copies[0].trailers.to_lowercase()),
            (&b"hello"[..], trailers)
        );
    }
    let large = |length: usize| {
        let head = format!("{head}Content-Length: {length}\r\n\r\n");
        [head.into_bytes(), vec![b'x'; length]].concat()
    };
    for cut_short in [
        large(65_536),
        // The rest does not come in time, or not at all.
        format!("{head}Content-Length: 6\r\n\r\nhello").into_bytes(),
        format!("{head}Expect: 100-continue\r\nContent-Length: 5\r\n\r\n").into_bytes(),
    ] {
        assert_eq!(copied(&cut_short), (Vec::new(), 1));
    }
}

/// A client that redirects take no time from without a mirror loses none by one.
#[test]
fn a_redirect_does_not_wait_for_the_content_of_its_copies() {
    let (original, shadow) = (Server::ok(), Server::ok());
    let filters = vec![mirror("shadow", shadow.address), redirect(PLAIN)];
    let rig = setup(&original, filters).start();
    let mut times = Vec::new();
    for _ in 0..10 {
        let mut client = rig.client();
        let begun = Instant::now();
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nhello");
        assert_eq!(client.message().status(), 302);
        times.push(begun.elapsed());
    }
    // One that waits for it takes 50 ms each time.
    assert!(times.iter().min().is_some_and(|least| least.as_millis() < 25), "{times:?}");
    let copies = rig.settled("shadow", 10);
    let cut = ended(&copies, CopyOutcome::Dropped(DropReason::PrimaryEnded));
    assert_eq!(cut, 10, "{}", describe(&copies));
}

#[test]
fn copies_of_streams_that_are_redirected_are_whole() {
    let original = Server::ok();
    run(async {
        let shadow = Upstream::echo().await;
        let filters = vec![mirror("shadow", shadow.address), redirect(PLAIN)];
        let rig = setup(&original, filters).start();
        let mut client = Client::connect(rig.address()).await;
        for (at, length) in [5, 65_535].into_iter().enumerate() {
            let content = Bytes::from(vec![b'x'; length]);
            let (response, mut body) = client.send(post("/"), false).await;
            body.send_data(content.clone(), true).expect("the stream is open");
            assert_eq!(ReceivedResponse::of(response).await.expect("a response").status(), 302);
            until("the copy", || shadow.got().len() == at + 1).await;
            let got = &shadow.got()[at];
            assert_eq!((*got.body == content, got.broke), (true, None), "{length} bytes");
        }
    });
}

#[test]
fn the_access_log_says_who_redirected() {
    let original = Server::ok();
    let mut lines = logged(setup(&original, vec![redirect(elsewhere())]), |rig| {
        rig.client().request("GET /a HTTP/1.1\r\nHost: front\r\n\r\n");
    });
    let line = lines.pop().expect("a line");
    for (field, value) in [
        ("status", json!(302)),
        ("answer", json!("redirect")),
        ("ending", json!("complete")),
        ("route", json!("default/route")),
        ("backend", json!(null)),
        ("reason", json!(null)),
    ] {
        assert_eq!(line[field], value, "{field}");
    }
}

#[test]
fn streams_of_http2_are_redirected_and_their_connection_goes_on() {
    let original = Server::ok();
    let rig = setup(&original, vec![redirect(elsewhere())]).start();
    run(async {
        let mut client = Client::connect(rig.address()).await;
        for _ in 0..3 {
            let response = client.get("/a/b?c").await.unwrap();
            let fields: Vec<_> = response.head.headers().iter().collect();
            assert_eq!((response.status(), fields.len()), (302, 1), "{fields:?}");
            assert_eq!(response.head.headers()["location"], "https://one.example/a/b?c");
            assert!(response.body.is_empty() && response.broke.is_none());
        }
        // Its body goes on meanwhile.
        let request = Request::post("https://front:8000/up").body(()).unwrap();
        let (response, mut body) = client.send(request, false).await;
        body.send_data(Bytes::from_static(b"hello"), false).unwrap();
        let head = response.await.unwrap();
        assert_eq!(head.headers()["location"], "https://one.example/up");
        let (response, _) = client.send(get("/next"), true).await;
        assert_eq!(ReceivedResponse::of(response).await.unwrap().status(), 302);
    });
    assert_eq!(rig.report().refused[RefusalReason::MalformedStream as usize], 0);
    assert_eq!(original.connections(), 0);
}

/// A reset, even one without an error, is a failure to some clients that are still sending.
#[test]
fn a_body_of_http2_that_follows_its_head_soon_is_taken_and_the_stream_is_not_reset() {
    let original = Server::ok();
    let rig = setup(&original, vec![redirect(elsewhere())]).start();
    run(async {
        let mut client = Client::connect(rig.address()).await;
        let mut ended = 0;
        for _ in 0..20 {
            let request = Request::post("https://front:8000/late").body(()).unwrap();
            let (response, mut body) = client.send(request, false).await;
            tokio::time::sleep(Duration::from_millis(5)).await;
            let taken = body.send_data(Bytes::from_static(b"hello"), true).is_ok();
            let response = ReceivedResponse::of(response).await.unwrap();
            assert_eq!(response.head.headers()["location"], "https://one.example/late");
            ended += u32::from(taken);
        }
        // All of them, unless the machine has no time for this test.
        assert!(ended > 0, "each stream was reset before its body came");
    });
}

#[test]
fn the_scheme_of_a_request_by_http2_stays() {
    let original = Server::ok();
    let rig = setup(&original, vec![redirect(Redirect { port: Some(443), ..PLAIN })]).start();
    run(async {
        let mut client = Client::connect(rig.address()).await;
        for (scheme, expected) in [("https", "https://a/x"), ("http", "http://a:443/x")] {
            let request = Request::get(format!("{scheme}://a:1/x")).body(()).unwrap();
            let (response, _) = client.send(request, true).await;
            let response = ReceivedResponse::of(response).await.unwrap();
            assert_eq!(response.head.headers()["location"], expected);
        }
    });
}

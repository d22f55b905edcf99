//! URLRewrite: what primary and shadow get, by the place of the filter in its list.

use std::sync::Arc;

use http::{HeaderValue, Method, Request};
use mirror_user::{
    outcome::CopyOutcome::Delivered,
    route::{AppProtocol, BackendRef, Filter, Fraction, Mirror, PathModifier, Rewrite},
};

use super::{
    harness::{Setup, backend, backend_ref, mirror, rule},
    raw_connection::text,
    server::Server,
    streams::{Client, ReceivedResponse, Upstream, run, until},
};

pub(crate) fn rewrite(hostname: Option<&'static str>, path: Option<PathModifier>) -> Filter {
    Filter::Rewrite(Arc::new(Rewrite { hostname: hostname.map(HeaderValue::from_static), path }))
}

/// Host and prefix.
fn both() -> Filter {
    rewrite(Some("one.example"), Some(PathModifier::prefix("/a", "/xyz")))
}

/// What primary and shadow get of a request, as bytes.
fn sent(request: &[u8], filters: impl FnOnce(&Server) -> Vec<Filter>) -> [String; 2] {
    let (primary, shadow) = (Server::ok(), Server::ok());
    let rig = Setup::with(&primary, filters(&shadow)).start();
    assert_eq!(rig.client().request(request).body, b"ok");
    rig.all_ended("shadow", 1, Delivered);
    [&primary, &shadow]
        .map(|server| server.bytes(0).escape_ascii().to_string().replace(r"\r\n", "\n"))
}

#[test]
fn a_copy_is_the_request_as_it_stands_at_its_filters_place() {
    let request =
        b"POST /a/b?c=d HTTP/1.1\r\nHoSt: front:8000\r\nX-A: 1\r\nContent-Length: 2\r\n\r\nhi";
    let came = "POST /a/b?c=d HTTP/1.1\nHoSt: front-shadow:8000\nX-A: 1\nContent-Length: 2\n\nhi";
    let left = "POST /xyz/b?c=d HTTP/1.1\nHoSt: one.example\nX-A: 1\nContent-Length: 2\n\nhi";
    let behind = left.replace("one.example", "one.example-shadow");
    let before = sent(request, |shadow| vec![mirror("shadow", shadow.address), both()]);
    assert_eq!(before, [left, came]);
    let after = sent(request, |shadow| vec![both(), mirror("shadow", shadow.address)]);
    assert_eq!(after, [left, &*behind]);
}

#[test]
fn whatever_is_not_replaced_stays_byte_for_byte() {
    for (line, expected, host) in [
        (&b"GET /a"[..], "GET /xyz", "one.example"),
        (b"GET /a/?q=<5>&r=%zz#f", "GET /xyz/?q=<5>&r=%zz#f", "one.example"),
        (b"GET /a/caf\xe9//..//<`?\xff", r"GET /xyz/caf\xe9//..//<`?\xff", "one.example"),
        (b"GET /a/%2F%41", "GET /xyz/%2F%41", "one.example"),
        (b"GET http://front/a/x?y", "GET /xyz/x?y", "one.example"),
        (b"GET http://ext.example:81/a/x?y", "GET http://one.example/xyz/x?y", "one.example"),
        (b"OPTIONS *", "OPTIONS *", "one.example"),
        (b"GET /other", "GET /other", "one.example"),
    ] {
        let request = [line, b" HTTP/1.1\r\nHost: front\r\n\r\n"].concat();
        let [primary, shadow] =
            sent(&request, |shadow| vec![both(), mirror("shadow", shadow.address)]);
        assert_eq!(primary, format!("{expected} HTTP/1.1\nHost: {host}\n\n"));
        assert_eq!(shadow, format!("{expected} HTTP/1.1\nHost: {host}-shadow\n\n"));
    }
}

#[test]
fn host_and_path_can_each_stay() {
    let request = b"GET /a/b?c HTTP/1.1\r\nHost: front:8000\r\n\r\n";
    let with =
        |filter| sent(request, |shadow| vec![mirror("shadow", shadow.address), filter])[0].clone();
    assert_eq!(
        with(rewrite(Some("one.example"), None)),
        "GET /a/b?c HTTP/1.1\nHost: one.example\n\n"
    );
    assert_eq!(
        with(rewrite(None, Some(PathModifier::full("/one")))),
        "GET /one?c HTTP/1.1\nHost: front:8000\n\n"
    );
    let old = |filters| sent(b"GET /a HTTP/1.0\r\n\r\n", filters)[0].clone();
    assert_eq!(
        old(|shadow: &Server| vec![mirror("shadow", shadow.address), both()]),
        "GET /xyz HTTP/1.0\nhost: one.example\n\n"
    );
}

#[test]
fn tunnels_are_rewritten_but_not_where_connect_leads() {
    let primary = Server::ok();
    let rig = Setup::with(&primary, vec![both()]).start();
    let websocket = "GET /a/chat HTTP/1.1\r\nHost: front\r\nConnection: Upgrade\r\n\
                     Upgrade: websocket\r\n\r\n";
    assert_eq!(rig.client().request(websocket).body, b"ok");
    let got = text(primary.bytes(0));
    assert_eq!(got, websocket.replace("/a/chat", "/xyz/chat").replace("front", "one.example"));
    let connect = "CONNECT ext:443 HTTP/1.1\r\nHost: ext:443\r\n\r\n";
    let mut client = rig.client();
    client.send(connect);
    assert_eq!(client.head().status(), 200);
    assert_eq!(text(primary.bytes(1)), connect);
}

#[test]
fn streams_of_http2_are_rewritten() {
    run(async {
        let (primary, shadow) = (Upstream::echo().await, Upstream::echo().await);
        for (filters, copied) in [
            (vec![both(), mirror("shadow", shadow.address)], "http://one.example-shadow/xyz/b?c=d"),
            (vec![mirror("shadow", shadow.address), both()], "http://front-shadow:8000/a/b?c=d"),
        ] {
            let before = shadow.got().len();
            let refs = vec![backend_ref("primary", &[primary.address])];
            let rig = Setup::rules(primary.address, vec![rule(filters, refs)]).start();
            let mut client = Client::connect(rig.address()).await;
            let request = Request::builder()
                .method(Method::POST)
                .uri("http://front:8000/a/b?c=d")
                .header("x-a", "1")
                .body(())
                .unwrap();
            let (response, mut body) = client.send(request, false).await;
            body.send_data("hi".into(), true).unwrap();
            let response = ReceivedResponse::of(response).await.unwrap();
            assert_eq!((response.status(), &*response.body), (200, &b"hi"[..]));
            let got = primary.got().pop().expect("a request");
            assert_eq!((&*got.uri, got.headers.len()), ("http://one.example/xyz/b?c=d", 1));
            until("the copy arrives", || shadow.got().len() > before).await;
            let got = shadow.got().pop().expect("a copy");
            assert_eq!((&*got.uri, got.headers.len()), (copied, 1));
        }
    });
}

#[test]
fn a_rewritten_request_crosses_versions() {
    // A client of HTTP/2, a primary of HTTP/1.
    let (primary, shadow) = (Server::ok(), Server::ok());
    let [first, copies] = [("primary", &primary), ("shadow", &shadow)].map(|(name, server)| {
        let mut spoken = backend(name, &[server.address]);
        Arc::get_mut(&mut spoken).expect("just made").protocol = AppProtocol::WebSocket;
        spoken
    });
    let mirror = Filter::Mirror(Mirror { target: Ok(copies), share: Fraction::ALL });
    let refs = vec![BackendRef { weight: 1, filters: Vec::new(), target: Ok(first) }];
    let setup = Setup::rules(primary.address, vec![rule(vec![both(), mirror], refs)]);
    let rig = setup.start();
    run(async {
        let mut client = Client::connect(rig.address()).await;
        let response = client.get("/a/b?c").await.unwrap();
        assert_eq!((response.status(), &*response.body), (200, &b"ok"[..]));
    });
    rig.all_ended("shadow", 1, Delivered);
    let head = |host: &str| format!("GET /xyz/b?c HTTP/1.1\r\nhost: {host}\r\n\r\n");
    assert_eq!(text(primary.bytes(0)), head("one.example"));
    assert_eq!(text(shadow.bytes(0)), head("one.example-shadow"));
}

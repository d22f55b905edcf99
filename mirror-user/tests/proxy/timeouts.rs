//! Timeouts of a rule (HTTPRouteRule, `timeouts`): 504 before the response, an early end within it.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use h2::Reason;
use http::Response;
use mirror_user::{
    outcome::CopyOutcome,
    route::{RuleEntry, Timeouts},
};

use super::{
    harness::{Rig, Setup, backend_ref, mirror, rule},
    raw_connection::End,
    server::{OK, Server},
    streams::{Client, Upstream, get, run},
};

const LIMIT: Duration = Duration::from_millis(300);

fn limited(primary: SocketAddr, shadow: Option<SocketAddr>, timeouts: Timeouts) -> Rig {
    let filters = shadow.map(|shadow| mirror("shadow", shadow)).into_iter().collect();
    let RuleEntry { mut rule, matches, created } =
        rule(filters, vec![backend_ref("primary", &[primary])]);
    Arc::get_mut(&mut rule).expect("not shared yet").timeouts = timeouts;
    Setup::rules(primary, vec![RuleEntry { rule, matches, created }]).start()
}

fn request_limit() -> Timeouts {
    Timeouts { request: Some(LIMIT), backend: None }
}

/// Answers all but `/slow`, and only half to `/half`.
fn lazy() -> Server {
    Server::start(|mut visit| {
        while let Some(request) = visit.request() {
            if request.head.starts_with("GET /half ") {
                visit.raw_connection.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nha");
            } else if !request.head.starts_with("GET /slow ") {
                visit.raw_connection.send(OK);
            }
        }
    })
}

#[test]
fn a_primary_that_does_not_respond_in_time_gets_504() {
    let (primary, shadow) = (lazy(), Server::ok());
    for timeouts in [request_limit(), Timeouts { request: None, backend: Some(LIMIT) }] {
        let rig = limited(primary.address, Some(shadow.address), timeouts);
        let mut client = rig.client();
        for _ in 0..2 {
            assert_eq!(client.request("GET / HTTP/1.1\r\nHost: a\r\n\r\n").status(), 200);
            let begun = Instant::now();
            let response = client.request("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
            assert_eq!(response.status(), 504);
            assert!(response.value("x-mirror-reason").is_some_and(|why| why.contains("timeout")));
            assert!((LIMIT..LIMIT * 4).contains(&begun.elapsed()), "{:?}", begun.elapsed());
        }
        // The copy is the shadow's affair.
        rig.all_ended("shadow", 4, CopyOutcome::Delivered);
    }
}

#[test]
fn a_response_that_is_not_whole_in_time_ends_early() {
    let primary = lazy();
    let rig = limited(primary.address, None, request_limit());
    let mut client = rig.client();
    client.send("GET /half HTTP/1.1\r\nHost: a\r\n\r\n");
    let (response, end) = client.rest();
    assert!(response.ends_with(b"\r\n\r\nha"), "{}", response.escape_ascii());
    assert_eq!(end, End::Reset);
}

#[test]
fn a_stream_that_is_late_is_reset_and_the_others_go_on() {
    run(async {
        let primary = Upstream::start(h2::server::Builder::new(), |mut stream| async move {
            let path = stream.request.as_ref().expect("not taken").uri().path().to_owned();
            if path == "/" {
                return drop(stream.response(Response::new(()), true));
            }
            let mut body = stream.response(Response::new(()), false);
            body.send_data(Bytes::from_static(b"ha"), false).expect("open");
            let reset = std::future::poll_fn(|cx| body.poll_reset(cx)).await;
            assert_eq!(reset.expect("a reset"), Reason::CANCEL);
        })
        .await;
        let rig = limited(primary.address, None, request_limit());
        let mut client = Client::connect(rig.address()).await;
        let late = client.get("/half").await.expect("a head");
        assert_eq!((&*late.body, late.broke), (&b"ha"[..], Some(Reason::CANCEL)));
        assert_eq!(client.send(get("/"), true).await.0.await.expect("an answer").status(), 200);
    });
}

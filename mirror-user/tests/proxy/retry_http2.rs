//! Retries that a rule asks for (HTTPRouteRule, `retry`), with HTTP/2 on either side.

use std::{cell::Cell, net::SocketAddr, rc::Rc, time::Duration};

use bytes::Bytes;
use h2::{Reason, server::Builder};
use http::Response;
use mirror_user::{
    outcome::{CopyOutcome::Delivered, RouteRetryReason},
    route::Retry,
};

use super::{
    harness::{Rig, mirror},
    retry::{bytes, retries, retry, setup},
    server::Server,
    streams::{Client, ReceivedRequest, ReceivedResponse, Upstream, fields, get, post, run, until},
};

fn rig(primary: SocketAddr, shadow: SocketAddr, attempts: u32) -> Rig {
    setup(primary, vec![mirror("shadow", shadow)], retry(attempts)).start()
}

/// What a primary does with a request.
#[derive(Clone, Copy)]
enum Does {
    /// Takes it, and responds with this status.
    Responds(u16),
    /// Resets its stream, before it has looked at the body.
    Resets(Reason),
}

/// A primary that does so with the first requests, and responds to others with 200 and their bodies.
async fn failing(first: &'static [Does]) -> Upstream {
    let served = Rc::new(Cell::new(0));
    Upstream::start(Builder::new(), move |mut stream| {
        let number = served.replace(served.get() + 1);
        async move {
            let status = match first.get(number) {
                Some(Does::Resets(reason)) => return stream.respond.send_reset(*reason),
                Some(Does::Responds(status)) => *status,
                None => 200,
            };
            let got = stream.take().await;
            let head = Response::builder().status(status).body(()).expect("a response");
            let body = if status == 200 { got.body.into() } else { Bytes::from_static(b"no") };
            stream.response(head, false).send_data(body, true).expect("the stream is open");
        }
    })
    .await
}

/// Sends a body and trailers.
async fn upload(client: &mut Client, body: &[u8]) -> ReceivedResponse {
    let (response, mut stream) = client.send(post("/a"), false).await;
    for piece in body.chunks(8 * 1024) {
        stream.send_data(Bytes::copy_from_slice(piece), false).expect("the stream is open");
    }
    stream.send_trailers(fields(&[("x-sum", "7")])).expect("the stream is open");
    ReceivedResponse::of(response).await.expect("a response")
}

/// The uploads that a server got.
fn uploads(server: &Upstream) -> Vec<ReceivedRequest> {
    server.got().into_iter().filter(|got| got.method == "POST").collect()
}

fn is_whole(got: &ReceivedRequest, body: &[u8]) -> bool {
    let trailers = got.trailers.as_ref().is_some_and(|trailers| trailers["x-sum"] == "7");
    got.body == body && got.broke.is_none() && trailers
}

#[test]
fn streams_are_sent_again_with_their_bodies_and_copied_once() {
    run(async {
        let primary = failing(&[Does::Responds(503), Does::Responds(500)]).await;
        let shadow = Upstream::echo().await;
        let rig = rig(primary.address, shadow.address, 2);
        let mut client = Client::connect(rig.address()).await;
        let body = bytes(50_000);
        let response = upload(&mut client, &body).await;
        assert_eq!(response.status(), 200);
        assert!(response.body == body);
        assert_eq!(primary.got().len(), 3);
        assert!(primary.got().iter().all(|got| is_whole(got, &body)));
        // The streams of a client stay on its connection.
        assert_eq!(primary.connections(), 1);
        assert_eq!(retries(&rig), [(RouteRetryReason::Code, 2)]);
        assert_eq!(client.get("/b").await.expect("a response").status(), 200);
        until("the copies", || shadow.got().len() == 2).await;
        assert!(matches!(&uploads(&shadow)[..], [copy] if is_whole(copy, &body)));
        until("their ends", || rig.copies("shadow").in_flight() == 0).await;
        rig.all_ended("shadow", 2, Delivered);
    });
}

#[test]
fn the_last_response_and_a_body_beyond_the_bound_pass() {
    run(async {
        let primary = failing(&[Does::Responds(503); 4]).await;
        let shadow = Upstream::echo().await;
        let rig = rig(primary.address, shadow.address, 1);
        let mut client = Client::connect(rig.address()).await;
        let response = client.get("/").await.expect("a response");
        assert_eq!((response.status(), &*response.body, primary.got().len()), (503, &b"no"[..], 2));
        let body = bytes(70_000);
        assert_eq!(upload(&mut client, &body).await.status(), 503);
        assert_eq!(primary.got().len(), 3);
        until("the copies", || shadow.got().len() == 2).await;
        assert!(matches!(&uploads(&shadow)[..], [copy] if is_whole(copy, &body)));
    });
}

#[test]
fn a_stream_that_was_refused_is_sent_again_whatever_the_method() {
    run(async {
        let primary = failing(&[Does::Resets(Reason::REFUSED_STREAM)]).await;
        let shadow = Upstream::echo().await;
        let rig = rig(primary.address, shadow.address, 1);
        let mut client = Client::connect(rig.address()).await;
        let body = bytes(20_000);
        let response = upload(&mut client, &body).await;
        assert_eq!(response.status(), 200);
        assert!(response.body == body);
        assert_eq!(retries(&rig), [(RouteRetryReason::Refused, 1)]);
        until("the copy", || shadow.got().len() == 1).await;
        assert!(is_whole(&shadow.got()[0], &body));
    });
}

#[test]
fn a_stream_that_was_reset_is_sent_again_if_its_method_is_idempotent() {
    run(async {
        let resets = &[Does::Resets(Reason::INTERNAL_ERROR); 2];
        let (primary, shadow) = (failing(resets).await, Upstream::echo().await);
        let rig = rig(primary.address, shadow.address, 3);
        let mut client = Client::connect(rig.address()).await;
        let (response, _) = client.send(post("/"), true).await;
        let error = response.await.expect_err("a reset");
        assert_eq!(error.reason(), Some(Reason::INTERNAL_ERROR));
        assert_eq!(retries(&rig), []);
        assert_eq!(client.get("/").await.expect("a response").status(), 200);
        assert_eq!(retries(&rig), [(RouteRetryReason::Lost, 1)]);
    });
}

#[test]
fn a_stream_that_its_client_resets_is_not_sent_again() {
    run(async {
        let primary = failing(&[Does::Responds(503); 100]).await;
        let backoff = Duration::from_secs(600);
        let rig = setup(primary.address, Vec::new(), Retry { backoff, ..retry(10) }).start();
        let mut client = Client::connect(rig.address()).await;
        let (response, mut stream) = client.send(get("/"), true).await;
        until("an attempt that has failed", || primary.got().len() == 1).await;
        // Both are dropped, or the h2 crate keeps the stream.
        stream.send_reset(Reason::CANCEL);
        drop((response, stream));
        until("the end of the exchange", || rig.report().exchanges.len() == 1).await;
        assert_eq!((primary.got().len(), retries(&rig)), (1, Vec::new()));
    });
}

#[test]
fn a_stream_is_sent_again_to_a_primary_of_http1() {
    let primary = {
        let served = std::sync::atomic::AtomicUsize::new(0);
        Server::start(move |mut visit| {
            while let Some(request) = visit.request() {
                if request.head.starts_with("PRI ") {
                    // The preface of HTTP/2: by the response mirror learns which version it is.
                    visit
                        .raw_connection
                        .send("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
                    return;
                }
                let first = served.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0;
                let status = if first { "503 Status" } else { "200 OK" };
                let head = format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nno");
                visit.raw_connection.send(head);
            }
        })
    };
    run(async {
        let shadow = Upstream::echo().await;
        let rig = rig(primary.address, shadow.address, 1);
        let mut client = Client::connect(rig.address()).await;
        let body = bytes(30_000);
        assert_eq!(upload(&mut client, &body).await.status(), 200);
        let requests = primary.requests();
        let requests = requests.iter().filter(|got| got.head.starts_with("POST "));
        let requests: Vec<_> = requests.collect();
        assert_eq!(requests.len(), 2);
        let trailers = |trailers: &str| trailers.trim().eq_ignore_ascii_case("x-sum: 7");
        assert!(requests.iter().all(|got| got.body == body && trailers(&got.trailers)));
    });
}

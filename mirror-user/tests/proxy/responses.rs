//! What shadows responded, beside what the primary responded to the same requests.

use std::{sync::Arc, thread, time::Duration};

use http::Response;
use mirror_user::{
    model::{ObjectName, RouteKind},
    outcome::Pairs,
    route::ServicePort,
};

use super::{
    harness::{Rig, Setup, backend_ref, eventually, mirror, rule},
    http2::mirrored,
    raw_connection::RawConnection,
    server::Server,
    streams::{Client, ReceivedResponse, Upstream, fields, post, run, until},
};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
const FAILED: &str = "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n";

/// What was counted of the rig's route and this shadow.
fn pairs(rig: &Rig, shadow: &str) -> Pairs {
    let object = ObjectName { namespace: "default".into(), name: "route".into() };
    let service = ServicePort { namespace: "default".into(), name: shadow.into(), port: 80 };
    let key = (Arc::new(RouteKind::Http.named(object)), Arc::new(service));
    rig.report().pairs.get(&key).cloned().unwrap_or_default()
}

/// Waits until so many requests have a pair.
fn wait_pairs(rig: &Rig, shadow: &str, count: u64) -> Pairs {
    eventually("both responses are counted", || pairs(rig, shadow).alike().1 == count);
    pairs(rig, shadow)
}

fn responses(rig: &Rig, shadow: &str) -> Vec<(&'static str, u64)> {
    rig.copies(shadow).responses().collect()
}

fn differing(pairs: &Pairs) -> Vec<(String, u64)> {
    pairs.differing()
}

#[test]
fn a_shadow_that_fails_is_seen_to() {
    let (primary, shadow) = (Server::ok(), Server::responding(FAILED));
    let rig = Setup::mirrored(&primary, shadow.address).start();
    let mut client = rig.client();
    for request in [GET, POST, GET] {
        assert_eq!(client.request(request).status(), 200);
    }
    let pairs = wait_pairs(&rig, "shadow", 3);
    assert_eq!(responses(&rig, "shadow"), [("5xx", 3)]);
    assert_eq!(differing(&pairs), [("primary 2xx, shadow 5xx".to_owned(), 3)]);
    assert_eq!((pairs.primary.count(), pairs.shadow.count()), (3, 3));
}

#[test]
fn pairs_are_of_the_same_request_whoever_responds_first() {
    // Each is slow for the other's half of the requests.
    let slow = |slow: &'static str| {
        Server::start(move |mut visit| {
            while let Some(request) = visit.request() {
                if request.head.starts_with(slow) {
                    thread::sleep(Duration::from_millis(80));
                }
                let status = if request.head.contains(" /missing") { "404 No" } else { "200 OK" };
                visit
                    .raw_connection
                    .send(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n"));
            }
        })
    };
    let (primary, shadow) = (slow("GET"), slow("PUT"));
    let rig = Setup::mirrored(&primary, shadow.address).start();
    for method in ["GET", "PUT"] {
        for path in ["/", "/missing", "/"] {
            let mut client = rig.client();
            client.request(format!(
                "{method} {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
            ));
        }
    }
    let pairs = wait_pairs(&rig, "shadow", 6);
    assert_eq!((pairs.alike(), differing(&pairs)), ((6, 6), Vec::new()));
    assert_eq!(responses(&rig, "shadow"), [("2xx", 4), ("4xx", 2)]);
    // Half of the requests took 80 ms at one, and half at the other.
    for times in [&pairs.primary, &pairs.shadow] {
        let mean = times.mean().unwrap();
        assert!(mean >= Duration::from_millis(40), "{mean:?}");
    }
}

#[test]
fn time_in_the_queue_of_a_connection_is_not_the_shadows() {
    let slow = Server::start(|mut visit| {
        while visit.request().is_some() {
            thread::sleep(Duration::from_millis(40));
            visit.raw_connection.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let primary = Server::ok();
    let mut setup = Setup::mirrored(&primary, slow.address);
    setup.options.shadow.connections = 1;
    let rig = setup.start();
    let mut client = rig.client();
    (0..8).for_each(|_| assert_eq!(client.request(GET).status(), 200));
    let pairs = wait_pairs(&rig, "shadow", 8);
    let mean = pairs.shadow.mean().unwrap();
    // One after the other they end after 40 to 320 ms: 180 ms on average.
    assert!((40..120).contains(&mean.as_millis()), "{mean:?}");
}

#[test]
fn a_copy_without_a_response_is_no_pair() {
    let (primary, shadow) = (Server::ok(), Server::start(|mut visit| drop(visit.request())));
    let rig = Setup::mirrored(&primary, shadow.address).start();
    assert_eq!(rig.client().request(GET).status(), 200);
    rig.settled("shadow", 1);
    assert_eq!(pairs(&rig, "shadow").alike(), (0, 0));
    assert_eq!(responses(&rig, "shadow"), []);
}

#[test]
fn a_primary_that_does_not_respond_is_one_that_differs() {
    let (primary, shadow) = (Server::start(|mut visit| drop(visit.request())), Server::ok());
    let rules = vec![rule(
        vec![mirror("shadow", shadow.address)],
        vec![backend_ref("primary", &[primary.address])],
    )];
    let rig = Setup::rules(primary.address, rules).start();
    let mut client: RawConnection = rig.client();
    client.send(POST);
    client.rest();
    let pairs = wait_pairs(&rig, "shadow", 1);
    assert_eq!(differing(&pairs), [("primary none, shadow 2xx".to_owned(), 1)]);
    assert_eq!((pairs.primary.count(), pairs.shadow.count()), (0, 1));
}

/// A server of gRPC that ends each call with this code, in its trailers.
async fn ending_with(code: &'static str) -> Upstream {
    Upstream::start(h2::server::Builder::new(), move |mut stream| async move {
        stream.take().await;
        let head = Response::builder().header("content-type", "application/grpc").body(());
        let mut body = stream.response(head.expect("a response"), false);
        body.send_trailers(fields(&[("grpc-status", code)])).expect("an open stream");
    })
    .await
}

#[test]
fn calls_of_grpc_are_told_by_their_own_status() {
    run(async {
        let (primary, shadow) = (ending_with("0").await, ending_with("13").await);
        let rig = mirrored(primary.address, shadow.address);
        let mut client = Client::connect(rig.address()).await;
        for _ in 0..3 {
            let mut request = post("/a.B/C");
            let of = http::HeaderValue::from_static("application/grpc");
            request.headers_mut().insert("content-type", of);
            let (response, _) = client.send(request, true).await;
            let response = ReceivedResponse::of(response).await.unwrap();
            assert_eq!((response.status(), response.trailers.is_some()), (200, true));
        }
        until("both are counted", || pairs(&rig, "shadow").alike().1 == 3).await;
        let found = differing(&pairs(&rig, "shadow"));
        assert_eq!(found, [("primary grpc_ok, shadow grpc_error".to_owned(), 3)]);
        assert_eq!(responses(&rig, "shadow"), [("grpc_error", 3)]);
        assert_eq!(rig.copies("shadow").grpc[13], 3);
    });
}

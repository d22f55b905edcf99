//! Trailers, and other fields that one protocol forbids and the other does not: nobody waits for an end
//! that never comes, and nothing that is malformed passes.

use std::sync::Arc;

use bytes::Bytes;
use h2::Reason;
use http::{HeaderName, HeaderValue};
use mirror_user::{
    outcome::CopyOutcome,
    route::{AppProtocol, BackendRef, Filter, Fraction, Mirror},
};

use super::{
    frames::{HEADERS, RST_STREAM, RawFrames},
    harness::{Setup, backend, rule},
    http2::to,
    raw_connection::RawConnection,
    server::Server,
    streams::{Client, ReceivedResponse, Upstream, fields, post, reason, run, until},
};

/// What HTTP/2 forbids in any field section, with one field that it does not.
const HOP: &str = "Connection: x-hop\r\nKeep-Alive: 5\r\nTE: gzip\r\nUpgrade: foo\r\n\
                   Proxy-Connection: close\r\nTransfer-Encoding: gzip\r\n";

/// A backend of HTTP/2.
fn h2c(name: &str, upstream: &Upstream) -> Arc<mirror_user::route::Backend> {
    let mut spoken = backend(name, &[upstream.address]);
    Arc::get_mut(&mut spoken).expect("new").protocol = AppProtocol::H2c;
    spoken
}

#[test]
fn trailers_of_one_hop_do_not_reach_a_primary_or_a_shadow_of_http2() {
    for (kept, sum) in [("X-Sum: 5\r\n", Some(fields(&[("x-sum", "5")]))), ("", None)] {
        run(async {
            let (primary, shadow) = (Upstream::echo().await, Upstream::echo().await);
            let target = Ok(h2c("primary", &primary));
            let refs = vec![BackendRef { weight: 1, filters: Vec::new(), target }];
            let target = Ok(h2c("shadow", &shadow));
            let filters = vec![Filter::Mirror(Mirror { target, share: Fraction::ALL })];
            let rig = Setup::rules(primary.address, vec![rule(filters, refs)]).start();
            let address = rig.address();
            let talk = std::thread::spawn(move || {
                RawConnection::connect(address).request(format!(
                    "POST / HTTP/1.1\r\nHost: front\r\nTransfer-Encoding: chunked\r\n\r\n\
                     3\r\nabc\r\n0\r\n{HOP}{kept}\r\n"
                ))
            });
            until("the client has its response", || talk.is_finished()).await;
            let response = talk.join().unwrap();
            assert_eq!((response.status(), &*response.body), (200, &b"abc"[..]));
            until("the copy has ended", || {
                rig.copies("shadow").ended[CopyOutcome::Delivered.index()] == 1
            })
            .await;
            for upstream in [&primary, &shadow] {
                let [got] = &upstream.got()[..] else { panic!("one request") };
                assert_eq!((&*got.body, got.broke), (&b"abc"[..], None));
                assert_eq!(got.trailers, sum);
            }
        });
    }
}

#[test]
fn trailers_of_one_hop_do_not_reset_a_clients_stream() {
    for (kept, sum) in [("X-Sum: 5\r\n", Some(fields(&[("x-sum", "5")]))), ("", None)] {
        let primary = Server::start(move |mut visit| {
            while let Some(request) = visit.request() {
                if request.head.starts_with("PRI ") {
                    return visit
                        .raw_connection
                        .send("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
                }
                visit.raw_connection.send(format!(
                    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n{HOP}{kept}\r\n"
                ));
            }
        });
        let rig = to(primary.address);
        run(async {
            let mut client = Client::connect(rig.address()).await;
            let answer = client.get("/").await.unwrap();
            assert_eq!((answer.status(), &*answer.body), (200, &b"ok"[..]));
            assert_eq!(answer.trailers, sum);
        });
    }
}

#[test]
fn a_length_that_is_no_number_is_malformed_by_http2() {
    let primary = Server::ok();
    let rig = to(primary.address);
    run(async {
        let mut client = Client::connect(rig.address()).await;
        for bad in ["", "+3", "3,3"] {
            let mut request = post("/");
            let value = HeaderValue::from_static(bad);
            request.headers_mut().insert(HeaderName::from_static("content-length"), value);
            let (response, mut body) = client.send(request, false).await;
            // It may be reset before.
            let _ = body.send_data(Bytes::from_static(b"abc"), true);
            let error = ReceivedResponse::of(response).await.unwrap_err();
            assert_eq!(reason(&error), Reason::PROTOCOL_ERROR, "{bad:?}");
        }
    });
    let requested = primary.requests().into_iter().filter(|r| r.head.starts_with("POST")).count();
    assert_eq!(requested, 0);
}

#[test]
fn a_101_by_http2_reaches_nobody() {
    // `:status` by its name in the static table, as a literal.
    let status = |code: &str| [&[0x08, 3], code.as_bytes()].concat();
    for ends in [false, true] {
        let primary = Server::start(move |visit| {
            let mut raw = RawFrames::accepted(visit.raw_connection, &[]);
            let stream = raw.next(HEADERS).stream;
            raw.headers(stream, ends, status("101"));
            if !ends {
                raw.headers(stream, true, status("204"));
            }
            while raw.try_next().is_ok() {}
        });
        let mut spoken = backend("primary", &[primary.address]);
        Arc::get_mut(&mut spoken).expect("new").protocol = AppProtocol::H2c;
        let refs = vec![BackendRef { weight: 1, filters: Vec::new(), target: Ok(spoken) }];
        let rig = Setup::rules(primary.address, vec![rule(Vec::new(), refs)]).start();
        // By HTTP/2, and by HTTP/1.
        let mut raw = RawFrames::connect(rig.address());
        raw.headers(1, true, super::frames::request("/"));
        let frame = loop {
            let frame = raw.try_next().unwrap();
            if matches!(frame.kind, HEADERS | RST_STREAM) {
                break frame;
            }
        };
        // 204 is an entry of the static table.
        let expected = if ends { (RST_STREAM, None) } else { (HEADERS, Some(0x89)) };
        assert_eq!((frame.kind, frame.payload.first().copied().filter(|_| !ends)), expected);
        let mut client = rig.client();
        client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: foo\r\n\r\n");
        client.finish();
        let (answer, _) = client.rest();
        let answer = String::from_utf8(answer).unwrap();
        assert!(!answer.contains("101"), "{answer}");
        assert_eq!(answer.starts_with("HTTP/1.1 204"), !ends, "{answer}");
    }
}

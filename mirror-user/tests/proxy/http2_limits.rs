//! Limits of streams: ours is above what clients open, and the primary's holds for each connection of
//! a client as it does without us.

use std::{cell::Cell, future::pending, rc::Rc, time::Duration};

use bytes::Bytes;
use h2::{Reason, server::Builder};
use http::Response;
use tokio::time::timeout;

use super::{
    frames::{GOAWAY, HEADERS, RST_STREAM, RawFrames},
    harness::{Setup, backend_ref, rule},
    http2::to,
    server::Server,
    streams::{Client, ReceivedResponse, Upstream, get, post, reason, run, until},
};

const QUIET: Duration = Duration::from_millis(200);

/// Of SETTINGS_MAX_CONCURRENT_STREAMS (RFC 9113, section 6.5.2).
const MOST: u16 = 3;

#[test]
fn streams_beyond_the_primarys_limit_wait_for_its_one_connection_in_their_order() {
    run(async {
        let mut builder = Builder::new();
        builder.max_concurrent_streams(10);
        let (waiting, most) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        let (counted, peak) = (Rc::clone(&waiting), Rc::clone(&most));
        let primary = Upstream::start(builder, move |mut stream| {
            let (counted, peak) = (Rc::clone(&counted), Rc::clone(&peak));
            async move {
                stream.take().await;
                counted.set(counted.get() + 1);
                peak.set(peak.get().max(counted.get()));
                tokio::time::sleep(Duration::from_millis(20)).await;
                counted.set(counted.get() - 1);
                stream.response(Response::new(()), true);
            }
        })
        .await;
        let rig = to(primary.address);
        let mut client = Client::connect(rig.address()).await;
        let mut responses = Vec::new();
        for n in 0..50 {
            responses.push(client.send(get(&format!("/{n}")), true).await.0);
        }
        for response in responses {
            assert_eq!(ReceivedResponse::of(response).await.unwrap().status(), 200);
        }
        assert_eq!((most.get(), primary.connections()), (10, 1));
        let order: Vec<_> = primary.got().iter().map(|got| got.uri.clone()).collect();
        let sent: Vec<_> = (0..50).map(|n| format!("http://front:8000/{n}")).collect();
        assert_eq!(order, sent);
    });
}

/// Begins a response to `/watch` with so many bytes and never ends it; responds to the rest.
async fn watched(builder: Builder, bytes: usize) -> Upstream {
    Upstream::start(builder, move |mut stream| async move {
        if stream.request.as_ref().expect("not taken").uri().path() == "/watch" {
            let mut body = stream.response(Response::new(()), false);
            body.send_data(vec![0; bytes].into(), false).expect("open");
            pending::<()>().await;
        }
        let mut body = stream.response(Response::new(()), false);
        body.send_data(Bytes::from_static(b"beside"), true).expect("open");
    })
    .await
}

#[test]
fn many_watches_and_a_request_beside_them_go_by_one_connection() {
    run(async {
        let primary = watched(Builder::new(), 1).await;
        let rig = to(primary.address);
        let mut client = Client::connect(rig.address()).await;
        let mut watches = Vec::new();
        for _ in 0..3000 {
            let (response, _) = client.send(get("/watch"), true).await;
            let mut body = response.await.expect("a response").into_body();
            assert_eq!(body.data().await.expect("a byte").expect("a byte").len(), 1);
            watches.push(body);
        }
        let beside = timeout(Duration::from_secs(5), client.get("/"));
        assert_eq!(beside.await.expect("in time").expect("a response").status(), 200);
        assert_eq!(primary.connections(), 1);
    });
}

#[test]
fn many_watches_that_nobody_reads_hold_up_no_other_request() {
    run(async {
        let primary = watched(Builder::new(), 300_000).await;
        let rules = vec![rule(Vec::new(), vec![backend_ref("primary", &[primary.address])])];
        let mut setup = Setup::rules(primary.address, rules);
        // Each may send 256 KiB ahead.
        setup.memory.agent = 1 << 30;
        let rig = setup.start();
        // As a client of gRPC: its connection's window never is what holds data up.
        let mut builder = h2::client::Builder::new();
        builder.initial_connection_window_size(1 << 30);
        let mut client = Client::connect_as(&builder, rig.address()).await;
        let mut unread = Vec::new();
        for _ in 0..300 {
            unread.push(client.send(get("/watch"), true).await.0);
        }
        let mut bodies = Vec::new();
        for response in unread {
            bodies.push(response.await.expect("a response").into_body());
        }
        tokio::time::sleep(QUIET).await;
        let beside = timeout(Duration::from_secs(5), client.get("/"));
        assert_eq!(beside.await.expect("in time").expect("a response").body, b"beside");
    });
}

#[test]
fn streams_given_up_while_they_wait_reach_nobody() {
    run(async {
        let mut builder = Builder::new();
        builder.max_concurrent_streams(1);
        let primary = watched(builder, 1).await;
        let rig = to(primary.address);
        let mut client = Client::connect(rig.address()).await;
        let (response, mut first) = client.send(get("/watch"), false).await;
        let _body = response.await.expect("a response").into_body();
        for _ in 0..500 {
            drop(client.send(post("/given-up"), false).await);
        }
        let (last, _) = client.send(get("/last"), true).await;
        tokio::time::sleep(QUIET).await;
        first.send_reset(Reason::CANCEL);
        assert_eq!(ReceivedResponse::of(last).await.expect("a response").status(), 200);
        assert_eq!(primary.connections(), 1);
        until("nothing is left", || rig.worker.left() == 1).await;
    });
}

/// A primary that allows one stream, and plays `then` on each connection once that is open.
fn allowing_one(then: fn(usize, &mut RawFrames, u32)) -> Server {
    Server::start(move |visit| {
        let mut raw = RawFrames::accepted(visit.raw_connection, &[(MOST, 1)]);
        while let Ok(frame) = raw.try_next() {
            assert_ne!(frame.kind, RST_STREAM, "nothing is sent that was not to be");
            if frame.kind == HEADERS {
                then(visit.index, &mut raw, frame.stream);
            }
        }
    })
}

#[test]
fn a_primary_that_allows_more_streams_later_gets_those_that_wait() {
    run(async {
        let primary = allowing_one(|_, raw, stream| {
            if stream == 1 {
                std::thread::sleep(QUIET);
                raw.settings(&[(MOST, 10)]);
                return;
            }
            raw.headers(stream, true, [0x88]);
        });
        let rig = to(primary.address);
        let mut client = Client::connect(rig.address()).await;
        let (_held, _) = client.send(get("/held"), true).await;
        for response in [client.send(get("/"), true).await.0, client.send(get("/"), true).await.0] {
            assert_eq!(ReceivedResponse::of(response).await.expect("a response").status(), 200);
        }
        assert_eq!(primary.connections(), 1);
    });
}

#[test]
fn streams_that_wait_go_to_another_connection_behind_a_goaway() {
    run(async {
        let primary = allowing_one(|connection, raw, stream| {
            if connection == 0 {
                std::thread::sleep(QUIET);
                raw.send(GOAWAY, 0, 0, [0, 0, 0, 1, 0, 0, 0, 0]);
                return;
            }
            raw.headers(stream, true, [0x88]);
        });
        let rig = to(primary.address);
        let mut client = Client::connect(rig.address()).await;
        let (_held, _) = client.send(get("/held"), true).await;
        // Those with a body as well: not a byte of them was sent.
        let (response, mut body) = client.send(post("/"), false).await;
        body.send_data(Bytes::from_static(b"body"), true).expect("open");
        let others = [response, client.send(get("/"), true).await.0];
        for response in others {
            assert_eq!(ReceivedResponse::of(response).await.expect("a response").status(), 200);
        }
        assert_eq!(primary.connections(), 2);
    });
}

#[test]
fn streams_that_wait_for_a_primary_that_dies_go_to_another_connection() {
    run(async {
        let primary = allowing_one(|connection, raw, stream| {
            if connection == 0 {
                std::thread::sleep(QUIET);
                panic!("this closes the connection");
            }
            // Longer than it takes to decide whether the client's connection has lost all.
            std::thread::sleep(Duration::from_millis(50));
            raw.headers(stream, true, [0x88]);
        });
        let rig = to(primary.address);
        let mut client = Client::connect(rig.address()).await;
        let (lost, _) = client.send(get("/"), true).await;
        let mut waiting = Vec::new();
        for _ in 0..5 {
            waiting.push(client.send(get("/"), true).await.0);
        }
        let error = lost.await.expect_err("it was sent, and may have been executed");
        assert_eq!(reason(&error), Reason::INTERNAL_ERROR);
        for response in waiting {
            assert_eq!(ReceivedResponse::of(response).await.expect("a response").status(), 200);
        }
        assert_eq!(primary.connections(), 2);
    });
}

//! HTTP/2: how streams and connections end, and what the other side sees of it.

use std::{
    cell::{Cell, RefCell},
    future::pending,
    rc::Rc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use h2::{Reason, server::Builder};
use http::Response;
use tokio::time::timeout;

use super::{
    harness::{Setup, backend_ref, mirror, rule},
    http2::{mirrored, to},
    raw_connection::End,
    server::Server,
    streams::{Client, ReceivedResponse, Upstream, get, post, reason, run, until},
};
use mirror_user::workload::WorkerCommand;

#[test]
fn resets_keep_their_codes_both_ways() {
    run(async {
        let seen = Rc::new(RefCell::new(Vec::new()));
        let told = Rc::clone(&seen);
        let primary = Upstream::start(Builder::new(), move |mut stream| {
            let told = Rc::clone(&told);
            async move {
                let path = stream.request.as_ref().unwrap().uri().path().to_owned();
                match path.as_str() {
                    // Before the response.
                    "/refuse" => stream.respond.send_reset(Reason::ENHANCE_YOUR_CALM),
                    // In the middle of it.
                    "/break" => {
                        let mut body = stream.response(Response::new(()), false);
                        body.send_data(Bytes::from_static(b"half"), false).unwrap();
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        body.send_reset(Reason::HTTP_1_1_REQUIRED);
                    }
                    _ => {
                        let reset = std::future::poll_fn(|cx| stream.respond.poll_reset(cx)).await;
                        told.borrow_mut().push(reset.unwrap());
                    }
                }
            }
        })
        .await;
        let rig = to(primary.address);
        let mut client = Client::connect(rig.address()).await;
        let refused = client.get("/refuse").await.unwrap_err();
        assert!(refused.is_reset());
        assert_eq!(reason(&refused), Reason::ENHANCE_YOUR_CALM);
        let broken = client.get("/break").await.unwrap();
        assert_eq!((&*broken.body, broken.broke), (&b"half"[..], Some(Reason::HTTP_1_1_REQUIRED)));
        for (code, whole) in
            [(Reason::CANCEL, true), (Reason::NO_ERROR, true), (Reason::INTERNAL_ERROR, false)]
        {
            let (_response, mut body) = client.send(post("/wait"), whole).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
            body.send_reset(code);
            until("the primary sees the reset", || seen.borrow().last() == Some(&code)).await;
        }
        assert_eq!(seen.borrow().len(), 3);
        assert_eq!(primary.connections(), 1);
    });
}

#[test]
fn streams_cancelled_all_at_once_leave_the_connection_alone() {
    run(async {
        let mut builder = Builder::new();
        builder.max_pending_accept_reset_streams(1000);
        let primary = Upstream::start(builder, |mut stream| async move {
            if stream.request.as_ref().unwrap().uri().path() == "/wait" {
                let _held = &stream;
                return pending().await;
            }
            stream.response(Response::new(()), true);
        })
        .await;
        let rig = to(primary.address);
        let mut client = Client::connect(rig.address()).await;
        for _ in 0..5 {
            let mut bodies = Vec::new();
            for _ in 0..100 {
                bodies.push(client.send(get("/wait"), true).await);
            }
            drop(bodies);
            assert_eq!(client.get("/").await.unwrap().status(), 200);
        }
    });
}

#[test]
fn a_body_cut_by_the_client_is_never_whole_for_the_primary() {
    run(async {
        let primary = Upstream::echo().await;
        let shadow = Upstream::echo().await;
        let rig = mirrored(primary.address, shadow.address);
        let mut client = Client::connect(rig.address()).await;
        let (_response, mut body) = client.send(post("/"), false).await;
        body.send_data(Bytes::from_static(b"half"), false).unwrap();
        until("both have a half", || primary.received() + shadow.received() == 8).await;
        body.send_reset(Reason::CANCEL);
        until("both saw it", || primary.got().len() + shadow.got().len() == 2).await;
        for server in [&primary, &shadow] {
            let got = &server.got()[0];
            assert_eq!((&*got.body, got.broke), (&b"half"[..], Some(Reason::CANCEL)));
        }
    });
}

#[test]
fn a_primary_that_goes_away_loses_no_request_without_a_body() {
    run(async {
        // Each connection takes three requests and then says GOAWAY.
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let responded = Rc::new(Cell::new(0));
        let count = Rc::clone(&responded);
        tokio::task::spawn_local(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let count = Rc::clone(&count);
                tokio::task::spawn_local(async move {
                    let mut connection = h2::server::handshake(stream).await.unwrap();
                    let mut left = 3;
                    while let Some(Ok((_, mut respond))) = connection.accept().await {
                        left -= 1;
                        if left == 0 {
                            connection.graceful_shutdown();
                        }
                        count.set(count.get() + 1);
                        let _: h2::SendStream<Bytes> =
                            respond.send_response(Response::new(()), true).unwrap();
                    }
                });
            }
        });
        let rig = to(address);
        for _ in 0..10 {
            let mut client = Client::connect(rig.address()).await;
            let mut responses = Vec::new();
            for _ in 0..20 {
                responses.push(client.send(get("/"), true).await.0);
            }
            for response in responses {
                assert_eq!(ReceivedResponse::of(response).await.unwrap().status(), 200);
            }
        }
        assert_eq!(responded.get(), 200, "each was executed once");
    });
}

/// Answers `/quick` at once, begins to answer `/half`, and nothing else.
async fn slow() -> Upstream {
    Upstream::start(Builder::new(), |mut stream| async move {
        let path = stream.request.as_ref().expect("not taken").uri().path().to_owned();
        if path == "/quick" {
            return drop(stream.response(Response::new(()), true));
        }
        let mut held = None;
        if path == "/half" {
            let mut body = stream.response(Response::new(()), false);
            body.send_data(Bytes::from_static(b"half"), false).expect("open");
            held = Some(body);
        }
        pending::<()>().await;
        drop(held);
    })
    .await
}

#[test]
fn a_primary_that_dies_ends_the_clients_connection_as_its_own() {
    run(async {
        for path in ["/none", "/half"] {
            let primary = slow().await;
            let rig = to(primary.address);
            let mut client = Client::connect(rig.address()).await;
            let mut held = Vec::new();
            for _ in 0..10 {
                held.push(client.send(get(path), true).await.0);
            }
            until("it arrived", || primary.connections() == 1).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
            primary.kill();
            for response in held {
                // The connection's end, not a reset stream.
                match ReceivedResponse::of(response).await {
                    Err(error) => assert!(error.is_io() && path == "/none", "{error}"),
                    Ok(answer) => {
                        assert_eq!((path, &*answer.body), ("/half", &b"half"[..]));
                        assert_eq!(answer.broke, Some(Reason::CONNECT_ERROR), "no reset");
                    }
                }
            }
            let _ = client.connection.await.unwrap();
            until("nothing is left", || rig.worker.left() == 0).await;
        }
    });
}

#[test]
fn a_primary_that_dies_beside_others_resets_its_own_streams_alone() {
    run(async {
        let primaries = [slow().await, slow().await];
        let addresses = [primaries[0].address, primaries[1].address];
        // Two backends: each gets some of one connection's streams.
        let refs = addresses.map(|address| backend_ref(&format!("at-{address}"), &[address]));
        let rig = Setup::rules(addresses[0], vec![rule(Vec::new(), refs.into())]).start();
        let mut client = Client::connect(rig.address()).await;
        let mut held = Vec::new();
        for _ in 0..20 {
            held.push(client.send(get("/half"), true).await.0);
        }
        until("both have some", || primaries.iter().all(|p| p.connections() == 1)).await;
        let mut begun = Vec::new();
        for response in held {
            let mut body = response.await.unwrap().into_body();
            assert_eq!(body.data().await.unwrap().unwrap(), "half");
            begun.push(body);
        }
        primaries[0].kill();
        let mut lost = 0;
        for mut body in begun {
            if let Ok(ended) = timeout(Duration::from_millis(300), body.data()).await {
                assert_eq!(reason(&ended.unwrap().unwrap_err()), Reason::INTERNAL_ERROR);
                lost += 1;
            }
        }
        assert!((1..20).contains(&lost), "{lost}");
        assert_eq!(client.get("/quick").await.unwrap().status(), 200);
    });
}

#[test]
fn a_drain_says_goaway_and_ends_what_is_under_way() {
    run(async {
        let primary = Upstream::start(Builder::new(), |mut stream| async move {
            stream.take().await;
            tokio::time::sleep(Duration::from_millis(200)).await;
            stream.response(Response::new(()), true);
        })
        .await;
        let rig = to(primary.address);
        let mut client = Client::connect(rig.address()).await;
        let (response, _) = client.send(get("/"), true).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        rig.worker.send(WorkerCommand::Drain);
        assert_eq!(ReceivedResponse::of(response).await.unwrap().status(), 200);
        client.connection.await.unwrap().expect("an orderly end");
        until("nothing is left", || rig.worker.left() == 0).await;
    });
}

#[test]
fn a_client_that_goes_away_ends_its_streams_and_their_tasks() {
    run(async {
        let ended = Rc::new(Cell::new(0));
        let count = Rc::clone(&ended);
        let primary = Upstream::start(Builder::new(), move |mut stream| {
            let count = Rc::clone(&count);
            async move {
                let _ = std::future::poll_fn(|cx| stream.respond.poll_reset(cx)).await;
                count.set(count.get() + 1);
            }
        })
        .await;
        let rig = to(primary.address);
        let mut client = Client::connect(rig.address()).await;
        let mut held = Vec::new();
        for n in 0..20 {
            held.push(client.send(post("/"), n % 2 == 0).await);
        }
        until("all arrived", || primary.connections() == 1).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        client.connection.abort();
        until("all streams were reset", || ended.get() == 20).await;
        until("nothing is left", || rig.worker.left() == 0).await;
    });
}

#[test]
fn an_early_response_arrives_though_the_body_goes_on() {
    run(async {
        let primary = Upstream::start(Builder::new(), |mut stream| async move {
            let refused = Response::builder().status(413).body(()).unwrap();
            let mut body = stream.response(refused, false);
            body.send_data(Bytes::from_static(b"no"), true).unwrap();
            // At once, the h2 crate would take the response back.
            tokio::time::sleep(Duration::from_millis(5)).await;
            body.send_reset(Reason::NO_ERROR);
        })
        .await;
        let rig = to(primary.address);
        let mut client = Client::connect(rig.address()).await;
        for _ in 0..50 {
            let (response, mut body) = client.send(post("/"), false).await;
            body.send_data(vec![0; 60_000].into(), false).unwrap();
            let answer = ReceivedResponse::of(response).await.unwrap();
            assert_eq!((answer.status(), &*answer.body), (413, &b"no"[..]));
        }
    });
}

#[test]
fn a_header_block_without_an_end_ends_the_connection() {
    let primary = Server::ok();
    let mut setup = Setup::to(&primary);
    setup.options.head_timeout = Duration::from_millis(300);
    let rig = setup.start();
    let mut client = rig.client();
    client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
    // An idle connection is no head: it stays.
    std::thread::sleep(Duration::from_millis(600));
    // HEADERS without END_HEADERS on stream 1: `:method: GET`.
    client.send(b"\0\0\x01\x01\x01\0\0\0\x01\x82");
    let begun = Instant::now();
    let (last, end) = client.rest();
    assert!(begun.elapsed() > Duration::from_millis(250), "{:?}", begun.elapsed());
    // GOAWAY with ENHANCE_YOUR_CALM.
    assert!(last.ends_with(b"\x07\0\0\0\0\0\0\0\0\0\0\0\0\x0b"), "{}", last.escape_ascii());
    assert_eq!(end, End::Fin);
}

/// Answers at once and whole, reads nothing, and counts the connections that have ended.
async fn deaf(ended: &Rc<Cell<u32>>) -> std::net::SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let ended = Rc::clone(ended);
    tokio::task::spawn_local(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            let ended = Rc::clone(&ended);
            tokio::task::spawn_local(async move {
                let hello = h2::server::handshake(stream).await;
                let mut connection = hello.expect("a client of HTTP/2");
                let mut held = Vec::new();
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    respond.send_response(Response::new(()), true).expect("open");
                    held.push((request, respond));
                }
                ended.set(ended.get() + 1);
            });
        }
    });
    address
}

#[test]
fn a_body_that_nobody_reads_keeps_no_connection_beyond_its_client() {
    run(async {
        let ended = Rc::default();
        let rig = to(deaf(&ended).await);
        let mut client = Client::connect(rig.address()).await;
        let (response, mut body) = client.send(post("/"), false).await;
        body.send_data(vec![0; 300_000].into(), false).expect("open");
        assert_eq!(response.await.expect("an answer").status(), 200);
        tokio::time::sleep(Duration::from_millis(100)).await;
        client.connection.abort();
        until("the primary's connection has ended", || ended.get() == 1).await;
    });
}

#[test]
fn a_workload_that_leaves_takes_its_connections_with_it() {
    run(async {
        let ended = Rc::default();
        let rig = to(deaf(&ended).await);
        let mut client = Client::connect(rig.address()).await;
        let (response, mut body) = client.send(post("/"), false).await;
        body.send_data(vec![0; 300_000].into(), false).expect("open");
        assert_eq!(response.await.expect("an answer").status(), 200);
        let begun = Instant::now();
        rig.worker.send(WorkerCommand::Leave(1));
        until("the primary's connection has ended", || ended.get() == 1).await;
        assert!(begun.elapsed() < Duration::from_millis(900), "{:?}", begun.elapsed());
    });
}

#[test]
fn a_shadow_that_responds_and_does_not_read_on_holds_nothing_for_long() {
    run(async {
        let primary = Upstream::echo().await;
        let shadow = deaf(&Rc::default()).await;
        let filters = vec![mirror("shadow", shadow)];
        let refs = vec![backend_ref("primary", &[primary.address])];
        let mut setup = Setup::rules(primary.address, vec![rule(filters, refs)]);
        setup.options.shadow.response_timeout = Duration::from_millis(500);
        let rig = setup.start();
        let mut client = Client::connect(rig.address()).await;
        for _ in 0..3 {
            let (response, mut body) = client.send(post("/"), false).await;
            body.send_data(vec![0; 300_000].into(), true).expect("open");
            assert_eq!(
                ReceivedResponse::of(response).await.expect("an answer").body.len(),
                300_000
            );
        }
        rig.settled("shadow", 3);
    });
}

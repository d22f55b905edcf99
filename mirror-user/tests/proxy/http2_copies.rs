//! Copies on connections of HTTP/2: how many a connection carries, and how many connections there are.

use std::{cell::Cell, future::pending, rc::Rc, time::Duration};

use h2::server;
use mirror_user::outcome::{CopyOutcome, DropReason};
use tokio::{net::TcpListener, task::spawn_local};

use super::{
    harness::ended,
    http2::mirrored,
    streams::{Client, ReceivedResponse, Upstream, get, post, run, until},
};

// nginx says GOAWAY after 1,000 requests, and looks at nothing that was sent before it is read.
#[test]
fn a_connection_to_a_shadow_carries_900_copies_and_is_replaced() {
    run(async {
        let (primary, shadow) = (Upstream::echo().await, Upstream::echo().await);
        let rig = mirrored(primary.address, shadow.address);
        let mut client = Client::connect(rig.address()).await;
        for n in 1..=901_u64 {
            let (response, mut body) = client.send(post("/"), false).await;
            body.send_data(vec![7; 10].into(), true).unwrap();
            assert_eq!(ReceivedResponse::of(response).await.unwrap().body.len(), 10);
            if n == 900 {
                until("all are out", || shadow.got().len() == 900).await;
                assert_eq!(shadow.connections(), 1);
            }
        }
        until("all copies ended", || rig.copies("shadow").in_flight() == 0).await;
        rig.all_ended("shadow", 901, CopyOutcome::Delivered);
        assert_eq!(shadow.connections(), 2);
        assert_eq!(primary.connections(), 1);
    });
}

/// As many as take streams, and as many that have some left to carry when one more is opened; each
/// of the former may become one of the latter.
const MOST: usize = 4 + 4 + 1;

#[test]
fn a_shadow_that_goes_away_and_sends_nothing_gets_no_connection_for_each_copy() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let shadow = listener.local_addr().unwrap();
        let opened = Rc::new(Cell::new(0_usize));
        let count = Rc::clone(&opened);
        let _server = spawn_local(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                count.set(count.get() + 1);
                spawn_local(async move {
                    let mut connection = server::handshake(stream).await.unwrap();
                    let mut held = Vec::new();
                    while let Some(Ok(stream)) = connection.accept().await {
                        held.push(stream);
                        connection.graceful_shutdown();
                    }
                    pending::<()>().await;
                });
            }
        });
        let primary = Upstream::echo().await;
        let rig = mirrored(primary.address, shadow);
        let mut client = Client::connect(rig.address()).await;
        for _ in 0..60 {
            let (response, _) = client.send(get("/"), true).await;
            assert_eq!(ReceivedResponse::of(response).await.unwrap().status(), 200);
            // The shadow says GOAWAY meanwhile.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let dropped =
            || ended(&rig.copies("shadow"), CopyOutcome::Dropped(DropReason::Connections));
        until("the others are dropped", || dropped() > 0).await;
        assert!((2..=MOST).contains(&opened.get()), "{}", opened.get());
    });
}

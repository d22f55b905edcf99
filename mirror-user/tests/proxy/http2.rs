//! HTTP/2 on both sides: requests and responses as they were, many at once, and copies of them.

use std::{future::pending, net::SocketAddr, time::Duration};

use bytes::Bytes;
use h2::server::Builder;
use http::{Request, Response};
use mirror_user::{
    outcome::{CopyOutcome, DropReason},
    route::EndpointChoice,
};

use super::{
    harness::{Rig, Setup, backend_ref, mirror, own_ref, rule},
    streams::{Client, ReceivedResponse, Upstream, fields, get, post, read, run, until},
};

pub(crate) fn to(primary: SocketAddr) -> Rig {
    Setup::rules(primary, vec![rule(Vec::new(), vec![backend_ref("primary", &[primary])])]).start()
}

pub(crate) fn mirrored(primary: SocketAddr, shadow: SocketAddr) -> Rig {
    let filters = vec![mirror("shadow", shadow)];
    Setup::rules(primary, vec![rule(filters, vec![backend_ref("primary", &[primary])])]).start()
}

#[test]
fn settings_of_a_server_that_speaks_first_do_not_decide_what_its_client_speaks() {
    run(async {
        let primary = Upstream::echo().await;
        let shadow = Upstream::echo().await;
        let rules =
            vec![rule(vec![mirror("shadow", shadow.address)], vec![own_ref(primary.address)])];
        let mut setup = Setup::rules(primary.address, rules);
        setup.options.endpoints = EndpointChoice::Service;
        let rig = setup.start();
        let stream = tokio::net::TcpStream::connect(rig.address()).await.expect("a listener");
        until("the primary is connected to ahead", || primary.connections() == 1).await;
        // Its SETTINGS are there by now.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let mut client = Client::on(&h2::client::Builder::new(), stream).await;
        assert_eq!(client.get("/").await.unwrap().status(), 200);
        assert_eq!(primary.connections(), 1);
        until("the copy arrives", || shadow.got().len() == 1).await;
    });
}

#[test]
fn a_request_and_its_response_arrive_as_they_were() {
    run(async {
        let primary = Upstream::echo().await;
        let rig = to(primary.address);
        let mut client = Client::connect(rig.address()).await;
        let request = Request::post("http://front:8000/a/b?c=d")
            .header("x-twice", "1")
            .header("x-twice", "2")
            .header("te", "trailers")
            .header("cookie", "a=1")
            .header("cookie", "b=2")
            .body(())
            .unwrap();
        let (response, mut body) = client.send(request, false).await;
        body.send_data(Bytes::from_static(b"hello "), false).unwrap();
        body.send_data(Bytes::from_static(b"world"), false).unwrap();
        body.send_trailers(fields(&[("x-end", "yes")])).unwrap();
        let answer = ReceivedResponse::of(response).await.unwrap();
        assert_eq!((answer.status(), &*answer.body), (200, &b"hello world"[..]));
        assert_eq!(answer.trailers, Some(fields(&[("x-end", "yes")])));
        assert_eq!(answer.head.headers().len(), 0, "{:?}", answer.head);
        let [got] = &primary.got()[..] else { panic!("one request") };
        assert_eq!((&*got.method, &*got.uri), ("POST", "http://front:8000/a/b?c=d"));
        let expected = [
            ("x-twice", "1"),
            ("x-twice", "2"),
            ("te", "trailers"),
            ("cookie", "a=1"),
            ("cookie", "b=2"),
        ];
        assert_eq!(got.headers, fields(&expected));
        assert_eq!(got.trailers, Some(fields(&[("x-end", "yes")])));
    });
}

#[test]
fn nothing_is_added_to_requests_and_responses_without_a_body() {
    run(async {
        let primary = Upstream::start(Builder::new(), |mut stream| async move {
            stream.take().await;
            let answer = Response::builder().status(204).body(()).unwrap();
            stream.response(answer, true);
        })
        .await;
        let rig = to(primary.address);
        let mut client = Client::connect(rig.address()).await;
        let (response, _) = client.send(post("/"), true).await;
        let answer = ReceivedResponse::of(response).await.unwrap();
        assert_eq!((answer.status(), answer.head.headers().len()), (204, 0));
        assert_eq!(primary.got()[0].headers, fields(&[]));
    });
}

#[test]
fn many_streams_at_once_share_one_upstream_connection() {
    run(async {
        let primary = Upstream::echo().await;
        let rig = to(primary.address);
        let mut client = Client::connect(rig.address()).await;
        let mut responses = Vec::new();
        for n in 0..90 {
            let (response, _) = client.send(get(&format!("/{n}")), true).await;
            responses.push(response);
        }
        for response in responses {
            assert_eq!(ReceivedResponse::of(response).await.unwrap().status(), 200);
        }
        assert_eq!((primary.got().len(), primary.connections()), (90, 1));
    });
}

#[test]
fn copies_reach_a_shadow_of_http2_with_the_same_bodies() {
    run(async {
        let (primary, shadow) = (Upstream::echo().await, Upstream::echo().await);
        let rig = mirrored(primary.address, shadow.address);
        let mut client = Client::connect(rig.address()).await;
        for n in 0..200_usize {
            let (response, mut body) = client.send(post(&format!("/{n}")), false).await;
            body.send_data(vec![7; n * 10].into(), false).unwrap();
            body.send_trailers(fields(&[("x-end", "yes")])).unwrap();
            assert_eq!(ReceivedResponse::of(response).await.unwrap().body.len(), n * 10);
        }
        until("all copies arrived", || shadow.got().len() == 200).await;
        let (requested, copied) = (primary.got(), shadow.got());
        for (requested, copied) in requested.iter().zip(&copied) {
            assert_eq!(copied.uri, requested.uri.replace("front:", "front-shadow:"));
            assert_eq!((&requested.body, &requested.trailers), (&copied.body, &copied.trailers));
            assert_eq!(requested.headers, copied.headers);
        }
        assert_eq!(shadow.connections(), 1);
        until("all copies ended", || rig.copies("shadow").in_flight() == 0).await;
        rig.all_ended("shadow", 200, CopyOutcome::Delivered);
    });
}

#[test]
fn a_shadow_that_never_reads_a_stream_slows_nobody() {
    run(async {
        let primary = Upstream::start(Builder::new(), |mut stream| async move {
            let mut body = stream.response(Response::new(()), false);
            let mut request = stream.request.take().unwrap().into_body();
            while let Some(Ok(data)) = request.data().await {
                request.flow_control().release_capacity(data.len()).unwrap();
                body.send_data(Bytes::from(data.len().to_string()), false).unwrap();
            }
            body.send_data(Bytes::new(), true).unwrap();
        })
        .await;
        let shadow = Upstream::start(Builder::new(), |stream| async move {
            let _held = stream;
            pending::<()>().await;
        })
        .await;
        let rig = mirrored(primary.address, shadow.address);
        let mut client = Client::connect(rig.address()).await;
        let (response, mut body) = client.send(post("/bidi"), false).await;
        let mut responses = response.await.unwrap().into_body();
        let message = Bytes::from(vec![1; 10_000]);
        for _ in 0..1000 {
            body.reserve_capacity(message.len());
            while body.capacity() < message.len() {
                std::future::poll_fn(|cx| body.poll_capacity(cx)).await.unwrap().unwrap();
            }
            body.send_data(message.clone(), false).unwrap();
            let data = responses.data().await.unwrap().unwrap();
            responses.flow_control().release_capacity(data.len()).unwrap();
        }
        body.send_data(Bytes::new(), true).unwrap();
        assert_eq!(read(&mut responses).await.2, None);
        let budget = rig.settled("shadow", 1);
        assert_eq!(budget.ended[CopyOutcome::Delivered.index()], 0);
    });
}

#[test]
fn interim_responses_are_passed_on() {
    run(async {
        let primary = Upstream::start(Builder::new(), |mut stream| async move {
            let early = Response::builder().status(103).header("link", "</a>").body(()).unwrap();
            stream.respond.send_informational(early).unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
            stream.response(Response::new(()), true);
        })
        .await;
        let rig = to(primary.address);
        let mut client = Client::connect(rig.address()).await;
        let (mut response, _) = client.send(get("/"), true).await;
        let early = std::future::poll_fn(|cx| response.poll_informational(cx)).await;
        let early = early.unwrap().unwrap();
        assert_eq!(
            (early.status().as_u16(), &early.headers()["link"]),
            (103, &"</a>".parse().unwrap())
        );
        assert_eq!(ReceivedResponse::of(response).await.unwrap().status(), 200);
    });
}

#[test]
fn a_stream_that_the_primary_does_not_read_holds_up_no_other_connection() {
    run(async {
        // The primary takes 65,535 bytes on each connection and reads none of `/stuck`.
        let primary = Upstream::start(Builder::new(), |mut stream| async move {
            if stream.request.as_ref().expect("not taken").uri().path() == "/stuck" {
                let _held = stream;
                return pending::<()>().await;
            }
            let got = stream.take().await;
            stream
                .response(Response::new(()), false)
                .send_data(got.body.into(), true)
                .expect("open");
        })
        .await;
        let rig = to(primary.address);
        let (mut one, mut other) =
            (Client::connect(rig.address()).await, Client::connect(rig.address()).await);
        let (_response, mut stuck) = one.send(post("/stuck"), false).await;
        stuck.send_data(vec![0; 200_000].into(), false).expect("the connection lives");
        tokio::time::sleep(Duration::from_millis(100)).await;
        let (response, mut body) = other.send(post("/free"), false).await;
        body.send_data(vec![1; 50_000].into(), true).expect("the connection lives");
        assert_eq!(ReceivedResponse::of(response).await.expect("an answer").body.len(), 50_000);
    });
}

#[test]
fn a_copy_that_is_cut_after_the_shadow_has_begun_to_respond_is_not_delivered() {
    run(async {
        let primary = Upstream::echo().await;
        let shadow = Upstream::start(Builder::new(), |mut stream| async move {
            let _held = stream.response(Response::new(()), false);
            pending::<()>().await;
        })
        .await;
        let refs = vec![backend_ref("primary", &[primary.address])];
        let rules = vec![rule(vec![mirror("shadow", shadow.address)], refs)];
        let mut setup = Setup::rules(primary.address, rules);
        setup.budgets.0 = 1 << 20;
        let rig = setup.start();
        let mut client = Client::connect(rig.address()).await;
        let (response, mut body) = client.send(post("/"), false).await;
        body.send_data(Bytes::from_static(b"first"), false).expect("open");
        until("the shadow has it", || shadow.connections() == 1).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        body.send_data(vec![0; 3 << 20].into(), true).expect("open");
        assert_eq!(
            ReceivedResponse::of(response).await.expect("an answer").body.len(),
            5 + (3 << 20)
        );
        rig.all_ended("shadow", 1, CopyOutcome::Dropped(DropReason::RequestBudget));
    });
}

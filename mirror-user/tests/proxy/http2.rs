//! HTTP/2 on both sides: requests and answers as they were, many at once, and copies of them.

use std::{cell::Cell, future::pending, net::SocketAddr, rc::Rc, time::Duration};

use bytes::Bytes;
use h2::server::Builder;
use http::{Request, Response};
use mirror_user::outcome::{CopyOutcome, DropReason};

use super::{
    harness::{Rig, Setup, backend_ref, mirror, rule},
    streams::{Answer, Client, Upstream, fields, get, post, read, run, until},
};

pub(crate) fn to(primary: SocketAddr) -> Rig {
    Setup::rules(primary, vec![rule(Vec::new(), vec![backend_ref("primary", &[primary])])]).start()
}

pub(crate) fn mirrored(primary: SocketAddr, shadow: SocketAddr) -> Rig {
    let filters = vec![mirror("shadow", shadow)];
    Setup::rules(primary, vec![rule(filters, vec![backend_ref("primary", &[primary])])]).start()
}

#[test]
fn a_request_and_its_answer_arrive_as_they_were() {
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
        let answer = Answer::of(response).await.unwrap();
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
fn nothing_is_added_to_requests_and_answers_without_a_body() {
    run(async {
        let primary = Upstream::start(Builder::new(), |mut stream| async move {
            stream.take().await;
            let answer = Response::builder().status(204).body(()).unwrap();
            stream.answer(answer, true);
        })
        .await;
        let rig = to(primary.address);
        let mut client = Client::connect(rig.address()).await;
        let (response, _) = client.send(post("/"), true).await;
        let answer = Answer::of(response).await.unwrap();
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
        let mut answers = Vec::new();
        for n in 0..90 {
            let (response, _) = client.send(get(&format!("/{n}")), true).await;
            answers.push(response);
        }
        for response in answers {
            assert_eq!(Answer::of(response).await.unwrap().status(), 200);
        }
        assert_eq!((primary.got().len(), primary.connections()), (90, 1));
    });
}

#[test]
fn a_second_connection_is_opened_at_the_stream_limit() {
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
                let all = Rc::clone(&counted);
                until("all wait at once", || all.get() >= 50).await;
                stream.answer(Response::new(()), true);
            }
        })
        .await;
        let rig = to(primary.address);
        let mut client = Client::connect(rig.address()).await;
        let mut answers = Vec::new();
        for _ in 0..50 {
            answers.push(client.send(get("/"), true).await.0);
        }
        for response in answers {
            assert_eq!(Answer::of(response).await.unwrap().status(), 200);
        }
        assert_eq!((most.get(), primary.connections()), (50, 5));
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
            assert_eq!(Answer::of(response).await.unwrap().body.len(), n * 10);
        }
        until("all copies arrived", || shadow.got().len() == 200).await;
        let (asked, copied) = (primary.got(), shadow.got());
        for (asked, copied) in asked.iter().zip(&copied) {
            assert_eq!(copied.uri, asked.uri.replace("front:", "front-shadow:"));
            assert_eq!((&asked.body, &asked.trailers), (&copied.body, &copied.trailers));
            assert_eq!(asked.headers, copied.headers);
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
            let mut body = stream.answer(Response::new(()), false);
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
        let mut answers = response.await.unwrap().into_body();
        let message = Bytes::from(vec![1; 10_000]);
        for _ in 0..1000 {
            body.reserve_capacity(message.len());
            while body.capacity() < message.len() {
                std::future::poll_fn(|cx| body.poll_capacity(cx)).await.unwrap().unwrap();
            }
            body.send_data(message.clone(), false).unwrap();
            let data = answers.data().await.unwrap().unwrap();
            answers.flow_control().release_capacity(data.len()).unwrap();
        }
        body.send_data(Bytes::new(), true).unwrap();
        assert_eq!(read(&mut answers).await.2, None);
        let budget = rig.settled("shadow", 1);
        assert_eq!(budget.ended[CopyOutcome::Delivered.index()], 0);
    });
}

#[test]
fn interim_answers_are_passed_on() {
    run(async {
        let primary = Upstream::start(Builder::new(), |mut stream| async move {
            let early = Response::builder().status(103).header("link", "</a>").body(()).unwrap();
            stream.respond.send_informational(early).unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
            stream.answer(Response::new(()), true);
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
        assert_eq!(Answer::of(response).await.unwrap().status(), 200);
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
            stream.answer(Response::new(()), false).send_data(got.body.into(), true).expect("open");
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
        assert_eq!(Answer::of(response).await.expect("an answer").body.len(), 50_000);
    });
}

#[test]
fn a_copy_that_is_cut_after_the_shadow_has_begun_to_answer_is_not_delivered() {
    run(async {
        let primary = Upstream::echo().await;
        let shadow = Upstream::start(Builder::new(), |mut stream| async move {
            let _held = stream.answer(Response::new(()), false);
            pending::<()>().await;
        })
        .await;
        let rig = mirrored(primary.address, shadow.address);
        let mut client = Client::connect(rig.address()).await;
        let (response, mut body) = client.send(post("/"), false).await;
        body.send_data(Bytes::from_static(b"first"), false).expect("open");
        until("the shadow has it", || shadow.connections() == 1).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        body.send_data(vec![0; 3 << 20].into(), true).expect("open");
        assert_eq!(Answer::of(response).await.expect("an answer").body.len(), 5 + (3 << 20));
        rig.all_ended("shadow", 1, CopyOutcome::Dropped(DropReason::RequestBudget));
    });
}

//! Bounds on what connections may make the agent hold: what is refused, and what goes on all the same.

use std::{
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    time::Duration,
};

use bytes::Bytes;
use h2::server::Builder;
use http::Response;
use mirror_user::outcome::RefusalReason;

use super::{
    frames::{END_HEADERS, HEADERS, RST_STREAM, RawFrames, kept, request},
    harness::{FRONTEND, Rig, Setup, backend_ref, eventually, rule},
    raw_connection::{End, RawConnection, text},
    server::{OK, Server},
    streams::{Client, ReceivedResponse, Upstream, post, run, until},
};

const MIB: usize = 1 << 20;
const REFUSED_STREAM: u32 = 7;

fn refused(rig: &Rig, reason: RefusalReason) -> u64 {
    rig.report().refused[reason as usize]
}

/// How often something was refused for want of memory.
fn out_of_memory(rig: &Rig) -> u64 {
    refused(rig, RefusalReason::PodMemory) + refused(rig, RefusalReason::ConnectionMemory)
}

/// All that the clients so far held was given back.
fn nothing_is_held(rig: &Rig) {
    eventually("everything is given back", || rig.memory.held() == 0);
}

#[test]
fn a_head_for_which_there_is_no_memory_is_refused_and_those_of_another_pod_are_not() {
    let primary = Server::ok();
    let mut setup = Setup::to(&primary);
    setup.memory.workload = 4 * MIB;
    let rig = setup.start();
    let long = "a".repeat(200_000);
    let mut clients: Vec<_> = (0..24).map(|_| rig.client()).collect();
    for client in &mut clients {
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nX-Long: {long}"));
    }
    eventually("most are refused", || out_of_memory(&rig) >= 7);
    assert!(rig.memory.held() <= 4 * MIB, "{}", rig.memory.held());
    // Whose heads came first is not said by the order in which they were sent.
    let responded = |client: &mut RawConnection| !client.is_silent_for(Duration::from_millis(50));
    let one = clients.iter_mut().find_map(|client| responded(client).then_some(client));
    let (response, end) = one.expect("seven are refused").rest();
    let response = text(response);
    assert!(response.starts_with("HTTP/1.1 431 "), "{response}");
    assert!(response.contains("-memory)"), "{response}");
    assert_eq!(end, End::Fin);
    let (_, other) = rig.serve(FRONTEND);
    let mut other = RawConnection::connect(other);
    other.send(format!("GET / HTTP/1.1\r\nHost: a\r\nX-Long: {long}\r\n\r\n"));
    assert_eq!(other.exactly(OK.len()), OK);
    drop((clients, other));
    nothing_is_held(&rig);
}

#[test]
fn a_head_of_many_fields_is_charged_with_what_they_take() {
    let primary = Server::silent();
    let mut setup = Setup::to(&primary);
    setup.memory.workload = MIB;
    let rig = setup.start();
    let fields: String = (0..900).map(|n| format!("a{n}:\r\n")).collect();
    let send = |_| {
        let mut client = rig.client();
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
        client
    };
    let clients: Vec<_> = (0..12).map(send).collect();
    // Each takes 230 KB, and is 6 KB long.
    eventually("most are refused", || out_of_memory(&rig) >= 7);
    eventually("some are not", || primary.connections() >= 1);
    clients.into_iter().for_each(RawConnection::reset);
    nothing_is_held(&rig);
}

#[test]
fn connections_beyond_the_bound_are_reset_and_room_is_made_by_those_that_end() {
    let primary = Server::ok();
    let mut setup = Setup::to(&primary);
    setup.memory.connections = 16;
    let rig = setup.start();
    let request = |client: &mut RawConnection| {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.exactly(OK.len()), OK);
    };
    let mut clients: Vec<_> = (0..16).map(|_| rig.client()).collect();
    clients.iter_mut().for_each(request);
    assert_eq!(rig.client().rest(), (Vec::new(), End::Reset));
    assert_eq!(refused(&rig, RefusalReason::PodConnections), 1);
    assert!(rig.memory.usage()[0].connections == 16);
    clients.truncate(15);
    eventually("one has ended", || rig.memory.usage()[0].connections == 15);
    request(&mut rig.client());
    drop(clients);
    nothing_is_held(&rig);
}

#[test]
fn a_response_whose_head_is_too_long_for_what_is_left_passes_unread() {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Long: {}\r\n\r\nok",
        "a".repeat(250_000)
    );
    let whole = head.clone();
    let primary = Server::start(move |mut visit| {
        visit.request();
        visit.raw_connection.send(&head);
    });
    let mut setup = Setup::balanced(&primary, Vec::new());
    setup.memory.connection = 200_000;
    let rig = setup.start();
    let mut client = rig.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(text(client.exactly(whole.len())), whole);
}

#[test]
fn interim_responses_without_end_hold_little_whoever_reads_them() {
    let over = std::sync::Arc::new(AtomicBool::new(false));
    let ends = std::sync::Arc::clone(&over);
    let primary = Server::start(move |visit| {
        let mut raw = RawFrames::accepted(visit.raw_connection, &[]);
        let stream = raw.next(HEADERS).stream;
        // `:status 103` and a long field.
        let hint = [vec![0x08, 3], b"103".to_vec(), kept("link", "a".repeat(120))].concat();
        for _ in 0..50_000 {
            raw.headers(stream, false, &hint);
            if ends.load(SeqCst) {
                break;
            }
        }
        raw.headers(stream, true, [0x88]);
        while raw.try_next().is_ok() {}
    });
    let mut setup = Setup::to(&primary);
    setup.memory.connection = MIB / 2;
    let rig = setup.start();
    // It does not read.
    let mut client = RawFrames::connect(rig.address());
    client.0.narrow();
    client.headers(1, true, request("/"));
    std::thread::sleep(Duration::from_secs(1));
    let held = rig.memory.held();
    assert!(held < 600_000, "{held}");
    // The response comes behind those that had room.
    over.store(true, SeqCst);
    loop {
        let frame = client.next(HEADERS);
        if frame.payload == [0x88] {
            break;
        }
    }
    drop(client);
    nothing_is_held(&rig);
}

#[test]
fn streams_for_which_there_is_no_memory_are_refused_and_the_others_are_served() {
    let primary = Server::start(|visit| {
        let mut raw = RawFrames::accepted(visit.raw_connection, &[]);
        while raw.try_next().is_ok() {}
    });
    let mut setup = Setup::to(&primary);
    setup.memory.workload = 2 * MIB;
    let rig = setup.start();
    let mut client = RawFrames::connect(rig.address());
    // One field of 120 bytes, which is referred to 900 times by each: 1 KB that takes some 300 KB.
    client.headers(1, true, [request("/"), kept("a", "v".repeat(120))].concat());
    for n in 1..30 {
        client.headers(1 + 2 * n, true, [request("/"), vec![0xbe; 900]].concat());
    }
    let mut resets = 0;
    while resets < 20 {
        let frame = client.next(RST_STREAM);
        assert_eq!(frame.code(), REFUSED_STREAM, "{frame:?}");
        resets += 1;
    }
    assert!(rig.memory.held() <= 2 * MIB, "{}", rig.memory.held());
    assert!(out_of_memory(&rig) >= 20);
    drop(client);
    nothing_is_held(&rig);
}

#[test]
fn a_header_block_without_an_end_is_charged_as_it_grows() {
    let primary = Server::ok();
    let mut setup = Setup::to(&primary);
    setup.memory.workload = MIB;
    let rig = setup.start();
    let block = [request("/"), kept("a", "v".repeat(120)), vec![0xbe; 900]].concat();
    let mut clients = Vec::new();
    for _ in 0..12 {
        let mut client = RawFrames::connect(rig.address());
        client.send(HEADERS, 0, 1, &block);
        clients.push(client);
    }
    eventually("most are ended", || out_of_memory(&rig) >= 7);
    assert!(rig.memory.held() <= MIB);
    assert_eq!(END_HEADERS, 4, "none of them was");
    drop(clients);
    nothing_is_held(&rig);
}

/// Where memory is scarce, uploads and downloads of HTTP/2 are slower, and whole.
#[test]
fn content_arrives_whole_though_little_may_be_held() {
    const EACH: usize = MIB;
    run(async {
        let primary = Upstream::start(Builder::new(), |mut stream| async move {
            let got = stream.take().await;
            assert!(got.broke.is_none(), "{:?}", got.broke);
            let mut body = stream.response(Response::new(()), false);
            body.send_data(got.body.into(), true).expect("open");
            // Until the client has it.
            let _ = std::future::poll_fn(|cx| body.poll_reset(cx)).await;
        })
        .await;
        let rules = vec![rule(Vec::new(), vec![backend_ref("primary", &[primary.address])])];
        let mut setup = Setup::rules(primary.address, rules);
        setup.memory.connection = 400_000;
        let rig = setup.start();
        let mut client = Client::connect(rig.address()).await;
        let mut responses = Vec::new();
        for n in 0..8_u8 {
            let (response, mut body) = client.send(post("/"), false).await;
            body.send_data(Bytes::from(vec![n; EACH]), true).expect("open");
            responses.push(response);
        }
        let reading =
            responses.into_iter().map(|r| tokio::task::spawn_local(ReceivedResponse::of(r)));
        for (n, answer) in (0..8_u8).zip(reading.collect::<Vec<_>>()) {
            let answer = answer.await.expect("no panic").expect("a response");
            assert_eq!((answer.status(), answer.broke), (200, None));
            assert!(answer.body == vec![n; EACH], "{n}: {}", answer.body.len());
        }
        assert!(rig.memory.held() < MIB, "{}", rig.memory.held());
        drop(client);
        until("everything is given back", || rig.memory.held() == 0).await;
    });
}

//! Endings: early responses arrive, failures look as they would without us, and nothing that may
//! have been executed is sent twice.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use super::{
    harness::{Setup, backend_ref, eventually, gate, rule},
    raw_connection::{End, RawConnection, text},
    server::{OK, Server, full, refusing},
};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx";

#[test]
fn an_early_413_during_a_large_upload_always_arrives() {
    const RESPONSE: &[u8] =
        b"HTTP/1.1 413 Payload Too Large\r\nConnection: close\r\nContent-Length: 3\r\n\r\nbig";
    for keeps_reading in [false, true] {
        let primary = Server::start(move |mut visit| {
            visit.raw_connection.head();
            visit.raw_connection.send(RESPONSE);
            if keeps_reading {
                visit.raw_connection.finish();
                visit.raw_connection.rest();
            }
        });
        let rig = Setup::to(&primary).start();
        for n in 0..50 {
            let mut client = rig.client();
            client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8000000\r\n\r\n");
            let block = [b'x'; 64 * 1024];
            let mut sent = 0;
            while sent + block.len() <= 8_000_000 && client.try_send(block) {
                sent += block.len();
            }
            let answer = client.message();
            assert_eq!((answer.status(), &answer.body[..]), (413, &b"big"[..]), "{n}");
        }
    }
}

/// Answers the first request of the first connection, then takes one more and closes.
fn closes_on_the_second(executed: &Arc<AtomicUsize>, how: End) -> Server {
    let executed = Arc::clone(executed);
    Server::start(move |mut visit| {
        visit.request();
        executed.fetch_add(1, SeqCst);
        visit.raw_connection.send(OK);
        if visit.index == 0 {
            visit.request();
            executed.fetch_add(1, SeqCst);
            if how == End::Reset {
                visit.raw_connection.reset();
            }
        } else {
            visit.raw_connection.rest();
        }
    })
}

#[test]
fn a_get_on_a_reused_connection_is_sent_once_more() {
    for how in [End::Fin, End::Reset] {
        let executed = Arc::default();
        let primary = closes_on_the_second(&executed, how);
        let rig = Setup::to(&primary).start();
        let mut client = rig.client();
        assert_eq!(client.request(GET).body, b"ok");
        assert_eq!(client.request(GET).body, b"ok");
        assert_eq!(executed.load(SeqCst), 3);
        assert_eq!(primary.connections(), 2);
        assert_eq!(rig.report().retries.iter().sum::<u64>(), 1, "{:?}", rig.report().retries);
    }
}

#[test]
fn a_post_is_never_executed_twice() {
    for how in [End::Fin, End::Reset] {
        let executed = Arc::default();
        let primary = closes_on_the_second(&executed, how);
        let rig = Setup::to(&primary).start();
        let mut client = rig.client();
        assert_eq!(client.request(POST).body, b"ok");
        client.send(POST);
        assert_eq!(client.rest(), (Vec::new(), End::Reset));
        assert_eq!(executed.load(SeqCst), 2);
        assert_eq!(primary.connections(), 1);
    }
}

#[test]
fn a_get_on_a_new_connection_is_not_repeated() {
    let primary = Server::start(|mut visit| drop(visit.request()));
    let rig = Setup::to(&primary).start();
    let mut client = rig.client();
    client.send(GET);
    assert_eq!(client.rest(), (Vec::new(), End::Reset));
    assert_eq!(primary.connections(), 1);
}

/// The primary sends `answer` and ends; what the client then has. A reset waits until the client
/// has all of it: else it may overtake the response, as it may without us.
fn cut(answer: &'static str, how: End) -> (String, End) {
    let (arrived, wait) = gate();
    let primary = Server::start(move |mut visit| {
        visit.request();
        visit.raw_connection.send(answer);
        if how == End::Reset {
            wait();
            visit.raw_connection.reset();
        }
    });
    let rig = Setup::to(&primary).start();
    let mut client = rig.client();
    client.send(GET);
    let mut all = client.exactly(answer.len());
    drop(arrived);
    let (rest, end) = client.rest();
    all.extend(rest);
    (text(all), end)
}

#[test]
fn a_cut_response_arrives_as_far_as_it_came_and_ends_alike() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n",
    ] {
        for how in [End::Fin, End::Reset] {
            for _ in 0..10 {
                assert_eq!(cut(answer, how), (answer.to_owned(), how));
            }
        }
    }
}

#[test]
fn a_primary_that_refuses_is_503_and_says_so() {
    let (_socket, address) = refusing();
    let primary = Server::ok();
    let mut setup = Setup::to(&primary);
    let refs = vec![backend_ref("dead", &[address])];
    setup.rules = vec![rule(Vec::new(), refs)];
    let rig = setup.start();
    let mut client = rig.client();
    for _ in 0..2 {
        let response = client.request(GET);
        assert_eq!(response.status(), 503);
        let reason = "mirror: the primary refused the connection";
        assert_eq!(response.value("x-mirror-reason"), Some(reason));
    }
    assert_eq!(primary.connections(), 0);
}

#[test]
fn a_primary_that_drops_syns_is_503_once_the_connect_timeout_has_passed() {
    // Its accept queue is full: the kernel drops further SYNs.
    let (address, _held) = full();
    let primary = Server::ok();
    let mut setup = Setup::to(&primary);
    setup.options.connect_timeout = Duration::from_millis(300);
    setup.rules = vec![rule(Vec::new(), vec![backend_ref("deaf", &[address])])];
    let rig = setup.start();
    let begun = Instant::now();
    let response = rig.client().request(GET);
    assert_eq!(response.status(), 503);
    let reason = "mirror: the primary did not accept the connection in time";
    assert_eq!(response.value("x-mirror-reason"), Some(reason));
    assert!(begun.elapsed() >= Duration::from_millis(300));
}

#[test]
fn another_endpoint_is_tried_when_one_refuses() {
    let (_socket, dead) = refusing();
    let primary = Server::ok();
    let mut setup = Setup::to(&primary);
    let refs = vec![backend_ref("half", &[dead, primary.address])];
    setup.rules = vec![rule(Vec::new(), refs)];
    let rig = setup.start();
    for _ in 0..20 {
        assert_eq!(rig.client().request(POST).body, b"ok");
    }
}

#[test]
fn a_head_that_never_ends_is_given_up() {
    let primary = Server::ok();
    let mut setup = Setup::to(&primary);
    setup.options.head_timeout = Duration::from_millis(100);
    let rig = setup.start();
    let mut client = rig.client();
    assert_eq!(client.request(GET).body, b"ok");
    // Idle for longer than a head may take.
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(client.request(GET).body, b"ok");
    client.send("GET / HTTP/1.1\r\nHost: a\r\nX-Slow:");
    assert_eq!(client.rest().1, End::Fin);
    assert_eq!(primary.requests().len(), 2);
}

#[test]
fn a_body_that_outlives_its_response_is_no_head() {
    let primary = Server::start(|mut visit| {
        visit.raw_connection.head();
        visit.raw_connection.send(OK);
        assert_eq!(visit.raw_connection.exactly(10), b"0123456789");
        visit.raw_connection.until(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        visit.raw_connection.send(OK);
        visit.raw_connection.rest();
    });
    let mut setup = Setup::to(&primary);
    setup.options.head_timeout = Duration::from_millis(50);
    let rig = setup.start();
    let mut client = rig.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n");
    assert_eq!(client.message().body, b"ok");
    for digit in b"0123456789" {
        client.send([*digit]);
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(client.request(GET).body, b"ok");
}

/// Sends `begun` of an upload and goes away; the primary must not take it for the whole.
fn gone(begun: &str, leave: impl Fn(RawConnection)) {
    let primary = Server::start(|mut visit| {
        visit.request();
        visit.raw_connection.rest();
    });
    let rig = Setup::to(&primary).start();
    let mut client = rig.client();
    client.send(begun);
    let body = || primary.bytes(0).split(|b| *b == b'\n').skip(4).collect::<Vec<_>>().concat();
    eventually("the primary has a part", || body().windows(4).any(|w| w == b"part"));
    leave(client);
    eventually("the primary sees an end", || primary.ended(0).is_some());
    assert!(primary.requests().is_empty());
    assert!(!body().contains(&b'0'), "{}", body().escape_ascii());
}

#[test]
fn a_client_gone_mid_upload_leaves_an_aborted_request() {
    for begun in [
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\npart",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\na\r\npart",
    ] {
        gone(begun, drop);
        gone(begun, RawConnection::reset);
    }
}

#[test]
fn a_client_gone_mid_response_frees_the_primary() {
    let primary = Server::start(|mut visit| {
        visit.request();
        visit.raw_connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        while visit.raw_connection.try_send("4\r\ndata\r\n") {
            std::thread::sleep(Duration::from_millis(1));
        }
        visit.raw_connection.rest();
    });
    let rig = Setup::to(&primary).start();
    let mut client = rig.client();
    client.send(GET);
    client.head();
    drop(client);
    eventually("the primary sees an end", || primary.ended(0).is_some());
}

#[test]
fn a_client_that_resets_while_it_waits_frees_the_primary() {
    let primary = Server::silent();
    let rig = Setup::to(&primary).start();
    let mut client = rig.client();
    client.send(GET);
    eventually("the request arrived", || primary.bytes(0) == GET.as_bytes());
    client.reset();
    eventually("the primary sees an end", || primary.ended(0).is_some());
}

/// The primary has answered and reads no more of the upload, which stands still; the client then
/// goes away, and nobody else would notice.
#[test]
fn a_client_that_resets_within_an_upload_that_has_its_response_is_let_go() {
    let (release, wait) = gate();
    let primary = Server::start(move |mut visit| {
        visit.raw_connection.narrow();
        visit.raw_connection.head();
        visit.raw_connection.send(OK);
        wait();
    });
    let mut setup = Setup::to(&primary);
    setup.send_buffer = Some(4096);
    let rig = setup.start();
    let mut client = rig.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n");
    client.send(vec![b'x'; 300_000]);
    assert_eq!(client.message().body, b"ok");
    eventually("the connection is served", || rig.worker.left() == 1);
    client.reset();
    eventually("the connection is let go", || rig.worker.left() == 0);
    drop(release);
}

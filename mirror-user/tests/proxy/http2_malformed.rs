//! Malformed messages of HTTP/2: each is an error of its stream alone (RFC 9113, section 8.1.1), the
//! table that header blocks are compressed with stays in step, and what floods is stopped as before.

use std::time::Duration;

use h2::{Reason, server::Builder};
use http::Response;
use tokio::task::spawn_blocking;

use super::{
    frames::{
        ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PRIORITY,
        RawFrames, WINDOW_UPDATE, indexed, kept, kept_again, request,
    },
    harness::Rig,
    http2::to,
    server::Server,
    streams::{Client, Upstream, post, reason, run},
};

const PROTOCOL_ERROR: u32 = 1;
const ENHANCE_YOUR_CALM: u32 = 11;

/// Responds to each request when it has come; on a stream to `/live` at once, and then gives back what comes.
async fn primary() -> Upstream {
    Upstream::start(Builder::new(), |mut stream| async move {
        if stream.request.as_ref().expect("not taken").uri().path() == "/live" {
            let mut body = stream.response(Response::new(()), false);
            let mut request = stream.request.take().expect("once").into_body();
            while let Some(Ok(data)) = request.data().await {
                body.send_data(data, false).expect("open");
            }
            return;
        }
        stream.take().await;
        stream.response(Response::new(()), true);
    })
    .await
}

/// Plays a raw client in a thread of its own.
async fn client(rig: &Rig, script: impl FnOnce(&mut RawFrames) + Send + 'static) {
    let address = rig.address();
    spawn_blocking(move || script(&mut RawFrames::connect(address))).await.expect("no panic");
}

/// Opens stream 1, that lives.
fn live(raw: &mut RawFrames) {
    raw.headers(1, false, request("/live"));
    assert!(lives(raw));
}

fn lives(raw: &mut RawFrames) -> bool {
    raw.send(DATA, 0, 1, "still there?");
    raw.data(1) == b"still there?"
}

#[test]
fn a_field_that_nobody_may_send_costs_its_stream_alone() {
    let fields = [
        ("a name in capitals", kept("X-Big", "1")),
        ("a name with a space", kept("x big", "1")),
        ("a name that is no ASCII", kept(b"x-\xe9", "1")),
        ("an empty name", kept("", "1")),
        ("a pseudo-field that nobody knows", kept(":foo", "1")),
        ("a control character in a value", kept("x", "a\x01b")),
        ("NUL in a value", kept("x", "a\0b")),
        ("a line in a value", kept("x", "a\nb")),
        ("DEL in a value", kept("x", "a\x7fb")),
        ("a path that is no UTF-8", kept(":path", b"/caf\xe9")),
        ("an authority that is no UTF-8", kept(":authority", b"caf\xe9")),
        ("a scheme that is no UTF-8", kept(":scheme", b"\xff")),
        ("a protocol that is no UTF-8", kept(":protocol", b"\xff")),
        ("a method with a space", kept(":method", "GE T")),
        ("an empty method", kept(":method", "")),
        ("a status that is no number", kept(":status", "abc")),
        ("a field of a connection", kept("connection", "close")),
        ("a field behind others", kept(":path", "/")),
    ];
    run(async {
        let primary = primary().await;
        let rig = to(primary.address);
        for (name, field) in fields {
            let wanted = primary.got().len() + 1;
            client(&rig, move |raw| {
                live(raw);
                let bad = [request("/bad"), kept("x-good", "1"), field].concat();
                raw.headers(3, true, bad);
                assert_eq!(raw.reset(3), PROTOCOL_ERROR, "{name}");
                // Both entries are in the table, the bad one first.
                raw.headers(5, true, [request("/good"), indexed(63)].concat());
                assert_eq!(raw.next(HEADERS).stream, 5, "{name}");
                assert!(lives(raw), "{name}");
            })
            .await;
            let got = primary.got();
            let last = got.last().expect("the good one");
            assert_eq!((got.len(), &last.headers["x-good"]), (wanted, &"1".parse().unwrap()));
        }
    });
}

#[test]
fn an_entry_with_a_bad_value_gives_its_name_to_a_good_one() {
    run(async {
        let primary = primary().await;
        let rig = to(primary.address);
        client(&rig, |raw| {
            raw.headers(1, true, [request("/"), kept("x-a", "a\x01b")].concat());
            assert_eq!(raw.reset(1), PROTOCOL_ERROR);
            // The same entry again is as bad as it was.
            raw.headers(3, true, [request("/"), indexed(62)].concat());
            assert_eq!(raw.reset(3), PROTOCOL_ERROR);
            raw.headers(5, true, [request("/"), kept_again(62, "good")].concat());
            assert_eq!(raw.next(HEADERS).stream, 5);
            // What was kept last is entry 62 now.
            raw.headers(7, true, [request("/"), indexed(62)].concat());
            assert_eq!(raw.next(HEADERS).stream, 7);
        })
        .await;
        let got = primary.got();
        assert_eq!(got.len(), 2);
        assert!(got.iter().all(|got| got.headers["x-a"] == "good"), "{got:?}");
    });
}

#[test]
fn a_malformed_block_in_pieces_is_read_to_its_end() {
    run(async {
        let primary = primary().await;
        let rig = to(primary.address);
        client(&rig, |raw| {
            live(raw);
            let block = [request("/"), kept("X-Big", "1"), kept("x-good", "1")].concat();
            // However it is cut: within the bad field, before it, behind it.
            for (n, cut) in (2..block.len()).enumerate() {
                let stream = 3 + 4 * u32::try_from(n).expect("few");
                raw.send(HEADERS, END_STREAM, stream, &block[..cut]);
                raw.send(CONTINUATION, END_HEADERS, stream, &block[cut..]);
                assert_eq!(raw.reset(stream), PROTOCOL_ERROR, "cut at {cut}");
                raw.headers(stream + 2, true, [request("/"), indexed(62)].concat());
                assert_eq!(raw.next(HEADERS).stream, stream + 2, "cut at {cut}");
            }
            assert!(lives(raw));
        })
        .await;
        assert!(primary.got().iter().all(|got| got.headers["x-good"] == "1"));
    });
}

#[test]
fn other_errors_of_a_stream_leave_the_connection_alone() {
    run(async {
        let primary = primary().await;
        let rig = to(primary.address);
        client(&rig, |raw| {
            live(raw);
            // A stream that depends on itself: its header block is read all the same.
            let block = [&[0, 0, 0, 3, 0][..], &request("/"), &kept("x-good", "1")].concat();
            raw.send(HEADERS, END_HEADERS | END_STREAM | PRIORITY, 3, block);
            assert_eq!(raw.reset(3), PROTOCOL_ERROR);
            raw.headers(5, true, [request("/"), indexed(62)].concat());
            assert_eq!(raw.next(HEADERS).stream, 5);
            // A window that is opened by nothing (RFC 9113, section 6.9).
            raw.headers(7, false, request("/"));
            raw.send(WINDOW_UPDATE, 0, 7, [0; 4]);
            assert_eq!(raw.reset(7), PROTOCOL_ERROR);
            // What still comes of a stream that was reset.
            raw.headers(9, false, [request("/"), kept("X", "1")].concat());
            raw.send(DATA, 0, 9, "body");
            raw.send(DATA, END_STREAM, 9, "more");
            assert_eq!(raw.reset(9), PROTOCOL_ERROR);
            assert!(lives(raw));
            // Trailers.
            raw.headers(11, false, request("/"));
            raw.headers(11, true, kept("X-Sum", "1"));
            assert_eq!(raw.reset(11), PROTOCOL_ERROR);
            assert!(lives(raw));
        })
        .await;
    });
}

#[test]
fn errors_of_compression_and_of_the_connections_window_still_end_the_connection() {
    run(async {
        let primary = primary().await;
        let rig = to(primary.address);
        for (name, kind, stream, payload) in [
            ("an entry that is not there", HEADERS, 1, indexed(70)),
            ("a string that ends early", HEADERS, 1, vec![0x40, 0x05, b'x']),
            ("a code of Huffman that is none", HEADERS, 1, vec![0x40, 0x84, 255, 255, 255, 255, 0]),
            ("a window that is opened by nothing", WINDOW_UPDATE, 0, vec![0; 4]),
        ] {
            client(&rig, move |raw| {
                let flags = if kind == HEADERS { END_HEADERS | END_STREAM } else { 0 };
                raw.send(kind, flags, stream, payload);
                assert_eq!(raw.next(GOAWAY).code(), PROTOCOL_ERROR, "{name}");
            })
            .await;
        }
    });
}

#[test]
fn a_flood_of_malformed_messages_is_stopped() {
    run(async {
        let primary = primary().await;
        let rig = to(primary.address);
        client(&rig, |raw| {
            let block = [request("/"), kept("X", "1")].concat();
            for n in 0..1100 {
                raw.headers(2 * n + 1, true, &block);
            }
            assert_eq!(raw.next(GOAWAY).code(), ENHANCE_YOUR_CALM);
        })
        .await;
    });
}

#[test]
fn a_primarys_malformed_response_costs_its_stream_alone() {
    let fields = [
        ("a control character", kept("x", "a\x01b")),
        ("a line", kept("x", "a\nb")),
        ("a name in capitals", kept("X-Big", "1")),
        ("a name with a space", kept("x y", "1")),
        ("a name that is no ASCII", kept(b"x-\xe9", "1")),
        ("a field of a connection", kept("connection", "close")),
        ("transfer-encoding", kept("transfer-encoding", "chunked")),
        ("a second status", kept(":status", "200")),
    ];
    run(async {
        for (name, field) in fields {
            let server = Server::start(move |visit| {
                let mut raw = RawFrames::accepted(visit.raw_connection, &[]);
                let live = raw.next(HEADERS).stream;
                raw.headers(live, false, [0x88]);
                raw.send(DATA, 0, live, "begun");
                let bad = raw.next(HEADERS).stream;
                raw.headers(bad, true, [vec![0x88], field.clone()].concat());
                assert_eq!(raw.reset(bad), PROTOCOL_ERROR);
                raw.send(DATA, END_STREAM, live, "goes on");
                let good = raw.next(HEADERS).stream;
                raw.headers(good, true, [0x88]);
                let _ = raw.0.rest();
            });
            let rig = to(server.address);
            let mut client = Client::connect(rig.address()).await;
            let (response, _open) = client.send(post("/live"), false).await;
            let mut living = response.await.expect(name).into_body();
            assert_eq!(living.data().await.expect(name).expect(name), "begun", "{name}");
            let error = client.get("/bad").await.expect_err(name);
            assert!(
                error.is_reset() && reason(&error) == Reason::PROTOCOL_ERROR,
                "{name}: {error}"
            );
            assert_eq!(living.data().await.expect(name).expect(name), "goes on", "{name}");
            assert_eq!(client.get("/good").await.expect(name).status(), 200, "{name}");
            assert_eq!(server.connections(), 1, "{name}");
        }
    });
}

#[test]
fn a_malformed_response_alone_on_its_connection_ends_nothing() {
    run(async {
        let server = Server::start(move |visit| {
            let mut raw = RawFrames::accepted(visit.raw_connection, &[]);
            while let Ok(frame) = raw.try_next() {
                if frame.kind == HEADERS {
                    raw.headers(frame.stream, true, [vec![0x88], kept("X", "1")].concat());
                }
            }
        });
        let rig = to(server.address);
        let mut client = Client::connect(rig.address()).await;
        for _ in 0..3 {
            let error = client.get("/").await.expect_err("malformed");
            assert!(error.is_reset() && reason(&error) == Reason::PROTOCOL_ERROR, "{error}");
        }
        assert!(!client.connection.is_finished());
        assert_eq!(server.connections(), 1);
    });
}

#[test]
fn a_ping_beside_malformed_requests_is_acknowledged() {
    run(async {
        let primary = primary().await;
        let rig = to(primary.address);
        client(&rig, |raw| {
            raw.headers(1, true, [request("/"), kept("X", "1")].concat());
            raw.ping(b"12345678");
            let pong = raw.next(PING);
            assert_eq!((pong.flags, &*pong.payload), (ACK, &b"12345678"[..]));
            assert!(raw.0.is_silent_for(Duration::from_millis(50)));
        })
        .await;
    });
}

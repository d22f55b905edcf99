//! Mirroring with a healthy shadow: what the copy is, and which requests have one.

use std::collections::HashSet;

use mirror_user::{
    outcome::{CopyOutcome, CopyOutcome::Delivered, UnknownReason},
    route::{Filter, Fraction, HeaderModifier},
};

use super::{
    harness::{Setup, backend_ref, eventually, gate, mirror, mirror_of, rule},
    raw_connection::text,
    server::{OK, Server},
};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// What the shadow gets of a request that the primary answers.
fn copied(request: &str) -> String {
    let (primary, shadow) = (Server::ok(), Server::ok());
    let rig = Setup::mirrored(&primary, shadow.address).start();
    assert_eq!(rig.client().request(request).body, b"ok");
    rig.all_ended("shadow", 1, Delivered);
    assert_eq!(shadow.wait_requests(1).len(), 1);
    assert_eq!(text(primary.bytes(0)), request);
    text(shadow.bytes(0))
}

#[test]
fn a_copy_is_the_request_with_a_suffix_on_the_host() {
    for (request, host, shadow) in [
        (
            "GET /a?b=c HTTP/1.1\r\nhOsT: httpbin:8000\r\nX-Two: 1\r\nx-two: 2\r\nAccept: */*\r\n\r\n",
            "httpbin:8000",
            "httpbin-shadow:8000",
        ),
        (
            "POST /p HTTP/1.1\r\nA: b\r\nHost: httpbin.default.svc\r\nContent-Length: 5\r\n\r\nhello",
            "httpbin.default.svc",
            "httpbin.default.svc-shadow",
        ),
        ("DELETE /d HTTP/1.1\r\nHost: 10.0.0.1:80\r\n\r\n", "10.0.0.1:80", "10.0.0.1:80"),
        ("GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", "[::1]:80", "[::1]:80"),
        ("GET / HTTP/1.0\r\n\r\n", "none", "none"),
    ] {
        assert_eq!(copied(request), request.replacen(host, shadow, 1));
    }
}

#[test]
fn a_copy_of_head_ends_with_the_responses_head() {
    let response = "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n";
    let (primary, shadow) = (Server::responding(response), Server::responding(response));
    let rig = Setup::mirrored(&primary, shadow.address).start();
    let mut client = rig.client();
    for n in 1..=3 {
        client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.head().head, response);
        rig.all_ended("shadow", n, Delivered);
    }
    assert_eq!(shadow.connections(), 1);
}

#[test]
fn a_chunked_copy_has_its_trailers() {
    let (primary, shadow) = (Server::ok(), Server::ok());
    let rig = Setup::mirrored(&primary, shadow.address).start();
    let response = rig.client().request(
        "POST / HTTP/1.1\r\nHost: a\r\nTrailer: X-Check\r\nTransfer-Encoding: chunked\r\n\r\n\
         4\r\nwxyz\r\n1\r\n!\r\n0\r\nX-Check: yes\r\n\r\n",
    );
    assert_eq!(response.body, b"ok");
    rig.all_ended("shadow", 1, Delivered);
    let copy = &shadow.wait_requests(1)[0];
    assert_eq!(copy.body, b"wxyz!");
    assert_eq!(copy.trailers.to_lowercase(), "x-check: yes\r\n");
    assert_eq!(
        copy.head,
        "POST / HTTP/1.1\r\nHost: a-shadow\r\nTrailer: X-Check\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
}

#[test]
fn large_bodies_are_copied_whole_while_the_shadow_keeps_up() {
    let (primary, shadow) = (Server::ok(), Server::ok());
    let rig = Setup::mirrored(&primary, shadow.address).start();
    let body: Vec<u8> =
        (0..2_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut client = rig.client();
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len()));
    assert_eq!(client.request(&body).body, b"ok");
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    for part in body.chunks(9_999) {
        client.send(format!("{:x}\r\n", part.len()));
        client.send(part);
        client.send("\r\n");
    }
    assert_eq!(client.request("0\r\n\r\n").body, b"ok");
    rig.all_ended("shadow", 2, Delivered);
    for request in shadow.wait_requests(2).iter().chain(&primary.wait_requests(2)) {
        assert!(request.body == body, "{} differs", request.head);
    }
    assert_eq!(rig.copies("shadow").sent, 4_000_000);
}

#[test]
fn the_suffix_can_be_off() {
    let (primary, shadow) = (Server::ok(), Server::ok());
    let mut setup = Setup::mirrored(&primary, shadow.address);
    setup.options.shadow.host_suffix = String::new();
    let rig = setup.start();
    rig.client().request(GET);
    rig.all_ended("shadow", 1, Delivered);
    assert_eq!(shadow.bytes(0), GET.as_bytes());
}

#[test]
fn one_copy_per_request_and_none_twice() {
    let (primary, shadow) = (Server::ok(), Server::ok());
    let rig = Setup::mirrored(&primary, shadow.address).start();
    let mut clients: Vec<_> = (0..10).map(|_| rig.client()).collect();
    for n in 0..300 {
        let client = &mut clients[n % 10];
        client.request(format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n"));
    }
    rig.all_ended("shadow", 300, Delivered);
    let copies = shadow.wait_requests(300);
    let targets: HashSet<_> = copies.iter().map(|c| c.head.split(' ').nth(1).unwrap()).collect();
    assert_eq!(targets.len(), 300);
}

#[test]
fn a_percentage_of_requests_is_copied() {
    let (primary, a, b) = (Server::ok(), Server::ok(), Server::ok());
    let filters = vec![
        mirror_of("a", a.address, Fraction { numerator: 25, denominator: 100 }),
        mirror_of("b", b.address, Fraction { numerator: 1, denominator: 2 }),
        mirror_of("none", b.address, Fraction { numerator: 0, denominator: 100 }),
    ];
    let rig = Setup::with(&primary, filters).start();
    let mut client = rig.client();
    for n in 0..2_000 {
        client.request(format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n"));
    }
    let selected = |shadow| rig.copies(shadow).selected;
    assert_eq!(selected("none"), 0);
    // Seven standard deviations around 500, 1,000 and, both at once, 250.
    let (of_a, of_b) = (selected("a"), selected("b"));
    assert!((365..=635).contains(&of_a), "{of_a}");
    assert!((843..=1_157).contains(&of_b), "{of_b}");
    rig.all_ended("a", of_a, Delivered);
    rig.all_ended("b", of_b, Delivered);
    let targets = |server: &Server| -> HashSet<String> {
        server.requests().iter().map(|r| r.head.split(' ').nth(1).unwrap().to_owned()).collect()
    };
    let both = targets(&a).intersection(&targets(&b)).count();
    assert!((146..=354).contains(&both), "{both}");
}

#[test]
fn several_mirrors_each_get_what_stands_at_their_place() {
    let (primary, first, second) = (Server::ok(), Server::ok(), Server::ok());
    let set = |name: &str| {
        let set = vec![(name.parse().unwrap(), "1".parse().unwrap())];
        Filter::RequestHeaders(HeaderModifier { set, ..HeaderModifier::default() })
    };
    let filters = vec![
        set("x-before"),
        mirror("first", first.address),
        set("x-between"),
        mirror("second", second.address),
        set("x-after"),
    ];
    let rig = Setup::with(&primary, filters).start();
    let body = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody";
    assert_eq!(rig.client().request(body).body, b"ok");
    rig.all_ended("first", 1, Delivered);
    rig.all_ended("second", 1, Delivered);
    for (server, names) in [(&first, 1), (&second, 2), (&primary, 3)] {
        let request = &server.wait_requests(1)[0];
        assert_eq!(request.body, b"body");
        let has = ["x-before", "x-between", "x-after"].map(|n| request.value(n).is_some());
        assert_eq!(has, [true, names > 1, names > 2], "{}", request.head);
    }
}

#[test]
fn a_request_that_no_primary_gets_is_copied_all_the_same() {
    let (original, shadow) = (Server::ok(), Server::ok());
    let rules = vec![rule(vec![mirror("shadow", shadow.address)], vec![backend_ref("empty", &[])])];
    let rig = Setup::rules(original.address, rules).start();
    assert_eq!(rig.client().request(GET).status(), 503);
    rig.all_ended("shadow", 1, Delivered);
}

#[test]
fn a_client_gone_after_its_request_does_not_stop_the_copy() {
    let (release, wait) = gate();
    let primary = Server::silent();
    let shadow = Server::start(move |mut visit| {
        visit.request();
        wait();
        visit.raw_connection.send(OK);
        visit.raw_connection.rest();
    });
    let rig = Setup::mirrored(&primary, shadow.address).start();
    let mut client = rig.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody");
    shadow.wait_requests(1);
    client.reset();
    drop(release);
    rig.all_ended("shadow", 1, Delivered);
}

#[test]
fn shadow_connections_are_reused_and_closed_when_idle() {
    let (primary, shadow) = (Server::ok(), Server::ok());
    let rig = Setup::mirrored(&primary, shadow.address).start();
    let mut client = rig.client();
    for n in 1..=50 {
        client.request(GET);
        rig.all_ended("shadow", n, Delivered);
    }
    assert_eq!(shadow.connections(), 1);
    eventually("the idle connection is closed", || shadow.ended(0).is_some());
    client.request(GET);
    rig.all_ended("shadow", 51, Delivered);
    assert_eq!(shadow.connections(), 2);
}

#[test]
fn one_bad_shadow_does_not_harm_the_other() {
    let (primary, good, bad) = (Server::ok(), Server::ok(), Server::silent());
    let filters = vec![mirror("bad", bad.address), mirror("good", good.address)];
    let mut setup = Setup::with(&primary, filters);
    setup.options.shadow.response_timeout = std::time::Duration::from_millis(300);
    let rig = setup.start();
    let mut client = rig.client();
    for _ in 0..30 {
        assert_eq!(client.request(GET).body, b"ok");
    }
    rig.all_ended("good", 30, Delivered);
    rig.all_ended("bad", 30, CopyOutcome::Unknown(UnknownReason::Timeout));
}

#[test]
fn an_empty_chunked_body_ends_at_the_shadow_too() {
    let (primary, shadow) = (Server::ok(), Server::ok());
    let rig = Setup::mirrored(&primary, shadow.address).start();
    let mut client = rig.client();
    for _ in 0..3 {
        let request = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
        assert_eq!(client.request(request).body, b"ok");
    }
    rig.all_ended("shadow", 3, Delivered);
    assert!(shadow.bytes(0).ends_with(b"\r\n\r\n0\r\n\r\n"));
}

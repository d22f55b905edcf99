//! The primary connections of a client's connection are its own: what a server attaches to a
//! connection stays with that client, and both connections end alike.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use http::HeaderName;
use mirror_user::route::{
    EndpointChoice, Filter, FrontendState, HeaderModifier, Matcher, PathMatch, RuleEntry, Timeouts,
};

use super::{
    harness::{
        FRONTEND, Rig, Setup, backend_ref, eventually, frontend, gate, mirror, own_ref, rule,
    },
    raw_connection::{End, RawConnection, text},
    server::{OK, Server},
};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx";

/// Longer than an idle connection keeps its buffers.
const IDLE: Duration = Duration::from_millis(2500);

/// Says on which of its connections it was asked, as a server does that authenticates connections
/// (NTLM, Negotiate).
fn identifying() -> Server {
    Server::start(|mut visit| {
        while visit.request().is_some() {
            let body = format!("connection {}", visit.index);
            let length = body.len();
            visit
                .raw_connection
                .send(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}"));
        }
    })
}

fn at(path: &str, entry: RuleEntry) -> RuleEntry {
    let path = PathMatch::Prefix(path.into());
    RuleEntry { matches: vec![Matcher { path, ..Matcher::default() }], ..entry }
}

/// Requests for /one go to the first, all others to the second.
fn two(one: &Server, other: &Server) -> Rig {
    let to_one = rule(Vec::new(), vec![backend_ref("one", &[one.address])]);
    let to_other = rule(Vec::new(), vec![backend_ref("other", &[other.address])]);
    Setup::rules(other.address, vec![at("/one", to_one), at("/", to_other)]).start()
}

#[test]
fn no_client_is_served_on_anothers_connection() {
    let primary = identifying();
    let rig = Setup::to(&primary).start();
    let mut clients: Vec<_> = (0..5).map(|_| rig.client()).collect();
    // One after the other, so that an idle connection of the others is there each time.
    let mut seen = BTreeSet::new();
    for client in &mut clients {
        let first = text(client.request(GET).body);
        assert_eq!(text(client.request(POST).body), first);
        assert!(seen.insert(first), "two clients on one connection: {seen:?}");
    }
    for (client, identity) in clients.iter_mut().zip(&seen) {
        assert_eq!(text(client.request(GET).body), *identity);
    }
    // Nor when its owner is gone.
    drop(clients);
    assert_eq!(text(rig.client().request(GET).body), "connection 5");
    assert_eq!(primary.connections(), 6);
}

#[test]
fn a_client_that_pauses_keeps_its_connection() {
    let primary = identifying();
    let rig = Setup::to(&primary).start();
    let mut client = rig.client();
    for request in [GET, POST, GET] {
        assert_eq!(text(client.request(request).body), "connection 0");
        std::thread::sleep(IDLE);
    }
    assert_eq!(primary.ended(0), None);
    drop(client);
    eventually("the connection ends with its client's", || primary.ended(0).is_some());
}

#[test]
fn an_idle_close_of_the_only_connection_ends_the_clients_alike() {
    for (how, pause) in [
        (End::Fin, Duration::ZERO),
        (End::Reset, Duration::ZERO),
        (End::Fin, IDLE),
        (End::Reset, IDLE),
    ] {
        let primary = Server::start(move |mut visit| {
            visit.request();
            visit.raw_connection.send(OK);
            std::thread::sleep(pause);
            if how == End::Reset {
                visit.raw_connection.reset();
            }
        });
        let rig = Setup::to(&primary).start();
        let mut client = rig.client();
        assert_eq!(client.request(GET).body, b"ok");
        assert_eq!(client.rest(), (Vec::new(), how), "after {pause:?}");
        assert_eq!(primary.connections(), 1);
    }
}

#[test]
fn an_idle_close_of_one_of_two_connections_costs_no_request() {
    // Closes after each response without saying so.
    let closing = Server::start(|mut visit| {
        visit.request();
        visit.raw_connection.send(OK);
    });
    let other = identifying();
    let rig = two(&closing, &other);
    let mut client = rig.client();
    for n in 1..=10 {
        assert_eq!(text(client.request(GET).body), "connection 0");
        assert_eq!(client.request(POST.replace("/ ", "/one ")).body, b"ok");
        // The close is on its way: a request that meets it is another test.
        eventually("the primary is done", || closing.connections() == n);
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!((closing.connections(), other.connections()), (10, 1));
}

#[test]
fn connection_close_reaches_the_client_of_an_only_connection() {
    let primary = Server::start(|mut visit| {
        visit.request();
        visit
            .raw_connection
            .send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
    });
    let rig = Setup::to(&primary).start();
    for request in [GET, POST] {
        let mut client = rig.client();
        let response = client.request(request);
        assert_eq!(response.value("connection"), Some("close"), "{}", response.head);
        assert_eq!(client.rest(), (Vec::new(), End::Fin));
    }
}

#[test]
fn connection_close_of_one_of_two_connections_leaves_the_client_connected() {
    let closing = Server::start(|mut visit| {
        visit.request();
        visit
            .raw_connection
            .send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
    });
    let other = identifying();
    let rig = two(&closing, &other);
    let mut client = rig.client();
    client.request(GET);
    for n in 1..=10 {
        let response = client.request(POST.replace("/ ", "/one "));
        assert_eq!(response.head, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n");
        assert_eq!(closing.connections(), n);
        assert_eq!(text(client.request(GET).body), "connection 0");
    }
}

#[test]
fn an_endpoint_is_chosen_once_for_each_connection() {
    let servers: Vec<_> = (0..3).map(|_| identifying()).collect();
    let addresses: Vec<_> = servers.iter().map(|server| server.address).collect();
    let refs = vec![backend_ref("primary", &addresses)];
    let rig = Setup::rules(addresses[0], vec![rule(Vec::new(), refs)]).start();
    for _ in 0..20 {
        let mut client = rig.client();
        let before: usize = servers.iter().map(Server::connections).sum();
        for _ in 0..5 {
            client.request(GET);
        }
        assert_eq!(servers.iter().map(Server::connections).sum::<usize>(), before + 1);
    }
    assert!(servers.iter().all(|server| server.connections() > 0), "all of them are used");
}

/// A primary that says `late` some time after each response, on the same connection.
fn late(late: &'static str) -> Server {
    Server::start(move |mut visit| {
        while visit.request().is_some() {
            visit.raw_connection.send(OK);
            std::thread::sleep(Duration::from_millis(30));
            visit.raw_connection.send(late);
        }
    })
}

#[test]
fn late_bytes_reach_the_client_that_they_belong_to_and_nobody_else() {
    let poison = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";
    let primary = late(poison);
    for setup in [Setup::balanced(&primary, Vec::new()), Setup::to(&primary)] {
        let rig = setup.start();
        let (mut first, mut second) = (rig.client(), rig.client());
        assert_eq!(first.request(GET).body, b"ok");
        assert_eq!(second.request(GET).body, b"ok");
        // As without mirror: the bytes are there, whoever wants to take them for a response.
        assert_eq!(text(first.exactly(poison.len())), poison);
        assert_eq!(text(second.exactly(poison.len())), poison);
        assert_eq!(rig.client().request(GET).body, b"ok");
    }
}

#[test]
fn a_408_of_an_idle_connection_reaches_the_client_with_its_close() {
    let timeout = "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    for pause in [Duration::from_millis(50), IDLE] {
        let primary = Server::start(move |mut visit| {
            visit.request();
            visit.raw_connection.send(OK);
            std::thread::sleep(pause);
            visit.raw_connection.send(timeout);
        });
        for setup in [Setup::balanced(&primary, Vec::new()), Setup::to(&primary)] {
            let rig = setup.start();
            let mut client = rig.client();
            assert_eq!(client.request(GET).body, b"ok");
            assert_eq!(client.rest(), (timeout.into(), End::Fin));
        }
    }
}

#[test]
fn behind_late_bytes_a_connection_that_only_mirrors_goes_on_as_bytes() {
    let primary = late("!");
    let shadow = Server::ok();
    let rig = Setup::balanced(&primary, vec![mirror("shadow", shadow.address)]).start();
    let mut client = rig.client();
    assert_eq!(client.request(GET).body, b"ok");
    assert_eq!(client.exactly(1), b"!");
    for _ in 0..3 {
        client.send(POST);
        assert_eq!(text(client.exactly(OK.len() + 1)), format!("{}!", text(OK.to_vec())));
    }
    assert_eq!(primary.connections(), 1);
    rig.all_ended("shadow", 1, mirror_user::outcome::CopyOutcome::Delivered);
}

#[test]
fn behind_late_bytes_nothing_more_passes_where_a_rule_does_more_than_mirror() {
    let primary = late("!");
    let rig = Setup::to(&primary).start();
    let mut client = rig.client();
    assert_eq!(client.request(GET).body, b"ok");
    assert_eq!(client.exactly(1), b"!");
    client.send(POST);
    let (rest, _) = client.rest();
    assert_eq!(rest, b"");
    assert_eq!(primary.requests().len(), 1);
}

/// Sends what is not a response, in two parts, and then whatever it is sent.
fn garbling() -> Server {
    Server::start(|mut visit| {
        visit.request();
        visit.raw_connection.send("HTTQ/1.1 garbage\r\n");
        std::thread::sleep(Duration::from_millis(20));
        visit.raw_connection.send("more\r\n\r\n");
        let all = visit.raw_connection.rest().0;
        visit.raw_connection.try_send(all);
    })
}

const GARBAGE: &str = "HTTQ/1.1 garbage\r\nmore\r\n\r\n";

#[test]
fn a_response_that_is_none_passes_as_bytes() {
    let primary = garbling();
    let rig = Setup::balanced(&primary, Vec::new()).start();
    let mut client = rig.client();
    client.send(GET);
    assert_eq!(text(client.exactly(GARBAGE.len())), GARBAGE);
    client.send("anything");
    client.finish();
    assert_eq!(client.rest(), (b"anything".to_vec(), End::Fin));
}

#[test]
fn a_response_that_is_none_passes_alone_where_a_rule_does_more_than_mirror() {
    let primary = garbling();
    let limit = Timeouts { request: Some(Duration::from_secs(10)), ..Timeouts::default() };
    let mut limited = rule(Vec::new(), vec![own_ref(primary.address)]);
    let entry = std::sync::Arc::get_mut(&mut limited.rule).expect("made just now");
    entry.timeouts = limit;
    let mut setup = Setup::rules(primary.address, vec![limited]);
    setup.options.endpoints = EndpointChoice::Service;
    let rig = setup.start();
    let mut client = rig.client();
    client.send(GET);
    assert_eq!(text(client.exactly(GARBAGE.len())), GARBAGE);
    client.send("anything");
    assert_eq!(client.rest().0, b"");
    eventually("the primary sees an end", || primary.ended(0).is_some());
    assert_eq!(primary.bytes(0), GET.as_bytes());
}

#[test]
fn a_response_that_is_none_is_502_where_a_filter_acts_on_responses() {
    let primary = garbling();
    let name: HeaderName = "x-by".parse().expect("a name");
    let modifier =
        HeaderModifier { set: vec![(name, "mirror".parse().expect("text"))], ..Default::default() };
    let rig = Setup::with(&primary, vec![Filter::ResponseHeaders(modifier)]).start();
    let response = rig.client().request(GET);
    assert_eq!(response.status(), 502);
    let reason = response.value("x-mirror-reason").expect("it says so");
    assert!(reason.contains("not a response"), "{reason}");
}

#[test]
fn an_upgrade_uses_the_clients_own_connection() {
    let primary = Server::start(|mut visit| {
        while let Some(request) = visit.request() {
            if request.value("upgrade").is_none() {
                visit.raw_connection.send(OK);
                continue;
            }
            let connection = visit.index;
            visit.raw_connection.send(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            );
            visit.raw_connection.send(format!("on {connection}"));
            return drop(visit.raw_connection.rest());
        }
    });
    let rig = Setup::to(&primary).start();
    let mut client = rig.client();
    assert_eq!(client.request(GET).body, b"ok");
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert!(client.head().head.starts_with("HTTP/1.1 101 "));
    assert_eq!(client.exactly(4), b"on 0");
    assert_eq!(primary.connections(), 1);
}

#[test]
fn as_many_connections_as_without_mirror() {
    let primary = identifying();
    let rig = Setup::to(&primary).start();
    // Six at a time, as browsers do, then one for each request.
    let mut six: Vec<_> = (0..6).map(|_| rig.client()).collect();
    for _ in 0..10 {
        six.iter_mut().for_each(|client| drop(client.request(GET)));
    }
    assert_eq!(primary.connections(), 6);
    for _ in 0..10 {
        rig.client().request(GET);
    }
    assert_eq!(primary.connections(), 16);
}

#[test]
fn a_primary_that_closes_its_side_within_a_head_of_the_client_costs_no_request() {
    let (closed, wait) = gate();
    let primary = Server::start(move |mut visit| {
        visit.request();
        visit.raw_connection.send(OK);
        if visit.index == 0 {
            wait();
        } else {
            visit.raw_connection.rest();
        }
    });
    let rig = Setup::to(&primary).start();
    let mut client = rig.client();
    assert_eq!(client.request(GET).body, b"ok");
    client.send(&GET[..10]);
    std::thread::sleep(Duration::from_millis(50));
    drop(closed);
    std::thread::sleep(Duration::from_millis(50));
    client.send(&GET[10..]);
    assert_eq!(client.message().body, b"ok");
    assert_eq!(primary.connections(), 2);
}

#[test]
fn connections_to_an_endpoint_that_its_backend_has_lost_end() {
    // The first never responds to anything but /, as one that has gone without a word.
    let gone = Server::start(|mut visit| {
        while let Some(request) = visit.request() {
            if request.head.starts_with("GET / ") {
                visit.raw_connection.send(OK);
            }
        }
    });
    let other = Server::ok();
    let front = |endpoints: &[SocketAddr]| {
        let refs = vec![backend_ref("primary", endpoints)];
        [(
            FRONTEND,
            FrontendState::Live(frontend(FRONTEND, gone.address, Some(vec![rule(vec![], refs)]))),
        )]
    };
    let refs = vec![backend_ref("primary", &[gone.address])];
    let rig = Setup::rules(gone.address, vec![rule(Vec::new(), refs)]).start();
    let (mut idle, mut waiting) = (rig.client(), rig.client());
    assert_eq!(idle.request(GET).body, b"ok");
    assert_eq!(waiting.request(GET).body, b"ok");
    waiting.send("POST /never HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    eventually("it is asked", || gone.requests().len() == 3);
    // Another endpoint beside it ends nothing.
    rig.publish(front(&[gone.address, other.address]));
    assert!(idle.is_silent_for(Duration::from_millis(300)));
    rig.publish_as(3, front(&[other.address]));
    assert_eq!(idle.rest(), (Vec::new(), End::Fin));
    assert_eq!(waiting.rest(), (Vec::new(), End::Reset));
    assert_eq!(rig.client().request(GET).body, b"ok");
    assert_eq!(other.connections(), 1);
}

#[test]
fn keep_alive_of_http_1_0_reaches_the_server() {
    let primary = Server::start(|mut visit| {
        while let Some(request) = visit.request() {
            let keeps = request.value("connection") == Some("keep-alive");
            let connection = if keeps { "Connection: keep-alive\r\n" } else { "" };
            visit
                .raw_connection
                .send(format!("HTTP/1.0 200 OK\r\n{connection}Content-Length: 2\r\n\r\nok"));
            if !keeps {
                return;
            }
        }
    });
    let rig = Setup::to(&primary).start();
    let mut client = rig.client();
    for _ in 0..3 {
        let response = client.request("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        assert_eq!(response.value("connection"), Some("keep-alive"), "{}", response.head);
    }
    client.send("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(client.message().body, b"ok");
    assert_eq!(client.rest(), (Vec::new(), End::Fin));
    assert_eq!(primary.connections(), 1);
}

#[test]
fn a_client_that_leaves_behind_late_bytes_frees_its_primary() {
    for leave in [|client: RawConnection| drop(client), RawConnection::reset] {
        let primary = late("!");
        let rig = Setup::to(&primary).start();
        let mut client = rig.client();
        assert_eq!(client.request(GET).body, b"ok");
        assert_eq!(client.exactly(1), b"!");
        leave(client);
        eventually("the primary's connection ends", || primary.ended(0).is_some());
        eventually("nothing is left", || rig.worker.left() == 0);
    }
}

//! Targets: any bytes that servers take reach primary and shadow as they came, and are matched as
//! they came; absolute form goes to the Service itself in origin form, to a forward proxy as it is.

use std::{sync::Arc, time::Duration};

use mirror_user::{
    outcome::{CopyOutcome, DropReason},
    route::{
        AppProtocol, Backend, BackendRef, Filter, Fraction, Matcher, Mirror, PathMatch, Pattern,
        QueryMatch, RuleEntry, ValueMatch,
    },
};
use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config, TestRunner},
};

use super::{
    harness::{Rig, Setup, backend, backend_ref, mirror, rule},
    raw_connection::RawConnection,
    server::Server,
    streams::{Upstream, run},
};

/// Those of public reports, and their like.
const TARGETS: &[&[u8]] = &[
    br#"/api/v1/query?query=up{job="x"}"#,
    b"/q?filter=price<5",
    b"/q?filter=price>5",
    b"/q?q=<5>6",
    b"/a\"b",
    b"/a<b",
    b"/a>b",
    b"/a^b",
    b"/a`b",
    b"/q?x=a^b",
    b"/q?x=a`b",
    b"/q?x=a|b",
    b"/a|b",
    b"/{a}",
    b"/[a]?a[]=1",
    b"/a\\b",
    b"/q?x=a\\b",
    b"/q?x=1%\\7Cf",
    b"/%zz",
    b"/q?x=%",
    b"/a#b",
    b"/a?b#c",
    b"/#",
    b"//a//b",
    b"/a/../b/./c",
    b"/?",
    b"/a??b",
    b"/a%2Fb;c=d",
    b"/caf\xc3\xa9?x=\xc3\xa9",
    b"/caf\xe9",
    b"/q?x=caf\xe9",
    b"/\xff\x80?\xfe=\x81",
    b"/\xc3",
    b"*",
];

fn request(client: &mut RawConnection, line: &[u8], host: &str) -> u16 {
    client.request([line, b" HTTP/1.1\r\nHost: ", host.as_bytes(), b"\r\n\r\n"].concat()).status()
}

/// Request lines and Hosts that a server got on its connections.
fn lines(server: &Server) -> Vec<(String, String)> {
    let bytes: Vec<_> = (0..server.connections()).flat_map(|at| server.bytes(at)).collect();
    let text = bytes.escape_ascii().to_string();
    let heads = text.split(r"\r\n\r\n").filter(|head| !head.is_empty());
    let line = |head: &str| {
        let (line, fields) = head.split_once(r" HTTP/1.1\r\n").expect("a request line");
        let host = fields.split(r"\r\n").find_map(|field| field.strip_prefix("Host: "));
        (line.to_owned(), host.unwrap_or_default().to_owned())
    };
    heads.map(line).collect()
}

#[test]
fn any_bytes_reach_primary_and_shadow_as_they_came() {
    let (primary, shadow) = (Server::ok(), Server::ok());
    let rig = Setup::mirrored(&primary, shadow.address).start();
    let mut client = rig.client();
    for target in TARGETS {
        let line = [b"OPTIONS ", *target].concat();
        assert_eq!(request(&mut client, &line, "a"), 200, "{}", target.escape_ascii());
    }
    rig.all_ended("shadow", TARGETS.len() as u64, CopyOutcome::Delivered);
    let told = |host: &str| {
        let line = |t: &&[u8]| (format!("OPTIONS {}", t.escape_ascii()), host.to_owned());
        TARGETS.iter().map(line).collect::<Vec<_>>()
    };
    assert_eq!(lines(&primary), told("a"));
    let mut copies = lines(&shadow);
    copies.sort();
    let mut expected = told("a-shadow");
    expected.sort();
    assert_eq!(copies, expected);
}

#[test]
fn random_bytes_reach_primary_and_shadow_as_they_came() {
    let (primary, shadow) = (Server::ok(), Server::ok());
    let rig = Setup::mirrored(&primary, shadow.address).start();
    let mut client = rig.client();
    let bytes = prop::collection::vec(any::<u8>(), 0..40);
    let mut runner = TestRunner::new(Config::default());
    let mut sent = Vec::new();
    for _ in 0..300 {
        let drawn = bytes.new_tree(&mut runner).expect("a strategy without a filter").current();
        let graphic = drawn.into_iter().filter(|byte| *byte > b' ' && *byte != 0x7f);
        let line: Vec<_> = b"GET /".iter().copied().chain(graphic).collect();
        assert_eq!(request(&mut client, &line, "a"), 200, "{}", line.escape_ascii());
        sent.push(line.escape_ascii().to_string());
    }
    rig.all_ended("shadow", sent.len() as u64, CopyOutcome::Delivered);
    let got = |server: &Server| lines(server).into_iter().map(|(line, _)| line).collect::<Vec<_>>();
    assert_eq!(got(&primary), sent);
    let mut copies = got(&shadow);
    copies.sort();
    sent.sort();
    assert_eq!(copies, sent);
}

#[test]
fn whitespace_and_control_characters_are_refused() {
    let primary = Server::ok();
    let rig = Setup::to(&primary).start();
    for target in
        [&b"/a\tb"[..], b"/a\x00", b"/\xe9\x01", b"/a\x7f", b"/a\rb", b"/a b", b"products", b"?x"]
    {
        let line = [b"GET ", target].concat();
        assert_eq!(request(&mut rig.client(), &line, "a"), 400, "{}", target.escape_ascii());
    }
    let reason = rig.client().request("GET x<y HTTP/1.1\r\nHost: a\r\n\r\n");
    let reason = reason.value("x-mirror-reason").map(str::to_owned);
    assert_eq!(reason.as_deref(), Some("mirror: invalid request target (RFC 9112, section 3.2)"));
    assert!(primary.requests().is_empty());
}

fn named(name: &'static str) -> Server {
    Server::responding(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len()))
}

#[test]
fn rules_hold_for_targets_of_any_bytes() {
    let names = ["other", "prefix", "exact", "regex", "query"];
    let servers = names.map(named);
    let matchers = [
        Matcher::default(),
        Matcher { path: PathMatch::Prefix("/a<b".into()), ..Matcher::default() },
        Matcher { path: PathMatch::Exact("/a`".into()), ..Matcher::default() },
        Matcher {
            path: PathMatch::Regex(Pattern::new("/caf./[0-9]+").expect("an expression")),
            ..Matcher::default()
        },
        Matcher {
            query: vec![QueryMatch {
                name: "query".into(),
                value: ValueMatch::Exact(r#"up{job="x"}"#.into()),
            }],
            ..Matcher::default()
        },
    ];
    let rules =
        servers.iter().zip(names).zip(matchers).map(|((server, name), matcher)| RuleEntry {
            matches: vec![matcher],
            ..rule(Vec::new(), vec![backend_ref(name, &[server.address])])
        });
    let rig = Setup::rules(servers[0].address, rules.collect()).start();
    let mut client = rig.client();
    for (target, expected) in [
        (&b"/a<b/c?d"[..], "prefix"),
        (b"/a<bc", "other"),
        (b"/a`#f", "exact"),
        (b"/a%60", "other"),
        (b"/caf\xe9/12", "regex"),
        ("/caf\u{e9}/12".as_bytes(), "regex"),
        (b"/caf\xe9/x", "other"),
        (br#"/q?query=up{job="x"}"#, "query"),
        (b"/q?query=up%7Bjob=%22x%22%7D", "query"),
        (b"http://elsewhere/a<b/c", "prefix"),
        (b"http://elsewhere?query=up{job=\"x\"}", "query"),
    ] {
        client.send([b"GET ", target, b" HTTP/1.1\r\nHost: a\r\n\r\n"].concat());
        let response = client.message();
        assert_eq!(String::from_utf8_lossy(&response.body), expected, "{}", target.escape_ascii());
    }
}

/// What primary and shadow get of a request in absolute form.
fn absolute(rig: &Rig, servers: [&Server; 2], line: &str) -> [(String, String); 2] {
    let before = servers.map(|server| lines(server).len());
    assert_eq!(request(&mut rig.client(), line.as_bytes(), "Front"), 200, "{line}");
    let one = |server: &Server, before: usize| {
        server.wait_requests(before + 1);
        lines(server).pop().expect("a request")
    };
    [one(servers[0], before[0]), one(servers[1], before[1])]
}

#[test]
fn the_services_own_authority_is_left_out() {
    let (primary, shadow) = (Server::ok(), Server::ok());
    let rig = Setup::mirrored(&primary, shadow.address).start();
    let address = primary.address;
    for (line, origin, host) in [
        ("GET http://front?x=1", "GET /?x=1", "Front"),
        ("GET http://front:80?x", "GET /?x", "front:80"),
        ("GET http://front", "GET /", "Front"),
        ("GET http://u:p@front/x#f", "GET /x#f", "Front"),
        ("GET HTTP://Front.default.svc/x?q=<5>", "GET /x?q=<5>", "Front.default.svc"),
        ("OPTIONS http://front", "OPTIONS *", "Front"),
        ("OPTIONS http://front.default:80", "OPTIONS *", "front.default:80"),
        ("OPTIONS http://front/", "OPTIONS /", "Front"),
        ("OPTIONS http://front?", "OPTIONS /?", "Front"),
    ] {
        let [requested, copied] = absolute(&rig, [&primary, &shadow], line);
        assert_eq!(requested, (origin.to_owned(), host.to_owned()), "{line}");
        assert_eq!(copied.0, origin, "{line}");
    }
    let [requested, _] = absolute(&rig, [&primary, &shadow], &format!("GET http://{address}/y"));
    assert_eq!(requested, ("GET /y".to_owned(), address.to_string()));
}

#[test]
fn a_forward_proxy_gets_the_absolute_form_as_it_came() {
    let (primary, shadow) = (Server::ok(), Server::ok());
    let rig = Setup::mirrored(&primary, shadow.address).start();
    for (line, host) in [
        ("GET http://ext.example/x?y", "ext.example"),
        ("GET HTTP://EXT.example:80/x", "EXT.example:80"),
        ("GET https://ext.example/x", "ext.example"),
        ("GET http://ext.example", "ext.example"),
        ("GET http://ext.example?x=<5>", "ext.example"),
        ("OPTIONS http://ext.example", "ext.example"),
        ("GET ftp://u:p@ext.example/x", "ext.example"),
        ("GET http://front:81/x", "front:81"),
        ("GET http://front.elsewhere/x", "front.elsewhere"),
        ("GET http://10.96.7.7/x", "10.96.7.7"),
        ("GET http://[fd00::7]:8080/x", "[fd00::7]:8080"),
    ] {
        let [requested, copied] = absolute(&rig, [&primary, &shadow], line);
        assert_eq!(requested, (line.to_owned(), host.to_owned()));
        assert_eq!(copied.0, line);
    }
}

fn h2c(name: &str, upstream: &Upstream) -> Arc<Backend> {
    let mut spoken = backend(name, &[upstream.address]);
    Arc::get_mut(&mut spoken).expect("nobody else has it").protocol = AppProtocol::H2c;
    spoken
}

#[test]
fn what_http2_cannot_carry_is_refused_with_a_reason() {
    run(async {
        let primary = Upstream::echo().await;
        let refs =
            BackendRef { weight: 1, filters: Vec::new(), target: Ok(h2c("primary", &primary)) };
        let rig = Setup::rules(primary.address, vec![rule(Vec::new(), vec![refs])]).start();
        let address = rig.address();
        let asking = tokio::task::spawn_blocking(move || {
            let response = |target: &[u8]| {
                let line = [b"GET ", target, b" HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
                RawConnection::connect(address).request(line)
            };
            let targets: [&[u8]; 6] =
                [b"/a<b", b"/caf\xe9", b"/a\"{}?`|^", b"/a#b", b"http://ext/x?y", b"http://ext/<"];
            targets.map(response)
        });
        let responses = asking.await.expect("no panic");
        let statuses = responses.each_ref().map(super::raw_connection::Message::status);
        assert_eq!(statuses, [400, 400, 200, 200, 200, 400]);
        let reason = responses[0].value("x-mirror-reason").expect("a reason");
        assert!(reason.contains("HTTP/2 cannot carry the request target"), "{reason}");
        let got: Vec<_> = primary.got().into_iter().map(|got| got.uri).collect();
        assert_eq!(got, ["http://a/a\"{}?`|^", "http://a/a", "http://ext/x?y"]);
    });
}

#[test]
fn a_copy_that_http2_cannot_carry_is_dropped_and_counted() {
    run(async {
        let shadow = Upstream::echo().await;
        let primary = Server::ok();
        let mirrors = vec![Filter::Mirror(Mirror {
            target: Ok(h2c("shadow", &shadow)),
            share: Fraction::ALL,
        })];
        let rig = Setup::with(&primary, mirrors).start();
        let address = rig.address();
        let status = tokio::task::spawn_blocking(move || {
            RawConnection::connect(address).request("GET /a<b HTTP/1.1\r\nHost: a\r\n\r\n").status()
        });
        assert_eq!(status.await.expect("no panic"), 200);
        for _ in 0..500 {
            if rig.copies("shadow").in_flight() == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        rig.all_ended("shadow", 1, CopyOutcome::Dropped(DropReason::Unfit));
    });
}

#[test]
fn a_mirror_beside_it_changes_nothing() {
    // A rule of two mirrors: each copy has the target.
    let (primary, one, two) = (Server::ok(), Server::ok(), Server::ok());
    let mirrors = vec![mirror("one", one.address), mirror("two", two.address)];
    let rig = Setup::with(&primary, mirrors).start();
    assert_eq!(request(&mut rig.client(), b"GET /caf\xe9?<", "a"), 200);
    for server in [&one, &two] {
        server.wait_requests(1);
        assert_eq!(lines(server)[0].0, r"GET /caf\xe9?<");
    }
}

//! Filters of a rule's backends: they act on the requests that their backend gets, behind the rule's.

use mirror_user::{
    outcome::CopyOutcome::Delivered,
    route::{BackendRef, Filter, HeaderModifier, PathModifier},
};

use super::{
    harness::{Setup, backend_ref, mirror, rule},
    redirect::{elsewhere, redirect},
    rewrite::rewrite,
    server::Server,
    streams::{Client, Upstream, run, until},
};

const GET: &str = "GET /a HTTP/1.1\r\nHost: front\r\n\r\n";

fn set(name: &str) -> Filter {
    let set = vec![(name.parse().expect("a name"), "1".parse().expect("a value"))];
    Filter::RequestHeaders(HeaderModifier { set, ..HeaderModifier::default() })
}

#[test]
fn only_requests_of_the_backend_are_copied() {
    let servers = [Server::ok(), Server::ok()];
    let [rules, own] = [Server::ok(), Server::ok()];
    let named = ["one", "two"].into_iter().zip(&servers);
    let mut refs: Vec<_> =
        named.map(|(name, server)| backend_ref(name, &[server.address])).collect();
    refs[1].filters = vec![mirror("own", own.address)];
    let filters = vec![mirror("rules", rules.address)];
    let rig = Setup::rules(servers[0].address, vec![rule(filters, refs)]).start();
    let mut client = rig.client();
    for n in 0..200 {
        let request = GET.replace("/a", &format!("/{n}"));
        assert_eq!(client.request(request).body, b"ok");
    }
    let of_two = servers[1].requests().len() as u64;
    assert_eq!(servers[0].requests().len() as u64 + of_two, 200);
    // Seven standard deviations around 100.
    assert!((50..=150).contains(&of_two), "{of_two}");
    rig.all_ended("rules", 200, Delivered);
    rig.all_ended("own", of_two, Delivered);
    let targets = |server: &Server| {
        let mut targets: Vec<_> = server
            .requests()
            .iter()
            .map(|request| request.head.split(' ').nth(1).expect("a target").to_owned())
            .collect();
        targets.sort();
        targets
    };
    assert_eq!(targets(&own), targets(&servers[1]));
}

#[test]
fn they_act_behind_the_rules_and_in_their_order() {
    let (primary, early, late) = (Server::ok(), Server::ok(), Server::ok());
    let mut refs = vec![backend_ref("primary", &[primary.address])];
    refs[0].filters = vec![
        mirror("early", early.address),
        rewrite(Some("two.example"), Some(PathModifier::full("/two"))),
        set("x-own"),
        mirror("late", late.address),
    ];
    let filters =
        vec![set("x-rule"), rewrite(Some("one.example"), Some(PathModifier::full("/one")))];
    let rig = Setup::rules(primary.address, vec![rule(filters, refs)]).start();
    let request = "POST /a?b HTTP/1.1\r\nHost: front\r\nContent-Length: 4\r\n\r\nbody";
    assert_eq!(rig.client().request(request).body, b"ok");
    rig.all_ended("early", 1, Delivered);
    rig.all_ended("late", 1, Delivered);
    let head = |target: &str, host: &str, own: &str| {
        format!(
            "POST {target}?b HTTP/1.1\r\nHost: {host}\r\nContent-Length: 4\r\nx-rule: 1\r\n\
             {own}\r\n"
        )
    };
    for (server, expected) in [
        (&early, head("/one", "one.example-shadow", "")),
        (&late, head("/two", "two.example-shadow", "x-own: 1\r\n")),
        (&primary, head("/two", "two.example", "x-own: 1\r\n")),
    ] {
        let request = &server.wait_requests(1)[0];
        assert_eq!((&request.head, &*request.body), (&expected, &b"body"[..]));
    }
}

#[test]
fn a_backend_may_redirect_its_share() {
    let (primary, shadow) = (Server::ok(), Server::ok());
    let mut refs = vec![
        backend_ref("primary", &[primary.address]),
        // Nothing is sent there, so that no endpoint is needed.
        backend_ref("moved", &[]),
    ];
    refs[1].filters = vec![mirror("shadow", shadow.address), redirect(elsewhere())];
    let rig = Setup::rules(primary.address, vec![rule(Vec::new(), refs)]).start();
    let mut client = rig.client();
    let mut redirected = 0;
    for _ in 0..200 {
        let response = client.request(GET);
        match response.status() {
            200 => {}
            302 => {
                assert_eq!(response.value("location"), Some("https://one.example/a"));
                redirected += 1;
            }
            other => panic!("{other}"),
        }
    }
    assert!((50..=150).contains(&redirected), "{redirected}");
    rig.all_ended("shadow", redirected, Delivered);
    assert_eq!(primary.requests().len() as u64 + redirected, 200);
    assert_eq!(rig.report().refused.iter().sum::<u64>(), 0);
}

#[test]
fn those_of_an_invalid_backend_do_not_act() {
    let shadow = Server::ok();
    let target = Err(mirror_user::route::InvalidBackend::NoService("default/gone".into()));
    let filters = vec![mirror("shadow", shadow.address), redirect(elsewhere())];
    let refs = vec![BackendRef { weight: 1, filters, target }];
    let rig = Setup::rules(shadow.address, vec![rule(Vec::new(), refs)]).start();
    assert_eq!(rig.client().request(GET).status(), 500);
    assert_eq!(rig.copies("shadow").selected, 0);
}

#[test]
fn streams_of_http2_have_them_too() {
    run(async {
        let (primary, shadow) = (Upstream::echo().await, Upstream::echo().await);
        let mut refs = vec![backend_ref("primary", &[primary.address])];
        refs[0].filters = vec![
            mirror("shadow", shadow.address),
            rewrite(None, Some(PathModifier::prefix("/a", ""))),
        ];
        let rig = Setup::rules(primary.address, vec![rule(vec![set("x-rule")], refs)]).start();
        let mut client = Client::connect(rig.address()).await;
        assert_eq!(client.get("/a/b").await.unwrap().status(), 200);
        until("the copy arrives", || shadow.got().len() == 1).await;
        let uris = [&primary, &shadow].map(|upstream| upstream.got()[0].uri.clone());
        assert_eq!(uris, ["http://front:8000/b", "http://front-shadow:8000/a/b"]);
        assert!(shadow.got()[0].headers.contains_key("x-rule"));
    });
}

//! Each obstacle by its name, and what each mode makes of it.

use std::{sync::Arc, time::Duration};

use super::*;
use crate::{
    model::ObjectName,
    route::{
        BackendRef, Backends, Fraction, HeaderModifier, HttpScheme, Mirror, PathMatch, Redirect,
        Retry, RuleEntry,
    },
};

const ADDRESS: &str = "10.96.0.1:80";

fn service(name: &str) -> Arc<ServicePort> {
    Arc::new(ServicePort { namespace: "d".into(), name: name.into(), port: 80 })
}

fn backend(name: &str, protocol: AppProtocol) -> Arc<Backend> {
    let ip = if name == "a" { ADDRESS } else { "10.96.0.2:80" };
    Arc::new(Backend {
        service: service(name),
        protocol,
        addresses: vec![ip.parse().unwrap()],
        endpoints: Vec::new(),
        unready: Vec::new(),
        affinity: false,
    })
}

fn to(name: &str) -> BackendRef {
    let target = Ok(backend(name, AppProtocol::Unspecified));
    BackendRef { weight: 1, filters: Vec::new(), target }
}

fn mirror() -> Filter {
    let target = Ok(backend("shadow", AppProtocol::Unspecified));
    Filter::Mirror(Mirror { target, share: Fraction::ALL })
}

/// A rule that only mirrors.
fn rule(kind: RouteKind) -> Rule {
    Rule {
        route: kind.named(ObjectName { namespace: "d".into(), name: "r".into() }).into(),
        index: 0,
        name: None,
        filters: vec![mirror()],
        backends: Backends::new(vec![to("a")]),
        timeouts: Timeouts::default(),
        retry: None,
    }
}

fn table(rules: impl IntoIterator<Item = (Rule, Vec<Matcher>)>) -> RouteTable {
    RouteTable::new(rules.into_iter().enumerate().map(|(index, (rule, matches))| RuleEntry {
        rule: Arc::new(Rule { index, ..rule }),
        matches,
        created: None,
    }))
}

fn subject<'r>(service: &'r ServicePort, producer: Option<&'r RouteTable>) -> TapSubject<'r> {
    TapSubject { service, address: ADDRESS.parse().unwrap(), producer, ahead: false }
}

fn obstacle(producer: &RouteTable, choice: EndpointChoice) -> Option<TapObstacle> {
    subject(&service("a"), Some(producer)).obstacle([], choice)
}

fn kind(rule: Rule) -> Option<ObstacleKind> {
    obstacle(&table([(rule, vec![])]), EndpointChoice::Service).map(|obstacle| obstacle.kind)
}

#[test]
fn a_rule_that_only_mirrors_can_be_tapped() {
    let http = || rule(RouteKind::Http);
    assert_eq!(kind(http()), None);
    let weighted = BackendRef { weight: 0, ..to("b") };
    let unused = Backends::new(vec![to("a"), weighted]);
    assert_eq!(kind(Rule { backends: unused, ..http() }), None);
    let with_mirror = BackendRef { filters: vec![mirror()], ..to("a") };
    assert_eq!(kind(Rule { backends: Backends::new(vec![with_mirror]), ..http() }), None);
    let without = Rule { filters: vec![], ..http() };
    let api = Matcher { path: PathMatch::Prefix("/api".into()), ..Matcher::default() };
    let two = table([(http(), vec![api]), (without, vec![])]);
    assert_eq!(obstacle(&two, EndpointChoice::Service), None);
}

#[test]
fn each_obstacle_has_its_name() {
    let http = || rule(RouteKind::Http);
    let second = Duration::from_secs(1);
    let headers = || Filter::RequestHeaders(HeaderModifier::default());
    let of = |backends| Rule { backends: Backends::new(backends), ..http() };
    let filtered = BackendRef { filters: vec![headers()], ..to("a") };
    let h2c = BackendRef { target: Ok(backend("a", AppProtocol::H2c)), ..to("a") };
    let redirect = Redirect {
        scheme: Some(HttpScheme::Https),
        hostname: None,
        port: None,
        path: None,
        status: http::StatusCode::FOUND,
    };
    let redirect = Filter::Redirect(Arc::new(redirect));
    let timeouts = Timeouts { request: Some(second), backend: None };
    let retry = Retry { codes: Arc::default(), attempts: 1, backoff: second };
    let cases = [
        (Rule { filters: vec![mirror(), headers()], ..http() }, ObstacleKind::Filter),
        (Rule { filters: vec![redirect], ..of(vec![]) }, ObstacleKind::Filter),
        (of(vec![filtered]), ObstacleKind::Filter),
        (Rule { timeouts, ..http() }, ObstacleKind::Timeouts),
        (Rule { retry: Some(retry), ..http() }, ObstacleKind::Retry),
        (of(vec![]), ObstacleKind::Backend),
        (of(vec![to("b")]), ObstacleKind::Backend),
        (of(vec![to("a"), to("b")]), ObstacleKind::Backend),
        (of(vec![BackendRef { weight: 0, ..to("a") }]), ObstacleKind::Backend),
        (of(vec![h2c]), ObstacleKind::Http2),
        (rule(RouteKind::Grpc), ObstacleKind::Http2),
    ];
    for (rule, expected) in cases {
        assert_eq!(kind(rule), Some(expected));
    }
    let mirrors = table([(http(), vec![])]);
    let chosen = obstacle(&mirrors, EndpointChoice::Mirror).unwrap();
    assert_eq!(chosen.kind, ObstacleKind::Endpoints);
    assert_eq!(chosen.to_string(), "rule 0 of d/r: mirror chooses the endpoints (--endpoints)");
    let api = Matcher { path: PathMatch::Prefix("/api".into()), ..Matcher::default() };
    let some = table([(http(), vec![api])]);
    let some = obstacle(&some, EndpointChoice::Service).unwrap();
    assert_eq!((some.kind, some.rule), (ObstacleKind::NoMatch, None));
}

#[test]
fn the_routes_of_all_clients_decide() {
    let service = service("a");
    let only = table([(rule(RouteKind::Http), vec![])]);
    let timeouts = Timeouts { request: Some(Duration::from_secs(1)), backend: None };
    let more = table([(Rule { timeouts, ..rule(RouteKind::Http) }, vec![])]);
    let kind = |producer, ahead, consumer: Option<&RouteTable>| {
        let subject = TapSubject { ahead, ..subject(&service, producer) };
        subject.obstacle(consumer, EndpointChoice::Service).map(|obstacle| obstacle.kind)
    };
    assert_eq!(kind(Some(&only), false, Some(&only)), None);
    assert_eq!(kind(Some(&only), false, Some(&more)), Some(ObstacleKind::Timeouts));
    assert_eq!(kind(None, false, Some(&only)), Some(ObstacleKind::SomeClients));
    assert_eq!(kind(None, true, None), Some(ObstacleKind::Ahead));
}

#[test]
fn a_mode_decides_what_becomes_of_a_frontend() {
    let why = || TapObstacle { kind: ObstacleKind::Retry, rule: None };
    for (mode, free, obstructed) in [
        (CaptureMode::Proxy, FrontendCapture::Proxied(None), FrontendCapture::Proxied(None)),
        (CaptureMode::Tap, FrontendCapture::Tapped, FrontendCapture::Direct(why())),
        (CaptureMode::Auto, FrontendCapture::Tapped, FrontendCapture::Proxied(Some(why()))),
    ] {
        assert_eq!(mode.capture(|| None), free, "{mode:?}");
        assert_eq!(mode.capture(|| Some(why())), obstructed, "{mode:?}");
    }
    assert_eq!(CaptureMode::default(), CaptureMode::Proxy);
}

//! HTTPRoutes and GRPCRoutes at the same Services.

use super::*;

fn grpc_route(namespace: &str, name: &str, parent: &str, rule: &str) -> String {
    route(namespace, name, parent, rule).replace("HTTPRoute", "GRPCRoute")
}

/// Name of the route, whether it is accepted, and the reason.
fn accepted(resolved: &Resolved) -> Vec<(String, bool, &'static str)> {
    let conditions = resolved.conditions.iter();
    let mut all: Vec<_> = conditions
        .map(|status| (status.route.to_string(), status.accepted.holds, status.accepted.reason))
        .collect();
    all.sort();
    all
}

#[test]
fn where_both_kinds_are_attached_grpc_routes_apply() {
    let rule = "{backendRefs: [{name: a, port: 80}]}";
    let shop = service("default", "a", "10.0.0.1");
    let http = route("default", "r", "name: a", rule);
    let grpc = grpc_route("default", "r", "name: a, port: 80", rule);
    let both = resolved(&[&shop, &http, &grpc]);
    assert_eq!(
        accepted(&both),
        [
            ("default/r".into(), false, "Conflicted"),
            ("grpcroute/default/r".into(), true, "Accepted")
        ]
    );
    let names = |resolved: &Resolved| {
        let entries = producer(resolved).entries();
        entries.map(|(_, rule)| rule.route.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(names(&both), ["grpcroute/default/r"]);
    // Once it is gone the others apply.
    let alone = resolved(&[&shop, &http]);
    assert_eq!((names(&alone), accepted(&alone)[0].1), (vec!["default/r".to_owned()], true));
}

#[test]
fn a_route_that_is_displaced_at_one_of_its_ports_applies_at_the_others() {
    let rule = "{backendRefs: [{name: a, port: 80}]}";
    let two = service("default", "a", "10.0.0.1").replacen(
        "{name: http, port: 80}",
        "{name: http, port: 80}, {name: grpc, port: 81}",
        1,
    );
    let resolved = resolved(&[
        &two,
        &route("default", "h", "name: a", rule),
        &grpc_route("default", "g", "name: a, sectionName: grpc", rule),
    ]);
    assert!(accepted(&resolved).iter().all(|(_, holds, _)| *holds), "{:?}", resolved.conditions);
    let http = resolved.conditions.iter().find(|status| status.route.kind == RouteKind::Http);
    let message = &http.unwrap().accepted.message;
    assert!(message.contains("not at port 81 of Service default/a"), "{message}");
    let at = |port: u16| {
        let frontend = resolved.frontends.iter().find(|f| f.service.port == port).unwrap();
        let table = frontend.producer.as_ref().unwrap();
        table.entries().map(|(_, rule)| rule.route.to_string()).collect::<Vec<_>>()
    };
    assert_eq!((at(80), at(81)), (vec!["default/h".into()], vec!["grpcroute/default/g".into()]));
}

#[test]
fn a_consumers_grpc_route_displaces_nobody_elses_routes() {
    let rule = "{backendRefs: [{name: a, namespace: shop, port: 80}]}";
    let resolved = resolved(&[
        &service("shop", "a", "10.0.0.1"),
        &route("shop", "p", "name: a", rule),
        &route("client", "h", "name: a, namespace: shop", rule),
        &grpc_route("client", "g", "name: a, namespace: shop", rule),
    ]);
    assert_eq!(
        accepted(&resolved),
        [
            ("client/h".into(), false, "Conflicted"),
            ("grpcroute/client/g".into(), true, "Accepted"),
            ("shop/p".into(), true, "Accepted"),
        ]
    );
}

#[test]
fn a_grant_holds_for_the_kind_of_route_that_it_names() {
    let mirror = "{filters: [{type: RequestMirror, requestMirror: {backendRef: {name: b, namespace: other, \
                  port: 80}}}], backendRefs: [{name: a, port: 80}]}";
    let grant = "{apiVersion: gateway.networking.k8s.io/v1beta1, kind: ReferenceGrant, metadata: {name: g, \
                 namespace: other}, spec: {from: [{group: gateway.networking.k8s.io, kind: GRPCRoute, \
                 namespace: default}], to: [{group: '', kind: Service}]}}\n---\n";
    for (text, holds) in [
        (grpc_route("default", "r", "name: a", mirror), true),
        (route("default", "r", "name: a", mirror), false),
    ] {
        let services = [service("default", "a", "10.0.0.1"), service("other", "b", "10.0.0.2")];
        let resolved = resolved(&[&services[0], &services[1], grant, &text]);
        assert_eq!(resolved.conditions[0].resolved_refs.holds, holds, "{:?}", resolved.conditions);
    }
}

#[test]
fn a_grpc_route_finds_the_rule_of_a_call() {
    let rules = "{matches: [{method: {service: a.B}}], backendRefs: [{name: a, port: 80}]}, \
                 {matches: [{method: {service: a.B, method: C}}], backendRefs: [{name: a, port: 80}]}";
    let resolved = resolved(&[
        &service("default", "a", "10.0.0.1"),
        &grpc_route("default", "r", "name: a", rules),
    ]);
    let rule = |path| found(producer(&resolved), path).map(|rule| rule.index);
    assert_eq!((rule("/a.B/C"), rule("/a.B/D"), rule("/a.X/C")), (Some(1), Some(0), None));
}

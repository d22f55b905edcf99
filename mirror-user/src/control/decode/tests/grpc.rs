//! GRPCRoutes.

use super::*;
use crate::{
    model::RouteKind,
    route::{GrpcMethodMatch, Matcher, PathMatch, ValueMatch},
};

fn grpc_route(rules: &Value) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "GRPCRoute",
        "metadata": {"name": "r"},
        "spec": {"parentRefs": [{"group": "", "kind": "Service", "name": "s"}], "rules": rules},
    })
}

fn decoded(rules: &Value) -> Route {
    match decode(grpc_route(rules)) {
        Ok(Object::Route(route)) => route,
        other => panic!("{rules}: {other:?}"),
    }
}

fn exact(text: &str) -> Option<ValueMatch> {
    Some(ValueMatch::Exact(text.into()))
}

#[test]
fn matches_of_a_grpc_route() {
    let route = decoded(&json!([{"matches": [
        {"method": {"service": "a.B", "method": "C"}, "headers": [{"name": "X-A", "value": "1"},
            {"name": "x-a", "value": "2"}]},
        {"method": {"type": "Exact", "service": "a.B"}},
        {"method": {"type": "Exact", "method": "C"}},
        {"method": {"type": "RegularExpression", "service": "a\\..*", "method": "[A-C]"}},
        {"method": {"type": "RegularExpression", "service": "a.B", "method": ""}},
        {},
    ]}, {}]));
    assert_eq!(route.name.identity(), "GRPCRoute default/r");
    assert_eq!(route.name.to_string(), "grpcroute/default/r");
    let [of_all, without] = &route.rules[..] else { panic!("{route:?}") };
    let call = |service, method| PathMatch::Grpc(GrpcMethodMatch { service, method });
    let paths: Vec<_> = of_all.matches.iter().map(|matcher| &matcher.path).collect();
    assert_eq!(*paths[0], call(exact("a.B"), exact("C")));
    assert_eq!(*paths[1], call(exact("a.B"), None));
    assert_eq!(*paths[2], call(None, exact("C")));
    assert_eq!(paths[3].to_string(), "service ~ a\\..*, method ~ [A-C]");
    assert_eq!(paths[4].to_string(), "service ~ a.B", "an empty text is none");
    assert_eq!(*paths[5], PathMatch::default());
    assert_eq!(of_all.matches[0].headers.len(), 1, "the first of equal names counts");
    assert_eq!(without.matches, [Matcher::default()]);
}

#[test]
fn filters_and_weights_of_a_grpc_route() {
    let set = json!({"set": [{"name": "x-a", "value": "1"}]});
    let route = decoded(&json!([{
        "name": "n",
        "filters": [
            {"type": "RequestHeaderModifier", "requestHeaderModifier": set},
            {"type": "ResponseHeaderModifier", "responseHeaderModifier": set},
            {"type": "RequestMirror", "requestMirror":
                {"backendRef": {"name": "v2", "port": 80}, "percent": 10}},
        ],
        "backendRefs": [
            {"name": "v1", "port": 80, "weight": 3, "filters": [
                {"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "v3", "port": 80}}}]},
            {"name": "v4", "port": 80},
        ],
    }]));
    let [rule] = &route.rules[..] else { panic!("{route:?}") };
    assert!(matches!(
        rule.filters[..],
        [
            RouteFilter::RequestHeaders(_),
            RouteFilter::ResponseHeaders(_),
            RouteFilter::Mirror(_, Fraction { numerator: 10, denominator: 100 })
        ]
    ));
    let weights: Vec<_> = rule.backends.iter().map(|backend| backend.weight).collect();
    assert_eq!((weights, rule.backends[0].filters.len()), (vec![3, 1], 1));
    assert_eq!((rule.name.as_deref(), &rule.refusal), (Some("n"), &None));
}

#[test]
fn what_a_grpc_route_cannot_have_is_refused_by_name() {
    let mirror = json!({"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "a", "port": 80}}});
    for (rule, path, reason) in [
        (json!({"timeouts": {"request": "1s"}}), "timeouts", "unknown field"),
        (json!({"sessionPersistence": {}}), "sessionPersistence", "unknown field"),
        (json!({"retry": {"attempts": 2}}), "retry", "unknown field"),
        (json!({"matches": [{"path": {"value": "/"}}]}), "matches[0].path", "unknown field"),
        (
            json!({"matches": [{"method": {}}]}),
            "matches[0].method",
            "neither a service nor a method",
        ),
        (
            json!({"matches": [{"method": {"service": "a/B"}}]}),
            "matches[0].method.service",
            "a slash",
        ),
        (
            json!({"matches": [{"method": {"type": "RegularExpression", "method": "("}}]}),
            "matches[0].method.method",
            "is not a regular expression",
        ),
        (json!({"filters": [{"type": "URLRewrite"}]}), "filters[0].type", "URLRewrite"),
        (
            json!({"filters": [{"type": "ExtensionRef", "extensionRef":
                {"group": "g", "kind": "k", "name": "n"}}]}),
            "filters[0].type",
            "ExtensionRef is not supported",
        ),
        (json!({"filters": [mirror]}), "backendRefs", "must name the Service that responds"),
        (json!({"backendRefs": [{"name": "a"}]}), "backendRefs[0].port", "is missing"),
    ] {
        let error = decode(grpc_route(&json!([rule]))).unwrap_err();
        assert_eq!(error.path, format!("spec.rules[0].{path}"), "{error}");
        assert!(error.to_string().contains(reason), "{error}");
        assert!(error.to_string().starts_with("GRPCRoute default/r: "), "{error}");
        // Beside another it is refused alone, with what can be read of its matches.
        let beside = grpc_route(&json!([{}, rule]));
        let read = decode_within(beside, &Defaults::default(), &mut Allowance::default());
        let Ok(Object::Route(route)) = read else { panic!("{rule}: {read:?}") };
        let [(1, refusal)] = route.refused_rules().collect::<Vec<_>>()[..] else {
            panic!("{rule}")
        };
        assert_eq!(refusal.path, format!("spec.rules[1].{path}"));
    }
    let mut old = grpc_route(&json!([{}]));
    old["apiVersion"] = json!("gateway.networking.k8s.io/v1alpha2");
    assert_eq!(decode(old).unwrap_err().fault.label(), "version");
}

#[test]
fn what_the_api_server_refuses_of_a_grpc_route_is_refused_of_a_file() {
    let long = "a".repeat(1025);
    let rule = || json!({"matches": vec![json!({}); 64]});
    for (rules, path) in [
        (
            json!([{"matches": [{"method": {"service": "a-b"}}]}]),
            "spec.rules[0].matches[0].method.service",
        ),
        (
            json!([{"matches": [{"method": {"service": "a..b"}}]}]),
            "spec.rules[0].matches[0].method.service",
        ),
        (
            json!([{"matches": [{"method": {"method": "1a"}}]}]),
            "spec.rules[0].matches[0].method.method",
        ),
        (
            json!([{"matches": [{"method": {"method": long}}]}]),
            "spec.rules[0].matches[0].method.method",
        ),
        (json!([rule(), rule(), {"matches": [{}]}]), "spec.rules"),
        (json!(vec![json!({}); 17]), "spec.rules"),
        (json!([{"name": "a"}, {"name": "a"}]), "spec.rules[1].name"),
    ] {
        let error = decode(grpc_route(&rules)).unwrap_err();
        assert_eq!(error.path, path, "{error}");
    }
    // What it does not refuse: no rule at all, a name with a dot before it, an expression of any text.
    for rules in [
        json!([]),
        json!([{"matches": [{"method": {"service": ".a.B_1", "method": "_c"}}]}]),
        json!([{"matches": [{"method": {"type": "RegularExpression", "service": "a-b|c"}}]}]),
        json!([rule(), rule(), {}]),
    ] {
        decoded(&rules);
    }
}

#[test]
fn a_grpc_route_at_gateways_is_left_to_others() {
    let mut route = grpc_route(&json!([{"futureField": 1}]));
    route["spec"]["parentRefs"] = json!([{"name": "gateway"}]);
    let Ok(Object::GatewayRoute { name, .. }) = decode(route) else { panic!("it is not read") };
    assert_eq!(name.kind, RouteKind::Grpc);
}

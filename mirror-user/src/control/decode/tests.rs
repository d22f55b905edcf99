//! What decodes, and what is refused by the name of its field.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{
    control::objects::{Route, RouteFilter, ServiceAddress, TargetRef},
    model::Consent,
    route::{Fraction, PathMatch},
};

mod filters;
mod grpc;

fn route_with(rule: &Value) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "r"},
        "spec": {"parentRefs": [{"group": "", "kind": "Service", "name": "s"}], "rules": [rule]},
    })
}

fn route(rule: &Value) -> Result<Route, DecodeError> {
    match decode(route_with(rule))? {
        Object::Route(route) => Ok(route),
        other => panic!("not a route: {other:?}"),
    }
}

fn share(mirror: &Value) -> Result<Fraction, DecodeError> {
    let mut mirror = mirror.clone();
    mirror["backendRef"] = json!({"name": "v2", "port": 80});
    let route = route(&json!({
        "filters": [{"type": "RequestMirror", "requestMirror": mirror}],
        "backendRefs": [{"name": "v1", "port": 80}],
    }))?;
    match &route.rules[0].filters[0] {
        RouteFilter::Mirror(_, share) => Ok(*share),
        other => panic!("not a mirror: {other:?}"),
    }
}

/// Rule, the path that the error must name, and a part of the message.
type Refused = (Value, &'static str, &'static str);

fn of(field: &str) -> &'static str {
    format!("spec.rules[0].filters[0].{field}").leak()
}

fn refused() -> Vec<Refused> {
    [
        refused_fields(),
        refused_filters(),
        refused_modifiers(),
        filters::refused(),
        refused_backends(),
        refused_matches(),
    ]
    .concat()
}

fn refused_fields() -> Vec<Refused> {
    vec![
        (
            json!({"retry": {"codes": [399]}}),
            "spec.rules[0].retry.codes[0]",
            "not within 400 to 599",
        ),
        (
            json!({"retry": {"codes": [500, 600]}}),
            "spec.rules[0].retry.codes[1]",
            "not within 400 to 599",
        ),
        (json!({"retry": {"attempts": -1}}), "spec.rules[0].retry.attempts", "from 0"),
        (json!({"retry": {"backoff": "1.5s"}}), "spec.rules[0].retry.backoff", "not a duration"),
        (json!({"retry": {"attempts": "2"}}), "spec.rules[0].retry.attempts", "expected i64"),
        (json!({"retry": {"budget": {}}}), "spec.rules[0].retry.budget", "unknown field"),
        (json!({"retry": 2}), "spec.rules[0].retry", "expected struct"),
        (json!({"sessionPersistence": {}}), "spec.rules[0].sessionPersistence", "unknown field"),
        (
            json!({"timeouts": {"request": "1.5s"}}),
            "spec.rules[0].timeouts.request",
            "\"1.5s\" is not a duration",
        ),
        (
            json!({"timeouts": {"request": "1s", "backendRequest": "2s"}}),
            "spec.rules[0].timeouts.backendRequest",
            "longer than the request timeout",
        ),
        (json!({"backendRef": []}), "spec.rules[0].backendRef", "unknown field"),
    ]
}

fn refused_filters() -> Vec<Refused> {
    let filter = |filter: Value| json!({ "filters": [filter] });
    vec![
        (filter(json!({"type": "RequestRedirect"})), of("requestRedirect"), "is missing"),
        (filter(json!({"type": "URLRewrite"})), of("urlRewrite"), "is missing"),
        (filter(json!({"type": "CORS"})), of("cors"), "is missing"),
        (
            filter(
                json!({"type": "ExtensionRef", "extensionRef": {"group": "g", "kind": "k", "name": "n"}}),
            ),
            of("type"),
            "ExtensionRef is not supported",
        ),
        (
            json!({"filters": [
                {"type": "RequestRedirect", "requestRedirect": {"port": 80}},
                {"type": "URLRewrite", "urlRewrite": {"hostname": "a"}}]}),
            "spec.rules[0].filters",
            "exclude each other",
        ),
        (filter(json!({"type": "ExternalAuth"})), of("type"), "ExternalAuth"),
        (filter(json!({"type": "RequestMirror"})), of("requestMirror"), "is missing"),
        (
            filter(json!({"type": "RequestMirror", "requestMirror": {}})),
            of("requestMirror"),
            "missing field `backendRef`",
        ),
        (
            filter(json!({"type": "RequestMirror",
                          "requestMirror": {"backendRef": {"name": "a", "port": 80}}})),
            "spec.rules[0].backendRefs",
            "must name the Service that responds",
        ),
        (
            filter(
                json!({"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "a"}}}),
            ),
            of("requestMirror.backendRef.port"),
            "is missing",
        ),
        (
            filter(
                json!({"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "a", "port": 80}, "percentage": 5}}),
            ),
            of("requestMirror.percentage"),
            "unknown field",
        ),
    ]
}

fn refused_modifiers() -> Vec<Refused> {
    let filter = |filter: Value| json!({ "filters": [filter] });
    vec![
        (
            filter(
                json!({"type": "RequestHeaderModifier", "requestHeaderModifier": {}, "cors": {}}),
            ),
            of("cors"),
            "does not belong",
        ),
        (
            filter(
                json!({"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "a b", "value": "1"}]}}),
            ),
            of("requestHeaderModifier.set[0].name"),
            "not a header name",
        ),
        (
            filter(
                json!({"type": "RequestHeaderModifier", "requestHeaderModifier": {"remove": ["Content-Length"]}}),
            ),
            of("requestHeaderModifier.remove[0]"),
            "framing",
        ),
        (
            filter(
                json!({"type": "RequestHeaderModifier", "requestHeaderModifier": {"add": [{"name": "Host", "value": "a"}]}}),
            ),
            of("requestHeaderModifier.add[0]"),
            "exactly one Host",
        ),
    ]
}

fn refused_backends() -> Vec<Refused> {
    let backend = |backend: Value| json!({ "backendRefs": [backend] });
    vec![
        (
            backend(json!({"name": "a", "port": 80, "filters": [
                {"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "b"}}}]})),
            "spec.rules[0].backendRefs[0].filters[0].requestMirror.backendRef.port",
            "is missing",
        ),
        (backend(json!({"name": "a"})), "spec.rules[0].backendRefs[0].port", "is missing"),
        (
            backend(json!({"name": "a", "port": 0})),
            "spec.rules[0].backendRefs[0].port",
            "not a port",
        ),
        (
            backend(json!({"name": "a", "port": 80, "weight": -1})),
            "spec.rules[0].backendRefs[0].weight",
            "not within",
        ),
        (
            backend(json!({"name": "a", "port": "http"})),
            "spec.rules[0].backendRefs[0].port",
            "invalid type",
        ),
    ]
}

fn refused_matches() -> Vec<Refused> {
    vec![
        (
            json!({"matches": [{"path": {"type": "RegularExpression", "value": "("}}]}),
            "spec.rules[0].matches[0].path.value",
            "not a regular expression",
        ),
        (
            json!({"matches": [{"path": {"value": "foo"}}]}),
            "spec.rules[0].matches[0].path.value",
            "slash",
        ),
        (
            json!({"matches": [{"method": "get"}]}),
            "spec.rules[0].matches[0].method",
            "unknown variant `get`",
        ),
    ]
}

#[test]
fn what_cannot_be_honoured_is_refused_by_name() {
    for (rule, path, message) in refused() {
        let error = route(&rule).expect_err(&rule.to_string());
        assert_eq!(error.path, path, "{error}");
        assert!(error.to_string().contains(message), "{error}");
        assert!(error.to_string().starts_with("HTTPRoute default/r: "), "{error}");
    }
}

/// As a hostile author writes them: small documents that compile to much, or that match for long.
#[test]
fn expressions_beyond_their_bounds_are_refused_by_name() {
    let headers = |count: usize, of: &dyn Fn(usize) -> String| {
        let header = |n: usize| json!({"type": "RegularExpression", "name": format!("x-{n}"), "value": of(n)});
        json!({ "headers": (0..count).map(header).collect::<Vec<_>>() })
    };
    let path = |value: String| json!({"path": {"type": "RegularExpression", "value": value}});
    let many = |one: Value| json!({"matches": vec![one; 64]});
    let long = format!("[ab]*a[ab]{{5000}}c{}", "x".repeat(500));
    for (rule, path, message) in [
        (
            many(headers(16, &|_| r"\w{18}".into())),
            "spec.rules[0].matches[8].headers[0].value",
            "32 MiB",
        ),
        (
            many(headers(1, &|_| r"[ab]*a[ab]{10}c".into())),
            "spec.rules[0].matches[15].headers[0].value",
            "more than 1 MiB",
        ),
        (
            json!({"matches": [path("/a".into()), path("[ab]*a[ab]{5000}c".into())]}),
            "spec.rules[0].matches[1].path.value",
            "256 KiB are the limit",
        ),
        (
            json!({"matches": [{"queryParams": [
                {"type": "RegularExpression", "name": "q", "value": long}]}]}),
            "spec.rules[0].matches[0].queryParams[0].value",
            "(and so on) is too large",
        ),
        (
            json!({"matches": [path(format!("(?i){}", r"\p{L}".repeat(100)))]}),
            "spec.rules[0].matches[0].path.value",
            "too many non-ASCII classes",
        ),
    ] {
        let error = route(&rule).expect_err(message);
        assert_eq!(error.path, path, "{error}");
        assert!(error.to_string().contains(message), "{error}");
    }
    // A document of 71 KB that took a gigabyte. What does fit of it takes some megabytes.
    let fits = json!({"matches": vec![headers(16, &|n| format!(r"\w{{{n},18}}")); 8]});
    assert_eq!(route(&fits).unwrap().rules[0].matches.len(), 8);
}

#[test]
fn unknown_fields_are_all_named() {
    let mut document = route_with(&json!({"sessionPersistence": {}}));
    document["metadata"]["namspace"] = json!("x");
    document["data"] = json!({});
    let text = decode(document).unwrap_err().to_string();
    for field in ["data", "metadata.namspace", "spec.rules[0].sessionPersistence"] {
        assert!(text.contains(field), "{text}");
    }
}

/// A route with a valid rule and this one.
fn beside(refused: &Value) -> Value {
    let mut document = route_with(&json!({
        "matches": [{"path": {"value": "/good"}}],
        "backendRefs": [{"name": "v1", "port": 80}],
    }));
    document["spec"]["rules"].as_array_mut().unwrap().push(refused.clone());
    document
}

#[test]
fn what_the_api_server_refuses_is_refused_of_a_file() {
    let rule = |matching: Value| json!({"matches": [matching], "backendRefs": []});
    let path = |value: &str| rule(json!({"path": {"value": value}}));
    let header = |name: &str, value: &str| json!({"name": name, "value": value});
    let prefix = json!({"path": {"value": "/"}});
    let long = "a".repeat(4097);
    for (rule, field) in [
        (path("/a//b"), "matches[0].path.value"),
        (path("/a/../b"), "matches[0].path.value"),
        (path("/a/.."), "matches[0].path.value"),
        (path("/a%2fb"), "matches[0].path.value"),
        (path("/a b"), "matches[0].path.value"),
        (path("/a%zz"), "matches[0].path.value"),
        (path(&format!("/{}", &long[..1024])), "matches[0].path.value"),
        (rule(json!({"headers": [header("a", &long)]})), "matches[0].headers[0].value"),
        (rule(json!({"headers": [header("a", "")]})), "matches[0].headers[0].value"),
        (
            rule(json!({"headers": [header("a", "1"), header("a", "2")]})),
            "matches[0].headers[1].name",
        ),
        (rule(json!({"queryParams": [header("a b", "1")]})), "matches[0].queryParams[0].name"),
        (json!({"matches": vec![prefix.clone(); 65]}), "matches"),
        (json!({"backendRefs": vec![json!({"name": "a", "port": 80}); 17]}), "backendRefs"),
        (json!({"retry": {"codes": [500, 503, 500]}}), "retry.codes[2]"),
    ] {
        let error = route(&rule).unwrap_err();
        assert_eq!(error.path, format!("spec.rules[0].{field}"), "{error}");
        assert!(error.to_string().contains("API server refuses"), "{error}");
        // There it is the server's matter: it may have another CRD.
        let served =
            decode_within(route_with(&rule), &Defaults::default(), &mut Allowance::default());
        assert!(served.is_ok(), "{served:?}");
    }
    let many = |rules: Vec<Value>| {
        let mut document = route_with(&json!({}));
        document["spec"]["rules"] = json!(rules);
        decode(document).map_err(|error| error.to_string())
    };
    assert!(many(vec![json!({}); 16]).is_ok());
    for (rules, part) in [
        (vec![json!({}); 17], "spec.rules: has 17 entries, and may have 16"),
        (Vec::new(), "spec.rules: is empty"),
        (vec![json!({"matches": vec![prefix; 43]}); 3], "129 matches in all"),
        (vec![json!({"name": "x"}); 2], "spec.rules[1].name: \"x\" is the name of another rule"),
    ] {
        let error = many(rules).unwrap_err();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn a_field_that_a_newer_crd_adds_takes_no_route_out_of_force() {
    let schema = json!({"properties": {"spec": {"properties": {
        "scope": {"default": "Cluster"},
        "rules": {"items": {"properties": {"mode": {"default": "Fast"}}}},
    }}}});
    let defaults = Defaults::of_schema(&schema);
    let decoded =
        |document: &Value| decode_within(document.clone(), &defaults, &mut Allowance::default());
    let mut document = route_with(&json!({"mode": "Fast"}));
    document["spec"]["scope"] = json!("Cluster");
    assert!(matches!(decoded(&document), Ok(Object::Route(_))));
    let error = decode(document.clone()).unwrap_err().to_string();
    assert!(error.contains("unknown field"), "{error}");
    // An author who asked for something else means it.
    document["spec"]["rules"][0]["mode"] = json!("Slow");
    assert_eq!(decoded(&document).unwrap_err().path, "spec.rules[0].mode");
    document["spec"]["rules"].as_array_mut().unwrap().push(json!({"mode": "Fast"}));
    let Ok(Object::Route(route)) = decoded(&document) else { panic!("{document}") };
    let refused: Vec<_> = route.refused_rules().map(|(at, _)| at).collect();
    assert_eq!(refused, [0]);
}

#[test]
fn a_rule_that_cannot_be_served_is_refused_alone() {
    let paths = json!([{"path": {"type": "Exact", "value": "/a"}}, {"path": {"value": "/b"}}]);
    for (rule, path, matches, all) in [
        (json!({"matches": paths, "futureField": {}}), "futureField", 2, true),
        (
            json!({"matches": paths, "filters": [{"type": "ExternalAuth", "externalAuth": {}}]}),
            "filters[0].type",
            2,
            true,
        ),
        (
            json!({"matches": paths, "filters": [{"type": "ExtensionRef", "extensionRef":
                {"group": "a.example", "kind": "A", "name": "a"}}]}),
            "filters[0].type",
            2,
            true,
        ),
        (json!({"timeouts": {"request": "5"}}), "timeouts.request", 1, true),
        (json!({"matches": paths, "retry": {"codes": [200]}}), "retry.codes[0]", 2, true),
        (
            json!({"matches": [{"path": {"value": "/b"}}, {"method": "BREW"}]}),
            "matches[1].method",
            1,
            false,
        ),
        (json!({"matches": [{"path": {"value": "b"}}]}), "matches[0].path.value", 0, false),
        (json!({"matches": 7}), "matches", 0, false),
        (json!(7), "", 0, false),
    ] {
        let decoded = decode(beside(&rule)).unwrap();
        let Object::Route(route) = decoded else { panic!("{rule}") };
        let [good, refused] = &route.rules[..] else { panic!("{rule}") };
        assert!(good.refusal.is_none() && good.backends.len() == 1, "{rule}");
        let refusal = refused.refusal.as_ref().unwrap();
        let path = ["spec.rules[1]", path].join(if path.is_empty() { "" } else { "." });
        assert_eq!(refusal.path, path, "{rule}");
        assert_eq!((refused.matches.len(), refusal.all_matches), (matches, all), "{rule}");
        assert!(refused.filters.is_empty() && refused.backends.is_empty() && !refusal.kept);
    }
}

#[test]
fn a_route_is_refused_when_no_rule_is_left_or_more_than_its_rules_is_wrong() {
    let mut none_left = beside(&json!({"futureField": {}}));
    none_left["spec"]["rules"][0]["timeouts"] = json!({"request": "5"});
    let error = decode(none_left).unwrap_err().to_string();
    assert!(error.contains("spec.rules[0].timeouts.request"), "{error}");
    let mut outside = beside(&json!({"futureField": {}}));
    outside["spec"]["futureField"] = json!({});
    let error = decode(outside).unwrap_err().to_string();
    assert!(error.contains("spec.futureField"), "{error}");
}

#[test]
fn a_refused_rule_does_what_it_did_last_with_the_same_matches() {
    let route = |rule: Value| match decode(beside(&rule)).unwrap() {
        Object::Route(route) => route,
        other => panic!("{other:?}"),
    };
    let backend = json!([{"name": "v2", "port": 80}]);
    let matches = json!([{"path": {"value": "/x"}}, {"headers": [{"name": "a", "value": "b"}]}]);
    let valid = route(json!({"matches": matches, "backendRefs": backend}));
    let mut edited = route(json!({"name": "x", "matches": matches, "futureField": {}}));
    edited.keep_rules_of(&valid);
    assert_eq!(edited.rules[1].backends, valid.rules[1].backends);
    assert!(edited.partial_faults().unwrap().contains("last valid state stays in force"));
    // What is kept is kept on, whatever else is wrong later.
    let mut again = route(json!({"matches": matches, "anotherField": {}}));
    again.keep_rules_of(&edited);
    assert_eq!(again.rules[1].backends, valid.rules[1].backends);
    let mut elsewhere = route(json!({"matches": [{"path": {"value": "/y"}}], "futureField": {}}));
    elsewhere.keep_rules_of(&again);
    assert!(elsewhere.rules[1].backends.is_empty(), "it never was valid");
    assert!(elsewhere.partial_faults().unwrap().contains("get 500"));
    // With a match that cannot be read it is not known whether they are the same.
    let mut unread = route(json!({"matches": [{"path": {"value": "/x"}}, {"method": "BREW"}]}));
    let first = route(json!({"matches": [{"path": {"value": "/x"}}], "backendRefs": backend}));
    unread.keep_rules_of(&first);
    assert!(unread.rules[1].backends.is_empty());
}

#[test]
fn documents_that_are_no_objects_or_of_another_version() {
    for (document, message) in [
        (json!(null), "apiVersion"),
        (json!([1]), "apiVersion"),
        (json!({"apiVersion": "v1"}), "kind"),
        (json!({"apiVersion": "v1", "kind": "Service"}), "has no name that is a string"),
        (json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}}), "spec"),
        (
            json!({"apiVersion": "discovery.k8s.io/v1beta1", "kind": "EndpointSlice", "metadata": {"name": "a"}}),
            "discovery.k8s.io/v1beta1 is not supported, only discovery.k8s.io/v1",
        ),
    ] {
        let error = decode(document).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn other_kinds_and_gateway_routes_are_distinguished() {
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {"x": 1}});
    assert_eq!(decode(deployment).unwrap().identity(), "apps/v1 Deployment default/d");
    let knative = json!({"apiVersion": "serving.knative.dev/v1", "kind": "Service", "metadata": {"name": "s"}});
    assert!(matches!(decode(knative).unwrap(), Object::Unread { .. }));
    let mut route = route_with(&json!({"filters": [{"type": "URLRewrite"}]}));
    route["spec"]["parentRefs"] = json!([{"name": "gateway"}]);
    let gateway = decode(route.clone()).unwrap();
    assert!(matches!(gateway, Object::GatewayRoute { misgrouped, .. } if misgrouped.is_empty()));
    // Without a group, or with another one, kind Service means no Service.
    route["spec"]["parentRefs"] = json!([{"name": "gateway"}, {"kind": "Service", "name": "a"},
        {"group": "x", "kind": "Service", "name": "a"}]);
    let Object::GatewayRoute { misgrouped, .. } = decode(route.clone()).unwrap() else {
        panic!("it names no Service")
    };
    assert_eq!(
        misgrouped,
        [
            "spec.parentRefs[1] does not name a Service, because its group is missing, which means \
             \"gateway.networking.k8s.io\": write group: \"\" for kind: Service",
            "spec.parentRefs[2] does not name a Service, because its group is \"x\": write group: \
             \"\" for kind: Service",
        ]
    );
    route["spec"]["rules"] = json!([{}]);
    route["spec"]["parentRefs"][0] = json!({"group": "", "kind": "Service", "name": "a"});
    let Object::Route(mixed) = decode(route).unwrap() else { panic!("it names a Service") };
    assert_eq!((mixed.parents.len(), mixed.misgrouped.len()), (1, 2));
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}});
    assert!(matches!(decode(namespace).unwrap(), Object::Namespace(row) if row.name.name == "n"));
}

#[test]
fn gateway_versions() {
    for (version, read) in [("v1", true), ("v1beta1", true), ("v1alpha2", false)] {
        let mut document = route_with(&json!({}));
        document["apiVersion"] = json!(format!("gateway.networking.k8s.io/{version}"));
        assert_eq!(decode(document).is_ok(), read, "{version}");
    }
}

#[test]
fn shares() {
    let ratio = |numerator, denominator| Ok(Fraction { numerator, denominator });
    assert_eq!(share(&json!({})), Ok(Fraction::ALL));
    assert_eq!(share(&json!({"percent": 0})), ratio(0, 100));
    assert_eq!(share(&json!({"percent": 100})), ratio(100, 100));
    assert_eq!(share(&json!({"fraction": {"numerator": 5}})), ratio(5, 100));
    assert_eq!(share(&json!({"fraction": {"numerator": 5, "denominator": 1000}})), ratio(5, 1000));
    for (mirror, field) in [
        (json!({"percent": 101}), "percent"),
        (json!({"percent": -1}), "percent"),
        (json!({"percent": 1, "fraction": {"numerator": 1}}), "percent"),
        (json!({"fraction": {"numerator": 1, "denominator": 0}}), "fraction.denominator"),
        (json!({"fraction": {"numerator": 101}}), "fraction.numerator"),
        (json!({"fraction": {"numerator": -1}}), "fraction.numerator"),
    ] {
        let error = share(&mirror).expect_err(&mirror.to_string());
        assert!(error.path.ends_with(field), "{error}");
    }
}

#[test]
fn what_a_cluster_prints_is_read() {
    let text = include_str!("../../../tests/fixtures/from-cluster.yaml");
    let members = expand(serde_saphyr::from_str(text).unwrap());
    let objects: Vec<_> = members.into_iter().map(|member| decode(member).unwrap()).collect();
    let [Object::Route(route), Object::Service(service), Object::Slice(slice)] = &objects[..]
    else {
        panic!("{objects:?}")
    };
    assert_eq!(route.created, Some(1_730_192_356));
    assert_eq!(route.hostnames, ["shop.example"]);
    assert_eq!(route.parents[0].port, Some(8000));
    let rule = &route.rules[0];
    assert!(matches!(&rule.matches[0].path, PathMatch::Prefix(prefix) if prefix == "/"));
    assert!(matches!(&rule.filters[0], RouteFilter::Mirror(
        TargetRef::Service(name, 80), Fraction { numerator: 5, denominator: 1000 },
    ) if name.to_string() == "shop/httpbin-v2"));
    assert_eq!(service.address, ServiceAddress::ClusterIps(vec![[10, 96, 0, 20].into()]));
    let [ready] = &slice.ready[..] else { panic!("{:?}", slice.ready) };
    let ip = std::net::IpAddr::from([10, 244, 3, 4]);
    assert_eq!((ready.ip, ready.pod.as_deref()), (ip, Some("httpbin-1")));
    assert_eq!(slice.ports, [("http".to_owned(), 80)]);
}

#[test]
fn both_families_of_a_service_and_of_slices_are_read() {
    let service = |spec: Value| {
        let document = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"},
            "spec": spec});
        match decode(document).unwrap() {
            Object::Service(service) => service.address,
            other => panic!("{other:?}"),
        }
    };
    let [v4, v6] = ["10.96.0.1", "fd00:96::1"].map(|text| text.parse().unwrap());
    let dual = json!({"clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1", "fd00:96::1"],
        "ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "PreferDualStack"});
    assert_eq!(service(dual), ServiceAddress::ClusterIps(vec![v4, v6]));
    let single = json!({"clusterIP": "fd00:96::1", "clusterIPs": ["fd00:96::1"]});
    assert_eq!(service(single), ServiceAddress::ClusterIps(vec![v6]));
    assert_eq!(service(json!({"clusterIPs": ["None"]})), ServiceAddress::Headless);
    assert_eq!(service(json!({"clusterIP": ""})), ServiceAddress::Missing);

    let slice = |kind: &str, address: &str| {
        decode(json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": "a"}, "addressType": kind, "ports": [],
            "endpoints": [{"addresses": [address]}]}))
    };
    let ready = |kind, address| match slice(kind, address).unwrap() {
        Object::Slice(slice) => slice.ready,
        other => panic!("{other:?}"),
    };
    let v6: std::net::IpAddr = "fd00:244::7".parse().unwrap();
    assert_eq!(ready("IPv6", "fd00:244::7")[..], [v6.into()]);
    assert!(ready("FQDN", "a.example").is_empty());
    for (kind, address) in [("IPv6", "10.0.0.1"), ("IPv4", "fd00::1"), ("IPv6", "a.example")] {
        let error = slice(kind, address).unwrap_err().to_string();
        assert!(error.contains("endpoints[0].addresses[0]") && error.contains(kind), "{error}");
    }
}

#[test]
fn members_of_a_typed_list_inherit_its_type() {
    let list = json!({"apiVersion": "v1", "kind": "ServiceList", "items": [
        {"metadata": {"name": "a"}, "spec": {"clusterIP": "None"}}]});
    let members = expand(list);
    assert!(matches!(decode(members[0].clone()).unwrap(),
        Object::Service(service) if service.address == ServiceAddress::Headless));
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "[a-zA-Z/.0-9]{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        let key = prop::sample::select(vec![
            "matches",
            "filters",
            "backendRefs",
            "type",
            "name",
            "port",
            "path",
            "value",
            "weight",
            "requestMirror",
            "backendRef",
            "percent",
            "set",
            "headers",
        ]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::vec((key, inner), 0..4)
                .prop_map(|pairs| pairs.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()),
        ]
    })
}

proptest! {
    /// Whatever a document holds, decoding returns, and an error names the object.
    #[test]
    fn bad_input_never_panics(rule in any_value()) {
        if let Err(error) = decode(route_with(&rule)) {
            prop_assert!(error.to_string().starts_with("HTTPRoute default/r: spec"), "{}", error);
        }
    }
}

#[test]
fn a_retry_has_the_defaults_of_the_api_and_none_at_zero() {
    use crate::route::Retry;
    let milliseconds = std::time::Duration::from_millis;
    for (document, codes, attempts, backoff) in [
        (json!({}), &[][..], 1, Retry::DEFAULT_BACKOFF),
        (json!({"codes": [503, 400, 599]}), &[503, 400, 599], 1, Retry::DEFAULT_BACKOFF),
        (json!({"attempts": 4, "backoff": "1s500ms"}), &[], 4, milliseconds(1500)),
        // More than mirror does is said of the rule, and bounded later.
        (json!({"attempts": 5000, "backoff": "0s"}), &[], 5000, milliseconds(0)),
    ] {
        let retry = route(&json!({ "retry": document })).unwrap().rules[0].retry.clone();
        assert_eq!(retry, Some(Retry { codes: codes.into(), attempts, backoff }), "{document}");
    }
    for none in
        [json!({"retry": {"codes": [500], "attempts": 0}}), json!({"retry": null}), json!({})]
    {
        assert_eq!(route(&none).unwrap().rules[0].retry, None, "{none}");
    }
    // Of each rule its own, also where another rule is refused.
    let rules = |second: Value| {
        let mut document = beside(&second);
        document["spec"]["rules"][0]["retry"] = json!({"attempts": 2});
        let Object::Route(route) = decode(document).unwrap() else { panic!("a route") };
        route.rules.into_iter().map(|rule| Some(rule.retry?.attempts)).collect::<Vec<_>>()
    };
    assert_eq!(rules(json!({"retry": {"attempts": 3}})), [Some(2), Some(3)]);
    assert_eq!(rules(json!({"future": 1, "retry": {"attempts": 3}})), [Some(2), None]);
}

#[test]
fn timeouts_are_durations_and_zero_is_none() {
    let seconds = |s| Some(std::time::Duration::from_secs(s));
    for (timeouts, request, backend) in [
        (json!({"request": "10s", "backendRequest": "2s"}), seconds(10), seconds(2)),
        (json!({"request": "0s", "backendRequest": "1m30s"}), None, seconds(90)),
        (json!({}), None, None),
    ] {
        let route = route(&json!({ "timeouts": timeouts })).unwrap();
        assert_eq!(route.rules[0].timeouts, crate::route::Timeouts { request, backend });
    }
}

#[test]
fn an_endpoint_is_the_pod_of_its_own_namespace_that_it_says_it_is() {
    let slice = |target: Value| {
        let object = decode(json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"namespace": "shop", "name": "a", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "addressType": "IPv4", "ports": [],
            "endpoints": [{"addresses": ["10.0.0.1"], "targetRef": target}]}));
        match object.unwrap() {
            Object::Slice(slice) => slice,
            other => panic!("{other:?}"),
        }
    };
    let pod = |target| slice(target).ready[0].pod.clone();
    let cart = Some("cart".into());
    assert_eq!(pod(json!({"kind": "Pod", "namespace": "shop", "name": "cart"})), cart);
    assert_eq!(pod(json!({"kind": "Pod", "name": "cart"})), cart);
    assert_eq!(pod(json!({"kind": "Pod", "namespace": "bank", "name": "cart"})), None);
    assert_eq!(pod(json!({"kind": "Node", "name": "cart"})), None);
    assert_eq!(pod(json!({"kind": "Pod", "namespace": "shop"})), None);
    assert_eq!(pod(json!(null)), None);
    assert_eq!(slice(json!(null)).created, Some(1_767_225_600));
}

#[test]
fn a_namespaces_labels_consent_by_their_exact_value() {
    let row = |labels: Value| {
        let document = json!({"apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": "shop", "labels": labels}});
        match decode(document).unwrap() {
            Object::Namespace(row) => row,
            other => panic!("{other:?}"),
        }
    };
    let (frontends, shadows) = ("mirror.dev/endpoint-frontends", "mirror.dev/external-shadows");
    let both = row(json!({frontends: "enabled", shadows: "disabled"}));
    assert_eq!(
        (both.endpoint_frontends, both.external_shadows),
        (Consent::Given, Consent::Withheld)
    );
    let odd = row(json!({shadows: "true"})).external_shadows;
    assert!(odd.fault(shadows).unwrap().contains("mirror.dev/external-shadows=true"));
    assert_eq!(row(json!({})).endpoint_frontends.fault(frontends), None);
}

#[test]
fn of_a_node_its_addresses_are_read_and_the_rest_is_passed_over() {
    let object = decode(json!({"apiVersion": "v1", "kind": "Node",
        "metadata": {"name": "node-1"}, "spec": {"fromTheFuture": 1},
        "status": {"images": [], "addresses": [{"type": "InternalIP", "address": "192.0.2.1"},
            {"type": "InternalIP", "address": "fd00::1"}, {"type": "Hostname", "address": "node-1"}]}}));
    let Object::Node(node) = object.unwrap() else { panic!() };
    let expected: Vec<std::net::IpAddr> =
        ["192.0.2.1", "fd00::1"].map(|ip| ip.parse().unwrap()).into();
    assert_eq!((node.name.to_string().as_str(), node.addresses), ("/node-1", expected));
}

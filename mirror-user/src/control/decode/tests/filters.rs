//! Filters that change or redirect requests: what decodes, and what is refused by name.

use std::sync::Arc;

use http::StatusCode;
use serde_json::{Value, json};

use super::{Refused, of, route};
use crate::{
    control::objects::RouteFilter,
    route::{AllowedNames, AllowedOrigins, Cors, HttpScheme, PathModifier, Redirect, Rewrite},
};

/// The rules that the API refuses of filters, and the path of each fault.
pub(super) fn refused() -> Vec<Refused> {
    [lists(), rules(), redirects(), rewrites(), cors()].concat()
}

fn filter(filter: &Value) -> Value {
    json!({ "filters": [filter] })
}

fn mirror() -> Value {
    json!({"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "s", "port": 80}}})
}

fn redirect(of: &Value) -> Value {
    json!({"type": "RequestRedirect", "requestRedirect": of})
}

fn rewrite(of: &Value) -> Value {
    json!({"type": "URLRewrite", "urlRewrite": of})
}

/// A path modifier that replaces the prefix.
fn prefix(replacement: &str) -> Value {
    json!({"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": replacement}})
}

fn backends(filters: &[Value]) -> Value {
    json!([{"name": "a", "port": 80}, {"name": "b", "port": 80, "filters": filters}])
}

fn lists() -> Vec<Refused> {
    let headers = json!({"type": "RequestHeaderModifier", "requestHeaderModifier": {}});
    let response = json!({"type": "ResponseHeaderModifier", "responseHeaderModifier": {}});
    let (cors, to) = (json!({"type": "CORS", "cors": {}}), redirect(&json!({"port": 80})));
    let written = rewrite(&json!({"hostname": "a"}));
    let twice =
        |one: &Value| json!({"filters": [one, mirror(), one], "backendRefs": backends(&[])});
    let again = "filters[0] has this type already";
    let path = "spec.rules[0].filters[2].type";
    vec![
        (twice(&headers), path, again),
        (twice(&response), path, again),
        (twice(&cors), path, again),
        (twice(&to), path, again),
        (twice(&written), path, again),
        (
            json!({"backendRefs": backends(&[headers.clone(), headers])}),
            "spec.rules[0].backendRefs[1].filters[1].type",
            again,
        ),
        (
            json!({"filters": vec![mirror(); 17], "backendRefs": backends(&[])}),
            "spec.rules[0].filters",
            "17 filters: the API allows 16",
        ),
        (
            json!({"backendRefs": backends(&vec![mirror(); 17])}),
            "spec.rules[0].backendRefs[1].filters",
            "17 filters: the API allows 16",
        ),
        (
            json!({"backendRefs": backends(&[to, written])}),
            "spec.rules[0].backendRefs[1].filters",
            "exclude each other",
        ),
    ]
}

fn rules() -> Vec<Refused> {
    let to = redirect(&json!({"hostname": "a"}));
    let host = rewrite(&json!({"hostname": "a"}));
    let full = rewrite(&json!({"path": {"type": "ReplaceFullPath", "replaceFullPath": "/"}}));
    vec![
        (
            json!({"filters": [to], "backendRefs": backends(&[])}),
            "spec.rules[0].backendRefs",
            "a rule with RequestRedirect has no backendRefs",
        ),
        (
            json!({"filters": [host], "backendRefs": backends(&[to])}),
            "spec.rules[0].backendRefs[1].filters",
            "not combined with the rule's URLRewrite",
        ),
        (
            json!({"filters": [full], "backendRefs": backends(&[rewrite(&prefix("/b"))])}),
            "spec.rules[0].backendRefs[1].filters",
            "has replaced the path before",
        ),
    ]
}

fn redirects() -> Vec<Refused> {
    let refused = |of: Value| filter(&redirect(&of));
    let of = |field: &str| of(&format!("requestRedirect.{field}"));
    let by_prefix =
        |matches: Value| json!({"matches": matches, "filters": [redirect(&prefix("/b"))]});
    let exactly_one = "exactly one match";
    let prefix_of = of("path.replacePrefixMatch");
    vec![
        (refused(json!({"scheme": "ftp"})), of("scheme"), "unknown variant `ftp`"),
        (refused(json!({"port": 0})), of("port"), "not a port"),
        (refused(json!({"port": 65536})), of("port"), "not a port"),
        (refused(json!({"statusCode": 304})), of("statusCode"), "304 is not one of 301"),
        (refused(json!({"hostname": "a:80"})), of("hostname"), "is not a hostname"),
        (refused(json!({"hostname": "*.a"})), of("hostname"), "is not a hostname"),
        (refused(json!({"hostname": "A"})), of("hostname"), "is not a hostname"),
        (refused(json!({"hostname": ""})), of("hostname"), "is not a hostname"),
        (refused(json!({"hostname": "a..b"})), of("hostname"), "is not a hostname"),
        (refused(json!({"hostname": "-a"})), of("hostname"), "is not a hostname"),
        (refused(json!({"path": {}})), of("path"), "missing field `type`"),
        (refused(json!({"path": {"type": "Other"}})), of("path.type"), "unknown variant"),
        (
            refused(json!({"path": {"type": "ReplaceFullPath"}})),
            of("path.replaceFullPath"),
            "is missing",
        ),
        (
            refused(json!({"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/",
                                     "replaceFullPath": "/"}})),
            of("path"),
            "its type allows replacePrefixMatch alone",
        ),
        (
            refused(json!({"path": {"type": "ReplaceFullPath", "replaceFullPath": "/a?b"}})),
            of("path.replaceFullPath"),
            "is not a path",
        ),
        (
            refused(json!({"path": {"type": "ReplaceFullPath", "replaceFullPath": "/%zz"}})),
            of("path.replaceFullPath"),
            "is not a path",
        ),
        (by_prefix(json!([{"path": {"type": "Exact", "value": "/a"}}])), prefix_of, exactly_one),
        (
            by_prefix(json!([{"path": {"type": "RegularExpression", "value": "/a"}}])),
            prefix_of,
            exactly_one,
        ),
        (
            by_prefix(json!([{"path": {"type": "PathPrefix", "value": "/a"}},
                             {"path": {"type": "PathPrefix", "value": "/b"}}])),
            prefix_of,
            exactly_one,
        ),
    ]
}

fn rewrites() -> Vec<Refused> {
    let of = |field: &str| of(&format!("urlRewrite.{field}"));
    let refused = |of: Value| json!({"filters": [rewrite(&of)], "backendRefs": backends(&[])});
    let exact = json!([{"path": {"type": "Exact", "value": "/a"}}]);
    vec![
        (refused(json!({"hostname": "a_b"})), of("hostname"), "is not a hostname"),
        (
            refused(json!({"path": {"type": "ReplaceFullPath", "replaceFullPath": "/ "}})),
            of("path.replaceFullPath"),
            "is not a path",
        ),
        (
            json!({"matches": exact, "filters": [rewrite(&prefix("/b"))]}),
            of("path.replacePrefixMatch"),
            "exactly one match",
        ),
        (
            json!({"matches": exact, "backendRefs": backends(&[rewrite(&prefix("/b"))])}),
            "spec.rules[0].backendRefs[1].filters[0].urlRewrite.path.replacePrefixMatch",
            "exactly one match",
        ),
    ]
}

fn cors() -> Vec<Refused> {
    let of = |field: &str| of(&format!("cors.{field}"));
    let refused = |of: Value| filter(&json!({"type": "CORS", "cors": of}));
    vec![
        (
            refused(json!({"allowOrigins": ["https://a", "foo.com"]})),
            of("allowOrigins[1]"),
            "\"foo.com\" is not an origin",
        ),
        (
            refused(json!({"allowOrigins": ["https://a.*.b"]})),
            of("allowOrigins[0]"),
            "is not an origin",
        ),
        (
            refused(json!({"allowOrigins": ["https://*a"]})),
            of("allowOrigins[0]"),
            "is not an origin",
        ),
        (
            refused(json!({"allowOrigins": ["*", "https://a"]})),
            of("allowOrigins"),
            "other entries beside *",
        ),
        (
            refused(json!({"allowMethods": ["GET", "get"]})),
            of("allowMethods[1]"),
            "\"get\" is not a method",
        ),
        (refused(json!({"allowMethods": ["*", "GET"]})), of("allowMethods"), "beside *"),
        (
            refused(json!({"allowHeaders": ["a b"]})),
            of("allowHeaders[0]"),
            "\"a b\" is not a header name",
        ),
        (refused(json!({"exposeHeaders": [""]})), of("exposeHeaders[0]"), "not a header name"),
        (refused(json!({"maxAge": 0})), of("maxAge"), "is less than 1 second"),
        (refused(json!({"allowOrigin": []})), of("allowOrigin"), "unknown field"),
    ]
}

fn decoded(rule: &Value) -> Vec<RouteFilter> {
    let route = route(rule).unwrap();
    route.rules[0].all_filters().cloned().collect()
}

#[test]
fn redirects_and_rewrites_decode_with_the_prefix_that_is_matched() {
    let matches = json!([{"path": {"type": "PathPrefix", "value": "/a/"}}]);
    let plain = Redirect {
        scheme: None,
        hostname: None,
        port: None,
        path: None,
        status: StatusCode::FOUND,
    };
    let whole = Redirect {
        scheme: Some(HttpScheme::Https),
        hostname: Some("one.example".into()),
        port: Some(8443),
        path: Some(PathModifier::prefix("/a", "/b")),
        status: StatusCode::PERMANENT_REDIRECT,
    };
    let of = json!({"scheme": "https", "hostname": "one.example", "port": 8443, "statusCode": 308,
                    "path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "b"}});
    for (rule, expected) in [
        (json!({"filters": [redirect(&json!({}))]}), plain.clone()),
        (json!({"matches": matches, "filters": [redirect(&of)]}), whole.clone()),
        (json!({"matches": matches, "backendRefs": backends(&[redirect(&of)])}), whole),
        (
            // No match is one of the prefix `/` (HTTPRouteRule, `matches`).
            json!({"filters": [redirect(&prefix("/b/"))]}),
            Redirect { path: Some(PathModifier::prefix("/", "/b")), ..plain.clone() },
        ),
        (
            json!({"matches": [{"method": "GET"}], "filters": [redirect(&prefix(""))]}),
            Redirect { path: Some(PathModifier::prefix("/", "")), ..plain },
        ),
    ] {
        assert_eq!(decoded(&rule), [RouteFilter::Redirect(Arc::new(expected))], "{rule}");
    }
    let full = json!({"hostname": "one.example",
                      "path": {"type": "ReplaceFullPath", "replaceFullPath": "/%2Fb;c=@d"}});
    let expected = Rewrite {
        hostname: Some("one.example".parse().unwrap()),
        path: Some(PathModifier::full("/%2Fb;c=@d")),
    };
    let rule = json!({"filters": [rewrite(&full)], "backendRefs": backends(&[])});
    assert_eq!(decoded(&rule), [RouteFilter::Rewrite(Arc::new(expected))]);
}

#[test]
fn filters_of_backends_decode_with_those_of_their_rule() {
    let host = rewrite(&json!({"hostname": "a"}));
    let rule = json!({
        "filters": [mirror(), mirror(), host],
        "backendRefs": backends(&[mirror(), rewrite(&prefix("/b")), mirror()]),
    });
    let kinds = decoded(&rule).into_iter().map(|filter| match filter {
        RouteFilter::Mirror(..) => "mirror",
        RouteFilter::Rewrite(_) => "rewrite",
        _ => "other",
    });
    let expected = ["mirror", "mirror", "rewrite", "mirror", "rewrite", "mirror"];
    assert_eq!(kinds.collect::<Vec<_>>(), expected);
    let rule = json!({"filters": [mirror(), redirect(&json!({"port": 80}))]});
    assert_eq!(decoded(&rule).len(), 2, "nothing but the redirect responds");
}

#[test]
fn cors_decodes() {
    let cors = |of: Value| {
        let filters = decoded(&filter(&json!({"type": "CORS", "cors": of})));
        let [RouteFilter::Cors(cors)] = &filters[..] else { panic!("{filters:?}") };
        Cors::clone(cors)
    };
    let these = |names: &str| Some(AllowedNames::These(names.parse().unwrap()));
    assert_eq!(cors(json!({})), Cors::default());
    let whole = cors(json!({
        "allowOrigins": ["https://a.example", "http://*:8080", "https://*.b"],
        "allowCredentials": true, "allowMethods": ["GET", "PUT"], "allowHeaders": ["X-A", "x-b"],
        "exposeHeaders": ["*", "x-c"], "maxAge": 3600,
    }));
    assert!(matches!(&whole.origins, AllowedOrigins::These(entries) if entries.len() == 3));
    assert_eq!(whole.methods, these("GET, PUT"));
    assert_eq!(whole.headers, these("X-A, x-b"));
    assert_eq!(whole.expose, these("x-c"), "with credentials * is no wildcard");
    assert_eq!((whole.credentials, whole.max_age), (true, 3600));
    let any = cors(json!({"allowOrigins": ["*"], "allowMethods": ["*"], "allowHeaders": ["*"],
                          "exposeHeaders": ["x-c", "*"]}));
    let all = || Some(AllowedNames::Any);
    let expected = Cors {
        origins: AllowedOrigins::Any,
        methods: all(),
        headers: all(),
        expose: all(),
        ..Cors::default()
    };
    assert_eq!(any, expected);
}

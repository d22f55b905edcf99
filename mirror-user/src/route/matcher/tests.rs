//! Each kind of match, by tables and by properties.

use bytes::Bytes;
use http::Request;
use proptest::prelude::*;

use super::*;
use crate::route::target;

fn head(method: &str, uri: &str, headers: &[(&str, &str)]) -> http::request::Parts {
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

fn regex(source: &str) -> Pattern {
    Pattern::new(source).unwrap()
}

fn header(name: &'static str, value: ValueMatch) -> Matcher {
    let headers = vec![HeaderMatch { name: HeaderName::from_static(name), value }];
    Matcher { headers, ..Matcher::default() }
}

fn query(name: &str, value: ValueMatch) -> Matcher {
    Matcher { query: vec![QueryMatch { name: name.into(), value }], ..Matcher::default() }
}

#[test]
fn paths() {
    let exact = |p: &str| PathMatch::Exact(p.into());
    let prefix = |p: &str| PathMatch::Prefix(p.into());
    let cases = [
        (exact("/foo"), "/foo", true),
        (exact("/foo"), "/foo/", false),
        (exact("/foo"), "/Foo", false),
        (exact("/a%20b"), "/a%20b", true),
        (exact("/a b"), "/a%20b", false),
        (prefix("/foo"), "/foo", true),
        (prefix("/foo"), "/foo/", true),
        (prefix("/foo"), "/foo/bar", true),
        (prefix("/foo"), "/foobar", false),
        (prefix("/foo"), "/fo", false),
        (prefix("/foo/"), "/foo", true),
        (prefix("/foo/"), "/foo/bar", true),
        (prefix("/foo/"), "/foobar", false),
        (prefix("/"), "/", true),
        (prefix("/"), "/anything", true),
        (prefix("/"), "*", true),
        (prefix("/"), "", true),
        (prefix("/foo"), "*", false),
        (PathMatch::Regex(regex("/v[0-9]+")), "/v12", true),
        (PathMatch::Regex(regex("/v[0-9]+")), "/v12/x", false),
        (PathMatch::Regex(regex("/v[0-9]+")), "/x/v12", false),
        (PathMatch::Regex(regex("a|/b")), "/b", true),
        (PathMatch::Regex(regex("/b|a")), "/bc", false),
    ];
    for (path, value, expected) in cases {
        assert_eq!(path.matches(value.as_bytes()), expected, "{path:?} on {value}");
    }
}

#[test]
fn targets_in_every_form() {
    let prefix = Matcher { path: PathMatch::Prefix("/foo".into()), ..Matcher::default() };
    assert!(prefix.matches(&head("GET", "http://host:80/foo/bar?x=1", &[])));
    assert!(!prefix.matches(&head("GET", "http://foo/", &[])));
    assert!(Matcher::default().matches(&head("OPTIONS", "*", &[])));
    assert!(Matcher::default().matches(&head("GET", "http://host", &[])));
    assert!(Matcher::default().matches(&head("CONNECT", "host:443", &[])));
}

#[test]
fn targets_that_no_uri_holds() {
    let sent = |target: &[u8]| {
        let mut head = head("GET", "/", &[]);
        target::set(&mut head, &Bytes::copy_from_slice(target), 0..target.len()).unwrap();
        head
    };
    let path = |path| Matcher { path, ..Matcher::default() };
    let (exact, prefix) = (PathMatch::Exact, PathMatch::Prefix);
    let cases: [(Matcher, &[u8], bool); 17] = [
        (path(exact("/a<b".into())), b"/a<b", true),
        (path(exact("/a<b".into())), b"/a%3Cb", false),
        (path(prefix("/a`b".into())), b"/a`b/c?d", true),
        (path(prefix("/a".into())), b"/a<b", false),
        (path(prefix("/caf\u{e9}".into())), "/caf\u{e9}/<".as_bytes(), true),
        (path(prefix("/caf\u{e9}".into())), b"/caf\xe9/<", false),
        (path(prefix("/".into())), b"/caf\xe9", true),
        (path(PathMatch::Regex(regex("/caf.(/.*)?"))), b"/caf\xe9/x", true),
        (path(PathMatch::Regex(regex("/caf(?-u:\\xe9)"))), b"/caf\xe9", true),
        (path(PathMatch::Regex(regex("/[a-z]+"))), b"/caf\xe9", false),
        (path(exact("/a".into())), b"/a?q=<5>", true),
        (path(exact("/a".into())), b"/a#b", true),
        (query("q", ValueMatch::Exact("<5>".into())), b"/`?q=<5>", true),
        (query("q", ValueMatch::Exact("<5>".into())), b"/`?q=%3C5>", true),
        (query("q", ValueMatch::Exact("<5>".into())), b"/`?q=5", false),
        (query("q", ValueMatch::Regex(regex("up.*"))), b"/?q=up{a=\"\xe9\"}", true),
        (path(prefix("/a".into())), b"http://other.example/a/<", true),
    ];
    for (matcher, target, expected) in cases {
        let head = sent(target);
        assert_eq!(matcher.matches(&head), expected, "{matcher} on {}", target.escape_ascii());
        assert_eq!(matcher.mismatches(&head, Values::Hidden).is_empty(), expected);
    }
}

#[test]
fn methods() {
    let post = Matcher { method: Some(Method::POST), ..Matcher::default() };
    assert!(post.matches(&head("POST", "/", &[])));
    assert!(!post.matches(&head("GET", "/", &[])));
}

#[test]
fn headers() {
    let exact = |v: &str| header("x-env", ValueMatch::Exact(v.into()));
    let matching = |v: &str| header("x-env", ValueMatch::Regex(regex(v)));
    let cases: &[(Matcher, &[&str], bool)] = &[
        (exact("a"), &["a"], true),
        (exact("a"), &["A"], false),
        (exact("a"), &[], false),
        (exact(""), &[""], true),
        (exact("a"), &["a", "b"], false),
        (exact("a,b"), &["a", "b"], true),
        (exact("a,b,"), &["a", "b"], false),
        (exact("a,b,"), &["a", "b", ""], true),
        (exact("a,b"), &["b", "a"], false),
        (matching("a.*"), &["abc"], true),
        (matching("a"), &["abc"], false),
        (matching("a,b"), &["a", "b"], true),
        (matching("b"), &["a", "b"], false),
    ];
    for (matcher, values, expected) in cases {
        let fields: Vec<_> = values.iter().map(|value| ("X-Env", *value)).collect();
        assert_eq!(
            matcher.matches(&head("GET", "/", &fields)),
            *expected,
            "{matcher:?} {values:?}"
        );
    }
}

#[test]
fn query_parameters() {
    let exact = |v: &str| query("q", ValueMatch::Exact(v.into()));
    let matching = |v: &str| query("q", ValueMatch::Regex(regex(v)));
    let cases = [
        (exact("1"), "/?q=1", true),
        (exact("1"), "/?a=2&q=1", true),
        (exact("2"), "/?q=1&q=2", false),
        (exact("1"), "/?Q=1", false),
        (exact("1"), "/", false),
        (exact(""), "/?q", true),
        (exact(""), "/?q=", true),
        (exact("a b"), "/?q=a%20b", true),
        (exact("a b"), "/?q=a+b", true),
        (exact("1"), "/?%71=1", true),
        (exact("50%"), "/?q=50%", true),
        (exact("a=b"), "/?q=a=b", true),
        (matching("a b"), "/?q=a%20b", true),
        (matching("[0-9]+"), "/?q=12", true),
        (matching("[0-9]+"), "/?q=12x", false),
    ];
    for (matcher, uri, expected) in cases {
        assert_eq!(matcher.matches(&head("GET", uri, &[])), expected, "{matcher:?} on {uri}");
    }
}

#[test]
fn all_parts_must_hold() {
    let matcher = Matcher {
        method: Some(Method::GET),
        path: PathMatch::Prefix("/a".into()),
        ..header("x-env", ValueMatch::Exact("1".into()))
    };
    assert!(matcher.matches(&head("GET", "/a", &[("x-env", "1")])));
    assert!(!matcher.matches(&head("PUT", "/a", &[("x-env", "1")])));
    assert!(!matcher.matches(&head("GET", "/b", &[("x-env", "1")])));
    assert!(!matcher.matches(&head("GET", "/a", &[("x-env", "2")])));
}

#[test]
fn expressions_that_break_out_of_the_anchors_are_refused() {
    for source in ["a)|(b", "(", r"(?=a)"] {
        assert!(Pattern::new(source).is_err(), "{source}");
    }
    assert!(Pattern::new("(a{1000}){1000}").is_err(), "size limit");
}

#[test]
fn what_does_not_hold_is_reported_part_by_part() {
    let matcher = Matcher {
        path: PathMatch::Exact("/a".into()),
        method: Some(Method::POST),
        query: vec![QueryMatch { name: "v".into(), value: ValueMatch::Regex(regex("[0-9]+")) }],
        ..header("x-env", ValueMatch::Exact("1".into()))
    };
    let message = |request: http::request::Parts| {
        matcher
            .mismatches(&request, Values::Shown)
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        message(head("GET", "/b?v=x+y", &[("x-env", "2"), ("x-env", "3")])),
        [
            "path: wants = /a, the request has /b",
            "header x-env: wants = 1, the request has 2,3",
            "query v: wants ~ [0-9]+, the request has x y",
            "method: wants POST, the request has GET",
        ]
    );
    assert_eq!(
        message(head("POST", "/a", &[])),
        [
            "header x-env: wants = 1, the request has none",
            "query v: wants ~ [0-9]+, the request has none",
        ]
    );
    assert!(message(head("POST", "/a?v=1", &[("x-env", "1")])).is_empty());
    let hidden = matcher.mismatches(&head("POST", "/a", &[]), Values::Hidden);
    let hidden: Vec<_> = hidden.iter().map(ToString::to_string).collect();
    assert_eq!(
        hidden,
        [
            "header x-env: wants = (hidden), the request has none",
            "query v: wants ~ (hidden), the request has none",
        ]
    );
    assert_eq!(
        matcher.to_string(),
        "path = /a, method = POST, header x-env = (hidden), query v ~ (hidden)"
    );
    assert_eq!(
        format!("{matcher:#}"),
        "path = /a, method = POST, header x-env = 1, query v ~ [0-9]+"
    );
}

prop_compose! {
    fn drawn_matcher()(
        kind in 0_u8..3, path in "/[ab]?", method in prop::option::of(0_u8..2),
        headers in prop::collection::vec(("[xy]", "[12]", any::<bool>()), 0..3),
        query in prop::collection::vec(("[xy]", "[12]", any::<bool>()), 0..3),
    ) -> Matcher {
        let value = |(text, exact): (String, bool)| match exact {
            true => ValueMatch::Exact(text),
            false => ValueMatch::Regex(regex(&text)),
        };
        Matcher {
            path: match kind {
                0 => PathMatch::Exact(path),
                1 => PathMatch::Prefix(path),
                _ => PathMatch::Regex(regex(&path)),
            },
            method: method.map(|which| if which == 0 { Method::GET } else { Method::PUT }),
            headers: headers.into_iter().map(|(name, text, exact)| HeaderMatch {
                name: HeaderName::from_bytes(name.as_bytes()).unwrap(),
                value: value((text, exact)),
            }).collect(),
            query: query.into_iter().map(|(name, text, exact)| QueryMatch {
                name,
                value: value((text, exact)),
            }).collect(),
        }
    }
}

proptest! {
    /// A request matches exactly if it has no mismatch.
    #[test]
    fn mismatches_agree_with_the_match(
        matcher in drawn_matcher(),
        method in "GET|PUT", path in "/[ab]?", query in "([xy]=[12]&?){0,2}",
        fields in prop::collection::vec(("[xy]", "[12]"), 0..3),
    ) {
        let fields: Vec<_> = fields.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let head = head(&method, &format!("{path}?{query}"), &fields);
        prop_assert_eq!(matcher.matches(&head), matcher.mismatches(&head, Values::Hidden).is_empty());
    }

    /// Element by element, as the Gateway API words it.
    #[test]
    fn a_prefix_is_a_prefix_of_elements(prefix in "(/[ab]{1,2}){0,3}/?", path in "(/[ab]{1,2}){0,4}/?") {
        let parts = |s: &str| s.split('/').filter(|p| !p.is_empty()).map(String::from).collect::<Vec<_>>();
        let prefix = if prefix.is_empty() { "/".to_owned() } else { prefix };
        prop_assert_eq!(
            PathMatch::Prefix(prefix.clone()).matches(path.as_bytes()),
            parts(&path).starts_with(&parts(&prefix))
        );
    }

    /// The comparison without a copy agrees with the plain join.
    #[test]
    fn joined_headers(values in prop::collection::vec("[a,]{0,3}", 1..4), exact in "[a,]{0,8}") {
        let fields: Vec<_> = values.iter().map(|v| ("x-env", v.as_str())).collect();
        for exact in [exact, values.join(",")] {
            let matcher = header("x-env", ValueMatch::Exact(exact.clone()));
            prop_assert_eq!(matcher.matches(&head("GET", "/", &fields)), exact == values.join(","));
        }
    }

    #[test]
    fn escaping_does_not_change_a_query_value(value in "\\PC{0,12}") {
        let escaped: String = value.bytes().map(|b| format!("%{b:02x}")).collect();
        prop_assert!(query::equals(escaped.as_bytes(), &value));
        let decoded = query::decode(escaped.as_bytes());
        prop_assert_eq!(decoded.as_ref(), value.as_bytes());
    }
}

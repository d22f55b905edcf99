//! Which origins match, and the fields that they get.

use http::Request;

use super::*;

fn origins(entries: &[&str]) -> AllowedOrigins {
    AllowedOrigins::These(entries.iter().map(|text| Origin::parse(text).unwrap()).collect())
}

fn these(names: &'static str) -> Option<AllowedNames> {
    Some(AllowedNames::These(HeaderValue::from_static(names)))
}

fn head(method: &str, fields: &[(&str, &str)]) -> request::Parts {
    let mut request = Request::builder().method(method);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

/// `name: value` of each field, in order.
fn lines(fields: &HeaderMap) -> Vec<String> {
    let line =
        |(name, value): (&HeaderName, &HeaderValue)| format!("{name}: {}", value.to_str().unwrap());
    fields.iter().map(line).collect()
}

#[test]
fn origins_match_by_scheme_host_and_port() {
    for (entry, origin, expected) in [
        ("https://www.foo.com", "https://www.foo.com", true),
        ("https://www.foo.com", "https://WWW.foo.com:443", true),
        ("https://www.foo.com:443", "https://www.foo.com", true),
        ("https://www.foo.com", "http://www.foo.com", false),
        ("https://www.foo.com", "https://www.foo.com:8443", false),
        ("https://www.foo.com", "https://foo.com", false),
        ("https://*.bar.com", "https://www.bar.com", true),
        ("https://*.bar.com", "https://a.www.bar.com", true),
        ("https://*.bar.com", "https://bar.com", false),
        ("https://*.bar.com", "https://.bar.com", false),
        ("https://*.bar.com", "https://foobar.com", false),
        ("https://*.bar.com:8443", "https://x.bar.com:8443", true),
        ("http://*", "http://anything:80", true),
        ("http://*", "http://anything:81", false),
        ("http://*", "https://anything", false),
        ("https://www.foo.com", "null", false),
        ("https://www.foo.com", "https://www.foo.com/", false),
        ("https://www.foo.com", "https://www.foo.com, https://b", false),
    ] {
        let allowed = origins(&["https://other.example", entry]);
        let origin = HeaderValue::from_static(origin);
        assert_eq!(allowed.allow(&origin), expected, "{entry} {origin:?}");
    }
    for text in ["foo.com", "ftp://foo.com", "https://", "https://a:", "https://a:b", "https://a:0"]
    {
        assert_eq!(Origin::parse(text), None, "{text}");
    }
}

const PREFLIGHT: [(&str, &str); 3] = [
    ("origin", "https://www.foo.com"),
    ("access-control-request-method", "PUT"),
    ("access-control-request-headers", "x-1, x-2"),
];

#[test]
fn a_preflight_request_gets_what_is_allowed() {
    let cors = Cors {
        origins: origins(&["https://www.foo.com"]),
        credentials: true,
        methods: these("GET, OPTIONS"),
        headers: these("x-header-1"),
        expose: these("x-header-3"),
        max_age: 3600,
    };
    let fields = cors.preflight(&head("OPTIONS", &PREFLIGHT)).unwrap();
    assert_eq!(
        lines(&fields),
        [
            "vary: origin",
            "access-control-allow-origin: https://www.foo.com",
            "access-control-allow-credentials: true",
            "access-control-expose-headers: x-header-3",
            "access-control-allow-methods: GET, OPTIONS",
            "access-control-allow-headers: x-header-1",
            "access-control-max-age: 3600",
        ]
    );
    let other = [("origin", "https://b"), ("access-control-request-method", "PUT")];
    assert_eq!(lines(&cors.preflight(&head("OPTIONS", &other)).unwrap()), ["vary: origin"]);
}

#[test]
fn a_wildcard_is_never_shown_to_a_request_with_credentials() {
    let all = || Some(AllowedNames::Any);
    let (origins, expose) = (AllowedOrigins::Any, None);
    let mut cors = Cors { origins, methods: all(), headers: all(), expose, ..Cors::default() };
    let fields = |cors: &Cors, sent: &[(&str, &str)]| {
        lines(&cors.preflight(&head("OPTIONS", sent)).unwrap())
    };
    assert_eq!(
        fields(&cors, &PREFLIGHT),
        [
            "access-control-allow-origin: *",
            "access-control-allow-methods: *",
            "access-control-allow-headers: *",
            "access-control-max-age: 5",
        ]
    );
    cors.credentials = true;
    assert_eq!(
        fields(&cors, &PREFLIGHT),
        [
            "vary: origin",
            "access-control-allow-origin: https://www.foo.com",
            "access-control-allow-credentials: true",
            "access-control-allow-methods: PUT",
            "access-control-allow-headers: x-1, x-2",
            "access-control-max-age: 5",
        ]
    );
    let without = fields(&cors, &PREFLIGHT[..2]);
    assert!(!without.iter().any(|line| line.contains("allow-headers")), "{without:?}");
}

#[test]
fn any_other_request_is_no_preflight() {
    let cors = Cors { origins: AllowedOrigins::Any, ..Cors::default() };
    for request in [
        head("GET", &PREFLIGHT),
        head("OPTIONS", &PREFLIGHT[..1]),
        head("OPTIONS", &PREFLIGHT[1..]),
    ] {
        assert_eq!(cors.preflight(&request), None, "{request:?}");
    }
}

#[test]
fn a_response_says_what_the_route_allows_and_not_what_the_primary_does() {
    let cors = Cors {
        origins: origins(&["https://www.foo.com"]),
        expose: these("x-header-3"),
        ..Cors::default()
    };
    let primary = || {
        let mut fields = HeaderMap::new();
        fields.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        fields.insert(CREDENTIALS, HeaderValue::from_static("true"));
        fields
    };
    let mut fields = primary();
    let origin = HeaderValue::from_static("https://www.foo.com");
    assert!(cors.respond_to(Some(&origin), &mut fields));
    let mut found = lines(&fields);
    found.sort();
    assert_eq!(
        found,
        [
            "access-control-allow-origin: https://www.foo.com",
            "access-control-expose-headers: x-header-3",
            "vary: origin",
        ]
    );
    for (said, expected) in [("accept, Origin", 1), ("*", 1), ("accept", 2), ("x-origin", 2)] {
        let mut fields = HeaderMap::new();
        fields.insert(header::VARY, HeaderValue::from_static(said));
        cors.respond_to(None, &mut fields);
        assert_eq!(fields.get_all(header::VARY).iter().count(), expected, "{said}");
    }
    for origin in [None, Some(HeaderValue::from_static("https://b"))] {
        let mut fields = primary();
        assert!(!cors.respond_to(origin.as_ref(), &mut fields));
        assert_eq!(fields.remove(header::VARY).unwrap(), "origin");
        assert_eq!(fields, primary());
    }
}

//! Micro-benches of what every connection or request passes: the id codec, the parser of heads, the
//! route table.
//!
//! `cargo bench -p mirror-user`; a name after `--` picks some.
#![allow(missing_docs, reason = "criterion_main! makes a public function")]

use std::{hint::black_box, net::Ipv4Addr, sync::Arc};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use http::{HeaderName, HeaderValue, Method, Request, request::Parts};
use mirror_common::FrontendId;
use mirror_user::model::{ObjectName, RouteKind};
use mirror_user::route::{
    Backends, HeaderMatch, Matcher, PathMatch, Pattern, QueryMatch, RouteTable, Rule, RuleEntry,
    Timeouts, ValueMatch,
};

/// As a browser or a service's client sends it, with a field that is not to be sent on.
const HEAD: &[u8] = b"GET /api/v1/orders/42?expand=items HTTP/1.1\r\nHost: shop.example:8000\r\n\
    User-Agent: okhttp/4.12.0\r\nAccept: application/json\r\nAccept-Encoding: gzip\r\n\
    X-Request-Id: 6f1c2a90-3c4d-4f6a-9d0e-8f1f5a1c2b3d\r\n\
    Traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\
    Cookie: session=0123456789abcdef0123456789abcdef\r\nConnection: keep-alive\r\n\r\n";

fn codec(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("codec");
    group.bench_function("id of an address", |bencher| {
        let address = Ipv4Addr::new(127, 65, 2, 3);
        bencher.iter(|| FrontendId::from_address(black_box(address)));
    });
    group.bench_function("id of an address of IPv6", |bencher| {
        let address = FrontendId::FIRST.address_v6();
        bencher.iter(|| FrontendId::from_address_v6(black_box(address)));
    });
}

fn heads(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("head");
    group.throughput(Throughput::Elements(1));
    group.bench_function("parse", |bencher| bencher.iter(|| parse(black_box(HEAD))));
    let head = head();
    group.bench_function("clone", |bencher| bencher.iter(|| black_box(&head).clone()));
}

fn matcher(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("match");
    let mut head = head();
    head.headers.insert("x-tenant", HeaderValue::from_static("last"));
    for rules in [1, 10, 100, 1_000, 10_000] {
        for (what, matcher) in TABLES {
            let table = table(rules, matcher);
            let found = table.find(&head).map(|rule| rule.index);
            assert_eq!(found, Some(rules - 1), "the last rule alone holds for the head");
            group.bench_function(format!("{rules} {what}"), |bencher| {
                bencher.iter(|| black_box(&table).find(black_box(&head)).map(Arc::as_ptr));
            });
        }
    }
}

/// A rule's match by its place from the end of the table, at which 0 is the last, the one that holds.
type MatchAt = fn(usize) -> Matcher;

const TABLES: [(&str, MatchAt); 7] = [
    ("each with another prefix", |at| match at {
        0 => Matcher::default(),
        at => {
            Matcher { path: PathMatch::Prefix(format!("/api/v{}", at + 1)), ..header(at, "blue") }
        }
    }),
    ("of one prefix, each with another value of a header", |at| header(0, value(at, "last"))),
    ("of one prefix, each with another header", |at| match at {
        0 => header(0, "last"),
        at => header(at, "blue"),
    }),
    ("of one prefix, each with another value of a query parameter", |at| {
        let value = ValueMatch::Exact(value(at, "items"));
        let query = vec![QueryMatch { name: "expand".into(), value }];
        Matcher { path: PathMatch::Prefix("/api".into()), query, ..Matcher::default() }
    }),
    ("of one prefix, each with another method and value of a header", |at| {
        let methods = [Method::GET, Method::PUT, Method::POST, Method::DELETE];
        let method = Some(methods[at % methods.len()].clone());
        Matcher { method, ..header(0, value(at / methods.len(), "last")) }
    }),
    ("of one prefix, with one value of a header each but the last", |at| match at {
        0 => Matcher { path: PathMatch::Prefix("/api".into()), ..Matcher::default() },
        _ => header(0, "blue"),
    }),
    ("of one prefix, each with another expression for a header", |at| {
        let pattern = Pattern::new(&value(at, "last")).expect("it is a valid expression");
        let mut matcher = header(0, "");
        matcher.headers[0].value = ValueMatch::Regex(pattern);
        matcher
    }),
];

/// A prefix of the request's path and an Exact header; 0 is the header that the request has.
fn header(name: usize, value: impl Into<String>) -> Matcher {
    let name = match name {
        0 => HeaderName::from_static("x-tenant"),
        at => format!("x-{at}").parse().expect("it is a name"),
    };
    let headers = vec![HeaderMatch { name, value: ValueMatch::Exact(value.into()) }];
    Matcher { path: PathMatch::Prefix("/api".into()), headers, ..Matcher::default() }
}

fn value(at: usize, last: &str) -> String {
    if at == 0 { last.into() } else { format!("value-{at}") }
}

/// What hyper parses a head with; its fields.
fn parse(bytes: &[u8]) -> usize {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut request = httparse::Request::new(&mut headers);
    let whole = request.parse(bytes).is_ok_and(|status| status.is_complete());
    assert!(whole, "the head is whole");
    request.headers.len()
}

fn head() -> Parts {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut parsed = httparse::Request::new(&mut headers);
    parsed.parse(HEAD).expect("the head is well-formed");
    let mut request = Request::get(parsed.path.expect("a target"));
    for field in parsed.headers {
        request = request.header(field.name, field.value);
    }
    request.body(()).expect("the head is well-formed").into_parts().0
}

fn table(rules: usize, matcher: MatchAt) -> RouteTable {
    let rule = |at: usize| {
        let route =
            RouteKind::Http.named(ObjectName { namespace: "default".into(), name: "shop".into() });
        let rule = Rule {
            route: route.into(),
            index: at,
            name: None,
            filters: Vec::new(),
            backends: Backends::default(),
            timeouts: Timeouts::default(),
            retry: None,
        };
        let matches = vec![matcher(rules - 1 - at)];
        RuleEntry { rule: Arc::new(rule), matches, created: None }
    };
    RouteTable::new((0..rules).map(rule))
}

criterion_group!(hot, codec, heads, matcher);
criterion_main!(hot);

//! The precedence against the Gateway API's list, pair by pair, and what a table finds.

use std::cmp::Ordering;

use http::{HeaderName, Method, Request};
use proptest::prelude::*;

use super::*;
use crate::{
    model::{ObjectName, RouteKind},
    route::{GrpcMethodMatch, HeaderMatch, Pattern, QueryMatch, ValueMatch},
};

mod index;
mod naive;

/// What precedence is made of, drawn small so that ties are common.
#[derive(Clone, Debug)]
struct Draw {
    matcher: Matcher,
    created: Option<i64>,
    route: RouteName,
    place: (usize, usize),
}

impl Draw {
    fn precedence(&self) -> Precedence {
        Precedence::new(&self.matcher, self.created, &self.route, self.place)
    }
}

fn matcher(path: PathMatch, method: bool, headers: usize, query: usize) -> Matcher {
    let value = || ValueMatch::Exact("1".into());
    let name = |at| HeaderName::from_bytes(format!("x-{at}").as_bytes()).unwrap();
    Matcher {
        path,
        method: method.then_some(Method::GET),
        headers: (0..headers).map(|at| HeaderMatch { name: name(at), value: value() }).collect(),
        query: (0..query).map(|at| QueryMatch { name: format!("q{at}"), value: value() }).collect(),
    }
}

fn path(kind: u8, length: usize) -> PathMatch {
    let value = format!("/{}", "é".repeat(length));
    match kind {
        0 => PathMatch::Prefix(value),
        1 => PathMatch::Regex(Pattern::new(&value).unwrap()),
        _ => PathMatch::Exact(value),
    }
}

prop_compose! {
    fn draw()(
        kind in 0_u8..3, length in 0_usize..3, method: bool, headers in 0_usize..3,
        query in 0_usize..3, created in prop::option::of(0_i64..2), namespace in "a|a-b",
        name in "x|y", place in (0_usize..2, 0_usize..2),
    ) -> Draw {
        let matcher = matcher(path(kind, length), method, headers, query);
        Draw { matcher, created, route: RouteKind::Http.named(ObjectName { namespace, name }), place }
    }
}

/// The Gateway API's list, written as the ladder that the documentation is.
fn ladder(a: &Draw, b: &Draw) -> Ordering {
    // GRPCRouteRule, `matches`, has characters of the service, then of the method.
    if let [PathMatch::Grpc(first), PathMatch::Grpc(second)] = [&a.matcher.path, &b.matcher.path]
        && first.lengths() != second.lengths()
    {
        return first.lengths().cmp(&second.lengths());
    }
    let kind = |d: &Draw| match d.matcher.path {
        PathMatch::Grpc(_) => 3,
        PathMatch::Exact(_) => 2,
        PathMatch::Regex(_) => 1,
        PathMatch::Prefix(_) => 0,
    };
    let length = |d: &Draw| match &d.matcher.path {
        PathMatch::Exact(_) | PathMatch::Grpc(_) => 0,
        PathMatch::Regex(p) => p.as_str().chars().count(),
        PathMatch::Prefix(p) => p.chars().count(),
    };
    if kind(a) != kind(b) {
        return kind(a).cmp(&kind(b));
    }
    if length(a) != length(b) {
        return length(a).cmp(&length(b));
    }
    if a.matcher.method.is_some() != b.matcher.method.is_some() {
        return a.matcher.method.is_some().cmp(&b.matcher.method.is_some());
    }
    if a.matcher.headers.len() != b.matcher.headers.len() {
        return a.matcher.headers.len().cmp(&b.matcher.headers.len());
    }
    if a.matcher.query.len() != b.matcher.query.len() {
        return a.matcher.query.len().cmp(&b.matcher.query.len());
    }
    let age = |d: &Draw| d.created.unwrap_or(i64::MAX);
    if age(a) != age(b) {
        return age(b).cmp(&age(a));
    }
    if a.route.to_string() != b.route.to_string() {
        return b.route.to_string().cmp(&a.route.to_string());
    }
    b.place.cmp(&a.place)
}

proptest! {
    #[test]
    fn precedence_is_the_documented_list(a in draw(), b in draw()) {
        prop_assert_eq!(a.precedence().cmp(&b.precedence()), ladder(&a, &b));
    }

    /// The text for people agrees with the order.
    #[test]
    fn the_criterion_agrees_with_the_order(a in draw(), b in draw()) {
        let (a, b) = (a.precedence(), b.precedence());
        let order = a.decide(&b).map_or(Ordering::Equal, |(_, order)| order);
        prop_assert_eq!(order, a.cmp(&b));
        prop_assert_eq!(a.decide(&b).map(|(by, _)| by), b.decide(&a).map(|(by, _)| by));
    }

    #[test]
    fn precedence_is_a_total_order(mut draws in prop::collection::vec(draw(), 3)) {
        let [a, b, c] = [0, 1, 2].map(|at: usize| draws[at].precedence());
        prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
        if a >= b && b >= c { prop_assert!(a >= c); }
        let sorted = |draws: &[Draw]| {
            let mut all: Vec<_> = draws.iter().map(Draw::precedence).collect();
            all.sort();
            all
        };
        let before = sorted(&draws);
        draws.reverse();
        prop_assert_eq!(before, sorted(&draws));
    }

    /// The order in which rules arrive never changes what a table finds.
    #[test]
    fn arrival_does_not_matter(draws in prop::collection::vec(draw(), 1..6), turn in 0_usize..6) {
        let mut draws = draws;
        // A place within a route is unique in reality.
        draws.iter_mut().enumerate().for_each(|(at, draw)| draw.place = (at, 0));
        let entries: Vec<_> = draws.iter().map(entry).collect();
        let mut turned = entries.clone();
        turned.rotate_left(turn % entries.len());
        let order = |t: &RouteTable| t.entries().map(|(_, r)| r.index).collect::<Vec<_>>();
        prop_assert_eq!(order(&RouteTable::new(entries)), order(&RouteTable::new(turned)));
    }
}

/// The match of a route's rule at this place.
fn draw_at(matcher: Matcher, at: usize) -> Draw {
    let route = ObjectName { namespace: "default".into(), name: "r".into() };
    Draw { matcher, created: None, route: RouteKind::Http.named(route), place: (at, 0) }
}

fn entry(draw: &Draw) -> RuleEntry {
    let rule = Rule {
        route: draw.route.clone().into(),
        index: draw.place.0,
        name: None,
        filters: Vec::new(),
        backends: Backends::default(),
        timeouts: Timeouts::default(),
        retry: None,
    };
    RuleEntry { rule: Arc::new(rule), matches: vec![draw.matcher.clone()], created: draw.created }
}

fn found(table: &RouteTable, uri: &str) -> Option<usize> {
    let head = Request::builder().uri(uri).body(()).unwrap().into_parts().0;
    table.find(&head).map(|rule| rule.index)
}

fn table(matchers: Vec<Matcher>) -> RouteTable {
    RouteTable::new(
        matchers.into_iter().enumerate().map(|(at, matcher)| entry(&draw_at(matcher, at))),
    )
}

#[test]
fn the_most_specific_rule_is_found() {
    let only_path = |path| matcher(path, false, 0, 0);
    let table = table(vec![
        only_path(PathMatch::Prefix("/".into())),
        only_path(PathMatch::Prefix("/foo".into())),
        only_path(PathMatch::Prefix("/foo/bar".into())),
        only_path(PathMatch::Exact("/foo".into())),
        matcher(PathMatch::Prefix("/foo".into()), true, 0, 0),
        matcher(PathMatch::Prefix("/foo".into()), false, 0, 1),
        only_path(PathMatch::Regex(Pattern::new("/foo/[0-9]+").unwrap())),
    ]);
    assert_eq!(found(&table, "/other"), Some(0));
    assert_eq!(found(&table, "/foo/bar/x"), Some(2));
    assert_eq!(found(&table, "/foo"), Some(3));
    assert_eq!(found(&table, "/foo/x"), Some(4), "a method wins over none");
    assert_eq!(found(&table, "/foo/x?q0=1"), Some(4), "a method wins over a query parameter");
    assert_eq!(found(&table, "/foo/12"), Some(6), "an expression wins over a prefix");
}

#[test]
fn no_rule_is_none_and_no_match_is_every_request() {
    assert_eq!(found(&RouteTable::default(), "/"), None);
    assert_eq!(
        found(&table(vec![matcher(PathMatch::Exact("/a".into()), false, 0, 0)]), "/b"),
        None
    );
    let route = RouteKind::Http.named(ObjectName { namespace: "default".into(), name: "r".into() });
    let rule = Rule {
        route: route.into(),
        index: 7,
        name: None,
        filters: Vec::new(),
        backends: Backends::default(),
        timeouts: Timeouts::default(),
        retry: None,
    };
    let entry = RuleEntry { rule: Arc::new(rule), matches: Vec::new(), created: None };
    assert_eq!(found(&RouteTable::new([entry]), "/anything"), Some(7));
}

#[test]
fn a_search_takes_turns_and_reads_a_query_once() {
    let one = |n: usize| {
        let route = ObjectName { namespace: "a".into(), name: format!("r-{n}") };
        let route = RouteKind::Http.named(route);
        let (filters, backends) = (Vec::new(), Backends::new(Vec::new()));
        let (route, name, timeouts, retry) = (route.into(), None, Timeouts::default(), None);
        let rule = Arc::new(Rule { route, index: 0, name, filters, backends, timeouts, retry });
        // All but the last of its parameters are there, and that one has no place in an index.
        let exact =
            |p| QueryMatch { name: format!("p{p}"), value: ValueMatch::Exact(String::new()) };
        let missing = ValueMatch::Regex(Pattern::new(".*").unwrap());
        let missing = QueryMatch { name: format!("missing-{n}"), value: missing };
        let query = (0..15).map(exact).chain([missing]).collect();
        RuleEntry { rule, matches: vec![Matcher { query, ..Matcher::default() }], created: None }
    };
    let table = RouteTable::new((0..128).map(one));
    let params: String = (0..8000).rev().map(|p| format!("&p{p}=")).collect();
    let head = Request::get(format!("/?{params}")).body(()).unwrap().into_parts().0;
    let mut search = table.search(&head);
    let (mut turns, mut before, turn) = (0, 0, 100_000);
    let found = loop {
        turns += 1;
        let found = search.run(turn);
        let work = search.view.work();
        // A turn, and at most one match more, or the index of the query.
        assert!(work - before <= turn + 17 * params.len(), "{} steps in one turn", work - before);
        before = work;
        if let Some(found) = found {
            break found;
        }
    };
    assert!(found.is_none() && turns > 1, "{turns} turns");
    // Read by each of the 2,048 conditions it would take 130 million steps.
    assert!(before < 3_000_000, "{before} steps");
    assert!(table.find(&head).is_none());
}

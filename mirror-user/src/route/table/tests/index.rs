//! How much of a long table a search tries.

use super::*;

/// What a search takes for one field or parameter of a request, or for one match.
const LOOK: usize = 32;

/// The rule that is found, and the steps that it took.
fn search(table: &RouteTable, request: http::request::Builder) -> (Option<usize>, usize) {
    let head = request.body(()).unwrap().into_parts().0;
    let mut search = table.search(&head);
    let found = search.run(usize::MAX).unwrap().map(|rule| rule.index);
    (found, search.view.work())
}

fn table_of(matcher: impl Fn(usize) -> Matcher) -> RouteTable {
    table((0..10_000).map(matcher).collect())
}

fn header(name: &str, value: &str) -> HeaderMatch {
    let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
    HeaderMatch { name, value: ValueMatch::Exact(value.into()) }
}

fn param(name: &str, value: &str) -> QueryMatch {
    QueryMatch { name: name.into(), value: ValueMatch::Exact(value.into()) }
}

#[test]
fn of_calls_only_those_that_concern_a_call() {
    let exact = |text: &str| Some(ValueMatch::Exact(text.to_owned()));
    let table = table_of(|n| {
        let call =
            GrpcMethodMatch { service: exact(&format!("shop.Service{n}")), method: exact("Get") };
        matcher(PathMatch::Grpc(call), false, 0, 0)
    });
    let search = |uri| search(&table, Request::post(uri));
    assert_eq!(search("/shop.Service7777/Get"), (Some(7777), LOOK));
    assert_eq!(search("/shop.Service7777/List"), (None, 0));
}

#[test]
fn only_the_matches_that_concern_a_path() {
    let table = table_of(|n| matcher(PathMatch::Prefix(format!("/service-{n}/v1")), false, 0, 0));
    let search = |uri| search(&table, Request::get(uri));
    assert_eq!(search("/service-7777/v1/orders"), (Some(7777), LOOK));
    assert_eq!(search("/service-7777/v2"), (None, 0));
    let slashes = "/".repeat(60_000);
    assert_eq!(search(&slashes), (None, 0));
}

/// Of all kinds of paths that many matches can share.
#[test]
fn of_one_path_only_those_whose_header_is_there() {
    let exact = |text: &str| Some(ValueMatch::Exact(text.to_owned()));
    let call = GrpcMethodMatch { service: exact("a"), method: exact("b") };
    let expression = PathMatch::Regex(Pattern::new("/a/.*").unwrap());
    for (path, read) in [
        (PathMatch::Exact("/a/b".into()), 0),
        (PathMatch::Prefix("/a".into()), 0),
        (PathMatch::default(), 0),
        (expression, "/a/b".len()),
        (PathMatch::Grpc(call), 0),
    ] {
        let table = table_of(|n| Matcher {
            path: path.clone(),
            headers: vec![header("x-all", "1"), header("x-tenant", &n.to_string())],
            ..Matcher::default()
        });
        let request = || Request::post("/a/b").header("x-all", "1");
        // Two names, the value of the one that there are lists of, and a match with its two values.
        let (found, steps) = search(&table, request().header("x-tenant", "7777"));
        assert_eq!((found, steps), (Some(7777), 6 * LOOK + read), "{path}");
        let (found, steps) = search(&table, request());
        assert_eq!((found, steps), (None, LOOK), "{path}");
    }
}

#[test]
fn of_many_names_only_those_of_the_request() {
    let table = table_of(|n| Matcher {
        headers: vec![header(&format!("x-{n}"), "1")],
        ..Matcher::default()
    });
    let request = Request::get("/").header("accept", "*/*").header("x-7777", "1");
    assert_eq!(search(&table, request), (Some(7777), 5 * LOOK));
    let table =
        table_of(|n| Matcher { query: vec![param(&format!("p{n}"), "1")], ..Matcher::default() });
    // Two parameters, twice the one that there are lists of in the whole query, and a match.
    let query = "a=2&p7777=1";
    let request = Request::get(format!("/?{query}"));
    assert_eq!(search(&table, request), (Some(7777), 3 * LOOK + 2 * query.len()));
}

#[test]
fn of_one_parameter_only_those_of_its_value() {
    let table =
        table_of(|n| Matcher { query: vec![param("p", &n.to_string())], ..Matcher::default() });
    let found = |query: &str| search(&table, Request::get(format!("/?{query}")));
    assert_eq!(found("p=7777"), (Some(7777), 2 * LOOK + 2 * "p=7777".len()));
    assert_eq!(found("p=%37777&p=5").0, Some(7777), "the first counts");
    // Each of a name that is repeated has a look, and the first alone a list.
    let (query, parameters) = (["p=10000"; 5_000].join("&"), 5_000);
    let (found, steps) = found(&query);
    assert_eq!(found, None);
    assert!(steps <= 2 * LOOK * parameters + 18 * query.len(), "{steps} steps");
}

#[test]
fn of_one_method_only_those_of_it() {
    let methods = [Method::GET, Method::PUT];
    let expression = ValueMatch::Regex(Pattern::new("none").unwrap());
    let query = vec![QueryMatch { name: "p".into(), value: expression }];
    let table = table_of(|n| Matcher {
        method: Some(methods[n % 2].clone()),
        query: query.clone(),
        ..Matcher::default()
    });
    let found = |method| search(&table, Request::builder().method(method).uri("/"));
    assert_eq!(found(Method::POST), (None, 0));
    let (found, steps) = found(Method::PUT);
    assert!(found.is_none() && steps <= 5_001 * 2 * LOOK, "{steps} steps");
}

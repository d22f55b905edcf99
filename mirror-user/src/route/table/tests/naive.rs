//! What a table finds, with an index or without one, against a naive reading of the specification: of
//! all matches that hold, the one that its list puts first.

use std::sync::LazyLock;

use super::*;

/// So many matches at most: of the few paths that they are drawn from, each has an index of conditions in
/// many of the tables.
const LONG: usize = 12 * INDEXED;

/// A request, as it comes and as it is meant.
#[derive(Clone, Debug)]
struct Draft {
    method: Method,
    path: String,
    /// A name may occur more than once.
    headers: Vec<(HeaderName, String)>,
    params: Vec<Param>,
}

/// Of a query: as it is written, its name and its value.
type Param = (String, String, String);

const PARAMS: [(&str, &str, &str); 12] = [
    ("q=1", "q", "1"),
    ("%71=1", "q", "1"),
    ("q=%31", "q", "1"),
    ("q=2", "q", "2"),
    ("q=12", "q", "12"),
    ("q=a+b", "q", "a b"),
    ("%71=a%20b", "q", "a b"),
    ("q", "q", ""),
    ("q=", "q", ""),
    ("%C3%A9=1", "é", "1"),
    ("x%2=1", "x%2", "1"),
    ("other=%FF", "other", "?"),
];

impl Draft {
    fn head(&self) -> http::request::Parts {
        let params: Vec<_> = self.params.iter().map(|(written, ..)| &**written).collect();
        let mark = if params.is_empty() { "" } else { "?" };
        let uri = format!("{}{mark}{}", self.path, params.join("&"));
        let mut request = Request::builder().method(&self.method).uri(uri);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        request.body(()).unwrap().into_parts().0
    }

    /// RFC 9110, section 5.2: one value, in the order of its fields.
    fn header(&self, name: &HeaderName) -> Option<String> {
        let all = self.headers.iter().filter(|(other, _)| other == name);
        let all: Vec<_> = all.map(|(_, value)| &**value).collect();
        (!all.is_empty()).then(|| all.join(","))
    }

    /// The first of a name.
    fn param(&self, wanted: &str) -> Option<String> {
        self.params.iter().find(|(_, name, _)| name == wanted).map(|(.., value)| value.clone())
    }

    /// Gives it what `wanted` wants, beside what it has: `otherwise` in another form that means the same.
    fn meet(&mut self, wanted: &Matcher, otherwise: bool) {
        if let PathMatch::Exact(path) | PathMatch::Prefix(path) = &wanted.path {
            self.path.clone_from(path);
        }
        wanted.method.iter().for_each(|method| self.method.clone_from(method));
        for HeaderMatch { name, value } in &wanted.headers {
            self.headers.retain(|(other, _)| other != name);
            let value = value.as_str().trim_end_matches(".*");
            let fields: Vec<_> = if otherwise { value.split(',').collect() } else { vec![value] };
            self.headers.extend(fields.into_iter().map(|value| (name.clone(), value.into())));
        }
        for QueryMatch { name, value } in &wanted.query {
            let value = value.as_str().trim_end_matches(".*");
            let escaped =
                |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
            let plain =
                |text: &str| text.replace('%', "%25").replace(' ', "+").replace('é', "%c3%a9");
            let written = match otherwise {
                true => format!("{}={}", escaped(name), escaped(value)),
                false => format!("{}={}", plain(name), plain(value)),
            };
            self.params.insert(0, (written, name.clone(), value.into()));
        }
    }
}

fn name(at: usize) -> HeaderName {
    HeaderName::from_bytes(format!("x-{at}").as_bytes()).unwrap()
}

/// Few values, so that many matches share one.
fn value(at: usize) -> ValueMatch {
    static EXPRESSION: LazyLock<Pattern> = LazyLock::new(|| Pattern::new("1.*").unwrap());
    match at {
        0 => ValueMatch::Regex(EXPRESSION.clone()),
        at => ValueMatch::Exact(["", "1", "2", "1,2", "a b", "12"][at % 6].into()),
    }
}

prop_compose! {
    fn any_headers()(
        headers in prop::collection::vec((prop_oneof![9 => 0_usize..2, 1 => 2_usize..40], 0_usize..7), 0..3),
    ) -> Vec<HeaderMatch> {
        headers.into_iter().map(|(at, of)| HeaderMatch { name: name(at), value: value(of) }).collect()
    }
}

prop_compose! {
    fn any_query()(
        params in prop::collection::vec((prop_oneof![4 => Just(0), 1 => 1_usize..20], 0_usize..7), 0..2),
    ) -> Vec<QueryMatch> {
        let name = |at| match at {
            0 => "q".into(),
            1 => "é".into(),
            2 => "x%2".into(),
            at => format!("q{at}"),
        };
        params.into_iter().map(|(at, of)| QueryMatch { name: name(at), value: value(of) }).collect()
    }
}

prop_compose! {
    /// Matches over so few paths, methods, headers and parameters that many hold for one request.
    fn any_match()(
        path in "(/[ab]?){0,3}", shared in 0_usize..8, kind in 0_u8..4,
        method in 0_u8..6, headers in any_headers(), query in any_query(),
    ) -> Matcher {
        static EXPRESSION: LazyLock<Pattern> = LazyLock::new(|| Pattern::new("/a.*").unwrap());
        let path = if path.is_empty() { "/".to_owned() } else { path };
        let path = match (shared, kind) {
            (0 | 1, _) => PathMatch::Exact("/a".into()),
            (2, _) => PathMatch::Regex(EXPRESSION.clone()),
            (3 | 4, _) => PathMatch::Prefix("/a".into()),
            (5, _) => PathMatch::Prefix("/a/".into()),
            (6, _) => PathMatch::Prefix("/".into()),
            (_, 0) => PathMatch::Exact(path),
            (_, 1) => PathMatch::Regex(Pattern::new(&format!("{path}.*")).unwrap()),
            _ => PathMatch::Prefix(path),
        };
        let method = match method {
            0 => Some(Method::GET),
            1 => Some(Method::PUT),
            _ => None,
        };
        Matcher { path, method, headers, query }
    }
}

prop_compose! {
    fn any_request()(
        path in prop_oneof![Just("/a".to_owned()), Just("/a/b".to_owned()), "(/[ab]?){1,4}"],
        method in prop::sample::select(vec![Method::GET, Method::PUT, Method::POST]),
        headers in prop::collection::vec(
            (prop_oneof![9 => 0_usize..2, 1 => 2_usize..40],
             prop::sample::select(vec!["", "1", "2", "1,2", "a b", "3"])),
            0..5,
        ),
        params in prop::collection::vec(prop::sample::select(PARAMS.to_vec()), 0..5),
    ) -> Draft {
        let headers = headers.into_iter().map(|(at, value)| (name(at), value.into())).collect();
        let params = params.into_iter().map(|(a, b, c): (&str, &str, &str)| (a.into(), b.into(), c.into()));
        Draft { method, path, headers, params: params.collect() }
    }
}

/// HTTPRouteMatch and GRPCRouteMatch, word by word.
fn holds(wanted: &Matcher, draft: &Draft) -> bool {
    let value_holds = |wanted: &ValueMatch, value: Option<String>| match wanted {
        ValueMatch::Exact(exact) => value.is_some_and(|value| value == *exact),
        ValueMatch::Regex(pattern) => {
            let start = pattern.as_str().trim_end_matches(".*");
            value.is_some_and(|value| value.starts_with(start))
        }
    };
    path_holds(&wanted.path, &draft.path)
        && wanted.method.as_ref().is_none_or(|method| *method == draft.method)
        && wanted.headers.iter().all(|h| value_holds(&h.value, draft.header(&h.name)))
        && wanted.query.iter().all(|p| value_holds(&p.value, draft.param(&p.name)))
}

/// Of a prefix, the elements between its slashes, the last of which may be empty, are the first of the path's.
fn path_holds(wanted: &PathMatch, path: &str) -> bool {
    match wanted {
        PathMatch::Exact(exact) => exact == path,
        PathMatch::Regex(pattern) => path.starts_with(pattern.as_str().trim_end_matches(".*")),
        PathMatch::Prefix(prefix) => {
            let mut elements: Vec<_> = prefix.split('/').collect();
            if elements.last() == Some(&"") {
                elements.pop();
            }
            let path: Vec<_> = path.split('/').collect();
            path.starts_with(&elements)
        }
        PathMatch::Grpc(GrpcMethodMatch { service, method }) => {
            let part = |wanted: &Option<ValueMatch>, part: &str| match wanted {
                None => true,
                Some(ValueMatch::Exact(exact)) => exact == part,
                Some(ValueMatch::Regex(pattern)) => {
                    part.starts_with(pattern.as_str().trim_end_matches(".*"))
                }
            };
            let parts: Vec<_> = path.splitn(3, '/').collect();
            matches!(parts[..], ["", of, call] if part(service, of) && part(method, call))
        }
    }
}

prop_compose! {
    /// Matches of GRPCRoutes over so few services and methods that many hold for one call.
    fn any_call()(
        service in prop_oneof![Just(1), 0_usize..4], method in prop_oneof![Just(1), 0_usize..4],
        expressions in (0_u8..4, 0_u8..4), headers in any_headers(),
    ) -> Matcher {
        let part = |text: &str, expression: u8| match expression {
            _ if text.is_empty() => None,
            0 => Some(ValueMatch::Regex(Pattern::new(&format!("{text}.*")).unwrap())),
            _ => Some(ValueMatch::Exact(text.to_owned())),
        };
        let service = part(["", "a", "a.B", "b"][service], expressions.0);
        let method = part(["", "C", "CD", "E"][method], expressions.1);
        let path = match (&service, &method) {
            (None, None) => PathMatch::default(),
            _ => PathMatch::Grpc(GrpcMethodMatch { service, method }),
        };
        Matcher { path, headers, ..Matcher::default() }
    }
}

/// Places of the rules that a table of these matches and a naive reading find.
fn both(matches: &[Matcher], draft: &Draft) -> [Option<usize>; 2] {
    let draws = matches.iter().enumerate().map(|(at, matcher)| draw_at(matcher.clone(), at));
    let draws: Vec<_> = draws.collect();
    let naive = draws.iter().filter(|draw| holds(&draw.matcher, draft)).max_by(|a, b| ladder(a, b));
    let table = RouteTable::new(draws.iter().map(entry));
    [table.find(&draft.head()).map(|rule| rule.index), naive.map(|draw| draw.place.0)]
}

/// Few matches or many, and a request, which most of the time is meant for one of them.
fn any_table(
    one: impl Strategy<Value = Matcher>,
    request: impl Strategy<Value = Draft>,
) -> impl Strategy<Value = (Vec<Matcher>, Draft)> {
    let matches = prop::collection::vec(one, 0..LONG);
    let meant = prop::option::weighted(0.8, (any::<prop::sample::Index>(), any::<bool>()));
    (matches, request, meant).prop_map(|(matches, mut draft, meant)| {
        if let (Some((at, otherwise)), false) = (meant, matches.is_empty()) {
            draft.meet(at.get(&matches), otherwise);
        }
        (matches, draft)
    })
}

prop_compose! {
    fn any_call_request()(
        path in prop_oneof![Just("/a/C".to_owned()), "/(a|a\\.B|a\\.Bc|b|x)/(C|CD|CDE|E|x)"],
        draft in any_request(),
    ) -> Draft {
        Draft { method: Method::POST, path, ..draft }
    }
}

proptest! {
    #[test]
    fn a_table_finds_what_a_naive_reading_does(
        (matches, draft) in any_table(any_match(), any_request()),
    ) {
        let [found, wanted] = both(&matches, &draft);
        prop_assert_eq!(found, wanted);
    }

    #[test]
    fn a_table_of_calls_finds_what_a_naive_reading_does(
        (matches, draft) in any_table(any_call(), any_call_request()),
    ) {
        let [found, wanted] = both(&matches, &draft);
        prop_assert_eq!(found, wanted);
    }
}

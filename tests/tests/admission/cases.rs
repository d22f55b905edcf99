//! Routes whose verdict is known, from the tables beside this file, with those of counts and names added.

use serde_json::{Map, Value, json};

use crate::{Case, HTTP, Kind};

/// Begins the names of cases whose route has the rest as its own name.
pub(crate) const NAMED: &str = "named ";

/// The case that only v1.7.0 refuses.
pub(crate) const NAME_TWICE: &str = "a rule's name twice";

/// A route that is valid; the cases change it.
fn base(kind: Kind) -> Value {
    let matching = match kind.name == HTTP.name {
        true => json!({"path": {"type": "PathPrefix", "value": "/a"}}),
        false => json!({"method": {"service": "a.B", "method": "C"}}),
    };
    json!({
        "parentRefs": [{"group": "", "kind": "Service", "name": "web", "port": 80}],
        "rules": [{"matches": [matching], "backendRefs": [{"name": "v1", "port": 80}]}],
    })
}

/// The route with these fields, each by its JSON pointer, whose parent exists.
fn case(kind: Kind, name: &str, changes: Map<String, Value>) -> Case {
    let mut spec = base(kind);
    for (pointer, value) in changes {
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        spec.pointer_mut(parent).unwrap()[field] = value;
    }
    Case { kind, name: name.into(), spec }
}

/// The rows of a table that are of the kind: those that say none are of both.
fn table(kind: Kind, text: &str) -> Vec<Case> {
    let rows: Vec<Map<String, Value>> = serde_saphyr::from_str(text).unwrap();
    let read = |mut row: Map<String, Value>| {
        let name = row.remove("name").unwrap();
        let of = row.remove("kind").unwrap_or_else(|| kind.name.into());
        (of == kind.name).then(|| case(kind, name.as_str().unwrap(), row))
    };
    rows.into_iter().filter_map(read).collect()
}

/// The route with so many entries of a list, which differ by their number if they have `NUMBER`.
fn many(kind: Kind, pointer: &str, entry: &Value, count: usize) -> Case {
    let text = entry.to_string();
    let entry = |at: usize| serde_json::from_str(&text.replace("NUMBER", &at.to_string())).unwrap();
    let entries: Vec<Value> = (0..count).map(entry).collect();
    let change = (pointer.to_owned(), entries.into());
    case(kind, &format!("{count} entries of {pointer}"), [change].into_iter().collect())
}

/// Lists with as many entries as there may be, or `more`.
fn lists(kind: Kind, more: usize) -> Vec<Case> {
    let any = json!({"headers": [{"name": "a", "value": "a"}]});
    let backend = json!({"name": "v1", "port": 80});
    let mirror = json!({"type": "RequestMirror", "requestMirror": {"backendRef": backend}});
    let matches = |count: usize| json!({"matches": vec![&any; count]});
    let all_matches = json!([matches(64), matches(63), matches(1 + more)]);
    let all_matches = [("/rules".to_owned(), all_matches)].into_iter().collect();
    let parent = json!({"group": "", "kind": "Service", "name": "sNUMBER"});
    let many = |pointer: &str, entry: &Value, most: usize| many(kind, pointer, entry, most + more);
    vec![
        many("/parentRefs", &parent, 32),
        many("/hostnames", &json!("aNUMBER"), 16),
        many("/rules", &json!({"backendRefs": [backend]}), 16),
        many("/rules/0/matches", &any, 64),
        many("/rules/0/backendRefs", &backend, 16),
        many("/rules/0/filters", &mirror, 16),
        many("/rules/0/backendRefs/0/filters", &mirror, 16),
        case(kind, &format!("{} matches in all", 128 + more), all_matches),
    ]
}

fn named(kind: Kind, name: &str) -> Case {
    case(kind, &format!("{NAMED}{name}"), Map::new())
}

/// What both take.
pub(crate) fn valid(kind: Kind) -> Vec<Case> {
    let names = ["a.b-c.0", &"a".repeat(253)].map(|name| named(kind, name));
    [table(kind, include_str!("valid.yaml")), lists(kind, 0), names.into()].concat()
}

/// What both refuse.
pub(crate) fn invalid(kind: Kind) -> Vec<Case> {
    let names = ["A", "a_b", "-a", "a-", "a..b", "a.", "ä", "a/b", ".", &"a".repeat(254)];
    let names = names.map(|name| named(kind, name));
    [table(kind, include_str!("invalid.yaml")), lists(kind, 1), names.into()].concat()
}

/// Valid routes that have all fields between them.
pub(crate) fn seeds(kind: Kind) -> Vec<Case> {
    table(kind, include_str!("seeds.yaml"))
}

//! Mutations of a route, one for each bound of each field that it has: just within the bound, and just beyond it.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::Case;

/// Every mutation of the seed's fields.
pub(crate) fn all(schema: &Value, seed: &Case) -> Vec<Case> {
    let mut places = Vec::new();
    collect(schema, &seed.spec, &mut Vec::new(), &mut places);
    let mut seen = BTreeSet::new();
    let mut cases = Vec::new();
    for (path, schema, value) in places {
        for (what, mutated) in mutations(schema, value) {
            let kind = |step: &String| {
                if step.parse::<usize>().is_ok() { "[]".into() } else { step.clone() }
            };
            let field = path.iter().map(kind).collect::<Vec<_>>().join(".");
            let name = format!("{}: {field}: {what}", seed.name);
            if seen.insert(name.clone()) {
                let mut spec = seed.spec.clone();
                put(&mut spec, &path, mutated);
                cases.push(Case { kind: seed.kind, name, spec });
            }
        }
    }
    cases
}

type Place<'a> = (Vec<String>, &'a Value, &'a Value);

/// The seed's fields and entries with their schemas.
fn collect<'a>(
    schema: &'a Value,
    value: &'a Value,
    path: &mut Vec<String>,
    places: &mut Vec<Place<'a>>,
) {
    if !path.is_empty() {
        places.push((path.clone(), schema, value));
    }
    let children: Vec<(String, &Value, &Value)> = match value {
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| (name.clone(), &schema["properties"][name], value))
            .collect(),
        Value::Array(entries) => {
            let entries = entries.iter().enumerate();
            entries.map(|(at, value)| (at.to_string(), &schema["items"], value)).collect()
        }
        _ => Vec::new(),
    };
    for (step, schema, value) in children {
        assert!(schema.is_object(), "the schema has no {path:?} {step}");
        path.push(step);
        collect(schema, value, path, places);
        path.pop();
    }
}

/// What to put in place of a value; None: leave it out.
fn mutations(schema: &Value, value: &Value) -> Vec<(String, Option<Value>)> {
    let mut made = vec![
        ("null".to_owned(), Some(Value::Null)),
        ("another type".to_owned(), Some(other_type(value))),
        ("left out".to_owned(), None),
    ];
    let mut add = |what: &str, value: Value| made.push((what.into(), Some(value)));
    match value {
        Value::String(text) => {
            if schema["enum"].is_array() {
                add("not of the enumeration", json!("Nonsense"));
                add("in another case", json!(swap_case(text)));
            }
            add("empty", json!(""));
            if schema["pattern"].is_string() || schema["maxLength"].is_u64() {
                for text in [
                    "a b", "-a", "a-", "A", "a_b", "ä", "a..b", "*", "a.b", "*.a", "a/b", "0",
                    "1h", "\n",
                ] {
                    add(&format!("{text:?}"), json!(text));
                }
            }
            if let Some(most) = schema["maxLength"].as_u64() {
                let most = usize::try_from(most).unwrap();
                let long = |length: usize| format!("{text}{}", "a".repeat(length - text.len()));
                add("as long as may be", json!(long(most)));
                add("too long", json!(long(most + 1)));
            }
        }
        Value::Number(_) => {
            for (bound, what) in [("minimum", "least"), ("maximum", "most")] {
                if let Some(bound) = schema[bound].as_i64() {
                    for near in [bound - 1, bound, bound + 1] {
                        add(&format!("{what} {near}"), json!(near));
                    }
                }
            }
            add("not of the enumeration", json!(299));
            add("beyond 32 bits", json!(i64::from(i32::MAX) + 1));
            add("a fraction", json!(1.5));
        }
        Value::Array(entries) => {
            add("no entry", json!([]));
            let Some(first) = entries.first() else { return made };
            add("an entry twice", json!([first, first]));
            if let Some(most) = schema["maxItems"].as_u64() {
                let many = |count: u64| (0..count).map(|at| another(first, at)).collect();
                add("as many as may be", Value::Array(many(most)));
                add("too many", Value::Array(many(most + 1)));
            }
        }
        Value::Object(fields) => {
            add("empty", json!({}));
            let unknown = fields.iter().map(|(name, value)| (name.clone(), value.clone()));
            let unknown: Map<_, _> = unknown.chain([("unknown".to_owned(), json!(1))]).collect();
            add("an unknown field", unknown.into());
        }
        Value::Bool(_) | Value::Null => {}
    }
    made
}

fn other_type(value: &Value) -> Value {
    match value {
        Value::String(_) => json!(5),
        Value::Object(_) => json!([]),
        Value::Array(_) => json!({}),
        _ => json!("x"),
    }
}

fn swap_case(text: &str) -> String {
    let swap =
        |c: char| if c.is_uppercase() { c.to_ascii_lowercase() } else { c.to_ascii_uppercase() };
    text.chars().map(swap).collect()
}

/// An entry like this one that is not equal to it.
fn another(entry: &Value, at: u64) -> Value {
    let mut other = entry.clone();
    match &mut other {
        Value::String(text) => text.push_str(&at.to_string()),
        Value::Number(number) => return json!(number.as_u64().unwrap_or_default() + at),
        Value::Object(fields) => {
            for name in ["name", "sectionName"] {
                if let Some(Value::String(text)) = fields.get_mut(name) {
                    text.push_str(&at.to_string());
                }
            }
        }
        _ => {}
    }
    other
}

fn put(spec: &mut Value, path: &[String], value: Option<Value>) {
    let (last, parents) = path.split_last().unwrap();
    let parent = parents.iter().fold(spec, |value, step| match value {
        Value::Array(entries) => &mut entries[step.parse::<usize>().unwrap()],
        other => &mut other[step.as_str()],
    });
    match (parent, value) {
        (Value::Array(entries), Some(value)) => entries[last.parse::<usize>().unwrap()] = value,
        (Value::Array(entries), None) => drop(entries.remove(last.parse::<usize>().unwrap())),
        (Value::Object(fields), Some(value)) => drop(fields.insert(last.clone(), value)),
        (Value::Object(fields), None) => drop(fields.remove(last)),
        (other, _) => panic!("{other} has no fields"),
    }
}

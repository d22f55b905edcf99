//! Fields that a newer CRD gives to every HTTPRoute: the API server writes a default where the author
//! wrote nothing, so that such a field says nothing, and must not take a route out of force. In: the
//! schema of a CRD. Out: whether a field that mirror does not know says what is the default anyway. Pure.

use std::collections::BTreeMap;

use serde_json::Value;

/// Levels of a schema that are looked at; the Gateway API's has some ten.
const DEPTH: usize = 24;

/// The defaults of a CRD's schema, by the path of the field, as `spec.rules[].retry.attempts`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Defaults(BTreeMap<String, Value>);

impl Defaults {
    /// Those of an `openAPIV3Schema`. A schema that is not as expected has none.
    #[must_use]
    pub fn of_schema(schema: &Value) -> Self {
        let mut defaults = Self::default();
        defaults.add("", schema, DEPTH);
        defaults
    }

    fn add(&mut self, path: &str, schema: &Value, depth: usize) {
        if depth == 0 {
            return;
        }
        if let Some(default) = schema.get("default") {
            self.0.insert(path.into(), default.clone());
        }
        let properties = schema.get("properties").and_then(Value::as_object);
        for (name, schema) in properties.into_iter().flatten() {
            self.add(&join(path, name), schema, depth - 1);
        }
        if let Some(items) = schema.get("items") {
            self.add(&format!("{path}[]"), items, depth - 1);
        }
    }

    /// Whether the field at `path` (as `spec.rules[0].retry`) of an object has its default, within which
    /// the defaults of what it contains may have been added.
    pub(super) fn has(&self, path: &str, value: &Value) -> bool {
        self.is_default(&without_places(path), value, DEPTH)
    }

    fn is_default(&self, path: &str, value: &Value, depth: usize) -> bool {
        let Some(default) = self.0.get(path) else { return false };
        if default == value {
            return true;
        }
        let Some(fields) = value.as_object().filter(|_| depth > 0 && default.is_object()) else {
            return false;
        };
        fields.iter().all(|(name, value)| {
            default.get(name) == Some(value) || self.is_default(&join(path, name), value, depth - 1)
        })
    }
}

/// The path of a field within what stands at `path`.
pub(super) fn join(path: &str, field: &str) -> String {
    if path.is_empty() { field.into() } else { format!("{path}.{field}") }
}

/// `rules[12].name` as `rules[].name`.
fn without_places(path: &str) -> String {
    let mut within = false;
    let kept = path.chars().filter(|c| {
        within = (within || *c == '[') && *c != ']';
        !within || *c == '['
    });
    kept.collect()
}

/// The value at a path such as `rules[12].name`.
pub(super) fn at<'v>(value: &'v Value, path: &str) -> Option<&'v Value> {
    let steps = path.split(['.', '[']).map(|step| step.trim_end_matches(']'));
    steps.filter(|step| !step.is_empty()).try_fold(value, |value, step| match value {
        Value::Array(items) => items.get(step.parse::<usize>().ok()?),
        value => value.get(step),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_default_is_known_by_its_path_and_its_whole_value() {
        let schema = json!({"properties": {"spec": {"properties": {"rules": {
            "default": [{}],
            "items": {"properties": {
                "mode": {"type": "string", "default": "Fast"},
                "retry": {"default": {}, "properties": {
                    "attempts": {"default": 2}, "codes": {"items": {"type": "integer"}},
                }},
            }},
        }}}}});
        let defaults = Defaults::of_schema(&schema);
        for (path, value, expected) in [
            ("spec.rules[0].mode", json!("Fast"), true),
            ("spec.rules[15].mode", json!("Fast"), true),
            ("spec.rules[0].mode", json!("Slow"), false),
            ("spec.mode", json!("Fast"), false),
            ("spec.rules[0].retry", json!({}), true),
            ("spec.rules[0].retry", json!({"attempts": 2}), true),
            ("spec.rules[0].retry", json!({"attempts": 3}), false),
            ("spec.rules[0].retry", json!({"codes": []}), false),
            ("spec.rules[0].retry.codes", json!([]), false),
        ] {
            assert_eq!(defaults.has(path, &value), expected, "{path}: {value}");
        }
        for odd in [json!(7), json!({"properties": 7}), json!({"items": []})] {
            assert_eq!(Defaults::of_schema(&odd), Defaults::default());
        }
    }

    #[test]
    fn values_are_found_by_their_path() {
        let value = json!({"a": [{"b": 1}, {"c.d": 2, "e": {"f": 3}}]});
        assert_eq!(at(&value, "a[1].e.f"), Some(&json!(3)));
        assert_eq!(at(&value, "a[0]"), Some(&json!({"b": 1})));
        assert_eq!(at(&value, "a[2].e"), None);
        assert_eq!(at(&value, "a.e"), None);
    }
}

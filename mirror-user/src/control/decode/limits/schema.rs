//! An OpenAPI schema as CRDs have it. In: a value. Out: the first field that breaks a bound or a pattern, that
//! stands twice in a list that is a set or a map, or that is a list in place of an object (which deserialization
//! takes for the object's fields in their order). Other types, enumerations, durations, and fields that are missing
//! or unknown are left to decoding, where they are the matter of one rule.

use std::{collections::BTreeMap, sync::LazyLock};

use serde_json::Value;

use super::{Decoded, refuse};
use crate::route::{Pattern, PatternError};

/// That of `spec` in the CRD of HTTPRoutes: Gateway API v1.7.0, standard channel, without descriptions. Its
/// rules in CEL are [`super::rules`], those on filters in `decode::filter`.
pub(super) static HTTP_ROUTE: LazyLock<Schema> = LazyLock::new(|| parse(HTTP_ROUTE_TEXT));

/// The same of GRPCRoutes.
pub(super) static GRPC_ROUTE: LazyLock<Schema> = LazyLock::new(|| parse(GRPC_ROUTE_TEXT));

/// As JSON.
pub(in crate::control) const HTTP_ROUTE_TEXT: &str = include_str!("httproute.json");
pub(in crate::control) const GRPC_ROUTE_TEXT: &str = include_str!("grpcroute.json");

fn parse(text: &str) -> Schema {
    let schema = serde_json::from_str(text).expect("a unit test parses it");
    Schema::new(&schema, &mut BTreeMap::new()).expect("a unit test compiles its expressions")
}

/// The expression of durations.
const DURATION: &str = "^([0-9]{1,5}(h|m|s|ms)){1,4}$";

/// A schema, with that of each field or entry.
#[derive(Debug)]
pub(super) struct Schema {
    properties: BTreeMap<String, Schema>,
    items: Option<Box<Schema>>,
    least_items: Option<usize>,
    most_items: Option<usize>,
    unique: Unique,
    /// In characters.
    least_length: Option<usize>,
    most_length: Option<usize>,
    pattern: Option<Pattern>,
    least: Option<i64>,
    most: Option<i64>,
}

/// What no two entries of a list have in common.
#[derive(Debug)]
enum Unique {
    Nothing,
    /// The list is a set.
    Everything,
    /// It is a map, by these fields.
    Fields(Vec<String>),
}

impl Schema {
    /// Reads a schema. `patterns`: the expressions so far, many of which occur more than once.
    fn new(schema: &Value, patterns: &mut BTreeMap<String, Pattern>) -> Result<Self, PatternError> {
        let count = |name: &str| schema[name].as_u64().and_then(|count| count.try_into().ok());
        let texts = |name: &str| {
            let texts = schema[name].as_array().into_iter().flatten();
            texts.filter_map(|text| text.as_str().map(String::from)).collect::<Vec<_>>()
        };
        let mut properties = BTreeMap::new();
        for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
            properties.insert(name.clone(), Self::new(schema, patterns)?);
        }
        let items = schema.get("items").map(|items| Self::new(items, patterns));
        let pattern = match schema["pattern"].as_str().filter(|source| *source != DURATION) {
            Some(source) if !patterns.contains_key(source) => {
                patterns.insert(source.into(), Pattern::new(source)?);
                patterns.get(source)
            }
            source => source.and_then(|source| patterns.get(source)),
        };
        Ok(Self {
            properties,
            items: items.transpose()?.map(Box::new),
            least_items: count("minItems"),
            most_items: count("maxItems"),
            unique: match schema["x-kubernetes-list-type"].as_str() {
                Some("set") => Unique::Everything,
                Some("map") => Unique::Fields(texts("x-kubernetes-list-map-keys")),
                _ => Unique::Nothing,
            },
            least_length: count("minLength"),
            most_length: count("maxLength"),
            pattern: pattern.cloned(),
            least: schema["minimum"].as_i64(),
            most: schema["maximum"].as_i64(),
        })
    }

    /// Checks what stands at a path.
    pub(super) fn check(&self, path: &str, value: &Value) -> Decoded<()> {
        match value {
            Value::Object(fields) => {
                fields.iter().try_for_each(|(name, value)| match self.properties.get(name) {
                    Some(schema) => schema.check(&format!("{path}.{name}"), value),
                    None => Ok(()),
                })
            }
            Value::Array(_) if self.items.is_none() => refuse(path, "is a list, not an object"),
            Value::Array(entries) => self.check_list(path, entries),
            Value::String(text) => self.check_text(path, text),
            Value::Number(number) => self.check_number(path, number.as_i64()),
            Value::Null | Value::Bool(_) => Ok(()),
        }
    }

    fn check_list(&self, path: &str, entries: &[Value]) -> Decoded<()> {
        let count = entries.len();
        if let Some(most) = self.most_items.filter(|most| count > *most) {
            return refuse(path, &format!("has {count} entries, and may have {most}"));
        }
        if self.least_items.is_some_and(|least| count < least) {
            return refuse(path, "is empty, and must have an entry");
        }
        for (at, entry) in entries.iter().enumerate() {
            let path = format!("{path}[{at}]");
            if let Some(items) = &self.items {
                items.check(&path, entry)?;
            }
            self.check_unique(&path, &entries[..at], entry)?;
        }
        Ok(())
    }

    fn check_unique(&self, path: &str, before: &[Value], entry: &Value) -> Decoded<()> {
        match &self.unique {
            Unique::Nothing => Ok(()),
            Unique::Everything if before.contains(entry) => {
                refuse(path, &format!("{entry} is an entry before this one"))
            }
            Unique::Everything => Ok(()),
            Unique::Fields(fields) => {
                let same = |other: &&Value| fields.iter().all(|field| other[field] == entry[field]);
                let (Some(_), Some(field)) = (before.iter().find(same), fields.first()) else {
                    return Ok(());
                };
                let reason = format!("{} is that of an entry before this one", entry[field]);
                refuse(&format!("{path}.{field}"), &reason)
            }
        }
    }

    fn check_text(&self, path: &str, text: &str) -> Decoded<()> {
        let count = text.chars().count();
        if self.least_length.is_some_and(|least| count < least) {
            return refuse(path, "is empty");
        }
        if let Some(most) = self.most_length.filter(|most| count > *most) {
            return refuse(path, &format!("has {count} characters, and may have {most}"));
        }
        match &self.pattern {
            Some(pattern) if !pattern.matches(text.as_bytes()) => {
                let pattern = pattern.as_str();
                refuse(path, &format!("{text:?} does not match the expression {pattern}"))
            }
            _ => Ok(()),
        }
    }

    fn check_number(&self, path: &str, number: Option<i64>) -> Decoded<()> {
        let (least, most) = (self.least.unwrap_or(i64::MIN), self.most.unwrap_or(i64::MAX));
        match number {
            Some(number) if number < least => {
                refuse(path, &format!("{number} is less than {least}"))
            }
            Some(number) if number > most => refuse(path, &format!("{number} is more than {most}")),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schemas_of_the_api_parse_with_their_patterns() {
        for schema in [&HTTP_ROUTE, &GRPC_ROUTE] {
            let name = &schema.properties["rules"].items.as_ref().unwrap().properties["name"];
            assert_eq!(name.most_length, Some(253));
            assert!(name.check("name", &"a-b.c".into()).is_ok());
            assert!(name.check("name", &"a_b".into()).is_err());
        }
    }
}

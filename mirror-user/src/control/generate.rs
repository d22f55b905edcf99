//! Random routes that the schemas of the CRDs let through, for tests. In: a schema of OpenAPI, a seed. Out: the same
//! values for the same seed. Values that mean something to the objects of the tests are frequent (names, ports,
//! `kind: Service`, a filter with the field of its type); everything that the schema allows occurs.

use std::collections::{BTreeMap, BTreeSet};

use proptest::{
    strategy::{Strategy as _, ValueTree as _},
    string::string_regex,
    test_runner::TestRunner,
};
use serde_json::{Map, Value, json};

use crate::model::RouteKind;

/// Longest list that is made, if the schema does not demand more.
const LIST: u64 = 3;

/// How many texts are made of an expression.
const TEXTS: usize = 200;

pub(super) struct Generator {
    state: u64,
    /// By expression, and bounds of the length.
    texts: BTreeMap<(String, u64, u64), Vec<String>>,
}

impl Generator {
    pub(super) fn new(seed: u64) -> Self {
        Self { state: seed, texts: BTreeMap::new() }
    }

    /// A route of one of two namespaces.
    pub(super) fn route(&mut self, kind: RouteKind, schema: &Value, name: &str) -> Value {
        let namespace = self.one_of(&["n", "m"]);
        let mut metadata = json!({"name": name, "namespace": namespace});
        if self.often(2, 3) {
            let second = self.below(3);
            metadata["creationTimestamp"] = json!(format!("2026-01-01T00:00:0{second}Z"));
        }
        let spec = self.value(schema, "spec");
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": kind.label(),
            "metadata": metadata,
            "spec": spec,
        })
    }

    /// Less than `bound`, which is not 0 (splitmix64).
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    fn often(&mut self, times: u64, of: u64) -> bool {
        self.below(of) < times
    }

    fn one_of<T: Clone>(&mut self, values: &[T]) -> T {
        let at = self.below(values.len() as u64);
        values[usize::try_from(at).unwrap()].clone()
    }

    fn value(&mut self, schema: &Value, field: &str) -> Value {
        if let Some(values) = schema["enum"].as_array() {
            return self.one_of(values);
        }
        match schema["type"].as_str() {
            Some("object") => self.object(schema),
            Some("array") => self.list(schema, field),
            Some("string") => self.text(schema, field).into(),
            Some("integer") => self.integer(schema, field).into(),
            Some("boolean") => self.often(1, 2).into(),
            other => panic!("{field} has the type {other:?}"),
        }
    }

    fn object(&mut self, schema: &Value) -> Value {
        let required: Vec<_> = schema["required"].as_array().into_iter().flatten().collect();
        let mut fields = Map::new();
        for (name, schema) in schema["properties"].as_object().unwrap() {
            let odds = match &name[..] {
                "kind" | "group" | "port" | "parentRefs" | "backendRefs" => 9,
                "sectionName" | "retry" => 1,
                _ => 4,
            };
            if required.iter().any(|field| *field == name) || self.often(odds, 10) {
                fields.insert(name.clone(), self.value(schema, name));
            }
        }
        if self.often(9, 10) {
            self.fit(schema, &mut fields);
        }
        fields.into()
    }

    /// Leaves the field that the value of `type` names alone, as rules in CEL demand: `requestMirror` of
    /// `RequestMirror`, `replaceFullPath` of `ReplaceFullPath`.
    fn fit(&mut self, schema: &Value, fields: &mut Map<String, Value>) {
        let Some(kind) = fields.get("type").and_then(Value::as_str) else { return };
        let kind = kind.to_ascii_lowercase();
        let properties = schema["properties"].as_object().unwrap();
        let Some(own) = properties.keys().find(|name| name.to_ascii_lowercase() == kind) else {
            return;
        };
        let made = self.value(&properties[own], own);
        fields.retain(|name, _| name == "type");
        fields.insert(own.clone(), made);
    }

    fn list(&mut self, schema: &Value, field: &str) -> Value {
        let least = schema["minItems"].as_u64().unwrap_or(0);
        let most = schema["maxItems"].as_u64().unwrap_or(LIST);
        // Seldom as many as there may be.
        let count = match self.often(1, 200) {
            true => most.min(20),
            false => least + self.below(LIST.min(most) - least + 1),
        };
        let count = if field == "parentRefs" { count.max(1) } else { count };
        let mut entries = Vec::new();
        let mut seen = BTreeSet::new();
        for _ in 0..count {
            let entry = self.value(&schema["items"], field);
            let identity = match schema["x-kubernetes-list-type"].as_str() {
                Some("set") => entry.to_string(),
                Some("map") => entry["name"].to_string(),
                _ => entries.len().to_string(),
            };
            if seen.insert(identity) {
                entries.push(entry);
            }
        }
        entries.into()
    }

    fn text(&mut self, schema: &Value, field: &str) -> String {
        let usual: &[&str] = match field {
            "name" => &["a", "b", "c"],
            "namespace" => &["n", "m"],
            "group" => &["", "", "", "", "", "", "", "core", "gateway.networking.k8s.io"],
            "kind" => &["Service", "Service", "Service", "Service", "Service", "Gateway"],
            "sectionName" => &["p80", "p81"],
            "value" => &["/", "/a", "/a/b", "x", "[a-z]+", "(", "/a//b"],
            // Of a gRPC call.
            "service" => &["a.B", "a", ".a.B", "a/b", "a.*"],
            "method" => &["Echo", "E.*", "", "a/b"],
            _ => &[],
        };
        if !usual.is_empty() && self.often(19, 20) {
            return self.one_of(usual).into();
        }
        let (least, most) =
            (schema["minLength"].as_u64().unwrap_or(0), schema["maxLength"].as_u64().unwrap_or(40));
        let pattern = schema["pattern"].as_str().map(without_anchors);
        let key = (pattern.unwrap_or_default(), least, most);
        let draw = usize::try_from(self.below(1 << 30)).unwrap();
        let texts = self.texts.entry(key).or_insert_with_key(texts);
        texts[draw % texts.len()].clone()
    }

    fn integer(&mut self, schema: &Value, field: &str) -> i64 {
        if field == "port" && self.often(9, 10) {
            return self.one_of(&[80, 80, 80, 81, 82]);
        }
        let least = schema["minimum"].as_i64().unwrap_or(0);
        let most = schema["maximum"].as_i64().unwrap_or(i64::from(i32::MAX));
        match self.below(4) {
            0 => least,
            1 => most,
            _ => {
                let span = u64::try_from(most - least).unwrap() + 1;
                least + i64::try_from(self.below(span)).unwrap()
            }
        }
    }
}

/// Texts that match an expression, or any texts, within these bounds of their length.
fn texts((pattern, least, most): &(String, u64, u64)) -> Vec<String> {
    let any = format!("\\PC{{{least},{}}}", most.min(&30).max(least));
    let pattern = if pattern.is_empty() { &any } else { pattern };
    let strategy = string_regex(pattern).unwrap();
    let mut runner = TestRunner::deterministic();
    let made = std::iter::repeat_with(|| strategy.new_tree(&mut runner).unwrap().current());
    let fits = |text: &String| (*least..=*most).contains(&(text.chars().count() as u64));
    made.filter(fits).take(TEXTS).collect()
}

/// The expression without `^` and `$`, which stand at the ends of the CRD's expressions and alternatives.
fn without_anchors(pattern: &str) -> String {
    let (mut bare, mut class, mut escaped) = (String::new(), false, false);
    for character in pattern.chars() {
        match character {
            _ if escaped => {}
            '[' => class = true,
            ']' => class = false,
            '^' | '$' if !class => continue,
            _ => {}
        }
        escaped = character == '\\' && !escaped;
        bare.push(character);
    }
    bare
}

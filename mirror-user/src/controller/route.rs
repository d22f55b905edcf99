//! One HTTPRoute, as far as a write of its status is about it. In: the object as it came. Out: a
//! row, and the route for [`crate::control::resolve`] if it decodes. Pure.

use serde_json::Value;

use crate::control::{decode, objects::Object, resolve::Condition};

/// `apiVersion` of HTTPRoutes as they are watched and written.
pub const VERSION: &str = "gateway.networking.k8s.io/v1";

/// What a write needs to know.
#[derive(Clone, Debug)]
pub struct RouteRow {
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.generation`.
    pub generation: i64,
    /// `metadata.resourceVersion`.
    pub version: String,
    /// Its parentRefs that are Services, verbatim.
    pub parent_refs: Vec<Value>,
    /// `status.parents`, verbatim.
    pub parents: Vec<Value>,
    /// Whether it is being deleted.
    pub leaving: bool,
    /// What the decoder said.
    pub verdict: Verdict,
}

/// What became of a route in the decoder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is among the objects.
    Decoded,
    /// No Service is among its parents: others judge it.
    Foreign,
    /// Its condition Accepted.
    Refused(Condition),
}

impl RouteRow {
    /// Reads an object with apiVersion and kind.
    ///
    /// # Errors
    /// When it lacks what every stored object has.
    pub fn read(value: &Value) -> Result<(Self, Option<Object>), String> {
        let text = |path: &str| value.pointer(path).and_then(Value::as_str).map(str::to_owned);
        let stored = |path: &str| text(path).ok_or_else(|| format!("it has no {path}"));
        let parents = value.pointer("/status/parents").and_then(Value::as_array);
        let (verdict, object) = match decode::decode(value.clone()) {
            Ok(route @ Object::Route(_)) => (Verdict::Decoded, Some(route)),
            Ok(_) => (Verdict::Foreign, None),
            Err(error) => (Verdict::Refused(Condition::refused(&error)), None),
        };
        let row = Self {
            uid: stored("/metadata/uid")?,
            generation: value
                .pointer("/metadata/generation")
                .and_then(Value::as_i64)
                .ok_or("it has no /metadata/generation")?,
            version: stored("/metadata/resourceVersion")?,
            parent_refs: decode::service_parents(value).cloned().collect(),
            parents: parents.cloned().unwrap_or_default(),
            leaving: value.pointer("/metadata/deletionTimestamp").is_some(),
            verdict,
        };
        Ok((row, object))
    }
}

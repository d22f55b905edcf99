//! One route, as far as a write of its status is about it. In: the object as it came. Out: a
//! row, and the route for [`crate::control::resolve`] if it decodes. Pure.

use serde_json::Value;

use crate::control::{
    decode::{self, Defaults},
    expressions::Allowance,
    objects::Object,
    resolve::Condition,
};

/// `apiVersion` of routes as they are watched and written.
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
    pub verdict: DecodeVerdict,
    /// Whether it, or a rule of it, is refused because of a field that mirror does not know.
    pub unknown_fields: bool,
}

/// What became of a route in the decoder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DecodeVerdict {
    /// It is among the objects.
    Decoded,
    /// No Service is among its parents: other controllers write its status.
    Foreign,
    /// Its condition Accepted.
    Refused(Condition),
}

impl RouteRow {
    /// Reads an object with apiVersion and kind. `defaults` and `expressions`: as
    /// [`decode::decode_within`].
    ///
    /// # Errors
    /// When it lacks what every stored object has.
    pub fn read(
        value: &Value,
        defaults: &Defaults,
        expressions: &mut Allowance,
    ) -> Result<(Self, Option<Object>), String> {
        let mut unknown_fields = false;
        let (verdict, object) = match decode::decode_within(value.clone(), defaults, expressions) {
            Ok(Object::Route(route)) => {
                unknown_fields = route.has_unknown_fields();
                (DecodeVerdict::Decoded, Some(Object::Route(route)))
            }
            Ok(other) => (DecodeVerdict::Foreign, Some(other)),
            Err(error) => {
                unknown_fields = error.fault.is_unknown_field();
                (DecodeVerdict::Refused(Condition::refused(&error)), None)
            }
        };
        Self::new(value, verdict).map(|row| (Self { unknown_fields, ..row }, object))
    }

    /// The same for a route that is refused whatever its content.
    ///
    /// # Errors
    /// As for [`RouteRow::read`].
    pub fn unread(value: &Value, refusal: Condition) -> Result<Self, String> {
        Self::new(value, DecodeVerdict::Refused(refusal))
    }

    fn new(value: &Value, verdict: DecodeVerdict) -> Result<Self, String> {
        let text = |path: &str| value.pointer(path).and_then(Value::as_str).map(str::to_owned);
        let stored = |path: &str| text(path).ok_or_else(|| format!("it has no {path}"));
        let parents = value.pointer("/status/parents").and_then(Value::as_array);
        Ok(Self {
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
            unknown_fields: false,
        })
    }
}

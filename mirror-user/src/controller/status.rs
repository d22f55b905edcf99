//! Status: what `status.parents` of a route says, and the conditions that it should say, in;
//! the whole list to write, or that nothing needs to be written, out. Pure.
//!
//! `status.parents` is an atomic list (HTTPRoute's and GRPCRoute's CRD, `x-kubernetes-list-type`): who writes,
//! writes all of it. Entries of other controllers therefore pass through verbatim, as the JSON that
//! they are, in their places.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::control::resolve::{Condition, RouteStatus};

#[cfg(test)]
mod tests;

/// `controllerName` of our entries (RouteParentStatus).
pub const CONTROLLER: &str = "mirror.dev/controller";

/// `maxItems` of `status.parents`.
const MAX_PARENTS: usize = 32;

/// Characters of a condition's message; the API allows 32,768.
const MAX_MESSAGE: usize = 4096;

/// What our entry for one parent says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParentStatus {
    /// The entry of `spec.parentRefs`, verbatim.
    pub parent_ref: Value,
    /// Type and condition, in the order in which they are written.
    pub conditions: Vec<(&'static str, Condition)>,
}

impl ParentStatus {
    /// Of a parent that [`crate::control::resolve`] has judged.
    #[must_use]
    pub fn resolved(parent_ref: Value, status: &RouteStatus) -> Self {
        let mut conditions = vec![
            ("Accepted", status.accepted.clone()),
            ("ResolvedRefs", status.resolved_refs.clone()),
        ];
        conditions.extend(status.partially_invalid.clone().map(|c| ("PartiallyInvalid", c)));
        Self { parent_ref, conditions }
    }

    /// Adds to the message of the first condition what is no fault of the route.
    pub fn warning_for(&mut self, warning_for: &str) {
        if let Some((_, condition)) = self.conditions.first_mut() {
            condition.message = format!("{}; {warning_for}", condition.message);
        }
    }

    /// Of a parent of a route that the decoder refused: its references were not looked at.
    #[must_use]
    pub fn refused(parent_ref: Value, refusal: &Condition) -> Self {
        Self { parent_ref, conditions: vec![("Accepted", refusal.clone())] }
    }
}

/// The moment of a computation.
#[derive(Clone, Copy, Debug)]
pub struct Moment<'a> {
    /// `metadata.generation` that the conditions are about.
    pub generation: i64,
    /// Now, in RFC 3339: `lastTransitionTime` of conditions that change.
    pub time: &'a str,
}

/// The whole list as it should be, or None when it is so already.
///
/// - Entries of other controllers stay as they are, where they are.
/// - Ours of parents that are no longer `wanted` go.
/// - `lastTransitionTime` changes when a condition's status does, and only then.
/// - An entry about a newer generation than `moment` stays, because its writer knew more.
/// - Ours never make the list longer than the API allows; what has no place is left out.
#[must_use]
pub fn parents(
    current: &[Value],
    wanted: &[ParentStatus],
    moment: Moment<'_>,
) -> Option<Vec<Value>> {
    let mut wanted = distinct(wanted);
    let mut list = Vec::new();
    for entry in current {
        if !is_ours(entry) {
            list.push(entry.clone());
            continue;
        }
        let parent_ref = entry.get("parentRef").unwrap_or(&Value::Null);
        if let Some(at) = wanted.iter().position(|status| status.parent_ref == *parent_ref) {
            list.push(update(entry, wanted.remove(at), moment));
        }
    }
    let room = MAX_PARENTS.saturating_sub(list.len());
    list.extend(wanted.into_iter().take(room).map(|status| update(&Value::Null, status, moment)));
    (list != current).then_some(list)
}

/// Whether any entry is ours.
#[must_use]
pub fn has_ours(current: &[Value]) -> bool {
    current.iter().any(is_ours)
}

/// A condition that a user must act on, and that was not there before.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Issue {
    /// Its type.
    pub condition: String,
    /// Its reason.
    pub reason: String,
    /// Its message.
    pub message: String,
}

/// What is wrong according to our entries in `after` and was not, or otherwise, in `before`; the
/// same at several parents counts once.
#[must_use]
pub fn new_issues(before: &[Value], after: &[Value]) -> BTreeSet<Issue> {
    let known = issues(before);
    issues(after).into_iter().filter(|issue| !known.contains(issue)).collect()
}

fn issues(parents: &[Value]) -> BTreeSet<Issue> {
    let ours = parents.iter().filter(|entry| is_ours(entry));
    let conditions =
        ours.filter_map(|entry| entry.get("conditions").and_then(Value::as_array)).flatten();
    let issue = |condition: &Value| {
        let field = |name| condition.get(name).and_then(Value::as_str).unwrap_or_default();
        let is_bad = match field("type") {
            "Accepted" | "ResolvedRefs" => field("status") == "False",
            // With any other reason it says again what ResolvedRefs says.
            "PartiallyInvalid" => {
                matches!(field("reason"), "UnsupportedValue" | "IncompatibleFilters")
            }
            _ => false,
        };
        let [condition, reason, message] =
            ["type", "reason", "message"].map(|n| field(n).to_owned());
        is_bad.then_some(Issue { condition, reason, message })
    };
    conditions.filter_map(issue).collect()
}

fn is_ours(entry: &Value) -> bool {
    entry.get("controllerName").and_then(Value::as_str) == Some(CONTROLLER)
}

/// Without repetitions: a list entry is known by its parentRef.
fn distinct(wanted: &[ParentStatus]) -> Vec<&ParentStatus> {
    let mut distinct: Vec<&ParentStatus> = Vec::new();
    for status in wanted {
        if !distinct.iter().any(|known| known.parent_ref == status.parent_ref) {
            distinct.push(status);
        }
    }
    distinct
}

/// Our entry for a parent; `before` is the one that is there, or null.
fn update(before: &Value, wanted: &ParentStatus, moment: Moment<'_>) -> Value {
    let before_conditions = before.get("conditions").and_then(Value::as_array);
    let before_conditions = before_conditions.map(Vec::as_slice).unwrap_or_default();
    let generation =
        |c: &Value| c.get("observedGeneration").and_then(Value::as_i64).unwrap_or_default();
    if before_conditions.iter().any(|condition| generation(condition) > moment.generation) {
        return before.clone();
    }
    let conditions = wanted.conditions.iter().map(|(kind, wanted)| {
        let is_it = |c: &&Value| c.get("type").and_then(Value::as_str) == Some(kind);
        condition(kind, wanted, before_conditions.iter().find(is_it), moment)
    });
    json!({
        "parentRef": wanted.parent_ref,
        "controllerName": CONTROLLER,
        "conditions": conditions.collect::<Vec<_>>(),
    })
}

fn condition(kind: &str, wanted: &Condition, before: Option<&Value>, moment: Moment<'_>) -> Value {
    let field = |name| before.and_then(|c: &Value| c.get(name)).and_then(Value::as_str);
    let status = if wanted.holds { "True" } else { "False" };
    let since = field("lastTransitionTime").filter(|_| field("status") == Some(status));
    let mut condition = Map::new();
    condition.insert("type".into(), kind.into());
    condition.insert("status".into(), status.into());
    condition.insert("reason".into(), wanted.reason.into());
    condition.insert("message".into(), bounded(&wanted.message).into());
    condition.insert("observedGeneration".into(), moment.generation.into());
    condition.insert("lastTransitionTime".into(), since.unwrap_or(moment.time).into());
    Value::Object(condition)
}

fn bounded(message: &str) -> String {
    match message.char_indices().nth(MAX_MESSAGE - 1) {
        None => message.into(),
        Some((end, _)) => format!("{}…", &message[..end]),
    }
}

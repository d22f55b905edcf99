//! What the API server refuses of a route, for routes that come from files: the schema of the CRD of its kind
//! (Gateway API v1.7, standard channel), and its rules that no type says. In a cluster the server has seen to
//! them, by the CRD that is installed there. In: a document. Out: the first field that breaks a rule.

use serde_json::Value;

use super::{DecodeFault, Decoded, fault::fail};
use crate::model::RouteKind;

mod rules;
mod schema;

#[cfg(test)]
pub(in crate::control) use self::schema::{GRPC_ROUTE_TEXT, HTTP_ROUTE_TEXT};

/// Bounds of names in `metadata` (RFC 1123), in characters.
const NAME: usize = 253;
const NAMESPACE: usize = 63;

/// Checks a document, if it is a route.
pub(super) fn check(document: &Value) -> Decoded<()> {
    let Some(kind) = document["kind"].as_str().and_then(RouteKind::of) else { return Ok(()) };
    let metadata = |field: &str| document.get("metadata")?.get(field)?.as_str();
    if let Some(name) = metadata("name")
        && !(name.len() <= NAME && name.split('.').all(is_label))
    {
        return refuse("metadata.name", &not_a_name(name));
    }
    if let Some(namespace) = metadata("namespace").filter(|namespace| !namespace.is_empty())
        && !(namespace.len() <= NAMESPACE && is_label(namespace))
    {
        return refuse("metadata.namespace", &not_a_name(namespace));
    }
    let Some(spec) = document.get("spec") else { return Ok(()) };
    let schema = match kind {
        RouteKind::Http => &schema::HTTP_ROUTE,
        RouteKind::Grpc => &schema::GRPC_ROUTE,
    };
    schema.check("spec", spec)?;
    rules::check(kind, spec)
}

fn not_a_name(text: &str) -> String {
    format!("{text:?} is not a name: lower-case letters, digits and hyphens")
}

/// A label of a DNS name.
fn is_label(label: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !label.is_empty()
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label.bytes().all(inner)
}

fn refuse<T>(path: &str, reason: &str) -> Decoded<T> {
    fail(path, DecodeFault::Invalid(format!("{reason} (the API server refuses the route)")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_are_those_of_kubernetes() {
        let faults = |name: &str, namespace: &str| {
            let metadata = json!({"name": name, "namespace": namespace});
            check(&json!({"kind": "HTTPRoute", "metadata": metadata})).err().map(|(path, _)| path.0)
        };
        assert_eq!(faults("a.b-0", "a-b"), None);
        for name in ["A", "a_b", "-a", "a-", "a..b", &"a".repeat(254)] {
            assert_eq!(faults(name, "default").as_deref(), Some("metadata.name"), "{name}");
        }
        for namespace in ["A", "a.b", "-a", &"a".repeat(64)] {
            assert_eq!(
                faults("a", namespace).as_deref(),
                Some("metadata.namespace"),
                "{namespace}"
            );
        }
    }
}

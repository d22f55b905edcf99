//! Decoding: one document in, one checked [`Object`] out, or an error that names the object, the
//! field and what is wrong with it. A field that mirror does not know, or knows and cannot honour,
//! is refused by name: a rule that is half in force is worse than one that is not. Within a route, what
//! is wrong with a rule is that rule's alone. (Of a Pod only what the selection of pods needs is read.)
//!
//! Any source of JSON values can use it: files, and a watch of dynamic objects.

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use self::fault::{Path, fail};
use super::{expressions::Allowance, objects::Object};

mod defaults;
mod duration;
mod fault;
mod filter;
mod limits;
mod matching;
mod metadata;
mod pod;
mod retry;
mod route;
mod rule;
mod service;
#[cfg(test)]
mod tests;

pub use self::defaults::Defaults;
pub use self::fault::{DecodeError, DecodeFault};
#[cfg(test)]
pub(super) use self::limits::{GRPC_ROUTE_TEXT, HTTP_ROUTE_TEXT};
pub use self::service::{endpoint_slice, service};
use crate::model::{ObjectName, RouteKind};

/// The `metadata` of an object; `kube` and `files` read it alike.
pub type Metadata = k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

const GATEWAY: &str = "gateway.networking.k8s.io";

/// Of HTTPRoute and ReferenceGrant alike: their v1 is their v1beta1.
const GATEWAY_VERSIONS: [&str; 2] =
    ["gateway.networking.k8s.io/v1", "gateway.networking.k8s.io/v1beta1"];

/// Decodes one object of a file (not a list: see [`expand`]). `status` is not read.
///
/// # Errors
/// With the object's kind and name, the field's path and the reason.
pub fn decode(document: Value) -> Result<Object, DecodeError> {
    let limits = limits::check(&document);
    let object = decode_within(document, &Defaults::default(), &mut Allowance::default())?;
    let (Object::Route(route), Err((path, fault))) = (&object, limits) else { return Ok(object) };
    if route.refused_rules().any(|(_, refusal)| refusal.path == path.0) {
        // Decoding knows it as well, as the matter of one rule.
        return Ok(object);
    }
    Err(DecodeError::new(&object.identity(), &path.0, fault))
}

/// The same of a cluster. `defaults`: of the CRD of the route's kind, if it is known. `expressions`: what other
/// routes have left for the expressions of this one, and what it has spent of that.
///
/// # Errors
/// As [`decode`].
pub fn decode_within(
    mut document: Value,
    defaults: &Defaults,
    expressions: &mut Allowance,
) -> Result<Object, DecodeError> {
    let (version, kind) = type_of(&document)?;
    let group = version.rsplit_once('/').map_or("", |(group, _)| group).to_owned();
    if !is_read(&group, &kind) {
        // Some of them have no name (a Kustomization).
        let nameless = || ObjectName { namespace: "default".into(), name: String::new() };
        let name = name_of(&document).unwrap_or_else(|_| nameless());
        return Ok(Object::Unread { kind: format!("{version} {kind}"), name });
    }
    let name = name_of(&document).map_err(|fault| DecodeError::new(&kind, "metadata", fault))?;
    let identity = format!("{kind} {name}");
    if (group.as_str(), kind.as_str()) == ("", "Pod") {
        if !pod::is_of_a_cluster(&document) {
            return Ok(Object::Unread { kind: "v1 Pod without a uid".into(), name });
        }
        let row = in_version(&version, &["v1"]).and_then(|()| pod::decode(document));
        return row.map_err(|(path, fault)| DecodeError::new(&identity, &path.0, fault));
    }
    if (group.as_str(), kind.as_str()) == ("", "Node") {
        let row = in_version(&version, &["v1"]).and_then(|()| metadata::node(&document));
        return row.map_err(|(path, fault)| DecodeError::new(&identity, &path.0, fault));
    }
    if let Value::Object(fields) = &mut document {
        // Written by others, and not part of what the user asks for.
        for field in ["status", "apiVersion", "kind"] {
            fields.remove(field);
        }
    }
    let decoded = match (group.as_str(), kind.as_str()) {
        ("", "Service") => in_version(&version, &["v1"]).and_then(|()| service::decode(&document)),
        ("", "Namespace") => {
            in_version(&version, &["v1"]).and_then(|()| metadata::namespace(&document))
        }
        ("discovery.k8s.io", "EndpointSlice") => {
            in_version(&version, &["discovery.k8s.io/v1"]).and_then(|()| service::slice(&document))
        }
        (GATEWAY, kind) if let Some(kind) = RouteKind::of(kind) => {
            if !names_a_service(&document) {
                let (name, misgrouped) = (kind.named(name), misgrouped_parents(&document));
                return Ok(Object::GatewayRoute { name, misgrouped });
            }
            in_version(&version, versions_of(kind))
                .and_then(|()| route::decode(kind, document, defaults, expressions))
        }
        _ => in_version(&version, &GATEWAY_VERSIONS).and_then(|()| metadata::grant(&document)),
    };
    decoded.map_err(|(path, fault)| DecodeError::new(&identity, &path.0, fault))
}

fn is_read(group: &str, kind: &str) -> bool {
    matches!(
        (group, kind),
        ("", "Service" | "Namespace" | "Node" | "Pod")
            | ("discovery.k8s.io", "EndpointSlice")
            | (GATEWAY, "HTTPRoute" | "GRPCRoute" | "ReferenceGrant")
    )
}

fn versions_of(kind: RouteKind) -> &'static [&'static str] {
    match kind {
        RouteKind::Http => &GATEWAY_VERSIONS,
        RouteKind::Grpc => &GATEWAY_VERSIONS[..1],
    }
}

/// The members of a `List`, an `HTTPRouteList` and so on; the object itself if it is not a list.
#[must_use]
pub fn expand(document: Value) -> Vec<Value> {
    let kind = document.get("kind").and_then(Value::as_str).unwrap_or_default();
    if !kind.ends_with("List") || !document.get("items").is_some_and(Value::is_array) {
        return vec![document];
    }
    // Members of a typed list need not repeat what the list says.
    let member = kind.strip_suffix("List").filter(|kind| !kind.is_empty()).map(String::from);
    let version = document.get("apiVersion").cloned();
    let Value::Object(mut fields) = document else { return Vec::new() };
    let Some(Value::Array(mut items)) = fields.remove("items") else { return Vec::new() };
    if let (Some(kind), Some(version)) = (member, version) {
        for item in items.iter_mut().filter_map(Value::as_object_mut) {
            item.entry("kind").or_insert_with(|| kind.clone().into());
            item.entry("apiVersion").or_insert_with(|| version.clone());
        }
    }
    items
}

/// What the decoders of the kinds return.
type Decoded<T> = Result<T, (Path, DecodeFault)>;

/// Deserializes the whole of `value`: unknown fields are errors.
fn strict<T: DeserializeOwned>(value: &Value) -> Decoded<T> {
    strict_at("", value, &Defaults::default())
}

/// The same of what stands at `place` in an object; unknown fields that have their default are passed over.
fn strict_at<T: DeserializeOwned>(place: &str, value: &Value, defaults: &Defaults) -> Decoded<T> {
    let mut unknown = Vec::new();
    let mut track = serde_path_to_error::Track::new();
    let decoded = serde_ignored::deserialize(
        serde_path_to_error::Deserializer::new(value, &mut track),
        |path| {
            let path = fault::render(&path);
            let whole = defaults::join(place, &path);
            let found = defaults::at(value, &path);
            if !found.is_some_and(|found| defaults.has(&whole, found)) {
                unknown.push(whole);
            }
        },
    );
    let decoded = decoded.map_err(|error: serde_json::Error| {
        let path = Path(track.path().to_string()).within(place);
        (path, DecodeFault::Malformed(error.to_string()))
    })?;
    match unknown.split_first() {
        None => Ok(decoded),
        Some((first, others)) => {
            fail(first.clone(), DecodeFault::UnknownField { others: others.to_vec() })
        }
    }
}

/// An object of which `spec` is all that matters.
#[derive(Deserialize)]
struct WithSpec<S> {
    metadata: Metadata,
    spec: S,
}

fn in_version(version: &str, supported: &[&str]) -> Decoded<()> {
    if supported.contains(&version) {
        return Ok(());
    }
    let fault = DecodeFault::Version { found: version.into(), supported: supported.join(" or ") };
    fail("apiVersion", fault)
}

fn type_of(document: &Value) -> Result<(String, String), DecodeError> {
    let field = |name| match document.get(name).and_then(Value::as_str) {
        Some(value) => Ok(value.to_owned()),
        None => {
            Err(DecodeError::new("document", name, DecodeFault::Missing("every Kubernetes object")))
        }
    };
    Ok((field("apiVersion")?, field("kind")?))
}

fn name_of(document: &Value) -> Result<ObjectName, DecodeFault> {
    let metadata = document.get("metadata");
    let field = |name| metadata.and_then(|m| m.get(name)).and_then(Value::as_str);
    let name = field("name").filter(|name| !name.is_empty()).ok_or(DecodeFault::NoName)?;
    let namespace = field("namespace").filter(|namespace| !namespace.is_empty());
    Ok(ObjectName { namespace: namespace.unwrap_or("default").into(), name: name.into() })
}

/// Name of an object whose metadata were decoded.
fn object_name(metadata: &Metadata) -> Decoded<ObjectName> {
    let name = metadata.name.clone().filter(|name| !name.is_empty());
    let namespace = metadata.namespace.clone().filter(|namespace| !namespace.is_empty());
    match name {
        Some(name) => {
            Ok(ObjectName { namespace: namespace.unwrap_or_else(|| "default".into()), name })
        }
        None => fail("metadata.name", DecodeFault::NoName),
    }
}

/// `creationTimestamp`, in seconds since 1970.
fn created(metadata: &Metadata) -> Option<i64> {
    metadata.creation_timestamp.as_ref().map(|time| time.0.as_second())
}

/// The `parentRefs` entries that are Services, as they stand; in the order in which
/// [`Route::parents`](super::objects::Route::parents) has them.
pub fn service_parents(document: &Value) -> impl Iterator<Item = &Value> {
    let parents = document.pointer("/spec/parentRefs").and_then(Value::as_array);
    parents.into_iter().flatten().filter(|parent| {
        let field = |name| parent.get(name).and_then(Value::as_str);
        route::is_service(field("group").unwrap_or(GATEWAY), field("kind").unwrap_or("Gateway"))
    })
}

/// Whether any `parentRefs` entry is a Service; if none is, the route belongs to another implementation,
/// and mirror does not judge its content.
fn names_a_service(document: &Value) -> bool {
    service_parents(document).next().is_some()
}

/// A text for each `parentRefs` entry of kind Service whose group is not the core group, so that it names
/// no Service. A missing group means the Gateway API's (ParentReference, `group`), not the core group.
fn misgrouped_parents(document: &Value) -> Vec<String> {
    let parents = document.pointer("/spec/parentRefs").and_then(Value::as_array);
    let parents = parents.into_iter().flatten().enumerate();
    let texts = parents.filter_map(|(at, parent)| {
        let field = |name| parent.get(name).and_then(Value::as_str);
        let group = field("group").unwrap_or(GATEWAY);
        if field("kind") != Some("Service") || route::is_service(group, "Service") {
            return None;
        }
        let group = match field("group") {
            Some(group) => format!("its group is {group:?}"),
            None => format!("its group is missing, which means {GATEWAY:?}"),
        };
        Some(format!(
            "spec.parentRefs[{at}] does not name a Service, because {group}: write group: \"\" for \
             kind: Service"
        ))
    });
    texts.collect()
}

/// A port number.
fn port(path: &str, number: i32) -> Decoded<u16> {
    match u16::try_from(number) {
        Ok(port) if port > 0 => Ok(port),
        _ => fail(path, DecodeFault::Invalid(format!("{number} is not a port: 1 to 65535"))),
    }
}

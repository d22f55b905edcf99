//! Kinds that are hardly more than their metadata: Namespace, Node and ReferenceGrant.

use gateway_api::referencegrants::ReferenceGrantSpec;
use serde::Deserialize;
use serde_json::Value;

use super::{DecodeFault, Decoded, GATEWAY, Metadata, Path, WithSpec, object_name, strict};
use crate::{
    control::objects::{NodeRow, Object, ReferenceGrant},
    model::{
        CaptureLabel, Consent, ENDPOINT_FRONTENDS, EXTERNAL_SHADOWS, NamespaceRow, ObjectName,
        RouteKind,
    },
};

pub(super) fn namespace(document: &Value) -> Decoded<Object> {
    /// Its `spec` holds finalizers alone.
    #[derive(Deserialize)]
    struct Namespace {
        metadata: Metadata,
        #[serde(default, rename = "spec")]
        _spec: Option<k8s_openapi::api::core::v1::NamespaceSpec>,
    }
    let namespace: Namespace = strict(document)?;
    Ok(Object::Namespace(NamespaceRow {
        name: ObjectName { namespace: String::new(), ..object_name(&namespace.metadata)? },
        label: CaptureLabel::of(namespace.metadata.labels.as_ref()),
        endpoint_frontends: Consent::of(namespace.metadata.labels.as_ref(), ENDPOINT_FRONTENDS),
        external_shadows: Consent::of(namespace.metadata.labels.as_ref(), EXTERNAL_SHADOWS),
    }))
}

/// Of a Node its addresses alone are read (NodeStatus, `addresses`); those that are names say
/// nothing of addresses.
pub(super) fn node(document: &Value) -> Decoded<Object> {
    #[derive(Deserialize)]
    struct Node {
        metadata: Metadata,
        #[serde(default)]
        status: Status,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Status {
        addresses: Vec<Address>,
    }
    #[derive(Deserialize)]
    struct Address {
        #[serde(default)]
        address: String,
    }
    let node = Node::deserialize(document).map_err(|error| {
        (Path("status.addresses".into()), DecodeFault::Malformed(error.to_string()))
    })?;
    let addresses = node.status.addresses.iter().filter_map(|at| at.address.parse().ok());
    Ok(Object::Node(NodeRow {
        name: ObjectName { namespace: String::new(), ..object_name(&node.metadata)? },
        addresses: addresses.collect(),
    }))
}

/// Entries about other kinds than routes and Service grant nothing here, and are no error.
pub(super) fn grant(document: &Value) -> Decoded<Object> {
    let grant: WithSpec<ReferenceGrantSpec> = strict(document)?;
    let from = grant.spec.from.into_iter();
    let to = grant.spec.to.into_iter();
    Ok(Object::Grant(ReferenceGrant {
        name: object_name(&grant.metadata)?,
        from: from
            .filter(|from| from.group == GATEWAY)
            .filter_map(|from| Some((RouteKind::of(&from.kind)?, from.namespace)))
            .collect(),
        to: to
            .filter(|to| to.group.is_empty() && to.kind == "Service")
            .map(|to| to.name.filter(|name| !name.is_empty()))
            .collect(),
    }))
}

//! Kinds that are hardly more than their metadata: Namespace and ReferenceGrant.

use gateway_api::referencegrants::ReferenceGrantSpec;
use serde::Deserialize;
use serde_json::Value;

use super::{Decoded, GATEWAY, Metadata, WithSpec, object_name, strict};
use crate::{
    control::objects::{Object, ObjectName, ReferenceGrant},
    enrol::{NamespaceRow, Wish},
};

pub(super) fn namespace(document: Value) -> Decoded<Object> {
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
        wish: Wish::of(namespace.metadata.labels.as_ref()),
    }))
}

/// Entries about other kinds than HTTPRoute and Service grant nothing here, and are no error.
pub(super) fn grant(document: Value) -> Decoded<Object> {
    let grant: WithSpec<ReferenceGrantSpec> = strict(document)?;
    let from = grant.spec.from.into_iter();
    let to = grant.spec.to.into_iter();
    Ok(Object::Grant(ReferenceGrant {
        name: object_name(&grant.metadata)?,
        from: from
            .filter(|from| from.group == GATEWAY && from.kind == "HTTPRoute")
            .map(|from| from.namespace)
            .collect(),
        to: to
            .filter(|to| to.group.is_empty() && to.kind == "Service")
            .map(|to| to.name.filter(|name| !name.is_empty()))
            .collect(),
    }))
}

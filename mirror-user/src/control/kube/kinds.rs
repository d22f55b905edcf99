//! The kinds that an agent watches.

use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use serde::de::DeserializeOwned;
use serde_json::{Value, value::RawValue};

use crate::{
    control::{
        decode::{self, DecodeError},
        objects::{Kind, Object},
    },
    kube::Resource,
};

/// A kind that is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Watched {
    Service,
    Slice,
    Route,
    Grant,
    Namespace,
    Pod,
}

impl Watched {
    pub(crate) const ALL: [Self; 6] =
        [Self::Service, Self::Slice, Self::Route, Self::Grant, Self::Namespace, Self::Pod];

    pub(crate) fn resource(self, node: &str) -> Resource {
        match self {
            Self::Service => Resource::new("v1", "Service", "services"),
            Self::Slice => Resource::new("discovery.k8s.io/v1", "EndpointSlice", "endpointslices"),
            Self::Route => Resource::new("gateway.networking.k8s.io/v1", "HTTPRoute", "httproutes"),
            // Every release of the Gateway API has this version.
            Self::Grant => Resource::new(
                "gateway.networking.k8s.io/v1beta1",
                "ReferenceGrant",
                "referencegrants",
            ),
            Self::Namespace => Resource::new("v1", "Namespace", "namespaces"),
            Self::Pod => Resource::new("v1", "Pod", "pods").fields(format!("spec.nodeName={node}")),
        }
    }

    /// The CRD of the kind, alone: whoever may read no other can read it.
    pub(crate) fn crd(self) -> Option<Resource> {
        let name = match self {
            Self::Route => "metadata.name=httproutes.gateway.networking.k8s.io",
            Self::Grant => "metadata.name=referencegrants.gateway.networking.k8s.io",
            Self::Service | Self::Slice | Self::Namespace | Self::Pod => return None,
        };
        let (kind, plural) = ("CustomResourceDefinition", "customresourcedefinitions");
        Some(Resource::new("apiextensions.k8s.io/v1", kind, plural).fields(name))
    }

    /// Its kind, as metrics and messages call it.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::Slice => "EndpointSlice",
            Self::Route => "HTTPRoute",
            Self::Grant => "ReferenceGrant",
            Self::Namespace => "Namespace",
            Self::Pod => "Pod",
        }
    }

    /// The same of its CRD.
    pub(crate) fn crd_label(self) -> Option<&'static str> {
        match self {
            Self::Route => Some("CustomResourceDefinition httproutes"),
            Self::Grant => Some("CustomResourceDefinition referencegrants"),
            Self::Service | Self::Slice | Self::Namespace | Self::Pod => None,
        }
    }

    pub(crate) fn kind(self) -> Kind {
        match self {
            Self::Service => Kind::Service,
            Self::Slice => Kind::Slice,
            Self::Route => Kind::Route,
            Self::Grant => Kind::Grant,
            Self::Namespace => Kind::Namespace,
            Self::Pod => Kind::Pod,
        }
    }

    /// Decodes one object. Services and EndpointSlices, of which there are many, are typed; the
    /// others go the way of the files, which refuses unknown fields of routes by name.
    pub(crate) fn decode(self, object: &RawValue) -> Result<Object, String> {
        match self {
            Self::Service => {
                typed(object, |service: Service| decode::service(&service).map(Object::Service))
            }
            Self::Slice => typed(object, |slice: EndpointSlice| {
                decode::endpoint_slice(&slice).map(Object::Slice)
            }),
            Self::Route | Self::Grant | Self::Namespace | Self::Pod => {
                let document = self.document(object)?;
                decode::decode(document).map_err(|error| error.to_string())
            }
        }
    }

    /// Members of a list do not repeat what the list says.
    pub(crate) fn document(self, object: &RawValue) -> Result<Value, String> {
        let mut document: Value = serde_json::from_str(object.get())
            .map_err(|error| format!("{}: not JSON: {error}", self.label()))?;
        let resource = self.resource("");
        if let Value::Object(fields) = &mut document {
            fields.entry("apiVersion").or_insert_with(|| resource.api_version.into());
            fields.entry("kind").or_insert_with(|| resource.kind.into());
        }
        Ok(document)
    }
}

fn typed<T: DeserializeOwned>(
    object: &RawValue,
    convert: impl Fn(T) -> Result<Object, DecodeError>,
) -> Result<Object, String> {
    let typed = serde_json::from_str(object.get()).map_err(|error| error.to_string())?;
    convert(typed).map_err(|error| error.to_string())
}

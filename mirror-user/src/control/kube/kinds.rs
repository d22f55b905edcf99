//! The kinds that an agent watches.

use std::time::UNIX_EPOCH;

use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, value::RawValue};

use crate::{
    control::{
        decode::{self, DecodeError, Defaults},
        expressions::Allowance,
        objects::{Kind, Object},
    },
    kube::Resource,
    model::{ObjectName, RouteKind},
};

/// A kind that is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Watched {
    Service,
    Slice,
    Route(RouteKind),
    Grant,
    Namespace,
    Pod,
    Node,
}

impl Watched {
    pub(crate) const ALL: [Self; 8] = [
        Self::Service,
        Self::Slice,
        Self::Route(RouteKind::Http),
        Self::Route(RouteKind::Grpc),
        Self::Grant,
        Self::Namespace,
        Self::Pod,
        Self::Node,
    ];

    pub(crate) fn resource(self, node: &str) -> Resource {
        match self {
            Self::Service => Resource::new("v1", "Service", "services"),
            Self::Slice => Resource::new("discovery.k8s.io/v1", "EndpointSlice", "endpointslices"),
            Self::Route(kind) => {
                Resource::new("gateway.networking.k8s.io/v1", kind.label(), kind.plural())
            }
            // Every release of the Gateway API has this version.
            Self::Grant => Resource::new(
                "gateway.networking.k8s.io/v1beta1",
                "ReferenceGrant",
                "referencegrants",
            ),
            Self::Namespace => Resource::new("v1", "Namespace", "namespaces"),
            Self::Pod => Resource::new("v1", "Pod", "pods").fields(format!("spec.nodeName={node}")),
            // All of them, because no slice may claim their addresses.
            Self::Node => Resource::new("v1", "Node", "nodes"),
        }
    }

    /// The CRD of the kind alone, because the agent's role may read no other.
    pub(crate) fn crd(self) -> Option<Resource> {
        let name = match self {
            Self::Route(RouteKind::Http) => "metadata.name=httproutes.gateway.networking.k8s.io",
            Self::Route(RouteKind::Grpc) => "metadata.name=grpcroutes.gateway.networking.k8s.io",
            Self::Grant => "metadata.name=referencegrants.gateway.networking.k8s.io",
            Self::Service | Self::Slice | Self::Namespace | Self::Pod | Self::Node => return None,
        };
        let (kind, plural) = ("CustomResourceDefinition", "customresourcedefinitions");
        Some(Resource::new("apiextensions.k8s.io/v1", kind, plural).fields(name))
    }

    /// Its kind, as metrics and messages call it.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::Slice => "EndpointSlice",
            Self::Route(kind) => kind.label(),
            Self::Grant => "ReferenceGrant",
            Self::Namespace => "Namespace",
            Self::Pod => "Pod",
            Self::Node => "Node",
        }
    }

    /// The same of its CRD.
    pub(crate) fn crd_label(self) -> Option<&'static str> {
        match self {
            Self::Route(RouteKind::Http) => Some("CustomResourceDefinition httproutes"),
            Self::Route(RouteKind::Grpc) => Some("CustomResourceDefinition grpcroutes"),
            Self::Grant => Some("CustomResourceDefinition referencegrants"),
            Self::Service | Self::Slice | Self::Namespace | Self::Pod | Self::Node => None,
        }
    }

    /// The kind of route that it is, if it is one.
    pub(crate) fn route(self) -> Option<RouteKind> {
        match self {
            Self::Route(kind) => Some(kind),
            _ => None,
        }
    }

    pub(crate) fn kind(self) -> Kind {
        match self {
            Self::Service => Kind::Service,
            Self::Slice => Kind::Slice,
            Self::Route(kind) => Kind::Route(kind),
            Self::Grant => Kind::Grant,
            Self::Namespace => Kind::Namespace,
            Self::Pod => Kind::Pod,
            Self::Node => Kind::Node,
        }
    }

    /// The name that the object's row has, of the one that the watch gives: what belongs to the
    /// cluster is in no Namespace.
    pub(crate) fn row(self, name: ObjectName) -> ObjectName {
        match self {
            Self::Namespace | Self::Node => ObjectName { namespace: String::new(), ..name },
            Self::Service | Self::Slice | Self::Route(_) | Self::Grant | Self::Pod => name,
        }
    }

    /// Decodes one object. Services and EndpointSlices, of which there are many, are typed; the
    /// others go the way of the files, which refuses unknown fields of routes by name. `defaults` and
    /// `expressions`: as [`decode::decode_within`].
    pub(crate) fn decode(
        self,
        object: &RawValue,
        defaults: &Defaults,
        expressions: &mut Allowance,
    ) -> Result<Object, DecodeFailure> {
        match self {
            Self::Service => {
                typed(object, |service: Service| decode::service(&service).map(Object::Service))
            }
            Self::Slice => typed(object, |slice: EndpointSlice| {
                decode::endpoint_slice(&slice).map(Object::Slice)
            }),
            Self::Route(_) | Self::Grant | Self::Namespace | Self::Pod | Self::Node => {
                let document = self.document(object).map_err(DecodeFailure::malformed)?;
                Ok(decode::decode_within(document, defaults, expressions)?)
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

/// Why an object is ignored.
#[derive(Clone, Debug)]
pub(crate) struct DecodeFailure {
    pub(crate) message: String,
    /// Because of a field that mirror does not know, which the defaults of another CRD might excuse.
    pub(crate) unknown_field: bool,
}

impl DecodeFailure {
    fn malformed(message: String) -> Self {
        Self { message, unknown_field: false }
    }
}

impl From<DecodeError> for DecodeFailure {
    fn from(error: DecodeError) -> Self {
        Self { message: error.to_string(), unknown_field: error.fault.is_unknown_field() }
    }
}

/// What a quota needs to know of a route, without decoding it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RouteHead {
    /// `creationTimestamp`, in seconds since 1970.
    pub(crate) created: Option<i64>,
    /// Of its `spec`.
    pub(crate) bytes: u64,
}

impl RouteHead {
    /// None of a route without a Service among its parents, which costs nothing.
    pub(crate) fn read(object: &RawValue) -> Option<Self> {
        #[derive(Deserialize)]
        struct Head<'a> {
            #[serde(borrow)]
            metadata: Option<Metadata<'a>>,
            #[serde(borrow)]
            spec: Option<&'a RawValue>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Metadata<'a> {
            #[serde(borrow)]
            creation_timestamp: Option<&'a str>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        #[derive(Default)]
        struct Spec {
            parent_refs: Vec<Parent>,
        }
        #[derive(Deserialize)]
        struct Parent {
            kind: Option<String>,
        }
        let head: Head<'_> = serde_json::from_str(object.get()).ok()?;
        let spec = head.spec?;
        let parents = serde_json::from_str::<Spec>(spec.get()).unwrap_or_default().parent_refs;
        if !parents.iter().any(|parent| parent.kind.as_deref() == Some("Service")) {
            return None;
        }
        let created = head.metadata.and_then(|metadata| metadata.creation_timestamp);
        let created = created.and_then(|time| humantime::parse_rfc3339(time).ok());
        let created = created.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        Some(Self {
            created: created.and_then(|since| i64::try_from(since.as_secs()).ok()),
            bytes: spec.get().len() as u64,
        })
    }
}

fn typed<T: DeserializeOwned>(
    object: &RawValue,
    convert: impl Fn(T) -> Result<Object, DecodeError>,
) -> Result<Object, DecodeFailure> {
    let typed = serde_json::from_str(object.get());
    let typed = typed.map_err(|error| DecodeFailure::malformed(error.to_string()))?;
    Ok(convert(typed)?)
}

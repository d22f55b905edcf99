//! What the controller knows of the cluster. In: events of the watches. Out: the objects that
//! [`crate::control::resolve`] judges, and of each HTTPRoute what a write of its status needs. What
//! one object says can stop no other: one that does not decode is known by name.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use serde::de::DeserializeOwned;
use serde_json::{Value, value::RawValue};

use super::route::{RouteRow, VERSION, Verdict};
use crate::{
    control::{
        decode,
        objects::{Changes, Kind, Object, ObjectName, Objects},
        resolve::{Resolver, RouteStatus},
    },
    kube::{Event, Resource, RollCall},
};

/// The kinds that are watched.
pub const KINDS: [Kind; 4] = [Kind::Service, Kind::Slice, Kind::Route, Kind::Grant];

/// What the API server calls them.
#[must_use]
pub fn resource(kind: Kind) -> Resource {
    match kind {
        Kind::Service => Resource::new("v1", "Service", "services"),
        // The addresses of headless Services.
        Kind::Slice => Resource::new("discovery.k8s.io/v1", "EndpointSlice", "endpointslices"),
        Kind::Route => Resource::new(VERSION, "HTTPRoute", "httproutes"),
        Kind::Grant => {
            Resource::new("gateway.networking.k8s.io/v1beta1", "ReferenceGrant", "referencegrants")
        }
        Kind::Namespace => Resource::new("v1", "Namespace", "namespaces"),
        Kind::Pod => Resource::new("v1", "Pod", "pods"),
    }
}

/// A kind that the server does not know for so long does not exist.
const GONE: Duration = Duration::from_secs(30);

/// Everything that is known.
#[derive(Debug, Default)]
pub struct World {
    objects: Objects,
    /// Since it was judged last.
    changes: Changes,
    resolver: Resolver,
    routes: BTreeMap<ObjectName, RouteRow>,
    lists: BTreeMap<Kind, RollCall>,
    complete: BTreeSet<Kind>,
}

impl World {
    /// Takes one event; true if a verdict may change by it.
    pub fn apply(&mut self, kind: Kind, event: Event) -> bool {
        match event {
            Event::Started => {
                let known: Vec<_> = self.names(kind).cloned().collect();
                self.lists.entry(kind).or_default().start(known.iter());
                false
            }
            Event::Applied(name, object) => {
                self.lists.entry(kind).or_default().present(&name);
                self.insert(kind, name, &object)
            }
            Event::Deleted(name) => {
                self.lists.entry(kind).or_default().present(&name);
                self.remove(kind, &name)
            }
            Event::Complete => {
                let gone = self.lists.entry(kind).or_default().complete();
                let news = gone.iter().fold(false, |news, name| news | self.remove(kind, name));
                self.complete.insert(kind) || news
            }
            // For a moment after its start a server may not know the kinds of CRDs yet.
            Event::Missing(since) if since < GONE => false,
            Event::Missing(_) => {
                let gone: Vec<_> = self.names(kind).cloned().collect();
                let news = gone.iter().fold(false, |news, name| news | self.remove(kind, name));
                self.complete.insert(kind) || news
            }
        }
    }

    /// Kinds of which no complete list has come yet: until then nothing can be judged, as a Service
    /// that is not known would be taken for one that does not exist.
    pub fn incomplete(&self) -> impl Iterator<Item = Kind> {
        KINDS.into_iter().filter(|kind| !self.complete.contains(kind))
    }

    /// Judges what has changed, and returns the conditions of all routes.
    pub fn judge(&mut self) -> Vec<RouteStatus> {
        // Frontends are the agents' business.
        drop(self.resolver.update(&self.objects, &std::mem::take(&mut self.changes)));
        self.resolver.conditions(&self.objects)
    }

    /// All HTTPRoutes.
    #[must_use]
    pub fn routes(&self) -> &BTreeMap<ObjectName, RouteRow> {
        &self.routes
    }

    fn names(&self, kind: Kind) -> Box<dyn Iterator<Item = &ObjectName> + '_> {
        match kind {
            // Those that do not decode are known by name as well.
            Kind::Route => Box::new(self.routes.keys()),
            _ => self.objects.names(kind),
        }
    }

    /// True if a verdict may change by it.
    fn insert(&mut self, kind: Kind, name: ObjectName, raw: &RawValue) -> bool {
        let decoded = match kind {
            Kind::Service => {
                typed::<Service, _>(raw, |service| decode::service(&service).map(Object::Service))
            }
            Kind::Slice => typed::<EndpointSlice, _>(raw, |slice| {
                decode::endpoint_slice(&slice).map(Object::Slice)
            }),
            Kind::Grant => dynamic(kind, raw)
                .and_then(|value| decode::decode(value).map_err(|error| error.to_string())),
            Kind::Route => return self.insert_route(name, raw),
            // No verdict depends on them.
            Kind::Namespace | Kind::Pod => return false,
        };
        match decoded {
            Ok(object) => {
                self.objects.apply(object, &mut self.changes);
                !self.changes.is_empty()
            }
            Err(error) => {
                // What it said before holds no more.
                tracing::warn!(?kind, %name, error, "an object cannot be read: left out");
                self.remove(kind, &name)
            }
        }
    }

    fn insert_route(&mut self, name: ObjectName, raw: &RawValue) -> bool {
        let read = dynamic(Kind::Route, raw).and_then(|value| RouteRow::read(&value));
        match read {
            Ok((row, object)) => {
                match object.filter(|_| row.verdict == Verdict::Decoded) {
                    Some(route) => self.objects.apply(route, &mut self.changes),
                    None => self.objects.remove(Kind::Route, &name, &mut self.changes),
                }
                // Its status may have changed as well, which is what is compared.
                self.routes.insert(name, row);
                true
            }
            Err(error) => {
                tracing::warn!(%name, error, "an HTTPRoute cannot be read: left out");
                self.remove(Kind::Route, &name)
            }
        }
    }

    fn remove(&mut self, kind: Kind, name: &ObjectName) -> bool {
        self.objects.remove(kind, name, &mut self.changes);
        let row = (kind == Kind::Route).then(|| self.routes.remove(name)).flatten();
        row.is_some() || !self.changes.is_empty()
    }
}

fn typed<T: DeserializeOwned, E: ToString>(
    raw: &RawValue,
    convert: impl Fn(T) -> Result<Object, E>,
) -> Result<Object, String> {
    let typed = serde_json::from_str(raw.get()).map_err(|error| error.to_string())?;
    convert(typed).map_err(|error| error.to_string())
}

/// Members of a list do not repeat what the list says.
fn dynamic(kind: Kind, raw: &RawValue) -> Result<Value, String> {
    let mut value: Value = serde_json::from_str(raw.get()).map_err(|error| error.to_string())?;
    let resource = resource(kind);
    if let Value::Object(fields) = &mut value {
        fields.insert("apiVersion".into(), resource.api_version.into());
        fields.insert("kind".into(), resource.kind.into());
    }
    Ok(value)
}

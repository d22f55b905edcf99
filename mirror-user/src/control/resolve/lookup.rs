//! Endpoints of Services, from the EndpointSlices that belong to them.

use std::{
    collections::{BTreeSet, HashMap},
    net::SocketAddr,
};

use crate::control::objects::{EndpointSlice, ObjectName, Objects, Port};

/// EndpointSlices by the Service that they belong to.
pub(super) struct Slices<'o>(HashMap<(&'o str, &'o str), Vec<&'o EndpointSlice>>);

impl<'o> Slices<'o> {
    pub(super) fn new(objects: &'o Objects) -> Self {
        let mut slices: HashMap<_, Vec<_>> = HashMap::new();
        for slice in objects.slices.values() {
            if let Some(service) = &slice.service {
                let key = (slice.name.namespace.as_str(), service.as_str());
                slices.entry(key).or_default().push(slice);
            }
        }
        Self(slices)
    }

    /// Whether any slice belongs to the Service.
    pub(super) fn any(&self, service: &ObjectName) -> bool {
        self.0.contains_key(&(service.namespace.as_str(), service.name.as_str()))
    }

    /// Ready endpoints of a port, each once, those of IPv4 first. A slice's port belongs to the
    /// Service port of the same name (EndpointPort, `name`).
    pub(super) fn endpoints(&self, service: &ObjectName, port: &Port) -> BTreeSet<SocketAddr> {
        let key = (service.namespace.as_str(), service.name.as_str());
        let slices = self.0.get(&key).into_iter().flatten();
        slices
            .flat_map(|slice| {
                let ports = slice.ports.iter().filter(|(name, _)| *name == port.name);
                ports.flat_map(|(_, target)| {
                    slice.ready.iter().map(|address| SocketAddr::new(*address, *target))
                })
            })
            .collect()
    }
}

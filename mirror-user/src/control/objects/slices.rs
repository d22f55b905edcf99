//! EndpointSlices, by name and by the Service that they belong to.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};

use super::{Endpoint, EndpointSlice, Port};
use crate::model::ObjectName;

/// All EndpointSlices of one moment.
#[derive(Clone, Debug, Default)]
pub struct Slices {
    rows: BTreeMap<ObjectName, EndpointSlice>,
    /// Names of the slices of each Service, in an order that does not depend on which came first: of an
    /// endpoint that two list, the first says which Pod it is.
    of_service: HashMap<ObjectName, BTreeSet<String>>,
    /// Slices that belong to none.
    unowned: BTreeSet<ObjectName>,
}

/// What slices say of an endpoint beside its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndpointDetails<'s> {
    /// The Pod of the Service's Namespace that it is.
    pub pod: Option<&'s str>,
    /// When the oldest slice that lists it was created; None is now.
    pub created: Option<i64>,
}

impl<'s> EndpointDetails<'s> {
    /// Of an endpoint that two slices list.
    fn merge(&mut self, other: EndpointDetails<'s>) {
        let oldest = self.created.into_iter().chain(other.created).min();
        *self = Self { pod: self.pod.or(other.pod), created: oldest };
    }
}

impl Slices {
    /// Adds or replaces a slice, and hands back what it replaces.
    pub fn insert(&mut self, slice: EndpointSlice) -> Option<EndpointSlice> {
        let old = self.remove(&slice.name);
        match slice.owner() {
            Some(service) => {
                self.of_service.entry(service).or_default().insert(slice.name.name.clone());
            }
            None => drop(self.unowned.insert(slice.name.clone())),
        }
        self.rows.insert(slice.name.clone(), slice);
        old
    }

    /// Removes a slice.
    pub fn remove(&mut self, name: &ObjectName) -> Option<EndpointSlice> {
        let old = self.rows.remove(name)?;
        self.unowned.remove(name);
        if let Some(service) = old.owner()
            && let Some(names) = self.of_service.get_mut(&service)
        {
            names.remove(&name.name);
            if names.is_empty() {
                self.of_service.remove(&service);
            }
        }
        Some(old)
    }

    /// The slice of a name.
    #[must_use]
    pub fn find(&self, name: &ObjectName) -> Option<&EndpointSlice> {
        self.rows.get(name)
    }

    /// Names of those that belong to no Service.
    pub fn unowned(&self) -> impl Iterator<Item = &ObjectName> {
        self.unowned.iter()
    }

    /// All names.
    pub fn names(&self) -> impl Iterator<Item = &ObjectName> {
        self.rows.keys()
    }

    /// The Services that any slice belongs to.
    pub fn services(&self) -> impl Iterator<Item = &ObjectName> {
        self.of_service.keys()
    }

    /// Whether any slice belongs to the Service.
    #[must_use]
    pub fn any(&self, service: &ObjectName) -> bool {
        self.of_service.contains_key(service)
    }

    /// Ready endpoints of a port, each once, those of IPv4 first. A slice's port belongs to the
    /// Service port of the same name (EndpointPort, `name`).
    #[must_use]
    pub fn endpoints(
        &self,
        service: &ObjectName,
        port: &Port,
    ) -> BTreeMap<SocketAddr, EndpointDetails<'_>> {
        self.collect(service, port, |slice| &slice.ready)
    }

    /// The same; where no endpoint is ready, those that are terminating and still serve, as
    /// kube-proxy uses them (KEP-1669).
    #[must_use]
    pub fn serving(
        &self,
        service: &ObjectName,
        port: &Port,
    ) -> BTreeMap<SocketAddr, EndpointDetails<'_>> {
        let ready = self.endpoints(service, port);
        if ready.is_empty() {
            self.collect(service, port, |slice| &slice.terminating)
        } else {
            ready
        }
    }

    /// All others: they are there, and get nothing new.
    #[must_use]
    pub fn unready(
        &self,
        service: &ObjectName,
        port: &Port,
    ) -> BTreeMap<SocketAddr, EndpointDetails<'_>> {
        let mut others = self.collect(service, port, |slice| &slice.unready);
        others.append(&mut self.collect(service, port, |slice| &slice.terminating));
        let serving = self.serving(service, port);
        others.retain(|known, _| !serving.contains_key(known));
        others
    }

    /// Whether any endpoint of the Service has the address, in canonical form, whatever its port.
    #[must_use]
    pub fn has_address(&self, service: &ObjectName, ip: IpAddr) -> bool {
        self.of(service).any(|slice| {
            let EndpointSlice { ready, terminating, unready, .. } = slice;
            let mut all = ready.iter().chain(terminating).chain(unready);
            all.any(|endpoint| endpoint.ip.to_canonical() == ip)
        })
    }

    fn collect(
        &self,
        service: &ObjectName,
        port: &Port,
        endpoints: impl Fn(&EndpointSlice) -> &[Endpoint],
    ) -> BTreeMap<SocketAddr, EndpointDetails<'_>> {
        let mut all: BTreeMap<_, EndpointDetails<'_>> = BTreeMap::new();
        for slice in self.of(service) {
            let ports = slice.ports.iter().filter(|(name, _)| *name == port.name);
            for (_, target) in ports {
                for endpoint in endpoints(slice) {
                    let details =
                        EndpointDetails { pod: endpoint.pod.as_deref(), created: slice.created };
                    let at = SocketAddr::new(endpoint.ip, *target);
                    all.entry(at).and_modify(|known| known.merge(details)).or_insert(details);
                }
            }
        }
        all
    }

    fn of(&self, service: &ObjectName) -> impl Iterator<Item = &EndpointSlice> {
        let names = self.of_service.get(service).into_iter().flatten();
        names.filter_map(|name| {
            let namespace = service.namespace.clone();
            self.rows.get(&ObjectName { namespace, name: name.clone() })
        })
    }
}

impl EndpointSlice {
    /// The Service that it belongs to.
    #[must_use]
    pub fn owner(&self) -> Option<ObjectName> {
        let name = self.service.clone()?;
        Some(ObjectName { namespace: self.name.namespace.clone(), name })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> ObjectName {
        ObjectName { namespace: "default".into(), name: name.into() }
    }

    fn slice(own: &str, service: Option<&str>, address: &str) -> EndpointSlice {
        EndpointSlice {
            name: name(own),
            service: service.map(String::from),
            ports: vec![("http".into(), 80)],
            ready: vec![address.parse::<IpAddr>().unwrap().into()],
            terminating: Vec::new(),
            unready: Vec::new(),
            created: None,
        }
    }

    #[test]
    fn which_slice_came_first_decides_nothing() {
        let port = Port { name: "http".into(), port: 8000, tcp: true, app_protocol: None };
        let with_pod = |own: &str| {
            let mut slice = slice(own, Some("a"), "10.0.0.1");
            slice.ready[0].pod = Some(format!("pod-{own}").into());
            slice
        };
        let pod = |order: [&str; 2]| {
            let mut slices = Slices::default();
            for own in order {
                slices.insert(with_pod(own));
            }
            let endpoints = slices.endpoints(&name("a"), &port);
            endpoints.values().next().and_then(|details| details.pod.map(String::from))
        };
        assert_eq!(pod(["1", "2"]).as_deref(), Some("pod-1"));
        assert_eq!(pod(["2", "1"]), pod(["1", "2"]));
    }

    #[test]
    fn terminating_endpoints_serve_while_none_is_ready() {
        let port = Port { name: "http".into(), port: 8000, tcp: true, app_protocol: None };
        let serving = |slices: &Slices| {
            let found = slices.serving(&name("a"), &port);
            found.keys().map(ToString::to_string).collect::<Vec<_>>()
        };
        let unready = |slices: &Slices| {
            let found = slices.unready(&name("a"), &port);
            found.keys().map(ToString::to_string).collect::<Vec<_>>()
        };
        let one = |ip: &str| vec![ip.parse::<IpAddr>().unwrap().into()];
        let (terminating, others) = (one("10.0.0.9"), one("10.0.0.8"));
        let mut slices = Slices::default();
        slices.insert(EndpointSlice {
            terminating,
            unready: others,
            ready: vec![],
            ..slice("1", Some("a"), "::")
        });
        assert_eq!(serving(&slices), ["10.0.0.9:80"]);
        assert_eq!(unready(&slices), ["10.0.0.8:80"]);
        assert!(slices.endpoints(&name("a"), &port).is_empty());
        slices.insert(slice("2", Some("a"), "10.0.0.2"));
        assert_eq!(serving(&slices), ["10.0.0.2:80"]);
        assert_eq!(unready(&slices), ["10.0.0.8:80", "10.0.0.9:80"]);
    }

    #[test]
    fn slices_are_found_by_the_service_that_they_belong_to_now() {
        let port = Port { name: "http".into(), port: 8000, tcp: true, app_protocol: None };
        let endpoints = |slices: &Slices, service| {
            let found = slices.endpoints(&name(service), &port);
            found.keys().map(ToString::to_string).collect::<Vec<_>>()
        };
        let mut slices = Slices::default();
        slices.insert(slice("1", Some("a"), "10.0.0.1"));
        slices.insert(slice("2", Some("a"), "10.0.0.2"));
        slices.insert(slice("3", None, "10.0.0.3"));
        assert_eq!(endpoints(&slices, "a"), ["10.0.0.1:80", "10.0.0.2:80"]);
        let old = slices.insert(slice("2", Some("b"), "10.0.0.4")).unwrap();
        assert_eq!(old.owner(), Some(name("a")));
        assert_eq!(endpoints(&slices, "a"), ["10.0.0.1:80"]);
        assert_eq!(endpoints(&slices, "b"), ["10.0.0.4:80"]);
        assert!(slices.remove(&name("1")).is_some() && slices.remove(&name("1")).is_none());
        assert!(!slices.any(&name("a")) && slices.any(&name("b")));
        assert_eq!(slices.services().count(), 1);
        assert_eq!(slices.unowned().collect::<Vec<_>>(), [&name("3")]);
    }
}

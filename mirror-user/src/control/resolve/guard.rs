//! Who may use an address, and for what. In: what an EndpointSlice says of an endpoint. Out: why it
//! may not be a frontend, or get copies; nothing when it may. Pure.
//!
//! What a tenant of a cluster writes is not evidence. Its slices are believed if they name a Pod
//! of the same Namespace and no known object contradicts; anything else needs the consent of
//! the owner of the Namespace ([`crate::model::Consent`]), and addresses on the deny-list
//! are always refused.

use std::net::IpAddr;

use super::{
    deny::{Denied, DenyList},
    policy::{AddressPolicy, Authors},
};
use crate::{
    control::objects::{Objects, Service, ServiceAddress},
    model::{CAPTURE_ENDPOINTS, Consent, ENDPOINT_FRONTENDS, EXTERNAL_SHADOWS, ObjectName},
};

/// Why an endpoint's address is not used. Its text continues a sentence that begins with the address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum AddressRefusal {
    /// On the deny-list.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// A Node's own.
    #[error("is a Node's own address")]
    Node,
    /// The slice names no Pod.
    #[error("is not the address of a Pod in the Service's Namespace (endpoint, targetRef)")]
    NotAPod,
    /// A known Pod has the address, but is not the one that the slice names.
    #[error("belongs to another Pod than its EndpointSlice says (targetRef {0})")]
    OtherPod(String),
    /// The Pod that the slice names is known, and has another address.
    #[error("is not the address of Pod {0}, as its EndpointSlice says (targetRef)")]
    NotItsAddress(String),
}

impl AddressRefusal {
    /// Stable name, for metrics.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Denied(denied) => denied.label(),
            Self::Node => "node",
            Self::NotAPod => "not_a_pod",
            Self::OtherPod(_) => "other_pod",
            Self::NotItsAddress(_) => "not_its_address",
        }
    }
}

/// What may be used at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Guard<'g> {
    policy: &'g AddressPolicy,
    objects: &'g Objects,
    deny: DenyList<'g>,
}

impl<'g> Guard<'g> {
    /// Checks by this policy, with these objects.
    #[must_use]
    pub(super) fn new(policy: &'g AddressPolicy, objects: &'g Objects) -> Self {
        Self { policy, objects, deny: DenyList::new(policy, objects) }
    }

    /// The known objects.
    pub(super) fn objects(&self) -> &'g Objects {
        self.objects
    }

    /// Why no route may attach to the Service, whatever its ports, as text.
    #[must_use]
    pub(super) fn service(&self, service: &Service) -> Option<String> {
        let Service { name, address, .. } = service;
        match address {
            ServiceAddress::Headless
                if !self.objects.allows_endpoint_frontends(&name.namespace) =>
            {
                Some(format!(
                    "Service {name} is headless: clients connect to its endpoints, and the \
                     Namespace {} does not permit routes for these. Label it \
                     {ENDPOINT_FRONTENDS}=enabled",
                    name.namespace
                ))
            }
            _ if self.policy.authors == Authors::Tenants && name.is_api_server() => {
                Some(format!("Service {name} is the API server, which is never captured"))
            }
            _ => None,
        }
    }

    /// Whether the Service's endpoints may be frontends: it is headless or asks for it, and its Namespace
    /// lets it.
    #[must_use]
    pub(super) fn permits_endpoints(&self, service: &Service) -> bool {
        service.has_endpoint_frontends()
            && self.objects.allows_endpoint_frontends(&service.name.namespace)
    }

    /// What is wrong with a Service's label for its endpoints, as text.
    #[must_use]
    pub(super) fn capture_endpoints(&self, service: &Service) -> Option<String> {
        let Service { name, capture_endpoints, .. } = service;
        if let Some(fault) = capture_endpoints.fault(CAPTURE_ENDPOINTS) {
            return Some(fault);
        }
        let withheld = *capture_endpoints == Consent::Given
            && !self.objects.allows_endpoint_frontends(&name.namespace);
        withheld.then(|| {
            format!(
                "its label {CAPTURE_ENDPOINTS} has no effect, because the Namespace {} does not permit \
                 it. Label that {ENDPOINT_FRONTENDS}=enabled",
                name.namespace
            )
        })
    }

    /// Why a ClusterIP may be no frontend, though it is its Service's own.
    #[must_use]
    pub(super) fn cluster_ip(&self, ip: IpAddr) -> Option<AddressRefusal> {
        let api_server = self.policy.authors == Authors::Tenants && self.deny.is_api_server(ip);
        api_server.then_some(AddressRefusal::Denied(Denied::ApiServer))
    }

    /// Why an endpoint's address may be no frontend of a Service in the Namespace, which permits
    /// endpoints' addresses. `pod`: what its slice says it is.
    #[must_use]
    pub(super) fn frontend(
        &self,
        namespace: &str,
        ip: IpAddr,
        pod: Option<&str>,
    ) -> Option<AddressRefusal> {
        if self.policy.authors == Authors::Owner {
            let cluster_ip = self.objects.addresses.is_cluster_ip(ip).then_some(Denied::ClusterIp);
            return DenyList::of_no_host(ip).or(cluster_ip).map(AddressRefusal::Denied);
        }
        let denied = self.deny.denied(ip).map(AddressRefusal::Denied);
        denied.or_else(|| self.is_no_own_pods(namespace, ip, pod))
    }

    /// Why an endpoint of a Service in the Namespace gets no copies.
    #[must_use]
    pub(super) fn shadow(
        &self,
        namespace: &str,
        ip: IpAddr,
        pod: Option<&str>,
    ) -> Option<AddressRefusal> {
        if self.policy.authors == Authors::Owner {
            return DenyList::of_no_host(ip)
                .or_else(|| self.deny.listed(ip))
                .map(AddressRefusal::Denied);
        }
        let denied =
            self.deny.denied(ip).or_else(|| self.deny.listed(ip)).map(AddressRefusal::Denied);
        denied.or_else(|| {
            let external = self.objects.allows_external_shadows(namespace);
            self.is_no_own_pods(namespace, ip, pod).filter(|_| !external)
        })
    }

    /// What contradicts that the address is that of a Pod of the Namespace.
    fn is_no_own_pods(
        &self,
        namespace: &str,
        ip: IpAddr,
        pod: Option<&str>,
    ) -> Option<AddressRefusal> {
        if self.objects.addresses.is_node(ip) {
            return Some(AddressRefusal::Node);
        }
        let Some(pod) = pod else { return Some(AddressRefusal::NotAPod) };
        let name = ObjectName { namespace: namespace.into(), name: pod.into() };
        let owners = self.objects.addresses.pods(ip);
        if owners.contains(&name) {
            return None;
        }
        if !owners.is_empty() {
            return Some(AddressRefusal::OtherPod(name.to_string()));
        }
        let known = self.objects.pods.contains_key(&name);
        known.then(|| AddressRefusal::NotItsAddress(name.to_string()))
    }
}

/// What to do about endpoints that get no copies, when anything can be done.
#[must_use]
pub(super) fn shadow_remedy(namespace: &str, refusal: &AddressRefusal) -> Option<String> {
    match refusal {
        AddressRefusal::Denied(_) => None,
        AddressRefusal::Node
        | AddressRefusal::NotAPod
        | AddressRefusal::OtherPod(_)
        | AddressRefusal::NotItsAddress(_) => {
            Some(format!("label Namespace {namespace} {EXTERNAL_SHADOWS}=enabled to permit it"))
        }
    }
}

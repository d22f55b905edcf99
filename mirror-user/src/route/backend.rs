//! Backends of a rule: a Service port with its ready endpoints, or the reason why there is none.

use std::{fmt, net::SocketAddr, sync::Arc};

use super::Filter;

/// A port of a Service, as `namespace/name:port` in logs and metrics.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServicePort {
    /// Namespace of the Service.
    pub namespace: String,
    /// Name of the Service.
    pub name: String,
    /// The Service's own port (not the target port).
    pub port: u16,
}

impl fmt::Display for ServicePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}:{}", self.namespace, self.name, self.port)
    }
}

/// What the Service port's `appProtocol` says of its endpoints (KEP-3726).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AppProtocol {
    /// Nothing said, or `http`.
    #[default]
    Unspecified,
    /// `kubernetes.io/h2c`: HTTP/2 with prior knowledge, no TLS.
    H2c,
    /// `kubernetes.io/ws`: WebSocket over HTTP/1.1, no TLS.
    WebSocket,
}

/// A Service port and its endpoints at the time of the snapshot.
#[derive(Debug)]
pub struct Backend {
    /// Which Service port this is.
    pub service: Arc<ServicePort>,
    /// What its endpoints speak.
    pub protocol: AppProtocol,
    /// What clients of the Service connect to: its ClusterIPs with this port. Empty for a headless
    /// Service.
    pub addresses: Vec<SocketAddr>,
    /// Ready endpoints, address and target port, those of IPv4 first; where none is ready, those that
    /// are terminating and still serve (KEP-1669). Empty if there is none.
    pub endpoints: Vec<SocketAddr>,
    /// Endpoints that get nothing new, and may still have something to do.
    pub unready: Vec<SocketAddr>,
    /// `sessionAffinity: ClientIP`, where mirror chooses among the endpoints.
    pub affinity: bool,
}

impl Backend {
    /// Whether the endpoint no longer belongs to this backend, in any state.
    #[must_use]
    pub fn has_lost(&self, endpoint: SocketAddr) -> bool {
        !self.endpoints.contains(&endpoint) && !self.unready.contains(&endpoint)
    }

    /// The endpoints for a client that asked for `frontend`: those of the family that it reached it
    /// by, which its network namespace has for certain, or else, when none is ready, the others'.
    #[must_use]
    pub fn endpoints_for(&self, frontend: &SocketAddr) -> &[SocketAddr] {
        let (v4, v6) = self.endpoints.split_at(self.endpoints.partition_point(|e| e.is_ipv4()));
        match frontend.is_ipv4() {
            true if v4.is_empty() => v6,
            true => v4,
            false if v6.is_empty() => v4,
            false => v6,
        }
    }
}

/// Why a `backendRef` names nothing that a request could be sent to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBackend {
    /// No such Service (condition ResolvedRefs, reason BackendNotFound).
    #[error("Service {0} does not exist")]
    NoService(String),
    /// The Service has no such port.
    #[error("Service {service} has no port {port}")]
    NoPort {
        /// `namespace/name` of the Service.
        service: String,
        /// The port that the reference asks for.
        port: u16,
    },
    /// A Service that has no addresses, ExternalName (reason UnsupportedValue).
    #[error("Service {service} cannot be a backend: {why}")]
    NoAddresses {
        /// `namespace/name` of the Service.
        service: String,
        /// What it is.
        why: &'static str,
    },
    /// Not a Service (reason InvalidKind).
    #[error("a backend of kind {0} is not supported, only Service")]
    Kind(String),
    /// A shadow in another namespace that does not grant it to this route (reason RefNotPermitted).
    #[error("Service {0} is in another namespace, and no ReferenceGrant there permits it")]
    NotPermitted(String),
    /// None of a shadow's endpoints may get copies (reason RefNotPermitted).
    #[error("no endpoint of Service {service} may get copies: {why}")]
    Refused {
        /// `namespace/name` of the Service.
        service: String,
        /// Of the first endpoint, and what to do about it.
        why: String,
    },
    /// The rule itself is refused, and has no valid state to fall back to.
    #[error("the rule is not in force: {0}")]
    RefusedRule(String),
    /// The port's `appProtocol` needs TLS towards the backend (reason UnsupportedProtocol).
    #[error("Service {service} speaks {protocol} on port {port}, which is not supported")]
    Protocol {
        /// `namespace/name` of the Service.
        service: String,
        /// The port that the reference asks for.
        port: u16,
        /// Its `appProtocol`.
        protocol: String,
    },
}

/// One entry of `backendRefs`.
#[derive(Debug)]
pub struct BackendRef {
    /// Share among its siblings; 0 takes no requests.
    pub weight: u32,
    /// Header modifiers of this entry alone; never a mirror.
    pub filters: Vec<Filter>,
    /// Where it leads.
    pub target: Result<Arc<Backend>, InvalidBackend>,
}

/// The `backendRefs` of a rule, chosen by weight.
#[derive(Debug, Default)]
pub struct Backends {
    refs: Vec<BackendRef>,
    total: u64,
}

impl Backends {
    /// Takes the references in the order of the route.
    #[must_use]
    pub fn new(refs: Vec<BackendRef>) -> Self {
        let total = refs.iter().map(|r| u64::from(r.weight)).sum();
        Self { refs, total }
    }

    /// The reference that `draw` (uniform over all of u64) selects: None if there is none or
    /// all weights are 0.
    #[must_use]
    pub fn choose(&self, draw: u64) -> Option<&BackendRef> {
        if let [only] = self.refs.as_slice() {
            return (only.weight > 0).then_some(only);
        }
        // Multiply-shift maps the draw to 0..total without a division; None for a total of 0.
        let mut at = u64::try_from((u128::from(draw) * u128::from(self.total)) >> 64).ok()?;
        self.refs.iter().find(|r| {
            let weight = u64::from(r.weight);
            let here = at < weight;
            at = at.saturating_sub(weight);
            here
        })
    }

    /// All references, for status and `/config`.
    #[must_use]
    pub fn refs(&self) -> &[BackendRef] {
        &self.refs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_of_the_clients_family_when_one_is() {
        let parse = |text: &str| text.parse().unwrap();
        let (a, b, c) = (parse("10.0.0.1:80"), parse("[fd00::1]:80"), parse("[fd00::2]:80"));
        let service = ServicePort { namespace: "d".into(), name: "s".into(), port: 80 };
        let service = Arc::new(service);
        let protocol = AppProtocol::Unspecified;
        let of = |endpoints: &[SocketAddr]| Backend {
            service: Arc::clone(&service),
            protocol,
            addresses: Vec::new(),
            endpoints: endpoints.to_vec(),
            unready: Vec::new(),
            affinity: false,
        };
        let (v4, v6) = (parse("10.96.0.1:80"), parse("[fd00:96::1]:80"));
        assert_eq!(of(&[a, b, c]).endpoints_for(&v4), [a]);
        assert_eq!(of(&[a, b, c]).endpoints_for(&v6), [b, c]);
        assert_eq!(of(&[a]).endpoints_for(&v6), [a]);
        assert_eq!(of(&[b, c]).endpoints_for(&v4), [b, c]);
        assert_eq!(of(&[]).endpoints_for(&v6), []);
    }
}

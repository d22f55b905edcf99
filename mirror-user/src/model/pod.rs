//! The rows: what the selection knows of a Pod and of a Namespace. Decoded by
//! [`crate::control::decode`].

use std::net::IpAddr;

use super::{CaptureLabel, Consent, ObjectName};

/// A Pod of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodRow {
    /// Its Namespace and name; another pod may get them after it.
    pub name: ObjectName,
    /// `metadata.uid`.
    pub uid: Box<str>,
    /// By what its cgroup is found.
    pub claim: CgroupClaim,
    /// Its own label.
    pub label: CaptureLabel,
    /// `spec.hostNetwork`.
    pub host_network: bool,
    /// A service mesh that takes its connections.
    pub mesh: Option<Mesh>,
    /// `spec.runtimeClassName`.
    pub runtime_class: Option<Box<str>>,
    /// Its phase is Succeeded or Failed: no process of it runs any more.
    pub ended: bool,
    /// `status.podIPs`, which its kubelet writes.
    pub ips: Vec<IpAddr>,
}

/// What a Pod says that its cgroup is named after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CgroupClaim {
    /// Its own uid, which the API server has given it.
    Uid,
    /// The hash of a static pod's configuration: the Pod is the mirror that kubelet has made of it,
    /// so the Pod claims. Anybody who may create Pods may claim that.
    Hash(Box<str>),
    /// It says so, and is not as kubelet makes them.
    Misshapen(&'static str),
}

/// A Namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceRow {
    /// Its name; its own namespace is empty, as of all that belongs to the cluster.
    pub name: ObjectName,
    /// Its label.
    pub label: CaptureLabel,
    /// Whether its Services may have endpoints' addresses for frontends.
    pub endpoint_frontends: Consent,
    /// Whether copies for its Services may go to addresses that are no Pod's.
    pub external_shadows: Consent,
}

impl NamespaceRow {
    /// What its labels permit.
    pub(crate) fn consents(&self) -> (Consent, Consent) {
        (self.endpoint_frontends.clone(), self.external_shadows.clone())
    }
}

/// A service mesh that redirects all of a pod's connections, ours as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mesh {
    /// Istio with a sidecar.
    Istio,
    /// Istio without (ambient): the node's ztunnel takes connections inside the pod.
    IstioAmbient,
    /// Linkerd.
    Linkerd,
}

impl Mesh {
    /// All that are known.
    pub const ALL: [Self; 3] = [Self::Istio, Self::IstioAmbient, Self::Linkerd];

    /// Names of containers that show it.
    pub(crate) fn containers(self) -> &'static [&'static str] {
        match self {
            Self::Istio => &["istio-proxy"],
            Self::IstioAmbient => &[],
            Self::Linkerd => &["linkerd-proxy"],
        }
    }

    /// Annotations that show it, some only with this value: what the injectors write
    /// (sidecar.istio.io/status, linkerd.io/proxy-version), and istio-cni for ambient.
    pub(crate) fn annotations(self) -> &'static [(&'static str, Option<&'static str>)] {
        match self {
            Self::Istio => &[("sidecar.istio.io/status", None)],
            Self::IstioAmbient => &[("ambient.istio.io/redirection", Some("enabled"))],
            Self::Linkerd => &[("linkerd.io/proxy-version", None)],
        }
    }
}

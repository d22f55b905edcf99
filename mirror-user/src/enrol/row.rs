//! The rows: what enrolment knows of a Pod and of a Namespace. Decoded by
//! [`crate::control::decode`].

use super::Wish;
use crate::control::objects::ObjectName;

/// A Pod of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodRow {
    /// Its Namespace and name; another pod may get them after it.
    pub name: ObjectName,
    /// `metadata.uid`.
    pub uid: Box<str>,
    /// The uid in the name of its cgroup: of a static pod it is another than the API's.
    pub cgroup: Box<str>,
    /// Its own label.
    pub wish: Wish,
    /// `spec.hostNetwork`.
    pub host_network: bool,
    /// A service mesh that takes its connections.
    pub mesh: Option<Mesh>,
    /// `spec.runtimeClassName`.
    pub runtime_class: Option<Box<str>>,
    /// Its phase is Succeeded or Failed: no process of it runs any more.
    pub ended: bool,
}

/// A Namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceRow {
    /// Its name; its own namespace is empty, as of all that belongs to the cluster.
    pub name: ObjectName,
    /// Its label.
    pub wish: Wish,
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

    /// Names of containers that tell of it.
    pub(crate) fn containers(self) -> &'static [&'static str] {
        match self {
            Self::Istio => &["istio-proxy"],
            Self::IstioAmbient => &[],
            Self::Linkerd => &["linkerd-proxy"],
        }
    }

    /// Annotations that tell of it, some only with this value: what the injectors write
    /// (sidecar.istio.io/status, linkerd.io/proxy-version), and istio-cni for ambient.
    pub(crate) fn annotations(self) -> &'static [(&'static str, Option<&'static str>)] {
        match self {
            Self::Istio => &[("sidecar.istio.io/status", None)],
            Self::IstioAmbient => &[("ambient.istio.io/redirection", Some("enabled"))],
            Self::Linkerd => &[("linkerd.io/proxy-version", None)],
        }
    }
}

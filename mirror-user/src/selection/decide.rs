//! The decision about one pod. In: its row, its Namespace's label, the agent's policy. Out: capture
//! it, refuse it, or leave it because capture is not requested. Pure.

use super::claims::Doubt;
use crate::model::{CaptureLabel, Mesh, PodRow};

/// What the agent's flags say of all pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// For pods that have no label and whose Namespace has none.
    pub default: Choice,
    /// Runtime classes whose pods have a separate network stack, beside those known by name.
    pub sandboxed: Vec<String>,
}

/// Whether pods without a label are captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Choice {
    /// Capture unlabelled pods.
    Enabled,
    /// Ignore unlabelled pods.
    Disabled,
}

/// What becomes of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Its connections are captured.
    Capture,
    /// It cannot be captured, or must not be.
    Refused(SelectionRefusal),
    /// Its capture is not requested.
    NotRequested(NotRequested),
}

/// Why a pod is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectionRefusal {
    /// A label with a value that means nothing.
    #[error("{whose}: {fault}")]
    Label {
        /// The Pod or the Namespace.
        whose: &'static str,
        /// As text.
        fault: String,
    },
    /// It is in the node's network namespace, with the node's own daemons.
    #[error("it uses the node's network (hostNetwork)")]
    HostNetwork,
    /// A service mesh redirects its connections, and would redirect the agent's instead of the application's.
    #[error("{} redirects its connections and would take the agent's for the application's", mesh(*.0))]
    Mesh(Mesh),
    /// Its connections never reach this kernel's sockets.
    #[error(
        "its runtime class {0} gives it a separate network stack (a sandbox or a virtual machine)"
    )]
    Sandbox(Box<str>),
    /// Its cgroup may be another Pod's.
    #[error(transparent)]
    Identity(#[from] Doubt),
}

/// Why the capture of a pod is not requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotRequested {
    /// By its own label.
    #[error("the Pod is labelled mirror.dev/capture=disabled")]
    Pod,
    /// By its Namespace's.
    #[error("its Namespace is labelled mirror.dev/capture=disabled")]
    Namespace,
    /// By the agent's flag.
    #[error("neither the Pod nor its Namespace is labelled mirror.dev/capture=enabled")]
    Default,
    /// All its containers have ended for good.
    #[error("it has ended")]
    Ended,
}

impl SelectionRefusal {
    /// Stable name, for metrics.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Label { .. } => "label",
            Self::HostNetwork => "host_network",
            Self::Mesh(_) => "mesh",
            Self::Sandbox(_) => "sandbox",
            Self::Identity(_) => "identity",
        }
    }
}

/// Decides: the Pod's label before its Namespace's before the flag; who asks may still be refused.
#[must_use]
pub fn decide(pod: &PodRow, namespace: &CaptureLabel, policy: &Policy) -> Decision {
    if pod.ended {
        return Decision::NotRequested(NotRequested::Ended);
    }
    for (label, whose, not_requested) in [
        (&pod.label, "the Pod", NotRequested::Pod),
        (namespace, "its Namespace", NotRequested::Namespace),
    ] {
        match (label, label.fault()) {
            (_, Some(fault)) => return Decision::Refused(SelectionRefusal::Label { whose, fault }),
            (CaptureLabel::Disabled, _) => return Decision::NotRequested(not_requested),
            (CaptureLabel::Enabled, _) => return admit(pod, policy),
            (CaptureLabel::None | CaptureLabel::Unknown(_), _) => {}
        }
    }
    match policy.default {
        Choice::Enabled => admit(pod, policy),
        Choice::Disabled => Decision::NotRequested(NotRequested::Default),
    }
}

fn admit(pod: &PodRow, policy: &Policy) -> Decision {
    let sandbox = pod.runtime_class.as_ref().filter(|class| is_sandboxed(class, policy));
    let refusal = match (pod.host_network, pod.mesh, sandbox) {
        (true, ..) => SelectionRefusal::HostNetwork,
        (_, Some(mesh), _) => SelectionRefusal::Mesh(mesh),
        (_, _, Some(class)) => SelectionRefusal::Sandbox(class.clone()),
        _ => return Decision::Capture,
    };
    Decision::Refused(refusal)
}

/// A class is only a name; these are parts of the names that the sandboxes' own documents give
/// theirs. (One that is missed costs nothing but the truth of the status: the hook never sees its
/// connections.)
fn is_sandboxed(class: &str, policy: &Policy) -> bool {
    const SANDBOXES: [&str; 5] = ["kata", "gvisor", "runsc", "firecracker", "quark"];
    let class = class.to_ascii_lowercase();
    SANDBOXES.iter().any(|known| class.contains(known))
        || policy.sandboxed.iter().any(|other| other.eq_ignore_ascii_case(&class))
}

fn mesh(mesh: Mesh) -> &'static str {
    match mesh {
        Mesh::Istio => "the sidecar of Istio",
        Mesh::IstioAmbient => "Istio (ambient mode)",
        Mesh::Linkerd => "the sidecar of Linkerd",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{CgroupClaim, ObjectName};

    fn pod() -> PodRow {
        PodRow {
            name: ObjectName { namespace: "shop".into(), name: "cart".into() },
            uid: "0".into(),
            claim: CgroupClaim::Uid,
            label: CaptureLabel::None,
            host_network: false,
            mesh: None,
            runtime_class: None,
            ended: false,
            ips: Vec::new(),
        }
    }

    fn policy(default: Choice) -> Policy {
        Policy { default, sandboxed: vec!["nitro".into()] }
    }

    #[test]
    fn the_pods_label_wins_over_the_namespaces_and_that_over_the_flag() {
        use Choice::{Disabled as Off, Enabled as On};
        let none = CaptureLabel::None;
        let no = Decision::NotRequested;
        for (own, namespace, default, expected) in [
            (CaptureLabel::Enabled, CaptureLabel::Disabled, Off, Decision::Capture),
            (CaptureLabel::Disabled, CaptureLabel::Enabled, On, no(NotRequested::Pod)),
            (none.clone(), CaptureLabel::Enabled, Off, Decision::Capture),
            (none.clone(), CaptureLabel::Disabled, On, no(NotRequested::Namespace)),
            (none.clone(), none.clone(), On, Decision::Capture),
            (none.clone(), none, Off, no(NotRequested::Default)),
        ] {
            let pod = PodRow { label: own, ..pod() };
            assert_eq!(decide(&pod, &namespace, &policy(default)), expected, "{pod:?}");
        }
    }

    #[test]
    fn a_label_with_another_value_is_refused_with_its_text() {
        let odd = CaptureLabel::Unknown("on".into());
        for (own, namespace, whose) in [
            (odd.clone(), CaptureLabel::Enabled, "the Pod"),
            (CaptureLabel::None, odd, "its Namespace"),
        ] {
            let pod = PodRow { label: own, ..pod() };
            let Decision::Refused(refusal) = decide(&pod, &namespace, &policy(Choice::Enabled))
            else {
                panic!("{pod:?}");
            };
            let text =
                format!("{whose}: its label mirror.dev/capture=on is neither enabled nor disabled");
            assert_eq!((refusal.to_string(), refusal.label()), (text, "label"));
        }
    }

    #[test]
    fn pods_that_must_not_be_captured_are_refused_even_when_requested() {
        let class = |name: &str| PodRow { runtime_class: Some(name.into()), ..pod() };
        let cases = [
            (PodRow { host_network: true, ..pod() }, "host_network"),
            (PodRow { mesh: Some(Mesh::Istio), ..pod() }, "mesh"),
            (PodRow { mesh: Some(Mesh::Linkerd), ..pod() }, "mesh"),
            (class("kata-qemu"), "sandbox"),
            (class("gVisor"), "sandbox"),
            (class("nitro"), "sandbox"),
        ];
        for (pod, label) in cases {
            let pod = PodRow { label: CaptureLabel::Enabled, ..pod };
            match decide(&pod, &CaptureLabel::None, &policy(Choice::Disabled)) {
                Decision::Refused(refusal) => assert_eq!(refusal.label(), label, "{pod:?}"),
                other => panic!("{other:?}: {pod:?}"),
            }
        }
        let nvidia = class("nvidia");
        assert_eq!(
            decide(&nvidia, &CaptureLabel::None, &policy(Choice::Enabled)),
            Decision::Capture
        );
    }

    #[test]
    fn who_has_ended_or_was_not_requested_is_not_refused() {
        let ended = PodRow { ended: true, label: CaptureLabel::Enabled, ..pod() };
        let decision = decide(&ended, &CaptureLabel::None, &policy(Choice::Enabled));
        assert_eq!(decision, Decision::NotRequested(NotRequested::Ended));
        let host = PodRow { host_network: true, ..pod() };
        let decision = decide(&host, &CaptureLabel::None, &policy(Choice::Disabled));
        assert_eq!(decision, Decision::NotRequested(NotRequested::Default));
    }
}

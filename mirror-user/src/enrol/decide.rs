//! The decision about one pod. In: its row, its Namespace's wish, the agent's policy. Out: capture
//! it, refuse to, or leave it since nobody asks. Pure.

use super::{Mesh, PodRow, Wish};

/// What the agent's flags say of all pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Of pods without a label of their own or their Namespace's.
    pub default: Choice,
    /// Runtime classes whose pods have a network stack of their own, beside those known by name.
    pub sandboxed: Vec<String>,
}

/// Whether pods that nobody has labelled are captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Choice {
    /// They are.
    Enabled,
    /// They are not.
    Disabled,
}

/// What becomes of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Its connections are captured.
    Capture,
    /// It cannot be captured, or must not be.
    Refused(Refusal),
    /// Nobody asks for it.
    NotAsked(Unasked),
}

/// Why a pod is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A label with a value that means nothing.
    #[error("{whose}: {fault}")]
    Label {
        /// The Pod or the Namespace.
        whose: &'static str,
        /// In words.
        fault: String,
    },
    /// It is in the node's network namespace, with the node's own daemons.
    #[error("it uses the node's network (hostNetwork)")]
    HostNetwork,
    /// A service mesh takes its connections, and would take ours instead of its own.
    #[error("{} redirects its connections, and would take the agent's for the application's", mesh(*.0))]
    Mesh(Mesh),
    /// Its connections never reach this kernel's sockets.
    #[error(
        "its runtime class {0} gives it a network stack of its own (a sandbox or a virtual machine)"
    )]
    Sandbox(Box<str>),
}

/// Why nobody asks for a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unasked {
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

impl Refusal {
    /// Stable name, for metrics.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Label { .. } => "label",
            Self::HostNetwork => "host_network",
            Self::Mesh(_) => "mesh",
            Self::Sandbox(_) => "sandbox",
        }
    }
}

/// Decides: the Pod's label before its Namespace's before the flag; who asks may still be refused.
#[must_use]
pub fn decide(pod: &PodRow, namespace: &Wish, policy: &Policy) -> Verdict {
    if pod.ended {
        return Verdict::NotAsked(Unasked::Ended);
    }
    for (wish, whose, unasked) in
        [(&pod.wish, "the Pod", Unasked::Pod), (namespace, "its Namespace", Unasked::Namespace)]
    {
        match (wish, wish.fault()) {
            (_, Some(fault)) => return Verdict::Refused(Refusal::Label { whose, fault }),
            (Wish::Disabled, _) => return Verdict::NotAsked(unasked),
            (Wish::Enabled, _) => return admit(pod, policy),
            (Wish::None | Wish::Unknown(_), _) => {}
        }
    }
    match policy.default {
        Choice::Enabled => admit(pod, policy),
        Choice::Disabled => Verdict::NotAsked(Unasked::Default),
    }
}

fn admit(pod: &PodRow, policy: &Policy) -> Verdict {
    let sandbox = pod.runtime_class.as_ref().filter(|class| is_sandboxed(class, policy));
    let refusal = match (pod.host_network, pod.mesh, sandbox) {
        (true, ..) => Refusal::HostNetwork,
        (_, Some(mesh), _) => Refusal::Mesh(mesh),
        (_, _, Some(class)) => Refusal::Sandbox(class.clone()),
        _ => return Verdict::Capture,
    };
    Verdict::Refused(refusal)
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
    use crate::control::objects::ObjectName;

    fn pod() -> PodRow {
        PodRow {
            name: ObjectName { namespace: "shop".into(), name: "cart".into() },
            uid: "0".into(),
            cgroup: "0".into(),
            wish: Wish::None,
            host_network: false,
            mesh: None,
            runtime_class: None,
            ended: false,
        }
    }

    fn policy(default: Choice) -> Policy {
        Policy { default, sandboxed: vec!["nitro".into()] }
    }

    #[test]
    fn the_pods_label_wins_over_the_namespaces_and_that_over_the_flag() {
        use Choice::{Disabled as Off, Enabled as On};
        let none = Wish::None;
        let no = Verdict::NotAsked;
        for (own, namespace, default, expected) in [
            (Wish::Enabled, Wish::Disabled, Off, Verdict::Capture),
            (Wish::Disabled, Wish::Enabled, On, no(Unasked::Pod)),
            (none.clone(), Wish::Enabled, Off, Verdict::Capture),
            (none.clone(), Wish::Disabled, On, no(Unasked::Namespace)),
            (none.clone(), none.clone(), On, Verdict::Capture),
            (none.clone(), none, Off, no(Unasked::Default)),
        ] {
            let pod = PodRow { wish: own, ..pod() };
            assert_eq!(decide(&pod, &namespace, &policy(default)), expected, "{pod:?}");
        }
    }

    #[test]
    fn a_label_with_another_value_is_refused_with_its_text() {
        let odd = Wish::Unknown("on".into());
        for (own, namespace, whose) in
            [(odd.clone(), Wish::Enabled, "the Pod"), (Wish::None, odd, "its Namespace")]
        {
            let pod = PodRow { wish: own, ..pod() };
            let Verdict::Refused(refusal) = decide(&pod, &namespace, &policy(Choice::Enabled))
            else {
                panic!("{pod:?}");
            };
            let text =
                format!("{whose}: its label mirror.dev/capture=on is neither enabled nor disabled");
            assert_eq!((refusal.to_string(), refusal.label()), (text, "label"));
        }
    }

    #[test]
    fn pods_that_must_not_be_captured_are_refused_even_when_asked_for() {
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
            let pod = PodRow { wish: Wish::Enabled, ..pod };
            match decide(&pod, &Wish::None, &policy(Choice::Disabled)) {
                Verdict::Refused(refusal) => assert_eq!(refusal.label(), label, "{pod:?}"),
                other => panic!("{other:?}: {pod:?}"),
            }
        }
        let nvidia = class("nvidia");
        assert_eq!(decide(&nvidia, &Wish::None, &policy(Choice::Enabled)), Verdict::Capture);
    }

    #[test]
    fn who_has_ended_or_was_not_asked_for_is_not_refused() {
        let ended = PodRow { ended: true, wish: Wish::Enabled, ..pod() };
        let verdict = decide(&ended, &Wish::None, &policy(Choice::Enabled));
        assert_eq!(verdict, Verdict::NotAsked(Unasked::Ended));
        let host = PodRow { host_network: true, ..pod() };
        let verdict = decide(&host, &Wish::None, &policy(Choice::Disabled));
        assert_eq!(verdict, Verdict::NotAsked(Unasked::Default));
    }
}

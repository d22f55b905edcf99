//! What a container may do: its securityContext as arguments of setpriv(1).
//!
//! In: the contexts of container and pod. Out: user, group, capabilities, no_new_privs. seccomp,
//! AppArmor and SELinux profiles are not applied.

use k8s_openapi::api::core::v1::{Container, PodSpec};

/// What containerd leaves a container without any securityContext
/// (`defaultUnixCaps` in its oci package).
const DEFAULT: [&str; 14] = [
    "audit_write",
    "chown",
    "dac_override",
    "fowner",
    "fsetid",
    "kill",
    "mknod",
    "net_bind_service",
    "net_raw",
    "setfcap",
    "setgid",
    "setpcap",
    "setuid",
    "sys_chroot",
];

/// A container's privileges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Security {
    user: i64,
    group: i64,
    groups: Vec<i64>,
    /// None: all of them (privileged).
    capabilities: Option<Vec<String>>,
    no_new_privileges: bool,
    pub(super) read_only_root: bool,
}

impl Security {
    /// Of a container; what it leaves out is the pod's.
    pub(super) fn new(pod: &PodSpec, container: &Container) -> Self {
        let of_pod = pod.security_context.as_ref();
        let own = container.security_context.as_ref();
        let user = own.and_then(|own| own.run_as_user).or(of_pod.and_then(|pod| pod.run_as_user));
        let group =
            own.and_then(|own| own.run_as_group).or(of_pod.and_then(|pod| pod.run_as_group));
        let mut groups = of_pod.and_then(|pod| pod.supplemental_groups.clone()).unwrap_or_default();
        groups.extend(of_pod.and_then(|pod| pod.fs_group));
        let privileged = own.and_then(|own| own.privileged).unwrap_or_default();
        let capabilities = own.and_then(|own| own.capabilities.clone()).unwrap_or_default();
        let list = |names: Option<Vec<String>>| names.unwrap_or_default();
        let capabilities =
            (!privileged).then(|| effective(&list(capabilities.add), &list(capabilities.drop)));
        Self {
            user: user.unwrap_or_default(),
            group: group.unwrap_or_default(),
            groups,
            capabilities,
            no_new_privileges: own.and_then(|own| own.allow_privilege_escalation) == Some(false),
            read_only_root: own.and_then(|own| own.read_only_root_filesystem).unwrap_or_default(),
        }
    }

    /// Arguments of setpriv, up to the program's.
    pub(super) fn setpriv(&self) -> Vec<String> {
        let mut args = vec![format!("--reuid={}", self.user), format!("--regid={}", self.group)];
        if self.groups.is_empty() {
            args.push("--clear-groups".into());
        } else {
            let groups: Vec<_> = self.groups.iter().map(ToString::to_string).collect();
            args.push(format!("--groups={}", groups.join(",")));
        }
        if let Some(capabilities) = &self.capabilities {
            let kept: String = capabilities.iter().map(|name| format!(",+{name}")).collect();
            // Root gets what the bounding set has, any other user nothing, as in a container.
            args.push(format!("--bounding-set=-all{kept}"));
            args.push("--inh-caps=-all".into());
        }
        if self.no_new_privileges {
            args.push("--no-new-privs".into());
        }
        args
    }
}

fn effective(add: &[String], drop: &[String]) -> Vec<String> {
    let plain = |name: &String| {
        let name = name.to_lowercase();
        name.strip_prefix("cap_").unwrap_or(&name).to_owned()
    };
    let (add, drop): (Vec<_>, Vec<_>) =
        (add.iter().map(plain).collect(), drop.iter().map(plain).collect());
    let all = drop.iter().any(|name| name == "all");
    let mut kept: Vec<_> = DEFAULT.iter().map(|name| (*name).to_owned()).collect();
    kept.retain(|name| !all && !drop.contains(name));
    for name in add {
        if !kept.contains(&name) {
            kept.push(name);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_is_gone_and_what_is_added_stays() {
        let names =
            |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let kept = effective(&names(&["BPF", "CAP_NET_ADMIN"]), &names(&["ALL"]));
        assert_eq!(kept, ["bpf", "net_admin"]);
        assert_eq!(effective(&[], &names(&["NET_RAW"])).len(), DEFAULT.len() - 1);
        assert!(effective(&[], &[]).contains(&"chown".to_owned()));
    }
}

//! The sandbox of a pod: its network namespace with one routed interface, its cgroup as kubelet's
//! systemd driver names it, and a process that only holds both (containerd's `pause`).
//!
//! In: a Pod. Out: where its containers run. A pod with hostNetwork has the node's namespace.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Pod;

use super::Context;
use crate::{cgroup, command::run, namespace::Netns};

/// Every pod's gateway, on the node's end of each pod's link.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 1);

/// Where a pod's containers run. Dropping it removes it.
#[derive(Debug)]
pub(super) struct Sandbox {
    pub(super) netns: PathBuf,
    pub(super) ip: Ipv4Addr,
    /// The pod's slice.
    pub(super) cgroup: PathBuf,
    pause: Option<Child>,
    /// Its own one; None with hostNetwork.
    _own: Option<Netns>,
}

impl Sandbox {
    /// Makes it; blocks for some milliseconds.
    pub(super) fn create(context: &Context, pod: &Pod) -> Result<Self> {
        let uid = pod.metadata.uid.as_deref().context("a Pod without a uid")?;
        let class = pod.status.as_ref().and_then(|status| status.qos_class.as_deref());
        let slice = context.cgroup.join(slice(uid, class.unwrap_or("BestEffort")));
        cgroup::create(&slice)?;
        let host = pod.spec.as_ref().and_then(|spec| spec.host_network).unwrap_or_default();
        let mut sandbox = Self {
            netns: context.netns.clone(),
            ip: context.node_ip,
            cgroup: slice,
            pause: None,
            _own: None,
        };
        if !host {
            let (netns, ip) = network(context)?;
            sandbox.netns = netns.path();
            sandbox.ip = ip;
            sandbox._own = Some(netns);
        }
        sandbox.pause = Some(sandbox.hold(uid)?);
        Ok(sandbox)
    }

    /// Starts the process that holds the namespaces, in a separate cgroup.
    fn hold(&self, uid: &str) -> Result<Child> {
        let scope = self.scope(&container_id(uid, "", 0))?;
        let script = "echo 0 >\"$0/cgroup.procs\" && exec sleep infinity";
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]).arg(&scope);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        crate::namespace::inside(&self.netns, || command.spawn())?.context("the pause process")
    }

    /// Makes the cgroup of a container.
    pub(super) fn scope(&self, container_id: &str) -> Result<PathBuf> {
        let scope = self.cgroup.join(format!("cri-containerd-{container_id}.scope"));
        cgroup::create(&scope)?;
        Ok(scope)
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if let Some(mut pause) = self.pause.take() {
            let _ = pause.kill();
            let _ = pause.wait();
        }
        if let Err(error) = cgroup::remove(&self.cgroup) {
            eprintln!("removing a pod's cgroup: {error:#}");
        }
    }
}

/// A pod's slice below the root of the hierarchy: kubelet's cgroup_manager_linux.go.
fn slice(uid: &str, class: &str) -> PathBuf {
    let uid = uid.replace('-', "_");
    let root = Path::new("kubepods.slice");
    match class {
        "Guaranteed" => root.join(format!("kubepods-pod{uid}.slice")),
        class => {
            let class = class.to_lowercase();
            let parent = format!("kubepods-{class}.slice");
            root.join(parent).join(format!("kubepods-{class}-pod{uid}.slice"))
        }
    }
}

/// 64 hexadecimal digits, as containerd has them.
pub(super) fn container_id(uid: &str, name: &str, restarts: u32) -> String {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    let uid: String = uid.chars().filter(char::is_ascii_hexdigit).collect();
    format!("{uid:0<32.32}{:016x}{restarts:016x}", hasher.finish())
}

/// A namespace with an interface, routed and not bridged: a response must pass the node for its
/// address to be translated back.
fn network(context: &Context) -> Result<(Netns, Ipv4Addr)> {
    let number = context.number()?;
    let name = format!("{}-kube{number}", context.id);
    let [third, fourth] = number.checked_add(0x102).context("no address is left")?.to_be_bytes();
    let ip = Ipv4Addr::new(10, 244, third, fourth);
    let netns = Netns::create(&name)?;
    // As containerd does: a server that is not root may listen on port 80.
    netns.set("ipv4/ip_unprivileged_port_start", 0)?;
    let link = format!("kube{number}");
    let node = context.netns.file_name().unwrap_or_default().to_string_lossy();
    let commands = format!(
        "link add {link} type veth peer name eth0 netns {name}\n\
         address add {GATEWAY}/32 dev {link}\n\
         link set {link} up\n\
         route add {ip}/32 dev {link} src {}\n",
        context.node_ip
    );
    run(&["ip", "-n", &node, "-batch", "-"], &commands)?;
    netns.ip(&format!(
        "address add {ip}/32 dev eth0\n\
         link set eth0 up\n\
         route add {GATEWAY}/32 dev eth0\n\
         route add default via {GATEWAY}\n"
    ))?;
    Ok((netns, ip))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_named_as_kubelet_names_them() {
        let uid = "0a1b-2c";
        let name = |class| slice(uid, class).to_string_lossy().into_owned();
        assert_eq!(name("Guaranteed"), "kubepods.slice/kubepods-pod0a1b_2c.slice");
        assert_eq!(
            name("Burstable"),
            "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod0a1b_2c.slice"
        );
    }

    #[test]
    fn container_ids_have_64_digits() {
        let id = container_id("5a0c6c2e-0a9f-4bb4-9c57-6fbb7d1d7d11", "httpbin", 3);
        assert_eq!(id.len(), 64);
        assert!(id.chars().all(|digit| digit.is_ascii_hexdigit()));
    }
}

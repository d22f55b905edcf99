//! The node: a network namespace without an uplink, which routes between its pods and balances
//! its Services as kube-proxy would.

mod pod;
mod service;

use std::{
    fmt::Write as _,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6},
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail};

pub use pod::{Pod, kubelet};
pub use service::Service;

use crate::{
    cgroup,
    leftovers::{self, PREFIX},
    manifest::Routes,
    namespace::Netns,
    process::{Output, Process, ProcessContext},
};

/// The node's own address.
const NODE_IP: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 1);
/// The same in IPv6.
const NODE_IP6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x192, 0x168, 0x77, 0, 0, 0, 1);

/// A simulated Kubernetes node.
#[derive(Debug)]
pub struct Node {
    /// What the names of all that belongs to it begin with.
    id: String,
    folder: PathBuf,
    cgroup: PathBuf,
    netns: Netns,
    routes: Routes,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// By name; those of IPv6 with another ending.
    pods: Vec<(String, IpAddr)>,
    /// How many pods there ever were: a name may come back, an address does not.
    made: u16,
    services: Vec<Service>,
}

impl Node {
    /// Makes an empty node. `name` appears in the names of its namespaces.
    ///
    /// # Errors
    /// Not root, no cgroup v2, `ip` or `nft` missing; each with what to do.
    pub fn create(name: &str) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        if !nix::unistd::geteuid().is_root() {
            bail!("the simulated node needs root (namespaces, cgroups, eBPF): use sudo -E");
        }
        leftovers::on_interrupt()?;
        leftovers::remove_dead()?;
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let id = format!("{PREFIX}{}-{count}-{name}", std::process::id());
        // From here on a failure leaves parts behind; `parts` removes them.
        let parts = Parts(&id);
        let folder = std::env::temp_dir().join(&id);
        let routes = Routes::create(&folder.join("routes"))?;
        fs::create_dir_all(folder.join("logs"))?;
        let cgroup = cgroup::mount()?.join(&id);
        cgroup::create(&cgroup)?;
        let netns = Netns::create(&format!("{id}-node"))?;
        netns.ip(&format!(
            "address add {NODE_IP}/32 dev lo\n\
             route add 10.96.0.0/12 dev lo src {NODE_IP}\n\
             address add {NODE_IP6}/128 dev lo nodad\n"
        ))?;
        netns.set("ipv4/ip_forward", 1)?;
        netns.set("ipv6/conf/all/forwarding", 1)?;
        netns.set("ipv6/conf/default/accept_dad", 0)?;
        std::mem::forget(parts);
        let node = Self { id, folder, cgroup, netns, routes, state: Mutex::default() };
        node.apply(&node.lock())?;
        Ok(node)
    }

    /// Adds a pod: a network namespace, a cgroup, an address in 10.244.0.0/16 and one in
    /// fd00:244::/64. The name of a pod that was dropped may be used again; everything else about
    /// it is new.
    ///
    /// # Errors
    /// A pod of that name is there, or what `ip` says.
    pub fn pod(&self, name: &str) -> Result<Pod> {
        self.add_pod(name, true, None)
    }

    /// The same without any IPv6: it is disabled in its network namespace.
    ///
    /// # Errors
    /// As [`Node::pod`].
    pub fn pod_without_ipv6(&self, name: &str) -> Result<Pod> {
        self.add_pod(name, false, None)
    }

    /// The same, with the cgroups of a pod as kubelet makes them, and a uid; [`Pod::cgroup`] is the
    /// pod's. An agent finds it by a Pod document ([`crate::manifest::PodDocument`]).
    ///
    /// # Errors
    /// As [`Node::pod`].
    pub fn kubelet_pod(&self, name: &str, naming: kubelet::Naming) -> Result<Pod> {
        self.add_pod(name, true, Some(kubelet::Kubelet::new(naming)?))
    }

    /// The same with the cgroups of another pod that is gone: a new sandbox of the same pod.
    ///
    /// # Errors
    /// As [`Node::pod`].
    pub fn kubelet_pod_again(&self, name: &str, kubelet: kubelet::Kubelet) -> Result<Pod> {
        self.add_pod(name, true, Some(kubelet))
    }

    fn add_pod(&self, name: &str, ipv6: bool, kubelet: Option<kubelet::Kubelet>) -> Result<Pod> {
        let mut state = self.lock();
        if self.cgroup.join(name).exists() {
            bail!("there is a pod {name}: choose another name");
        }
        let names = [format!("{name}.pod"), format!("{name}.pod6")];
        state.pods.retain(|(other, _)| !names.contains(other));
        let index = state.made;
        state.made = index.checked_add(1).context("too many pods")?;
        let pod = Pod::create(self, name, index, ipv6, kubelet)?;
        let addresses = [Some(IpAddr::V4(pod.ip())), pod.ip6().map(IpAddr::V6)];
        let named = names.into_iter().zip(addresses);
        state.pods.extend(named.filter_map(|(name, address)| Some((name, address?))));
        self.apply(&state)?;
        Ok(pod)
    }

    /// Adds a Service of the namespace `default` with a ClusterIP, balanced at random over the
    /// pods.
    ///
    /// # Errors
    /// What `nft` says.
    pub fn service(&self, name: &str, port: u16, target: u16, pods: &[&Pod]) -> Result<Service> {
        let endpoints = pods.iter().map(|pod| SocketAddrV4::new(pod.ip(), target)).collect();
        self.service_in("default", name, port, endpoints)
    }

    /// The same with an IPv6 ClusterIP as well: its names have both addresses. A pod without IPv6
    /// is an IPv4 endpoint alone.
    ///
    /// # Errors
    /// What `nft` says.
    pub fn dual_service(
        &self,
        name: &str,
        port: u16,
        target: u16,
        pods: &[&Pod],
    ) -> Result<Service> {
        let mut service = self.service(name, port, target, pods)?;
        let [.., high, low] = service.cluster_ip.octets();
        let host = u16::from_be_bytes([high, low]);
        service.cluster_ip6 = Some(Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, host));
        let endpoints = pods.iter().filter_map(|pod| pod.ip6());
        service.endpoints6 = endpoints.map(|ip| SocketAddrV6::new(ip, target, 0, 0)).collect();
        self.update(&service)?;
        Ok(service)
    }

    /// Adds a Service of any namespace.
    ///
    /// # Errors
    /// What `nft` says.
    pub fn service_in(
        &self,
        namespace: &str,
        name: &str,
        port: u16,
        endpoints: Vec<SocketAddrV4>,
    ) -> Result<Service> {
        let mut state = self.lock();
        let index = u16::try_from(state.services.len()).context("too many Services")?;
        let [high, low] = (index + 10).to_be_bytes();
        let service = Service {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            cluster_ip: Ipv4Addr::new(10, 96, high, low),
            port,
            endpoints,
            cluster_ip6: None,
            endpoints6: Vec::new(),
            app_protocol: None,
        };
        state.services.push(service.clone());
        self.apply(&state)?;
        Ok(service)
    }

    /// Puts a changed Service (other endpoints, say) into force for new connections.
    ///
    /// # Errors
    /// What `nft` says.
    pub fn update(&self, service: &Service) -> Result<()> {
        let mut state = self.lock();
        state.services.retain(|other| other.cluster_ip != service.cluster_ip);
        state.services.push(service.clone());
        self.apply(&state)
    }

    /// The folder of YAML that the agent reads.
    #[must_use]
    pub fn routes(&self) -> &Routes {
        &self.routes
    }

    /// What the names of all that belongs to it begin with.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// The cgroup that contains all of the node's cgroups.
    pub(crate) fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// The node's own address.
    #[must_use]
    pub fn ip(&self) -> Ipv4Addr {
        NODE_IP
    }

    /// The node's own network namespace.
    #[must_use]
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// A folder for a test's own files; it goes with the node.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Starts a process on the node itself, in a separate cgroup (as a host's daemon).
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn(&self, name: &str, argv: &[&str]) -> Result<Process> {
        self.place("host")?.spawn(name, argv)
    }

    /// The same in a cgroup whose name is `name`, below that of the node's other processes: see
    /// [`usage::cpu_of_cgroup`](crate::usage::cpu_of_cgroup).
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn_apart(&self, name: &str, argv: &[&str]) -> Result<Process> {
        self.place(&format!("host/{name}"))?.spawn(name, argv)
    }

    /// Runs a command on the node itself to its end.
    ///
    /// # Errors
    /// It cannot be started, or does not end within `timeout`.
    pub fn run(&self, argv: &[&str], timeout: Duration) -> Result<Output> {
        self.place("host")?.run("host-run", argv, timeout)
    }

    fn place(&self, cgroup: &str) -> Result<ProcessContext> {
        let place = ProcessContext {
            cgroup: self.cgroup.join(cgroup),
            netns: self.netns.path(),
            hosts: self.hosts(),
            logs: self.folder.join("logs"),
        };
        cgroup::create(&place.cgroup)?;
        Ok(place)
    }

    fn hosts(&self) -> PathBuf {
        self.folder.join("hosts")
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Names and balancing, from the state.
    fn apply(&self, state: &State) -> Result<()> {
        let mut hosts = "127.0.0.1 localhost\n::1 localhost\n".to_owned();
        for (name, ip) in &state.pods {
            let _ = writeln!(hosts, "{ip} {name}");
        }
        for service in &state.services {
            let _ = writeln!(hosts, "{} {}", service.cluster_ip, service.names());
            if let Some(ip) = service.cluster_ip6 {
                let _ = writeln!(hosts, "{ip} {}", service.names());
            }
        }
        // In place: the file is bound over /etc/hosts of processes that run already.
        fs::write(self.hosts(), hosts).context("writing the hosts file")?;
        self.netns.nft(&service::rules(&state.services))?;
        Ok(())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Err(error) = leftovers::remove(&self.id) {
            eprintln!("cleaning up {} failed: {error:#}", self.id);
        }
    }
}

/// Removes the parts of a node that could not be made whole.
struct Parts<'a>(&'a str);

impl Drop for Parts<'_> {
    fn drop(&mut self) {
        if let Err(error) = leftovers::remove(self.0) {
            eprintln!("cleaning up {} failed: {error:#}", self.0);
        }
    }
}

//! Pods: a network namespace with one interface, and a cgroup.

pub mod kubelet;

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Result, bail};
use nix::sys::signal::Signal;

use self::kubelet::Kubelet;
use super::{NODE_IP, NODE_IP6, Node};
use crate::{
    cgroup,
    command::mirror_binary,
    namespace::Netns,
    process::{Output, Process, ProcessContext, eventually},
};

/// Every pod's gateway, on the node's end of each pod's veth.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 1);
/// The same in IPv6: of the link alone, so that every veth may have it.
const GATEWAY6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// A pod of the node. Dropping it deletes it: its processes, its cgroup, its namespace's name.
#[derive(Debug)]
pub struct Pod {
    name: String,
    ip: Ipv4Addr,
    ip6: Option<Ipv6Addr>,
    netns: Netns,
    place: ProcessContext,
    /// Of a pod as kubelet makes it.
    kubelet: Option<Kubelet>,
    runs: AtomicU32,
    /// As a pod has that only waits to be executed in (`sleep 3650d`): a cgroup without a process
    /// shows an agent no network namespace.
    _sleeper: Process,
}

impl Pod {
    pub(super) fn create(
        node: &Node,
        name: &str,
        index: u16,
        ipv6: bool,
        kubelet: Option<Kubelet>,
    ) -> Result<Self> {
        let [third, fourth] = (index + 2).to_be_bytes();
        let ip = Ipv4Addr::new(10, 244, third, fourth);
        let folder = kubelet.as_ref().map(Kubelet::container);
        let mut place = node.place(folder.as_deref().unwrap_or(name))?;
        let netns = Netns::create(&format!("{}-{name}", node.id))?;
        place.netns = netns.path();
        netns.set("ipv6/conf/default/accept_dad", 0)?;
        let disabled = u32::from(!ipv6);
        netns.set("ipv6/conf/all/disable_ipv6", disabled)?;
        netns.set("ipv6/conf/default/disable_ipv6", disabled)?;
        // Routed, not bridged: a reply must pass the node for its address to be translated back.
        node.netns.ip(&format!(
            "link add veth{index} type veth peer name eth0 netns {}-{name}\n\
             address add {GATEWAY}/32 dev veth{index}\n\
             link set veth{index} up\n\
             route add {ip}/32 dev veth{index} src {NODE_IP}\n",
            node.id
        ))?;
        netns.ip(&format!(
            "address add {ip}/32 dev eth0\n\
             link set eth0 up\n\
             route add {GATEWAY}/32 dev eth0\n\
             route add default via {GATEWAY}\n"
        ))?;
        let ip6 = ipv6.then(|| Ipv6Addr::new(0xfd00, 0x244, 0, 0, 0, 0, 0, index + 2));
        if let Some(ip6) = ip6 {
            node.netns.ip(&format!(
                "address add {GATEWAY6}/64 dev veth{index} nodad\n\
                 route add {ip6}/128 dev veth{index} src {NODE_IP6}\n"
            ))?;
        }
        let sleeper = place.spawn(&format!("{name}-sleep"), &["sleep", "3650d"])?;
        let runs = AtomicU32::new(0);
        let pod =
            Self { name: name.to_owned(), ip, ip6, netns, place, kubelet, runs, _sleeper: sleeper };
        pod.give_ipv6()?;
        Ok(pod)
    }

    /// Adds its IPv6 address and route; whoever disabled IPv6 in it has taken them.
    ///
    /// # Errors
    /// What `ip` says.
    pub fn give_ipv6(&self) -> Result<()> {
        let Some(ip6) = self.ip6 else { return Ok(()) };
        self.netns.ip(&format!(
            "address add {ip6}/128 dev eth0 nodad\n\
             route add default via {GATEWAY6} dev eth0\n"
        ))?;
        Ok(())
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its address.
    #[must_use]
    pub fn ip(&self) -> Ipv4Addr {
        self.ip
    }

    /// Its IPv6 address, unless it was made without.
    #[must_use]
    pub fn ip6(&self) -> Option<Ipv6Addr> {
        self.ip6
    }

    /// Its cgroup's directory; of a pod as kubelet makes it, those of its containers are below.
    #[must_use]
    pub fn cgroup(&self) -> &Path {
        match (&self.kubelet, self.place.cgroup.parent()) {
            (Some(_), Some(pod)) => pod,
            _ => &self.place.cgroup,
        }
    }

    /// Its uid, if it was made as kubelet makes it.
    #[must_use]
    pub fn uid(&self) -> Option<&str> {
        self.kubelet.as_ref().map(|kubelet| kubelet.uid.as_str())
    }

    /// Its network namespace.
    #[must_use]
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// The `/etc/hosts` of its processes.
    #[must_use]
    pub fn hosts(&self) -> PathBuf {
        self.place.hosts.clone()
    }

    /// Starts a process in it. `name` (unique within the pod) names its log files.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn(&self, name: &str, argv: &[&str]) -> Result<Process> {
        self.place.spawn(&format!("{}-{name}", self.name), argv)
    }

    /// Starts a process in it that is accounted for separately: in a cgroup below the
    /// pod's, whose name is `name`. See [`usage::cpu_of_cgroup`](crate::usage::cpu_of_cgroup).
    ///
    /// # Errors
    /// It cannot be started, or the cgroup not be made.
    pub fn spawn_apart(&self, name: &str, argv: &[&str]) -> Result<Process> {
        let place = ProcessContext { cgroup: self.place.cgroup.join(name), ..self.place.clone() };
        cgroup::create(&place.cgroup)?;
        place.spawn(&format!("{}-{name}", self.name), argv)
    }

    /// Runs a command in it to its end. Several may run at once, on different threads.
    ///
    /// # Errors
    /// It cannot be started, or does not end within `timeout`. That it exits with another code
    /// than 0 is not an error here: see [`Output::ok`].
    pub fn run(&self, argv: &[&str], timeout: Duration) -> Result<Output> {
        let count = self.runs.fetch_add(1, Ordering::Relaxed);
        self.place.run(&format!("{}-run{count}", self.name), argv, timeout)
    }

    /// Starts `mirror echo` in it, and waits until it listens (unless its fault is not to).
    /// Without `--log-json` and `--quiet`, stdout is the access log.
    ///
    /// # Errors
    /// It is not built, or does not listen within 10 s.
    pub fn echo(&self, args: &[&str]) -> Result<Process> {
        let binary = mirror_binary()?;
        let binary = binary.to_string_lossy();
        let mut argv = vec![&*binary, "echo"];
        argv.extend(args);
        let mut process = self.spawn("echo", &argv)?;
        if args.iter().any(|arg| arg.ends_with("refuse")) {
            return Ok(process);
        }
        for pair in args.windows(2).filter(|pair| pair[0] == "--listen") {
            let address: SocketAddr = pair[1].parse()?;
            self.listening(&mut process, address.port())?;
        }
        Ok(process)
    }

    /// Waits until this process of the pod listens on a TCP port.
    ///
    /// # Errors
    /// It ends first, or does not within 10 s.
    pub fn listening(&self, process: &mut Process, port: u16) -> Result<()> {
        let mut ended = None;
        let what = format!("{} listens on port {port}", process.name());
        eventually(&what, Duration::from_secs(10), || {
            ended = process.wait(Duration::ZERO).ok().flatten();
            ended.is_some() || self.listens(port)
        })?;
        match ended {
            Some(status) => bail!("{}: {status}: {}", process.name(), process.stderr()),
            None => Ok(()),
        }
    }

    /// Sends every process of the pod a signal.
    ///
    /// # Errors
    /// One cannot be sent it.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        cgroup::signal(self.cgroup(), signal)
    }

    /// Whether a row of its /proc/net/tcp has this local port and the state 0A, TCP_LISTEN.
    fn listens(&self, port: u16) -> bool {
        let read = || {
            ["tcp", "tcp6"].map(|table| {
                std::fs::read_to_string(format!("/proc/thread-self/net/{table}"))
                    .unwrap_or_default()
            })
        };
        let local = format!(":{port:04X}");
        self.netns.enter(read).unwrap_or_default().iter().flat_map(|table| table.lines()).any(
            |row| {
                let mut fields = row.split_whitespace().skip(1);
                fields.next().is_some_and(|address| address.ends_with(&local))
                    && fields.nth(1) == Some("0A")
            },
        )
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        if let Err(error) = cgroup::remove(self.cgroup()) {
            eprintln!("cleaning up pod {} failed: {error:#}", self.name);
        }
    }
}

//! The stage: a simulated node with primaries, shadows good and bad, the clients' pods, and the
//! scenarios as Services and routes for mirror's agents.

use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::Result;
use mirror_tests::{
    Node, Pod, Process,
    manifest::{Route, Rule},
    mirror_binary,
};

use super::{
    backend::{Backend, KeepAlive},
    faults,
    pinning::{Processors, pinned},
    scenario::{Mirror, Protocol, Scenario},
    uploads,
};

/// Clients have a route of the type `unreachable` to it.
pub(super) const NOWHERE: &str = "198.51.100.1";

/// The pods; the node goes last, and all with it.
pub(super) struct Ground {
    /// Clients of whatever is not mirror, and the other proxies: as sidecars, they share its
    /// network namespace.
    pub(super) plain: Pod,
    primary: Pod,
    /// The primary of uploads: nginx would keep them in files.
    sink: Pod,
    shadow: Pod,
    pub(super) node: Node,
}

impl Ground {
    /// Makes the node.
    ///
    /// # Errors
    /// As [`Node::create`].
    pub(super) fn create() -> Result<Self> {
        let node = Node::create("bench")?;
        let plain = client(&node, "plain")?;
        let [primary, sink, shadow] = ["primary", "sink", "shadow"].map(|name| node.pod(name));
        Ok(Self { plain, primary: primary?, sink: sink?, shadow: shadow?, node })
    }
}

/// A pod for clients and, as a sidecar, a proxy.
///
/// # Errors
/// What `ip` says.
pub(super) fn client(node: &Node, name: &str) -> Result<Pod> {
    let pod = node.pod(name)?;
    // nginx reconnects for each copy whose response has a body: without it the 28,232 ports
    // for one destination are used up within two seconds, for a minute.
    pod.netns().set("ipv4/tcp_tw_reuse", 1)?;
    pod.netns().ip(&format!("route add unreachable {NOWHERE}/32"))?;
    Ok(pod)
}

/// What everything is measured on.
pub(super) struct Stage<'a> {
    pub(super) ground: &'a Ground,
    pub(super) processors: Processors,
    pub(super) primary: Backend,
    pub(super) shadow: Backend,
    pub(super) scenarios: Vec<Scenario>,
    /// `mirror echo`, good and bad.
    servers: Vec<Process>,
    bad: Vec<Pod>,
}

impl<'a> Stage<'a> {
    /// Starts the backends, and writes Services and routes.
    ///
    /// # Errors
    /// nginx does not start, or what `nft` says.
    pub(super) fn set_up(ground: &'a Ground, processors: Processors) -> Result<Self> {
        // The server closes first where its client asks for it, and a client that comes by several
        // ClusterIPs has another clock for each (secure_tcp_ts_off() in net/core/secure_seq.c): the
        // kernel drops its SYNs as old (PAWS) while a connection from the same port is in TIME_WAIT.
        ground.primary.netns().set("ipv4/tcp_max_tw_buckets", 0)?;
        let primary =
            Backend::start(&ground.node, &ground.primary, processors, KeepAlive::Endless)?;
        let shadow = Backend::start(&ground.node, &ground.shadow, processors, KeepAlive::Default)?;
        let mut stage = Self {
            ground,
            processors,
            primary,
            shadow,
            scenarios: Vec::new(),
            servers: Vec::new(),
            bad: Vec::new(),
        };
        let (primary, shadow) = (ground.primary.ip(), ground.shadow.ip());
        for protocol in [Protocol::Http1, Protocol::Http2] {
            for percent in [None, Some(100), Some(10)] {
                let mirror = percent.map(|percent| Mirror { percent, shadow });
                stage.add(name(protocol, percent), protocol, primary, mirror)?;
            }
        }
        stage.add_bad()?;
        Ok(stage)
    }

    /// A further pod for clients.
    ///
    /// # Errors
    /// What `ip` says.
    pub(super) fn client(&self, name: &str) -> Result<Pod> {
        client(&self.ground.node, name)
    }

    /// The scenario of this name.
    pub(super) fn scenario(&self, name: &str) -> Option<&Scenario> {
        self.scenarios.iter().find(|scenario| scenario.name == name)
    }

    /// The bad shadows, their scenarios, and the scenarios of uploads.
    fn add_bad(&mut self) -> Result<()> {
        for (shadow, flags) in faults::SHADOWS {
            let pod = self.ground.node.pod(&format!("bad-{shadow}"))?;
            self.serve(&pod, flags)?;
            if shadow == faults::SYN_DROPPED {
                pod.netns().nft(
                    "table inet t { chain c { type filter hook input priority 0; \
                     tcp dport 80 drop; }; }\n",
                )?;
            }
            let mirror = Some(Mirror { percent: 100, shadow: pod.ip() });
            self.add(fault(shadow), Protocol::Http1, self.ground.primary.ip(), mirror)?;
            self.bad.push(pod);
        }
        let sink = &self.ground.sink;
        self.serve(sink, &[])?;
        for shadow in uploads::SHADOWS {
            let bad = shadow.and_then(|shadow| self.scenario(&fault(shadow))?.mirror);
            self.add(upload(shadow), Protocol::Http1, sink.ip(), bad)?;
        }
        Ok(())
    }

    /// `mirror echo` on port 80 of a pod.
    fn serve(&mut self, pod: &Pod, flags: &[&str]) -> Result<()> {
        let binary = mirror_binary()?;
        let binary = binary.to_string_lossy();
        let argv = [&[&*binary, "echo", "--listen", "0.0.0.0:80", "--quiet"], flags].concat();
        let argv = pinned(self.processors.others, &argv);
        let argv: Vec<_> = argv.iter().map(String::as_str).collect();
        let mut process = pod.spawn("echo", &argv)?;
        if !flags.contains(&"refuse") {
            pod.listening(&mut process, 80)?;
        }
        self.servers.push(process);
        Ok(())
    }

    fn add(
        &mut self,
        name: String,
        protocol: Protocol,
        primary: Ipv4Addr,
        mirror: Option<Mirror>,
    ) -> Result<()> {
        let node = &self.ground.node;
        let at = |ip| SocketAddrV4::new(ip, protocol.port());
        let service = node.service_in("default", &name, 80, vec![at(primary)])?;
        let scenario = Scenario { name, protocol, service: service.address(), primary, mirror };
        let mut text = service.manifest() + "---\n";
        let mut rule = Rule::to(&scenario.name, 80);
        if let Some(Mirror { percent, shadow }) = mirror {
            let name = scenario.shadow_name();
            let service = node.service_in("default", &name, 80, vec![at(shadow)])?;
            text += &(service.manifest() + "---\n");
            rule = match percent {
                100 => rule.mirror(&name, 80),
                percent => rule.mirror_percent(&name, 80, percent),
            };
        }
        text += &Route::new(&scenario.name, &service).rule(rule).manifest();
        node.routes().write(&format!("{}.yaml", scenario.name), &text)?;
        self.scenarios.push(scenario);
        Ok(())
    }
}

/// The scenario to a bad shadow.
pub(super) fn fault(shadow: &str) -> String {
    format!("fault-{shadow}")
}

/// The scenario of uploads with this shadow.
pub(super) fn upload(shadow: Option<&str>) -> String {
    format!("upload-{}", shadow.unwrap_or("plain"))
}

/// The name of a scenario to the healthy shadow.
pub(super) fn name(protocol: Protocol, percent: Option<u32>) -> String {
    let protocol = match protocol {
        Protocol::Http1 => "http1",
        Protocol::Http2 => "http2",
    };
    match percent {
        None => format!("{protocol}-plain"),
        Some(percent) => format!("{protocol}-mirror{percent}"),
    }
}

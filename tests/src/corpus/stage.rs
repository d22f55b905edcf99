//! The stage of the corpus: one client outside of the capture and one inside, a server for each
//! way, a Service with a port for each conversation on each way.
//!
//! Each conversation has a separate port so that no other one shares its connections: the agent
//! keeps upstream connections by endpoint. Where the second client connects, the agent takes its
//! connections; the first one's go direct.

use std::{collections::BTreeMap, fmt::Write as _, net::Ipv4Addr, path::Path, time::Duration};

use anyhow::{Context, Result};

use super::Outcome;
use crate::{
    agent::Agent,
    manifest::{Route, Rule},
    node::{Node, Pod, Service},
    process::Process,
};

/// The first conversation's port.
pub const BASE: u16 = 20_000;

/// How a conversation's client reaches its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientPath {
    /// Without the agent.
    Direct,
    /// Through the agent, by a route with one backend.
    Routed,
    /// The same, every request mirrored to a healthy shadow.
    Mirrored,
}

const WAYS: [ClientPath; 3] = [ClientPath::Direct, ClientPath::Routed, ClientPath::Mirrored];

/// The node, its pods, and the shadow's server.
#[derive(Debug)]
pub struct Stage {
    free: Pod,
    captured: Pod,
    servers: Vec<Pod>,
    _shadow: Pod,
    _echo: Process,
    /// Last: its drop removes everything.
    node: Node,
}

impl ClientPath {
    fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Routed => "routed",
            Self::Mirrored => "mirrored",
        }
    }

    /// In the range of the Services' addresses, beyond those that the node gives out.
    fn address(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 96, 200, self as u8 + 1)
    }
}

impl Stage {
    /// Makes the node with a port for each of so many conversations.
    ///
    /// # Errors
    /// As [`Node::create`].
    pub fn create(name: &str, conversations: usize) -> Result<Self> {
        let node = Node::create(name)?;
        let (free, captured) = (node.pod("free")?, node.pod("captured")?);
        let shadow = node.pod("shadow")?;
        let echo = shadow.echo(&["--listen", "0.0.0.0:80", "--quiet"])?;
        let backend = node.service("shadow", 80, 80, &[&shadow])?;
        node.routes().write("shadow.yaml", &backend.manifest())?;
        let last = BASE + u16::try_from(conversations).context("too many conversations")?;
        let mut servers = Vec::new();
        let mut nat = String::new();
        for way in WAYS {
            let server = node.pod(way.name())?;
            let (address, ip) = (way.address(), server.ip());
            // The port stays: each conversation's server listens on the Service's port.
            writeln!(nat, "ip daddr {address} tcp dport {BASE}-{last} dnat ip to {ip}")?;
            node.routes().write(&format!("{}.yaml", way.name()), &manifests(way, ip, last))?;
            servers.push(server);
        }
        node.netns().nft(&format!(
            "table ip corpus {{\n\
             chain prerouting {{ type nat hook prerouting priority -101;\n{nat}}}\n}}\n"
        ))?;
        Ok(Self { free, captured, servers, _shadow: shadow, _echo: echo, node })
    }

    /// An agent that captures the second client.
    ///
    /// # Errors
    /// As [`Agent::start`].
    pub fn agent(&self) -> Result<Agent<'_>> {
        Agent::start(&self.node, &[&self.captured], &[])
    }

    /// Plays conversations on one way, by the program `converse`: what each saw.
    ///
    /// # Errors
    /// It fails, or takes more than two minutes.
    pub fn play(&self, converse: &Path, way: ClientPath) -> Result<BTreeMap<String, Vec<Outcome>>> {
        let text = self.run(converse, "play", way)?;
        serde_json::from_str(&text).context("what converse prints")
    }

    /// Runs `converse` where this way begins; what it prints.
    ///
    /// # Errors
    /// As [`Stage::play`].
    pub fn run(&self, converse: &Path, what: &str, way: ClientPath) -> Result<String> {
        let client = if way == ClientPath::Direct { &self.free } else { &self.captured };
        let server = self.servers[way as usize].netns().path();
        let (converse, server) = (converse.to_string_lossy(), server.to_string_lossy());
        let (address, base) = (way.address().to_string(), BASE.to_string());
        let argv = [&*converse, what, &server, &address, &base];
        client.run(&argv, Duration::from_secs(120))?.ok()
    }
}

/// A Service with all ports, its endpoint, and unless it is direct a route for each port.
fn manifests(way: ClientPath, ip: Ipv4Addr, last: u16) -> String {
    let (name, address) = (way.name(), way.address());
    let mut ports = String::new();
    let mut targets = String::new();
    let mut routes = String::new();
    for port in BASE..last {
        let _ = writeln!(ports, "  - {{name: p{port}, port: {port}}}");
        let _ = writeln!(targets, "- {{name: p{port}, port: {port}, protocol: TCP}}");
        let rule = Rule::to(name, port);
        let rule = if way == ClientPath::Mirrored { rule.mirror("shadow", 80) } else { rule };
        if way != ClientPath::Direct {
            let parent = Service {
                namespace: "default".into(),
                name: name.into(),
                cluster_ip: address,
                port,
                endpoints: Vec::new(),
                cluster_ip6: None,
                endpoints6: Vec::new(),
                app_protocol: None,
            };
            let route = Route::new(&format!("{name}-{port}"), &parent).rule(rule);
            let _ = write!(routes, "---\n{}", route.manifest());
        }
    }
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: default}}\n\
         spec:\n  clusterIP: {address}\n  ports:\n{ports}---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata:\n  name: {name}-1\n  namespace: default\n  \
         labels: {{kubernetes.io/service-name: {name}}}\n\
         addressType: IPv4\nports:\n{targets}\
         endpoints:\n- {{addresses: [\"{ip}\"], conditions: {{ready: true}}}}\n{routes}"
    )
}

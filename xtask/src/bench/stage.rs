//! The stage: a simulated node with a primary, a shadow, the clients' pods, and the lanes as
//! Services and routes for mirror's agents.

use std::net::SocketAddrV4;

use anyhow::Result;
use mirror_tests::{
    Node, Pod,
    manifest::{Route, Rule},
};

use super::{
    backend::{Backend, KeepAlive},
    lane::{Lane, Mirror, Protocol},
    pinning::Processors,
};

/// The pods; the node goes last, and all with it.
pub(super) struct Ground {
    /// Clients of whatever is not mirror, and the other proxies: as sidecars, they share its
    /// network namespace.
    pub(super) plain: Pod,
    primary: Pod,
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
        let (plain, primary) = (client(&node, "plain")?, node.pod("primary")?);
        Ok(Self { plain, primary, shadow: node.pod("shadow")?, node })
    }
}

/// A pod for clients and, as a sidecar, a proxy.
///
/// # Errors
/// What `ip` says.
pub(super) fn client(node: &Node, name: &str) -> Result<Pod> {
    let pod = node.pod(name)?;
    // nginx connects anew for each copy that is answered with a body: without it the 28,232 ports
    // for one destination are used up within two seconds, for a minute.
    pod.netns().set("ipv4/tcp_tw_reuse", 1)?;
    Ok(pod)
}

/// What everything is measured on.
pub(super) struct Stage<'a> {
    pub(super) ground: &'a Ground,
    pub(super) processors: Processors,
    pub(super) primary: Backend,
    pub(super) shadow: Backend,
    pub(super) lanes: Vec<Lane>,
}

impl<'a> Stage<'a> {
    /// Starts the backends, and writes Services and routes.
    ///
    /// # Errors
    /// nginx does not start, or what `nft` says.
    pub(super) fn set_up(ground: &'a Ground, processors: Processors) -> Result<Self> {
        let primary =
            Backend::start(&ground.node, &ground.primary, processors, KeepAlive::Endless)?;
        let shadow = Backend::start(&ground.node, &ground.shadow, processors, KeepAlive::Default)?;
        let mut stage = Self { ground, processors, primary, shadow, lanes: Vec::new() };
        for protocol in [Protocol::Http1, Protocol::Http2] {
            for percent in [None, Some(100), Some(10)] {
                stage.add(protocol, percent)?;
            }
        }
        Ok(stage)
    }

    /// The lane of this name.
    pub(super) fn lane(&self, name: &str) -> Option<&Lane> {
        self.lanes.iter().find(|lane| lane.name == name)
    }

    fn add(&mut self, protocol: Protocol, percent: Option<u32>) -> Result<()> {
        let shadow = self.ground.shadow.ip();
        let mirror = percent.map(|percent| Mirror { percent, shadow });
        let primary = self.ground.primary.ip();
        let lane = Lane { name: name(protocol, percent), protocol, primary, mirror };
        let node = &self.ground.node;
        let at = |ip| SocketAddrV4::new(ip, protocol.port());
        let service = node.service_in("default", &lane.name, 80, vec![at(primary)])?;
        let mut text = service.manifest() + "---\n";
        let mut rule = Rule::to(&lane.name, 80);
        if let Some(Mirror { percent, shadow }) = mirror {
            let name = lane.shadow_name();
            let service = node.service_in("default", &name, 80, vec![at(shadow)])?;
            text += &(service.manifest() + "---\n");
            rule = match percent {
                100 => rule.mirror(&name, 80),
                percent => rule.mirror_percent(&name, 80, percent),
            };
        }
        text += &Route::new(&lane.name, &service).rule(rule).manifest();
        node.routes().write(&format!("{}.yaml", lane.name), &text)?;
        self.lanes.push(lane);
        Ok(())
    }
}

/// The name of a lane to the healthy shadow.
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

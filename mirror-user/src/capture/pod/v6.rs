//! IPv6's loopback in a captured namespace. It has one loopback address only, so that the /96 of
//! the ids is made local by a route on `lo`: put there before each canary, since the kernel drops
//! it whenever `lo` or IPv6 is toggled, and removed with the namespace's capture.
//!
//! Each agent has a separate route: its metric is the agent's port in the namespace, so that of
//! two agents (an upgrade) neither takes the other's, and so that a route without a listener on its
//! port is one that a killed agent has left.

use std::io;

use mirror_common::{Family, FrontendId};

use super::{
    CaptureDeps, PORTS, Workload,
    addresses::PodAddresses,
    listeners::{PodListeners, listener},
};
use crate::{
    capture::canary::CanaryError,
    sockets::{NetnsSockets, NetnsTarget, is_free, netlink::LocalRoute},
};

/// What IPv6 connections need beside the programs.
pub(super) struct Loopback6 {
    route: LocalRoute,
    /// The listeners are open; they stay, whatever becomes of IPv6.
    listening: bool,
    /// The route was added at least once.
    routed: bool,
}

impl Loopback6 {
    /// Nothing yet.
    pub(super) fn new(port: u16) -> Self {
        Self { route: route(port), listening: false, routed: false }
    }

    /// Opens the listeners once the namespace has IPv6, and adds the route where it is missing.
    pub(super) fn prepare(
        &mut self,
        listeners: &PodListeners,
        deps: &mut CaptureDeps,
    ) -> Result<(), CanaryError> {
        if PodAddresses::of(&deps.sockets, &listeners.workload.netns).v6.is_none() {
            let text = "the network namespace has no IPv6 address, link-local ones aside";
            return Err(CanaryError::Absent(text.into()));
        }
        if !self.listening {
            listeners.listen(Family::V6, deps).map_err(|e| CanaryError::Broken(e.to_string()))?;
            self.listening = true;
        }
        let route = self.route;
        let added = deps.sockets.run(&listeners.workload.netns, || route.add());
        self.routed = true;
        added.and_then(|added| added).map_err(|error| {
            let LocalRoute { prefix, length, .. } = route;
            CanaryError::Broken(format!("adding the route to {prefix}/{length} on lo: {error}"))
        })
    }

    /// Removes the route.
    pub(super) fn close(&self, sockets: &NetnsSockets, workload: &Workload) {
        if self.routed
            && let Err(error) = removed(sockets, &workload.netns, self.route)
        {
            tracing::warn!(workload = workload.name, %error, "cannot remove the IPv6 route on lo");
        }
    }
}

/// Removes the routes of agents that are gone.
pub(super) fn remove_stale(sockets: &NetnsSockets, netns: &NetnsTarget) {
    let LocalRoute { prefix, length, .. } = route(0);
    let found = sockets.run(netns, || LocalRoute::metrics(prefix, length)).and_then(|found| found);
    let found = found.unwrap_or_else(|error| {
        // Usually a kernel without IPv6, where there is no such route.
        tracing::debug!(%error, "cannot list the IPv6 routes");
        Vec::new()
    });
    let ports = found.into_iter().filter_map(|metric| u16::try_from(metric).ok());
    for port in ports.filter(|port| PORTS.contains(port)) {
        let gone = is_free(sockets, netns, listener(Family::V4, port)).unwrap_or(false);
        if gone && let Err(error) = removed(sockets, netns, route(port)) {
            tracing::warn!(port, %error, "cannot remove an IPv6 route that a former agent left");
        }
    }
}

fn removed(sockets: &NetnsSockets, netns: &NetnsTarget, route: LocalRoute) -> io::Result<()> {
    sockets.run(netns, || route.remove()).and_then(|removed| removed)
}

/// The route of the agent that has this port.
fn route(port: u16) -> LocalRoute {
    LocalRoute {
        prefix: FrontendId::LISTENER.address_v6(),
        length: FrontendId::PREFIX_V6_LENGTH,
        metric: port.into(),
    }
}

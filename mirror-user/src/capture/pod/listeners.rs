//! What the agent holds for each captured namespace: a slot, a port, and the listeners there,
//! one for each family and worker.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use mirror_common::{Family, FrontendId, socket_index};

use super::{CaptureDeps, PORTS, PodError, WorkerCommand, Workload};
use crate::sockets::{NetnsSockets, NetnsTarget, SocketFactory as _, is_free};

/// Where the listeners of a namespace are.
pub(super) struct PodListeners {
    pub(super) workload: Arc<Workload>,
    pub(super) slot: u32,
    pub(super) port: u16,
    pub(super) workers: u32,
}

impl PodListeners {
    /// Opens a listener of the family for each worker, and hands it over; all or none.
    pub(super) fn listen(&self, family: Family, deps: &mut CaptureDeps) -> Result<(), PodError> {
        let address = listener(family, self.port);
        let open = |_| deps.sockets.listener(&self.workload.netns, address);
        let listeners: Vec<_> = (0..self.workers)
            .map(open)
            .collect::<Result<_, _>>()
            .map_err(|source| PodError::Listen { address, source })?;
        for (worker, listener) in (0..).zip(&listeners) {
            deps.listeners.set(socket_index(family, self.slot, worker), listener, 0)?;
        }
        for (worker, listener) in (0..).zip(listeners) {
            let workload = Arc::clone(&self.workload);
            (deps.send_command)(worker, WorkerCommand::Serve { workload, listener });
        }
        Ok(())
    }

    /// Takes all listeners back.
    pub(super) fn leave(&self, deps: &mut CaptureDeps) {
        for worker in 0..self.workers {
            for family in Family::ALL {
                // The kernel removes a worker's closed listener from the map.
                let index = socket_index(family, self.slot, worker);
                let _ = deps.listeners.clear_index(&index);
            }
            (deps.send_command)(worker, WorkerCommand::Leave(self.workload.key));
        }
    }
}

/// A port on which nothing listens at the listeners' addresses.
pub(super) fn free_port(sockets: &NetnsSockets, netns: &NetnsTarget) -> Result<u16, PodError> {
    for port in PORTS {
        let mut free = true;
        for family in Family::ALL {
            let address = listener(family, port);
            free &= is_free(sockets, netns, address)
                .map_err(|source| PodError::Listen { address, source })?;
        }
        if free {
            return Ok(port);
        }
    }
    Err(PodError::NoPort)
}

/// The listeners' address.
pub(super) fn listener(family: Family, port: u16) -> SocketAddr {
    let ip = match family {
        Family::V4 => IpAddr::V4(FrontendId::LISTENER.address()),
        Family::V6 => IpAddr::V6(FrontendId::LISTENER.address_v6()),
    };
    SocketAddr::new(ip, port)
}

//! What a captured namespace has of its own in the agent: a slot, a port, and the listeners there,
//! one for each family and worker.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use mirror_common::{Family, FrontendId, socket_index};

use super::{Command, Outside, PORTS, PodError, Workload};
use crate::sockets::{NetnsSockets, Place, SocketFactory as _, is_free};

/// Where the listeners of a namespace are.
pub(super) struct Seat {
    pub(super) workload: Arc<Workload>,
    pub(super) slot: u32,
    pub(super) port: u16,
    pub(super) workers: u32,
}

impl Seat {
    /// Opens a listener of the family for each worker, and hands it over; all or none.
    pub(super) fn listen(&self, family: Family, outside: &mut Outside) -> Result<(), PodError> {
        let address = listener(family, self.port);
        let open = |_| outside.sockets.listener(&self.workload.place, address);
        let listeners: Vec<_> = (0..self.workers)
            .map(open)
            .collect::<Result<_, _>>()
            .map_err(|source| PodError::Listen { address, source })?;
        for (worker, listener) in (0..).zip(&listeners) {
            outside.listeners.set(socket_index(family, self.slot, worker), listener, 0)?;
        }
        for (worker, listener) in (0..).zip(listeners) {
            let workload = Arc::clone(&self.workload);
            (outside.hand)(worker, Command::Serve { workload, listener });
        }
        Ok(())
    }

    /// Takes all listeners back.
    pub(super) fn leave(&self, outside: &mut Outside) {
        for worker in 0..self.workers {
            for family in Family::ALL {
                // A worker's closed listener leaves the map by itself.
                let index = socket_index(family, self.slot, worker);
                let _ = outside.listeners.clear_index(&index);
            }
            (outside.hand)(worker, Command::Leave(self.workload.key));
        }
    }
}

/// A port that nobody listens on at the listeners' addresses.
pub(super) fn free_port(sockets: &NetnsSockets, place: &Place) -> Result<u16, PodError> {
    for port in PORTS {
        let mut free = true;
        for family in Family::ALL {
            let address = listener(family, port);
            free &= is_free(sockets, place, address)
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

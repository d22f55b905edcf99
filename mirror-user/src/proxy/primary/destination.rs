//! Where a request goes: to an address that the cluster balances, or to an endpoint that mirror
//! chooses because nobody else does. Pure.

use std::{net::SocketAddr, sync::Arc};

use crate::route::{AppProtocol, Backend, EndpointChoice, Frontend};

/// Where a request goes.
#[derive(Clone, Debug)]
pub(in crate::proxy) enum Destination {
    /// An address, connected to from the client's network namespace as the client would.
    Address(SocketAddr, AppProtocol),
    /// The endpoints of a backend, for a client that asked for this frontend's address: mirror
    /// chooses one for each connection of a client.
    Endpoints(Arc<Backend>, SocketAddr),
}

impl Destination {
    /// The address that the client asked for.
    pub(in crate::proxy) fn original(frontend: &Frontend) -> Self {
        Self::Address(frontend.address, AppProtocol::Unspecified)
    }

    /// Where requests for `backend` go that a client has sent to `frontend`.
    pub(in crate::proxy) fn of(
        backend: &Arc<Backend>,
        frontend: &Frontend,
        choice: EndpointChoice,
    ) -> Self {
        match backend.cluster_address(&frontend.service, frontend.address, choice) {
            Some(address) => Self::Address(address, backend.protocol),
            None => Self::Endpoints(Arc::clone(backend), frontend.address),
        }
    }

    /// What is known of its endpoints' protocol.
    pub(in crate::proxy) fn protocol(&self) -> AppProtocol {
        match self {
            Self::Address(_, protocol) => *protocol,
            Self::Endpoints(backend, _) => backend.protocol,
        }
    }
}

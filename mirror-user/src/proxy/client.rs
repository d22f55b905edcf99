//! A client's connection: what its exchanges share.

use std::{cell::Cell, rc::Rc, sync::Arc};

use super::{
    authority::Connected, client_socket::ClientSocket, close::CloseSlot, primary::Upstreams,
    tunnel::TunnelUpstream,
};
use crate::{
    memory::ConnectionUsage,
    route::{ConnectionRef, Frontend},
    workload::Workload,
};

/// The client's side of a connection, shared by its exchanges.
pub(super) struct Client {
    pub(super) workload: Arc<Workload>,
    pub(super) socket: Rc<ClientSocket>,
    pub(super) frontend: Arc<Frontend>,
    pub(super) ends: Rc<CloseSlot>,
    /// Set by an exchange that became a tunnel.
    pub(super) tunnel: Cell<Option<TunnelUpstream>>,
    /// What it makes the agent hold.
    pub(super) memory: Rc<ConnectionUsage>,
    /// What it has open to primaries.
    pub(super) upstreams: Upstreams,
    /// Keeps the frontend's id from being issued again.
    _connection_ref: ConnectionRef,
}

impl Client {
    pub(super) fn new(
        socket: Rc<ClientSocket>,
        workload: Arc<Workload>,
        frontend: Arc<Frontend>,
        memory: Rc<ConnectionUsage>,
    ) -> Self {
        let upstreams = Upstreams::new(Rc::clone(&socket), Rc::clone(&memory));
        Self {
            workload,
            socket,
            _connection_ref: Arc::clone(&frontend.connection_ref),
            frontend,
            ends: Rc::default(),
            tunnel: Cell::new(None),
            memory,
            upstreams,
        }
    }

    /// What it connected to.
    pub(super) fn connected(&self) -> Connected<'_> {
        let Frontend { service, address, .. } = &*self.frontend;
        Connected { service, address: *address, namespace: &self.workload.namespace }
    }
}

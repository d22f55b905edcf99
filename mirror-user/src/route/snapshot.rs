//! The snapshot: which frontends exist, and the routes of each.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

pub use mirror_common::FrontendId;

use super::{FrontendCapture, RouteTable, ServicePort};
use crate::hash::FastHashMap;

/// Everything that the data path knows of routes at one moment.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Counts upward with each publication.
    pub generation: u64,
    /// Every id that was issued and not yet forgotten.
    pub frontends: FastHashMap<FrontendId, FrontendState>,
}

/// What an issued id stands for.
#[derive(Clone, Debug)]
pub enum FrontendState {
    /// A frontend with routes.
    Live(Arc<Frontend>),
    /// A frontend that was removed: late connections pass through.
    Tombstone(Arc<Frontend>),
}

/// Held by each connection of a frontend: its id is not issued again while one is out
/// (`Arc::strong_count`).
pub type ConnectionRef = Arc<()>;

/// An address and port that clients may connect to, with the routes attached to it.
#[derive(Debug)]
pub struct Frontend {
    /// The id in the loopback address.
    pub id: FrontendId,
    /// What the application connects to: the ClusterIP and port.
    pub address: SocketAddr,
    /// The Service port behind that address.
    pub service: Arc<ServicePort>,
    /// Routes of the Service's own namespace: they hold for all clients (GAMMA producer routes).
    pub producer: Option<RouteTable>,
    /// Routes of other namespaces, by namespace: for clients there they replace the
    /// producer's (GAMMA consumer routes).
    pub consumers: HashMap<String, RouteTable>,
    /// Whether it is captured ahead of its routes: connections are parsed though no route holds, so
    /// that one that comes acts on them at once.
    pub ahead: bool,
    /// What becomes of connections to it.
    pub capture: FrontendCapture,
    /// Counts the connections that carry the id.
    pub connection_ref: ConnectionRef,
}

impl Frontend {
    /// The routes for a client of `namespace`; None when no route holds for it, and the bytes
    /// (or, of one captured ahead, the requests) pass through to the original destination.
    #[must_use]
    pub fn routes(&self, namespace: &str) -> Option<&RouteTable> {
        self.consumers.get(namespace).or(self.producer.as_ref())
    }

    /// The same frontend once nothing is attached to it any more.
    #[must_use]
    pub fn without_routes(&self) -> Self {
        Self {
            id: self.id,
            address: self.address,
            service: Arc::clone(&self.service),
            producer: None,
            consumers: HashMap::new(),
            ahead: false,
            capture: FrontendCapture::Removed,
            connection_ref: Arc::clone(&self.connection_ref),
        }
    }
}

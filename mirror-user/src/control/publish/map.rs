//! The map that the connect hook reads, as [`super::Publisher`] sees it, and what can go wrong.

use std::net::SocketAddr;

use super::MAX_KNOWN;
use crate::route::FrontendId;

/// What becomes of connections to a captured frontend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapEntry {
    /// They are taken to the workers.
    Proxied,
    /// They stay as they are, and what their clients send is copied.
    Tapped,
}

/// The kernel's maps of frontends, by address and by id.
pub trait FrontendMap {
    /// Why the kernel refused.
    type Error: std::error::Error;

    /// Starts the capture of connections to `address`, or changes what becomes of new ones. Repeating it is
    /// no error.
    ///
    /// # Errors
    /// What `bpf(2)` says.
    fn insert(
        &mut self,
        id: FrontendId,
        address: SocketAddr,
        capture: MapEntry,
    ) -> Result<(), Self::Error>;

    /// Ends the capture; what the id stands for stays known. An address that is not there is no
    /// error.
    ///
    /// # Errors
    /// What `bpf(2)` says.
    fn remove(&mut self, address: SocketAddr) -> Result<(), Self::Error>;

    /// Forgets what a removed id stood for.
    ///
    /// # Errors
    /// What `bpf(2)` says.
    fn forget(&mut self, id: FrontendId) -> Result<(), Self::Error>;
}

/// Why an address is not in force as resolved. Tried again at the next publication.
#[derive(Debug, thiserror::Error)]
pub enum PublishError<E: std::error::Error> {
    /// The map took no entry: connections go direct.
    #[error("cannot capture {address}: {source}")]
    Insert {
        /// The frontend.
        address: SocketAddr,
        /// The map's own error.
        source: E,
    },
    /// The map kept an entry: connections are still captured, and pass through.
    #[error("cannot end the capture of {address}: {source}")]
    Remove {
        /// The frontend.
        address: SocketAddr,
        /// The map's own error.
        source: E,
    },
    /// The map kept a tombstone.
    #[error("cannot remove the map entry of the former frontend {address}: {source}")]
    Forget {
        /// The frontend.
        address: SocketAddr,
        /// The map's own error.
        source: E,
    },
    /// More frontends than there may be: connections go direct.
    #[error("cannot capture {0}: {MAX_KNOWN} frontends already exist")]
    Full(SocketAddr),
}

impl<E: std::error::Error> PublishError<E> {
    /// Stable name, for metrics.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Insert { .. } => "insert",
            Self::Remove { .. } => "remove",
            Self::Forget { .. } => "forget",
            Self::Full(_) => "full",
        }
    }
}

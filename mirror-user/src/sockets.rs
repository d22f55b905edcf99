//! The socket factory: the one narrow interface behind which sockets are made inside another
//! network namespace. The code that parses bytes from the network calls nothing else that is
//! privileged.

mod factory;
pub(crate) mod sys;

pub use factory::NetnsSockets;
pub(crate) use factory::{fd_path, is_free};

use std::{io, net::SocketAddrV4, os::fd::OwnedFd, sync::Arc};

/// A network namespace that the agent holds open.
#[derive(Debug)]
pub struct Netns {
    /// An open `/proc/PID/ns/net`; as long as it lives, so does the namespace.
    pub fd: OwnedFd,
    /// `SO_NETNS_COOKIE` of a socket made in it (Linux 5.14).
    pub cookie: u64,
}

/// Where a socket is made.
#[derive(Clone, Debug)]
pub enum Place {
    /// In the agent's own network namespace.
    Own,
    /// In a captured one.
    Netns(Arc<Netns>),
}

/// Makes sockets, non-blocking and close-on-exec.
pub trait SocketFactory: Send + Sync + std::fmt::Debug {
    /// A TCP socket, not bound and not connected.
    ///
    /// # Errors
    /// What `setns(2)` or `socket(2)` says.
    fn stream(&self, place: &Place, v6: bool) -> io::Result<tokio::net::TcpSocket>;

    /// A TCP listener on `address` with a backlog of 4096.
    ///
    /// # Errors
    /// What `setns(2)`, `socket(2)`, `bind(2)` or `listen(2)` says.
    fn listener(&self, place: &Place, address: SocketAddrV4) -> io::Result<std::net::TcpListener>;
}

/// The accept queue of a listener.
#[derive(Clone, Copy, Debug)]
pub struct AcceptQueue {
    /// Connections that wait.
    pub waiting: u32,
    /// How many may.
    pub limit: u32,
}

/// The accept queue of a listener.
///
/// # Errors
/// What `getsockopt(2)` says.
pub fn accept_queue(listener: impl std::os::fd::AsFd) -> io::Result<AcceptQueue> {
    sys::accept_queue(listener)
}

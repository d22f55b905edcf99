//! The socket factory: the one narrow interface behind which sockets are made inside another
//! network namespace. The code that parses bytes from the network calls nothing else that is
//! privileged.

pub(crate) mod diag;
mod factory;
pub(crate) mod netlink;
pub(crate) mod sys;

pub use factory::NetnsSockets;
pub(crate) use factory::{fd_path, is_free};

use std::{io, net::SocketAddr, os::fd::OwnedFd, sync::Arc};

use socket2::SockRef;

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

    /// A TCP listener on `address` with a backlog of 4096. An IPv6 one takes IPv6 alone, and its
    /// address need not be assigned to an interface.
    ///
    /// # Errors
    /// What `setns(2)`, `socket(2)`, `bind(2)` or `listen(2)` says.
    fn listener(&self, place: &Place, address: SocketAddr) -> io::Result<std::net::TcpListener>;
}

/// Whether an accepted IPv6 connection was made inside its network namespace: its SYN came by
/// `lo`. The /96 is no loopback for the kernel, which lets a neighbour's packets to it in. (That
/// interface is what the socket has for IPV6_MULTICAST_IF: `mcast_oif`, which
/// tcp_v6_syn_recv_sock() in net/ipv6/tcp_ipv6.c takes from the packet.)
pub(crate) fn came_by_loopback(stream: &tokio::net::TcpStream) -> bool {
    SockRef::from(stream).multicast_if_v6().is_ok_and(|interface| interface == netlink::LOOPBACK)
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

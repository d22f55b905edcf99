//! The socket factory: the one narrow interface behind which sockets are made inside another
//! network namespace. The code that parses bytes from the network calls nothing else that is
//! privileged.

pub(crate) mod diag;
mod factory;
pub(crate) mod netlink;
#[cfg(test)]
pub(crate) mod plain;
#[allow(unsafe_code, reason = "system calls that no crate wraps")]
pub(crate) mod sys;

pub use factory::NetnsSockets;
pub(crate) use factory::{fd_path, is_free};

use std::{
    io,
    net::SocketAddr,
    os::fd::{OwnedFd, RawFd},
    sync::Arc,
    time::Duration,
};

use nix::sys::socket::{Shutdown, SockaddrStorage, getpeername, getsockname, shutdown};
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
pub enum NetnsTarget {
    /// In the agent's own network namespace.
    Own,
    /// In a captured one.
    Netns(Arc<Netns>),
}

impl NetnsTarget {
    /// The cookie of a captured namespace.
    #[must_use]
    pub fn cookie(&self) -> Option<u64> {
        match self {
            Self::Own => None,
            Self::Netns(netns) => Some(netns.cookie),
        }
    }
}

/// Makes sockets, non-blocking and close-on-exec.
pub trait SocketFactory: Send + Sync + std::fmt::Debug {
    /// A TCP socket, not bound and not connected.
    ///
    /// # Errors
    /// What `setns(2)` or `socket(2)` says.
    fn stream(&self, netns: &NetnsTarget, v6: bool) -> io::Result<tokio::net::TcpSocket>;

    /// A TCP listener on `address` with a backlog of 4096. An IPv6 one takes IPv6 alone, and its
    /// address need not be assigned to an interface.
    ///
    /// # Errors
    /// What `setns(2)`, `socket(2)`, `bind(2)` or `listen(2)` says.
    fn listener(
        &self,
        netns: &NetnsTarget,
        address: SocketAddr,
    ) -> io::Result<std::net::TcpListener>;

    /// How much is left of the keepalive timer of the socket in `netns` whose connection leads from
    /// `client` to `server`; None where it has no SO_KEEPALIVE.
    ///
    /// # Errors
    /// ENOENT: there is no such connection; `WouldBlock`: another timer of the socket hides it; or
    /// what `setns(2)` or sock_diag says.
    fn keepalive_left(
        &self,
        netns: &NetnsTarget,
        client: SocketAddr,
        server: SocketAddr,
    ) -> io::Result<Option<Duration>>;
}

/// Socket options of TCP keepalive; None leaves the system's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Keepalive {
    /// TCP_KEEPIDLE, in whole seconds.
    pub(crate) idle: Option<Duration>,
    /// TCP_KEEPINTVL, in whole seconds.
    pub(crate) interval: Option<Duration>,
}

/// Switches keepalive on for the socket of descriptor `fd`, if that is the one with this local
/// address still.
///
/// # Errors
/// `NotFound`: it is another; or what `setsockopt(2)` says.
pub(crate) fn set_keepalive(fd: RawFd, local: SocketAddr, keepalive: Keepalive) -> io::Result<()> {
    check_is(fd, local)?;
    sys::set_keepalive(fd, keepalive)
}

/// Ends both directions of the connection of descriptor `fd`, if that is the one between these
/// addresses still: its user reads its end.
///
/// # Errors
/// `NotFound`: it is another; or what `shutdown(2)` says.
pub(crate) fn shut_down(fd: RawFd, local: SocketAddr, peer: SocketAddr) -> io::Result<()> {
    check_is(fd, local)?;
    if address(&getpeername::<SockaddrStorage>(fd)?) != Some(peer) {
        return Err(io::ErrorKind::NotFound.into());
    }
    Ok(shutdown(fd, Shutdown::Both)?)
}

/// Whether the descriptor is still that of the socket with this local address.
pub(crate) fn is_open(fd: RawFd, local: SocketAddr) -> bool {
    check_is(fd, local).is_ok()
}

/// A descriptor that was closed, and is another's by now, has another address.
fn check_is(fd: RawFd, local: SocketAddr) -> io::Result<()> {
    let now = address(&getsockname::<SockaddrStorage>(fd)?);
    if now == Some(local) { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
}

fn address(name: &SockaddrStorage) -> Option<SocketAddr> {
    match (name.as_sockaddr_in(), name.as_sockaddr_in6()) {
        (Some(v4), _) => Some(SocketAddr::from(*v4)),
        (_, Some(v6)) => Some(SocketAddr::from(*v6)),
        _ => None,
    }
}

/// The same as [`SocketFactory::keepalive_left`] in the network namespace of the calling thread.
///
/// # Errors
/// As there.
pub fn keepalive_left(client: SocketAddr, server: SocketAddr) -> io::Result<Option<Duration>> {
    diag::keepalive_left(client, server)
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

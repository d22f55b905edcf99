//! The real socket factory: enters the network namespace, makes the socket, and goes back, all
//! in one synchronous call, so that no other task of the thread ever runs inside.

use std::{
    fs::File,
    io,
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd as _, OwnedFd},
    process,
    time::Duration,
};

use nix::sched::{CloneFlags, setns};
use socket2::{Domain, Protocol, Socket, Type};

use super::{Netns, NetnsTarget, SocketFactory, diag, sys};

/// Connections that may wait to be accepted; the kernel lowers it to net.core.somaxconn.
const BACKLOG: i32 = 4096;

/// Makes sockets in any network namespace that it is given. Needs CAP_SYS_ADMIN.
#[derive(Debug)]
pub struct NetnsSockets {
    own: OwnedFd,
}

impl NetnsSockets {
    /// The namespace of the calling thread is the agent's own from now on.
    ///
    /// # Errors
    /// /proc is not mounted.
    pub fn new() -> io::Result<Self> {
        Ok(Self { own: File::open("/proc/thread-self/ns/net")?.into() })
    }

    /// Runs `work` with the calling thread in `netns`. `work` is synchronous by its type.
    ///
    /// # Errors
    /// What `setns(2)` says on the way in.
    pub(crate) fn run<T>(&self, netns: &NetnsTarget, work: impl FnOnce() -> T) -> io::Result<T> {
        let NetnsTarget::Netns(netns) = netns else { return Ok(work()) };
        setns(netns.fd.as_fd(), CloneFlags::CLONE_NEWNET)?;
        let _back = NetnsGuard(&self.own);
        Ok(work())
    }
}

/// Leads the thread back, also when the work panicked.
struct NetnsGuard<'a>(&'a OwnedFd);

impl Drop for NetnsGuard<'_> {
    fn drop(&mut self) {
        if let Err(error) = setns(self.0.as_fd(), CloneFlags::CLONE_NEWNET) {
            // A thread left behind in a pod's namespace would send the agent's own connections
            // from there. The kernel gives no reason why this could fail.
            tracing::error!(%error, "cannot return to the agent's own network namespace");
            process::abort();
        }
    }
}

impl SocketFactory for NetnsSockets {
    fn stream(&self, netns: &NetnsTarget, v6: bool) -> io::Result<tokio::net::TcpSocket> {
        self.run(netns, || {
            if v6 { tokio::net::TcpSocket::new_v6() } else { tokio::net::TcpSocket::new_v4() }
        })?
    }

    fn listener(
        &self,
        netns: &NetnsTarget,
        address: SocketAddr,
    ) -> io::Result<std::net::TcpListener> {
        let socket = self.run(netns, || for_address(address))??;
        // Every worker has a listener on the same address; sk_lookup chooses.
        socket.set_reuse_port(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    }

    fn keepalive_left(
        &self,
        netns: &NetnsTarget,
        client: SocketAddr,
        server: SocketAddr,
    ) -> io::Result<Option<Duration>> {
        self.run(netns, || diag::keepalive_left(client, server))?
    }
}

impl Netns {
    /// Takes hold of the namespace behind an open `/proc/PID/ns/net`.
    ///
    /// # Errors
    /// What `setns(2)`, `socket(2)` or `SO_NETNS_COOKIE` (Linux 5.14) says.
    pub fn new(fd: OwnedFd, factory: &NetnsSockets) -> io::Result<Self> {
        let mut netns = Self { fd, cookie: 0 };
        let copy = netns.fd.try_clone()?;
        let target = NetnsTarget::Netns(std::sync::Arc::new(Self { fd: copy, cookie: 0 }));
        let socket = factory.run(&target, || Socket::new(Domain::IPV4, Type::STREAM, None))??;
        netns.cookie = sys::netns_cookie(&socket)?;
        Ok(netns)
    }
}

/// A socket that can be bound to `address`. sysctl net.ipv6.bindv6only must not decide whether an
/// IPv6 one takes IPv4 as well; and its address is one of a local route, which no interface has.
fn for_address(address: SocketAddr) -> io::Result<Socket> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
        socket.set_freebind_v6(true)?;
    }
    Ok(socket)
}

/// Whether nothing listens on `address` in `netns`: two agents of one user could otherwise share a
/// port by SO_REUSEPORT.
pub(crate) fn is_free(
    factory: &NetnsSockets,
    netns: &NetnsTarget,
    address: SocketAddr,
) -> io::Result<bool> {
    let socket = match factory.run(netns, || for_address(address))? {
        // A kernel without the family.
        Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => return Ok(true),
        socket => socket?,
    };
    match socket.bind(&address.into()) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EADDRINUSE) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The descriptor's number, for a path below `/proc/self/fd`.
pub(crate) fn fd_path(fd: &OwnedFd) -> std::path::PathBuf {
    format!("/proc/self/fd/{}", fd.as_raw_fd()).into()
}

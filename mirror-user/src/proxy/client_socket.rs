//! A client's connection as the kernel has it, and the sockets that were opened for it. In: what is
//! known of its ends. Out: options and ends for all sockets that lead to a primary, whoever has them
//! at the moment.

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    os::fd::{AsRawFd as _, RawFd},
    rc::Rc,
    time::{Duration, Instant},
};

use tokio::net::TcpStream;

use crate::sockets::{self, Keepalive};

/// Sockets from which on those that are closed are looked for before one more is noted.
const FEW: usize = 8;

/// A client's connection, and the sockets that were opened for it.
#[derive(Debug)]
pub(super) struct ClientSocket {
    client: SocketAddr,
    server: SocketAddr,
    accepted: Instant,
    keepalive: Cell<Option<Keepalive>>,
    upstreams: RefCell<Vec<UpstreamSocket>>,
    /// A connection that was opened before anything was known of what the client speaks.
    ahead: RefCell<Option<(SocketAddr, TcpStream)>>,
}

/// A socket that somebody else owns: a descriptor that was closed, and is another's by now, has
/// another local address.
#[derive(Clone, Copy, Debug)]
struct UpstreamSocket {
    fd: RawFd,
    local: SocketAddr,
    endpoint: SocketAddr,
}

impl ClientSocket {
    /// A connection from `client` to `server`, just accepted.
    pub(super) fn new(client: SocketAddr, server: SocketAddr) -> Rc<Self> {
        let (keepalive, upstreams, ahead) = Default::default();
        Rc::new(Self { client, server, accepted: Instant::now(), keepalive, upstreams, ahead })
    }

    /// The client's own address, and the one that it is connected to.
    pub(super) fn ends(&self) -> (SocketAddr, SocketAddr) {
        (self.client, self.server)
    }

    /// Since it was accepted.
    pub(super) fn age(&self) -> Duration {
        self.accepted.elapsed()
    }

    /// The client's first connection to `endpoint` is this one.
    pub(super) fn keep_ahead(&self, endpoint: SocketAddr, stream: TcpStream) {
        *self.ahead.borrow_mut() = Some((endpoint, stream));
    }

    /// What was kept for `endpoint`.
    pub(super) fn take_ahead(&self, endpoint: SocketAddr) -> Option<TcpStream> {
        let (at, stream) = self.ahead.take()?;
        (at == endpoint).then_some(stream)
    }

    /// A connection to `endpoint` was opened for this client.
    pub(super) fn opened(&self, stream: &TcpStream, endpoint: SocketAddr) {
        // One without a local address is broken, as its user is about to see.
        let Ok(local) = stream.local_addr() else { return };
        let upstream = UpstreamSocket { fd: stream.as_raw_fd(), local, endpoint };
        if let Some(keepalive) = self.keepalive.get() {
            upstream.set(keepalive);
        }
        let mut upstreams = self.upstreams.borrow_mut();
        if upstreams.len() >= FEW && upstreams.len() == upstreams.capacity() {
            upstreams.retain(|other| sockets::is_open(other.fd, other.local));
        }
        if upstreams.is_empty() {
            // Most clients have one.
            upstreams.reserve_exact(1);
        }
        upstreams.push(upstream);
    }

    /// All sockets to primaries, those to come as well, get the client's keepalive.
    pub(super) fn set_keepalive(&self, keepalive: Keepalive) {
        self.keepalive.set(Some(keepalive));
        self.upstreams.borrow().iter().for_each(|upstream| upstream.set(keepalive));
    }

    /// Ends the connections to `endpoint`: their users read the end.
    pub(super) fn shut_down(&self, endpoint: SocketAddr) {
        for upstream in self.upstreams.borrow().iter().filter(|up| up.endpoint == endpoint) {
            // It fails where it is closed already.
            let _ = sockets::shut_down(upstream.fd, upstream.local, endpoint);
        }
    }
}

impl UpstreamSocket {
    fn set(&self, keepalive: Keepalive) {
        // Of several sockets some are closed by now.
        if let Err(error) = sockets::set_keepalive(self.fd, self.local, keepalive) {
            tracing::debug!(endpoint = %self.endpoint, %error, "no keepalive on this connection");
        }
    }
}

//! The connections to primaries that belong to one connection of a client. In: requests for an
//! endpoint. Out: a connection that this client alone has used, and what becomes of idle ones.
//!
//! They live as long as the client's connection and are never handed to another: what a server
//! attaches to a connection (NTLM, late bytes, its own limits) stays with the client that it belongs
//! to.

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    task::{Context as TaskContext, Poll},
};

use http::Version;

use super::{ClientPools, ConnectionLease, Destination, Primary, balance::Load};
use crate::{
    memory::{ConnectionUsage, MemoryCharge},
    proxy::{
        client_socket::ClientSocket,
        close::CloseMode,
        http1::Idle,
        protocol::{self, HttpVersion},
    },
    route::{Backend, ServicePort},
    workload::Workload,
};

/// HTTP/1 connections that a client's connection keeps without an exchange.
const MOST_IDLE: usize = 64;

/// What a connection of HTTP/1 to a primary takes, in bytes: its first buffers, and itself.
const UPSTREAM: usize = 4 * 1024;

/// What a client's connection has open to primaries.
pub(in crate::proxy) struct Upstreams {
    socket: Rc<ClientSocket>,
    memory: Rc<ConnectionUsage>,
    /// HTTP/1 connections without an exchange.
    idle: RefCell<Vec<(SocketAddr, ConnectionLease)>>,
    /// HTTP/1 connections, those in an exchange included.
    open: Rc<Cell<usize>>,
    /// HTTP/2 connections.
    pub(in crate::proxy) pools: ClientPools,
    /// The endpoints that mirror chose, one for each backend.
    chosen: RefCell<Vec<Chosen>>,
    /// Endpoints that answered the HTTP/2 preface with HTTP/1. Another connection of the same
    /// client may reach another version of the server at the same address.
    http1: RefCell<Vec<SocketAddr>>,
}

/// An endpoint that mirror chose for a client's connection.
struct Chosen {
    service: Arc<ServicePort>,
    /// In which it was last seen.
    backend: Arc<Backend>,
    endpoint: SocketAddr,
    /// Counts the client's connection towards the endpoint.
    _load: Load,
}

/// What an idle connection does on its own account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum IdleEvent {
    /// The only connection ended, this way.
    Ended(CloseMode),
    /// The only connection sent bytes that no request asked for; see [`Upstreams::take_only`].
    Unsolicited,
}

impl Upstreams {
    /// None yet, for the client of this socket.
    pub(in crate::proxy) fn new(socket: Rc<ClientSocket>, memory: Rc<ConnectionUsage>) -> Self {
        let (idle, open, pools, chosen, http1) = Default::default();
        Self { socket, memory, idle, open, pools, chosen, http1 }
    }

    /// The endpoint for a request; None when none is left that is not in `failed`.
    pub(super) fn endpoint(
        &self,
        to: &Destination,
        primary: &Primary,
        client: &Workload,
        failed: &[SocketAddr],
    ) -> Option<SocketAddr> {
        let (backend, frontend) = match to {
            Destination::Address(address, _) => {
                return (!failed.contains(address)).then_some(*address);
            }
            Destination::Endpoints(backend, frontend) => (backend, frontend),
        };
        let mut chosen = self.chosen.borrow_mut();
        if let Some(at) = chosen.iter().position(|chosen| chosen.service == backend.service) {
            let known = &mut chosen[at];
            let stays = Arc::ptr_eq(&known.backend, backend)
                || backend.endpoints_for(frontend).contains(&known.endpoint);
            if stays && !failed.contains(&known.endpoint) {
                known.backend = Arc::clone(backend);
                return Some(known.endpoint);
            }
            let gone = chosen.swap_remove(at).endpoint;
            self.idle.borrow_mut().retain(|(endpoint, _)| *endpoint != gone);
        }
        let candidates = backend.endpoints_for(frontend);
        let (endpoint, load) = match backend.affinity {
            true => primary.balancer.affine(candidates, &client.name, failed)?,
            false => primary.balancer.pick(candidates, primary.parts.draw.next(), failed)?,
        };
        primary.chosen.add(&self.socket, &backend.service, endpoint);
        let (service, backend) = (Arc::clone(&backend.service), Arc::clone(backend));
        chosen.push(Chosen { service, backend, endpoint, _load: load });
        Some(endpoint)
    }

    /// What to speak to this endpoint for a client that speaks `client`.
    pub(super) fn http_version(
        &self,
        to: &Destination,
        client: Version,
        endpoint: SocketAddr,
    ) -> HttpVersion {
        let known_http1 = || self.http1.borrow().contains(&endpoint);
        protocol::version(to.protocol(), client, known_http1)
    }

    /// Remembers that the endpoint responded to the HTTP/2 preface with HTTP/1.
    pub(super) fn is_http1(&self, endpoint: SocketAddr) {
        let mut known = self.http1.borrow_mut();
        if !known.contains(&endpoint) {
            known.push(endpoint);
        }
    }

    /// Who pays for the connections.
    pub(super) fn memory(&self) -> &Rc<ConnectionUsage> {
        &self.memory
    }

    /// A new HTTP/1 connection's place among the open ones.
    pub(super) fn enter(&self) -> Open {
        self.open.set(self.open.get() + 1);
        Open { open: Rc::clone(&self.open), _held: self.memory.held(UPSTREAM) }
    }

    /// An idle HTTP/1 connection to this endpoint. `careful`: the kernel is asked whether the peer
    /// has closed it, because the request cannot be repeated.
    pub(in crate::proxy) fn take(
        &self,
        endpoint: SocketAddr,
        careful: bool,
    ) -> Option<ConnectionLease> {
        let mut idle = self.idle.borrow_mut();
        let mut at = idle.len();
        while at > 0 {
            at -= 1;
            let (other, lease) = &idle[at];
            // A response may end before its request; another connection is free meanwhile.
            if *other != endpoint || lease.connection.is_sending() {
                continue;
            }
            let fit = lease.connection.is_ready();
            let fit = fit && (!careful || lease.connection.is_quiet());
            let (_, lease) = idle.swap_remove(at);
            if fit {
                return Some(lease.reuse());
            }
        }
        None
    }

    /// Keeps an HTTP/1 connection for the client's next request. One that is about to end is kept if
    /// it is the only one: the client's connection ends as it does.
    pub(super) fn put(&self, endpoint: SocketAddr, lease: ConnectionLease) {
        let connection = &lease.connection;
        let mut idle = self.idle.borrow_mut();
        let keeps = connection.persists() || connection.is_sending() || self.is_only_one();
        // Many at once come of streams of HTTP/2.
        if keeps && idle.len() < MOST_IDLE {
            idle.push((endpoint, lease));
        }
    }

    /// Whether the client's connection has one upstream connection, of HTTP/1, and no more: then
    /// both end alike.
    pub(in crate::proxy) fn is_only_one(&self) -> bool {
        self.open.get() == 1 && self.pools.is_empty()
    }

    /// Whether an HTTP/1 connection is open without an exchange.
    pub(in crate::proxy) fn any_idle(&self) -> bool {
        !self.idle.borrow().is_empty()
    }

    /// Ready when the only connection did something on its own account while no request is under
    /// way. Of several connections, those that did are closed without a
    /// report.
    pub(in crate::proxy) fn poll_idle(&self, cx: &mut TaskContext<'_>) -> Poll<IdleEvent> {
        let mut idle = self.idle.borrow_mut();
        let mut at = idle.len();
        while at > 0 {
            at -= 1;
            let (_, lease) = &idle[at];
            if lease.connection.is_sending() {
                lease.connection.watch_sent(cx);
                continue;
            }
            let Poll::Ready(event) = lease.connection.poll_idle(cx) else { continue };
            let only = self.is_only_one();
            match event {
                Idle::Unsolicited if only => return Poll::Ready(IdleEvent::Unsolicited),
                Idle::Unsolicited | Idle::Closed | Idle::Reset => drop(idle.swap_remove(at)),
            }
            match event {
                Idle::Closed if only => return Poll::Ready(IdleEvent::Ended(CloseMode::Close)),
                Idle::Reset if only => return Poll::Ready(IdleEvent::Ended(CloseMode::Reset)),
                _ => {}
            }
        }
        Poll::Pending
    }

    /// The only connection, idle, out of the client's hands.
    pub(in crate::proxy) fn take_only(&self) -> Option<(SocketAddr, ConnectionLease)> {
        if self.is_only_one() { self.idle.borrow_mut().pop() } else { None }
    }

    /// Closes idle connections that did something on their own account, for a client that has no use
    /// for their end.
    pub(in crate::proxy) fn poll_close_ended(&self, cx: &mut TaskContext<'_>) {
        while let Poll::Ready(event) = self.poll_idle(cx) {
            if event == IdleEvent::Unsolicited {
                drop(self.take_only());
            }
        }
    }

    /// Gives back the memory of idle connections' buffers.
    pub(in crate::proxy) fn shrink(&self) {
        let mut idle = self.idle.borrow_mut();
        idle.iter().for_each(|(_, lease)| lease.connection.shrink());
        idle.shrink_to_fit();
    }
}

/// Counts an open HTTP/1 connection until it is dropped.
#[derive(Debug)]
pub(in crate::proxy) struct Open {
    open: Rc<Cell<usize>>,
    _held: MemoryCharge,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.open.set(self.open.get() - 1);
    }
}

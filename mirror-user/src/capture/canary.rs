//! The canary of one family: connects inside a captured namespace to the reserved id. A rewritten
//! connect would die where it dies: lo down, a route gone, an OUTPUT policy, a REDIRECT rule.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use mirror_common::{Family, FrontendId};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::{
    backoff::ExponentialBackoff,
    sockets::{NetnsSockets, NetnsTarget},
};

/// Loopback responds at once; a SYN that was lost is sent again after 1 s.
const PATIENCE: Duration = Duration::from_millis(500);
/// Between two canaries that pass.
const INTERVAL: Duration = Duration::from_secs(3);
/// After failures.
const RETRY: ExponentialBackoff =
    ExponentialBackoff { first: Duration::from_millis(100), longest: Duration::from_secs(1) };

/// Why connections of a family are not captured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CanaryError {
    /// The namespace does not have that family, so no connection is missed.
    Absent(String),
    /// A captured connection would not arrive.
    Broken(String),
}

/// The canary of one family in one namespace.
#[derive(Debug)]
pub(crate) struct Canary {
    address: SocketAddr,
    pending: Option<(Socket, Instant)>,
    next: Instant,
    failures: u32,
    /// Something has changed since the pending one began to connect.
    changed: bool,
}

impl Canary {
    /// For the agent's port in the namespace; due at once.
    pub(crate) fn new(family: Family, port: u16, now: Instant) -> Self {
        let ip = match family {
            Family::V4 => IpAddr::V4(FrontendId::CANARY.address()),
            Family::V6 => IpAddr::V6(FrontendId::CANARY.address_v6()),
        };
        let address = SocketAddr::new(ip, port);
        Self { address, pending: None, next: now, failures: 0, changed: false }
    }

    /// Something that may block it has changed: the next one is due at once.
    pub(crate) fn run_soon(&mut self, now: Instant) {
        self.next = now;
        self.changed = self.pending.is_some();
    }

    /// Continues; never blocks. None while there is no result. `prepare` is called before a canary
    /// connects, to make its way free.
    pub(crate) fn poll(
        &mut self,
        factory: &NetnsSockets,
        netns: &NetnsTarget,
        now: Instant,
        prepare: impl FnOnce() -> Result<(), CanaryError>,
    ) -> Option<Result<(), CanaryError>> {
        if self.pending.is_none() {
            if now < self.next {
                return None;
            }
            match prepare() {
                Ok(()) => {}
                Err(CanaryError::Absent(why)) => {
                    self.next = now + INTERVAL;
                    return Some(Err(CanaryError::Absent(why)));
                }
                Err(CanaryError::Broken(why)) => return Some(self.failed(why, now)),
            }
            match self.connect(factory, netns) {
                Ok(socket) => self.pending = Some((socket, now)),
                Err(error) => return Some(self.failed(self.message(&error.to_string()), now)),
            }
        }
        let (socket, since) = self.pending.as_ref()?;
        let waited = now.duration_since(*since);
        let result = match (socket.take_error(), socket.peer_addr()) {
            (Ok(Some(error)) | Err(error), _) => self.failed(self.message(&error.to_string()), now),
            (Ok(None), Ok(_)) => {
                self.next = now + INTERVAL;
                self.failures = 0;
                Ok(())
            }
            (Ok(None), Err(_)) if waited < PATIENCE => return None,
            (Ok(None), Err(_)) => self.failed(self.message("no response"), now),
        };
        self.pending = None;
        if std::mem::take(&mut self.changed) {
            self.next = now;
        }
        Some(result)
    }

    fn connect(&self, factory: &NetnsSockets, netns: &NetnsTarget) -> io::Result<Socket> {
        let kind = Type::STREAM.nonblocking().cloexec();
        let domain = Domain::for_address(self.address);
        let socket = factory.run(netns, || Socket::new(domain, kind, Some(Protocol::TCP)))??;
        match socket.connect(&SockAddr::from(self.address)) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
            _ => Ok(socket),
        }
    }

    /// Plans the next attempt.
    fn failed(&mut self, why: String, now: Instant) -> Result<(), CanaryError> {
        self.next = now + RETRY.delay(self.failures);
        self.failures = self.failures.saturating_add(1);
        Err(CanaryError::Broken(why))
    }

    fn message(&self, why: &str) -> String {
        format!("the canary to {} failed: {why}", self.address)
    }
}

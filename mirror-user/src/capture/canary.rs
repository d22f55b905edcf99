//! The canary of one family: connects inside a captured namespace to the reserved id. A rewritten
//! connect would die where it dies: lo down, a route gone, an OUTPUT policy, a REDIRECT rule.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use mirror_common::{Family, FrontendId};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::sockets::{NetnsSockets, Place};

/// Loopback answers at once; a SYN that was lost is sent again after 1 s.
const PATIENCE: Duration = Duration::from_millis(500);
/// Between two canaries that pass.
const INTERVAL: Duration = Duration::from_secs(3);
/// After the first failure; doubles with each, up to the last.
const RETRY: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(1)];

/// Why connections of a family are not captured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// The namespace has nothing of that family: nobody misses anything.
    Absent(String),
    /// A captured connection would not arrive.
    Broken(String),
}

/// The canary of one family in one namespace.
#[derive(Debug)]
pub(crate) struct Canary {
    address: SocketAddr,
    flying: Option<(Socket, Instant)>,
    next: Instant,
    failures: u32,
    /// Something has changed since the one that flies took off.
    again: bool,
}

impl Canary {
    /// For the agent's port in the namespace; due at once.
    pub(crate) fn new(family: Family, port: u16, now: Instant) -> Self {
        let ip = match family {
            Family::V4 => IpAddr::V4(FrontendId::CANARY.address()),
            Family::V6 => IpAddr::V6(FrontendId::CANARY.address_v6()),
        };
        let address = SocketAddr::new(ip, port);
        Self { address, flying: None, next: now, failures: 0, again: false }
    }

    /// Something has changed that may be in its way: the next is due at once.
    pub(crate) fn hurry(&mut self, now: Instant) {
        self.next = now;
        self.again = self.flying.is_some();
    }

    /// Goes on; never blocks. None while nothing is known. `prepare` clears the way of one that is
    /// about to fly.
    pub(crate) fn poll(
        &mut self,
        factory: &NetnsSockets,
        place: &Place,
        now: Instant,
        prepare: impl FnOnce() -> Result<(), Obstacle>,
    ) -> Option<Result<(), Obstacle>> {
        if self.flying.is_none() {
            if now < self.next {
                return None;
            }
            match prepare() {
                Ok(()) => {}
                Err(Obstacle::Absent(why)) => {
                    self.next = now + INTERVAL;
                    return Some(Err(Obstacle::Absent(why)));
                }
                Err(Obstacle::Broken(why)) => return Some(self.failed(why, now)),
            }
            match self.fly(factory, place) {
                Ok(socket) => self.flying = Some((socket, now)),
                Err(error) => return Some(self.failed(self.told(&error.to_string()), now)),
            }
        }
        let (socket, since) = self.flying.as_ref()?;
        let waited = now.duration_since(*since);
        let result = match (socket.take_error(), socket.peer_addr()) {
            (Ok(Some(error)) | Err(error), _) => self.failed(self.told(&error.to_string()), now),
            (Ok(None), Ok(_)) => {
                self.next = now + INTERVAL;
                self.failures = 0;
                Ok(())
            }
            (Ok(None), Err(_)) if waited < PATIENCE => return None,
            (Ok(None), Err(_)) => self.failed(self.told("no answer"), now),
        };
        self.flying = None;
        if std::mem::take(&mut self.again) {
            self.next = now;
        }
        Some(result)
    }

    fn fly(&self, factory: &NetnsSockets, place: &Place) -> io::Result<Socket> {
        let kind = Type::STREAM.nonblocking().cloexec();
        let domain = Domain::for_address(self.address);
        let socket = factory.run(place, || Socket::new(domain, kind, Some(Protocol::TCP)))??;
        match socket.connect(&SockAddr::from(self.address)) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
            _ => Ok(socket),
        }
    }

    /// Plans the next attempt.
    fn failed(&mut self, why: String, now: Instant) -> Result<(), Obstacle> {
        let [first, longest] = RETRY;
        let doubled = first.saturating_mul(1 << self.failures.min(10));
        self.next = now + doubled.min(longest);
        self.failures = self.failures.saturating_add(1);
        Err(Obstacle::Broken(why))
    }

    fn told(&self, why: &str) -> String {
        format!("the canary to {} failed: {why}", self.address)
    }
}

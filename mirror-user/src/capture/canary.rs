//! The canary: connects inside a captured namespace to the reserved id. A rewritten connect would
//! die where it dies: lo down, an OUTPUT policy, a REDIRECT rule.

use std::{
    io,
    net::SocketAddrV4,
    time::{Duration, Instant},
};

use mirror_common::FrontendId;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::sockets::{NetnsSockets, Place};

/// Loopback answers at once; a SYN that was lost is sent again after 1 s.
const PATIENCE: Duration = Duration::from_millis(500);
/// Between two canaries that pass.
const INTERVAL: Duration = Duration::from_secs(3);
/// After the first failure; doubles with each, up to the last.
const RETRY: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(1)];

/// The canary of one namespace.
#[derive(Debug)]
pub(crate) struct Canary {
    address: SockAddr,
    flying: Option<(Socket, Instant)>,
    next: Instant,
    failures: u32,
}

impl Canary {
    /// For the agent's port in the namespace; due at once.
    pub(crate) fn new(port: u16, now: Instant) -> Self {
        let address = SocketAddrV4::new(FrontendId::CANARY.address(), port).into();
        Self { address, flying: None, next: now, failures: 0 }
    }

    /// Goes on; never blocks. None while nothing is known.
    pub(crate) fn poll(
        &mut self,
        factory: &NetnsSockets,
        place: &Place,
        now: Instant,
    ) -> Option<Result<(), String>> {
        if self.flying.is_none() {
            if now < self.next {
                return None;
            }
            match self.fly(factory, place) {
                Ok(socket) => self.flying = Some((socket, now)),
                Err(error) => return Some(self.failed(&error.to_string(), now)),
            }
        }
        let (socket, since) = self.flying.as_ref()?;
        let waited = now.duration_since(*since);
        let result = match (socket.take_error(), socket.peer_addr()) {
            (Ok(Some(error)) | Err(error), _) => self.failed(&error.to_string(), now),
            (Ok(None), Ok(_)) => {
                self.next = now + INTERVAL;
                self.failures = 0;
                Ok(())
            }
            (Ok(None), Err(_)) if waited < PATIENCE => return None,
            (Ok(None), Err(_)) => self.failed("no answer", now),
        };
        self.flying = None;
        Some(result)
    }

    fn fly(&self, factory: &NetnsSockets, place: &Place) -> io::Result<Socket> {
        let kind = Type::STREAM.nonblocking().cloexec();
        let socket =
            factory.run(place, || Socket::new(Domain::IPV4, kind, Some(Protocol::TCP)))??;
        match socket.connect(&self.address) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
            _ => Ok(socket),
        }
    }

    /// Plans the next attempt.
    fn failed(&mut self, why: &str, now: Instant) -> Result<(), String> {
        let [first, longest] = RETRY;
        let doubled = first.saturating_mul(1 << self.failures.min(10));
        self.next = now + doubled.min(longest);
        self.failures = self.failures.saturating_add(1);
        let address = self.address.as_socket().map(|a| a.to_string()).unwrap_or_default();
        Err(format!("the canary to {address} failed: {why}"))
    }
}

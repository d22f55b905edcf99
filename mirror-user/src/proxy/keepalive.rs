//! TCP keepalive of connections to primaries: set where the client's end has it, so that a client
//! that wants to learn of a dead peer learns of it through mirror as well. In: a client's connection
//! and the upstream connections that are opened for it. Out: their socket options. A client without
//! keepalive gets none: it outlives a cut of the network as it does without mirror.
//!
//! The kernel shows that the client's timer runs, and how much is left of it (sock_diag), because
//! both ends are in one network namespace. The timer was set to TCP_KEEPIDLE when the connection
//! was made, so that what is left and the connection's age give it. TCP_KEEPINTVL and TCP_KEEPCNT
//! are not shown: the interval is taken to be as long as TCP_KEEPIDLE (as Go, curl and libuv have
//! it), 75 s at most, the count to be the system's.

use std::{
    cell::RefCell,
    collections::VecDeque,
    rc::{Rc, Weak},
    sync::Arc,
    time::{Duration, Instant},
};

use super::client_socket::ClientSocket;
use crate::{
    sockets::{Keepalive, SocketFactory},
    workload::Workload,
};

/// Sweeps of the worker (100 ms) after which a connection is looked at: one that lives shorter is
/// never worth it, and most clients have set their options by then.
const LOOKS: [u64; 2] = [10, 100];

/// Connections that are looked at in one sweep, at most; others wait for the next.
const BATCH: usize = 32;

/// How long that may take: the worker's connections wait meanwhile.
const TIME: Duration = Duration::from_millis(2);

/// Longest interval between two probes: the kernel's own (net.ipv4.tcp_keepalive_intvl).
const INTERVAL: Duration = Duration::from_secs(75);

/// From here on the client's time is the system's (net.ipv4.tcp_keepalive_time is two hours), which
/// a socket in the same network namespace has by itself.
const SYSTEM: Duration = Duration::from_secs(3600);

/// What the client has set, from what is left of its timer and the age of its connection. Where the
/// timer has fired since, or was set late, this is too much by as long: a peer is never given up
/// sooner than the client would give it up.
fn from_left(left: Duration, age: Duration) -> Keepalive {
    let whole = left + age;
    let idle = Duration::from_secs((whole + Duration::from_millis(500)).as_secs().max(1));
    match idle {
        idle if idle >= SYSTEM => Keepalive { idle: None, interval: None },
        idle => Keepalive { idle: Some(idle), interval: Some(idle.min(INTERVAL)) },
    }
}

/// The connections of a worker that are yet to be looked at.
#[derive(Debug, Default)]
pub(super) struct Keepalives {
    /// For each look: those whose turn comes, and in which sweep.
    waiting: [RefCell<VecDeque<PendingLook>>; LOOKS.len()],
}

#[derive(Debug)]
struct PendingLook {
    due: u64,
    socket: Weak<ClientSocket>,
    workload: Arc<Workload>,
}

impl Keepalives {
    /// A connection was accepted in this sweep.
    pub(super) fn add(&self, socket: &Rc<ClientSocket>, workload: &Arc<Workload>, sweep: u64) {
        self.wait(0, Rc::downgrade(socket), Arc::clone(workload), sweep);
    }

    /// Looks at those whose turn it is.
    pub(super) fn sweep(&self, sockets: &dyn SocketFactory, sweep: u64) {
        let mut left = BATCH;
        let begun = Instant::now();
        for look in 0..LOOKS.len() {
            while left > 0
                && begun.elapsed() < TIME
                && let Some(PendingLook { socket, workload, .. }) = self.next(look, sweep)
            {
                let Some(open) = socket.upgrade() else { continue };
                left -= 1;
                let (client, server) = open.ends();
                match sockets.keepalive_left(&workload.netns, client, server) {
                    Ok(Some(left)) => open.set_keepalive(from_left(left, open.age())),
                    Ok(None) => self.wait(look + 1, socket, workload, sweep),
                    Err(error) => {
                        tracing::debug!(client = %workload.name, %error, "no look at keepalive");
                        self.wait(look + 1, socket, workload, sweep);
                    }
                }
            }
        }
    }

    fn next(&self, look: usize, sweep: u64) -> Option<PendingLook> {
        let mut waiting = self.waiting[look].borrow_mut();
        waiting.pop_front_if(|first| first.due <= sweep)
    }

    fn wait(&self, look: usize, socket: Weak<ClientSocket>, workload: Arc<Workload>, sweep: u64) {
        if let (Some(waiting), Some(after)) = (self.waiting.get(look), LOOKS.get(look)) {
            let due = sweep + after;
            waiting.borrow_mut().push_back(PendingLook { due, socket, workload });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_found_from_what_is_left_and_the_age() {
        let ms = Duration::from_millis;
        let idle = |left, age| from_left(ms(left), ms(age)).idle.map(|idle| idle.as_secs());
        // Go: 15 s, set with the connection, seen after a second.
        assert_eq!(idle(13_920, 1_080), Some(15));
        assert_eq!(idle(58_700, 1_100), Some(60));
        // Set half a second late.
        assert_eq!(idle(14_400, 1_100), Some(16));
        // Of one second (libuv): it has fired meanwhile.
        assert_eq!(idle(900, 1_050), Some(2));
        // The system's.
        assert_eq!(from_left(ms(7_198_900), ms(1_100)), Keepalive { idle: None, interval: None });
        let long = from_left(ms(298_900), ms(1_100));
        assert_eq!(long.interval, Some(INTERVAL));
    }
}

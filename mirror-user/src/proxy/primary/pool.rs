//! Idle connections to primaries, by workload and endpoint.
//!
//! A connection idles at most [`IDLE`]: a longer one meets the server's own idle close while a
//! request is on its way (gunicorn's gthread closes after 2 s).

use std::{
    cell::RefCell,
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::Single;
use crate::proxy::maps::QuickMap;

/// Longest time between two requests on a connection.
const IDLE: Duration = Duration::from_secs(1);

/// A key: the workload whose namespace the socket is in, and the endpoint.
type Key = (u64, SocketAddr);

#[derive(Default)]
pub(super) struct Pool {
    idle: RefCell<QuickMap<Key, Vec<Idle>>>,
}

struct Idle {
    single: Single,
    since: Instant,
}

impl Pool {
    /// The connection used last, if one is fit. `careful`: ask the kernel whether the peer has
    /// closed it, since the request cannot be repeated.
    pub(super) fn take(
        &self,
        workload: u64,
        endpoint: SocketAddr,
        careful: bool,
    ) -> Option<Single> {
        let mut pool = self.idle.borrow_mut();
        let list = pool.get_mut(&(workload, endpoint))?;
        let mut at = list.len();
        while at > 0 {
            at -= 1;
            let idle = &list[at];
            let connection = &idle.single.connection;
            // An answer may end before the request that it answers; the next connection is free.
            if connection.is_sending() {
                continue;
            }
            let fit = connection.is_ready() && idle.since.elapsed() <= IDLE;
            let fit = fit && (!careful || connection.is_quiet());
            let idle = list.swap_remove(at);
            if fit {
                return Some(idle.single.reuse());
            }
        }
        None
    }

    /// Keeps the connection for the next request.
    pub(super) fn put(&self, endpoint: SocketAddr, single: Single) {
        if single.connection.persists() || single.connection.is_sending() {
            let key = (single.workload, endpoint);
            let idle = Idle { single, since: Instant::now() };
            self.idle.borrow_mut().entry(key).or_default().push(idle);
        }
    }

    /// Closes what has idled too long.
    pub(super) fn sweep(&self) {
        let mut pool = self.idle.borrow_mut();
        for list in pool.values_mut() {
            list.retain(|idle| {
                let connection = &idle.single.connection;
                // A request that is answered already may still be under way.
                connection.is_sending() || (connection.persists() && idle.since.elapsed() <= IDLE)
            });
        }
        pool.retain(|_, list| !list.is_empty());
    }

    /// Closes all of one workload.
    pub(super) fn leave(&self, workload: u64) {
        self.idle.borrow_mut().retain(|(key, _), _| *key != workload);
    }
}

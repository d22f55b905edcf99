//! Idle connections to primaries, by workload and endpoint.
//!
//! A connection idles at most [`IDLE`]: a longer one meets the server's own idle close while a
//! request is on its way (gunicorn's gthread closes after 2 s).

use std::{
    cell::RefCell,
    collections::HashMap,
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use hyper::client::conn::http1::SendRequest;

use super::{PrimaryBody, Single};
use crate::proxy::io::WireState;

/// Longest time between two requests on a connection.
const IDLE: Duration = Duration::from_secs(1);

/// A key: the workload whose namespace the socket is in, and the endpoint.
type Key = (u64, SocketAddr);

#[derive(Default)]
pub(super) struct Pool {
    idle: RefCell<HashMap<Key, Vec<Idle>>>,
}

struct Idle {
    sender: SendRequest<PrimaryBody>,
    wire: Rc<WireState>,
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
            if idle.sender.is_closed() || idle.since.elapsed() > IDLE {
                list.swap_remove(at);
                continue;
            }
            // Not ready: its task has yet to see the end of its last exchange; the next is.
            if idle.sender.is_ready() {
                let idle = list.remove(at);
                if !careful || idle.wire.is_quiet() {
                    return Some(Single::new(idle.wire, workload, idle.sender, true));
                }
            }
        }
        None
    }

    /// Keeps the connection for the next request.
    pub(super) fn put(&self, endpoint: SocketAddr, single: Single) {
        let Single { wire, workload, sender, .. } = single;
        if !sender.is_closed() {
            let idle = Idle { sender, wire, since: Instant::now() };
            self.idle.borrow_mut().entry((workload, endpoint)).or_default().push(idle);
        }
    }

    /// Closes what has idled too long.
    pub(super) fn sweep(&self) {
        let mut pool = self.idle.borrow_mut();
        for list in pool.values_mut() {
            list.retain(|idle| !idle.sender.is_closed() && idle.since.elapsed() <= IDLE);
        }
        pool.retain(|_, list| !list.is_empty());
    }

    /// Closes all of one workload.
    pub(super) fn leave(&self, workload: u64) {
        self.idle.borrow_mut().retain(|(key, _), _| *key != workload);
    }
}

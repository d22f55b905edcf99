//! The registry of connections of HTTP/2 to primaries in one worker. A connection belongs to one of a
//! client and ends by itself soon after it; one whose peer reads nothing would not, and would keep
//! a deleted workload's network namespace alive.

use crate::proxy::http2::SocketState;
use std::{
    cell::RefCell,
    rc::{Rc, Weak},
    time::{Duration, Instant},
};

/// How long a connection may outlive its client's, to say what it has to say.
const GRACE: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(super) struct ConnectionRegistry(RefCell<Vec<Entry>>);

struct Entry {
    workload: u64,
    /// Of the client's connection.
    owner: Weak<()>,
    socket_state: Weak<SocketState>,
    /// When the owner was first missed.
    missed: Option<Instant>,
}

impl ConnectionRegistry {
    /// A connection was opened.
    pub(super) fn enter(&self, workload: u64, owner: &Rc<()>, socket_state: &Rc<SocketState>) {
        let (owner, socket_state) = (Rc::downgrade(owner), Rc::downgrade(socket_state));
        self.0.borrow_mut().push(Entry { workload, owner, socket_state, missed: None });
    }

    /// Ends what has outlived its client's connection.
    pub(super) fn sweep(&self) {
        self.0.borrow_mut().retain_mut(|entry| {
            let Some(socket_state) = entry.socket_state.upgrade() else { return false };
            if entry.owner.strong_count() > 0 {
                return true;
            }
            let stays = entry.missed.get_or_insert_with(Instant::now).elapsed() < GRACE;
            if !stays {
                socket_state.end();
            }
            stays
        });
    }

    /// Ends all of one workload at once.
    pub(super) fn leave(&self, workload: u64) {
        self.0.borrow_mut().retain(|entry| {
            let stays = entry.workload != workload;
            if !stays && let Some(socket_state) = entry.socket_state.upgrade() {
                socket_state.end();
            }
            stays
        });
    }
}

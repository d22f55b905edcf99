//! Limits the open connections. In: a new connection. Out: its place; if there is none, the oldest
//! connection is closed, because a probe must get its response even if other clients never read.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use tokio_util::sync::CancellationToken;

/// Connections at a time.
pub(super) const CONNECTIONS: usize = 64;

/// All of them, the oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct ConnectionLimit(Arc<Mutex<VecDeque<CancellationToken>>>);

/// A connection's place; it is free when this is dropped.
#[derive(Debug)]
pub(super) struct ConnectionSlot {
    connection_limit: ConnectionLimit,
    /// Cancelled when the connection must go.
    pub(super) gone: CancellationToken,
}

impl ConnectionLimit {
    /// A place for one more.
    pub(super) fn enter(&self) -> ConnectionSlot {
        let gone = CancellationToken::new();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|other| !other.is_cancelled());
        if all.len() >= CONNECTIONS
            && let Some(oldest) = all.pop_front()
        {
            oldest.cancel();
        }
        all.push_back(gone.clone());
        ConnectionSlot { connection_limit: self.clone(), gone }
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.gone.cancel();
        let mut all = self.connection_limit.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|other| !other.is_cancelled());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_makes_room_and_who_left_counts_no_more() {
        let connection_limit = ConnectionLimit::default();
        let mut slots: Vec<_> = (0..CONNECTIONS).map(|_| connection_limit.enter()).collect();
        assert!(slots.iter().all(|slot| !slot.gone.is_cancelled()));
        drop(slots.remove(1));
        let another = connection_limit.enter();
        assert!(!slots[0].gone.is_cancelled(), "there was a place");
        let last = connection_limit.enter();
        assert!(slots[0].gone.is_cancelled() && !slots[1].gone.is_cancelled());
        assert!(!another.gone.is_cancelled() && !last.gone.is_cancelled());
        drop((slots, another, last));
        assert!(connection_limit.0.lock().unwrap().is_empty());
    }
}

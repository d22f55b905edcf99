//! What the tapped connections of each workload make a worker hold. In: connections, and bytes of heads that
//! are not complete, as they come and go. Out: whether there is room, and whose are to go. No workload
//! takes the room of another. Pure.

use crate::hash::FastHashMap;

/// Connections of a worker that are kept track of, at most; an idle one holds some 300 bytes.
const CONNECTIONS: usize = 16 * 1024;

/// What a worker holds of heads that are not complete, at most, in bytes. A workload may hold twice what is
/// left, which is two thirds of this at most.
const HELD: usize = 16 << 20;

/// The accounts of a worker.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    /// By the workload's key.
    open: FastHashMap<u64, Account>,
    total: Account,
}

#[derive(Clone, Copy, Debug, Default)]
struct Account {
    connections: usize,
    held: usize,
}

impl Accounts {
    /// The workload with this key is captured from now on.
    pub(super) fn open(&mut self, key: u64) {
        self.open.entry(key).or_default();
    }

    /// It is not captured any longer: what its connections held has gone.
    pub(super) fn close(&mut self, key: u64) {
        let Account { connections, held } = self.open.remove(&key).unwrap_or_default();
        self.total.connections -= connections;
        self.total.held -= held;
    }

    /// Whether the workload is captured.
    pub(super) fn has(&self, key: u64) -> bool {
        self.open.contains_key(&key)
    }

    /// Whether a connection more would be too many.
    pub(super) fn is_full(&self) -> bool {
        self.total.connections >= CONNECTIONS
    }

    /// The workload that has most connections.
    pub(super) fn largest(&self) -> Option<u64> {
        self.open.iter().max_by_key(|(_, account)| account.connections).map(|(key, _)| *key)
    }

    /// A connection of the workload began.
    pub(super) fn begin(&mut self, key: u64) {
        if let Some(account) = self.open.get_mut(&key) {
            account.connections += 1;
            self.total.connections += 1;
        }
    }

    /// One that held so many bytes has gone.
    pub(super) fn end(&mut self, key: u64, held: usize) {
        if let Some(account) = self.open.get_mut(&key) {
            // One that began before its workload was captured again is in no account any more.
            let (connections, held) = (account.connections.min(1), account.held.min(held));
            account.connections -= connections;
            account.held -= held;
            self.total.connections -= connections;
            self.total.held -= held;
        }
    }

    /// One holds so many bytes more, or less. False: that is too much.
    pub(super) fn hold(&mut self, key: u64, more: isize) -> bool {
        let Some(account) = self.open.get_mut(&key) else { return true };
        account.held = account.held.saturating_add_signed(more);
        self.total.held = self.total.held.saturating_add_signed(more);
        more <= 0 || account.held <= 2 * HELD.saturating_sub(self.total.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: isize = 100 << 10;

    /// Has the workload hold more until it is refused, and give that back. Returns what it holds then.
    fn fill(accounts: &mut Accounts, key: u64) -> usize {
        while accounts.hold(key, STEP) {}
        accounts.hold(key, -STEP);
        accounts.open[&key].held
    }

    #[test]
    fn whatever_one_workload_holds_others_find_room() {
        let mut accounts = Accounts::default();
        (1..4).for_each(|key| accounts.open(key));
        let first = fill(&mut accounts, 1);
        assert!((HELD * 3 / 5..=HELD * 2 / 3).contains(&first), "{first}");
        let second = fill(&mut accounts, 2);
        assert!(second > HELD / 5, "{second}");
        assert!(accounts.hold(3, STEP));
        assert!(!accounts.hold(1, 1), "who has most gets no more");
        assert!(accounts.total.held <= HELD);
        // All of it comes back.
        accounts.close(1);
        accounts.close(2);
        accounts.close(3);
        assert_eq!((accounts.total.held, accounts.total.connections), (0, 0));
    }

    #[test]
    fn who_has_most_connections_makes_room() {
        let mut accounts = Accounts::default();
        (7..9).for_each(|key| accounts.open(key));
        (0..10).for_each(|_| accounts.begin(7));
        while !accounts.is_full() {
            accounts.begin(8);
        }
        assert_eq!(accounts.largest(), Some(8));
        accounts.end(8, 0);
        assert!(!accounts.is_full());
        accounts.close(8);
        assert_eq!((accounts.largest(), accounts.total.connections), (Some(7), 10));
        assert!(!accounts.has(8));
        // One that ends later than its workload changes nothing.
        accounts.end(8, 100);
        assert_eq!(accounts.total.connections, 10);
        accounts.open(8);
        accounts.end(8, 100);
        assert_eq!((accounts.total.connections, accounts.open[&8].connections), (10, 0));
    }
}

//! How much connections, workloads and the agent may hold: a pure decision. In: what is held, with
//! what is asked for. Out: whether it may be held, or which bound is in the way.
//!
//! The agent's bound is fixed. Below it thresholds follow what is free (Choudhury and Hahne, Dynamic
//! Queue Length Thresholds for Shared-Memory Packet Switches, 1998): a workload may hold twice what the
//! agent has left, a connection as much as its workload has left. One workload alone may so hold
//! two thirds of the agent's bound, and whatever some hold, there is room for those who hold little.

/// How many times what the agent has left a workload may hold.
const SHARE: usize = 2;

/// Bounds in bytes, and of a workload's connections. What is held for shadows has separate bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryLimits {
    /// For one connection of a client, even if more is free.
    pub connection: usize,
    /// For all connections of a workload, even if more is free.
    pub workload: usize,
    /// For all connections.
    pub agent: usize,
    /// Connections of a workload.
    pub connections: usize,
}

/// Bytes held by a connection, by its workload and by all workloads.
#[derive(Clone, Copy, Debug)]
pub(super) struct Usage {
    pub(super) connection: usize,
    pub(super) workload: usize,
    pub(super) agent: usize,
}

/// Which bound is in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MemoryExceeded {
    #[error("the connection would exceed its memory limit (--connection-memory)")]
    Connection,
    #[error("the pod's connections would exceed their memory limit (--pod-memory)")]
    Workload,
    #[error("all connections would exceed their memory limit (--agent-memory)")]
    Agent,
    #[error("the pod has reached its limit of connections (--pod-connections)")]
    Connections,
}

/// How close to its bounds a workload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FillLevel {
    Little,
    Some,
    Much,
}

impl MemoryLimits {
    /// Whether a connection may hold more than it must. An eighth of what its workload may hold stays
    /// free for connections that are yet to come.
    pub(super) fn admit(&self, held: Usage) -> Result<(), MemoryExceeded> {
        self.check(held, |share| share - share / 8)
    }

    /// Whether one more connection may be served, beside `others` of its workload.
    pub(super) fn admit_connection(
        &self,
        held: Usage,
        others: usize,
    ) -> Result<(), MemoryExceeded> {
        if others >= self.connections {
            return Err(MemoryExceeded::Connections);
        }
        self.check(held, |share| share)
    }

    /// How close to its bounds a workload is that holds `held` beside what `others` hold: much is
    /// three quarters, before a connection would be refused; little is less than five eighths.
    pub(super) fn fill(&self, held: usize, others: usize, connections: usize) -> FillLevel {
        // What it could come to: held <= SHARE * (agent - others - held).
        let most = self.agent.saturating_sub(others) / (SHARE + 1) * SHARE;
        let most = most.min(self.workload);
        let above = |eighths| {
            held >= most / 8 * eighths || connections >= self.connections.div_ceil(8) * eighths
        };
        match (above(6), above(5)) {
            (true, _) => FillLevel::Much,
            (false, true) => FillLevel::Some,
            (false, false) => FillLevel::Little,
        }
    }

    fn check(&self, held: Usage, usable: impl Fn(usize) -> usize) -> Result<(), MemoryExceeded> {
        if self.has_room(held, &usable) {
            return Ok(());
        }
        let Usage { connection, workload, .. } = held;
        let alone = Usage { connection, workload: connection, agent: connection };
        let without_others = Usage { connection, workload, agent: workload };
        Err(if !self.has_room(alone, &usable) {
            MemoryExceeded::Connection
        } else if !self.has_room(without_others, &usable) {
            MemoryExceeded::Workload
        } else {
            MemoryExceeded::Agent
        })
    }

    fn has_room(&self, held: Usage, usable: impl Fn(usize) -> usize) -> bool {
        let Some(left) = self.agent.checked_sub(held.agent) else { return false };
        let share = usable(left.saturating_mul(SHARE).min(self.workload));
        let Some(left) = share.checked_sub(held.workload) else { return false };
        // What it holds is no longer left: alone it may have half.
        held.connection <= left.min(self.connection)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: MemoryLimits =
        MemoryLimits { connection: usize::MAX, workload: usize::MAX, agent: 2400, connections: 80 };

    fn held(connection: usize, workload: usize, agent: usize) -> Usage {
        Usage { connection, workload, agent }
    }

    #[test]
    fn the_bound_that_is_in_the_way_is_named() {
        assert_eq!(LIMITS.admit(held(600, 600, 600)), Ok(()));
        assert_eq!(LIMITS.admit(held(2000, 2000, 2000)), Err(MemoryExceeded::Connection));
        assert_eq!(LIMITS.admit(held(100, 1600, 1600)), Err(MemoryExceeded::Workload));
        assert_eq!(LIMITS.admit(held(100, 500, 2200)), Err(MemoryExceeded::Agent));
        let narrow = MemoryLimits { connection: 50, workload: 200, ..LIMITS };
        assert_eq!(narrow.admit(held(51, 51, 51)), Err(MemoryExceeded::Connection));
        assert_eq!(narrow.admit(held(40, 170, 170)), Err(MemoryExceeded::Workload));
        assert_eq!(narrow.admit(held(40, 130, 130)), Ok(()));
        assert_eq!(LIMITS.admit_connection(held(1, 1, 1), 80), Err(MemoryExceeded::Connections));
        assert_eq!(LIMITS.admit_connection(held(1, 1, 1), 79), Ok(()));
    }

    #[test]
    fn whatever_one_workload_holds_others_find_room() {
        // The most that one takes in small pieces.
        let most = (0..2400).take_while(|n| LIMITS.admit_connection(held(1, *n, *n), 0).is_ok());
        let most = most.count();
        assert!((1590..=1600).contains(&most), "{most}");
        assert_eq!(LIMITS.admit(held(300, 300, most + 300)), Ok(()));
    }

    #[test]
    fn connections_to_come_find_room_where_those_that_are_there_get_no_more() {
        let most = (0..2400).take_while(|n| LIMITS.admit(held(1, *n, *n)).is_ok()).count();
        assert!(LIMITS.admit(held(1, most, most)).is_err());
        assert_eq!(LIMITS.admit_connection(held(1, most, most), 0), Ok(()));
        // And both is after their workload was found to hold much.
        assert_eq!(LIMITS.fill(most, 0, 0), FillLevel::Much);
    }

    #[test]
    fn much_is_less_than_what_is_refused() {
        assert_eq!(LIMITS.fill(900, 0, 0), FillLevel::Little);
        assert_eq!(LIMITS.fill(1100, 0, 0), FillLevel::Some);
        assert_eq!(LIMITS.fill(1200, 0, 0), FillLevel::Much);
        assert_eq!(LIMITS.fill(900, 1000, 0), FillLevel::Much);
        assert_eq!(LIMITS.fill(0, 0, 59), FillLevel::Some);
        assert_eq!(LIMITS.fill(0, 0, 60), FillLevel::Much);
        // The agent is at its bound: who holds little is not meant.
        assert_eq!(LIMITS.fill(10, 2300, 1), FillLevel::Little);
        assert_eq!(LIMITS.fill(2300, 10, 1), FillLevel::Much);
    }
}

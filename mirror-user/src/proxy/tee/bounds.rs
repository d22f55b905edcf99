//! How many bytes copies may hold: a pure decision. In: what is held, with the bytes in question.
//! Out: whether they may be held, or who holds too much.
//!
//! The agent's bound is fixed. Of it a sixteenth is set aside: each namespace with shadows has an equal
//! part of that, and each shadow of a namespace an equal part of the namespace's, whatever others hold. In
//! the rest thresholds follow what is free, as those of a switch with shared memory do (Choudhury and
//! Hahne, Dynamic Queue Length Thresholds for Shared-Memory Packet Switches, 1998): a namespace may hold
//! four times what the agent has left, a backend twice, a copy as much as its backend has left. So a copy
//! alone may hold some half of the agent's bound, a backend alone two thirds, a namespace four fifths.

use crate::outcome::DropReason;

/// How many times what the agent has left a namespace may hold, and a backend.
const NAMESPACE_SHARE: usize = 4;
const BACKEND_SHARE: usize = 2;

/// The part of the agent's bound that is set aside.
const SET_ASIDE: usize = 16;

/// What is set aside is divided among so many namespaces, and backends of each, at least: so many may
/// come before anybody's part is less.
const FEW: usize = 4;

/// Bounds in bytes: the agent's, and what a copy and a backend may hold even if more is free.
#[derive(Clone, Copy, Debug)]
pub(super) struct BudgetBounds {
    pub(super) request: usize,
    pub(super) backend: usize,
    pub(super) agent: usize,
}

/// Bytes held by a copy, by all copies for its backend, by those for all backends of its namespace, and by
/// all of the agent.
#[derive(Clone, Copy, Debug)]
pub(super) struct BudgetUsage {
    pub(super) request: usize,
    pub(super) backend: usize,
    pub(super) namespace: usize,
    pub(super) agent: usize,
}

/// How many share what is set aside.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sharers {
    /// Namespaces with shadows.
    pub(super) namespaces: usize,
    /// Shadows of the namespace in question.
    pub(super) backends: usize,
}

impl BudgetBounds {
    /// Whether as much may be held.
    ///
    /// # Errors
    /// Who holds too much: the copy, if it would be refused with nobody else there; else its
    /// backend, if it would be refused with no other backend there; else its namespace, if it would be
    /// refused with no other namespace there; else all together.
    pub(super) fn admit(&self, held: BudgetUsage, sharers: Sharers) -> Result<(), DropReason> {
        if self.has_room(held, sharers) {
            return Ok(());
        }
        let BudgetUsage { request, backend, namespace, .. } = held;
        let alone = BudgetUsage { request, backend: request, namespace: request, agent: request };
        let one_backend = BudgetUsage { request, backend, namespace: backend, agent: backend };
        let one_namespace = BudgetUsage { request, backend, namespace, agent: namespace };
        let few = Sharers::default();
        Err(if !self.has_room(alone, few) {
            DropReason::RequestBudget
        } else if !self.has_room(one_backend, few) {
            DropReason::BackendBudget
        } else if !self.has_room(one_namespace, Sharers { namespaces: 0, ..sharers }) {
            DropReason::NamespaceBudget
        } else {
            DropReason::AgentBudget
        })
    }

    fn has_room(&self, held: BudgetUsage, sharers: Sharers) -> bool {
        let BudgetUsage { request, backend, namespace, agent } = held;
        if agent > self.agent || backend > self.backend || request > self.request {
            return false;
        }
        if backend <= self.own(sharers) {
            return true;
        }
        let shared = self.agent - self.agent / SET_ASIDE;
        let Some(left) = shared.checked_sub(agent) else { return false };
        let share = left.saturating_mul(BACKEND_SHARE).min(self.backend);
        let Some(left_to_backend) = share.checked_sub(backend) else { return false };
        namespace <= left.saturating_mul(NAMESPACE_SHARE)
            && request <= left_to_backend.min(self.request)
    }

    /// What a backend may hold, whatever others do.
    fn own(&self, sharers: Sharers) -> usize {
        let Sharers { namespaces, backends } = sharers;
        self.agent / SET_ASIDE / namespaces.max(FEW) / backends.max(FEW)
    }
}

#[cfg(test)]
mod tests;

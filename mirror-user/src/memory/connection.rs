//! What a connection holds of its workload's memory. In: what the connection holds beyond what each
//! holds. Out: whether it may. Takes from the workload in steps of [`STEP`], and keeps up to two of them
//! until the connection is idle.

use std::{cell::Cell, rc::Rc, sync::Arc};

use super::{MemoryExceeded, WorkloadUsage};

/// What each connection of a client is charged with, in bytes: what an idle one holds.
pub(super) const CONNECTION: usize = 6 * 1024;

/// What is asked for at once, in bytes.
const STEP: usize = 8 * 1024;

/// The memory of one connection of a client, and of those to primaries that belong to it.
#[derive(Debug)]
pub(crate) struct ConnectionUsage {
    workload: Arc<WorkloadUsage>,
    /// Held beyond [`CONNECTION`].
    held: Cell<usize>,
    /// Taken of the workload's memory beyond [`CONNECTION`]; never less than `held`.
    taken: Cell<usize>,
}

impl ConnectionUsage {
    /// For a connection that was accepted just now.
    ///
    /// # Errors
    /// The workload has as many as it may have, or holds too much.
    pub(crate) fn open(workload: &Arc<WorkloadUsage>) -> Result<Rc<Self>, MemoryExceeded> {
        workload.enter(CONNECTION)?;
        let (held, taken) = Default::default();
        Ok(Rc::new(Self { workload: Arc::clone(workload), held, taken }))
    }

    /// Takes `bytes` more.
    ///
    /// # Errors
    /// Which bound is in the way: nothing was taken.
    pub(crate) fn take(&self, bytes: usize) -> Result<(), MemoryExceeded> {
        let (held, taken) = (self.held.get().saturating_add(bytes), self.taken.get());
        if held > taken {
            let more = (held - taken).next_multiple_of(STEP);
            self.workload.take(more, taken)?;
            self.taken.set(taken + more);
        }
        self.held.set(held);
        Ok(())
    }

    /// Takes `bytes` more even if a bound is in the way: what is small, and comes with a connection or
    /// a stream that was admitted.
    pub(crate) fn hold(&self, bytes: usize) {
        let (held, taken) = (self.held.get().saturating_add(bytes), self.taken.get());
        if held > taken {
            let more = (held - taken).next_multiple_of(STEP);
            self.workload.add(more);
            self.taken.set(taken + more);
        }
        self.held.set(held);
    }

    /// Gives back what was taken.
    pub(crate) fn give(&self, bytes: usize) {
        let held = self.held.get().saturating_sub(bytes);
        self.held.set(held);
        let keeps = held.next_multiple_of(STEP) + STEP;
        if self.taken.get() > keeps {
            self.workload.give(self.taken.replace(keeps) - keeps);
        }
    }

    /// Gives back what is kept for the next request, because none may come for a long time.
    pub(crate) fn settle(&self) {
        let unused = self.taken.replace(self.held.get()) - self.held.get();
        self.workload.give(unused);
    }

    /// `bytes` as a separate charge.
    ///
    /// # Errors
    /// As [`ConnectionUsage::take`].
    pub(crate) fn charge(self: &Rc<Self>, bytes: usize) -> Result<MemoryCharge, MemoryExceeded> {
        self.take(bytes)?;
        Ok(MemoryCharge { memory: Some(Rc::clone(self)), bytes })
    }

    /// The same, as [`ConnectionUsage::hold`].
    pub(crate) fn held(self: &Rc<Self>, bytes: usize) -> MemoryCharge {
        self.hold(bytes);
        MemoryCharge { memory: Some(Rc::clone(self)), bytes }
    }
}

impl Drop for ConnectionUsage {
    fn drop(&mut self) {
        self.workload.leave(CONNECTION + self.taken.get());
    }
}

/// Bytes that are paid for, until it is dropped.
#[derive(Debug, Default)]
pub(crate) struct MemoryCharge {
    /// None: nothing is charged, and nothing is refused.
    memory: Option<Rc<ConnectionUsage>>,
    bytes: usize,
}

impl MemoryCharge {
    /// How much it is.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Makes it `bytes`, if it is less.
    ///
    /// # Errors
    /// As [`ConnectionUsage::take`]: it is what it was.
    pub(crate) fn grow_to(&mut self, bytes: usize) -> Result<(), MemoryExceeded> {
        if let Some(more) = bytes.checked_sub(self.bytes) {
            if let Some(memory) = &self.memory {
                memory.take(more)?;
            }
            self.bytes = bytes;
        }
        Ok(())
    }

    /// Makes it `bytes`, if it is less, even if a bound is in the way; see [`ConnectionUsage::hold`].
    pub(crate) fn hold_to(&mut self, bytes: usize) {
        if let Some(more) = bytes.checked_sub(self.bytes) {
            self.memory.iter().for_each(|memory| memory.hold(more));
            self.bytes = bytes;
        }
    }

    /// Makes it `bytes`, if it is more.
    pub(crate) fn shrink_to(&mut self, bytes: usize) {
        if let Some(less) = self.bytes.checked_sub(bytes) {
            if let Some(memory) = &self.memory {
                memory.give(less);
            }
            self.bytes = bytes;
        }
    }
}

impl Drop for MemoryCharge {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{AgentUsage, MemoryLimits},
        *,
    };

    fn agent_usage(agent: usize) -> AgentUsage {
        let (connection, workload, connections) = (usize::MAX, usize::MAX, 100);
        AgentUsage::new(MemoryLimits { connection, workload, agent, connections })
    }

    #[test]
    fn the_workload_is_charged_in_steps_and_gets_everything_back() {
        let agent = agent_usage(1 << 30);
        let workload = agent.open("a/b");
        let connection = ConnectionUsage::open(&workload).unwrap();
        assert_eq!(agent.held(), CONNECTION);
        let mut charge = connection.charge(1).unwrap();
        assert_eq!(agent.held(), CONNECTION + STEP);
        charge.grow_to(STEP).unwrap();
        assert_eq!(agent.held(), CONNECTION + STEP);
        charge.grow_to(10 * STEP + 1).unwrap();
        assert_eq!(agent.held(), CONNECTION + 11 * STEP);
        // One that moves to and fro by less than a step changes no other count.
        charge.shrink_to(10 * STEP - 1);
        charge.grow_to(10 * STEP + 1).unwrap();
        assert_eq!(agent.held(), CONNECTION + 11 * STEP);
        charge.shrink_to(STEP);
        assert_eq!(agent.held(), CONNECTION + 2 * STEP);
        charge.shrink_to(1);
        connection.settle();
        assert_eq!(agent.held(), CONNECTION + 1, "nothing is kept for a request to come");
        charge.grow_to(2).unwrap();
        assert_eq!(agent.held(), CONNECTION + 1 + STEP);
        drop((charge, connection));
        assert_eq!((agent.held(), workload.usage().connections), (0, 0));
    }

    #[test]
    fn what_must_be_held_passes_the_bound_and_nothing_else_does() {
        let agent = agent_usage(20 * STEP);
        let workload = agent.open("a/b");
        let connection = ConnectionUsage::open(&workload).unwrap();
        let mut charge = connection.held(30 * STEP);
        assert_eq!(charge.grow_to(31 * STEP), Err(MemoryExceeded::Connection));
        assert_eq!(charge.bytes(), 30 * STEP);
        assert_eq!(ConnectionUsage::open(&workload).unwrap_err(), MemoryExceeded::Workload);
        assert_eq!(workload.usage().connections, 1);
        drop(charge);
        assert!(ConnectionUsage::open(&workload).is_ok());
    }

    #[test]
    fn a_charge_without_a_connection_is_never_refused() {
        let mut charge = MemoryCharge::default();
        charge.grow_to(usize::MAX).unwrap();
        charge.shrink_to(5);
        assert_eq!(charge.bytes(), 5);
    }
}

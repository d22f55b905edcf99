//! Budgets: how many bytes shadows may hold, per request, per shadow backend and in the agent.
//! They count what is really held: a charge lasts as long as the bytes that it stands for.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use crate::{outcome::DropReason, route::ServicePort};

/// A number of bytes that may be held at one time.
#[derive(Debug)]
pub struct Budget {
    limit: usize,
    used: AtomicUsize,
}

impl Budget {
    fn new(limit: usize) -> Self {
        Self { limit, used: AtomicUsize::new(0) }
    }

    /// Bytes held now.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used.load(Relaxed)
    }

    fn take(&self, bytes: usize) -> bool {
        if self.used.fetch_add(bytes, Relaxed).saturating_add(bytes) <= self.limit {
            return true;
        }
        self.give(bytes);
        false
    }

    fn give(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Relaxed);
    }
}

/// The budgets of an agent, shared by its workers.
#[derive(Debug)]
pub struct Budgets {
    request_limit: usize,
    backend_limit: usize,
    agent: Arc<Budget>,
    backends: Mutex<HashMap<ServicePort, Arc<Budget>>>,
}

impl Budgets {
    /// Limits in bytes.
    #[must_use]
    pub fn new(request_limit: usize, backend_limit: usize, agent_limit: usize) -> Self {
        let agent = Arc::new(Budget::new(agent_limit));
        Self { request_limit, backend_limit, agent, backends: Mutex::default() }
    }

    /// What the whole agent holds.
    #[must_use]
    pub fn agent(&self) -> &Budget {
        &self.agent
    }

    /// What is held for each shadow backend.
    #[must_use]
    pub fn held(&self) -> Vec<(ServicePort, usize)> {
        self.backends().iter().map(|(service, budget)| (service.clone(), budget.used())).collect()
    }

    fn backends(&self) -> MutexGuard<'_, HashMap<ServicePort, Arc<Budget>>> {
        // An entry is inserted or removed whole, so that a panic elsewhere leaves nothing half done.
        self.backends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A shadow backend's budget; a worker looks it up once per publication of routes. Those that
    /// nobody uses any more are forgotten.
    pub(super) fn backend(&self, service: &ServicePort) -> Arc<Budget> {
        let mut backends = self.backends();
        backends.retain(|other, budget| other == service || Arc::strong_count(budget) > 1);
        let budget = backends
            .entry(service.clone())
            .or_insert_with(|| Arc::new(Budget::new(self.backend_limit)));
        Arc::clone(budget)
    }

    /// What one copy pays from.
    pub(super) fn purse(&self, backend: Arc<Budget>) -> Arc<Purse> {
        let request = Budget::new(self.request_limit);
        Arc::new(Purse { request, backend, agent: Arc::clone(&self.agent) })
    }
}

/// The three budgets that a copy's bytes are charged to.
#[derive(Debug)]
pub(super) struct Purse {
    request: Budget,
    backend: Arc<Budget>,
    agent: Arc<Budget>,
}

impl Purse {
    /// Takes `bytes` from each budget, or from none.
    ///
    /// # Errors
    /// Which budget is used up.
    pub(super) fn charge(self: &Arc<Self>, bytes: usize) -> Result<Charge, DropReason> {
        if !self.request.take(bytes) {
            return Err(DropReason::RequestBudget);
        }
        if !self.backend.take(bytes) {
            self.request.give(bytes);
            return Err(DropReason::BackendBudget);
        }
        if !self.agent.take(bytes) {
            self.request.give(bytes);
            self.backend.give(bytes);
            return Err(DropReason::AgentBudget);
        }
        Ok(Charge { purse: Arc::clone(self), bytes })
    }
}

/// Bytes paid for; given back when dropped.
#[derive(Debug)]
pub(super) struct Charge {
    purse: Arc<Purse>,
    bytes: usize,
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.purse.request.give(self.bytes);
        self.purse.backend.give(self.bytes);
        self.purse.agent.give(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str) -> ServicePort {
        ServicePort { namespace: "default".into(), name: name.into(), port: 80 }
    }

    #[test]
    fn each_budget_refuses_by_its_name_and_charges_nothing() {
        let budgets = Budgets::new(10, 15, 20);
        let (a, b) = (budgets.backend(&service("a")), budgets.backend(&service("b")));
        let (first, second) = (budgets.purse(Arc::clone(&a)), budgets.purse(Arc::clone(&a)));
        let held = first.charge(10).unwrap();
        assert_eq!(first.charge(1).unwrap_err(), DropReason::RequestBudget);
        assert_eq!(second.charge(6).unwrap_err(), DropReason::BackendBudget);
        let other = budgets.purse(b).charge(10).unwrap();
        assert_eq!(second.charge(5).unwrap_err(), DropReason::AgentBudget);
        assert_eq!(budgets.agent().used(), 20);
        drop((held, other));
        assert_eq!((budgets.agent().used(), a.used()), (0, 0));
        assert!(second.charge(10).is_ok());
    }

    #[test]
    fn a_backend_has_one_budget() {
        let budgets = Budgets::new(1, 1, 1);
        assert!(Arc::ptr_eq(&budgets.backend(&service("a")), &budgets.backend(&service("a"))));
    }
}

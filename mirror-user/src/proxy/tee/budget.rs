//! Budgets: how many bytes shadows may hold, per request, per shadow backend, per namespace and in the
//! agent.
//! They count what is really held: a charge lasts as long as the bytes that it stands for.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use super::bounds::{BudgetBounds, BudgetUsage, Sharers};
use crate::{outcome::DropReason, route::ServicePort};

/// Bytes held at one time.
#[derive(Debug, Default)]
pub struct Budget(AtomicUsize);

impl Budget {
    /// Bytes held now.
    #[must_use]
    pub fn used(&self) -> usize {
        self.0.load(Relaxed)
    }

    /// What is held with these.
    fn take(&self, bytes: usize) -> usize {
        self.0.fetch_add(bytes, Relaxed).saturating_add(bytes)
    }

    fn give(&self, bytes: usize) {
        self.0.fetch_sub(bytes, Relaxed);
    }
}

/// What copies for one shadow backend hold.
#[derive(Debug)]
pub(in crate::proxy) struct BackendBudget {
    held: Budget,
    namespace: Arc<NamespaceBudget>,
}

/// What copies for all backends of a namespace hold.
#[derive(Debug, Default)]
struct NamespaceBudget {
    held: Budget,
    /// Its backends.
    backends: AtomicUsize,
}

impl BackendBudget {
    /// Bytes held now.
    pub(in crate::proxy) fn used(&self) -> usize {
        self.held.used()
    }
}

/// The budgets of an agent, shared by its workers.
#[derive(Debug)]
pub struct Budgets {
    agent: Arc<AgentBudget>,
    backends: Mutex<HashMap<ServicePort, Arc<BackendBudget>>>,
}

/// What all copies have in common.
#[derive(Debug)]
struct AgentBudget {
    bounds: BudgetBounds,
    budget: Budget,
    /// Namespaces of the backends.
    namespaces: AtomicUsize,
}

impl Budgets {
    /// Bounds in bytes: of a copy and of a backend, which may hold less where more is held already,
    /// and of the agent.
    #[must_use]
    pub fn new(request: usize, backend: usize, agent: usize) -> Self {
        let bounds = BudgetBounds { request, backend, agent };
        let (budget, namespaces) = Default::default();
        let agent = Arc::new(AgentBudget { bounds, budget, namespaces });
        Self { agent, backends: Mutex::default() }
    }

    /// What the whole agent holds.
    #[must_use]
    pub fn agent(&self) -> &Budget {
        &self.agent.budget
    }

    /// What is held for each shadow backend.
    #[must_use]
    pub fn held(&self) -> Vec<(ServicePort, usize)> {
        self.backends().iter().map(|(service, budget)| (service.clone(), budget.used())).collect()
    }

    fn backends(&self) -> MutexGuard<'_, HashMap<ServicePort, Arc<BackendBudget>>> {
        // An entry is inserted or removed whole, so that a panic elsewhere leaves nothing half done.
        self.backends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A shadow backend's budget; a worker looks it up once per publication of routes. Those that
    /// nobody uses any more are forgotten.
    pub(in crate::proxy) fn backend(&self, service: &ServicePort) -> Arc<BackendBudget> {
        let mut backends = self.backends();
        let before = backends.len();
        backends.retain(|other, budget| other == service || Arc::strong_count(budget) > 1);
        let known = backends.get(service).map(Arc::clone);
        let changed = known.is_none() || backends.len() < before;
        let budget = known.unwrap_or_else(|| {
            let mut others = backends.iter();
            let same = others.find(|(other, _)| other.namespace == service.namespace);
            let namespace = same.map(|(_, budget)| Arc::clone(&budget.namespace));
            let (held, namespace) = (Budget::default(), namespace.unwrap_or_default());
            let budget = Arc::new(BackendBudget { held, namespace });
            backends.insert(service.clone(), Arc::clone(&budget));
            budget
        });
        if changed {
            self.agent.count(&backends);
        }
        budget
    }

    /// What one copy pays from.
    pub(in crate::proxy) fn copy_budget(&self, backend: Arc<BackendBudget>) -> Arc<CopyBudget> {
        let request = Budget::default();
        Arc::new(CopyBudget { request, backend, agent: Arc::clone(&self.agent) })
    }
}

impl AgentBudget {
    /// How many share what is set aside.
    fn count(&self, backends: &HashMap<ServicePort, Arc<BackendBudget>>) {
        let names: HashSet<_> = backends.keys().map(|service| &*service.namespace).collect();
        self.namespaces.store(names.len(), Relaxed);
        backends.values().for_each(|budget| budget.namespace.backends.store(0, Relaxed));
        for budget in backends.values() {
            budget.namespace.backends.fetch_add(1, Relaxed);
        }
    }
}

/// The budgets that a copy's bytes are charged to.
#[derive(Debug)]
pub(in crate::proxy) struct CopyBudget {
    request: Budget,
    backend: Arc<BackendBudget>,
    agent: Arc<AgentBudget>,
}

impl CopyBudget {
    /// Takes `bytes` from each budget, or from none.
    ///
    /// # Errors
    /// Which budget is used up.
    pub(in crate::proxy) fn charge(
        self: &Arc<Self>,
        bytes: usize,
    ) -> Result<BudgetCharge, DropReason> {
        // Taken first: of two workers that ask at once, both may be refused, and never too much is
        // admitted.
        let held = BudgetUsage {
            request: self.request.take(bytes),
            backend: self.backend.held.take(bytes),
            namespace: self.backend.namespace.held.take(bytes),
            agent: self.agent.budget.take(bytes),
        };
        let sharers = Sharers {
            namespaces: self.agent.namespaces.load(Relaxed),
            backends: self.backend.namespace.backends.load(Relaxed),
        };
        match self.agent.bounds.admit(held, sharers) {
            Ok(()) => Ok(BudgetCharge { copy_budget: Arc::clone(self), bytes }),
            Err(reason) => {
                self.give(bytes);
                Err(reason)
            }
        }
    }

    fn give(&self, bytes: usize) {
        self.request.give(bytes);
        self.backend.held.give(bytes);
        self.backend.namespace.held.give(bytes);
        self.agent.budget.give(bytes);
    }
}

/// Bytes paid for; given back when dropped.
#[derive(Debug)]
pub(in crate::proxy) struct BudgetCharge {
    copy_budget: Arc<CopyBudget>,
    bytes: usize,
}

impl Drop for BudgetCharge {
    fn drop(&mut self) {
        self.copy_budget.give(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicBool, Ordering::SeqCst},
        thread,
    };

    use super::*;

    fn service(name: &str) -> ServicePort {
        ServicePort { namespace: "default".into(), name: name.into(), port: 80 }
    }

    #[test]
    fn each_budget_refuses_by_its_name_and_charges_nothing() {
        let budgets = Budgets::new(10, 30, 40);
        let of_another = ServicePort { namespace: "another".into(), ..service("b") };
        let (a, b) = (budgets.backend(&service("a")), budgets.backend(&service("b")));
        let c = budgets.backend(&of_another);
        let (first, second) =
            (budgets.copy_budget(Arc::clone(&a)), budgets.copy_budget(Arc::clone(&a)));
        let held = first.charge(10).unwrap();
        assert_eq!(first.charge(1).unwrap_err(), DropReason::RequestBudget);
        let more = second.charge(8).unwrap();
        let third = budgets.copy_budget(Arc::clone(&a));
        assert_eq!(third.charge(7).unwrap_err(), DropReason::BackendBudget);
        let other = budgets.copy_budget(b).charge(10).unwrap();
        assert_eq!(third.charge(3).unwrap_err(), DropReason::NamespaceBudget);
        drop(other);
        let other = budgets.copy_budget(c).charge(10).unwrap();
        assert_eq!(third.charge(3).unwrap_err(), DropReason::AgentBudget);
        assert_eq!((budgets.agent().used(), a.used()), (28, 18));
        drop((held, more, other));
        assert_eq!((budgets.agent().used(), a.used()), (0, 0));
        assert!(third.charge(10).is_ok());
    }

    #[test]
    fn a_backend_has_one_budget() {
        let budgets = Budgets::new(1, 1, 1);
        assert!(Arc::ptr_eq(&budgets.backend(&service("a")), &budgets.backend(&service("a"))));
    }

    #[test]
    fn backends_and_namespaces_that_are_in_use_share_what_is_set_aside() {
        let budgets = Budgets::new(1, 1, 1);
        let of = |namespace: &str, name: &str| {
            let service = ServicePort { namespace: namespace.into(), ..service(name) };
            budgets.backend(&service)
        };
        let (a, b, c) = (of("one", "a"), of("one", "b"), of("two", "a"));
        let counts = |of: &BackendBudget| {
            (budgets.agent.namespaces.load(Relaxed), of.namespace.backends.load(Relaxed))
        };
        assert_eq!((counts(&a), counts(&b), counts(&c)), ((2, 2), (2, 2), (2, 1)));
        assert!(Arc::ptr_eq(&a.namespace, &b.namespace));
        drop(c);
        let d = of("three", "a");
        assert_eq!((counts(&a), counts(&d)), ((2, 2), (2, 1)));
        drop((a, b));
        let e = of("one", "c");
        assert_eq!((counts(&d), counts(&e)), ((2, 1), (2, 1)));
    }

    #[test]
    fn workers_that_ask_at_once_never_hold_more_than_the_bound() {
        const BOUND: usize = 1000;
        let (budgets, admitted) = (Budgets::new(BOUND, BOUND, BOUND), Budget::default());
        let passed = AtomicBool::new(false);
        thread::scope(|scope| {
            for worker in 0..4 {
                let (budgets, admitted, passed) = (&budgets, &admitted, &passed);
                scope.spawn(move || {
                    let backend = budgets.backend(&service(&format!("s{}", worker % 2)));
                    for round in 0..2000 {
                        let copy_budget = budgets.copy_budget(Arc::clone(&backend));
                        let step = 1 + (worker * 31 + round * 17) % 90;
                        let mut held = Vec::new();
                        while let Ok(charge) = copy_budget.charge(step) {
                            passed.fetch_or(admitted.take(step) > BOUND, SeqCst);
                            held.push(charge);
                        }
                        admitted.give(step * held.len());
                    }
                });
            }
        });
        assert!(!passed.load(SeqCst));
        assert_eq!(budgets.agent().used(), 0);
    }
}

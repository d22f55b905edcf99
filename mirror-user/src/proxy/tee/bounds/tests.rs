//! The bounds: the agent's is never passed, what is free is used, and a newcomer gets its share.

use proptest::{collection::vec, prelude::*};

use super::*;

const MIB: usize = 1 << 20;

/// Nothing but the agent's own bound.
fn open(agent: usize) -> BudgetBounds {
    BudgetBounds { request: agent, backend: agent, agent }
}

/// What copies hold, by backend and copy, and which namespace each backend is of.
#[derive(Debug, Default)]
struct Model {
    held: Vec<Vec<usize>>,
    namespaces: Vec<usize>,
}

impl Model {
    /// All of one namespace.
    fn of(backends: usize, copies: usize) -> Self {
        Self::spread(vec![0; backends], copies)
    }

    fn spread(namespaces: Vec<usize>, copies: usize) -> Self {
        Self { held: vec![vec![0; copies]; namespaces.len()], namespaces }
    }

    fn agent(&self) -> usize {
        self.held.iter().flatten().sum()
    }

    fn backend(&self, backend: usize) -> usize {
        self.held[backend].iter().sum()
    }

    fn namespace(&self, name: usize) -> usize {
        let all = self.held.iter().zip(&self.namespaces);
        all.filter(|(_, of)| **of == name).flat_map(|(copies, _)| copies).sum()
    }

    fn sharers(&self, backend: usize) -> Sharers {
        let names: std::collections::HashSet<_> = self.namespaces.iter().collect();
        let same = self.namespaces.iter().filter(|name| **name == self.namespaces[backend]);
        Sharers { namespaces: names.len(), backends: same.count() }
    }

    /// One step of a copy's; whether it was admitted.
    fn charge(&mut self, bounds: BudgetBounds, backend: usize, copy: usize, bytes: usize) -> bool {
        let held = BudgetUsage {
            request: self.held[backend][copy] + bytes,
            backend: self.backend(backend) + bytes,
            namespace: self.namespace(self.namespaces[backend]) + bytes,
            agent: self.agent() + bytes,
        };
        let admitted = bounds.admit(held, self.sharers(backend)).is_ok();
        if admitted {
            self.held[backend][copy] += bytes;
        }
        admitted
    }

    /// As many steps as are admitted.
    fn fill(&mut self, bounds: BudgetBounds, backend: usize, copy: usize, bytes: usize) {
        while self.charge(bounds, backend, copy, bytes) {}
    }
}

#[test]
fn by_default_an_upload_of_30_mb_may_wait_whole() {
    let mut model = Model::of(1, 1);
    model.fill(open(64 * MIB), 0, 0, 32 * 1024);
    assert_eq!(model.agent(), 30 * MIB);
    assert!(model.agent() > 30_000_000);
}

#[test]
fn the_one_who_holds_too_much_is_named() {
    // Nothing is set aside of so little.
    let bounds = open(12);
    let few = Sharers::default();
    let admit = |bounds: BudgetBounds, request, backend, namespace, agent| {
        bounds.admit(BudgetUsage { request, backend, namespace, agent }, few)
    };
    assert_eq!(admit(bounds, 6, 6, 6, 6), Ok(()));
    assert_eq!(admit(bounds, 7, 7, 7, 7), Err(DropReason::RequestBudget));
    assert_eq!(admit(bounds, 7, 12, 12, 12), Err(DropReason::RequestBudget));
    assert_eq!(admit(bounds, 2, 7, 7, 7), Ok(()));
    assert_eq!(admit(bounds, 4, 7, 7, 7), Err(DropReason::BackendBudget));
    assert_eq!(admit(bounds, 1, 9, 9, 9), Err(DropReason::BackendBudget));
    assert_eq!(admit(bounds, 1, 1, 9, 9), Ok(()));
    assert_eq!(admit(bounds, 1, 1, 10, 10), Err(DropReason::NamespaceBudget));
    assert_eq!(admit(bounds, 1, 1, 8, 10), Ok(()));
    assert_eq!(admit(bounds, 1, 1, 9, 10), Err(DropReason::AgentBudget));
    assert_eq!(admit(bounds, 3, 3, 3, 10), Err(DropReason::AgentBudget));
    assert_eq!(admit(bounds, 1, 1, 1, 13), Err(DropReason::AgentBudget));
    let caps = BudgetBounds { request: 2, backend: 5, agent: 12 };
    assert_eq!(admit(caps, 2, 3, 6, 6), Ok(()));
    assert_eq!(admit(caps, 3, 3, 3, 3), Err(DropReason::RequestBudget));
    assert_eq!(admit(caps, 2, 4, 4, 4), Err(DropReason::BackendBudget));
}

/// What copies of one shadow may hold whatever others hold, at the default bounds: of a namespace of few
/// shadows.
const OWN: usize = 256 << 10;

/// Slow shadows that take all that they are given, one after the other, in frames of 32 KiB.
fn slow(model: &mut Model, bounds: BudgetBounds, shadows: std::ops::Range<usize>) {
    for shadow in shadows {
        (0..model.held[shadow].len()).for_each(|copy| model.fill(bounds, shadow, copy, 32 << 10));
    }
}

#[test]
fn eight_slow_shadows_do_not_starve_the_ninth() {
    let bounds = open(64 * MIB);
    // Of its own namespace, of one other, and of eight others.
    for (namespaces, own) in [
        (vec![0; 9], OWN * 4 / 9),
        (vec![0, 0, 0, 0, 0, 0, 0, 0, 1], OWN),
        ((0..9).collect(), OWN * 4 / 9),
    ] {
        let mut model = Model::spread(namespaces, 16);
        slow(&mut model, bounds, 0..8);
        assert!(model.charge(bounds, 8, 0, own), "{own} beside {:?}", model.namespaces);
    }
}

#[test]
fn a_thousand_shadows_of_one_namespace_do_not_starve_another() {
    let bounds = open(64 * MIB);
    let mut namespaces = vec![0; 1000];
    namespaces.push(1);
    let mut model = Model::spread(namespaces, 2);
    slow(&mut model, bounds, 0..1000);
    assert!(model.namespace(0) <= 49 * MIB, "four fifths, and its part of what is set aside");
    let before = model.agent();
    (0..2).for_each(|copy| model.fill(bounds, 1000, copy, 32 << 10));
    assert!(model.backend(1000) >= 7 * MIB, "{} beside {before}", model.backend(1000));
}

/// A backend, a copy, and how many bytes it wants; none: it lets go of all.
fn step() -> impl Strategy<Value = (usize, usize, usize)> {
    (0..4_usize, 0..4_usize, prop_oneof![Just(0), 1..200_usize])
}

proptest! {
    #[test]
    fn no_bound_is_ever_passed(
        agent in 1..2000_usize,
        caps in (1..2000_usize, 1..2000_usize),
        steps in vec(step(), 0..200),
    ) {
        let bounds = BudgetBounds { request: caps.0, backend: caps.1, agent };
        let mut model = Model::of(4, 4);
        for (backend, copy, bytes) in steps {
            if bytes == 0 {
                model.held[backend][copy] = 0;
            } else if model.charge(bounds, backend, copy, bytes) {
                prop_assert!(model.held[backend][copy] <= caps.0.min(agent / 2));
                prop_assert!(model.backend(backend) <= caps.1.min(agent * 2 / 3));
                prop_assert!(model.agent() <= agent);
            }
        }
    }

    #[test]
    fn what_is_free_may_be_used(agent in 1..100_000_usize, bytes in 1..1000_usize) {
        let mut model = Model::of(1, 1);
        model.fill(open(agent), 0, 0, bytes);
        let shared = agent - agent / SET_ASIDE;
        prop_assert!(model.agent() + bytes > shared / 2, "a copy alone");
        let copies = 12;
        let mut model = Model::of(1, copies);
        (0..copies).for_each(|copy| model.fill(open(agent), 0, copy, bytes));
        prop_assert!(model.agent() + 2 * bytes + 2 > shared * 2 / 3, "a backend alone");
    }

    #[test]
    fn what_others_let_go_of_may_be_used(
        steps in vec(step(), 0..200), bytes in 1..100_usize,
    ) {
        let bounds = open(1000);
        let mut model = Model::of(5, 4);
        for (backend, copy, bytes) in steps {
            model.charge(bounds, backend, copy, bytes);
        }
        model.held[..4].iter_mut().flatten().for_each(|held| *held = 0);
        model.fill(bounds, 4, 0, bytes);
        prop_assert!(model.agent() + bytes > 500 - 1000 / SET_ASIDE);
    }

    // Whatever a flood holds, and in whatever order it came to hold it, as much as half of what is
    // left is there for a copy of another shadow; and each shadow leaves a third of what it found, or a
    // fifth where its namespace is the only one.
    #[test]
    fn a_newcomer_gets_its_share_beside_a_flood(
        steps in vec(step(), 0..1000), shadows in 1..4_usize,
    ) {
        let bounds = open(100_000);
        let mut model = Model::spread((0..=shadows).collect(), 4);
        for (backend, copy, bytes) in steps {
            model.charge(bounds, backend % shadows, copy, bytes * 100);
        }
        for backend in 0..shadows {
            (0..4).for_each(|copy| model.fill(bounds, backend, copy, 1));
        }
        let shared = 100_000 - 100_000 / SET_ASIDE;
        let left = shared.saturating_sub(model.agent());
        let own = shadows * bounds.own(model.sharers(0));
        prop_assert!(left + own >= shared / 3_usize.pow(u32::try_from(shadows).expect("three")));
        prop_assert!(model.charge(bounds, shadows, 0, left / 2), "of {left}");
    }

    #[test]
    fn a_copy_gets_its_share_beside_those_of_its_own_shadow(steps in vec(step(), 0..1000)) {
        let bounds = open(1_000_000);
        let mut model = Model::of(1, 5);
        for (_, copy, bytes) in steps {
            model.charge(bounds, 0, copy, bytes * 1000);
        }
        (0..4).for_each(|copy| model.fill(bounds, 0, copy, 1));
        // A quarter of a quarter of it: each leaves a quarter of what it found.
        prop_assert!(model.charge(bounds, 0, 4, 1_000_000 * 2 / 3 / 4_usize.pow(5)));
    }

    // Whoever holds what: a shadow that holds nothing is given its part, and all together never hold more
    // than the bound.
    #[test]
    fn whoever_holds_nothing_is_given_its_part(
        namespaces in vec(0..6_usize, 1..30),
        steps in vec((0..30_usize, 0..3_usize, prop_oneof![Just(0), 1..4000_usize]), 0..600),
    ) {
        let bounds = open(100_000);
        let count = namespaces.len();
        let mut model = Model::spread(namespaces, 3);
        for (backend, copy, bytes) in steps {
            let backend = backend % count;
            if bytes == 0 {
                model.held[backend].fill(0);
            } else {
                model.charge(bounds, backend, copy, bytes);
            }
            prop_assert!(model.agent() <= 100_000);
            for backend in 0..count {
                let own = bounds.own(model.sharers(backend));
                if model.backend(backend) == 0 {
                    prop_assert!(model.charge(bounds, backend, 0, own), "{own} of {backend}");
                    model.held[backend][0] = 0;
                }
            }
        }
    }
}

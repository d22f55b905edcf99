//! Whose changes are put in force next: what each Namespace has cost lately in; which of them wait
//! out. Resolving is one thread's work, and what one tenant writes must not delay what another does:
//! a Namespace that has used up its share rests until it has earned it again. Pure.

use std::{
    collections::{BTreeSet, HashMap},
    time::{Duration, Instant},
};

/// What a Namespace may use at once before it is throttled. Others' changes wait as long.
const BURST: Duration = Duration::from_millis(100);

/// What it earns: a fifth of the thread's time.
const EARNS: u32 = 5;

/// Longest that a Namespace rests.
const LONGEST: Duration = Duration::from_secs(3);

/// Work that costs less is not accounted.
const CHEAP: Duration = Duration::from_millis(10);

/// What each Namespace owes; one that owes nothing is not remembered.
#[derive(Debug, Default)]
pub(super) struct TimeBudgets(HashMap<String, TimeDebt>);

/// Time that was used, less what was earned since.
#[derive(Clone, Copy, Debug)]
struct TimeDebt {
    owed: Duration,
    at: Instant,
}

impl TimeDebt {
    fn now(self, now: Instant) -> Duration {
        self.owed.saturating_sub(now.saturating_duration_since(self.at) / EARNS)
    }
}

impl TimeBudgets {
    /// Something took so long, for changes of these Namespaces, each with the number of its changes.
    pub(super) fn charge(
        &mut self,
        changes: &HashMap<String, usize>,
        took: Duration,
        now: Instant,
    ) {
        self.0.retain(|_, debt| !debt.now(now).is_zero());
        let all: usize = changes.values().sum();
        if took < CHEAP || all == 0 {
            return;
        }
        for (namespace, count) in changes {
            let share = took.mul_f64(*count as f64 / all as f64);
            let owed = self.0.get(namespace).map_or(Duration::ZERO, |debt| debt.now(now));
            // What is owed at most is what the longest rest earns, beyond the burst.
            let owed = (owed + share).min(BURST + LONGEST / EARNS);
            self.0.insert(namespace.clone(), TimeDebt { owed, at: now });
        }
    }

    /// When the Namespace's changes may be put in force; None is now.
    pub(super) fn throttled_until(&self, namespace: &str, now: Instant) -> Option<Instant> {
        let over = self.0.get(namespace)?.now(now).checked_sub(BURST)?;
        (!over.is_zero()).then(|| now + over * EARNS)
    }

    /// When the first of these Namespaces may go on.
    pub(super) fn first(&self, waiting: &BTreeSet<&str>, now: Instant) -> Option<Instant> {
        waiting.iter().map(|ns| self.throttled_until(ns, now).unwrap_or(now)).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(namespaces: &[(&str, usize)]) -> HashMap<String, usize> {
        namespaces.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    #[test]
    fn who_uses_the_thread_rests_and_who_does_not_goes_on() {
        let (mut time_budgets, mut now) = (TimeBudgets::default(), Instant::now());
        let mut used = Duration::ZERO;
        let start = now;
        let work = Duration::from_millis(100);
        // One changes all the time, the other now and then, in the same batch.
        for round in 0.. {
            if now.duration_since(start) > Duration::from_secs(60) {
                break;
            }
            if time_budgets.throttled_until("storm", now).is_none() {
                now += work;
                used += work;
                time_budgets.charge(
                    &of(&[("storm", 99), ("calm", usize::from(round % 10 == 0))]),
                    work,
                    now,
                );
            } else {
                now += Duration::from_millis(50);
            }
            assert_eq!(time_budgets.throttled_until("calm", now), None);
            let rests = time_budgets.throttled_until("storm", now).map(|until| until - now);
            assert!(rests.unwrap_or_default() <= LONGEST, "{rests:?}");
        }
        let share = used.as_secs_f64() / 60.0;
        assert!((0.15..0.25).contains(&share), "{share}");
    }

    #[test]
    fn cheap_work_and_a_burst_delay_nobody_and_nobody_is_remembered_for_ever() {
        let (mut time_budgets, mut now) = (TimeBudgets::default(), Instant::now());
        for _ in 0..1000 {
            time_budgets.charge(&of(&[("a", 1)]), CHEAP - Duration::from_millis(1), now);
        }
        time_budgets.charge(&of(&[("a", 1)]), BURST, now);
        assert_eq!(time_budgets.throttled_until("a", now), None);
        time_budgets.charge(&of(&[("a", 1)]), BURST, now);
        let until = time_budgets.throttled_until("a", now).unwrap();
        assert_eq!(time_budgets.first(&BTreeSet::from(["a", "b"]), now), Some(now));
        assert_eq!(time_budgets.first(&BTreeSet::from(["a"]), now), Some(until));
        now = until;
        assert_eq!(time_budgets.throttled_until("a", now), None);
        now += Duration::from_secs(60);
        time_budgets.charge(&of(&[]), Duration::ZERO, now);
        assert!(time_budgets.0.is_empty());
    }
}

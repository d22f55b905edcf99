//! How many routes are looked at: those that come in, by name and age; which of them are within the
//! bounds out. Of each Namespace, and then of all, the oldest are, as many as fit; the first that
//! does not fit keeps out all that are younger, so that no author gains by the size of what others
//! write. What is kept out is known by its name alone, and costs no more. Pure.

use crate::model::RouteName;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Routes of one Namespace, unless a flag says otherwise.
pub const NAMESPACE_ROUTES: u32 = 1000;

/// Bytes of their `spec`s, as JSON, unless a flag says otherwise.
pub const NAMESPACE_ROUTE_BYTES: u64 = 2 << 20;

/// Bytes of the `spec`s of all routes: decoded and compiled they take some ten times that.
const ROUTE_BYTES: u64 = 16 << 20;

/// How many there may be, and how many bytes they may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Routes.
    pub count: usize,
    /// Bytes of their `spec`s.
    pub bytes: u64,
}

/// The bounds of routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteBounds {
    /// Of one Namespace.
    pub namespace: Bound,
    /// Of all.
    pub all: Bound,
}

impl Default for RouteBounds {
    fn default() -> Self {
        let count = NAMESPACE_ROUTES as usize;
        Self {
            namespace: Bound { count, bytes: NAMESPACE_ROUTE_BYTES },
            all: Bound { count: usize::MAX, bytes: ROUTE_BYTES },
        }
    }
}

/// Which routes are within the bounds.
#[derive(Debug, Default)]
pub struct Quota {
    bounds: RouteBounds,
    known: HashMap<RouteName, (i64, u64)>,
    namespaces: HashMap<String, BoundedSet>,
    all: BoundedSet,
}

/// What a change has moved, beside what was changed itself.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct QuotaChanges {
    /// Within the bounds before, and no more.
    pub out: BTreeSet<RouteName>,
    /// Within the bounds now: its content must be listed again.
    pub back: BTreeSet<RouteName>,
}

/// When a route was created, in seconds since 1970, and its name.
type Key = (i64, RouteName);

/// Routes in their order, up to the first that does not fit, and the others.
#[derive(Debug, Default)]
struct BoundedSet {
    inside: BTreeMap<Key, u64>,
    outside: BTreeMap<Key, u64>,
    used: u64,
}

impl Quota {
    /// Within these bounds; there is nothing yet.
    #[must_use]
    pub fn new(bounds: RouteBounds) -> Self {
        Self { bounds, ..Self::default() }
    }

    /// A route is there, or has changed. `created` in seconds since 1970 (None is the newest that
    /// there can be), `bytes` of its `spec`.
    pub fn put(&mut self, name: &RouteName, created: Option<i64>, bytes: u64) -> QuotaChanges {
        let created = created.unwrap_or(i64::MAX);
        if self.known.get(name) == Some(&(created, bytes)) {
            return QuotaChanges::default();
        }
        let mut changes = self.take(name);
        self.known.insert(name.clone(), (created, bytes));
        let (bound, all) = (self.bounds.namespace, self.bounds.all);
        let shelf = self.namespaces.entry(name.object.namespace.clone()).or_default();
        let moved = shelf.put((created, name.clone()), bytes, bound);
        self.pass(moved, all, &mut changes);
        changes.of_others(name)
    }

    /// A route is gone.
    pub fn take(&mut self, name: &RouteName) -> QuotaChanges {
        let mut changes = QuotaChanges::default();
        let Some((created, _)) = self.known.remove(name) else { return changes };
        let (bound, all) = (self.bounds.namespace, self.bounds.all);
        let Some(shelf) = self.namespaces.get_mut(&name.object.namespace) else { return changes };
        let moved = shelf.take(&(created, name.clone()), bound);
        if shelf.is_empty() {
            self.namespaces.remove(&name.object.namespace);
        }
        self.pass(moved, all, &mut changes);
        changes.of_others(name)
    }

    /// Whether the route is within the bounds.
    #[must_use]
    pub fn admits(&self, name: &RouteName) -> bool {
        let created = self.known.get(name).map(|(created, _)| *created);
        created.is_some_and(|created| self.all.inside.contains_key(&(created, name.clone())))
    }

    /// The routes that are known and not within the bounds.
    pub fn refused(&self) -> impl Iterator<Item = &RouteName> {
        let here = self.namespaces.values().flat_map(|shelf| shelf.outside.keys());
        here.chain(self.all.outside.keys()).map(|(_, name)| name)
    }

    /// Whether any of a Namespace's own is kept out by its bound.
    #[must_use]
    pub fn refuses_any_of(&self, namespace: &str) -> bool {
        self.namespaces.get(namespace).is_some_and(|shelf| !shelf.outside.is_empty())
    }

    /// How many those are.
    #[must_use]
    pub fn refused_count(&self) -> usize {
        let here = self.namespaces.values().map(|shelf| shelf.outside.len());
        here.sum::<usize>() + self.all.outside.len()
    }

    /// One line for each Namespace with routes that are kept out; it does not change while more come.
    pub fn problems(&self) -> impl Iterator<Item = String> {
        let mut first: BTreeMap<&str, &Key> = BTreeMap::new();
        let shelves = self.namespaces.values().chain([&self.all]);
        for key in shelves.flat_map(|shelf| shelf.outside.keys()) {
            let oldest = first.entry(&key.1.object.namespace).or_insert(key);
            *oldest = (*oldest).min(key);
        }
        first.into_values().map(|(_, name)| {
            let name = name.identity();
            format!("{name}: {}; nor are the younger ones of its Namespace", self.why())
        })
    }

    /// Why a route is kept out, and what to do about it.
    #[must_use]
    pub fn why(&self) -> String {
        let RouteBounds { namespace, all } = self.bounds;
        format!(
            "it is not looked at: the oldest routes of a Namespace count, at most {} of them with {} \
             KiB of specs (flags --namespace-routes, --namespace-route-bytes), and those of all \
             Namespaces with {} KiB; remove routes, or make them smaller",
            namespace.count,
            namespace.bytes >> 10,
            all.bytes >> 10
        )
    }

    /// Has what is within a Namespace's bounds compete with what is within others'.
    fn pass(&mut self, moved: Vec<SetChange>, bound: Bound, changes: &mut QuotaChanges) {
        for moved in moved {
            let here = match moved {
                SetChange::In(key, bytes) => self.all.put(key, bytes, bound),
                SetChange::Out(key) => self.all.take(&key, bound),
            };
            for moved in here {
                match moved {
                    // What went and came again, or the other way round, has not moved.
                    SetChange::In((_, name), _) => {
                        if !changes.out.remove(&name) {
                            changes.back.insert(name);
                        }
                    }
                    SetChange::Out((_, name)) => {
                        if !changes.back.remove(&name) {
                            changes.out.insert(name);
                        }
                    }
                }
            }
        }
    }
}

impl QuotaChanges {
    fn of_others(mut self, name: &RouteName) -> Self {
        self.out.remove(name);
        self.back.remove(name);
        self
    }
}

/// What came within a shelf's bound, and what it has let go of.
enum SetChange {
    In(Key, u64),
    Out(Key),
}

impl BoundedSet {
    fn is_empty(&self) -> bool {
        self.inside.is_empty() && self.outside.is_empty()
    }

    fn put(&mut self, key: Key, bytes: u64, bound: Bound) -> Vec<SetChange> {
        let mut moved = Vec::new();
        if self.outside.first_key_value().is_some_and(|(first, _)| *first < key) {
            self.outside.insert(key, bytes);
            return moved;
        }
        self.used += bytes;
        moved.push(SetChange::In(key.clone(), bytes));
        self.inside.insert(key, bytes);
        while self.inside.len() > bound.count || self.used > bound.bytes {
            let Some((last, bytes)) = self.inside.pop_last() else { break };
            self.used -= bytes;
            moved.push(SetChange::Out(last.clone()));
            self.outside.insert(last, bytes);
        }
        moved
    }

    fn take(&mut self, key: &Key, bound: Bound) -> Vec<SetChange> {
        let mut moved = Vec::new();
        if let Some(bytes) = self.inside.remove(key) {
            self.used -= bytes;
            moved.push(SetChange::Out(key.clone()));
        } else {
            self.outside.remove(key);
        }
        while let Some(first) = self.outside.first_entry() {
            let bytes = *first.get();
            if self.inside.len() >= bound.count || self.used + bytes > bound.bytes {
                break;
            }
            let key = first.remove_entry().0;
            self.used += bytes;
            moved.push(SetChange::In(key.clone(), bytes));
            self.inside.insert(key, bytes);
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::model::{ObjectName, RouteKind};

    use super::*;

    fn name(namespace: u8, own: u8) -> RouteName {
        let object = ObjectName { namespace: namespace.to_string(), name: own.to_string() };
        RouteKind::Http.named(object)
    }

    /// The same by sorting everything.
    fn prefix<'k>(all: impl Iterator<Item = (&'k Key, &'k u64)>, bound: Bound) -> Vec<&'k Key> {
        let mut sorted: Vec<_> = all.collect();
        sorted.sort();
        let (mut count, mut used) = (0, 0);
        let fits = sorted.into_iter().take_while(|(_, bytes)| {
            count += 1;
            used += **bytes;
            count <= bound.count && used <= bound.bytes
        });
        fits.map(|(key, _)| key).collect()
    }

    proptest! {
        #[test]
        fn the_oldest_that_fit_are_in_whatever_came_first(
            steps in prop::collection::vec((0_u8..3, 0_u8..8, 0_i64..6, 1_u64..12, any::<bool>()), 1..60),
        ) {
            let bounds = RouteBounds {
                namespace: Bound { count: 3, bytes: 20 },
                all: Bound { count: 7, bytes: 40 },
            };
            let mut quota = Quota::new(bounds);
            let mut known: BTreeMap<RouteName, (i64, u64)> = BTreeMap::new();
            let mut admitted: BTreeSet<RouteName> = BTreeSet::new();
            for (namespace, own, created, bytes, put) in steps {
                let name = name(namespace, own);
                let changes = match put {
                    true => {
                        known.insert(name.clone(), (created, bytes));
                        quota.put(&name, Some(created), bytes)
                    }
                    false => {
                        known.remove(&name);
                        quota.take(&name)
                    }
                };
                prop_assert!(changes.out.is_disjoint(&changes.back));
                prop_assert!(changes.out.iter().all(|name| admitted.remove(name)));
                prop_assert!(changes.back.into_iter().all(|name| admitted.insert(name)));
                admitted.remove(&name);
                if quota.admits(&name) {
                    admitted.insert(name);
                }
                let mut all: BTreeMap<Key, u64> = BTreeMap::new();
                for namespace in 0..3_u8 {
                    let of = known.iter().filter(|(name, _)| name.object.namespace == namespace.to_string());
                    let of: BTreeMap<Key, u64> =
                        of.map(|(name, (created, bytes))| ((*created, name.clone()), *bytes)).collect();
                    for key in prefix(of.iter(), bounds.namespace) {
                        all.insert(key.clone(), of[key]);
                    }
                }
                let expected: BTreeSet<_> =
                    prefix(all.iter(), bounds.all).into_iter().map(|(_, name)| name.clone()).collect();
                prop_assert_eq!(&admitted, &expected);
                prop_assert_eq!(quota.refused_count(), known.len() - expected.len());
            }
        }
    }

    #[test]
    fn a_problem_names_the_oldest_that_is_kept_out_and_stays_while_more_come() {
        let bounds =
            RouteBounds { namespace: Bound { count: 2, bytes: 100 }, ..RouteBounds::default() };
        let mut quota = Quota::new(bounds);
        let problems = |quota: &Quota| quota.problems().collect::<Vec<_>>();
        for own in 0..2 {
            assert_eq!(quota.put(&name(0, own), Some(own.into()), 10), QuotaChanges::default());
        }
        assert_eq!(problems(&quota), Vec::<String>::new());
        quota.put(&name(0, 2), Some(2), 10);
        let said = problems(&quota);
        assert!(said[0].starts_with("HTTPRoute 0/2: it is not looked at"), "{said:?}");
        quota.put(&name(0, 3), None, 10);
        quota.put(&name(1, 3), None, 10);
        assert_eq!(problems(&quota), said);
        let changes = quota.take(&name(0, 0));
        assert_eq!(changes.back, BTreeSet::from([name(0, 2)]));
        assert_eq!(quota.put(&name(0, 1), Some(1), 95).out, BTreeSet::from([name(0, 2)]));
    }
}

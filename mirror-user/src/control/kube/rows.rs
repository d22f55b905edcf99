//! What is known of a cluster: rows by kind, and what did not decode, by name.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::value::RawValue;

use super::kinds::{RouteHead, Watched};
use crate::{
    control::{
        decode::Defaults,
        expressions::{Allowance, Expressions},
        objects::{Changes, Objects, Route},
        quota::Quota,
    },
    kube::RelistTracker,
    model::{ObjectName, RouteKind, RouteName},
};

/// Everything that is known.
#[derive(Debug, Default)]
pub(super) struct Rows {
    pub(super) objects: Objects,
    /// Why objects, or parts of them, are left out.
    refused: BTreeMap<(Watched, ObjectName), String>,
    /// Routes that say more than mirror knows, which the defaults of another CRD might excuse.
    unknown_fields: BTreeSet<RouteName>,
    lists: BTreeMap<Watched, RelistTracker>,
    expressions: Expressions,
    /// Of the CRDs of routes.
    defaults: BTreeMap<RouteKind, Defaults>,
    /// Which routes are decoded at all.
    pub(super) quota: Quota,
    /// Routes are within the quota again, or valid, whose text was not kept.
    vacant: bool,
}

impl Rows {
    /// A list of the kind begins.
    pub(super) fn start(&mut self, kind: Watched) {
        let refused = self.refused.keys().filter(|(other, _)| *other == kind);
        let refused = refused.map(|(_, name)| name);
        let kept_out = self.quota.refused().filter(|route| kind == Watched::Route(route.kind));
        let kept_out = kept_out.map(|route| &route.object);
        let known = self.objects.names(kind.kind()).chain(refused).chain(kept_out);
        self.lists.entry(kind).or_default().start(known);
    }

    /// Takes an object as it came. True if a problem is new, changed or gone.
    pub(super) fn apply(
        &mut self,
        kind: Watched,
        name: ObjectName,
        object: &RawValue,
        changes: &mut Changes,
    ) -> bool {
        let name = kind.row(name);
        self.lists.entry(kind).or_default().present(&name);
        if let Some(route) = kind.route() {
            return self.apply_route(route.named(name), object, changes);
        }
        match kind.decode(object, &Defaults::default(), &mut Allowance::default()) {
            Ok(object) => {
                self.objects.apply(object, changes);
                self.refused.remove(&(kind, name)).is_some()
            }
            Err(error) => {
                // What it said before is not what its owner wants now.
                self.objects.remove(kind.kind(), &name, changes);
                self.note((kind, name), Some(error.message))
            }
        }
    }

    fn apply_route(&mut self, route: RouteName, object: &RawValue, changes: &mut Changes) -> bool {
        let kind = Watched::Route(route.kind);
        let key = (kind, route.object.clone());
        self.unknown_fields.remove(&route);
        let head = RouteHead::read(object);
        let diagnostics_changed = self.check_quota(&route, head, changes);
        if head.is_some() && !self.quota.admits(&route) {
            self.expressions.forget(&route);
            self.objects.remove_route(&route, changes);
            return self.note(key, None) | diagnostics_changed;
        }
        let mut allowance = self.expressions.allow(&route);
        let none = Defaults::default();
        let defaults = self.defaults.get(&route.kind).unwrap_or(&none);
        let fault = match kind.decode(object, defaults, &mut allowance) {
            Ok(object) => {
                self.expressions.keep(&route, &allowance);
                self.objects.apply(object, changes);
                let known = self.objects.routes.get(&route);
                if known.is_some_and(Route::has_unknown_fields) {
                    self.unknown_fields.insert(route);
                }
                known.and_then(Route::partial_faults)
            }
            Err(error) => {
                self.expressions.refuse(&route, &allowance);
                // What it said before is not what its owner wants now.
                self.objects.remove_route(&route, changes);
                if error.unknown_field {
                    self.unknown_fields.insert(route);
                }
                Some(error.message)
            }
        };
        self.note(key, fault) | diagnostics_changed
    }

    /// Notes what is wrong with an object, or that nothing is. True if that is new.
    fn note(&mut self, key: (Watched, ObjectName), fault: Option<String>) -> bool {
        match fault {
            None => self.refused.remove(&key).is_some(),
            Some(text) => self.refused.insert(key, text.clone()) != Some(text),
        }
    }

    /// Applies the quota to a route; `head` is None if the route is gone or has no Service parent. True
    /// if others are in or out now.
    fn check_quota(
        &mut self,
        name: &RouteName,
        head: Option<RouteHead>,
        changes: &mut Changes,
    ) -> bool {
        let before = self.quota.refuses_any_of(&name.object.namespace);
        let moves = match head {
            Some(head) => self.quota.put(name, head.created, head.bytes),
            None => self.quota.take(name),
        };
        for gone in &moves.out {
            self.expressions.forget(gone);
            self.objects.remove_route(gone, changes);
            self.refused.remove(&(Watched::Route(gone.kind), gone.object.clone()));
        }
        self.vacant |= !moves.back.is_empty();
        before != self.quota.refuses_any_of(&name.object.namespace)
            || !moves.out.is_empty()
            || !moves.back.is_empty()
    }

    /// What the CRD of a kind of routes has as defaults from now on. If routes were refused because of fields
    /// that mirror does not know, routes are to be listed again: they may be valid by it.
    pub(super) fn set_defaults(&mut self, kind: RouteKind, defaults: &Defaults) {
        if self.defaults.get(&kind) != Some(defaults) {
            self.defaults.insert(kind, defaults.clone());
            self.vacant |= self.unknown_fields.iter().any(|route| route.kind == kind);
        }
    }

    /// Whether routes are to be listed again, since some may be in force now; once.
    pub(super) fn take_vacancy(&mut self) -> bool {
        std::mem::take(&mut self.vacant)
    }

    /// An object is gone. True if a problem goes with it.
    pub(super) fn delete(
        &mut self,
        kind: Watched,
        name: &ObjectName,
        changes: &mut Changes,
    ) -> bool {
        let name = &kind.row(name.clone());
        self.lists.entry(kind).or_default().present(name);
        self.objects.remove(kind.kind(), name, changes);
        let mut diagnostics_changed = false;
        if let Some(route) = kind.route().map(|route| route.named(name.clone())) {
            self.expressions.forget(&route);
            self.unknown_fields.remove(&route);
            diagnostics_changed = self.check_quota(&route, None, changes);
        }
        self.refused.remove(&(kind, name.clone())).is_some() | diagnostics_changed
    }

    /// The list is complete: what it did not name is gone. True if a problem goes with it.
    pub(super) fn complete(&mut self, kind: Watched, changes: &mut Changes) -> bool {
        let gone = self.lists.entry(kind).or_default().complete();
        // All of them, not up to the first that had a problem.
        gone.iter().map(|name| self.delete(kind, name, changes)).filter(|had| *had).count() > 0
    }

    /// What was left out, one line each.
    pub(super) fn problems(&self) -> Vec<String> {
        let problem = |((kind, name), error): (&(Watched, ObjectName), &String)| {
            let own = format!("{} {name}", kind.label());
            match error.starts_with(&own) {
                true => error.clone(),
                false => format!("{own}: {error}"),
            }
        };
        self.refused.iter().map(problem).chain(self.quota.problems()).collect()
    }
}

//! What is known of a cluster: rows by kind, and what did not decode, by name.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::value::RawValue;

use super::kinds::{RouteHead, Watched};
use crate::{
    control::{
        decode::Defaults,
        expressions::{Allowance, Expressions},
        objects::{Changes, HttpRoute, Kind, Objects},
        quota::Quota,
    },
    kube::RelistTracker,
    model::ObjectName,
};

/// Everything that is known.
#[derive(Debug, Default)]
pub(super) struct Rows {
    pub(super) objects: Objects,
    /// Why objects, or parts of them, are left out.
    refused: BTreeMap<(Watched, ObjectName), String>,
    /// Routes that say more than mirror knows, which the defaults of another CRD might excuse.
    unknown_fields: BTreeSet<ObjectName>,
    lists: BTreeMap<Watched, RelistTracker>,
    expressions: Expressions,
    /// Of the CRD of HTTPRoutes.
    defaults: Defaults,
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
        let kept_out = self.quota.refused().filter(|_| kind == Watched::Route);
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
        let is_route = kind == Watched::Route;
        if is_route {
            self.unknown_fields.remove(&name);
        }
        let mut diagnostics_changed = false;
        if is_route {
            let head = RouteHead::read(object);
            diagnostics_changed = self.check_quota(&name, head, changes);
            if head.is_some() && !self.quota.admits(&name) {
                self.expressions.forget(&name);
                self.objects.remove(Kind::Route, &name, changes);
                return self.refused.remove(&(kind, name)).is_some() | diagnostics_changed;
            }
        }
        let mut allowance =
            if is_route { self.expressions.allow(&name) } else { Allowance::default() };
        match kind.decode(object, &self.defaults, &mut allowance) {
            Ok(object) => {
                if is_route {
                    self.expressions.keep(&name, &allowance);
                }
                self.objects.apply(object, changes);
                self.note_partial_faults((kind, name)) | diagnostics_changed
            }
            Err(error) => {
                if is_route {
                    self.expressions.refuse(&name, &allowance);
                }
                if is_route && error.unknown_field {
                    self.unknown_fields.insert(name.clone());
                }
                // What it said before is not what its owner wants now.
                self.objects.remove(kind.kind(), &name, changes);
                let error = error.message;
                (self.refused.insert((kind, name), error.clone()) != Some(error))
                    | diagnostics_changed
            }
        }
    }

    /// Notes what is wrong with an object that is in force, or that nothing is. True if that is new.
    fn note_partial_faults(&mut self, key: (Watched, ObjectName)) -> bool {
        let route = self.objects.routes.get(&key.1).filter(|_| key.0 == Watched::Route);
        if route.is_some_and(HttpRoute::has_unknown_fields) {
            self.unknown_fields.insert(key.1.clone());
        }
        match route.and_then(HttpRoute::partial_faults) {
            None => self.refused.remove(&key).is_some(),
            Some(text) => self.refused.insert(key, text.clone()) != Some(text),
        }
    }

    /// Applies the quota to a route; `head` is None if the route is gone or has no Service parent. True
    /// if others are in or out now.
    fn check_quota(
        &mut self,
        name: &ObjectName,
        head: Option<RouteHead>,
        changes: &mut Changes,
    ) -> bool {
        let before = self.quota.refuses_any_of(&name.namespace);
        let moves = match head {
            Some(head) => self.quota.put(name, head.created, head.bytes),
            None => self.quota.take(name),
        };
        for gone in &moves.out {
            self.expressions.forget(gone);
            self.objects.remove(Kind::Route, gone, changes);
            self.refused.remove(&(Watched::Route, gone.clone()));
        }
        self.vacant |= !moves.back.is_empty();
        before != self.quota.refuses_any_of(&name.namespace)
            || !moves.out.is_empty()
            || !moves.back.is_empty()
    }

    /// What the CRD of HTTPRoutes has as defaults from now on. If routes were refused because of fields that
    /// mirror does not know, routes are to be listed again: they may be valid by it.
    pub(super) fn set_defaults(&mut self, defaults: &Defaults) {
        if self.defaults != *defaults {
            self.defaults = defaults.clone();
            self.vacant |= !self.unknown_fields.is_empty();
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
        if kind == Watched::Route {
            self.expressions.forget(name);
            self.unknown_fields.remove(name);
        }
        self.objects.remove(kind.kind(), name, changes);
        let diagnostics_changed = kind == Watched::Route && self.check_quota(name, None, changes);
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

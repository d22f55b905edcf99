//! What the controller knows of the cluster. In: events of the watches. Out: the objects that
//! [`crate::control::resolve`] judges, and of each route what a write of its status needs. What
//! one object says can stop no other: one that does not decode is known by name.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde_json::value::RawValue;

use super::route::{DecodeVerdict, RouteRow};
use crate::{
    control::{
        decode::Defaults,
        expressions::{Allowance, Expressions},
        kube::{
            crd::Crd,
            kinds::{RouteHead, Watched},
        },
        objects::{Changes, Object, Objects, RouteFilter, RouteRule},
        quota::{Quota, RouteBounds},
        resolve::{AddressPolicy, Condition, Resolver, RouteStatus},
    },
    kube::{Event, RelistTracker},
    model::{ObjectName, RouteKind, RouteName},
    route::Fraction,
};

/// The kinds that verdicts depend on; EndpointSlices by the addresses of headless Services and of
/// shadows, Namespaces by what they permit, Nodes by their addresses. (Pods are too many: that one
/// has another address than a slice says is seen by the agent of its node alone.)
pub(crate) const KINDS: [Watched; 7] = [
    Watched::Service,
    Watched::Slice,
    Watched::Route(RouteKind::Http),
    Watched::Route(RouteKind::Grpc),
    Watched::Grant,
    Watched::Namespace,
    Watched::Node,
];

/// A kind that the server does not know for so long does not exist.
const GONE: Duration = Duration::from_secs(30);

/// Everything that is known.
#[derive(Debug, Default)]
pub struct ObjectStore {
    objects: Objects,
    /// Since it was judged last.
    changes: Changes,
    resolver: Resolver,
    /// Which routes are judged.
    quota: Quota,
    /// Routes are within the quota again, or valid, whose text was not kept.
    vacant: bool,
    routes: BTreeMap<RouteName, RouteRow>,
    lists: BTreeMap<Watched, RelistTracker>,
    complete: BTreeSet<Watched>,
    /// The CRDs of routes.
    crds: BTreeMap<RouteKind, Crd>,
    /// Kinds of routes of which it is known whether there is a CRD.
    crds_known: BTreeSet<RouteKind>,
    /// Of those CRDs; those of the last one, while there is none.
    defaults: BTreeMap<RouteKind, Defaults>,
    expressions: Expressions,
}

impl ObjectStore {
    /// Nothing is known; verdicts are those of agents with this policy and these bounds.
    #[must_use]
    pub fn new(policy: AddressPolicy, bounds: RouteBounds) -> Self {
        let (resolver, quota) = (Resolver::new(policy), Quota::new(bounds));
        Self { resolver, quota, ..Self::default() }
    }

    /// Takes one event; true if a verdict may change by it.
    pub(crate) fn apply(&mut self, kind: Watched, event: Event) -> bool {
        match event {
            Event::Started => {
                let known: Vec<_> = self.names(kind).cloned().collect();
                self.lists.entry(kind).or_default().start(known.iter());
                false
            }
            Event::Applied(name, object) => {
                let name = kind.row(name);
                self.lists.entry(kind).or_default().present(&name);
                self.insert(kind, name, &object)
            }
            Event::Deleted(name) => {
                let name = kind.row(name);
                self.lists.entry(kind).or_default().present(&name);
                self.remove(kind, &name)
            }
            Event::Complete => {
                let gone = self.lists.entry(kind).or_default().complete();
                let news = gone.iter().fold(false, |news, name| news | self.remove(kind, name));
                self.complete.insert(kind) || news
            }
            // For a moment after its start a server may not know the kinds of CRDs yet.
            Event::Missing(since) if since < GONE && !self.never_installed(kind) => false,
            Event::Missing(_) => {
                let gone: Vec<_> = self.names(kind).cloned().collect();
                let news = gone.iter().fold(false, |news, name| news | self.remove(kind, name));
                self.complete.insert(kind) || news
            }
        }
    }

    /// Whether there has been no CRD of the kind since the start.
    fn never_installed(&self, kind: Watched) -> bool {
        let unlisted = !self.complete.contains(&kind);
        kind.route().is_some_and(|route| {
            unlisted && self.crds_known.contains(&route) && !self.crds.contains_key(&route)
        })
    }

    /// Takes an event about the CRD of a kind of routes; true if its content has changed.
    pub(crate) fn apply_crd(&mut self, kind: RouteKind, event: &Event) -> bool {
        match event {
            Event::Applied(_, object) => {
                let crd = Crd::read(object);
                self.set_defaults(kind, crd.defaults());
                self.crds.insert(kind, crd.clone()) != Some(crd)
            }
            Event::Deleted(_) => self.crds.remove(&kind).is_some(),
            Event::Complete => {
                self.crds_known.insert(kind);
                false
            }
            // What matters is in the complete list as well.
            Event::Started | Event::Missing(_) => false,
        }
    }

    /// Routes that were refused because of fields that mirror does not know may be valid by the defaults of
    /// another CRD: routes are to be listed again.
    fn set_defaults(&mut self, kind: RouteKind, defaults: &Defaults) {
        if self.defaults.get(&kind) != Some(defaults) {
            self.defaults.insert(kind, defaults.clone());
            let mut routes = self.routes.iter();
            self.vacant |= routes.any(|(route, row)| route.kind == kind && row.unknown_fields);
        }
    }

    /// What the author of a route should know of the cluster, though it is no fault of the route:
    /// that a share may have been lost on the way here.
    pub(crate) fn warning_for(&self, route: &RouteName) -> Option<String> {
        let rules = self.objects.routes.get(route).into_iter().flat_map(|route| &route.rules);
        let mut filters = rules.flat_map(RouteRule::all_filters);
        let mirrors_all = filters.any(
            |filter| matches!(filter, RouteFilter::Mirror(_, share) if *share == Fraction::ALL),
        );
        self.crds.get(&route.kind).filter(|_| mirrors_all)?.warning(Watched::Route(route.kind))
    }

    /// Kinds of which no complete list has come yet: until then nothing can be judged, as a Service
    /// that is not known would be taken for one that does not exist.
    pub(crate) fn incomplete(&self) -> impl Iterator<Item = Watched> {
        KINDS.into_iter().filter(|kind| !self.complete.contains(kind))
    }

    /// Judges what has changed, and returns the conditions of all routes.
    pub fn reconcile(&mut self) -> Vec<RouteStatus> {
        // Only agents use frontends.
        drop(self.resolver.update(&self.objects, &std::mem::take(&mut self.changes)));
        self.resolver.conditions(&self.objects)
    }

    /// All routes.
    #[must_use]
    pub fn routes(&self) -> &BTreeMap<RouteName, RouteRow> {
        &self.routes
    }

    fn names(&self, kind: Watched) -> Box<dyn Iterator<Item = &ObjectName> + '_> {
        match kind {
            // Those that do not decode are known by name as well.
            Watched::Route(kind) => {
                let routes = self.routes.keys().filter(move |route| route.kind == kind);
                Box::new(routes.map(|route| &route.object))
            }
            _ => self.objects.names(kind.kind()),
        }
    }

    /// True if a verdict may change by it.
    fn insert(&mut self, kind: Watched, name: ObjectName, raw: &RawValue) -> bool {
        if let Some(route) = kind.route() {
            return self.insert_route(route.named(name), raw);
        }
        match kind.decode(raw, &Defaults::default(), &mut Allowance::default()) {
            Ok(object) => {
                self.objects.apply(object, &mut self.changes);
                !self.changes.is_empty()
            }
            Err(error) => {
                // Its former content no longer applies.
                tracing::warn!(?kind, %name, error = error.message, "cannot read an object; ignoring it");
                self.remove(kind, &name)
            }
        }
    }

    /// Whether routes are to be listed again, since some may be in force now; once.
    pub(crate) fn take_vacancy(&mut self) -> bool {
        std::mem::take(&mut self.vacant)
    }

    /// Applies the quota to a route; `head` is None if the route is gone or has no Service parent.
    fn check_quota(&mut self, name: &RouteName, head: Option<RouteHead>) {
        let moves = match head {
            Some(head) => self.quota.put(name, head.created, head.bytes),
            None => self.quota.take(name),
        };
        for gone in &moves.out {
            self.expressions.forget(gone);
            self.objects.remove_route(gone, &mut self.changes);
            if let Some(row) = self.routes.get_mut(gone) {
                row.verdict = DecodeVerdict::Refused(Condition::no_room(self.quota.why()));
            }
        }
        self.vacant |= !moves.back.is_empty();
    }

    fn insert_route(&mut self, name: RouteName, raw: &RawValue) -> bool {
        let head = RouteHead::read(raw);
        self.check_quota(&name, head);
        let kept_out = head.is_some() && !self.quota.admits(&name);
        let mut allowance = self.expressions.allow(&name);
        let none = Defaults::default();
        let defaults = self.defaults.get(&name.kind).unwrap_or(&none);
        let read = Watched::Route(name.kind).document(raw).and_then(|value| match kept_out {
            true => {
                let refusal = Condition::no_room(self.quota.why());
                RouteRow::unread(&value, refusal).map(|row| (row, None))
            }
            false => RouteRow::read(&value, defaults, &mut allowance),
        });
        match read {
            Ok((row, object)) => {
                match row.verdict {
                    DecodeVerdict::Decoded => self.expressions.keep(&name, &allowance),
                    _ => self.expressions.refuse(&name, &allowance),
                }
                match object {
                    Some(route) => {
                        let known = self.routes.get(&name);
                        if known.is_none_or(|old| old.generation != row.generation) {
                            warn_of_misgrouped_parents(&name, &route);
                        }
                        self.objects.apply(route, &mut self.changes);
                    }
                    None => self.objects.remove_route(&name, &mut self.changes),
                }
                // Its status may have changed as well, which is what is compared.
                self.routes.insert(name, row);
                true
            }
            Err(error) => {
                let kind = name.kind.label();
                tracing::warn!(kind, name = %name.object, error, "cannot read a route; ignoring it");
                self.remove(Watched::Route(name.kind), &name.object)
            }
        }
    }

    fn remove(&mut self, kind: Watched, name: &ObjectName) -> bool {
        self.objects.remove(kind.kind(), name, &mut self.changes);
        let row = kind.route().map(|route| route.named(name.clone())).and_then(|route| {
            self.expressions.forget(&route);
            self.check_quota(&route, None);
            self.routes.remove(&route)
        });
        row.is_some() || !self.changes.is_empty()
    }
}

/// Such a route gets no status from this controller, and usually from no other: only the log can say why.
fn warn_of_misgrouped_parents(name: &RouteName, route: &Object) {
    let texts = match route {
        Object::Route(route) => route.misgrouped.as_slice(),
        Object::GatewayRoute { misgrouped, .. } => misgrouped.as_slice(),
        _ => &[],
    };
    for text in texts {
        tracing::warn!("{}: {text}", name.identity());
    }
}

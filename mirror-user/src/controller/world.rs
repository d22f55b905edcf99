//! What the controller knows of the cluster. In: events of the watches. Out: the objects that
//! [`crate::control::resolve`] judges, and of each HTTPRoute what a write of its status needs. What
//! one object says can stop no other: one that does not decode is known by name.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde_json::value::RawValue;

use super::route::{RouteRow, Verdict};
use crate::{
    control::{
        kube::{crd::Crd, kinds::Watched},
        objects::{Changes, Kind, ObjectName, Objects, RouteFilter},
        resolve::{Resolver, RouteStatus},
    },
    kube::{Event, RollCall},
    route::Share,
};

/// The kinds that verdicts depend on; EndpointSlices by the addresses of headless Services.
pub(crate) const KINDS: [Watched; 4] =
    [Watched::Service, Watched::Slice, Watched::Route, Watched::Grant];

/// A kind that the server does not know for so long does not exist.
const GONE: Duration = Duration::from_secs(30);

/// Everything that is known.
#[derive(Debug, Default)]
pub struct World {
    objects: Objects,
    /// Since it was judged last.
    changes: Changes,
    resolver: Resolver,
    routes: BTreeMap<ObjectName, RouteRow>,
    lists: BTreeMap<Watched, RollCall>,
    complete: BTreeSet<Watched>,
    /// HTTPRoute's CRD.
    crd: Option<Crd>,
}

impl World {
    /// Takes one event; true if a verdict may change by it.
    pub(crate) fn apply(&mut self, kind: Watched, event: Event) -> bool {
        match event {
            Event::Started => {
                let known: Vec<_> = self.names(kind).cloned().collect();
                self.lists.entry(kind).or_default().start(known.iter());
                false
            }
            Event::Applied(name, object) => {
                self.lists.entry(kind).or_default().present(&name);
                self.insert(kind, name, &object)
            }
            Event::Deleted(name) => {
                self.lists.entry(kind).or_default().present(&name);
                self.remove(kind, &name)
            }
            Event::Complete => {
                let gone = self.lists.entry(kind).or_default().complete();
                let news = gone.iter().fold(false, |news, name| news | self.remove(kind, name));
                self.complete.insert(kind) || news
            }
            // For a moment after its start a server may not know the kinds of CRDs yet.
            Event::Missing(since) if since < GONE => false,
            Event::Missing(_) => {
                let gone: Vec<_> = self.names(kind).cloned().collect();
                let news = gone.iter().fold(false, |news, name| news | self.remove(kind, name));
                self.complete.insert(kind) || news
            }
        }
    }

    /// Takes an event about HTTPRoute's CRD; true if it says something else now.
    pub(crate) fn apply_crd(&mut self, event: &Event) -> bool {
        let before = self.crd.clone();
        match event {
            Event::Applied(_, object) => self.crd = Some(Crd::read(object)),
            Event::Deleted(_) => self.crd = None,
            // What matters is told by a complete list as well.
            Event::Started | Event::Complete | Event::Missing(_) => {}
        }
        self.crd != before
    }

    /// What the author of a route should know of the cluster, though it is no fault of the route:
    /// that a share may have been lost on the way here.
    pub(crate) fn caution(&self, route: &ObjectName) -> Option<String> {
        let rules = self.objects.routes.get(route).into_iter().flat_map(|route| &route.rules);
        let mirrors_all = rules.flat_map(|rule| &rule.filters).any(|filter| match filter {
            RouteFilter::Mirror(_, share) => *share == Share::ALL,
            RouteFilter::RequestHeaders(_) | RouteFilter::ResponseHeaders(_) => false,
        });
        self.crd.as_ref().filter(|_| mirrors_all)?.warning(Watched::Route)
    }

    /// Kinds of which no complete list has come yet: until then nothing can be judged, as a Service
    /// that is not known would be taken for one that does not exist.
    pub(crate) fn incomplete(&self) -> impl Iterator<Item = Watched> {
        KINDS.into_iter().filter(|kind| !self.complete.contains(kind))
    }

    /// Judges what has changed, and returns the conditions of all routes.
    pub fn judge(&mut self) -> Vec<RouteStatus> {
        // Frontends are the agents' business.
        drop(self.resolver.update(&self.objects, &std::mem::take(&mut self.changes)));
        self.resolver.conditions(&self.objects)
    }

    /// All HTTPRoutes.
    #[must_use]
    pub fn routes(&self) -> &BTreeMap<ObjectName, RouteRow> {
        &self.routes
    }

    fn names(&self, kind: Watched) -> Box<dyn Iterator<Item = &ObjectName> + '_> {
        match kind {
            // Those that do not decode are known by name as well.
            Watched::Route => Box::new(self.routes.keys()),
            _ => self.objects.names(kind.kind()),
        }
    }

    /// True if a verdict may change by it.
    fn insert(&mut self, kind: Watched, name: ObjectName, raw: &RawValue) -> bool {
        if kind == Watched::Route {
            return self.insert_route(name, raw);
        }
        match kind.decode(raw) {
            Ok(object) => {
                self.objects.apply(object, &mut self.changes);
                !self.changes.is_empty()
            }
            Err(error) => {
                // What it said before holds no more.
                tracing::warn!(?kind, %name, error, "an object cannot be read: left out");
                self.remove(kind, &name)
            }
        }
    }

    fn insert_route(&mut self, name: ObjectName, raw: &RawValue) -> bool {
        let read = Watched::Route.document(raw).and_then(|value| RouteRow::read(&value));
        match read {
            Ok((row, object)) => {
                match object.filter(|_| row.verdict == Verdict::Decoded) {
                    Some(route) => self.objects.apply(route, &mut self.changes),
                    None => self.objects.remove(Kind::Route, &name, &mut self.changes),
                }
                // Its status may have changed as well, which is what is compared.
                self.routes.insert(name, row);
                true
            }
            Err(error) => {
                tracing::warn!(%name, error, "an HTTPRoute cannot be read: left out");
                self.remove(Watched::Route, &name)
            }
        }
    }

    fn remove(&mut self, kind: Watched, name: &ObjectName) -> bool {
        self.objects.remove(kind.kind(), name, &mut self.changes);
        let row = (kind == Watched::Route).then(|| self.routes.remove(name)).flatten();
        row.is_some() || !self.changes.is_empty()
    }
}

//! The route table of a frontend: rules in the order of the Gateway API's precedence. In: the
//! rules attached to it. Out: the one rule that a request belongs to.

use std::{
    cmp::Reverse,
    slice,
    sync::{Arc, OnceLock},
};

use super::{Backends, Filter, Matcher, PathMatch, Retry, Timeouts, matcher::View};
use crate::model::RouteName;

mod criterion;
mod index;
#[cfg(test)]
mod tests;

pub use self::criterion::Criterion;
use self::index::{Candidates, INDEXED, Places, TableIndex};

/// A rule of a route, compiled.
#[derive(Debug)]
pub struct Rule {
    /// The route it comes from.
    pub route: Arc<RouteName>,
    /// Its place in the route's `rules`, from 0.
    pub index: usize,
    /// Its `name`.
    pub name: Option<String>,
    /// In the order of the route.
    pub filters: Vec<Filter>,
    /// Where matching requests go.
    pub backends: Backends,
    /// How long they may take.
    pub timeouts: Timeouts,
    /// When they are sent again.
    pub retry: Option<Retry>,
}

/// A rule to be put into a table, with what decides its place there.
#[derive(Clone, Debug)]
pub struct RuleEntry {
    /// The rule.
    pub rule: Arc<Rule>,
    /// Its matches; a rule without any gets one that holds for every request.
    pub matches: Vec<Matcher>,
    /// `creationTimestamp` of its route, seconds since 1970; None (a file) counts as the newest.
    pub created: Option<i64>,
}

/// What decides between two matches that both hold; greater wins. The fields stand in the order
/// in which the Gateway API lists them (HTTPRouteRule and GRPCRouteRule, `matches`), and the derived `Ord`
/// is that list.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Precedence {
    path: PathRank,
    method: bool,
    headers: usize,
    query: usize,
    /// The oldest route wins.
    created: Reverse<i64>,
    /// Then the first in alphabetical order of `namespace/name`.
    route: Reverse<String>,
    /// Then the first rule of the route, and its first match.
    place: Reverse<(usize, usize)>,
}

/// Exact paths win over expressions, expressions over prefixes. (The Gateway API leaves the place
/// of expressions to the implementation: they are written to be more specific than the prefixes
/// that they stand beside.) Longer wins within a kind, counted in characters; the trailing slash of a
/// prefix counts, though it does not matter to what the prefix matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum PathRank {
    Prefix(usize),
    Regex(usize),
    Exact,
    /// Of a GRPCRoute: characters of the service, then of the method. (A match of such a route that names
    /// neither is a prefix, and comes behind.)
    Grpc {
        service: usize,
        method: usize,
    },
}

impl Precedence {
    /// Summary of the match at `place` (rule, match) of `route`.
    #[must_use]
    pub fn new(
        matcher: &Matcher,
        created: Option<i64>,
        route: &RouteName,
        place: (usize, usize),
    ) -> Self {
        Self {
            path: match &matcher.path {
                PathMatch::Exact(_) => PathRank::Exact,
                PathMatch::Regex(pattern) => PathRank::Regex(pattern.as_str().chars().count()),
                PathMatch::Prefix(prefix) => PathRank::Prefix(prefix.chars().count()),
                PathMatch::Grpc(grpc) => {
                    let (service, method) = grpc.lengths();
                    PathRank::Grpc { service, method }
                }
            },
            method: matcher.method.is_some(),
            headers: matcher.headers.len(),
            query: matcher.query.len(),
            created: Reverse(created.unwrap_or(i64::MAX)),
            route: Reverse(route.object.to_string()),
            place: Reverse(place),
        }
    }
}

/// All matches of all rules attached to one frontend, best first. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct RouteTable {
    content: Arc<Content>,
    /// What [`Frontend::only_mirrors`](super::Frontend::only_mirrors) found.
    pub(super) only_mirrors: Arc<OnceLock<bool>>,
}

#[derive(Debug, Default)]
struct Content {
    entries: Box<[Entry]>,
    /// Where there is no index, the places of all entries.
    all: Places,
    index: Option<TableIndex>,
}

#[derive(Debug)]
struct Entry {
    precedence: Precedence,
    matcher: Matcher,
    rule: Arc<Rule>,
}

impl RouteTable {
    /// Takes the rules in any order.
    #[must_use]
    pub fn new(rules: impl IntoIterator<Item = RuleEntry>) -> Self {
        let mut entries: Vec<_> = rules.into_iter().flat_map(RuleEntry::entries).collect();
        entries.sort_by(|a, b| b.precedence.cmp(&a.precedence));
        let matches = (0..).zip(entries.iter().map(|entry| &entry.matcher));
        let (all, index) = if entries.len() < INDEXED {
            (matches.map(|(at, _)| at).collect(), None)
        } else {
            (Places::default(), Some(TableIndex::new(matches)))
        };
        let content = Content { entries: entries.into(), all, index };
        Self { content: Arc::new(content), only_mirrors: Arc::default() }
    }

    /// Has it find out for itself whether it only mirrors: that depends on whether clients ask for a
    /// ClusterIP or for an endpoint.
    pub fn for_another_address(&mut self) {
        self.only_mirrors = Arc::default();
    }

    /// Returns the rule that matches the request with this head; None means a response of 404.
    #[must_use]
    pub fn find(&self, head: &http::request::Parts) -> Option<&Arc<Rule>> {
        self.search(head).run(usize::MAX).flatten()
    }

    /// The same step by step.
    #[must_use]
    pub fn search<'t, 'h>(&'t self, head: &'h http::request::Parts) -> Search<'t, 'h> {
        let view = View::new(head);
        let Content { entries, all, index } = &*self.content;
        let candidates = index.as_ref().map(|index| index.candidates(&view));
        Search { entries, candidates, view, places: all.iter(), found: None }
    }

    /// All matches with what decided their place, best first, for `mirror explain`.
    pub fn candidates(&self) -> impl ExactSizeIterator<Item = (&Precedence, &Matcher, &Arc<Rule>)> {
        self.content.entries.iter().map(|entry| (&entry.precedence, &entry.matcher, &entry.rule))
    }

    /// All matches and their rules, best first, for `/config`.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = (&Matcher, &Arc<Rule>)> {
        self.content.entries.iter().map(|entry| (&entry.matcher, &entry.rule))
    }
}

/// Goes through a table.
pub struct Search<'t, 'h> {
    entries: &'t [Entry],
    candidates: Option<Candidates<'t, 'h>>,
    view: View<'h>,
    /// Those of the matches to be tried next, best first.
    places: slice::Iter<'t, u32>,
    /// The place of the best match that holds, so far.
    found: Option<u32>,
}

impl<'t> Search<'t, '_> {
    /// Looks for the rule until it is found, there is none, or so many steps were taken, but for the
    /// last match: a step is a byte that an expression reads, some nanosecond. None: it is to go on.
    pub fn run(&mut self, steps: usize) -> Option<Option<&'t Arc<Rule>>> {
        let until = self.view.work().saturating_add(steps);
        while self.view.work() <= until {
            let better = |at: &u32| self.found.is_none_or(|found| *at < found);
            if let Some(at) = self.places.next().copied().filter(better) {
                if self.entry(at).is_some_and(|entry| entry.matcher.holds(&self.view)) {
                    self.found = Some(at);
                }
            } else if let Some(places) = self.next_list() {
                self.places = places.iter();
            } else {
                return Some(self.found.and_then(|at| self.entry(at)).map(|entry| &entry.rule));
            }
        }
        None
    }

    fn next_list(&mut self) -> Option<&'t [u32]> {
        self.candidates.as_mut()?.next(&self.view, self.found.is_some())
    }

    fn entry(&self, at: u32) -> Option<&'t Entry> {
        self.entries.get(usize::try_from(at).ok()?)
    }
}

impl RuleEntry {
    fn entries(mut self) -> impl Iterator<Item = Entry> {
        if self.matches.is_empty() {
            self.matches.push(Matcher::default());
        }
        let Self { rule, matches, created } = self;
        matches.into_iter().enumerate().map(move |(at, matcher)| Entry {
            precedence: Precedence::new(&matcher, created, &rule.route, (rule.index, at)),
            matcher,
            rule: Arc::clone(&rule),
        })
    }
}

//! The index of a route table by path, and by what else matches want. In: the matches of a table, best first.
//! Out: for a request, lists of the places of the matches that may hold for it, each best first. Pure.
//!
//! A table of HTTPRoutes is sorted by the kind of its paths first, and by the length of prefixes next, and of two
//! different prefixes of one path the longer is better. Therefore the matches that concern a path are
//! those with this very path, then all expressions, then those of each of its prefixes from the longest
//! to the shortest; nothing later is better than what one of these has found. Where many share a path, they
//! are found by their other conditions ([`conditions`]).

use std::{collections::HashMap, slice};

use crate::{
    hash::FastHashMap,
    route::{
        Matcher, PathMatch,
        matcher::{View, elements},
    },
};

mod conditions;
mod grpc;

use self::{
    conditions::{ListCandidates, PlaceList},
    grpc::{CallIndex, CallLists},
};

/// So many matches have an index; a walk through fewer is faster than its lookups.
pub(super) const INDEXED: usize = 12;

/// Places in the table, best first.
pub(super) type Places = Box<[u32]>;

/// The index of a table, by what its kind of routes matches paths with.
#[derive(Debug)]
pub(super) enum TableIndex {
    Paths(PathIndex),
    Calls(CallIndex),
}

impl TableIndex {
    /// `matches`: of a table, in its order.
    pub(super) fn new<'m>(matches: impl Iterator<Item = (u32, &'m Matcher)> + Clone) -> Self {
        let of_a_call = |matcher: &Matcher| matches!(matcher.path, PathMatch::Grpc(_));
        match matches.clone().any(|(_, matcher)| of_a_call(matcher)) {
            true => Self::Calls(CallIndex::new(matches)),
            false => Self::Paths(PathIndex::new(matches)),
        }
    }

    /// The matches that may hold for a request.
    pub(super) fn candidates<'t, 'h>(&'t self, view: &View<'h>) -> Candidates<'t, 'h> {
        let mut lists = match self {
            Self::Paths(index) => Lists::Paths(index.lists(view.path())),
            Self::Calls(index) => Lists::Calls(index.lists(view.path())),
        };
        let list = lists.next(false).map(|list| list.candidates(view));
        Candidates { lists, list }
    }
}

/// Goes through the matches that may hold for a request.
pub(super) struct Candidates<'t, 'h> {
    lists: Lists<'t, 'h>,
    /// The one that it is in.
    list: Option<ListCandidates<'t, 'h>>,
}

impl<'t, 'h> Candidates<'t, 'h> {
    /// The places of the next few, which may be none; a call makes few lookups. None: there are no others that
    /// may be better than what was `found`.
    pub(super) fn next(&mut self, view: &View<'h>, found: bool) -> Option<&'t [u32]> {
        loop {
            if let Some(places) = self.list.as_mut()?.next(view) {
                return Some(places);
            }
            self.list = self.lists.next(found).map(|list| list.candidates(view));
        }
    }
}

/// Goes through the lists of matches whose paths may hold for that of a request.
enum Lists<'t, 'h> {
    Paths(PathLists<'t, 'h>),
    Calls(CallLists<'t>),
}

impl<'t> Lists<'t, '_> {
    fn next(&mut self, found: bool) -> Option<&'t PlaceList> {
        match self {
            // Sorted: the list that has a match has the best.
            Self::Paths(lists) => {
                if found {
                    None
                } else {
                    lists.next()
                }
            }
            Self::Calls(lists) => lists.next(),
        }
    }
}

/// Matches of HTTPRoutes by path.
#[derive(Debug)]
pub(super) struct PathIndex {
    exact: FastHashMap<Box<[u8]>, PlaceList>,
    regex: PlaceList,
    /// By the prefix without its trailing slash.
    prefixes: FastHashMap<Box<[u8]>, PlaceList>,
    /// Lengths of those, in bytes, the longest first; each once.
    lengths: Box<[usize]>,
}

impl PathIndex {
    /// `matches`: of a table, in its order.
    fn new<'m>(matches: impl Iterator<Item = (u32, &'m Matcher)>) -> Self {
        let (mut exact, mut prefixes) = (HashMap::<_, Vec<_>>::new(), HashMap::<_, Vec<_>>::new());
        let mut regex = Vec::new();
        for (at, matcher) in matches {
            let list = match &matcher.path {
                PathMatch::Exact(path) => exact.entry(path.as_bytes()).or_default(),
                PathMatch::Prefix(prefix) => {
                    prefixes.entry(elements(prefix).as_bytes()).or_default()
                }
                PathMatch::Regex(_) => &mut regex,
                // Not in a table that has this index.
                PathMatch::Grpc(_) => continue,
            };
            list.push((at, matcher));
        }
        let mut lengths: Vec<_> = prefixes.keys().map(|prefix| prefix.len()).collect();
        lengths.sort_unstable_by(|a, b| b.cmp(a));
        lengths.dedup();
        let lists = |lists: HashMap<&[u8], Vec<_>>| {
            lists.into_iter().map(|(path, list)| (path.into(), PlaceList::new(&list))).collect()
        };
        Self {
            exact: lists(exact),
            regex: PlaceList::new(&regex),
            prefixes: lists(prefixes),
            lengths: lengths.into(),
        }
    }

    /// The lists of the matches that may hold for a path, best first.
    fn lists<'t, 'h>(&'t self, path: &'h [u8]) -> PathLists<'t, 'h> {
        PathLists {
            prefixes: &self.prefixes,
            path,
            first: [self.exact.get(path), Some(&self.regex)],
            lengths: self.lengths.iter(),
        }
    }
}

/// Goes through those lists.
struct PathLists<'t, 'h> {
    prefixes: &'t FastHashMap<Box<[u8]>, PlaceList>,
    path: &'h [u8],
    /// Of the path itself, and of expressions.
    first: [Option<&'t PlaceList>; 2],
    /// Of the prefixes that were not looked for yet.
    lengths: slice::Iter<'t, usize>,
}

impl<'t> Iterator for PathLists<'t, '_> {
    type Item = &'t PlaceList;

    fn next(&mut self) -> Option<&'t PlaceList> {
        let path = self.path;
        // A prefix ends where an element of the path does.
        let is_prefix =
            |length: usize| length == 0 || length == path.len() || path.get(length) == Some(&b'/');
        let first = self.first.iter_mut().find_map(Option::take);
        first.or_else(|| {
            let mut lengths = self.lengths.by_ref().filter(|length| is_prefix(**length));
            lengths.find_map(|length| self.prefixes.get(&path[..*length]))
        })
    }
}

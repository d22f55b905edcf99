//! The index of a route table by path. In: the matches of a table, best first. Out: of a request's path,
//! the places of the matches whose path holds for it or may hold, best first. Pure.
//!
//! A table of HTTPRoutes is sorted by the kind of its paths first, and by the length of prefixes next, and of two
//! different prefixes of one path the longer is better. Therefore the matches that concern a path are
//! those with this very path, then all expressions, then those of each of its prefixes from the longest
//! to the shortest; each of these lists is sorted already.

use std::{collections::HashMap, ops::Range, slice};

use crate::{
    hash::FastHashMap,
    route::{Matcher, PathMatch, matcher::elements},
};

mod grpc;

use self::grpc::{CallCandidates, CallIndex};

/// Places in the table, best first.
type Places = Box<[u32]>;

/// The index of a table, by what its kind of routes matches paths with.
#[derive(Debug)]
pub(super) enum TableIndex {
    Paths(PathIndex),
    Calls(CallIndex),
}

impl TableIndex {
    /// `matches`: of a table, in its order.
    pub(super) fn new<'m>(matches: impl Iterator<Item = &'m Matcher> + Clone) -> Self {
        let of_a_call = |matcher: &Matcher| matches!(matcher.path, PathMatch::Grpc(_));
        match matches.clone().any(of_a_call) {
            true => Self::Calls(CallIndex::new(matches)),
            false => Self::Paths(PathIndex::new(matches)),
        }
    }

    /// The places of the matches that may hold for a path, best first.
    pub(super) fn candidates<'t, 'h>(&'t self, path: &'h [u8]) -> Candidates<'t, 'h> {
        match self {
            Self::Paths(index) => Candidates::Paths(index.candidates(path)),
            Self::Calls(index) => Candidates::Calls(index.candidates(path)),
        }
    }
}

/// Goes through the matches that concern a path.
pub(super) enum Candidates<'t, 'h> {
    Paths(PathCandidates<'t, 'h>),
    Calls(CallCandidates<'t>),
}

impl Iterator for Candidates<'_, '_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        match self {
            Self::Paths(candidates) => candidates.next(),
            Self::Calls(candidates) => candidates.next(),
        }
    }
}

/// Matches of HTTPRoutes by path.
#[derive(Debug, Default)]
pub(super) struct PathIndex {
    exact: FastHashMap<Box<[u8]>, Places>,
    regex: Range<u32>,
    /// By the prefix without its trailing slash.
    prefixes: FastHashMap<Box<[u8]>, Places>,
    /// Lengths of those, in bytes, the longest first; each once.
    lengths: Box<[usize]>,
}

impl PathIndex {
    /// `matches`: of a table, in its order.
    fn new<'m>(matches: impl Iterator<Item = &'m Matcher>) -> Self {
        let (mut exact, mut prefixes) = (HashMap::<_, Vec<_>>::new(), HashMap::<_, Vec<_>>::new());
        let mut regex = 0..0;
        for (at, matcher) in (0..).zip(matches) {
            match &matcher.path {
                PathMatch::Exact(path) => exact.entry(path.as_bytes()).or_default().push(at),
                PathMatch::Prefix(prefix) => {
                    prefixes.entry(elements(prefix).as_bytes()).or_default().push(at);
                }
                PathMatch::Regex(_) if regex.is_empty() => regex = at..at + 1,
                PathMatch::Regex(_) => regex.end = at + 1,
                // Not in a table that has this index.
                PathMatch::Grpc(_) => {}
            }
        }
        let mut lengths: Vec<_> = prefixes.keys().map(|prefix| prefix.len()).collect();
        lengths.sort_unstable_by(|a, b| b.cmp(a));
        lengths.dedup();
        let boxed = |lists: HashMap<&[u8], Vec<u32>>| {
            lists.into_iter().map(|(path, places)| (path.into(), places.into())).collect()
        };
        Self { exact: boxed(exact), regex, prefixes: boxed(prefixes), lengths: lengths.into() }
    }

    /// The places of the matches that may hold for a path, best first.
    fn candidates<'t, 'h>(&'t self, path: &'h [u8]) -> PathCandidates<'t, 'h> {
        let exact = self.exact.get(path).map(|places| &**places).unwrap_or_default();
        PathCandidates {
            index: self,
            path,
            list: exact.iter(),
            regex: self.regex.clone(),
            lengths: self.lengths.iter(),
        }
    }
}

/// Goes through the matches of an index that concern a path.
pub(super) struct PathCandidates<'t, 'h> {
    index: &'t PathIndex,
    path: &'h [u8],
    /// What is left of the list that it is in: first that of the path itself, later those of prefixes.
    list: slice::Iter<'t, u32>,
    regex: Range<u32>,
    /// Of the prefixes that were not looked for yet.
    lengths: slice::Iter<'t, usize>,
}

impl PathCandidates<'_, '_> {
    /// The prefixes of the next length that ends at an element of the path.
    fn next_list(&mut self) -> bool {
        let path = self.path;
        let is_prefix = |length: &&usize| {
            **length == 0 || **length == path.len() || path.get(**length) == Some(&b'/')
        };
        let Some(length) = self.lengths.find(is_prefix) else { return false };
        let places = self.index.prefixes.get(&path[..*length]);
        self.list = places.map(|places| &**places).unwrap_or_default().iter();
        true
    }
}

impl Iterator for PathCandidates<'_, '_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        loop {
            let at = self.list.next().copied().or_else(|| self.regex.next());
            if let Some(at) = at {
                return usize::try_from(at).ok();
            }
            if !self.next_list() {
                return None;
            }
        }
    }
}

//! The index of matches that share a path, by what else they want. In: these matches, best first. Out: for a
//! request, lists of some of them, each best first. No match that holds is missing. Pure.
//!
//! One condition of each match counts: the Exact value of a header or of a query parameter, or the method, and
//! of several the one that the fewest others share. The fields and parameters of a request are looked
//! up, so that a search costs what they are, and not how many matches or names there are. Matches without
//! such a condition, which have expressions or nothing, are in the last list, all of them.

use std::{collections::HashMap, ptr, str};

use http::{HeaderName, HeaderValue, Method, header::Keys};

use super::{INDEXED, Places};
use crate::{
    hash::FastHashMap,
    route::{
        Matcher, ValueMatch,
        matcher::{Pairs, View, decode},
    },
};

/// Matches that share a path.
#[derive(Debug)]
pub(in crate::route::table) enum PlaceList {
    /// Few of them.
    Plain(Places),
    Indexed(Box<ConditionIndex>),
}

/// Matches by one condition of each.
#[derive(Debug, Default)]
pub(in crate::route::table) struct ConditionIndex {
    headers: FastHashMap<HeaderName, ByValue>,
    params: FastHashMap<Box<str>, ByValue>,
    methods: FastHashMap<Method, Places>,
    /// Those without a condition that can be looked up.
    others: Places,
}

/// By the value of one header or query parameter.
type ByValue = FastHashMap<Box<[u8]>, Places>;

/// What a match can be looked up by.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum MatchCondition<'m> {
    Header(&'m HeaderName, &'m str),
    Param(&'m str, &'m str),
    Method(&'m Method),
}

impl<'m> MatchCondition<'m> {
    fn all_of(matcher: &'m Matcher) -> impl Iterator<Item = Self> {
        let exact = |value: &'m ValueMatch| match value {
            ValueMatch::Exact(exact) => Some(exact.as_str()),
            ValueMatch::Regex(_) => None,
        };
        let headers = matcher.headers.iter();
        let headers = headers.filter_map(move |h| Some(Self::Header(&h.name, exact(&h.value)?)));
        let params = matcher.query.iter();
        let params = params.filter_map(move |p| Some(Self::Param(&p.name, exact(&p.value)?)));
        headers.chain(params).chain(matcher.method.iter().map(Self::Method))
    }
}

impl PlaceList {
    /// `matches`: in the order of their places.
    pub(super) fn new(matches: &[(u32, &Matcher)]) -> Self {
        match matches.len() < INDEXED {
            true => Self::Plain(matches.iter().map(|(at, _)| *at).collect()),
            false => Self::Indexed(Box::new(ConditionIndex::new(matches))),
        }
    }

    pub(super) fn candidates<'t, 'h>(&'t self, view: &View<'h>) -> ListCandidates<'t, 'h> {
        match self {
            Self::Plain(places) => ListCandidates::Plain(Some(places)),
            Self::Indexed(index) => ListCandidates::Indexed(index.candidates(view)),
        }
    }
}

impl ConditionIndex {
    fn new(matches: &[(u32, &Matcher)]) -> Self {
        let mut shared_by = HashMap::<_, usize>::new();
        for condition in matches.iter().flat_map(|(_, matcher)| MatchCondition::all_of(matcher)) {
            *shared_by.entry(condition).or_default() += 1;
        }
        let mut lists = HashMap::<_, Vec<_>>::new();
        for (at, matcher) in matches {
            // Of several the first: values of headers are rarer than methods.
            let condition = MatchCondition::all_of(matcher).min_by_key(|one| shared_by.get(one));
            lists.entry(condition).or_default().push(*at);
        }
        let mut index = Self::default();
        for (condition, places) in lists {
            index.add(condition, places.into());
        }
        index
    }

    fn add(&mut self, condition: Option<MatchCondition<'_>>, places: Places) {
        match condition {
            Some(MatchCondition::Header(name, value)) => {
                let values = self.headers.entry(name.clone()).or_default();
                values.insert(value.as_bytes().into(), places);
            }
            Some(MatchCondition::Param(name, value)) => {
                let values = self.params.entry(name.into()).or_default();
                values.insert(value.as_bytes().into(), places);
            }
            Some(MatchCondition::Method(method)) => {
                self.methods.insert(method.clone(), places);
            }
            None => self.others = places,
        }
    }

    fn candidates<'t, 'h>(&'t self, view: &View<'h>) -> ConditionCandidates<'t, 'h> {
        ConditionCandidates {
            index: self,
            names: (!self.headers.is_empty()).then(|| view.names()),
            params: (!self.params.is_empty()).then(|| view.params()),
            rest: [self.methods.get(view.method()), Some(&self.others)],
        }
    }

    fn by_header(&self, name: &HeaderName, view: &View<'_>) -> Option<&Places> {
        self.headers.get(name)?.get(&*view.value(name)?)
    }

    /// `name` and `value`: of one parameter, still encoded.
    fn by_param(&self, name: &[u8], value: &[u8], view: &View<'_>) -> Option<&Places> {
        let name = decode(name);
        let name = str::from_utf8(&name).ok()?;
        let values = self.params.get(name)?;
        // The first of a name counts, and the others bring up nothing.
        let first = view.param(name).filter(|first| ptr::eq(*first, value))?;
        values.get(&*decode(first))
    }
}

/// Goes through the lists of a [`PlaceList`].
pub(super) enum ListCandidates<'t, 'h> {
    Plain(Option<&'t Places>),
    Indexed(ConditionCandidates<'t, 'h>),
}

/// Goes through what a request brings up.
pub(super) struct ConditionCandidates<'t, 'h> {
    index: &'t ConditionIndex,
    /// Of fields that were not looked up yet; None if no match is found by one.
    names: Option<Keys<'h, HeaderValue>>,
    /// Likewise.
    params: Option<Pairs<'h>>,
    rest: [Option<&'t Places>; 2],
}

impl<'t> ListCandidates<'t, '_> {
    /// The next list, which may be empty; a call makes one lookup at most. None: there is no other.
    pub(super) fn next(&mut self, view: &View<'_>) -> Option<&'t [u32]> {
        match self {
            Self::Plain(places) => places.take().map(|places| &**places),
            Self::Indexed(candidates) => candidates.next(view),
        }
    }
}

impl<'t> ConditionCandidates<'t, '_> {
    fn next(&mut self, view: &View<'_>) -> Option<&'t [u32]> {
        let index = self.index;
        let found = if let Some(name) = self.names.as_mut().and_then(Iterator::next) {
            view.looked();
            index.by_header(name, view)
        } else if let Some((name, value)) = self.params.as_mut().and_then(Iterator::next) {
            view.looked();
            index.by_param(name, value, view)
        } else {
            Some(self.rest.iter_mut().find_map(Option::take)?)
        };
        Some(found.map(|places| &**places).unwrap_or_default())
    }
}

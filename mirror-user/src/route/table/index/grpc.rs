//! The index of a table of GRPCRoutes, by service and method. In: the matches of a table, best first. Out:
//! of a request's path, the lists of matches that may hold for it. Pure.

use std::collections::HashMap;

use super::conditions::PlaceList;
use crate::{
    hash::FastHashMap,
    route::{GrpcMethodMatch, Matcher, PathMatch, ValueMatch, matcher::grpc_call},
};

/// Matches by the calls that they may hold for.
#[derive(Debug)]
pub(in crate::route::table) struct CallIndex {
    /// By the whole path of those that name a service and a method.
    calls: FastHashMap<Box<[u8]>, PlaceList>,
    /// By the service of those that name one, and no method or an expression for it.
    services: FastHashMap<Box<[u8]>, PlaceList>,
    /// All others.
    others: PlaceList,
}

impl CallIndex {
    /// `matches`: of a table, in its order.
    pub(super) fn new<'m>(matches: impl Iterator<Item = (u32, &'m Matcher)>) -> Self {
        let mut calls = HashMap::<Box<[u8]>, Vec<_>>::new();
        let mut services = HashMap::<Box<[u8]>, Vec<_>>::new();
        let mut others = Vec::new();
        for (at, matcher) in matches {
            match &matcher.path {
                PathMatch::Grpc(GrpcMethodMatch {
                    service: Some(ValueMatch::Exact(service)),
                    method: Some(ValueMatch::Exact(method)),
                }) => {
                    let path = format!("/{service}/{method}").into_bytes();
                    calls.entry(path.into()).or_default().push((at, matcher));
                }
                PathMatch::Grpc(GrpcMethodMatch {
                    service: Some(ValueMatch::Exact(service)),
                    ..
                }) => {
                    let lists = services.entry(service.as_bytes().into());
                    lists.or_default().push((at, matcher));
                }
                _ => others.push((at, matcher)),
            }
        }
        let lists = |lists: HashMap<Box<[u8]>, Vec<_>>| {
            lists.into_iter().map(|(key, matches)| (key, PlaceList::new(&matches))).collect()
        };
        Self { calls: lists(calls), services: lists(services), others: PlaceList::new(&others) }
    }

    /// The lists of the matches that may hold for a path. Each of them may have the best.
    pub(super) fn lists(&self, path: &[u8]) -> CallLists<'_> {
        let service = grpc_call(path).map(|(service, _)| service);
        let services = service.and_then(|service| self.services.get(service));
        CallLists([self.calls.get(path), services, Some(&self.others)])
    }
}

/// Goes through those lists.
pub(super) struct CallLists<'t>([Option<&'t PlaceList>; 3]);

impl<'t> Iterator for CallLists<'t> {
    type Item = &'t PlaceList;

    fn next(&mut self) -> Option<&'t PlaceList> {
        self.0.iter_mut().find_map(Option::take)
    }
}

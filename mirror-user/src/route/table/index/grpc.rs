//! The index of a table of GRPCRoutes, by service and method. In: the matches of a table, best first. Out:
//! of a request's path, the places of the matches that may hold for it, best first. Pure.

use std::collections::HashMap;

use super::Places;
use crate::{
    hash::FastHashMap,
    route::{GrpcMethodMatch, Matcher, PathMatch, ValueMatch, matcher::grpc_call},
};

/// Matches by the calls that they may hold for.
#[derive(Debug, Default)]
pub(in crate::route::table) struct CallIndex {
    /// By the whole path of those that name a service and a method.
    calls: FastHashMap<Box<[u8]>, Places>,
    /// By the service of those that name one, and no method or an expression for it.
    services: FastHashMap<Box<[u8]>, Places>,
    /// All others: each of them is tried.
    others: Places,
}

impl CallIndex {
    /// `matches`: of a table, in its order.
    pub(super) fn new<'m>(matches: impl Iterator<Item = &'m Matcher>) -> Self {
        let mut calls = HashMap::<Box<[u8]>, Vec<_>>::new();
        let mut services = HashMap::<Box<[u8]>, Vec<_>>::new();
        let mut others = Vec::new();
        for (at, matcher) in (0..).zip(matches) {
            match &matcher.path {
                PathMatch::Grpc(GrpcMethodMatch {
                    service: Some(ValueMatch::Exact(service)),
                    method: Some(ValueMatch::Exact(method)),
                }) => {
                    let path = format!("/{service}/{method}").into_bytes();
                    calls.entry(path.into()).or_default().push(at);
                }
                PathMatch::Grpc(GrpcMethodMatch {
                    service: Some(ValueMatch::Exact(service)),
                    ..
                }) => {
                    services.entry(service.as_bytes().into()).or_default().push(at);
                }
                _ => others.push(at),
            }
        }
        let boxed = |lists: HashMap<Box<[u8]>, Vec<u32>>| {
            lists.into_iter().map(|(key, places)| (key, places.into())).collect()
        };
        Self { calls: boxed(calls), services: boxed(services), others: others.into() }
    }

    /// The places of the matches that may hold for a path, best first.
    pub(super) fn candidates(&self, path: &[u8]) -> CallCandidates<'_> {
        let service = grpc_call(path).map(|(service, _)| service);
        let lists = [
            list(self.calls.get(path)),
            list(service.and_then(|service| self.services.get(service))),
            &*self.others,
        ];
        CallCandidates(lists)
    }
}

fn list(places: Option<&Places>) -> &[u32] {
    places.map(|places| &**places).unwrap_or_default()
}

/// Merges lists of places, each of which is sorted, and no two of which have one in common.
pub(in crate::route::table) struct CallCandidates<'t>([&'t [u32]; 3]);

impl Iterator for CallCandidates<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let left = self.0.iter_mut().filter(|list| !list.is_empty());
        let list = left.min_by_key(|list| list[0])?;
        let (at, rest) = list.split_first()?;
        *list = rest;
        usize::try_from(*at).ok()
    }
}

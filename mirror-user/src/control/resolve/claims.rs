//! Who has an address: the claims of Services on it in; the one that it belongs to out. A table of
//! fixed size for each Namespace and in all: a claim that comes when it is full waits, and displaces none.
//!
//! Of several claims the first in this order has the address: a ClusterIP's own Service; a Service
//! with routes, before one that is captured ahead of its routes; the oldest claim; the first by
//! namespace, name and port. A claim is as old as the youngest of what makes it: the Service, its
//! oldest route there, the slice that lists the endpoint. When it goes, the next takes over.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, btree_map::Entry},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use super::{
    guard::{AddressRefusal, Guard},
    policy::AddressPolicy,
};
use crate::route::ServicePort;

/// A Service's claim on an address; what is less comes first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct AddressClaim {
    pub(super) right: Right,
    /// No route is attached: the Service is captured ahead of them.
    pub(super) ahead: bool,
    /// Seconds since 1970; `i64::MAX` where nothing says it (a file).
    pub(super) since: i64,
    pub(super) service: Arc<ServicePort>,
    /// The Pod that the endpoint is said to be.
    pub(super) pod: Option<Box<str>>,
}

/// By what right an address is claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Right {
    /// It is the Service's ClusterIP.
    ClusterIp,
    /// It is an endpoint's.
    Endpoint,
}

/// All claims.
#[derive(Debug, Default)]
pub(super) struct AddressClaims {
    of: BTreeMap<SocketAddr, BTreeSet<Arc<AddressClaim>>>,
    /// How many the Services of each Namespace have.
    by_namespace: HashMap<String, usize>,
    total: usize,
}

/// What became of the claims of a Service's port.
#[derive(Clone, Debug, Default)]
pub(super) struct ClaimStatus {
    /// Addresses that it has.
    pub(super) held: usize,
    /// Those that others have.
    pub(super) lost: Option<LostAddresses>,
    /// Addresses that may not be a frontend: why, with the first of each, and how many.
    pub(super) refused: BTreeMap<AddressRefusal, (SocketAddr, usize)>,
    /// Those for which there was no room.
    pub(super) without_room: usize,
}

/// Addresses that belong to others.
#[derive(Clone, Debug)]
pub(super) struct LostAddresses {
    /// The first of them.
    pub(super) first: SocketAddr,
    /// Who has that one.
    pub(super) owner: Arc<ServicePort>,
    /// How many there are.
    pub(super) count: usize,
}

impl AddressClaims {
    /// How many more claims of the Namespace have room.
    pub(super) fn room(&self, policy: &AddressPolicy, namespace: &str) -> usize {
        let own = self.by_namespace.get(namespace).copied().unwrap_or_default();
        let left = policy.namespace_frontends.saturating_sub(own);
        left.min(policy.frontends.saturating_sub(self.total))
    }

    pub(super) fn insert(&mut self, address: SocketAddr, claim: &Arc<AddressClaim>) {
        if self.of.entry(address).or_default().insert(Arc::clone(claim)) {
            let namespace = &claim.service.namespace;
            match self.by_namespace.get_mut(namespace) {
                Some(count) => *count += 1,
                None => drop(self.by_namespace.insert(namespace.clone(), 1)),
            }
            self.total += 1;
        }
    }

    pub(super) fn remove(&mut self, address: SocketAddr, claim: &Arc<AddressClaim>) {
        let Entry::Occupied(mut here) = self.of.entry(address) else { return };
        if !here.get_mut().remove(claim) {
            return;
        }
        if here.get().is_empty() {
            here.remove();
        }
        self.total -= 1;
        if let Some(count) = self.by_namespace.get_mut(&claim.service.namespace) {
            *count -= 1;
            if *count == 0 {
                self.by_namespace.remove(&claim.service.namespace);
            }
        }
    }

    /// The claim that an address belongs to.
    pub(super) fn owner(
        &self,
        guard: &Guard<'_>,
        address: SocketAddr,
    ) -> Option<&Arc<AddressClaim>> {
        let mut claims = self.of.get(&address)?.iter();
        claims.find(|claim| claim.refusal(guard, address).is_none())
    }

    /// All claims on an address.
    pub(super) fn on(&self, address: SocketAddr) -> impl Iterator<Item = &Arc<AddressClaim>> {
        self.of.get(&address).into_iter().flatten()
    }

    /// The claimed addresses with this IP address, whatever their port; IPv4 also where it is mapped.
    pub(super) fn at(&self, ip: IpAddr) -> impl Iterator<Item = SocketAddr> + '_ {
        let mapped = match ip {
            IpAddr::V4(v4) => Some(IpAddr::V6(v4.to_ipv6_mapped())),
            IpAddr::V6(_) => None,
        };
        let ports = |ip| SocketAddr::new(ip, 0)..=SocketAddr::new(ip, u16::MAX);
        let ranges = std::iter::once(ip).chain(mapped).map(move |ip| self.of.range(ports(ip)));
        ranges.flatten().map(|(address, _)| *address)
    }

    /// What became of a port's claims.
    pub(super) fn claim_status(
        &self,
        guard: &Guard<'_>,
        claims: &BTreeMap<SocketAddr, Arc<AddressClaim>>,
        without_room: usize,
    ) -> ClaimStatus {
        let mut claim_status = ClaimStatus { without_room, ..ClaimStatus::default() };
        for (address, claim) in claims {
            if let Some(refusal) = claim.refusal(guard, *address) {
                claim_status.refused.entry(refusal).or_insert((*address, 0)).1 += 1;
                continue;
            }
            match self.owner(guard, *address) {
                Some(owner) if owner != claim => {
                    let lost = claim_status.lost.get_or_insert_with(|| LostAddresses {
                        first: *address,
                        owner: Arc::clone(&owner.service),
                        count: 0,
                    });
                    lost.count += 1;
                }
                _ => claim_status.held += 1,
            }
        }
        claim_status
    }
}

impl ClaimStatus {
    /// Whether nothing is claimed: a headless Service without ready endpoints.
    pub(super) fn is_empty(&self) -> bool {
        self.held == 0 && self.lost.is_none() && self.refused.is_empty() && self.without_room == 0
    }
}

impl AddressClaim {
    /// Why the claim is void.
    fn refusal(&self, guard: &Guard<'_>, address: SocketAddr) -> Option<AddressRefusal> {
        match self.right {
            Right::ClusterIp => guard.cluster_ip(address.ip()),
            Right::Endpoint => {
                guard.frontend(&self.service.namespace, address.ip(), self.pod.as_deref())
            }
        }
    }
}

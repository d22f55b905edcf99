//! Which endpoint: the less busy of two drawn at random (power of two choices).

use std::{
    cell::{Cell, RefCell},
    hash::BuildHasher as _,
    net::SocketAddr,
    rc::Rc,
};

use crate::hash::FastHashMap;
use foldhash::fast::FixedState;

/// Connections of clients by endpoint that mirror chose, in this worker.
#[derive(Debug, Default)]
pub(super) struct Balancer {
    loads: RefCell<FastHashMap<SocketAddr, Rc<Cell<u32>>>>,
}

/// One client's connection that was given this endpoint, until it is dropped.
#[derive(Debug)]
pub(super) struct Load(Rc<Cell<u32>>);

impl Drop for Load {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Balancer {
    /// One of `endpoints` that is not in `failed`; None when none is left.
    pub(super) fn pick(
        &self,
        endpoints: &[SocketAddr],
        draw: u64,
        failed: &[SocketAddr],
    ) -> Option<(SocketAddr, Load)> {
        let left: Vec<SocketAddr>;
        let candidates = if failed.is_empty() {
            endpoints
        } else {
            left = endpoints.iter().filter(|e| !failed.contains(e)).copied().collect();
            &left
        };
        let endpoint = match candidates {
            [] => return None,
            [only] => *only,
            many => self.less_busy(many, draw),
        };
        Some((endpoint, self.enter(endpoint)))
    }

    /// The endpoint that all connections of this client get while it is ready (Service,
    /// `sessionAffinity: ClientIP`), by rendezvous hashing: no state, and an endpoint that comes or
    /// goes moves no more clients than it must. None when none is left that is not in `failed`.
    pub(super) fn affine(
        &self,
        endpoints: &[SocketAddr],
        client: &str,
        failed: &[SocketAddr],
    ) -> Option<(SocketAddr, Load)> {
        let left = endpoints.iter().filter(|endpoint| !failed.contains(endpoint));
        let endpoint = *left.max_by_key(|endpoint| {
            // The same in all workers and agents: no seed of the process.
            FixedState::default().hash_one((client, endpoint))
        })?;
        Some((endpoint, self.enter(endpoint)))
    }

    fn enter(&self, endpoint: SocketAddr) -> Load {
        let load = self.load(endpoint);
        load.set(load.get() + 1);
        Load(load)
    }

    /// Forgets endpoints that nothing is under way to.
    pub(super) fn sweep(&self) {
        self.loads.borrow_mut().retain(|_, load| Rc::strong_count(load) > 1);
    }

    /// `many` has two or more; two different ones are compared.
    fn less_busy(&self, many: &[SocketAddr], draw: u64) -> SocketAddr {
        let first = scale(draw >> 32, many.len());
        let second = scale(draw & 0xffff_ffff, many.len() - 1);
        let second = if second >= first { second + 1 } else { second };
        let (a, b) = (many[first], many[second]);
        if self.load(b).get() < self.load(a).get() { b } else { a }
    }

    fn load(&self, endpoint: SocketAddr) -> Rc<Cell<u32>> {
        Rc::clone(self.loads.borrow_mut().entry(endpoint).or_default())
    }
}

/// Maps 32 random bits to 0..n.
fn scale(bits: u64, n: usize) -> usize {
    usize::try_from((bits * n as u64) >> 32).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn endpoints(n: u8) -> Vec<SocketAddr> {
        (1..=n).map(|i| SocketAddr::from(([10, 0, 0, i], 80))).collect()
    }

    #[test]
    fn nothing_to_pick_from_is_none() {
        let balancer = Balancer::default();
        let one = endpoints(1);
        assert!(balancer.pick(&[], 0, &[]).is_none());
        assert!(balancer.pick(&one, 0, &one).is_none());
    }

    #[test]
    fn of_two_the_less_busy_is_picked() {
        let balancer = Balancer::default();
        let two = endpoints(2);
        let (busy, _held) = balancer.pick(&two, 0, &[]).unwrap();
        for draw in [0, u64::MAX, 1 << 63, 0x1234_5678_9abc_def0] {
            assert_ne!(balancer.pick(&two, draw, &[]).unwrap().0, busy);
        }
    }

    #[test]
    fn every_endpoint_gets_its_share() {
        let balancer = Balancer::default();
        let five = endpoints(5);
        let mut counts = HashMap::<_, u32>::new();
        let mut draw = 1_u64;
        for _ in 0..5_000 {
            draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
            *counts.entry(balancer.pick(&five, draw, &[]).unwrap().0).or_default() += 1;
        }
        assert_eq!(counts.len(), 5);
        assert!(counts.values().all(|n| (800..1_200).contains(n)), "{counts:?}");
    }

    #[test]
    fn a_client_with_affinity_keeps_its_endpoint() {
        let balancer = Balancer::default();
        let five = endpoints(5);
        let of = |endpoints: &[SocketAddr], client: &str, failed: &[SocketAddr]| {
            balancer.affine(endpoints, client, failed).map(|(endpoint, _)| endpoint)
        };
        let clients: Vec<_> = (0..200).map(|n| format!("default/client-{n}")).collect();
        let mut seen = std::collections::HashSet::new();
        for client in &clients {
            let first = of(&five, client, &[]).unwrap();
            seen.insert(first);
            assert_eq!(of(&five, client, &[]), Some(first));
            // An endpoint that goes moves its own clients alone.
            let (gone, left) = five.split_last().unwrap();
            let next = of(left, client, &[]).unwrap();
            assert_eq!(next == first, first != *gone, "{client}");
            assert_ne!(of(&five, client, &[first]), Some(first));
        }
        assert_eq!(seen.len(), 5);
        assert_eq!(of(&[], "a", &[]), None);
    }

    #[test]
    fn endpoints_without_load_are_forgotten() {
        let balancer = Balancer::default();
        let held = balancer.pick(&endpoints(1), 0, &[]).unwrap();
        balancer.sweep();
        assert_eq!(balancer.loads.borrow().len(), 1);
        drop(held);
        balancer.sweep();
        assert_eq!(balancer.loads.borrow().len(), 0);
    }
}

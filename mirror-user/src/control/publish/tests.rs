//! Ids, tombstones, and that nothing is captured that the snapshot does not know.

use std::{cell::RefCell, collections::HashMap, fmt, net::Ipv4Addr, rc::Rc};

use proptest::prelude::*;

use super::*;
use crate::{
    model::{ObjectName, RouteKind},
    route::{
        AppProtocol, Backend, BackendRef, Backends, RouteTable, Rule, RuleEntry, ServicePort,
        Timeouts,
    },
};

/// A map that checks the promise at every step, from inside.
struct Fake {
    snapshot: Arc<ArcSwap<Snapshot>>,
    forward: Rc<RefCell<HashMap<SocketAddr, FrontendId>>>,
    entries: Rc<RefCell<HashMap<SocketAddr, MapEntry>>>,
    /// Refuses the calls whose turn it is.
    refuse: Vec<bool>,
    calls: usize,
}

#[derive(Debug, PartialEq, Eq)]
struct Refused;

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("refused")
    }
}

impl std::error::Error for Refused {}

impl Fake {
    fn new(snapshot: &Arc<ArcSwap<Snapshot>>, refuse: Vec<bool>) -> Self {
        let (forward, entries) = Default::default();
        Self { snapshot: Arc::clone(snapshot), forward, entries, refuse, calls: 0 }
    }

    fn step(&mut self) -> Result<(), Refused> {
        self.check();
        let refused = !self.refuse.is_empty() && self.refuse[self.calls % self.refuse.len()];
        self.calls += 1;
        if refused { Err(Refused) } else { Ok(()) }
    }

    /// Each entry that a connect could hit has its id in the snapshot, with its address.
    fn check(&self) {
        let snapshot = self.snapshot.load();
        for (address, id) in self.forward.borrow().iter() {
            let known = match snapshot.frontends.get(id).expect("captured and unknown") {
                FrontendState::Live(frontend) => frontend.address,
                FrontendState::Tombstone(frontend) => frontend.address,
            };
            assert_eq!(known, *address);
        }
    }
}

impl FrontendMap for Fake {
    type Error = Refused;

    fn insert(
        &mut self,
        id: FrontendId,
        address: SocketAddr,
        entry: MapEntry,
    ) -> Result<(), Refused> {
        self.step()?;
        let snapshot = self.snapshot.load();
        let Some(FrontendState::Live(frontend)) = snapshot.frontends.get(&id) else {
            panic!("captured and not live");
        };
        assert_eq!(frontend.capture == FrontendCapture::Tapped, entry == MapEntry::Tapped);
        self.forward.borrow_mut().insert(address, id);
        self.entries.borrow_mut().insert(address, entry);
        Ok(())
    }

    fn remove(&mut self, address: SocketAddr) -> Result<(), Refused> {
        self.step()?;
        self.forward.borrow_mut().remove(&address);
        self.entries.borrow_mut().remove(&address);
        Ok(())
    }

    fn forget(&mut self, id: FrontendId) -> Result<(), Refused> {
        self.step()?;
        assert!(self.forward.borrow().values().all(|known| *known != id), "still captured");
        Ok(())
    }
}

fn address(host: u8) -> SocketAddr {
    (Ipv4Addr::new(10, 0, 0, host), 80).into()
}

fn frontends(hosts: &[u8]) -> FrontendChanges {
    let service = ServicePort { namespace: "d".into(), name: "s".into(), port: 80 };
    let service = Arc::new(service);
    let frontend = |host: &u8| ResolvedFrontend {
        ahead: false,
        address: address(*host),
        service: Arc::clone(&service),
        producer: Some(RouteTable::default()),
        consumers: HashMap::new(),
    };
    hosts.iter().map(frontend).map(|f| (f.address, Some(f))).collect()
}

fn publisher(refuse: Vec<bool>) -> Publisher<Fake> {
    let snapshot = Arc::new(ArcSwap::from_pointee(Snapshot::default()));
    Publisher::new(Fake::new(&snapshot, refuse), snapshot)
}

fn id_of(publisher: &Publisher<Fake>, host: u8) -> Option<u32> {
    publisher.known.get(&address(host)).map(|known| known.id.0)
}

fn lookup(publisher: &Publisher<Fake>, id: u32) -> Option<FrontendState> {
    publisher.snapshot.load().frontends.get(&FrontendId(id)).cloned()
}

/// With a rule that matches everything and only mirrors, or one that does more.
fn routed(host: u8, only_mirrors: bool) -> FrontendChanges {
    let mut changes = frontends(&[host]);
    let frontend = changes.values_mut().next().unwrap().as_mut().unwrap();
    let backend = Backend {
        service: Arc::clone(&frontend.service),
        protocol: AppProtocol::default(),
        addresses: vec![frontend.address],
        endpoints: Vec::new(),
        unready: Vec::new(),
        affinity: false,
    };
    let target = Ok(Arc::new(backend));
    let name = ObjectName { namespace: "d".into(), name: "r".into() };
    let rule = Rule {
        route: RouteKind::Http.named(name).into(),
        index: 0,
        name: None,
        filters: Vec::new(),
        backends: Backends::new(vec![BackendRef { weight: 1, filters: Vec::new(), target }]),
        timeouts: Timeouts {
            request: (!only_mirrors).then_some(Duration::from_secs(1)),
            backend: None,
        },
        retry: None,
    };
    let entry = RuleEntry { rule: Arc::new(rule), matches: Vec::new(), created: None };
    frontend.producer = Some(RouteTable::new([entry]));
    changes
}

#[test]
fn a_change_of_routes_changes_how_new_connections_are_captured() {
    for (mode, otherwise) in [
        (CaptureMode::Proxy, Some(MapEntry::Proxied)),
        (CaptureMode::Auto, Some(MapEntry::Proxied)),
        (CaptureMode::Tap, None),
    ] {
        let mut publisher = publisher(Vec::new()).capturing(mode, EndpointChoice::Service);
        let mut now = Instant::now();
        for only_mirrors in [true, false, false, true, false] {
            now += Duration::from_secs(1);
            assert!(publisher.change(routed(1, only_mirrors), now).is_empty());
            let entry = publisher.map().entries.borrow().get(&address(1)).copied();
            let tapped = only_mirrors && mode != CaptureMode::Proxy;
            let expected = if tapped { Some(MapEntry::Tapped) } else { otherwise };
            assert_eq!(entry, expected, "{mode:?} {only_mirrors}");
            // The id stays, and so do the connections that carry it.
            assert_eq!(id_of(&publisher, 1), Some(2));
        }
        assert!(publisher.replace(FrontendChanges::new(), now).is_empty());
        assert!(publisher.map().entries.borrow().is_empty());
    }
}

#[test]
fn a_frontend_that_the_map_refuses_to_change_is_tried_again() {
    let mut publisher = publisher(Vec::new()).capturing(CaptureMode::Auto, EndpointChoice::Service);
    let now = Instant::now();
    assert!(publisher.change(routed(1, false), now).is_empty());
    publisher.map.refuse = vec![true];
    assert_eq!(publisher.change(routed(1, true), now).len(), 1);
    assert_eq!(publisher.map().entries.borrow()[&address(1)], MapEntry::Proxied);
    publisher.map.refuse.clear();
    assert!(publisher.change(FrontendChanges::new(), now).is_empty());
    assert_eq!(publisher.map().entries.borrow()[&address(1)], MapEntry::Tapped);
}

#[test]
fn ids_count_upward_and_stay() {
    let mut publisher = publisher(Vec::new());
    let now = Instant::now();
    assert!(publisher.replace(frontends(&[1, 2]), now).is_empty());
    assert_eq!((id_of(&publisher, 1), id_of(&publisher, 2)), (Some(2), Some(3)));
    publisher.replace(frontends(&[2, 3]), now);
    assert_eq!((id_of(&publisher, 2), id_of(&publisher, 3)), (Some(3), Some(4)));
    assert!(matches!(lookup(&publisher, 2), Some(FrontendState::Tombstone(_))));
    publisher.replace(frontends(&[1]), now);
    assert_eq!(id_of(&publisher, 1), Some(2), "revived");
    assert!(matches!(lookup(&publisher, 2), Some(FrontendState::Live(_))));
    assert_eq!(publisher.map().forward.borrow().len(), 1);
}

#[test]
fn a_tombstone_is_forgotten_only_for_room_and_when_nothing_carries_it() {
    let mut publisher = publisher(Vec::new());
    publisher.capacity = 2;
    let start = Instant::now();
    let later = start + MIN_TOMBSTONE_AGE;
    publisher.replace(frontends(&[1, 2]), start);
    let Some(FrontendState::Live(frontend)) = lookup(&publisher, 2) else { panic!() };
    let connection = Arc::clone(&frontend.connection_ref);
    drop(frontend);
    publisher.replace(frontends(&[]), start);

    let errors = publisher.replace(frontends(&[3]), start);
    assert!(matches!(errors[..], [PublishError::Full(_)]), "too young: {errors:?}");
    assert!(publisher.replace(frontends(&[3]), later).is_empty());
    assert_eq!(id_of(&publisher, 1), Some(2), "a connection carries it");
    assert_eq!(id_of(&publisher, 2), None, "forgotten");
    assert_eq!(id_of(&publisher, 3), Some(4));
    assert!(matches!(publisher.replace(frontends(&[3, 4]), later)[..], [PublishError::Full(_)]));
    drop(connection);
    assert!(publisher.replace(frontends(&[3, 4]), later).is_empty());
    assert_eq!(id_of(&publisher, 1), None);
}

#[test]
fn after_the_last_id_only_forgotten_ones_are_issued() {
    let mut publisher = publisher(Vec::new());
    let now = Instant::now();
    publisher.replace(frontends(&[1]), now);
    publisher.next = FrontendId::MAX;
    publisher.replace(frontends(&[1, 2, 3]), now);
    assert_eq!((id_of(&publisher, 2), id_of(&publisher, 3)), (Some(FrontendId::MAX.0), Some(3)));
}

#[test]
fn what_the_map_refused_is_tried_again() {
    let mut publisher = publisher(vec![true, false, true, false]);
    let now = Instant::now();
    assert!(matches!(publisher.replace(frontends(&[1]), now)[..], [PublishError::Insert { .. }]));
    assert!(publisher.replace(frontends(&[1]), now).is_empty());
    assert!(matches!(publisher.replace(frontends(&[]), now)[..], [PublishError::Remove { .. }]));
    assert_eq!(publisher.map().forward.borrow().len(), 1);
    assert!(publisher.replace(frontends(&[]), now).is_empty());
    assert_eq!(publisher.map().forward.borrow().len(), 0);
}

#[test]
fn a_change_touches_only_what_it_names() {
    let mut publisher = publisher(Vec::new());
    let now = Instant::now();
    publisher.replace(frontends(&[1, 2]), now);
    let Some(FrontendState::Live(before)) = lookup(&publisher, 2) else { panic!() };
    let mut changes = frontends(&[3]);
    changes.insert(address(2), None);
    changes.insert(address(9), None);
    assert!(publisher.change(changes, now).is_empty());
    let Some(FrontendState::Live(after)) = lookup(&publisher, 2) else { panic!() };
    assert!(Arc::ptr_eq(&before, &after));
    assert!(matches!(lookup(&publisher, 3), Some(FrontendState::Tombstone(_))));
    assert!(matches!(lookup(&publisher, 4), Some(FrontendState::Live(_))));
    assert_eq!(publisher.map().forward.borrow().len(), 2);
}

#[test]
fn what_had_no_room_is_in_force_as_soon_as_it_has() {
    let mut publisher = publisher(Vec::new());
    publisher.capacity = 1;
    let now = Instant::now();
    assert_eq!(publisher.replace(frontends(&[1, 2]), now).len(), 1);
    let changes = FrontendChanges::from([(address(1), None)]);
    assert_eq!(publisher.change(changes, now).len(), 1, "a tombstone has the room");
    assert!(publisher.change(FrontendChanges::new(), now + MIN_TOMBSTONE_AGE).is_empty());
    assert!(matches!(lookup(&publisher, 3), Some(FrontendState::Live(_))));
}

proptest! {
    #[test]
    fn make_before_break(
        steps in prop::collection::vec((prop::collection::btree_set(0_u8..12, 0..6), 0_u64..50), 1..20),
        refuse in prop::collection::vec(prop::bool::weighted(0.2), 0..7),
        holds in prop::collection::vec(any::<bool>(), 20),
    ) {
        let mut publisher = publisher(refuse);
        publisher.capacity = 8;
        let mut now = Instant::now();
        let mut held: Vec<(u32, SocketAddr, ConnectionRef)> = Vec::new();
        for ((hosts, seconds), hold) in steps.into_iter().zip(holds) {
            now += Duration::from_secs(seconds);
            let hosts: Vec<_> = hosts.into_iter().collect();
            let failed: Vec<_> = publisher.replace(frontends(&hosts), now);
            publisher.map().check();
            let snapshot = publisher.snapshot.load_full();
            prop_assert!(snapshot.frontends.len() <= 8);
            // All that was asked for is in force, or an error names it.
            let live = |host: &u8| snapshot.frontends.values().any(
                |lookup| matches!(lookup, FrontendState::Live(f) if f.address == address(*host)));
            let full = failed.iter().filter(|e| matches!(e, PublishError::Full(_))).count();
            prop_assert_eq!(hosts.iter().filter(|host| !live(host)).count(), full);
            // An id that a connection carries stands for the address that it stood for.
            for (id, address, _) in &held {
                let known = match snapshot.frontends.get(&FrontendId(*id)) {
                    Some(FrontendState::Live(frontend)) => frontend.address,
                    Some(FrontendState::Tombstone(frontend)) => frontend.address,
                    None => panic!("forgot an id in use"),
                };
                prop_assert_eq!(known, *address);
            }
            if hold {
                held.extend(snapshot.frontends.iter().filter_map(|(id, lookup)| match lookup {
                    FrontendState::Live(f) => Some((id.0, f.address, Arc::clone(&f.connection_ref))),
                    FrontendState::Tombstone(_) => None,
                }).take(1));
            } else {
                held.pop();
            }
        }
    }
}

//! Step by step or all at once: the answer is the same. And: what a change does not concern keeps
//! its compiled form.

use proptest::{prelude::*, sample::select};

use super::*;
use crate::{
    control::{
        objects::{
            EndpointSlice, HttpRoute, Kind, Object, ParentRef, Port, ReferenceGrant, RouteFilter,
            RouteRule, Service, TargetRef, WeightedRef,
        },
        resolve::{Resolved, resolve},
    },
    route::{Share, Timeouts},
};

fn name(namespace: &str, name: &str) -> ObjectName {
    ObjectName { namespace: namespace.into(), name: name.into() }
}

fn any_name() -> impl Strategy<Value = ObjectName> {
    (select(vec!["n", "m"]), select(vec!["a", "b", "c"])).prop_map(|(n, own)| name(n, own))
}

fn service() -> impl Strategy<Value = Object> {
    let address = prop_oneof![
        // Few, so that Services fight over them.
        (1_u8..4).prop_map(|host| ServiceAddress::ClusterIps(vec![[10, 96, 0, host].into()])),
        Just(ServiceAddress::Headless),
        Just(ServiceAddress::Missing),
    ];
    let ports = prop::collection::btree_set(80_u16..82, 1..3);
    let wishes = vec![Wish::None, Wish::None, Wish::Enabled, Wish::Unknown("x".into())];
    (any_name(), address, ports, select(wishes)).prop_map(|(name, address, ports, capture)| {
        let port = |port| Port { name: format!("p{port}"), port, tcp: true, app_protocol: None };
        let ports = ports.into_iter().map(port).collect();
        Object::Service(Service { name, address, ports, capture })
    })
}

fn slice() -> impl Strategy<Value = Object> {
    let service = prop::option::weighted(0.9, select(vec!["a", "b", "c"]));
    (any_name(), service, 1_u8..5).prop_map(|(name, service, host)| {
        Object::Slice(EndpointSlice {
            name,
            service: service.map(String::from),
            ports: vec![("p80".into(), 8080), ("p81".into(), 8081)],
            ready: vec![[10, 244, 0, host].into()],
        })
    })
}

fn target() -> impl Strategy<Value = TargetRef> {
    prop_oneof![
        9 => (any_name(), 80_u16..83).prop_map(|(name, port)| TargetRef::Service(name, port)),
        1 => Just(TargetRef::Other("example.com/Thing".into())),
    ]
}

fn route() -> impl Strategy<Value = Object> {
    let parent = (any_name(), prop::option::of(80_u16..83)).prop_map(|(service, port)| ParentRef {
        service,
        port,
        section: None,
    });
    let parents = prop::collection::vec(parent, 1..3);
    let backends = prop::collection::vec(target(), 0..3);
    (any_name(), parents, backends, target()).prop_map(|(name, parents, backends, mirror)| {
        let weighted = |target| WeightedRef { target, weight: 1, filters: Vec::new() };
        let rule = RouteRule {
            name: None,
            matches: Vec::new(),
            filters: vec![RouteFilter::Mirror(mirror, Share::ALL)],
            backends: backends.into_iter().map(weighted).collect(),
            timeouts: Timeouts::default(),
        };
        let (created, hostnames, rules) = (None, Vec::new(), vec![rule]);
        Object::Route(HttpRoute { name, created, hostnames, parents, rules })
    })
}

fn grant() -> impl Strategy<Value = Object> {
    (any_name(), select(vec!["n", "m"])).prop_map(|(name, from)| {
        let (from, to) = (vec![from.into()], vec![None]);
        Object::Grant(ReferenceGrant { name, from, to })
    })
}

#[derive(Clone, Debug)]
enum Step {
    Apply(Object),
    Remove(Kind, ObjectName),
}

fn step() -> impl Strategy<Value = Step> {
    let kinds = vec![Kind::Service, Kind::Slice, Kind::Route, Kind::Grant];
    prop_oneof![
        2 => service().prop_map(Step::Apply),
        2 => slice().prop_map(Step::Apply),
        4 => route().prop_map(Step::Apply),
        1 => grant().prop_map(Step::Apply),
        3 => (select(kinds), any_name()).prop_map(|(kind, name)| Step::Remove(kind, name)),
    ]
}

/// What matters of an answer, as text that can be compared.
fn summary(resolved: &Resolved) -> String {
    let mut frontends: Vec<_> = resolved.frontends.iter().collect();
    frontends.sort_by_key(|frontend| frontend.address);
    let frontend = |f: &&ResolvedFrontend| {
        let consumers: BTreeMap<_, _> = f.consumers.iter().collect();
        format!("{} {} {:?} {consumers:?} {}\n", f.address, f.service, f.producer, f.ahead)
    };
    let frontends: String = frontends.iter().map(frontend).collect();
    format!("{frontends}{:#?}{:#?}", resolved.conditions, resolved.warnings)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn step_by_step_is_all_at_once(batches in prop::collection::vec(prop::collection::vec(step(), 1..6), 1..12)) {
        let (mut objects, mut resolver) = (Objects::default(), Resolver::default());
        let mut frontends: BTreeMap<SocketAddr, ResolvedFrontend> = BTreeMap::new();
        for batch in batches {
            let mut changes = Changes::default();
            for step in batch {
                match step {
                    Step::Apply(object) => objects.apply(object, &mut changes),
                    Step::Remove(kind, name) => objects.remove(kind, &name, &mut changes),
                }
            }
            for (address, change) in resolver.update(&objects, &changes) {
                match change {
                    Some(frontend) => drop(frontends.insert(address, frontend)),
                    None => drop(frontends.remove(&address)),
                }
            }
            let stepwise = Resolved {
                frontends: frontends.values().cloned().collect(),
                conditions: resolver.conditions(&objects),
                warnings: resolver.warnings(&objects),
            };
            prop_assert_eq!(summary(&stepwise), summary(&resolve(&objects)));
        }
    }
}

fn example(own: &str, host: u8) -> [Object; 3] {
    let port = Port { name: "http".into(), port: 80, tcp: true, app_protocol: None };
    let target = TargetRef::Service(name("n", own), 80);
    let backend = WeightedRef { target, weight: 1, filters: Vec::new() };
    let parent = ParentRef { service: name("n", own), port: None, section: None };
    [
        Object::Service(Service {
            name: name("n", own),
            address: ServiceAddress::ClusterIps(vec![[10, 96, 0, host].into()]),
            ports: vec![port],
            capture: Wish::None,
        }),
        Object::Slice(EndpointSlice {
            name: name("n", own),
            service: Some(own.into()),
            ports: vec![("http".into(), 8080)],
            ready: vec![[10, 244, 0, host].into()],
        }),
        Object::Route(HttpRoute {
            name: name("n", own),
            created: None,
            hostnames: Vec::new(),
            parents: vec![parent],
            rules: vec![RouteRule {
                name: None,
                matches: Vec::new(),
                filters: Vec::new(),
                backends: vec![backend],
                timeouts: Timeouts::default(),
            }],
        }),
    ]
}

#[test]
fn only_what_depends_on_a_change_is_touched() {
    let (mut objects, mut resolver) = (Objects::default(), Resolver::default());
    let mut changes = Changes::default();
    for object in example("a", 1).into_iter().chain(example("b", 2)) {
        objects.apply(object, &mut changes);
    }
    let addresses =
        |changes: &FrontendChanges| changes.keys().map(ToString::to_string).collect::<Vec<_>>();
    let first = resolver.update(&objects, &changes);
    assert_eq!(addresses(&first), ["10.96.0.1:80", "10.96.0.2:80"]);

    let mut changes = Changes::default();
    for object in example("a", 1).into_iter().chain(example("b", 2)) {
        objects.apply(object, &mut changes);
    }
    assert!(changes.is_empty(), "a list that says the same changes nothing: {changes:?}");

    let [_, mut slice, _] = example("b", 2);
    let Object::Slice(moved) = &mut slice else { panic!() };
    moved.ready = vec![[10, 244, 0, 9].into()];
    objects.apply(slice, &mut changes);
    let second = resolver.update(&objects, &changes);
    assert_eq!(addresses(&second), ["10.96.0.2:80"]);

    let [unrelated, ..] = example("c", 3);
    let mut changes = Changes::default();
    objects.apply(unrelated, &mut changes);
    assert!(resolver.update(&objects, &changes).is_empty(), "no route names it");
}

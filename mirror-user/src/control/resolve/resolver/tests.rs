//! Step by step or all at once: the response is the same. And: what a change does not concern keeps
//! its compiled form.

use std::net::IpAddr;

use proptest::{prelude::*, sample::select};

use super::*;
use crate::{
    control::{
        objects::{
            Endpoint, EndpointSlice, Kind, NodeRow, Object, ParentRef, Port, ReferenceGrant, Route,
            RouteFilter, RouteRule, Service, ServiceAddress, TargetRef, WeightedRef,
        },
        resolve::{Authors, Resolved, resolve},
    },
    model::{Consent, NamespaceRow, PodRow, RouteKind},
    route::{Fraction, Matcher, Timeouts},
};

mod generated;

fn name(namespace: &str, name: &str) -> ObjectName {
    ObjectName { namespace: namespace.into(), name: name.into() }
}

fn any_name() -> impl Strategy<Value = ObjectName> {
    (select(vec!["n", "m"]), select(vec!["a", "b", "c"])).prop_map(|(n, own)| name(n, own))
}

fn service() -> impl Strategy<Value = Object> {
    let address = prop_oneof![
        // Few, so that Services fight over them.
        // One of them is an endpoint's in slices, too.
        (0_u8..4).prop_map(|host| ServiceAddress::ClusterIps(vec![[10, 96, 0, host].into()])),
        Just(ServiceAddress::Headless),
        Just(ServiceAddress::Missing),
    ];
    let ports = prop::collection::btree_set(80_u16..82, 1..3);
    let labels = vec![
        CaptureLabel::None,
        CaptureLabel::None,
        CaptureLabel::Enabled,
        CaptureLabel::Unknown("x".into()),
    ];
    let labels = (select(labels), select(vec![Consent::Withheld, Consent::Given]));
    let all = (any_name(), address, ports, labels, created());
    all.prop_map(|(name, address, ports, (capture, capture_endpoints), created)| {
        let port = |port| Port { name: format!("p{port}"), port, tcp: true, app_protocol: None };
        let ports = ports.into_iter().map(port).collect();
        let affinity = false;
        Object::Service(Service {
            name,
            address,
            ports,
            affinity,
            capture,
            capture_endpoints,
            created,
        })
    })
}

fn slice() -> impl Strategy<Value = Object> {
    let service = prop::option::weighted(0.9, select(vec!["a", "b", "c"]));
    let pod = prop::option::weighted(0.8, select(vec!["a", "b"]));
    (any_name(), service, endpoint_ip(), pod, created()).prop_map(
        |(name, service, ip, pod, created)| {
            Object::Slice(EndpointSlice {
                name,
                service: service.map(String::from),
                ports: vec![("p80".into(), 8080), ("p81".into(), 8081)],
                ready: vec![Endpoint { ip, pod: pod.map(Box::from) }],
                terminating: Vec::new(),
                unready: Vec::new(),
                created,
            })
        },
    )
}

fn created() -> impl Strategy<Value = Option<i64>> {
    prop::option::of(1_i64..4)
}

/// Of pods and of a Node, and one that may be a ClusterIP.
fn endpoint_ip() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        6 => (1_u8..5).prop_map(|host| IpAddr::from([10, 244, 0, host])),
        1 => Just(IpAddr::from([192, 0, 2, 1])),
        1 => Just(IpAddr::from([10, 96, 0, 0])),
    ]
}

/// Either kind of route, GRPCRoute less often.
fn any_kind() -> impl Strategy<Value = RouteKind> {
    select(vec![RouteKind::Http, RouteKind::Http, RouteKind::Grpc])
}

fn cluster_scoped(own: &str) -> ObjectName {
    name("", own)
}

fn namespace() -> impl Strategy<Value = Object> {
    let consent = || select(vec![Consent::Given, Consent::Given, Consent::Withheld]);
    (select(vec!["n", "m"]), consent(), consent()).prop_map(|(own, frontends, shadows)| {
        Object::Namespace(NamespaceRow {
            name: cluster_scoped(own),
            label: CaptureLabel::None,
            endpoint_frontends: frontends,
            external_shadows: shadows,
        })
    })
}

fn pod() -> impl Strategy<Value = Object> {
    let ips = prop::collection::vec(endpoint_ip(), 0..2);
    (any_name(), ips, any::<bool>()).prop_map(|(name, ips, host_network)| {
        Object::Pod(PodRow {
            uid: name.to_string().into(),
            claim: crate::model::CgroupClaim::Uid,
            name,
            label: CaptureLabel::None,
            host_network,
            mesh: None,
            runtime_class: None,
            ended: false,
            ips,
        })
    })
}

fn node() -> impl Strategy<Value = Object> {
    (1_u8..3).prop_map(|host| {
        let addresses = vec![IpAddr::from([192, 0, 2, host])];
        Object::Node(NodeRow { name: cluster_scoped("node"), addresses })
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
    let all = (any_kind(), any_name(), parents, backends, target(), created());
    all.prop_map(|(kind, name, parents, backends, mirror, created)| {
        let weighted = |target| WeightedRef { target, weight: 1, filters: Vec::new() };
        let rule = RouteRule {
            name: None,
            matches: vec![Matcher::default()],
            filters: vec![RouteFilter::Mirror(mirror, Fraction::ALL)],
            backends: backends.into_iter().map(weighted).collect(),
            timeouts: Timeouts::default(),
            retry: None,
            refusal: None,
        };
        let (hostnames, rules) = (Vec::new(), vec![rule]);
        Object::Route(Route {
            name: kind.named(name),
            created,
            hostnames,
            parents,
            misgrouped: Vec::new(),
            rules,
        })
    })
}

fn grant() -> impl Strategy<Value = Object> {
    (any_name(), any_kind(), select(vec!["n", "m"])).prop_map(|(name, kind, from)| {
        let (from, to) = (vec![(kind, from.into())], vec![None]);
        Object::Grant(ReferenceGrant { name, from, to })
    })
}

#[derive(Clone, Debug)]
enum Step {
    Apply(Object),
    Remove(Kind, ObjectName),
}

fn step() -> impl Strategy<Value = Step> {
    let routes = RouteKind::ALL.map(Kind::Route);
    let kinds = [Kind::Service, Kind::Slice, Kind::Grant, Kind::Pod].into_iter().chain(routes);
    let kinds: Vec<_> = kinds.collect();
    let scoped = prop_oneof![
        (select(vec!["n", "m"])).prop_map(|own| (Kind::Namespace, cluster_scoped(own))),
        Just((Kind::Node, cluster_scoped("node"))),
    ];
    prop_oneof![
        2 => service().prop_map(Step::Apply),
        2 => slice().prop_map(Step::Apply),
        4 => route().prop_map(Step::Apply),
        1 => grant().prop_map(Step::Apply),
        2 => namespace().prop_map(Step::Apply),
        1 => pod().prop_map(Step::Apply),
        1 => node().prop_map(Step::Apply),
        1 => scoped.prop_map(|(kind, name)| Step::Remove(kind, name)),
        3 => (select(kinds), any_name()).prop_map(|(kind, name)| Step::Remove(kind, name)),
    ]
}

/// What matters of a response, as text that can be compared.
fn summary(resolved: &Resolved) -> String {
    let mut frontends: Vec<_> = resolved.frontends.iter().collect();
    frontends.sort_by_key(|frontend| frontend.address);
    // An index has no order.
    let entries = |table: &RouteTable| format!("{:?}", table.entries().collect::<Vec<_>>());
    let frontend = |f: &&ResolvedFrontend| {
        let producer = f.producer.as_ref().map(entries);
        let consumers = f.consumers.iter().map(|(name, table)| (name, entries(table)));
        let consumers: BTreeMap<_, _> = consumers.collect();
        format!("{} {} {producer:?} {consumers:?} {}\n", f.address, f.service, f.ahead)
    };
    let frontends: String = frontends.iter().map(frontend).collect();
    format!("{frontends}{:#?}{:#?}", resolved.conditions, resolved.warnings)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn step_by_step_is_all_at_once(
        batches in prop::collection::vec(prop::collection::vec(step(), 1..6), 1..12),
        authors in select(vec![Authors::Owner, Authors::Tenants]),
    ) {
        let policy = AddressPolicy { authors, ..AddressPolicy::default() };
        let (mut objects, mut resolver) = (Objects::default(), Resolver::new(policy.clone()));
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
            prop_assert_eq!(resolver.refusals(), {
                let mut whole = Resolver::new(policy.clone());
                drop(whole.update(&objects, &Changes::all(&objects)));
                whole.refusals()
            });
            prop_assert_eq!(summary(&stepwise), summary(&resolve(&policy, &objects)));
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
            affinity: false,
            capture: CaptureLabel::None,
            capture_endpoints: Consent::Withheld,
            created: None,
        }),
        Object::Slice(EndpointSlice {
            name: name("n", own),
            service: Some(own.into()),
            ports: vec![("http".into(), 8080)],
            ready: vec![IpAddr::from([10, 244, 0, host]).into()],
            terminating: Vec::new(),
            unready: Vec::new(),
            created: None,
        }),
        Object::Route(Route {
            name: RouteKind::Http.named(name("n", own)),
            created: None,
            hostnames: Vec::new(),
            parents: vec![parent],
            misgrouped: Vec::new(),
            rules: vec![RouteRule {
                name: None,
                matches: vec![Matcher::default()],
                filters: Vec::new(),
                backends: vec![backend],
                timeouts: Timeouts::default(),
                retry: None,
                refusal: None,
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
    moved.ready = vec![IpAddr::from([10, 244, 0, 9]).into()];
    objects.apply(slice, &mut changes);
    let second = resolver.update(&objects, &changes);
    assert_eq!(addresses(&second), ["10.96.0.2:80"]);

    let [unrelated, ..] = example("c", 3);
    let mut changes = Changes::default();
    objects.apply(unrelated, &mut changes);
    assert!(resolver.update(&objects, &changes).is_empty(), "no route names it");
}

//! A cluster as source, against an API server in memory, on a paused clock.

use std::sync::Arc;

use arc_swap::ArcSwap;
use serde_json::{Value, json};

use self::server::Server;
use super::*;
use crate::{
    control::{config_dump::ControlReport, resolve::AddressPolicy, tests::Map},
    dump::RoutesDump,
    route::Snapshot,
};

mod server;

/// A followed cluster and what is in force.
struct Rig {
    cluster: Cluster,
    control: Control<Map>,
    snapshot: Arc<ArcSwap<Snapshot>>,
    report: Arc<ArcSwap<ControlReport>>,
}

impl Rig {
    fn follow(server: &Server) -> Self {
        let snapshot = Arc::new(ArcSwap::from_pointee(Snapshot::default()));
        let report = Arc::new(ArcSwap::from_pointee(ControlReport::default()));
        let control = Control::new(Map::default(), Arc::clone(&snapshot), Arc::clone(&report));
        let cluster = Cluster::follow(&server.client(), "node-1");
        Self { cluster, control, snapshot, report }
    }

    /// Puts changes in force until none comes for so long; how many states that were.
    async fn settle(&mut self, quiet: Duration) -> usize {
        let mut states = 0;
        while tokio::time::timeout(quiet, self.cluster.changed()).await.is_ok() {
            self.cluster.put_in_force(&mut self.control, Instant::now());
            states += 1;
        }
        states
    }

    fn dump(&self) -> Value {
        let report = self.report.load();
        serde_json::to_value(RoutesDump::new(&self.snapshot.load(), &report)).unwrap()
    }

    fn frontends(&self) -> Vec<String> {
        self.dump()["frontends"].as_object().unwrap().keys().cloned().collect()
    }

    fn problems(&self) -> Vec<String> {
        serde_json::from_value(self.dump()["problems"].clone()).unwrap()
    }
}

const SECOND: Duration = Duration::from_secs(1);

fn service(name: &str, host: u8) -> Value {
    json!({"metadata": {"namespace": "default", "name": name},
        "spec": {"clusterIP": format!("10.96.0.{host}"), "ports": [{"port": 80}]}})
}

fn route(name: &str, rules: &Value) -> Value {
    json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"namespace": "default", "name": name},
        "spec": {"parentRefs": [{"group": "", "kind": "Service", "name": name}], "rules": rules}})
}

fn plain(name: &str) -> Value {
    route(name, &json!([{"backendRefs": [{"name": name, "port": 80}]}]))
}

fn strange(name: &str) -> Value {
    route(
        name,
        &json!([{"filters": [{"type": "ExternalAuth", "externalAuth": {"protocol": "HTTP"}}]}]),
    )
}

fn with_routes() -> Server {
    let server = Server::new();
    server.set("services", Some(vec![service("a", 1), service("b", 2)]));
    server.set("httproutes", Some(vec![plain("a"), strange("b")]));
    server
}

#[tokio::test(start_paused = true)]
async fn one_strange_route_blinds_nobody_and_is_known_by_name() {
    let server = with_routes();
    let mut rig = Rig::follow(&server);
    rig.settle(SECOND).await;
    assert_eq!(rig.frontends(), ["10.96.0.1:80"]);
    let [problem] = &rig.problems()[..] else { panic!("{:?}", rig.problems()) };
    assert!(problem.starts_with("HTTPRoute default/b: spec.rules[0].filters[0]"), "{problem}");
    assert!(problem.contains("ExternalAuth"), "{problem}");
    server.apply("httproutes", plain("b"));
    rig.settle(SECOND).await;
    assert_eq!((rig.frontends().len(), rig.problems().len()), (2, 0));
    server.apply("httproutes", strange("a"));
    rig.settle(SECOND).await;
    assert_eq!((rig.frontends(), rig.problems().len()), (vec!["10.96.0.2:80".into()], 1));
    server.delete("httproutes", "a");
    rig.settle(SECOND).await;
    assert_eq!(rig.problems().len(), 0);
}

/// A GRPCRoute with one rule, at the Service of the same name.
fn grpc(name: &str, rule: &Value) -> Value {
    let mut route = route(name, &json!([rule]));
    route["kind"] = json!("GRPCRoute");
    route
}

#[tokio::test(start_paused = true)]
async fn routes_of_two_kinds_with_one_name_are_two() {
    let server = with_routes();
    let rule = json!({"backendRefs": [{"name": "b", "port": 80}]});
    server.set("grpcroutes", Some(vec![grpc("b", &rule)]));
    let mut rig = Rig::follow(&server);
    rig.settle(SECOND).await;
    assert_eq!(rig.frontends(), ["10.96.0.1:80", "10.96.0.2:80"]);
    let [problem] = &rig.problems()[..] else { panic!("{:?}", rig.problems()) };
    assert!(problem.starts_with("HTTPRoute default/b: "), "{problem}");
    let route = |rig: &Rig| {
        let producer = &rig.dump()["frontends"]["10.96.0.2:80"]["producer"];
        producer[0]["route"].clone()
    };
    assert_eq!(route(&rig), "grpcroute/default/b");
    server.apply("httproutes", plain("b"));
    rig.settle(SECOND).await;
    assert_eq!(rig.problems(), Vec::<String>::new());
    // A new list of the one says nothing of the other.
    server.set("httproutes", Some(vec![plain("a"), plain("b")]));
    rig.settle(60 * SECOND).await;
    assert_eq!(route(&rig), "grpcroute/default/b");
    assert_eq!(rig.problems(), Vec::<String>::new());
    server.apply("grpcroutes", grpc("b", &json!({"futureField": 1})));
    rig.settle(SECOND).await;
    assert_eq!(route(&rig), "default/b");
    let [problem] = &rig.problems()[..] else { panic!("{:?}", rig.problems()) };
    assert!(problem.starts_with("GRPCRoute default/b: spec.rules[0].futureField"), "{problem}");
    server.delete("grpcroutes", "b");
    rig.settle(SECOND).await;
    assert_eq!(rig.problems().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_cluster_without_grpc_routes_keeps_nobody_waiting() {
    let server = with_routes();
    server.set("grpcroutes.gateway.networking.k8s.io", Some(Vec::new()));
    server.set("grpcroutes", None);
    let mut rig = Rig::follow(&server);
    assert_eq!(rig.settle(5 * SECOND).await, 1);
    assert_eq!(rig.frontends(), ["10.96.0.1:80"]);
    assert_eq!(rig.cluster.diagnostics().warnings, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn an_edit_with_a_refused_rule_takes_nothing_else_out_of_force() {
    let backend = |port: u16| json!([{"name": "a", "port": port}]);
    let pinned = |matches: Value| json!({"matches": matches, "backendRefs": backend(80)});
    let canary = json!([{"headers": [{"name": "canary", "value": "1"}]}]);
    let every = json!([{"path": {"type": "PathPrefix", "value": "/"}}]);
    let refused = json!({"matches": canary, "backendRefs": backend(80), "futureField": 1});
    let server = Server::new();
    server.set("services", Some(vec![service("a", 1)]));
    let rules = json!([pinned(every.clone()), pinned(canary.clone())]);
    server.set("httproutes", Some(vec![route("a", &rules)]));
    let mut rig = Rig::follow(&server);
    rig.settle(SECOND).await;
    let refs = |rig: &Rig| {
        let rules = rig.dump()["frontends"]["10.96.0.1:80"]["producer"].clone();
        let rules = rules.as_array().unwrap().clone();
        rules.into_iter().map(|rule| rule["backends"][0].clone()).collect::<Vec<_>>()
    };
    let before = refs(&rig);
    assert_eq!((before.len(), rig.problems().len()), (2, 0), "{:#}", rig.dump());
    let edited = route("a", &json!([pinned(every), refused]));
    server.apply("httproutes", edited.clone());
    rig.settle(SECOND).await;
    assert_eq!(refs(&rig), before);
    let [problem] = &rig.problems()[..] else { panic!("{:?}", rig.problems()) };
    for part in ["default/a: spec.rules[1].futureField: unknown field", "stays in force"] {
        assert!(problem.contains(part), "{problem}");
    }
    // An agent that starts knows no valid state of it.
    let mut fresh = Rig::follow(&server);
    fresh.settle(SECOND).await;
    let [canary, pinned] = &refs(&fresh)[..] else { panic!("{:#}", fresh.dump()) };
    assert_eq!(*pinned, before[1]);
    assert!(canary.to_string().contains("the rule is not in force"), "{canary}");
    assert!(fresh.problems()[0].contains("get 500"), "{:?}", fresh.problems());
}

#[tokio::test(start_paused = true)]
async fn a_default_of_a_newer_crd_takes_no_route_out_of_force() {
    let crd = |default: &str| {
        let rule = json!({"properties": {"mode": {"default": default}}});
        let schema = json!({"properties": {"spec": {"properties": {"rules": {"items": rule}}}}});
        json!({"metadata": {"name": "httproutes.gateway.networking.k8s.io"}, "spec": {
            "names": {"kind": "HTTPRoute"}, "versions": [{"name": "v1", "served": true,
                "schema": {"openAPIV3Schema": schema}}]}})
    };
    let server = Server::new();
    server.set("services", Some(vec![service("a", 1)]));
    let rules = json!([{"backendRefs": [{"name": "a", "port": 80}], "mode": "Fast"}]);
    server.set("httproutes", Some(vec![route("a", &rules)]));
    let mut rig = Rig::follow(&server);
    rig.settle(SECOND).await;
    assert_eq!((rig.frontends().len(), rig.problems().len()), (0, 1));
    // Routes that came before the CRD are read again.
    server.apply("httproutes.gateway.networking.k8s.io", crd("Fast"));
    rig.settle(SECOND).await;
    assert_eq!((rig.frontends().len(), rig.problems()), (1, Vec::new()));
    server.apply("httproutes", route("a", &rules));
    rig.settle(SECOND).await;
    assert_eq!(rig.frontends().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_in_force_before_everything_is_known() {
    let server = with_routes();
    server.set("endpointslices", None);
    let mut rig = Rig::follow(&server);
    assert_eq!(rig.settle(10 * SECOND).await, 0);
    assert_eq!(rig.snapshot.load().generation, 0);
    server.set("endpointslices", Some(Vec::new()));
    assert_eq!(rig.settle(10 * SECOND).await, 1);
    assert_eq!(rig.frontends(), ["10.96.0.1:80"]);
}

#[tokio::test(start_paused = true)]
async fn a_burst_is_put_in_force_in_few_states_and_an_unchanged_object_in_none() {
    let server = with_routes();
    let mut rig = Rig::follow(&server);
    rig.settle(SECOND).await;
    for host in 3..100 {
        let name = format!("s{host}");
        server.apply("services", service(&name, host));
        server.apply("httproutes", plain(&name));
    }
    let states = rig.settle(SECOND).await;
    assert!((1..5).contains(&states), "{states}");
    assert_eq!(rig.frontends().len(), 98);
    server.apply("services", service("a", 1));
    assert_eq!(rig.settle(SECOND).await, 0);
}

/// A pod that belongs to no Service is a client like any other.
#[tokio::test(start_paused = true)]
async fn a_new_pod_is_news_and_no_new_state() {
    let server = with_routes();
    let mut rig = Rig::follow(&server);
    rig.settle(SECOND).await;
    let generation = rig.snapshot.load().generation;
    let pod = json!({"metadata": {"namespace": "default", "name": "client", "uid": "1-2"},
        "spec": {"containers": [{"name": "c"}]}});
    server.apply("pods", pod.clone());
    rig.cluster.changed().await;
    assert!(rig.cluster.put_in_force(&mut rig.control, Instant::now()));
    assert_eq!(rig.cluster.objects().pods.len(), 1);
    server.apply("pods", pod);
    assert_eq!(rig.settle(SECOND).await, 0);
    server.delete("pods", "client");
    rig.cluster.changed().await;
    assert!(rig.cluster.put_in_force(&mut rig.control, Instant::now()));
    assert_eq!(rig.snapshot.load().generation, generation);
}

#[tokio::test(start_paused = true)]
async fn without_the_crds_there_are_no_routes_and_with_them_there_are_within_two_seconds() {
    let server = Server::new();
    let (route, grant) =
        ("httproutes.gateway.networking.k8s.io", "referencegrants.gateway.networking.k8s.io");
    for (crd, kind) in [(route, "httproutes"), (grant, "referencegrants")] {
        server.set(crd, Some(Vec::new()));
        server.set(kind, None);
    }
    server.set("services", Some(vec![service("a", 1)]));
    let mut rig = Rig::follow(&server);
    assert_eq!(rig.settle(5 * SECOND).await, 1, "absent kinds keep nobody waiting");
    rig.settle(60 * SECOND).await;
    let warnings = rig.cluster.diagnostics().warnings;
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].contains("of HTTPRoute does not exist"), "{warnings:?}");
    assert!(warnings[1].contains("of ReferenceGrant does not exist"), "{warnings:?}");
    server.install("HTTPRoute");
    tokio::time::sleep(SECOND / 2).await;
    // Established a moment after the CRD is there.
    server.set("httproutes", Some(vec![plain("a")]));
    let established = tokio::time::Instant::now();
    rig.cluster.changed().await;
    rig.cluster.put_in_force(&mut rig.control, Instant::now());
    assert_eq!(rig.frontends(), ["10.96.0.1:80"]);
    assert!(established.elapsed() < SECOND / 2, "{:?}", established.elapsed());
    let warnings = rig.cluster.diagnostics().warnings;
    assert!(!warnings.iter().any(|text| text.contains("HTTPRoute does not exist")), "{warnings:?}");
}

#[tokio::test(start_paused = true)]
async fn a_404_keeps_the_last_good_state_for_half_a_minute() {
    let server = with_routes();
    let mut rig = Rig::follow(&server);
    rig.settle(SECOND).await;
    // A server that starts, and has not read its CRDs yet.
    for kind in ["httproutes", "httproutes.gateway.networking.k8s.io"] {
        server.set(kind, None);
    }
    rig.settle(25 * SECOND).await;
    assert_eq!(rig.frontends(), ["10.96.0.1:80"]);
    server.set("httproutes.gateway.networking.k8s.io", Some(Vec::new()));
    let gone = tokio::time::Instant::now();
    while !rig.frontends().is_empty() {
        rig.cluster.changed().await;
        rig.cluster.put_in_force(&mut rig.control, Instant::now());
    }
    assert!(gone.elapsed() < 20 * SECOND, "{:?}", gone.elapsed());
    assert_eq!(rig.problems().len(), 0, "the strange route is gone as well");
}

#[tokio::test(start_paused = true)]
async fn an_outage_changes_nothing_and_what_went_meanwhile_goes_after_it() {
    let server = with_routes();
    let mut rig = Rig::follow(&server);
    rig.settle(SECOND).await;
    let (_, health) = &rig.cluster.watches()[2];
    let health = health.clone();
    assert_eq!(health.age(), Some(Duration::ZERO));
    server.set("httproutes", None);
    assert_eq!(rig.settle(10 * SECOND).await, 0);
    assert!(health.age().unwrap() >= 9 * SECOND, "{:?}", health.age());
    server.set("httproutes", Some(vec![plain("b")]));
    rig.settle(5 * SECOND).await;
    assert_eq!(rig.frontends(), ["10.96.0.2:80"]);
    assert_eq!((health.age(), health.lists()), (Some(Duration::ZERO), 2));
}

#[tokio::test(start_paused = true)]
async fn objects_that_do_not_decode_are_reported_by_kind_and_name() {
    let server = with_routes();
    let mut bad = service("bad", 9);
    bad["spec"]["ports"][0]["port"] = json!("x");
    server.set("services", Some(vec![service("a", 1), bad]));
    let slice = |name: &str, endpoints: &Value| {
        json!({"metadata": {"namespace": "default", "name": name,
            "labels": {"kubernetes.io/service-name": "a"}},
            "addressType": "IPv4", "ports": [{"name": "", "port": 8080}], "endpoints": endpoints})
    };
    let ready = json!([{"addresses": ["10.244.0.1"]}]);
    let odd = json!([{"addresses": ["here"]}]);
    let slices = [slice("a1", &ready), slice("a2", &json!(null)), slice("a3", &odd)];
    server.set("endpointslices", Some(slices.into()));
    let mut rig = Rig::follow(&server);
    rig.settle(SECOND).await;
    let problems = rig.problems();
    assert_eq!(problems.len(), 3, "{problems:#?}");
    assert!(problems[0].starts_with("Service default/bad: "), "{problems:#?}");
    assert!(problems[1].starts_with("EndpointSlice default/a3: "), "{problems:#?}");
    let backends = &rig.dump()["frontends"]["10.96.0.1:80"]["producer"][0]["backends"];
    assert_eq!(backends[0]["endpoints"], json!(["10.244.0.1:8080"]));
}

/// What belongs to the cluster is in no Namespace, and is known by one name all the same: a list of
/// everything again forgets no Namespace, and one that is gone is forgotten.
#[tokio::test(start_paused = true)]
async fn namespaces_and_nodes_outlast_a_new_list_and_not_their_end() {
    let server = Server::new();
    let namespace = json!({"metadata": {"name": "default",
        "labels": {"mirror.dev/endpoint-frontends": "enabled"}}});
    let node = json!({"metadata": {"name": "node-1"},
        "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]}});
    let mut headless = service("a", 1);
    headless["spec"]["clusterIP"] = json!("None");
    let endpoint = |ip: &str| json!({"addresses": [ip], "targetRef": {"kind": "Pod", "name": "p"}});
    let slice = json!({"metadata": {"namespace": "default", "name": "a",
            "labels": {"kubernetes.io/service-name": "a"}}, "addressType": "IPv4",
        "ports": [{"port": 80}], "endpoints": [endpoint("10.244.0.1"), endpoint("192.0.2.1")]});
    for (kind, object) in [
        ("namespaces", &namespace),
        ("nodes", &node),
        ("services", &headless),
        ("endpointslices", &slice),
        ("httproutes", &plain("a")),
    ] {
        server.set(kind, Some(vec![object.clone()]));
    }
    let mut rig = Rig::follow(&server);
    rig.control = rig.control.by(AddressPolicy::of_cluster());
    rig.settle(SECOND).await;
    assert_eq!(rig.frontends(), ["10.244.0.1:80"]);
    for kind in ["namespaces", "nodes"] {
        let object = if kind == "nodes" { &node } else { &namespace };
        server.set(kind, Some(vec![object.clone()]));
        rig.settle(SECOND * 5).await;
        assert_eq!(rig.frontends(), ["10.244.0.1:80"], "{kind}: a new list");
    }
    server.delete("nodes", "node-1");
    rig.settle(SECOND).await;
    assert_eq!(rig.frontends(), ["10.244.0.1:80", "192.0.2.1:80"]);
    server.delete("namespaces", "default");
    rig.settle(SECOND).await;
    assert_eq!(rig.frontends(), Vec::<String>::new());
}

//! `mirror agent --source kube` with a large cluster's objects: memory, a list of everything again,
//! how long a change of a route takes to count, and how many watches that needs.
#![allow(clippy::unwrap_used, reason = "helpers of tests; clippy knows only the tests themselves")]

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use mirror_tests::{
    Agent, Node, Pod,
    cluster::{Account, Api, Channel, ControlPlane, DEPLOY, NAMESPACE, Options},
    eventually, slowness,
    usage::{cpu, peak_rss, rss},
};
use serde_json::{Value, json};

const SERVICES: usize = 10_000;
/// Two for each Service, of three endpoints each.
const SLICES: usize = 2 * SERVICES;
const ROUTES: usize = 1_000;
const NAMESPACES: usize = 50;
const CHANGES: usize = 200;

const MIB: u64 = 1 << 20;

/// Threads that create objects.
const WRITERS: usize = 8;

fn namespace(at: usize) -> String {
    format!("ns{}", at % NAMESPACES)
}

/// The objects in the order in which they are made: path and body.
fn object(at: usize) -> (String, Value) {
    match at {
        at if at < SERVICES => service(at),
        at if at < SERVICES + SLICES => slice(at - SERVICES),
        at => route(at - SERVICES - SLICES),
    }
}

fn service(at: usize) -> (String, Value) {
    let address = format!("10.104.{}.{}", at / 200, at % 200 + 1);
    let name = format!("service-{at}");
    let ports = json!([{"name": "http", "port": 80, "targetPort": 8080}]);
    let body = json!({"metadata": {"name": name, "labels": {"app.kubernetes.io/name": name}},
        "spec": {"clusterIP": address, "ports": ports}});
    (format!("/api/v1/namespaces/{}/services", namespace(at)), body)
}

fn slice(at: usize) -> (String, Value) {
    let service = at / 2;
    let endpoint = |host: usize| {
        let number = at * 3 + host;
        let address = format!("10.{}.{}.{}", 128 + (number >> 16), number >> 8 & 255, number & 255);
        json!({"addresses": [address],
            "conditions": {"ready": true, "serving": true, "terminating": false},
            "nodeName": format!("node-{}", at % 100), "zone": "zone-a",
            "targetRef": {"kind": "Pod", "namespace": namespace(service),
                "name": format!("service-{service}-7d4b9c6f5-{number}"),
                "uid": format!("00000000-0000-4000-8000-{number:012}")}})
    };
    let body = json!({"metadata": {"name": format!("service-{service}-{}", at % 2),
        "labels": {"kubernetes.io/service-name": format!("service-{service}"),
            "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"}},
        "addressType": "IPv4", "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": [endpoint(0), endpoint(1), endpoint(2)]});
    let path = format!("/apis/discovery.k8s.io/v1/namespaces/{}", namespace(service));
    (path + "/endpointslices", body)
}

fn route(at: usize) -> (String, Value) {
    let (own, other) = (format!("service-{at}"), format!("service-{}", at + 20 * NAMESPACES));
    let mirror = json!({"backendRef": {"name": other, "port": 80}, "percent": 10});
    let body = json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": format!("route-{at}")},
        "spec": {"parentRefs": [{"group": "", "kind": "Service", "name": own, "port": 80}],
            "rules": [{"filters": [{"type": "RequestMirror", "requestMirror": mirror}],
                "backendRefs": [{"name": own, "port": 80}]}]}});
    let path = format!("/apis/gateway.networking.k8s.io/v1/namespaces/{}", namespace(at));
    (path + "/httproutes", body)
}

fn populate(api: &Api<'_>) {
    let create = |path: &str, body: &Value| {
        let (status, response) = api.create(path, body).unwrap();
        assert_eq!(status, 201, "{path}: {response}");
    };
    for at in 0..NAMESPACES {
        create("/api/v1/namespaces", &json!({"metadata": {"name": namespace(at)}}));
    }
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..WRITERS {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= SERVICES + SLICES + ROUTES {
                        return;
                    }
                    let (path, body) = object(at);
                    create(&path, &body);
                }
            });
        }
    });
}

/// A client and a Service of which a route marks the requests.
struct Shop {
    app: Pod,
    address: SocketAddr,
}

impl Shop {
    /// What state of the route a new connection of the client finds; a process of its pod asks,
    /// which adds what starting it takes.
    fn state(&self) -> String {
        let url = format!("http://{}/headers", self.address);
        let request = ["curl", "-sS", "-f", "-m", "5", &url];
        let body = self.app.run(&request, Duration::from_secs(9)).unwrap().ok().unwrap();
        ["first", "second"].into_iter().find(|who| body.contains(who)).unwrap_or("nobody").into()
    }
}

/// The rules of a state.
fn rules(state: &str) -> Value {
    let mark = json!({"set": [{"name": "x-state", "value": state}]});
    json!([{"filters": [{"type": "RequestHeaderModifier", "requestHeaderModifier": mark}],
        "backendRefs": [{"name": "primary", "port": 80}]}])
}

fn shop_route() -> Value {
    json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": "shop"},
        "spec": {"parentRefs": [{"group": "", "kind": "Service", "name": "shop"}],
            "rules": rules("second")}})
}

/// Changes the route again and again: from each patch's return to the first new connection that
/// it holds for.
fn changes(api: &Api<'_>, shop: &Shop) -> Vec<Duration> {
    let path = "/apis/gateway.networking.k8s.io/v1/namespaces/default/httproutes/shop";
    let change = |at| {
        let state = if at % 2 == 0 { "first" } else { "second" };
        let patch = json!({"spec": {"rules": rules(state)}});
        let (status, response) = api.patch(path, &patch).unwrap();
        assert_eq!(status, 200, "{response}");
        let returned = Instant::now();
        while shop.state() != state {
            assert!(returned.elapsed() < Duration::from_secs(10), "change {at} does not count");
        }
        returned.elapsed()
    };
    let mut times: Vec<_> = (0..CHANGES).map(change).collect();
    times.sort();
    times
}

/// Watches of the agent's account, by resource, from the audit log. Those that the server refused
/// are none: its cache of a kind begins with the first request, which gets a 429 meanwhile.
fn watches(plane: &ControlPlane<'_>, account: &Account) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for line in plane.audit_log().unwrap().lines() {
        let event: Value = serde_json::from_str(line).unwrap_or_default();
        let ours = event["user"]["username"] == account.user.as_str();
        let started = event["verb"] == "watch" && event["stage"] == "ResponseStarted";
        if ours && started && event["responseStatus"]["code"] != 200 {
            println!("refused: {}: {}", event["requestURI"], event["responseStatus"]);
        } else if ours && started {
            let resource = event["objectRef"]["resource"].as_str().unwrap_or_default();
            *counts.entry(resource.to_owned()).or_insert(0) += 1;
        }
    }
    counts
}

/// RSS of the agent now and at most.
fn memory(agent: &Agent<'_>) -> String {
    let (now, peak) = (rss(agent.pid()).unwrap(), peak_rss(agent.pid()).unwrap());
    format!("RSS {} MiB, peak {} MiB", now / MIB, peak / MIB)
}

/// Starts the agent, and waits until everything is in force; by one watch for each kind.
fn synced<'n>(node: &'n Node, plane: &ControlPlane<'_>, account: &Account, app: &Pod) -> Agent<'n> {
    let start = Instant::now();
    let agent = Agent::follow(node, "agent", &account.kubeconfig, &[app], &[]).unwrap();
    eventually("the agent is ready", Duration::from_secs(120).mul_f64(slowness()), || {
        matches!(agent.get("/readyz"), Ok((200, _)))
    })
    .unwrap();
    let cost = cpu(agent.pid()).unwrap();
    println!("synced in {:?} with {cost:?} of CPU; {}", start.elapsed(), memory(&agent));
    let watches = watches(plane, account);
    println!("watches: {watches:?}");
    assert_eq!(watches.len(), 9, "{watches:?}");
    for (resource, count) in watches {
        // One for each of the three CRDs, by name.
        let expected = if resource == "customresourcedefinitions" { 3 } else { 1 };
        assert_eq!(count, expected, "watches of {resource}");
    }
    agent
}

/// Has everything listed again: a server that was restarted knows no older version.
fn relist(plane: &mut ControlPlane<'_>, agent: &Agent<'_>) {
    plane.kill_server().unwrap();
    plane.start_server().unwrap();
    let restarted = Instant::now();
    let lists = |kind| agent.metric("mirror_watch_lists_total", &[("kind", kind)]).unwrap();
    eventually("everything is listed anew", Duration::from_secs(120), || {
        let all = ["Service", "EndpointSlice", "HTTPRoute"].iter().all(|kind| lists(kind) >= 2.0);
        all && agent.metric("mirror_snapshot_age_seconds", &[]).unwrap() == 0.0
    })
    .unwrap();
    println!("listed anew {:?} after readiness; {}", restarted.elapsed(), memory(agent));
}

#[test]
fn ten_thousand_services_and_a_thousand_routes() {
    let node = Node::create("population").unwrap();
    let options = Options { controllers: false, audit: true, ..Options::default() };
    let mut plane = ControlPlane::start(&node, &options).unwrap();
    plane.install_gateway_api(Channel::Standard).unwrap();
    plane.kubectl(&["apply", "-k", DEPLOY], "").unwrap();
    let (app, primary) = (node.pod("app").unwrap(), node.pod("primary").unwrap());
    let _echo = primary.echo(&["--listen", "0.0.0.0:80", "--quiet"]).unwrap();
    let service = node.service("shop", 80, 80, &[&primary]).unwrap();
    let backend = node.service("primary", 80, 80, &[&primary]).unwrap();
    let api = Api::start(&node, &plane).unwrap();
    let start = Instant::now();
    populate(&api);
    println!("{} objects in {:?}", SERVICES + SLICES + ROUTES, start.elapsed());
    for manifest in [service.manifest(), backend.manifest(), shop_route().to_string()] {
        plane.kubectl(&["apply", "-f", "-"], &manifest).unwrap();
    }
    let account = Account::new(&node, &plane, NAMESPACE, "mirror-agent", "agent").unwrap();
    let agent = synced(&node, &plane, &account, &app);

    let shop = Shop { app, address: service.address().into() };
    let before = cpu(agent.pid()).unwrap();
    let times = changes(&api, &shop);
    let (half, most) = (times[CHANGES / 2], times[CHANGES * 99 / 100]);
    println!(
        "{CHANGES} changes of a route: p50 {half:?}, p99 {most:?}, longest {:?}; CPU of the agent \
         {:?}, for the probe's requests as well; {}",
        times[CHANGES - 1],
        cpu(agent.pid()).unwrap() - before,
        memory(&agent)
    );

    relist(&mut plane, &agent);
    assert_eq!(shop.state(), "second");
    let peak = peak_rss(agent.pid()).unwrap();
    for (goal, met) in [
        ("peak RSS under 100 MiB", peak < 100 * MIB),
        ("p99 under 300 ms", most < Duration::from_millis(300)),
    ] {
        println!("goal: {goal}: {}", if met { "met" } else { "MISSED" });
    }
    assert!(peak < 200 * MIB, "{} MiB", peak / MIB);
    assert!(most < Duration::from_secs(3).mul_f64(slowness()), "{most:?}");
}

//! What a tenant of a cluster may do with addresses that are not its own: nothing, to another's
//! requests; and copies go to Pods, unless whoever owns the Namespace permits more.
#![allow(clippy::unwrap_used, reason = "helpers of tests; clippy knows only the tests themselves")]

use std::{net::Ipv4Addr, time::Duration};

use mirror_tests::{
    Agent, Echo, Node, Pod, Service,
    cluster::{Account, Channel, ControlPlane, Controller, DEPLOY, NAMESPACE, Options},
    eventually,
};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(20);

/// A Namespace, with these labels.
fn namespace(name: &str, labels: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
}

fn service(at: (&str, &str), cluster_ip: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": at.0, "name": at.1},
        "spec": {"clusterIP": cluster_ip, "ports": [{"name": "http", "port": 80}]}})
}

/// What a tenant writes by hand: endpoints of a Service, which it says are Pods of its own.
fn slice(at: (&str, &str), targets: &[(Ipv4Addr, bool)]) -> Value {
    let endpoints = targets.iter().map(|(ip, pod)| match pod {
        true => json!({"addresses": [ip], "targetRef": {"kind": "Pod", "name": "own", "namespace": at.0}}),
        false => json!({"addresses": [ip]}),
    });
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"namespace": at.0, "name": at.1,
            "labels": {"kubernetes.io/service-name": at.1}},
        "addressType": "IPv4", "ports": [{"name": "http", "port": 80}],
        "endpoints": endpoints.collect::<Vec<_>>()})
}

fn route(at: (&str, &str), rule: &Value) -> Value {
    json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"namespace": at.0, "name": at.1},
        "spec": {"parentRefs": [{"group": "", "kind": "Service", "name": at.1}], "rules": [rule]}})
}

fn to(service: &str) -> Value {
    json!({"backendRefs": [{"name": service, "port": 80}]})
}

fn mirrored(service: &str, shadow: &str) -> Value {
    json!({"filters": [{"type": "RequestMirror",
            "requestMirror": {"backendRef": {"name": shadow, "port": 80}}}],
        "backendRefs": [{"name": service, "port": 80}]})
}

/// A client and its Service `shop`, of the namespace `default`; somebody's server outside, and the
/// control plane.
struct TestBed<'n> {
    plane: ControlPlane<'n>,
    app: Pod,
    shop: Service,
    primary: Echo,
    /// Where it runs.
    _server: Pod,
    outside: Pod,
    caught: Echo,
    agent: Agent<'n>,
}

impl<'n> TestBed<'n> {
    fn new(node: &'n Node, flags: &[&str]) -> Self {
        let options = Options { controllers: false, ..Options::default() };
        let plane = ControlPlane::start(node, &options).unwrap();
        plane.install_gateway_api(Channel::Standard).unwrap();
        plane.kubectl(&["apply", "-k", DEPLOY], "").unwrap();
        let account = Account::new(node, &plane, NAMESPACE, "mirror-agent", "agent").unwrap();
        let [app, server, outside] = ["app", "primary", "outside"].map(|p| node.pod(p).unwrap());
        let [primary, caught] = [&server, &outside].map(|pod| Echo::start(node, pod).unwrap());
        let shop = node.service("shop", 80, 80, &[&server]).unwrap();
        plane.kubectl(&["apply", "--server-side", "-f", "-"], &shop.manifest()).unwrap();
        let mut agent = Agent::follow(node, "agent", &account.kubeconfig, &[&app], flags).unwrap();
        agent.wait_ready().unwrap();
        Self { plane, app, shop, primary, _server: server, outside, caught, agent }
    }

    fn apply(&self, objects: &[Value]) {
        for object in objects {
            let object = object.to_string();
            self.plane.kubectl(&["apply", "--server-side", "-f", "-"], &object).unwrap();
        }
    }

    fn config(&self) -> Value {
        let (status, body) = self.agent.get("/config").unwrap();
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    fn frontends(&self) -> Vec<String> {
        let frontends = self.config()["frontends"].as_object().unwrap().clone();
        frontends.iter().map(|(at, f)| format!("{at} {}", f["service"].as_str().unwrap())).collect()
    }

    /// The conditions of a route at its only parent, once something is said of it.
    fn unmet(&self, route: &str) -> Option<(String, String)> {
        let config = self.config();
        let routes = config["routes"].as_array().unwrap();
        let route = routes.iter().find(|dump| dump["route"] == route)?;
        let conditions = ["accepted", "resolved_refs"].map(|kind| &route[kind]);
        let unmet = conditions.into_iter().find(|condition| condition["status"] == false)?;
        let text = |field: &str| unmet[field].as_str().unwrap().to_owned();
        Some((text("reason"), text("message")))
    }

    fn wait_unmet(&self, route: &str, reason: &str) -> String {
        let is = || self.unmet(route).is_some_and(|(found, _)| found == reason);
        let told = eventually(reason, SOON, is);
        assert!(told.is_ok(), "{route}: {:?}\n{}", self.unmet(route), self.agent.log());
        self.unmet(route).unwrap().1
    }

    /// Asks the Service by its address.
    fn request(&self, tag: &str) {
        let url = format!("http://{}/get?id={tag}", self.shop.address());
        let secret = "Authorization: Bearer of-the-victim";
        let curl = ["curl", "-sSf", "-m", "5", "-o", "/dev/null", "-H", secret, &url];
        self.app.run(&curl, SOON).unwrap().ok().unwrap();
    }
}

#[test]
fn a_headless_service_takes_nobody_elses_address() {
    let node = Node::create("claims").unwrap();
    let test_bed = TestBed::new(&node, &[]);
    let permits = json!({"mirror.dev/endpoint-frontends": "enabled"});
    let outside = test_bed.outside.ip();
    // What it takes is sent to a server of its own; by name it comes before any other.
    let server = "10.96.77.77";
    test_bed.apply(&[
        namespace("attacker", &json!({})),
        service(("attacker", "a"), "None"),
        slice(("attacker", "a"), &[(test_bed.shop.cluster_ip, true), (outside, true)]),
        service(("attacker", "mine"), server),
        slice(("attacker", "mine"), &[(outside, true)]),
        route(("attacker", "a"), &to("mine")),
    ]);
    let why = test_bed.wait_unmet("attacker/a", "NotPermitted");
    assert!(why.contains("mirror.dev/endpoint-frontends=enabled"), "{why}");
    assert_eq!(test_bed.frontends(), Vec::<String>::new());
    test_bed.request("before");

    // Its Namespace permits endpoints' addresses: those of its own, and no Service's ClusterIP.
    test_bed.apply(&[namespace("attacker", &permits)]);
    let own = format!("{outside}:80 attacker/a:80");
    let taken = eventually("its own address", SOON, || test_bed.frontends() == [own.as_str()]);
    assert!(taken.is_ok(), "{:?}\n{}", test_bed.frontends(), test_bed.agent.log());
    test_bed.request("opted-in");
    let refused = test_bed.agent.metric("mirror_frontends_refused", &[("reason", "cluster_ip")]);
    assert_eq!(refused.unwrap(), 1.0);

    // And the victim's route holds.
    test_bed.apply(&[route(("default", "shop"), &to("shop"))]);
    let shop = format!("{}:80 default/shop:80", test_bed.shop.cluster_ip);
    eventually("the route", SOON, || test_bed.frontends().contains(&shop)).unwrap();
    test_bed.request("routed");
    for tag in ["before", "opted-in", "routed"] {
        test_bed.primary.wait(&format!("id={tag}"), 1).unwrap();
    }
    assert_eq!(test_bed.caught.seen(), [] as [Value; 0], "the attacker's server");
    assert_eq!(test_bed.unmet("default/shop"), None);
}

#[test]
fn copies_go_to_pods_unless_the_namespace_permits_more() {
    let node = Node::create("forgery").unwrap();
    let test_bed = TestBed::new(&node, &["--deny-shadow", "10.99.0.0/16"]);
    let outside = test_bed.outside.ip();
    test_bed.apply(&[
        service(("default", "s"), "10.96.77.78"),
        slice(("default", "s"), &[(outside, false)]),
        route(("default", "shop"), &mirrored("shop", "s")),
    ]);
    let why = test_bed.wait_unmet("default/shop", "RefNotPermitted");
    let remedy = "label Namespace default mirror.dev/external-shadows=enabled";
    assert!(why.contains(&outside.to_string()) && why.contains(remedy), "{why}");
    test_bed.request("forged");
    test_bed.primary.wait("id=forged", 1).unwrap();
    let uncopied = [("reason", "refused_shadow")];
    let count = || test_bed.agent.metric("mirror_uncopied_requests_total", &uncopied).unwrap();
    eventually("the count", SOON, || count() == 1.0).unwrap();

    // A hand-written slice leads to another's ClusterIP, with everybody's permission.
    test_bed.apply(&[
        namespace("default", &json!({"mirror.dev/external-shadows": "enabled"})),
        slice(("default", "s"), &[(test_bed.shop.cluster_ip, true)]),
    ]);
    let said =
        |text: &str| test_bed.unmet("default/shop").is_some_and(|(_, why)| why.contains(text));
    eventually("the ClusterIP", SOON, || said("ClusterIP")).unwrap();
    test_bed.apply(&[slice(("default", "s"), &[(Ipv4Addr::new(10, 99, 0, 1), true)])]);
    eventually("--deny-shadow", SOON, || said("10.99.0.0/16")).unwrap();
    test_bed.request("denied");

    test_bed.apply(&[slice(("default", "s"), &[(outside, false)])]);
    eventually("permitted", SOON, || test_bed.unmet("default/shop").is_none()).unwrap();
    assert_eq!(test_bed.caught.seen(), [] as [Value; 0], "no copy came before that");
    test_bed.request("permitted");
    test_bed.caught.wait("id=permitted", 1).unwrap();
    assert_eq!(test_bed.caught.seen().len(), 1);

    // What the agents refuse, the controller says in the route's status.
    test_bed.apply(&[namespace("default", &json!({"mirror.dev/external-shadows": "disabled"}))]);
    let _controller = Controller::start(&node, &test_bed.plane, "controller", 15921).unwrap();
    let path = "jsonpath={.status.parents[0].conditions[?(@.type=='ResolvedRefs')].reason}";
    let reason = || test_bed.plane.kubectl(&["get", "httproute", "shop", "-o", path], "").unwrap();
    eventually("the status", SOON, || reason() == "RefNotPermitted").unwrap();
}

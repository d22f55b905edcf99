//! The control plane of the test cluster is real: it stores, admits, schedules, watches.
#![allow(clippy::unwrap_used, reason = "helpers of tests; clippy knows only the tests themselves")]

use std::time::{Duration, Instant};

use mirror_tests::{
    Node,
    cluster::{Channel, ControlPlane, Options},
    eventually, run,
};

const DEPLOYMENT: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
spec:
  replicas: 2
  selector:
    matchLabels: {app: web}
  template:
    metadata:
      labels: {app: web}
    spec:
      containers:
      - {name: web, image: web}
"#;

const ROUTE: &str = r#"
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: web
spec:
  parentRefs:
  - {group: "", kind: Service, name: web, port: 80}
  rules:
  - filters:
    - type: RequestMirror
      requestMirror:
        percent: 10
        backendRef: {name: web-2, port: 80}
"#;

#[test]
fn the_controllers_make_pods_of_a_deployment() {
    let node = Node::create("plane").unwrap();
    let start = Instant::now();
    let plane = ControlPlane::start(&node, &Options::default()).unwrap();
    println!("ready after {:?}", start.elapsed());
    let version = plane.kubectl(&["version"], "").unwrap();
    assert!(version.contains("Server Version: v1.36"), "{version}");
    plane.kubectl(&["create", "-f", "-"], DEPLOYMENT).unwrap();
    let pods = || plane.kubectl(&["get", "pods", "-o", "name"], "").unwrap();
    eventually("two pods", Duration::from_secs(20), || pods().lines().count() == 2).unwrap();
    // Without a node the scheduler says why, which shows that it looks at them.
    let events = || plane.kubectl(&["get", "events"], "").unwrap();
    eventually("scheduling fails", Duration::from_secs(20), || {
        events().contains("FailedScheduling")
    })
    .unwrap();
}

#[test]
fn a_killed_server_keeps_what_it_had_and_the_relay_leads_to_it() {
    let node = Node::create("killed").unwrap();
    let options = Options { controllers: false, audit: true, ..Options::default() };
    let mut plane = ControlPlane::start(&node, &options).unwrap();
    plane.install_gateway_api(Channel::Standard).unwrap();
    plane.kubectl(&["apply", "-f", "-"], ROUTE).unwrap();
    plane.kill_server().unwrap();
    assert!(plane.kubectl(&["get", "httproutes"], "").is_err());
    plane.compact().unwrap();
    plane.start_server().unwrap();
    let percent = "jsonpath={.spec.rules[0].filters[0].requestMirror.percent}";
    let response = plane.kubectl(&["get", "httproute", "web", "-o", percent], "").unwrap();
    assert_eq!(response, "10", "the schema has the field");
    // From the host, by the same kubeconfig.
    let kubectl = plane.binaries().path("kubectl");
    let config = plane.kubeconfig();
    let argv = [&*kubectl, "--kubeconfig", config.to_str().unwrap(), "get", "httproutes"];
    assert!(run(&argv, "").unwrap().contains("web"));
    assert!(plane.audit_log().unwrap().contains("\"resource\":\"httproutes\""));
}

#[test]
fn the_experimental_channel_replaces_the_standard_one() {
    let node = Node::create("channels").unwrap();
    let options = Options { controllers: false, ..Options::default() };
    let plane = ControlPlane::start(&node, &options).unwrap();
    let external = ROUTE.replace(
        "rules:\n",
        "rules:\n  - filters:\n    - type: ExternalAuth\n      externalAuth:\n        \
         protocol: HTTP\n        http: {path: /auth}\n        backendRef: {name: auth, port: 80}\n",
    );
    plane.install_gateway_api(Channel::Standard).unwrap();
    let refused = plane.kubectl(&["apply", "-f", "-"], &external).unwrap_err().to_string();
    assert!(refused.contains("ExternalAuth"), "{refused}");
    plane.install_gateway_api(Channel::Experimental).unwrap();
    let mut response = String::new();
    let accepted = eventually("the new schema", Duration::from_secs(10), || {
        let result = plane.kubectl(&["apply", "-f", "-"], &external);
        response = format!("{result:?}");
        result.is_ok()
    });
    assert!(accepted.is_ok(), "{response}");
}

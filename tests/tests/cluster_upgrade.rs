//! A rolling update of the DaemonSet under load, as its users do it: no connection fails, no request
//! is lost, and the agents carry all of it but for a moment.
#![allow(clippy::unwrap_used, reason = "helpers of tests; clippy knows only the tests themselves")]

use std::{path::Path, time::Duration};

use mirror_tests::{
    Node,
    cluster::{Channel, ControlPlane, Images, Kubelet, Options},
    eventually,
    load::{Events, SCRIPT},
};
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(30);
const SECONDS: u32 = 40;
/// New connections per second, and kept ones.
const LOAD: [u32; 2] = [100, 30];

const SERVERS: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: echo
        image: echo
        args: [--listen, "0.0.0.0:80", --quiet]
        readinessProbe: {httpGet: {path: /get, port: 80}, periodSeconds: 1}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: shadow}
spec:
  selector: {matchLabels: {app: shadow}}
  template:
    metadata: {labels: {app: shadow}}
    spec:
      containers:
      - name: echo
        image: echo
        args: [--listen, "0.0.0.0:80", --quiet]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 80}]
---
apiVersion: v1
kind: Service
metadata: {name: shadow}
spec:
  selector: {app: shadow}
  ports: [{port: 80}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web}
spec:
  parentRefs: [{group: "", kind: Service, name: web, port: 80}]
  rules:
  - backendRefs: [{name: web, port: 80}]
    filters:
    - type: RequestMirror
      requestMirror: {backendRef: {name: shadow, port: 80}}
    - type: ResponseHeaderModifier
      responseHeaderModifier: {set: [{name: x-via, value: agent}]}
"#;

fn kubectl(plane: &ControlPlane<'_>, args: &str) -> String {
    let args: Vec<_> = args.split(' ').collect();
    plane.kubectl(&args, "").unwrap_or_else(|error| panic!("{error:#}\n{}", state(plane)))
}

fn state(plane: &ControlPlane<'_>) -> String {
    let logs = "logs -n mirror-system --tail=60 --prefix -l app.kubernetes.io/component=agent";
    let status = "exec -n mirror-system daemonset/mirror-agent -- mirror status";
    ["get pods -A -o wide", logs, status]
        .map(|args| plane.kubectl(&args.split(' ').collect::<Vec<_>>(), "").unwrap_or_default())
        .concat()
}

/// Installs mirror, and what is to be mirrored; all of it is ready when this returns.
fn install(plane: &ControlPlane<'_>) {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").canonicalize().unwrap();
    plane.kubectl(&["apply", "-k", &deploy.display().to_string()], "").unwrap();
    plane.kubectl(&["create", "-f", "-"], SERVERS).unwrap();
    kubectl(plane, "rollout status -n mirror-system daemonset/mirror-agent --timeout=90s");
    kubectl(plane, "rollout status deployment/web --timeout=90s");
    kubectl(plane, "rollout status deployment/shadow --timeout=90s");
}

/// A pod that loads `web` once it is captured, and ends.
fn load(plane: &ControlPlane<'_>) {
    let wait = "until curl -s -i -m 2 http://web/get | grep -qi x-via; do sleep 0.2; done";
    let script = format!("{wait}; exec python3 -c \"$SCRIPT\" http://web \"$@\"");
    let [new, kept] = LOAD;
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "load"},
        "spec": {"restartPolicy": "Never", "containers": [{
            "name": "load", "image": "curlimages/curl",
            "command": ["sh", "-c", script, "load"],
            "args": [SECONDS.to_string(), new.to_string(), kept.to_string()],
            "env": [{"name": "SCRIPT", "value": SCRIPT}],
        }]},
    });
    plane.kubectl(&["create", "-f", "-"], &pod.to_string()).unwrap();
    eventually("the client runs", PATIENCE, || {
        plane.kubectl(&["logs", "load"], "").is_ok_and(|log| log.contains("running"))
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", state(plane)));
}

#[test]
fn a_rolling_update_loses_nothing() {
    let node = Node::create("rolling").unwrap();
    let plane = ControlPlane::start(&node, &Options::default()).unwrap();
    plane.install_gateway_api(Channel::Standard).unwrap();
    let _kubelet = Kubelet::start(&plane, Images::standard().unwrap()).unwrap();
    install(&plane);
    load(&plane);
    std::thread::sleep(Duration::from_secs(5));
    let agent = "get pods -n mirror-system -l app.kubernetes.io/component=agent -o name";
    let before = kubectl(&plane, agent);
    kubectl(&plane, "rollout restart -n mirror-system daemonset/mirror-agent");
    kubectl(&plane, "rollout status -n mirror-system daemonset/mirror-agent --timeout=90s");
    let phase = "get pod load -o jsonpath={.status.phase}";
    eventually("the client ends", PATIENCE, || kubectl(&plane, phase) == "Succeeded")
        .unwrap_or_else(|error| panic!("{error:#}\n{}", state(&plane)));
    let log = kubectl(&plane, "logs load");
    let report: Vec<_> = log.lines().filter(|line| line.starts_with('{')).collect();
    let events = Events::parse(&report.join("\n")).unwrap();
    println!("a rolling update of the DaemonSet: {}", events.summary());

    let after = kubectl(&plane, agent);
    assert!(after.lines().all(|pod| !before.contains(pod)), "{before} is not replaced: {after}");
    events.none_failed("a rolling update");
    let [new, kept] = LOAD;
    assert!(events.of("new").count() >= (new * SECONDS) as usize * 9 / 10, "too slow a client");
    assert!(events.of("kept").count() >= (kept * SECONDS) as usize * 5, "too slow a client");
    let direct = events.all().filter(|event| event.via == "direct").count();
    println!("  {direct} of {} requests went direct", events.all().count());
    assert!(direct * 20 < events.all().count(), "the new agent has not captured");
    let last = events.all().map(|event| event.end).fold(0.0, f64::max);
    let late = events.all().filter(|event| event.start > last - 2.0);
    assert!(late.into_iter().all(|event| event.via == "agent"), "not captured at the end");
}

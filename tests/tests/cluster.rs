//! The cluster's node does for pods what they rely on: addresses, Services and their names, logs,
//! exec, volumes, privileges, restarts, an end.
#![allow(clippy::unwrap_used, reason = "helpers of tests; clippy knows only the tests themselves")]

use std::time::Duration;

use mirror_tests::{
    Node,
    cluster::{ControlPlane, Images, Kubelet, Options},
    eventually,
};

const PATIENCE: Duration = Duration::from_secs(60);

const PODS: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector:
    matchLabels: {app: web}
  template:
    metadata:
      labels: {app: web}
    spec:
      containers:
      - name: web
        image: echo
        args: [--listen, "0.0.0.0:80"]
        readinessProbe:
          httpGet: {path: /get, port: 80}
          periodSeconds: 1
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports:
  - {port: 8000, targetPort: 80}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {color: blue}
---
apiVersion: v1
kind: Pod
metadata:
  name: client
  labels: {tier: front}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: curlimages/curl
    command: [/bin/sleep, 3650d]
    env:
    - name: ADDRESS
      valueFrom: {fieldRef: {fieldPath: status.podIP}}
    securityContext:
      readOnlyRootFilesystem: true
      runAsUser: 65532
    volumeMounts:
    - {name: settings, mountPath: /settings}
    - {name: scratch, mountPath: /scratch}
  - name: fails
    image: curlimages/curl
    command: [sh, -c, "echo this run fails; exit 3"]
  volumes:
  - name: settings
    configMap: {name: settings}
  - name: scratch
    emptyDir: {}
"#;

/// Runs a command in the client, and gives what it printed.
fn client(plane: &ControlPlane<'_>, argv: &[&str]) -> String {
    let mut args = vec!["exec", "client", "-c", "main", "--"];
    args.extend(argv);
    plane.kubectl(&args, "").unwrap()
}

#[test]
fn pods_live_as_on_a_node() {
    let node = Node::create("cluster").unwrap();
    let plane = ControlPlane::start(&node, &Options::default()).unwrap();
    let kubelet = Kubelet::start(&plane, Images::standard().unwrap()).unwrap();
    plane.kubectl(&["create", "-f", "-"], PODS).unwrap();
    let rollout = ["rollout", "status", "deployment/web", "--timeout=60s"];
    plane.kubectl(&rollout, "").unwrap_or_else(|error| {
        let all = plane.kubectl(&["get", "pods", "-A", "-o", "yaml"], "");
        panic!("{error:#}\n{}", all.unwrap_or_default());
    });
    eventually("the client runs", PATIENCE, || {
        plane.kubectl(&["exec", "client", "-c", "main", "--", "true"], "").is_ok()
    })
    .unwrap();
    a_service_has_a_name_and_both_endpoints(&plane, &kubelet);
    a_container_is_what_its_spec_says(&plane);
    exec_tells_what_happened(&plane);
    a_container_that_fails_is_started_again(&plane);
    a_deleted_pod_leaves_nothing(&plane, &node);
}

fn a_service_has_a_name_and_both_endpoints(plane: &ControlPlane<'_>, kubelet: &Kubelet) {
    eventually("both endpoints answer", PATIENCE, || {
        let script = "for i in 1 2 3 4 5 6; do curl -sS -m 2 http://web:8000/get; done";
        let _ = plane.kubectl(&["exec", "client", "-c", "main", "--", "sh", "-c", script], "");
        let pods = plane.kubectl(&["get", "pods", "-l", "app=web", "-o", "name"], "").unwrap();
        pods.lines().all(|pod| {
            let log = plane.kubectl(&["logs", pod, "-c", "web"], "").unwrap();
            // Beside what the probes ask for.
            log.lines().any(|line| line.contains("curl/"))
        })
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", kubelet.proxy_log()));
    let full = "http://web.default.svc.cluster.local:8000/get";
    assert!(client(plane, &["curl", "-sS", full]).contains("Host"));
    let tail = plane.kubectl(&["logs", "deploy/web", "--tail=1"], "").unwrap();
    assert_eq!(tail.lines().count(), 1, "{tail}");
}

fn a_container_is_what_its_spec_says(plane: &ControlPlane<'_>) {
    assert_eq!(client(plane, &["cat", "/settings/color"]), "blue");
    assert_eq!(client(plane, &["id", "-u"]), "65532\n");
    assert_eq!(client(plane, &["cat", "/proc/1/comm"]), "sleep\n", "a PID namespace of its own");
    assert_eq!(client(plane, &["hostname"]), "client\n");
    let address = client(plane, &["sh", "-c", "echo -n $ADDRESS"]);
    let told = plane.kubectl(&["get", "pod", "client", "-o", "jsonpath={.status.podIP}"], "");
    assert_eq!(address, told.unwrap());
    client(plane, &["sh", "-c", "echo x >/scratch/file"]);
    let refused = plane.kubectl(&["exec", "client", "-c", "main", "--", "touch", "/x"], "");
    assert!(refused.unwrap_err().to_string().contains("Read-only"));
    let caps = client(plane, &["grep", "CapEff", "/proc/1/status"]);
    assert!(caps.ends_with("\t0000000000000000\n"), "{caps}");
    let token = "/var/run/secrets/kubernetes.io/serviceaccount/token";
    let script = format!(
        "curl -sS --cacert {} -H \"Authorization: Bearer $(cat {token})\" \
         https://kubernetes.default.svc/version",
        token.replace("token", "ca.crt")
    );
    assert!(client(plane, &["sh", "-c", &script]).contains("v1.36"));
    let files = ["/bin/ls", "/sys/class/net"];
    assert_eq!(client(plane, &files), "eth0\nlo\n");
}

fn exec_tells_what_happened(plane: &ControlPlane<'_>) {
    let failed = plane.kubectl(&["exec", "client", "-c", "main", "--", "sh", "-c", "exit 7"], "");
    assert!(failed.unwrap_err().to_string().contains("exit code 7"));
    let args = ["exec", "-i", "client", "-c", "main", "--", "cat"];
    let text = "some bytes\n".repeat(20_000);
    assert_eq!(plane.kubectl(&args, &text).unwrap(), text, "stdin and stdout are whole");
}

fn a_container_that_fails_is_started_again(plane: &ControlPlane<'_>) {
    let path = "jsonpath={.status.containerStatuses[?(@.name=='fails')]['restartCount', \
                'lastState.terminated.exitCode']}";
    eventually("a restart", PATIENCE, || {
        plane.kubectl(&["get", "pod", "client", "-o", path], "").unwrap() == "1 3"
    })
    .unwrap();
    let log = plane.kubectl(&["logs", "client", "-c", "fails", "--previous"], "").unwrap();
    assert_eq!(log, "this run fails\n");
}

fn a_deleted_pod_leaves_nothing(plane: &ControlPlane<'_>, node: &Node) {
    let namespaces = || {
        let links = node.netns().ip("link show type veth").unwrap();
        links.lines().filter(|line| line.contains(": kube")).count()
    };
    assert_eq!(namespaces(), 3);
    let args = ["delete", "pod/client", "deployment/web", "--cascade=foreground", "--timeout=60s"];
    plane.kubectl(&args, "").unwrap();
    eventually("no interface is left", PATIENCE, || namespaces() == 0).unwrap();
    assert_eq!(plane.kubectl(&["get", "pods", "-o", "name"], "").unwrap(), "");
}

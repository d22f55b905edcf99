//! What a Service promises holds for captured connections: the real kube-proxy chooses the endpoint,
//! with a route that only mirrors as without mirror.
#![allow(clippy::unwrap_used, reason = "helpers of tests; clippy knows only the tests themselves")]

use std::time::Duration;

use mirror_tests::{
    Agent, Copies, Echo, Node, Pod,
    cluster::{Account, Channel, ControlPlane, DEPLOY, Images, Kubelet, NAMESPACE, Options},
    eventually,
    load::LoadClient,
};

const SOON: Duration = Duration::from_secs(60);

/// Connections of each measurement.
const CONNECTIONS: usize = 30;

/// A Service of its own for each promise: its name, what its spec says, and of each endpoint what its
/// slice says.
const SERVICES: [(&str, &str, [&str; 3]); 5] = [
    ("plain", "", ["", "", ""]),
    ("affinity", "sessionAffinity: ClientIP,", ["", "", ""]),
    (
        "local",
        "internalTrafficPolicy: Local,",
        ["nodeName: elsewhere", "nodeName: node-1", "nodeName: elsewhere"],
    ),
    (
        "zones",
        "trafficDistribution: PreferSameZone,",
        [
            "zone: a, hints: {forZones: [{name: a}]}",
            "zone: b, hints: {forZones: [{name: b}]}",
            "zone: b, hints: {forZones: [{name: b}]}",
        ],
    ),
    (
        "terminating",
        "",
        [
            "conditions: {ready: false, serving: false, terminating: true}",
            "conditions: {ready: false, serving: false}",
            "conditions: {ready: false, serving: true, terminating: true}",
        ],
    ),
];

fn address(at: usize) -> String {
    format!("10.96.100.{}", at + 1)
}

/// The Service at this place of the list, and its EndpointSlice.
fn manifest(at: usize, pods: &[Pod]) -> String {
    let (name, spec, endpoints) = SERVICES[at];
    let endpoints: Vec<_> = endpoints
        .iter()
        .zip(pods)
        .map(|(says, pod)| match says.is_empty() {
            true => format!("{{addresses: [{}]}}", pod.ip()),
            false => format!("{{addresses: [{}], {says}}}", pod.ip()),
        })
        .collect();
    format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: {name}}}, spec: {{{spec} clusterIP: {}, \
         ports: [{{name: http, port: 80}}]}}}}\n---\n{{apiVersion: discovery.k8s.io/v1, kind: \
         EndpointSlice, addressType: IPv4, metadata: {{name: {name}-1, labels: \
         {{kubernetes.io/service-name: {name}}}}}, ports: [{{name: http, port: 80}}], endpoints: \
         [{}]}}\n---\n",
        address(at),
        endpoints.join(", ")
    )
}

/// A route that does no more than mirror.
fn route(name: &str) -> String {
    format!(
        "{{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {{name: {name}}}, \
         spec: {{parentRefs: [{{group: '', kind: Service, name: {name}}}], rules: [{{backendRefs: \
         [{{name: {name}, port: 80}}], filters: [{{type: RequestMirror, requestMirror: {{backendRef: \
         {{name: shadow, port: 80}}}}}}]}}]}}}}\n---\n"
    )
}

/// Opens connections to the Service, a request on each: how many each endpoint got, and how many
/// failed.
fn hits(client: &Pod, at: usize, tag: &str, echoes: &[Echo]) -> ([usize; 3], usize) {
    let (name, ..) = SERVICES[at];
    let script = format!(
        "for i in $(seq {CONNECTIONS}); do curl -sS -m 5 -f -o /dev/null http://{}/anything/{name}-{tag} || \
         echo failed; done",
        address(at)
    );
    let output = client.run(&["sh", "-c", &script], SOON).unwrap().ok().unwrap();
    let part = format!("/anything/{name}-{tag}");
    let mut seen = [0; 3];
    for (seen, echo) in seen.iter_mut().zip(echoes) {
        let here = |line: &&serde_json::Value| line["target"] == part.as_str();
        *seen = echo.seen().iter().filter(here).count();
    }
    (seen, output.lines().count())
}

#[test]
fn kube_proxy_chooses_the_endpoint_as_without_mirror() {
    let node = Node::create("services").unwrap();
    let plane = ControlPlane::start(&node, &Options::default()).unwrap();
    plane.install_gateway_api(Channel::Standard).unwrap();
    plane.kubectl(&["apply", "-k", DEPLOY], "").unwrap();
    let _kubelet = Kubelet::start(&plane, Images::standard().unwrap()).unwrap();
    plane.kubectl(&["label", "node", "node-1", "topology.kubernetes.io/zone=a"], "").unwrap();
    // Endpoints are written by hand here, and say of no Pod that they are it.
    let permits = "mirror.dev/external-shadows=enabled";
    plane.kubectl(&["label", "namespace", "default", permits], "").unwrap();
    let account = Account::new(&node, &plane, NAMESPACE, "mirror-agent", "agent").unwrap();
    let client = node.pod("client").unwrap();
    let pods = ["one", "two", "three"].map(|name| node.pod(name).unwrap());
    let shadow = node.pod("mirrored").unwrap();
    plane.kubectl(&["apply", "--server-side", "-f", "-"], ROLLING).unwrap();
    let echoes = [&pods[0], &pods[1], &pods[2]].map(|pod| Echo::start(&node, pod).unwrap());
    let copies = Echo::start(&node, &shadow).unwrap();
    let apply = |text: &str| plane.kubectl(&["apply", "--server-side", "-f", "-"], text).unwrap();
    let services: String = (0..SERVICES.len()).map(|at| manifest(at, &pods)).collect();
    apply(&services);
    apply(
        &manifest(0, std::slice::from_ref(&shadow))
            .replace("plain", "shadow")
            .replace(&address(0), &address(SERVICES.len())),
    );
    for at in 0..SERVICES.len() {
        let url = format!("http://{}/get", address(at));
        let request = ["curl", "-sS", "-m", "2", "-f", "-o", "/dev/null", &url];
        eventually("kube-proxy balances the Service", SOON, || {
            client.run(&request, SOON).unwrap().ok().is_ok()
        })
        .unwrap();
    }
    // The zone comes by a watch of its own.
    eventually("kube-proxy knows the node's zone", SOON, || {
        hits(&client, 3, &format!("zone-{}", echoes[0].seen().len()), &echoes).0[1..] == [0, 0]
    })
    .unwrap();
    let direct =
        (0..SERVICES.len()).map(|at| hits(&client, at, "direct", &echoes)).collect::<Vec<_>>();
    apply(&SERVICES.iter().map(|(name, ..)| route(name)).collect::<String>());
    let mut agent = Agent::follow(&node, "agent", &account.kubeconfig, &[&client], &[]).unwrap();
    agent.wait_ready().unwrap();
    for (at, (name, ..)) in SERVICES.iter().enumerate() {
        let captured = hits(&client, at, "captured", &echoes);
        println!("{name}: direct {:?}, through mirror {captured:?}", direct[at]);
        let used = |hits: [usize; 3]| hits.map(|count| count > 0);
        assert_eq!(used(captured.0), used(direct[at].0), "{name}: {}", agent.log());
        assert_eq!(captured.0.iter().sum::<usize>(), CONNECTIONS);
        assert_eq!((captured.1, direct[at].1), (0, 0), "{name}: requests failed");
        copies.wait(&format!("/{name}-captured"), CONNECTIONS).unwrap();
    }
    assert_eq!(used_by_one(direct[1].0), 1, "affinity");
    let copies = Copies::settled(&agent).unwrap();
    assert_eq!((copies.selected, copies.dropped), ((CONNECTIONS * SERVICES.len()) as u64, 0));
    a_rolling_restart_fails_no_more_than_without_mirror(&plane, &agent, &client);
}

/// Three replicas that go on for a while after they were told to end, as well-kept servers do; and
/// their Service.
const ROLLING: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: rolling}
spec:
  replicas: 3
  selector:
    matchLabels: {app: rolling}
  template:
    metadata:
      labels: {app: rolling}
    spec:
      terminationGracePeriodSeconds: 20
      containers:
      - name: server
        image: echo
        command:
        - sh
        - -c
        - |
          /usr/local/bin/mirror echo --listen 0.0.0.0:80 --quiet &
          trap 'sleep 4; kill -KILL %1; exit 0' TERM
          wait
        readinessProbe:
          httpGet: {path: /get, port: 80}
          periodSeconds: 1
---
apiVersion: v1
kind: Service
metadata: {name: rolling}
spec:
  selector: {app: rolling}
  clusterIP: 10.96.100.100
  ports: [{port: 80}]
"#;

/// Restarts all replicas under a load of new connections: how many there were, and how many failed.
fn rolled(plane: &ControlPlane<'_>, client: &Pod) -> (usize, usize) {
    let kubectl = |args: &str| plane.kubectl(&args.split(' ').collect::<Vec<_>>(), "").unwrap();
    let load = LoadClient::start(client, "http://10.96.100.100", 20).unwrap();
    kubectl("rollout restart deployment/rolling");
    kubectl("rollout status deployment/rolling --timeout=60s");
    let events = load.finish().unwrap();
    println!("a rolling restart: {}", events.summary());
    (events.of("new").count(), events.failed("new").count())
}

/// New connections are balanced by kube-proxy while pods come and go, and none of them fails.
fn a_rolling_restart_fails_no_more_than_without_mirror(
    plane: &ControlPlane<'_>,
    agent: &Agent<'_>,
    client: &Pod,
) {
    let direct = rolled(plane, client);
    plane.kubectl(&["apply", "--server-side", "-f", "-"], &route("rolling")).unwrap();
    let frontend = || agent.get("/config").unwrap().1.contains("10.96.100.100:80");
    eventually("the route is in force", SOON, frontend).unwrap();
    let captured = rolled(plane, client);
    println!("new connections, failed ones: direct {direct:?}, through mirror {captured:?}");
    assert!(captured.0 > 1000, "{captured:?}");
    assert!(captured.1 <= direct.1, "{captured:?}, direct {direct:?}: {}", agent.log());
}

fn used_by_one(hits: [usize; 3]) -> usize {
    hits.iter().filter(|count| **count > 0).count()
}

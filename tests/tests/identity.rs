//! Whose connections are whose: a pod is captured under the identity of the Pod whose uid its cgroup
//! carries, and of no other, whatever a tenant's objects and cgroups say and in whichever order the
//! agent learns of them.
#![allow(clippy::unwrap_used, reason = "helpers of tests; clippy knows only the tests themselves")]

use std::{fs, path::Path, thread::sleep, time::Duration};

use mirror_tests::{
    Agent, Node, Pod, Process, Service, eventually,
    kubelet::{Kubelet, Naming},
    manifest::PodDocument,
};

const SHORT: Duration = Duration::from_secs(20);
/// Several looks of the agent at cgroups and log folders.
const LOOKS: Duration = Duration::from_millis(500);
const NODE: &str = "node-1";
const HASH: &str = "2f8dd6d7ab6a2b2f24f6c9a9d3f6b3d1";

/// A Service with a route of its own namespace, which marks what the agent carries, and one of the
/// namespace `attacker`, which would hold for clients of that namespace alone.
struct TestBed {
    _service: Service,
    _echo: Process,
    _primary: Pod,
    // Last: its drop removes everything.
    node: Node,
}

impl TestBed {
    fn new(name: &str) -> Self {
        let node = Node::create(name).unwrap();
        let primary = node.pod("primary").unwrap();
        let echo = primary.echo(&["--listen", "0.0.0.0:80", "--quiet"]).unwrap();
        let service = node.service("service", 80, 80, &[&primary]).unwrap();
        let manifests = [service.manifest(), route("default"), route("attacker")];
        node.routes().write("all.yaml", &manifests.join("---\n")).unwrap();
        Self { _service: service, _echo: echo, _primary: primary, node }
    }

    fn pod(&self, name: &str) -> Pod {
        self.node.kubelet_pod(name, Naming::Systemd).unwrap()
    }

    fn agent(&self, flags: &[&str]) -> Agent<'_> {
        let mut all = vec!["--workers", "1"];
        all.extend(flags);
        Agent::start_with(&self.node, "agent", &[], &all).unwrap()
    }

    /// Tells the agent of exactly these pods.
    fn write_pods(&self, pods: &[&PodDocument]) {
        let pods: Vec<_> = pods.iter().map(|pod| pod.manifest()).collect();
        self.node.routes().write("pods.yaml", &pods.join("---\n")).unwrap();
    }
}

/// Marks responses with the namespace that it is of.
fn route(namespace: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{namespace: \
         {namespace}, name: route}}\nspec:\n  parentRefs: [{{group: \"\", kind: Service, namespace: \
         default, name: service, port: 80}}]\n  rules:\n  - backendRefs: [{{namespace: default, \
         name: service, port: 80}}]\n    filters:\n    - type: ResponseHeaderModifier\n      \
         responseHeaderModifier: {{set: [{{name: x-via, value: {namespace}}}]}}\n"
    )
}

fn document(pod: &Pod) -> PodDocument {
    PodDocument::new(pod.name(), pod.uid().unwrap())
}

/// The forged mirror of a static pod, as a tenant can write one.
fn forged(victim: &str) -> PodDocument {
    // Sorts before any uid that is drawn.
    PodDocument::new(&format!("fake-{NODE}"), "00000000-0000-4000-8000-000000000000")
        .namespace("attacker")
        .static_pod(NODE, victim)
}

/// Whose route has carried a new connection of the pod; None where it went direct.
fn carried(pod: &Pod) -> Option<String> {
    let argv = ["curl", "-sS", "-i", "-m", "5", "http://service/get"];
    let output = pod.run(&argv, SHORT).unwrap().ok().unwrap();
    let via = output.lines().find_map(|line| line.strip_prefix("x-via: "));
    via.map(|via| via.trim().to_owned())
}

#[test]
fn a_forged_static_pod_neither_takes_a_victim_nor_switches_it_off_in_any_order() {
    let test_bed = TestBed::new("forged");
    let victim = test_bed.pod("victim");
    let fake = forged(victim.uid().unwrap());
    let plain = document(&victim);
    let disabled = plain.clone().label("mirror.dev/capture", "disabled");
    let mesh = plain.clone().annotation("linkerd.io/proxy-version", "edge-25.1");
    // What the API says of the victim, and who carries its requests.
    let cases = [
        (Some(&plain), Some("default")),
        (Some(&disabled), None),
        (Some(&mesh), None),
        (None, None),
    ];
    for (known, expected) in cases {
        let both: Vec<_> = known.into_iter().chain([&fake]).collect();
        let assert = |agent: &Agent<'_>, order: &str| {
            let reason = agent.wait_for_workload("attacker/fake-node-1", "refused").unwrap();
            assert!(!reason.is_empty());
            if expected.is_some() {
                agent.wait_for_workload("default/victim", "on").unwrap();
            }
            sleep(LOOKS);
            let via = carried(&victim);
            assert_eq!(via.as_deref(), expected, "{order}: {known:?}\n{}", agent.log());
        };
        // Both when it starts, which is also how one starts again.
        test_bed.write_pods(&both);
        let agent = test_bed.agent(&[]);
        assert(&agent, "together");
        // The forged one first.
        test_bed.write_pods(&[]);
        eventually("all are let go", SHORT, || agent.workloads().unwrap().is_empty()).unwrap();
        test_bed.write_pods(&[&fake]);
        agent.wait_for_workload("attacker/fake-node-1", "refused").unwrap();
        sleep(LOOKS);
        assert_eq!(carried(&victim), None);
        test_bed.write_pods(&both);
        assert(&agent, "forged first");
        // The victim first.
        test_bed.write_pods(&known.into_iter().collect::<Vec<_>>());
        eventually("the forged one is gone", SHORT, || {
            agent.workload("attacker/fake-node-1").unwrap().0.is_empty()
        })
        .unwrap();
        if expected.is_some() {
            agent.wait_for_workload("default/victim", "on").unwrap();
        }
        test_bed.write_pods(&both);
        assert(&agent, "victim first");
    }
}

#[test]
fn a_static_pod_is_captured_by_the_evidence_of_kubelets_log_folder_alone() {
    let test_bed = TestBed::new("static");
    let pod =
        test_bed.node.kubelet_pod_again("etcd", Kubelet::known(Naming::Systemd, HASH)).unwrap();
    let own = PodDocument::new("etcd-node-1", "10000000-0000-4000-8000-000000000000")
        .static_pod(NODE, HASH);
    let fake = forged(HASH);
    test_bed.write_pods(&[&own, &fake]);
    let logs = test_bed.node.folder().join("pod-logs");
    fs::create_dir(&logs).unwrap();
    let path = |name: &str| logs.join(name);
    let missing = path("not-mounted");
    let flag = |path: &Path| path.display().to_string();
    {
        let agent = test_bed.agent(&["--pod-logs", &flag(&missing)]);
        let reason = agent.wait_for_workload("default/etcd-node-1", "refused").unwrap();
        assert!(reason.contains(&flag(&missing)) && reason.contains("mount"), "{reason}");
        assert_eq!(carried(&pod), None);
    }
    let agent = test_bed.agent(&["--pod-logs", &flag(&logs)]);
    let reason = agent.wait_for_workload("default/etcd-node-1", "refused").unwrap();
    assert!(reason.contains(&format!("default_etcd-node-1_{HASH}")), "{reason}");
    // Kubelet makes it before it makes the sandbox.
    fs::create_dir(path(&format!("default_etcd-node-1_{HASH}"))).unwrap();
    agent.wait_for_workload("default/etcd-node-1", "on").unwrap();
    assert_eq!(carried(&pod).as_deref(), Some("default"));
    let reason = agent.wait_for_workload("attacker/fake-node-1", "refused").unwrap();
    assert!(reason.contains(&format!("attacker_fake-node-1_{HASH}")), "{reason}");
    // Two that kubelet has folders of: neither is believed, whoever came first.
    fs::create_dir(path(&format!("attacker_fake-node-1_{HASH}"))).unwrap();
    for (name, other) in [
        ("default/etcd-node-1", "attacker/fake-node-1"),
        ("attacker/fake-node-1", "default/etcd-node-1"),
    ] {
        let told = |reason: &str| reason.contains(other);
        eventually("both are refused", SHORT, || {
            let (state, reason) = agent.workload(name).unwrap();
            state == "refused" && told(&reason)
        })
        .unwrap_or_else(|error| panic!("{error}: {:?}", agent.workload(name).unwrap()));
    }
    assert_eq!(carried(&pod), None);
}

#[test]
fn a_cgroup_that_only_carries_a_pods_uid_in_its_name_is_not_taken_for_the_pods() {
    let test_bed = TestBed::new("nested");
    // Both run; what the agent knows of the victim is its document, before its own cgroup is there.
    let hostile = test_bed.pod("hostile");
    let uid = Kubelet::new(Naming::Systemd).unwrap().uid;
    let dashless = uid.replace('-', "_");
    // As a container can make them whose cgroups are its own to write.
    let nested = [
        format!("kubepods.slice/kubepods-pod{dashless}.slice"),
        format!("kubepods/pod{uid}"),
        format!("pod{uid}"),
    ];
    let mut processes = Vec::new();
    for name in &nested {
        let folder = hostile.cgroup().join("cri-containerd-1.scope").join(name);
        fs::create_dir_all(&folder).unwrap();
        let argv = format!("echo 0 > {}/cgroup.procs && exec sleep 1000", folder.display());
        processes.push(hostile.spawn(&name.replace('/', "-"), &["sh", "-c", &argv]).unwrap());
    }
    // And as a service can whose slice belongs to its user.
    let delegated = test_bed.node.pod("user.service").unwrap();
    for name in &nested {
        let folder = delegated.cgroup().join(name);
        fs::create_dir_all(&folder).unwrap();
        let argv = format!("echo 0 > {}/cgroup.procs && exec sleep 1000", folder.display());
        processes.push(delegated.spawn(&name.replace('/', "-"), &["sh", "-c", &argv]).unwrap());
    }
    test_bed.write_pods(&[&PodDocument::new("victim", &uid)]);
    let agent = test_bed.agent(&[]);
    let reason = agent.wait_for_workload("default/victim", "waiting").unwrap();
    // Longer than between two walks over the whole tree.
    sleep(Duration::from_secs(6));
    let (state, still) = agent.workload("default/victim").unwrap();
    assert_eq!((&*state, &*still), ("waiting", &*reason), "{}", agent.log());
    assert_eq!((carried(&hostile), carried(&delegated)), (None, None));
}

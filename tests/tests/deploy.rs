//! `kubectl apply -k deploy/` on a node: what it starts gets ready, with the privileges and the
//! rights that the manifests name and no others, and can be removed again.
#![allow(clippy::unwrap_used, reason = "helpers of tests; clippy knows only the tests themselves")]

use std::time::Duration;

use mirror_tests::{
    Node,
    cluster::{
        Channel, ControlPlane, DEPLOY, Images, Kubelet, NAMESPACE, Options, allowed, requests_of,
    },
    eventually,
};

/// CAP_NET_ADMIN (12), CAP_SYS_PTRACE (19), CAP_SYS_ADMIN (21).
const AGENT_CAPABILITIES: &str = "0000000000281000";

#[test]
fn what_is_installed_gets_ready_with_what_the_manifests_name() {
    let node = Node::create("deploy").unwrap();
    let options = Options { audit: true, ..Options::default() };
    let plane = ControlPlane::start(&node, &options).unwrap();
    plane.install_gateway_api(Channel::Standard).unwrap();
    let _kubelet = Kubelet::start(&plane, Images::standard().unwrap()).unwrap();
    plane.kubectl(&["apply", "-k", DEPLOY], "").unwrap();
    for workload in ["daemonset/mirror-agent", "deployment/mirror-controller"] {
        let args = ["-n", NAMESPACE, "rollout", "status", workload, "--timeout=90s"];
        plane.kubectl(&args, "").unwrap_or_else(|error| panic!("{error:#}\n{}", state(&plane)));
    }
    let agent = status(&plane, "daemonset/mirror-agent");
    assert!(agent.contains(&format!("CapEff:\t{AGENT_CAPABILITIES}\n")), "{agent}");
    assert!(agent.contains("NoNewPrivs:\t1\n"), "{agent}");
    let mounts = inside(&plane, "daemonset/mirror-agent", "/proc/self/mountinfo");
    for folder in [" /sys/fs/cgroup", " /var/log/pods"] {
        let mount = mounts.lines().find(|mount| mount.contains(&format!("{folder} ")));
        assert!(mount.is_some_and(|mount| mount.contains(" ro,")), "{folder}: {mounts}");
    }
    let controller = status(&plane, "deployment/mirror-controller");
    assert!(controller.contains("CapEff:\t0000000000000000\n"), "{controller}");
    assert!(controller.contains("Uid:\t65532\t"), "{controller}");
    assert_rights(&plane, "mirror-agent", &[&["clusterrole", "mirror-agent"]]);
    let own = ["-n", NAMESPACE, "role", "mirror-controller"];
    let lease = ["-n", NAMESPACE, "get", "lease", "mirror-controller"];
    eventually("a leader", Duration::from_secs(20), || plane.kubectl(&lease, "").is_ok()).unwrap();
    assert_rights(&plane, "mirror-controller", &[&["clusterrole", "mirror-controller"], &own]);
    let delete = ["delete", "-k", DEPLOY, "--cascade=foreground", "--timeout=90s"];
    plane.kubectl(&delete, "").unwrap_or_else(|error| panic!("{error:#}\n{}", state(&plane)));
}

/// What a process that is run in a workload's first pod may do.
fn status(plane: &ControlPlane<'_>, workload: &str) -> String {
    inside(plane, workload, "/proc/self/status")
}

/// A file as a process in a workload's first pod reads it.
fn inside(plane: &ControlPlane<'_>, workload: &str, file: &str) -> String {
    let args = ["-n", NAMESPACE, "exec", workload, "--", "/bin/cat", file];
    plane.kubectl(&args, "").unwrap()
}

/// What the pods are and say.
fn state(plane: &ControlPlane<'_>) -> String {
    let ask = |args: &[&str]| plane.kubectl(args, "").unwrap_or_else(|error| error.to_string());
    let logs = |component: &str| {
        let selector = format!("app.kubernetes.io/component={component}");
        ask(&["-n", NAMESPACE, "logs", "-l", &selector, "--tail=20"])
    };
    let pods = ask(&["-n", NAMESPACE, "get", "pods", "-o", "wide"]);
    let events = ask(&["-n", NAMESPACE, "get", "events"]);
    format!("{pods}\n{events}\n{}\n{}", logs("agent"), logs("controller"))
}

/// Every request of the ServiceAccount was allowed, and by a verb that a role names.
fn assert_rights(plane: &ControlPlane<'_>, account: &str, roles: &[&[&str]]) {
    let user = format!("system:serviceaccount:{NAMESPACE}:{account}");
    let (roles, requests) = (allowed(plane, roles).unwrap(), requests_of(plane, &user).unwrap());
    assert!(requests.len() > 5, "{requests:?}");
    for request in &requests {
        assert_ne!(request.code, 403, "{request:?}");
        let requested = format!("{} {}", request.verb, request.resource);
        assert!(roles.contains(&requested), "{requested} is not in {roles:?}");
    }
    // A right that nobody uses is one too many; those of rare occasions aside.
    let used =
        |right: &String| requests.iter().any(|r| *right == format!("{} {}", r.verb, r.resource));
    let rare = |right: &String| {
        let rare = ["list ", "get gateway", "patch ", "create events", "update "];
        rare.iter().any(|rare| right.starts_with(rare))
    };
    let unused: Vec<_> = roles.iter().filter(|right| !used(right) && !rare(right)).collect();
    assert!(unused.is_empty(), "{unused:?}");
}

//! The walkthrough of request mirroring on a cluster: its text as published (`walkthrough.txt`), each
//! command as it stands there, with mirror installed as its users install it.
#![allow(clippy::unwrap_used, reason = "helpers of tests; clippy knows only the tests themselves")]

use std::{path::Path, process::Command, time::Duration};

use mirror_tests::{
    Node,
    cluster::{Channel, ControlPlane, Images, Kubelet, Options},
    eventually, run,
};

const TEXT: &str = include_str!("../walkthrough.txt");
const PATIENCE: Duration = Duration::from_secs(90);

/// The commands of a text, in order: what follows `$ `, with the lines of a here-document.
fn commands<'a>(mut lines: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut commands = Vec::new();
    while let Some(line) = lines.next() {
        let Some(first) = line.strip_prefix("$ ") else { continue };
        let mut command = first.to_owned();
        if first.ends_with("<<EOF") {
            for line in lines.by_ref() {
                command = command + "\n" + line;
                if line == "EOF" {
                    break;
                }
            }
        }
        commands.push(command);
    }
    commands
}

struct Walk<'a> {
    plane: &'a ControlPlane<'a>,
    commands: std::vec::IntoIter<String>,
}

impl Walk<'_> {
    /// Runs the next command of the text, which must begin so; its stdout.
    fn next(&mut self, beginning: &str) -> String {
        let command = self.commands.next().unwrap();
        assert!(command.starts_with(beginning), "the text has another order: {command}");
        self.shell(&command)
    }

    /// Runs a command as the text's reader would, whose kubectl knows this cluster.
    fn shell(&self, command: &str) -> String {
        println!("$ {command}");
        let folder = self.plane.binaries().folder();
        let path = std::env::var("PATH").unwrap();
        let output = Command::new("bash")
            .args(["-c", command])
            .env("KUBECONFIG", self.plane.kubeconfig())
            .env("PATH", format!("{}:{path}", folder.display()))
            .output()
            .unwrap();
        let (stdout, stderr) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        println!("{stdout}{stderr}");
        assert!(output.status.success(), "{command}: {stderr}");
        stdout.into_owned()
    }

    fn kubectl(&self, args: &str) -> String {
        let args: Vec<_> = args.split(' ').collect();
        self.plane.kubectl(&args, "").unwrap()
    }

    /// Access log lines of a version.
    fn requests(&self, version: &str) -> usize {
        requests(&self.kubectl(&format!("logs deploy/httpbin-{version} -c httpbin")))
    }

    fn wait_for_requests(&self, version: &str, count: usize) {
        let what = format!("{count} requests of {version}");
        let arrived =
            eventually(&what, Duration::from_secs(20), || self.requests(version) >= count);
        assert!(arrived.is_ok(), "{what}: {}\n{}", self.requests(version), self.agents());
        assert_eq!(self.requests(version), count);
    }

    /// Waits until the controller accepts the route's present generation, and then for the agents,
    /// which it does not know of.
    fn wait_for_route(&self) {
        eventually("the route is accepted", PATIENCE, || {
            let route = self.kubectl("get httproute httpbin -o json");
            let route: serde_json::Value = serde_json::from_str(&route).unwrap();
            let generation = &route["metadata"]["generation"];
            let conditions = route["status"]["parents"][0]["conditions"].as_array().cloned();
            conditions.unwrap_or_default().iter().any(|condition| {
                condition["type"] == "Accepted"
                    && condition["status"] == "True"
                    && &condition["observedGeneration"] == generation
            })
        })
        .unwrap_or_else(|error| panic!("{error:#}\n{}", self.agents()));
        std::thread::sleep(Duration::from_secs(1));
    }

    /// What there is to know when something fails.
    fn agents(&self) -> String {
        let all = "describe pods,httproutes -A";
        let logs = "logs -n mirror-system --tail=40 --prefix -l app.kubernetes.io/name=mirror";
        [logs, all]
            .map(|args| {
                let args: Vec<_> = args.split(' ').collect();
                self.plane.kubectl(&args, "").unwrap_or_else(|error| format!("{error:#}"))
            })
            .concat()
    }
}

fn requests(log: &str) -> usize {
    log.lines().filter(|line| line.contains("\"GET /headers HTTP/1.1\" 200")).count()
}

/// The size of the last response: the field behind the status.
fn answer_size(log: &str) -> usize {
    let line = log.lines().rfind(|line| line.contains("\"GET /headers")).unwrap();
    line.split("\" 200 ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap()
}

/// Installs mirror as `deploy/README.md` says.
fn install(walk: &Walk<'_>) {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
    walk.shell(&format!("kubectl apply -k {}", deploy.canonicalize().unwrap().display()));
    for name in ["daemonset/mirror-agent", "deployment/mirror-controller"] {
        let args = ["rollout", "status", "-n", "mirror-system", name, "--timeout=90s"];
        let ready = walk.plane.kubectl(&args, "");
        assert!(ready.is_ok(), "{ready:?}\n{}", walk.agents());
    }
}

fn headers(response: &str) {
    let response: serde_json::Value = serde_json::from_str(response).unwrap();
    assert_eq!(response["headers"]["Host"], "httpbin:8000");
}

#[test]
fn the_walkthrough_holds_as_published() {
    let node = Node::create("published").unwrap();
    let options = Options { audit: true, ..Options::default() };
    let plane = ControlPlane::start(&node, &options).unwrap();
    plane.install_gateway_api(Channel::Standard).unwrap();
    let _kubelet = Kubelet::start(&plane, Images::standard().unwrap()).unwrap();
    let mut walk = Walk { plane: &plane, commands: commands(TEXT.lines()).into_iter() };
    install(&walk);

    for _ in 0..4 {
        walk.next("kubectl create -f - <<EOF");
    }
    for name in ["httpbin-v1", "httpbin-v2", "curl"] {
        let args = ["rollout", "status", &format!("deployment/{name}"), "--timeout=90s"];
        plane.kubectl(&args, "").unwrap_or_else(|error| panic!("{error:#}\n{}", walk.agents()));
    }
    walk.next("kubectl apply -f - <<EOF");
    walk.wait_for_route();

    headers(&walk.next("kubectl exec deploy/curl -- curl"));
    let first = walk.next("kubectl logs deploy/httpbin-v1");
    assert_eq!(requests(&first), 1, "{first}\n{}", walk.agents());
    assert_eq!(requests(&walk.next("kubectl logs deploy/httpbin-v2")), 0);
    // Without the route one request in two would be v2's.
    for _ in 0..9 {
        walk.shell("kubectl exec deploy/curl -- curl -sS http://httpbin:8000/headers");
    }
    assert_eq!((walk.requests("v1"), walk.requests("v2")), (10, 0));

    walk.next("kubectl apply -f - <<EOF");
    walk.wait_for_route();
    headers(&walk.next("kubectl exec deploy/curl -- curl"));
    // The copy is out of band.
    walk.wait_for_requests("v2", 1);
    let primary = walk.next("kubectl logs deploy/httpbin-v1");
    let shadow = walk.next("kubectl logs deploy/httpbin-v2");
    assert_eq!((requests(&primary), requests(&shadow)), (11, 1));
    // httpbin's answer has the Host that it was sent: httpbin-shadow:8000.
    assert_eq!(answer_size(&shadow), answer_size(&primary) + "-shadow".len());
    for count in 2..=10 {
        walk.shell("kubectl exec deploy/curl -- curl -sS http://httpbin:8000/headers");
        walk.wait_for_requests("v2", count);
    }
    assert_eq!(walk.requests("v1"), 20);

    while let Some(command) = walk.commands.next() {
        assert!(command.starts_with("kubectl delete "), "{command}");
        walk.shell(&command);
    }
    assert_eq!(walk.kubectl("get httproutes,deployments -o name"), "");
    nothing_was_forbidden(&plane);
    // From a machine's shell as well: the relay leads to the same API server.
    let kubectl = plane.binaries().path("kubectl");
    let config = plane.kubeconfig();
    run(&[&kubectl, "--kubeconfig", config.to_str().unwrap(), "get", "nodes"], "").unwrap();
}

/// Whatever mirror asked the API server for, its manifests allow.
fn nothing_was_forbidden(plane: &ControlPlane<'_>) {
    let log = plane.audit_log().unwrap();
    let ours = log.lines().filter(|line| line.contains("serviceaccount:mirror-system:"));
    let ours: Vec<serde_json::Value> =
        ours.map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(ours.len() > 10, "its requests are in the log");
    let refused = ours.iter().filter(|event| event["responseStatus"]["code"] == 403);
    let refused: Vec<_> = refused.map(|event| &event["requestURI"]).collect();
    assert!(refused.is_empty(), "{refused:?}");
}

#[test]
fn the_text_has_all_of_its_commands() {
    let commands = commands(TEXT.lines());
    assert_eq!(commands.len(), 16, "{commands:#?}");
    assert_eq!(TEXT.lines().filter(|line| line.starts_with("$ ")).count(), 16);
    assert_eq!(commands.iter().filter(|command| command.ends_with("\nEOF")).count(), 6);
}

#[test]
fn the_documentation_has_the_same_commands() {
    let page = include_str!("../../deploy/walkthrough.md");
    let lines = page.lines().map(|line| line.strip_prefix("    ").unwrap_or(line));
    assert_eq!(commands(lines), commands(TEXT.lines()));
}

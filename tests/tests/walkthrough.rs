//! The walkthrough of the Gateway API's request mirroring, end to end: no route, the default
//! route, the mirror, a share of the requests, a bad shadow, a dead agent.
#![allow(clippy::unwrap_used, reason = "helpers of tests; clippy knows only the tests themselves")]

use std::{cell::RefCell, collections::HashSet, fs, path::PathBuf, time::Duration};

use mirror_tests::{
    Agent, Node, Pod, Process, Service, Signal, eventually,
    manifest::{Route, Rule},
    slowness,
};

const SHORT: Duration = Duration::from_secs(20);
const URL: &str = "http://httpbin:8000/headers";

/// The pods and Services of the walkthrough.
struct Walkthrough {
    curl: Pod,
    v1: Version,
    v2: Version,
    httpbin: Service,
    // Last: its drop removes everything.
    node: Node,
}

struct Version {
    pod: Pod,
    echo: RefCell<Process>,
    json: PathBuf,
}

impl Walkthrough {
    fn new() -> Self {
        let node = Node::create("walkthrough").unwrap();
        let curl = node.pod("curl").unwrap();
        let (v1, v2) = (Version::new(&node, "v1"), Version::new(&node, "v2"));
        let httpbin = node.service("httpbin", 8000, 80, &[&v1.pod, &v2.pod]).unwrap();
        let services = [
            httpbin.clone(),
            node.service("httpbin-v1", 80, 80, &[&v1.pod]).unwrap(),
            node.service("httpbin-v2", 80, 80, &[&v2.pod]).unwrap(),
        ];
        let manifests = services.each_ref().map(Service::manifest);
        node.routes().write("services.yaml", &manifests.join("---\n")).unwrap();
        Self { curl, v1, v2, httpbin, node }
    }

    /// Puts a route into force, to v1 and with what `rule` adds; `agent` is told within a second.
    fn apply(&self, rule: impl FnOnce(Rule) -> Rule) {
        let rule = rule(Rule::to("httpbin-v1", 80));
        let text = Route::new("httpbin", &self.httpbin).rule(rule).manifest();
        self.node.routes().write("route.yaml", &text).unwrap();
        std::thread::sleep(Duration::from_secs(1));
    }

    fn agent(&self) -> Agent<'_> {
        Agent::start(&self.node, &[&self.curl], &[]).unwrap()
    }

    /// Sends `count` requests, each told apart by its query and on a connection of its own; all
    /// must be answered with 200, within a second.
    fn send(&self, tag: &str, count: usize) {
        let limit = 5.0 * slowness();
        let script = format!(
            "for i in $(seq {count}); do curl -sS -m {limit} -o /dev/null \
             -w '%{{http_code}} %{{time_total}}\\n' \"{URL}?id={tag}-$i\" || exit; done"
        );
        self.check(&["sh", "-c", &script], count);
    }

    /// The same on one keep-alive connection.
    fn send_kept(&self, tag: &str, count: usize) {
        let url = format!("{URL}?id={tag}-[1-{count}]");
        let limit = (5.0 * slowness()).to_string();
        let format = "%{http_code} %{time_total}\n";
        self.check(&["curl", "-sS", "-m", &limit, "-o", "/dev/null", "-w", format, &url], count);
    }

    fn check(&self, argv: &[&str], count: usize) {
        let output = self
            .curl
            .run(argv, Duration::from_secs(120).mul_f64(slowness()))
            .unwrap()
            .ok()
            .unwrap();
        assert_eq!(output.lines().count(), count, "{output}");
        for line in output.lines() {
            let (code, seconds) = line.split_once(' ').unwrap();
            assert_eq!(code, "200", "{output}");
            assert!(seconds.parse::<f64>().unwrap() < slowness(), "{output}");
        }
    }
}

impl Version {
    fn new(node: &Node, name: &str) -> Self {
        let pod = node.pod(name).unwrap();
        let json = node.folder().join(format!("{name}.json"));
        let echo = RefCell::new(Self::serve(&pod, &json));
        Self { pod, echo, json }
    }

    fn serve(pod: &Pod, json: &std::path::Path) -> Process {
        pod.echo(&["--listen", "0.0.0.0:80", "--log-json", json.to_str().unwrap()]).unwrap()
    }

    /// Ids and Hosts of the requests with this tag, in the order of arrival.
    fn seen(&self, tag: &str) -> Vec<(String, String)> {
        let text = fs::read_to_string(&self.json).unwrap_or_default();
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
        lines
            .filter_map(|line: serde_json::Value| {
                let id = line["target"].as_str()?.split_once("id=")?.1.to_owned();
                let tagged = id.rsplit_once('-')?.0 == tag;
                tagged.then(|| Some((id, line["host"].as_str()?.to_owned())))?
            })
            .collect()
    }

    fn hosts(&self, tag: &str) -> HashSet<String> {
        self.seen(tag).into_iter().map(|(_, host)| host).collect()
    }

    /// Waits until `count` requests with this tag have arrived: copies are out of band.
    fn wait_for(&self, tag: &str, count: usize) {
        let what = format!("{count} requests {tag}");
        let patience = Duration::from_secs(5).mul_f64(slowness());
        let arrived = eventually(&what, patience, || self.seen(tag).len() >= count);
        assert!(arrived.is_ok(), "{what}: {}", self.seen(tag).len());
        assert_eq!(self.seen(tag).len(), count);
    }
}

fn only(host: &str) -> HashSet<String> {
    HashSet::from([host.to_owned()])
}

#[test]
fn without_a_route_both_versions_get_requests() {
    let w = Walkthrough::new();
    let agent = w.agent();
    w.send("none", 40);
    let (v1, v2) = (w.v1.seen("none").len(), w.v2.seen("none").len());
    assert!(v1 > 0 && v2 > 0 && v1 + v2 == 40, "{v1} {v2}\n{}", agent.log());
}

#[test]
fn the_default_route_sends_everything_to_v1() {
    let w = Walkthrough::new();
    let agent = w.agent();
    w.apply(|rule| rule);
    w.send("default", 20);
    w.send_kept("kept", 20);
    assert_eq!(w.v1.seen("default").len(), 20, "{}", agent.log());
    assert_eq!(w.v1.seen("kept").len(), 20);
    assert_eq!(w.v1.hosts("default"), only("httpbin:8000"));
    assert_eq!(fs::read_to_string(&w.v2.json).unwrap_or_default(), "");
}

#[test]
fn a_mirror_copies_to_v2_under_the_shadow_host() {
    let w = Walkthrough::new();
    let agent = w.agent();
    w.apply(|rule| rule.mirror("httpbin-v2", 80));
    let response = w.curl.run(&["curl", "-sS", &format!("{URL}?id=one-1")], SHORT).unwrap();
    assert!(response.ok().unwrap().contains("\"Host\": \"httpbin:8000\""), "{}", agent.log());
    w.v2.wait_for("one", 1);
    assert_eq!(w.v1.seen("one"), [("one-1".into(), "httpbin:8000".into())]);
    assert_eq!(w.v2.seen("one"), [("one-1".into(), "httpbin-shadow:8000".into())]);
    w.send_kept("many", 200);
    w.v2.wait_for("many", 200);
    let ids = |seen: Vec<(String, String)>| seen.into_iter().map(|(id, _)| id).collect();
    let (primary, shadow): (HashSet<_>, HashSet<_>) =
        (ids(w.v1.seen("many")), ids(w.v2.seen("many")));
    assert_eq!(primary, shadow);
    assert_eq!(shadow.len(), 200);
}

#[test]
fn a_quarter_is_a_quarter() {
    let w = Walkthrough::new();
    let agent = w.agent();
    w.apply(|rule| rule.mirror_percent("httpbin-v2", 80, 25));
    w.send_kept("quarter", 1000);
    assert_eq!(w.v1.seen("quarter").len(), 1000);
    std::thread::sleep(Duration::from_millis(500));
    // 250 expected, standard deviation 13.7: outside of this once in a million runs.
    let copies = w.v2.seen("quarter").len();
    assert!((180..=320).contains(&copies), "{copies}\n{}", agent.log());
}

#[test]
fn a_bad_shadow_harms_nobody() {
    let w = Walkthrough::new();
    let agent = w.agent();
    w.apply(|rule| rule.mirror("httpbin-v2", 80));
    w.send_kept("healthy", 300);
    w.v2.wait_for("healthy", 300);
    w.v2.echo.borrow_mut().kill().unwrap();
    w.send_kept("dead", 300);
    w.send("dead-new", 20);
    w.v2.echo.replace(Version::serve(&w.v2.pod, &w.v2.json));
    w.v2.echo.borrow_mut().signal(Signal::SIGSTOP).unwrap();
    w.send_kept("stalled", 300);
    w.send("stalled-new", 20);
    for (tag, count) in [("dead", 300), ("dead-new", 20), ("stalled", 300), ("stalled-new", 20)] {
        assert_eq!(w.v1.seen(tag).len(), count, "{tag}\n{}", agent.log());
    }
}

#[test]
fn a_killed_agent_leaves_the_service_as_it_was() {
    let w = Walkthrough::new();
    let mut agent = w.agent();
    w.apply(|rule| rule.mirror("httpbin-v2", 80));
    w.send("before", 10);
    assert_eq!(w.v1.seen("before").len(), 10);
    agent.kill().unwrap();
    w.send("after", 40);
    let (v1, v2) = (w.v1.seen("after").len(), w.v2.seen("after").len());
    assert!(v1 > 0 && v2 > 0 && v1 + v2 == 40, "{v1} {v2}");
    assert_eq!(w.v2.hosts("after"), only("httpbin:8000"));
    drop(agent);
    // The next agent captures again; the application was not touched.
    let _agent = w.agent();
    w.send("again", 10);
    assert_eq!(w.v1.seen("again").len(), 10);
    w.v2.wait_for("again", 10);
    assert_eq!(w.v2.hosts("again"), only("httpbin-shadow:8000"));
}

//! `mirror agent --source kube` against a real API server, by the rights of deploy/: strange
//! routes, outages, compaction, CRDs that go and come.
#![allow(clippy::unwrap_used, reason = "helpers of tests; clippy knows only the tests themselves")]

use std::{
    fmt::Write as _,
    ops::Range,
    path::Path,
    thread::sleep,
    time::{Duration, Instant},
};

use mirror_tests::{
    Agent, Node, Pod, Process, Service,
    cluster::{Account, Channel, ControlPlane, DEPLOY, Gate, NAMESPACE, Options},
    eventually,
    load::LoadClient,
    manifest::{Route, Rule},
    slowness,
};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(20);

/// A client, a primary and a shadow on the node; the control plane and its objects.
struct TestBed<'n> {
    node: &'n Node,
    plane: ControlPlane<'n>,
    app: Pod,
    service: Service,
    account: Account,
    _servers: Vec<(Pod, Process)>,
}

impl<'n> TestBed<'n> {
    fn new(node: &'n Node, channel: Channel, server_flags: &[&str]) -> Self {
        let options = Options {
            controllers: false,
            server_flags: server_flags.iter().map(ToString::to_string).collect(),
            ..Options::default()
        };
        let plane = ControlPlane::start(node, &options).unwrap();
        plane.install_gateway_api(channel).unwrap();
        plane.kubectl(&["apply", "-k", DEPLOY], "").unwrap();
        let account = Account::new(node, &plane, NAMESPACE, "mirror-agent", "agent").unwrap();
        let app = node.pod("app").unwrap();
        let servers = ["primary", "shadow"].map(|name| {
            let pod = node.pod(name).unwrap();
            let echo = pod.echo(&["--listen", "0.0.0.0:80", "--quiet"]).unwrap();
            (pod, echo)
        });
        let service = node.service("shop", 80, 80, &[&servers[0].0]).unwrap();
        let shadow = node.service("shadow", 80, 80, &[&servers[1].0]).unwrap();
        let backend = node.service("primary", 80, 80, &[&servers[0].0]).unwrap();
        let test_bed = Self { node, plane, app, service, account, _servers: servers.into() };
        for manifest in [test_bed.service.manifest(), backend.manifest(), shadow.manifest()] {
            test_bed.apply(&manifest);
        }
        test_bed
    }

    fn apply(&self, manifest: &str) {
        // Server-side: nobody reads the discovery of kinds that another test has just installed.
        self.plane.kubectl(&["apply", "--server-side", "-f", "-"], manifest).unwrap();
    }

    /// The route to the primary, whose responses say that the agent carried them; with a mirror.
    fn route(&self, name: &str) -> String {
        let mark = "type: ResponseHeaderModifier\nresponseHeaderModifier:\n  set:\n  - name: x-via\n    \
                    value: agent";
        let rule = Rule::to("primary", 80).filter(mark).mirror("shadow", 80);
        Route::new(name, &self.service).rule(rule).manifest()
    }

    fn agent(&self, name: &str, kubeconfig: &Path) -> Agent<'n> {
        let mut agent = Agent::follow(self.node, name, kubeconfig, &[&self.app], &[]).unwrap();
        agent.wait_ready().unwrap();
        agent
    }

    fn is_mirrored(&self, agent: &Agent<'_>) -> bool {
        let request = ["curl", "-sS", "-i", "-m", "5", "http://shop/"];
        let copies = || agent.metric("mirror_copies_selected_total", &[]).unwrap();
        let before = copies();
        let response = self.app.run(&request, Duration::from_secs(9)).unwrap().ok().unwrap();
        response.contains("x-via: agent") && copies() > before
    }
}

fn config(agent: &Agent<'_>) -> Value {
    let (status, body) = agent.get("/config").unwrap();
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

fn frontends(agent: &Agent<'_>) -> usize {
    config(agent)["frontends"].as_object().unwrap().len()
}

/// How old what the agent knows may be.
fn age(agent: &Agent<'_>) -> f64 {
    agent.metric("mirror_snapshot_age_seconds", &[]).unwrap()
}

/// Services of these numbers with a route each; one has a filter that mirror does not know.
fn many(numbers: Range<usize>, strange: Option<usize>) -> String {
    let mut text = String::new();
    for at in numbers {
        let filter = match strange == Some(at) {
            false => String::new(),
            true => "filters: [{type: ExternalAuth, externalAuth: {protocol: HTTP, http: {path: \
                     /auth}, backendRef: {name: auth, port: 80}}}], "
                .into(),
        };
        let _ = write!(
            text,
            "---\n{{apiVersion: v1, kind: Service, metadata: {{name: s{at}}}, spec: {{clusterIP: \
             10.100.{}.{}, ports: [{{port: 80}}]}}}}\n---\n{{apiVersion: \
             gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {{name: s{at}}}, spec: \
             {{parentRefs: [{{group: '', kind: Service, name: s{at}}}], rules: \
             [{{{filter}backendRefs: [{{name: s{at}, port: 80}}]}}]}}}}\n",
            at / 200,
            at % 200 + 1,
        );
    }
    text
}

#[test]
fn one_strange_route_among_a_hundred_blinds_nobody() {
    for (lists, flags) in [("streamed", &[][..]), ("paged", &["--feature-gates=WatchList=false"])] {
        let node = Node::create("strange").unwrap();
        let test_bed = TestBed::new(&node, Channel::Experimental, flags);
        test_bed.apply(&many(0..99, Some(50)));
        test_bed.apply(&test_bed.route("shop"));
        for start in ["first", "second"] {
            let agent = test_bed.agent(&format!("{lists}-{start}"), &test_bed.account.kubeconfig);
            assert_eq!(frontends(&agent), 99, "{lists}, {start} start");
            let config = config(&agent);
            let problems = config["problems"].as_array().unwrap();
            assert_eq!(problems.len(), 1, "{problems:?}");
            let problem = problems[0].as_str().unwrap();
            assert!(problem.starts_with("HTTPRoute default/s50: "), "{problem}");
            assert!(problem.contains("ExternalAuth"), "{problem}");
            assert!(test_bed.is_mirrored(&agent));
            let paged = agent.log().contains("paged ones");
            assert_eq!(paged, lists == "paged", "{}", agent.log());
        }
    }
}

/// Kills the API server under load for so long. How long after its readiness the agent follows it
/// again.
fn outage(test_bed: &mut TestBed<'_>, agent: &Agent<'_>, seconds: u64) -> Duration {
    test_bed.plane.kill_server().unwrap();
    sleep(Duration::from_secs(seconds));
    let away = age(agent);
    assert!(away >= seconds as f64 - 1.0, "the age says {away} after {seconds} s");
    assert_eq!(agent.get("/readyz").unwrap().0, 200, "an outage makes no agent unready");
    test_bed.plane.start_server().unwrap();
    let ready = Instant::now();
    eventually("the agent follows again", Duration::from_secs(45), || age(agent) == 0.0).unwrap();
    ready.elapsed()
}

#[test]
fn an_api_server_that_is_killed_stops_no_request() {
    let node = Node::create("outage").unwrap();
    let mut test_bed = TestBed::new(&node, Channel::Standard, &[]);
    test_bed.apply(&test_bed.route("shop"));
    let agent = test_bed.agent("agent", &test_bed.account.kubeconfig.clone());
    let seconds = 120;
    let client = LoadClient::start(&test_bed.app, "http://shop", seconds).unwrap();
    sleep(Duration::from_secs(2));
    let short = outage(&mut test_bed, &agent, 10);
    test_bed.apply(&many(0..3, None));
    eventually("new routes count after 10 s", SOON, || frontends(&agent) == 4).unwrap();
    let long = outage(&mut test_bed, &agent, 60);
    test_bed.plane.kubectl(&["delete", "httproute", "s0"], "").unwrap();
    eventually("a deletion counts after 60 s", SOON, || frontends(&agent) == 3).unwrap();
    let events = client.finish().unwrap();
    println!("{}; resynced {short:?} after readiness (10 s), {long:?} (60 s)", events.summary());
    events.none_failed("outages of the API server");
    assert!(events.all().all(|event| event.via == "agent"), "captured all the time");
    assert!(short < Duration::from_secs(5).mul_f64(slowness()), "{short:?}");
    assert!(long < Duration::from_secs(32), "{long:?}");
}

#[test]
fn what_happens_behind_a_cut_and_a_compaction_is_known_after_it() {
    let node = Node::create("gate").unwrap();
    let mut test_bed = TestBed::new(&node, Channel::Standard, &[]);
    test_bed.apply(&many(0..20, None));
    test_bed.apply(&test_bed.route("shop"));
    let gate = Gate::open(&node, &test_bed.plane, &test_bed.account.kubeconfig).unwrap();
    let agent = test_bed.agent("agent", gate.kubeconfig());
    assert_eq!(frontends(&agent), 21);
    let client = LoadClient::start(&test_bed.app, "http://shop", 60).unwrap();
    gate.shut();
    test_bed.plane.kubectl(&["delete", "httproute", "s0", "s1", "s2"], "").unwrap();
    test_bed.plane.kubectl(&["delete", "service", "s3"], "").unwrap();
    test_bed.apply(&many(20..120, None));
    // Its cache of changes goes with the server, and what etcd had of them with the compaction.
    test_bed.plane.kill_server().unwrap();
    test_bed.plane.compact().unwrap();
    test_bed.plane.start_server().unwrap();
    let lists = || agent.metric("mirror_watch_lists_total", &[("kind", "HTTPRoute")]).unwrap();
    let before = lists();
    assert_eq!(frontends(&agent), 21, "nothing is known of it yet");
    gate.reopen();
    let open = Instant::now();
    // After a cut of over a minute it may wait for 30 s.
    let patience = Duration::from_secs(45);
    eventually("listed anew", patience, || age(&agent) == 0.0 && lists() > before).unwrap();
    println!("listed anew {:?} after the cut ended", open.elapsed());
    let served = test_bed.plane.kubectl(&["get", "httproutes", "-o", "name"], "").unwrap();
    eventually("the agent has what the server has", SOON, || {
        let config = config(&agent);
        config["routes"].as_array().unwrap().len() == served.lines().count()
    })
    .unwrap();
    let events = client.finish().unwrap();
    println!("{}", events.summary());
    events.none_failed("a cut watch");
}

#[test]
fn a_burst_of_routes_stops_no_request() {
    let node = Node::create("burst").unwrap();
    let test_bed = TestBed::new(&node, Channel::Standard, &[]);
    test_bed.apply(&test_bed.route("shop"));
    let agent = test_bed.agent("agent", &test_bed.account.kubeconfig);
    let client = LoadClient::start(&test_bed.app, "http://shop", 45).unwrap();
    let begun = Instant::now();
    test_bed.apply(&many(0..500, None));
    let applied = begun.elapsed();
    eventually("all are in force", SOON, || frontends(&agent) == 501).unwrap();
    println!(
        "500 Services and routes: applied in {applied:?}, in force {:?} later",
        begun.elapsed() - applied
    );
    let events = client.finish().unwrap();
    println!("  meanwhile {}", events.summary());
    events.none_failed("a burst of routes");
    assert!(events.all().all(|event| event.via == "agent"), "captured all the time");
}

#[test]
fn a_crd_that_goes_takes_its_routes_and_is_followed_again_when_it_comes() {
    let node = Node::create("crd").unwrap();
    let test_bed = TestBed::new(&node, Channel::Standard, &[]);
    test_bed.apply(&test_bed.route("shop"));
    let agent = test_bed.agent("agent", &test_bed.account.kubeconfig);
    assert!(test_bed.is_mirrored(&agent));
    let client = LoadClient::start(&test_bed.app, "http://shop", 60).unwrap();
    let crd = "httproutes.gateway.networking.k8s.io";
    test_bed.plane.kubectl(&["delete", "crd", crd], "").unwrap();
    eventually("the routes are gone", SOON, || frontends(&agent) == 0).unwrap();
    sleep(Duration::from_secs(15));
    test_bed.plane.install_gateway_api(Channel::Standard).unwrap();
    let established = Instant::now();
    test_bed.apply(&test_bed.route("shop"));
    let applied = established.elapsed();
    eventually("the route counts again", SOON, || frontends(&agent) == 1).unwrap();
    let took = established.elapsed();
    println!(
        "in force {took:?} after the CRD was established, {:?} after the apply",
        took - applied
    );
    assert!(took - applied < Duration::from_secs(2).mul_f64(slowness()), "{took:?}");
    assert!(test_bed.is_mirrored(&agent));
    assert_eq!(agent.get("/readyz").unwrap().0, 200);
    client.finish().unwrap().none_failed("a CRD that goes and comes");
}

#[test]
fn an_agent_without_a_server_is_not_ready_and_says_why() {
    let node = Node::create("without").unwrap();
    let mut test_bed = TestBed::new(&node, Channel::Standard, &[]);
    test_bed.apply(&test_bed.route("shop"));
    test_bed.plane.kill_server().unwrap();
    let mut agent =
        Agent::follow(&node, "agent", &test_bed.account.kubeconfig, &[&test_bed.app], &[]).unwrap();
    let mut said = String::new();
    eventually("it says why it is not ready", SOON, || match agent.get("/readyz") {
        Ok((503, body)) => {
            said = body;
            said.contains("API server")
        }
        _ => false,
    })
    .unwrap();
    println!("{said}");
    let request = ["curl", "-sS", "-m", "5", "-o", "/dev/null", "http://shop/"];
    test_bed.app.run(&request, Duration::from_secs(9)).unwrap().ok().unwrap();
    test_bed.plane.start_server().unwrap();
    agent.wait_ready().unwrap();
    assert!(test_bed.is_mirrored(&agent));
}

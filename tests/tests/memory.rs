//! What a hostile pod, and hostile primaries, can make the agent hold with its default bounds: less than
//! 256 MiB in all, given back soon after, while another pod of the node notices nothing.
#![allow(clippy::unwrap_used, reason = "helpers of tests; clippy knows only the tests themselves")]

use std::{thread, time::Duration};

use mirror_tests::{
    Agent, Node, Pod, Process, Service, eventually,
    manifest::{Route, Rule},
    pair::script,
    usage,
};
use serde_json::Value;

const MIB: u64 = 1 << 20;

/// The agent's memory in all, whatever is done to it.
const BOUND: u64 = 256 * MIB;

/// What may stay after an attack: caches, and what the allocator does not find.
const KEPT: u64 = 24 * MIB;

const SHORT: Duration = Duration::from_secs(60);

/// Requests of a pod that does nothing wrong: on one connection, and each on one of its own.
const NORMAL: &str = r#"
import http.client, json, time
def get(connection):
    begun = time.monotonic()
    connection.request("GET", "/get")
    response = connection.getresponse()
    response.read()
    assert response.status == 200, response.status
    return time.monotonic() - begun
kept = http.client.HTTPConnection("good", 80, timeout=10)
times = [get(kept) for _ in range(150)]
times += [get(http.client.HTTPConnection("good", 80, timeout=10)) for _ in range(50)]
times.sort()
print(json.dumps({"p50": times[100], "p99": times[197]}))
"#;

struct Stage {
    node: Node,
    hostile: Pod,
    normal: Pod,
    primary: Pod,
    _servers: Vec<Process>,
}

impl Stage {
    /// `kinds` of hostile servers, each a Service of that name, beside a good one.
    fn create(name: &str, kinds: &[&str]) -> Self {
        let node = Node::create(name).unwrap();
        let [hostile, normal, primary] =
            ["hostile", "normal", "primary"].map(|n| node.pod(n).unwrap());
        let mut services: Vec<Service> = vec![node.service("good", 80, 80, &[&primary]).unwrap()];
        let mut servers = vec![primary.echo(&["--listen", "0.0.0.0:80", "--quiet"]).unwrap()];
        for (port, kind) in (9000..).zip(kinds) {
            let argv = ["python3", &*script("hostile.py"), "server", kind, &port.to_string()];
            servers.push(primary.spawn(&format!("server-{kind}"), &argv).unwrap());
            services.push(node.service(kind, 80, port, &[&primary]).unwrap());
        }
        let manifest = |service: &Service| {
            let rule = Rule::to(&service.name, 80);
            [service.manifest(), Route::new(&service.name, service).rule(rule).manifest()]
                .join("---\n")
        };
        let manifests: Vec<_> = services.iter().map(manifest).collect();
        node.routes().write("all.yaml", &manifests.join("---\n")).unwrap();
        Self { node, hostile, normal, primary, _servers: servers }
    }

    fn agent(&self, flags: &[&str]) -> Agent<'_> {
        let flags = [&["--workers", "1"], flags].concat();
        Agent::start(&self.node, &[&self.hostile, &self.normal], &flags).unwrap()
    }

    /// Attacks `service` beside a pod that does nothing wrong; how the attack's connections or streams
    /// ended.
    fn attack(&self, agent: &Agent<'_>, kind: &str, service: &str, count: u32) -> Value {
        usage::reset_peak(agent.pid()).unwrap();
        let before = usage::rss(agent.pid()).unwrap();
        let script = script("hostile.py");
        let argv = ["python3", &*script, "client", kind, service, "80", &count.to_string()];
        let (attack, times) = thread::scope(|scope| {
            let normal = scope.spawn(|| {
                thread::sleep(Duration::from_millis(500));
                let argv = ["python3", "-c", NORMAL];
                self.normal.run(&argv, SHORT).and_then(|output| output.ok())
            });
            let attack = self.hostile.spawn(&format!("attack-{kind}"), &argv).unwrap();
            let said = || attack.stdout().contains('\n');
            let said = eventually("the attack is over", SHORT, said);
            said.unwrap_or_else(|error| panic!("{kind}: {error}\n{}", attack.stderr()));
            (attack, normal.join().unwrap())
        });
        let ends = serde_json::from_str(&attack.stdout()).unwrap();
        let peak = usage::peak_rss(agent.pid()).unwrap();
        let held = agent.metric("mirror_workload_held_bytes", &[("workload", "default/hostile")]);
        println!(
            "{kind} against {service}: {ends}; the agent held {} MiB at most ({} MiB before), {:.1} MiB \
             charged; the other pod: {}",
            peak / MIB,
            before / MIB,
            held.unwrap_or(0.0) / MIB as f64,
            times.as_deref().unwrap_or("failed").trim_end()
        );
        if std::env::var_os("SHOW").is_some() {
            let all = agent.get("/metrics").unwrap().1;
            let shown = |line: &&str| {
                ["mirror_open", "mirror_refused", "mirror_capture", "mirror_workload_"]
                    .iter()
                    .any(|name| line.starts_with(name))
                    && !line.ends_with(" 0")
            };
            all.lines().filter(shown).for_each(|line| println!("{line}"));
        }
        assert!(peak < BOUND, "{kind}: {} MiB", peak / MIB);
        times.unwrap();
        drop(attack);
        let left = || usage::rss(agent.pid()).unwrap() < before + KEPT;
        eventually("memory is given back", Duration::from_secs(20), left).unwrap_or_else(|error| {
            let left = usage::rss(agent.pid()).unwrap();
            panic!("{kind}: {error}: {} MiB of {} MiB", left / MIB, before / MIB)
        });
        // Until then new connections of the pod go direct.
        let captured = || {
            let config: Value = serde_json::from_str(&agent.get("/config").unwrap().1).unwrap();
            let workloads = config["workloads"].as_array().unwrap();
            workloads.len() == 2 && workloads.iter().all(|workload| workload["state"] == "on")
        };
        eventually("the pod is captured again", Duration::from_secs(5), captured).unwrap();
        ends
    }
}

fn refused(agent: &Agent<'_>, reason: &str) -> f64 {
    agent.metric("mirror_refused_total", &[("reason", reason)]).unwrap()
}

#[test]
fn heads_of_http1() {
    let stage = Stage::create("memheads", &["silent", "heads"]);
    let agent = stage.agent(&[]);
    stage.attack(&agent, "heads", "silent", 2000);
    let first = refused(&agent, "pod_memory");
    assert!(first > 500.0, "{first}");
    // 5 KB each, 250 KB once they are read.
    stage.attack(&agent, "fields", "silent", 2000);
    assert!(refused(&agent, "pod_memory") > first + 500.0);
    // Those of a primary.
    stage.attack(&agent, "requests", "heads", 1000);
    drop(stage.primary);
}

#[test]
fn streams_of_http2() {
    let stage = Stage::create("memstreams", &["silent", "large"]);
    let agent = stage.agent(&[]);
    stage.attack(&agent, "blocks", "silent", 1000);
    // REFUSED_STREAM, ENHANCE_YOUR_CALM, or the connection ends while its client still sends.
    let stopped = |ends: &Value| {
        ["reset 7", "goaway 11", "stopped"].iter().any(|end| ends.get(end).is_some())
    };
    let ends = stage.attack(&agent, "references", "silent", 3000);
    assert!(stopped(&ends), "{ends}");
    stage.attack(&agent, "small-references", "silent", 3000);
    stage.attack(&agent, "deaf", "large", 3000);
}

#[test]
fn interim_responses_without_end() {
    let stage = Stage::create("memhints", &["hints"]);
    let agent = stage.agent(&[]);
    stage.attack(&agent, "deaf", "hints", 30);
    stage.attack(&agent, "requests", "hints", 30);
}

/// 6,000 connections at once: how many are open, each of the others turned away with its reason.
fn crowd(stage: &Stage, agent: &Agent<'_>) -> u64 {
    let ends = stage.attack(agent, "requests", "silent", 6000);
    // The hook hears of the bound within 100 ms: those that come before it does are reset.
    let count = |end: &str| ends.get(end).and_then(Value::as_u64).unwrap_or(0);
    // One that is reset while it is made is refused for its client.
    let turned_away = count("reset") + count("refused");
    assert_eq!(count("open") + turned_away, 6000, "none is left without a word: {ends}");
    let counted = refused(agent, "pod_connections") + refused(agent, "pod_memory");
    assert_eq!(counted, turned_away as f64, "each with its reason: {ends}");
    count("open")
}

#[test]
fn many_connections() {
    let stage = Stage::create("memconns", &["silent"]);
    // So much that the bound on connections is reached first, whatever those hold that are new.
    let agent = stage.agent(&["--agent-memory", "200MiB"]);
    let open = crowd(&stage, &agent);
    assert!(open >= 4096, "as many as the pod may have: {open}");
    stage.attack(&agent, "silence", "silent", 6000);
}

#[test]
fn many_connections_with_the_default_memory() {
    let stage = Stage::create("memdefault", &["silent"]);
    let agent = stage.agent(&[]);
    let open = crowd(&stage, &agent);
    // 25 KiB each while they are new, which is more than the default bound has for 4,096.
    let fewer = refused(&agent, "pod_memory") > 0.0;
    assert!(open >= if fewer { 3000 } else { 4096 }, "{open}");
    stage.attack(&agent, "silence", "silent", 6000);
}

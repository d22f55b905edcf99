//! Uploads while the shadow does not read: they take as long as without a mirror, the agent holds
//! no more than its budgets, and the primary gets every byte.
#![allow(clippy::unwrap_used, reason = "helpers of tests; clippy knows only the tests themselves")]

use std::{fs, path::PathBuf, time::Duration};

use mirror_tests::{
    Agent, Copies, Node, Pod, Process, Service, eventually,
    manifest::{Route, Rule},
    stats::{median, verdict},
    usage,
};

const MIB: u64 = 1 << 20;
const SIZE: u64 = 64 * MIB;
const ROUNDS: usize = 7;
/// One upload is short, and its fastest time is compared.
const ROUNDS_OF_ONE: usize = 21;

/// What the agent may hold by default. One upload's copy may hold half of it, and for a second more is
/// resident of what another worker has let go of.
const AGENT_BUDGET: u64 = 64 * MIB;
/// For everything else that an upload takes: the primary's own buffers, the allocator's slack.
const SLACK: u64 = 16 * MIB;

/// The goal for the median time against that without a mirror.
const GOAL: f64 = 1.05;
/// Beyond it the test fails, for the fastest upload of each kind, which was disturbed least: for one
/// upload, at most 1.02 was seen.
const BOUND: f64 = 1.25;
/// For eight at once 0.85 to 1.25 was seen in five runs on two shared cores, without a pattern: they
/// fall on the workers by chance, and the time is that of the worker which got more.
const BOUND_OF_EIGHT: f64 = 1.6;
/// The same for medians: a shadow that is waited for is beyond it by orders, at 1 KiB/s a day.
const MEDIAN_BOUND: f64 = 3.0;

/// A client, a primary that hashes what it gets, and a Service for each way to shadow.
struct TestBed {
    curl: Pod,
    _primary: Pod,
    _echo: Process,
    _shadows: Vec<(Pod, Process)>,
    json: PathBuf,
    file: PathBuf,
    // Last: its drop removes everything.
    node: Node,
}

const SHADOWS: [(&str, &str); 2] =
    [("never-reads", "accept-never-read"), ("reads-1kib-s", "slow-read=1024")];

impl TestBed {
    fn new(name: &str) -> Self {
        let node = Node::create(name).unwrap();
        let (curl, primary) = (node.pod("curl").unwrap(), node.pod("primary").unwrap());
        let json = node.folder().join("primary.json");
        let log = json.to_string_lossy();
        let echo =
            primary.echo(&["--listen", "0.0.0.0:80", "--quiet", "--log-json", &*log]).unwrap();
        let backend = node.service("primary", 80, 80, &[&primary]).unwrap();
        let mut manifests = vec![backend.manifest()];
        let plain = node.service("app-unmirrored", 80, 80, &[&primary]).unwrap();
        manifests.push(plain.manifest());
        manifests.push(Route::new("unmirrored", &plain).rule(Rule::to("primary", 80)).manifest());
        let mut shadows = Vec::new();
        for (name, fault) in SHADOWS {
            let pod = node.pod(name).unwrap();
            let echo = pod.echo(&["--listen", "0.0.0.0:80", "--quiet", "--fault", fault]).unwrap();
            let app = node.service(&format!("app-{name}"), 80, 80, &[&primary]).unwrap();
            let shadow = node.service(&format!("shadow-{name}"), 80, 80, &[&pod]).unwrap();
            let rule = Rule::to("primary", 80).mirror(&shadow.name, 80);
            manifests.extend([&app, &shadow].map(Service::manifest));
            manifests.push(Route::new(name, &app).rule(rule).manifest());
            shadows.push((pod, echo));
        }
        node.routes().write("all.yaml", &manifests.join("---\n")).unwrap();
        let file = node.folder().join("upload");
        // Not one byte repeated: a hash would not notice blocks in another order.
        let blocks =
            (0..SIZE / 8).flat_map(|at| at.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
        fs::write(&file, blocks.collect::<Vec<_>>()).unwrap();
        Self { curl, _primary: primary, _echo: echo, _shadows: shadows, json, file, node }
    }

    /// Uploads the file `count` times at once; the longest time in seconds, by curl's clock.
    fn upload(&self, name: &str, count: usize) -> f64 {
        let file = self.file.to_string_lossy();
        let script = format!(
            "for i in $(seq {count}); do curl -sS -m 60 -H 'Expect:' -T {file} -o /dev/null \
             -w '%{{http_code}} %{{time_total}}\\n' http://app-{name}/put & done; wait"
        );
        let output = self.curl.run(&["sh", "-c", &script], Duration::from_secs(90)).unwrap();
        let output = output.ok().unwrap();
        assert_eq!(output.lines().count(), count, "{output}");
        let times = output.lines().map(|line| {
            let (code, seconds) = line.split_once(' ').unwrap();
            assert_eq!(code, "200", "{output}");
            seconds.parse().unwrap()
        });
        times.fold(0.0, f64::max)
    }

    /// Length, hash and completeness of all that the primary got.
    fn arrived(&self) -> Vec<(u64, String, bool)> {
        let text = fs::read_to_string(&self.json).unwrap();
        let lines =
            text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        lines
            .map(|line| {
                let hash = line["body_sha256"].as_str().unwrap().to_owned();
                (line["body_length"].as_u64().unwrap(), hash, line["complete"].as_bool().unwrap())
            })
            .collect()
    }
}

/// The agent's growth, at its peak, while `f` runs.
fn growth(agent: &Agent<'_>, f: impl FnOnce()) -> u64 {
    let base = usage::rss(agent.pid()).unwrap();
    usage::reset_peak(agent.pid()).unwrap();
    f();
    usage::peak_rss(agent.pid()).unwrap().saturating_sub(base)
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / MIB as f64
}

fn uploads(count: usize, rounds: usize, name: &str, bound: f64) {
    let test_bed = TestBed::new(name);
    let agent = Agent::start(&test_bed.node, &[&test_bed.curl], &[]).unwrap();
    // Unmeasured: fills the page cache with the file.
    test_bed.upload("unmirrored", count);
    let mut plain = Vec::new();
    let mut mirrored = SHADOWS.map(|_| Vec::new());
    let grown = growth(&agent, || {
        for round in 0..rounds {
            // Each goes first in its turn.
            for at in (0..3).map(|at| (at + round) % 3) {
                match SHADOWS.get(at) {
                    Some((shadow, _)) => mirrored[at].push(test_bed.upload(shadow, count)),
                    None => plain.push(test_bed.upload("unmirrored", count)),
                }
            }
        }
    });
    let budget = AGENT_BUDGET + SLACK;
    let base = median(plain.iter().copied());
    println!("{count} uploads of 64 MiB at once, median of {rounds}: unmirrored {base:.3} s");
    let mut ratios = Vec::new();
    for ((shadow, _), times) in SHADOWS.iter().zip(&mirrored) {
        let time = median(times.iter().copied());
        let ratio = time / base;
        let best = fastest(times) / fastest(&plain);
        println!(
            "  shadow {shadow}: {time:.3} s, {ratio:.3} times that (goal {GOAL}: {}); the fastest \
             ones {best:.3} times",
            verdict(ratio, GOAL)
        );
        ratios.push((best, ratio));
        let shadow = format!("default/shadow-{shadow}:80");
        let copies = Copies::settled_for(&agent, &shadow).unwrap();
        println!("    {copies}");
        assert_eq!(copies.selected, (rounds * count) as u64);
        assert_eq!(copies.delivered, 0, "a shadow that does not read got it all: {copies}");
    }
    println!("  the agent grew by {:.1} MiB (at most {:.0})", mib(grown), mib(budget));

    assert!(grown <= budget, "{:.1} MiB", mib(grown));
    let arrived = test_bed.arrived();
    assert_eq!(arrived.len(), count * (1 + 3 * rounds));
    let sum = test_bed
        .node
        .run(&["sha256sum", &test_bed.file.to_string_lossy()], Duration::from_secs(30));
    let sum = sum.unwrap().ok().unwrap();
    let hash = sum.split(' ').next().unwrap();
    for (length, sha256, complete) in arrived {
        assert_eq!((length, &*sha256, complete), (SIZE, hash, true));
    }
    for (best, ratio) in ratios {
        let held = best < bound && ratio < MEDIAN_BOUND;
        assert!(held, "{best} {ratio}: {plain:?} {mirrored:?}\n{}", agent.log());
    }
}

fn fastest(times: &[f64]) -> f64 {
    times.iter().copied().fold(f64::MAX, f64::min)
}

#[test]
fn one_upload_does_not_wait_for_its_shadow() {
    uploads(1, ROUNDS_OF_ONE, "upload-one", BOUND);
}

#[test]
fn eight_uploads_do_not_wait_for_their_shadow() {
    uploads(8, ROUNDS, "upload-eight", BOUND_OF_EIGHT);
}

#[test]
fn chunks_of_one_byte_are_charged_for_what_they_hold() {
    const COUNT: usize = 100_000;
    let test_bed = TestBed::new("chunks");
    let script = test_bed.node.folder().join("chunks.py");
    fs::write(&script, include_str!("clients/chunks.py")).unwrap();
    let script = script.to_string_lossy();
    let agent = Agent::start(&test_bed.node, &[&test_bed.curl], &[]).unwrap();
    let send = |name: &str| {
        let (url, count) = (format!("http://app-{name}/post"), COUNT.to_string());
        let argv = ["python3", &*script, &*url, &*count];
        let output = test_bed.curl.run(&argv, Duration::from_secs(90)).unwrap().ok().unwrap();
        let report: serde_json::Value = serde_json::from_str(&output).unwrap();
        assert_eq!(report["status"], 200, "{report}");
        (report["seconds"].as_f64().unwrap(), report["sha256"].as_str().unwrap().to_owned())
    };
    let (base, hash) = send("unmirrored");
    for (shadow, _) in SHADOWS {
        let mut seconds = 0.0;
        let grown = growth(&agent, || seconds = send(shadow).0);
        println!(
            "{COUNT} chunks of one byte, shadow {shadow}: {seconds:.2} s (unmirrored {base:.2}), \
             the agent grew by {:.1} MiB",
            mib(grown)
        );
        // Each chunk alone would hold a read buffer of 32 KiB, 3 GiB in all.
        assert!(grown <= MIB + SLACK, "{grown}");
    }
    eventually("three uploads", Duration::from_secs(5), || test_bed.arrived().len() == 3).unwrap();
    for (length, sha256, complete) in test_bed.arrived() {
        assert_eq!((length, sha256, complete), (COUNT as u64, hash.clone(), true));
    }
}

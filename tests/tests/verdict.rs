//! `mirror verdict`: the numbers of a good and a bad shadow, the exit code of each outcome, and what is no
//! verdict. The bad shadow is a server that was not written by us; the good one is of the primary's program.
#![allow(clippy::unwrap_used, reason = "helpers of tests; clippy knows only the tests themselves")]

use std::{
    thread,
    time::{Duration, Instant},
};

use mirror_tests::{
    Agent, Copies, Echo, Pair, Pod, Process, Service, mirror_binary,
    pair::{script, to_primary},
};
use serde_json::Value;

/// Limits that a few hundred responses decide, and that a busy machine keeps.
const WIDE: [&str; 8] =
    ["--max-different", "5%", "--max-errors", "5%", "--max-lost", "5%", "--max-slower", "20"];

/// A primary, and a route that mirrors each request to two shadows.
struct Stage {
    _echoes: [Echo; 2],
    _bad: Process,
    _good: (Pod, Service),
    pair: Pair,
}

/// How a command ended, and what it said.
struct Said {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Stage {
    fn create(name: &str) -> Self {
        let pair = Pair::create(name).unwrap();
        let good = pair.another("good").unwrap();
        let echoes = [&pair.primary, &good.0].map(|pod| Echo::start(&pair.node, pod).unwrap());
        let log = pair.node.folder().join("bad.log").to_string_lossy().into_owned();
        let argv = ["python3", &script("failing.py"), "80", &log];
        let mut bad = pair.shadow.spawn("server", &argv).unwrap();
        pair.shadow.listening(&mut bad, 80).unwrap();
        pair.write(&[to_primary().mirror("shadow", 80).mirror("good", 80)]).unwrap();
        Self { _echoes: echoes, _bad: bad, _good: good, pair }
    }

    /// So many requests, one after the other; the bad shadow responds with 503 to each, or with 200 and 30 ms late.
    fn load(&self, agent: &Agent<'_>, count: usize, fails: bool) {
        let how = if fails { "times=9&with=503" } else { "after=0.03" };
        let url = format!("http://web:8000/get?{how}&id={fails}-[1-{count}]");
        let argv = ["curl", "-sS", "-m", "60", "-o", "/dev/null", "-w", "%{http_code}\n", &url];
        let codes = self.pair.run(&argv).unwrap();
        assert_eq!(codes, "200\n".repeat(count), "{}", agent.log());
        Copies::settled(agent).unwrap();
    }

    fn verdict(&self, args: &[&str]) -> Said {
        let mut process = self.start("verdict", args);
        let status = process.wait(Duration::from_secs(60)).unwrap().expect("it ends");
        Said { code: status.code(), stdout: process.stdout(), stderr: process.stderr() }
    }

    /// Runs beside the agent, as in its pod.
    fn start(&self, name: &str, args: &[&str]) -> Process {
        let binary = mirror_binary().unwrap().to_string_lossy().into_owned();
        let argv = [&[&*binary, "verdict", "web"], args].concat();
        self.pair.node.spawn(name, &argv).unwrap()
    }
}

impl Said {
    #[track_caller]
    fn exits(self, code: i32) -> String {
        let Self { stdout, stderr, .. } = &self;
        assert_eq!(self.code, Some(code), "{stdout}{stderr}");
        // A verdict is on stdout alone, an error on stderr alone.
        assert_eq!(
            (stdout.is_empty(), stderr.is_empty()),
            (code == 3, code != 3),
            "{stdout}{stderr}"
        );
        if code == 3 { self.stderr } else { self.stdout }
    }
}

fn judgement<'a>(shadow: &'a Value, subject: &str) -> &'a Value {
    let judgements = shadow["judgements"].as_array().unwrap();
    judgements.iter().find(|judgement| judgement["subject"] == subject).unwrap()
}

#[test]
fn each_outcome_has_its_numbers_and_its_exit_code() {
    let stage = Stage::create("verdict");
    let agent = stage.pair.agent(&[]).unwrap();
    let bad = ["--shadow", "default/shadow:80", "--for", "0s"];
    let good = ["--shadow", "default/good:80", "--for", "0s"];
    let none = stage.verdict(&good).exits(2);
    assert!(none.contains("responded to no request"), "{none}");
    stage.load(&agent, 200, false);
    stage.load(&agent, 100, true);

    let json = stage.verdict(&[&bad[..], &["-o", "json"]].concat()).exits(1);
    let verdict: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&verdict["verdict"], &verdict["route"]), (&"fail".into(), &"default/web".into()));
    assert_eq!(verdict["agents"].as_array().unwrap().len(), 1);
    let shadow = &verdict["shadows"][0];
    assert_eq!(shadow["classes"], serde_json::json!({"2xx": {"2xx": 200, "5xx": 100}}));
    for subject in ["different", "errors"] {
        let found = judgement(shadow, subject);
        assert_eq!((&found["count"], &found["of"]), (&100.into(), &300.into()), "{found}");
        let ends = ["lower", "upper"].map(|end| found["interval"][end].as_f64().unwrap());
        // Wilson's interval for 100 of 300.
        assert!((ends[0] - 0.2825).abs() < 5e-4 && (ends[1] - 0.3885).abs() < 5e-4, "{ends:?}");
        assert_eq!(found["result"], "fail");
    }
    let lost = judgement(shadow, "lost");
    assert_eq!((&lost["count"], &lost["of"]), (&0.into(), &300.into()), "{lost}");
    assert_eq!((&lost["result"], &lost["needed"]), (&"not_enough_data".into(), &381.into()));
    // 200 took 30 ms and more.
    let mean = shadow["shadow_latency"]["mean_seconds"].as_f64().unwrap();
    assert!((0.02..2.0).contains(&mean), "{shadow}");
    assert!(shadow["shadow_latency"]["p90"]["above_seconds"].as_f64().unwrap() >= 0.025);
    let primary = shadow["primary_latency"]["mean_seconds"].as_f64().unwrap();
    let slower = judgement(shadow, "slower");
    assert!((slower["measured"].as_f64().unwrap() - mean / primary).abs() < 1e-6, "{slower}");
    assert_eq!(slower["of"], 300);

    let text = stage.verdict(&bad).exits(1);
    let sentence = "fail: default/shadow:80 responded with another status class than the primary in 33.3 % \
                    of 300 responses (28.2 to 38.8 %), and with an error where the primary had none in 33.3 %";
    assert!(text.starts_with(sentence), "{text}");
    let text = stage.verdict(&[&good[..], &WIDE].concat()).exits(0);
    assert!(text.starts_with("pass: default/good:80 ") && text.contains("(0 of 300)"), "{text}");
    let text = stage.verdict(&good).exits(2);
    assert!(text.contains("some 3,838 would decide"), "{text}");
    // Of both shadows the worse one decides.
    let text = stage.verdict(&[&["--for", "0s"][..], &WIDE].concat()).exits(1);
    assert!(
        text.starts_with("fail: 2 shadows\n") && text.contains("pass: default/good:80"),
        "{text}"
    );
}

#[test]
fn only_what_is_counted_in_the_meantime_is_judged_and_an_agent_that_ends_is_an_error() {
    let stage = Stage::create("verdict-window");
    let agent = stage.pair.agent(&[]).unwrap();
    stage.load(&agent, 150, true);
    let good =
        [&["--shadow", "default/shadow:80", "--for", "8s", "-o", "json"], &WIDE[..]].concat();
    let mut process = stage.start("window", &good);
    let begun = Instant::now();
    // The first reading is long over by then, and the load long before the second.
    thread::sleep(Duration::from_secs(2));
    stage.load(&agent, 110, false);
    assert!(begun.elapsed() < Duration::from_secs(7), "too slow to say anything");
    process.wait(Duration::from_secs(60)).unwrap().expect("it ends");
    let verdict: Value = serde_json::from_str(&process.stdout()).unwrap();
    let classes = &verdict["shadows"][0]["classes"];
    assert_eq!(*classes, serde_json::json!({"2xx": {"2xx": 110}}), "{}", process.stderr());
    assert!((8.0..30.0).contains(&verdict["seconds"].as_f64().unwrap()), "{verdict}");

    let mut process = stage.start("gone", &["--for", "4s"]);
    thread::sleep(Duration::from_secs(2));
    drop(agent);
    assert_eq!(process.wait(Duration::from_secs(60)).unwrap().unwrap().code(), Some(3));
    let error = process.stderr();
    assert!(error.contains("cannot be read again after 4s"), "{error}{}", process.stdout());

    let agent = stage.pair.agent(&[]).unwrap();
    let mut process = stage.start("restarted", &["--for", "8s"]);
    thread::sleep(Duration::from_secs(2));
    drop(agent);
    let agent = stage.pair.agent(&[]).unwrap();
    assert_eq!(process.wait(Duration::from_secs(60)).unwrap().unwrap().code(), Some(3));
    let error = process.stderr();
    assert!(error.contains("127.0.0.1:15920 was restarted"), "{error}{}", process.stdout());
    drop(agent);
}

#[test]
fn two_agents_count_together_and_what_does_not_exist_is_an_error() {
    let stage = Stage::create("verdict-agents");
    let agent = stage.pair.agent(&[]).unwrap();
    let (other, _service) = stage.pair.another("other").unwrap();
    let capture = format!("other={}", other.cgroup().display());
    let flags = ["--admin", "127.0.0.1:15930"];
    let second = Agent::start_with(&stage.pair.node, "second", &[&capture], &flags).unwrap();
    stage.load(&agent, 110, false);
    let url = "http://web:8000/get?id=other-[1-40]";
    other
        .run(&["curl", "-sS", "-o", "/dev/null", url], Duration::from_secs(60))
        .unwrap()
        .ok()
        .unwrap();
    Copies::settled(&second).unwrap();
    let count = |admins: &[&str]| {
        let flags = admins.iter().flat_map(|admin| ["--admin", admin]).collect::<Vec<_>>();
        let window = ["--shadow", "default/good:80", "--for", "0s", "-o", "json"];
        let json = stage.verdict(&[&window[..], &flags, &WIDE].concat());
        let verdict: Value = serde_json::from_str(&json.stdout).unwrap();
        verdict["shadows"][0]["responses"].as_u64().unwrap()
    };
    assert_eq!(count(&["127.0.0.1:15920"]), 110);
    assert_eq!(count(&["127.0.0.1:15920", "localhost:15930", "[::ffff:127.0.0.1]:15930"]), 150);

    let nowhere = ["--admin", "127.0.0.1:15920", "--admin", "127.0.0.1:1", "--for", "0s"];
    let error = stage.verdict(&nowhere).exits(3);
    assert!(error.contains("1 of 2 agents") && error.contains("127.0.0.1:1"), "{error}");
    let error = stage.verdict(&["--admin", "127.0.0.1:1"]).exits(3);
    assert!(error.contains("cannot connect to an agent at 127.0.0.1:1"), "{error}");
    let error = stage.verdict(&["--shadow", "default/typo:80"]).exits(3);
    assert!(error.contains("it mirrors to default/good:80, default/shadow:80"), "{error}");
    let error = stage.verdict(&["--kind", "GRPCRoute"]).exits(3);
    assert!(
        error.contains("GRPCRoute default/web") && error.contains("--kind HTTPRoute"),
        "{error}"
    );
}

//! Retries that a route asks for (HTTPRouteRule, `retry`), with a server that was not written by us: it fails
//! each request a number of times.
#![allow(clippy::unwrap_used, reason = "helpers of tests; clippy knows only the tests themselves")]

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use mirror_tests::{
    Agent, Copies, Echo, Pair, Process, eventually,
    manifest::Rule,
    pair::{config, lines, script, to_primary},
};
use serde_json::Value;

/// The primary, a shadow, and what the primary got.
struct Stage {
    shadow: Echo,
    _primary: Process,
    log: PathBuf,
    pair: Pair,
}

impl Stage {
    fn create(name: &str) -> Self {
        let pair = Pair::create(name).unwrap();
        let shadow = Echo::start(&pair.node, &pair.shadow).unwrap();
        let log = pair.node.folder().join("primary.log");
        let (path, file) = (script("failing.py"), log.to_string_lossy().into_owned());
        let mut primary = pair.primary.spawn("server", &["python3", &path, "80", &file]).unwrap();
        pair.primary.listening(&mut primary, 80).unwrap();
        Self { shadow, _primary: primary, log, pair }
    }

    /// Mirrors all requests, with these fields of a rule beside it.
    fn agent(&self, fields: &[&str]) -> Agent<'_> {
        let rule = to_primary().mirror("shadow", 80);
        let rule = fields.iter().fold(rule, |rule, field| rule.field(field));
        self.pair.write(&[rule]).unwrap();
        self.pair.agent(&[]).unwrap()
    }

    /// Status and text of the response to a request with this id and query; 000 is none.
    fn curl(&self, id: &str, query: &str, flags: &[&str]) -> String {
        let url = format!("http://web:8000/?id={id}&{query}");
        let argv = ["curl", "-sS", "-m", "20", "-w", " %{http_code}", &url];
        let output = self.pair.client.run(&[&argv[..], flags].concat(), Duration::from_secs(30));
        output.unwrap().stdout
    }

    /// What the primary got with this id.
    fn seen(&self, id: &str) -> Vec<Value> {
        lines(&self.log).into_iter().filter(|line| line["id"] == id).collect()
    }
}

fn retries(agent: &Agent<'_>, reason: &str) -> f64 {
    let labels = [("route", "default/web"), ("reason", reason)];
    agent.metric("mirror_route_retries_total", &labels).unwrap_or_default()
}

#[test]
fn a_server_that_fails_gets_the_request_again_and_the_shadow_gets_one_copy() {
    let stage = Stage::create("retries");
    let agent = stage.agent(&["retry: {codes: [500, 503], attempts: 3, backoff: 10ms}"]);
    let dump = config(&agent).unwrap()["frontends"].to_string();
    let retry = "up to 3 times, on 500, 503 and connection errors, after 10ms or more";
    assert!(dump.contains(retry), "{dump}");
    let file = |name: &str, length: usize| {
        let path = stage.pair.node.folder().join(name);
        fs::write(&path, (0..length).map(|n| (n % 251) as u8).collect::<Vec<_>>()).unwrap();
        format!("@{}", path.display())
    };
    let (small, large) = (file("small", 50_000), file("large", 500_000));
    let cases: [(&str, &str, &[&str], &str, usize); 8] = [
        ("none", "times=0", &[], "attempt 1 200", 1),
        ("twice", "times=2&with=503", &[], "attempt 3 200", 3),
        ("post", "times=1&with=500", &["--data-binary", &small], "attempt 2 200", 2),
        ("always", "times=9&with=503", &[], "attempt 4 503", 4),
        ("other", "times=9&with=502", &[], "attempt 1 502", 1),
        ("long", "times=9&with=503", &["--data-binary", &large], "attempt 1 503", 1),
        ("lost", "times=2&with=close", &["-X", "PUT", "--data-binary", &small], "attempt 3 200", 3),
        ("unsafe", "times=2&with=close", &["--data-binary", &small], " 000", 1),
    ];
    for (id, query, flags, expected, count) in cases {
        assert_eq!(stage.curl(id, query, flags), expected, "{id}\n{}", agent.log());
        let seen = stage.seen(id);
        assert_eq!(seen.len(), count, "{id}: {seen:?}");
        assert!(seen.iter().all(|line| *line == seen[0]), "{id}: {seen:?}");
    }
    assert_eq!(["code", "lost"].map(|reason| retries(&agent, reason)), [6.0, 2.0]);
    let copies = Copies::settled(&agent).unwrap();
    let all = cases.len() as u64;
    let counts = (copies.selected, copies.delivered);
    assert_eq!(counts, (all, all), "{}\n{}", Copies::losses(&agent).unwrap(), agent.log());
    for (id, ..) in cases {
        assert_eq!(stage.shadow.wait(&format!("id={id}&"), 1).unwrap().len(), 1, "{id}");
    }
    assert_eq!(stage.shadow.seen().len(), cases.len());
}

#[test]
fn an_attempt_that_takes_too_long_is_repeated_within_the_requests_timeout() {
    let stage = Stage::create("retry-times");
    let agent = stage.agent(&[
        "retry: {codes: [503], attempts: 3, backoff: 10ms}",
        "timeouts: {request: 2s, backendRequest: 500ms}",
    ]);
    assert_eq!(stage.curl("late", "times=1&with=wait", &[]), "attempt 2 200", "{}", agent.log());
    let begun = Instant::now();
    let response = stage.curl("never", "times=9&with=wait", &[]);
    assert!(response.ends_with(" 504"), "{response}");
    assert!((2..10).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    assert!((2..=4).contains(&stage.seen("never").len()), "{:?}", stage.seen("never"));
    let response = stage.curl("post", "times=9&with=wait", &["-d", "x"]);
    assert!(response.ends_with(" 504"), "{response}");
    assert_eq!(stage.seen("post").len(), 1);
}

#[test]
fn a_server_that_is_not_there_yet_is_tried_again() {
    let stage = Stage::create("retry-refused");
    // Nothing listens on this port of the primary's pod until the request has failed once.
    let rule = Rule::to("late", 80).field("retry: {attempts: 10, backoff: 100ms}");
    let late = stage.pair.node.service("late", 80, 81, &[&stage.pair.primary]).unwrap();
    stage.pair.node.routes().write("late.yaml", &late.manifest()).unwrap();
    stage.pair.write(&[rule]).unwrap();
    let agent = stage.pair.agent(&[]).unwrap();
    std::thread::scope(|scope| {
        let response = scope.spawn(|| stage.curl("refused", "times=0", &["-d", "x"]));
        let retried = || retries(&agent, "connect") > 0.0;
        eventually("a retry", Duration::from_secs(10), retried).unwrap();
        let (path, log) = (script("failing.py"), stage.log.to_string_lossy().into_owned());
        let server = stage.pair.primary.spawn("late", &["python3", &path, "81", &log]).unwrap();
        assert_eq!(response.join().unwrap(), "attempt 1 200", "{}", agent.log());
        drop(server);
    });
    assert_eq!(stage.seen("refused").len(), 1);
}

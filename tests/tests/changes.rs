//! Routes that change while clients are at it: no request is lost, each change is in force within a
//! second, and a broken file changes nothing.
#![allow(clippy::unwrap_used, reason = "helpers of tests; clippy knows only the tests themselves")]

use std::{
    thread,
    time::{Duration, Instant},
};

use mirror_tests::{
    Copies, Pair,
    manifest::{Route, Rule},
    pair::{config, to_primary},
};

const SET: &str = "type: RequestHeaderModifier\nrequestHeaderModifier:\n  set:\n  \
                   - name: X-Version\n    value: ";

/// Every 4th version mirrors nothing, every 5th matches on more than the path.
fn version(number: usize) -> Rule {
    let mut rule = to_primary().filter(&format!("{SET}v{number}"));
    if !number.is_multiple_of(4) {
        rule = rule.mirror_percent("shadow", 80, 50);
    }
    if number.is_multiple_of(5) {
        rule = rule
            .matching("path:\n  type: PathPrefix\n  value: /\nmethod: GET")
            .matching("path:\n  type: RegularExpression\n  value: /.*\nmethod: POST");
    }
    rule
}

/// Rewrites the route and asks until the new one responses; how long that took.
fn rewrite(pair: &Pair, number: usize) -> Duration {
    let start = Instant::now();
    pair.write(&[version(number)]).unwrap();
    let says = format!("\"X-Version\": \"v{number}\"");
    loop {
        let argv = ["curl", "-sS", "-m", "5", "http://web:8000/headers"];
        if pair.run(&argv).unwrap().contains(&says) {
            return start.elapsed();
        }
        assert!(start.elapsed() < Duration::from_secs(2), "version {number} is not in force");
    }
}

#[test]
fn fifty_changes_under_load_lose_nothing() {
    let pair = Pair::create("changes").unwrap();
    let _echoes = pair.echoes().unwrap();
    pair.write(&[version(0)]).unwrap();
    let agent = pair.agent(&[]).unwrap();
    let pair = &pair;
    let (report, times) = thread::scope(|scope| {
        let wrk = ["wrk", "-t1", "-c8", "-d12s", "http://web:8000/get?id=wrk-1"];
        let wrk = scope.spawn(move || pair.run(&wrk).unwrap());
        let kept = scope.spawn(|| pair.load("kept", 2200, 200, 20).unwrap());
        let times: Vec<_> = (1..=50).map(|number| rewrite(pair, number)).collect();
        kept.join().unwrap();
        (wrk.join().unwrap(), times)
    });
    let slowest = times.iter().max().unwrap();
    println!(
        "50 changes: the slowest took {slowest:?}, all {:?}\n{report}",
        times.iter().sum::<Duration>()
    );
    assert!(*slowest < Duration::from_secs(1), "{times:?}\n{}", agent.log());
    assert!(!report.contains("Socket errors") && !report.contains("Non-2xx"), "{report}");
    let failed = agent.metric("mirror_requests_total", &[("ending", "primary_failed")]).unwrap();
    assert_eq!(failed, 0.0);
    let copies = Copies::settled(&agent).unwrap();
    assert!(copies.selected > 0, "{copies:?}");
}

#[test]
fn a_route_comes_and_goes_under_load() {
    let pair = Pair::create("removal").unwrap();
    let _echoes = pair.echoes().unwrap();
    let agent = pair.agent(&[]).unwrap();
    let wait = |live: usize| {
        let frontends = || config(&agent).unwrap()["frontends"].as_object().unwrap().len();
        mirror_tests::eventually("the frontends", Duration::from_secs(1), || frontends() == live)
    };
    thread::scope(|scope| {
        let kept = scope.spawn(|| pair.load("kept", 1200, 200, 20).unwrap());
        let fresh = scope.spawn(|| {
            let url = "http://web:8000/get";
            let script = format!(
                "for i in $(seq 300); do curl -sSf -m 5 -o /dev/null {url} || exit 1; done"
            );
            pair.run(&["sh", "-c", &script]).unwrap()
        });
        for number in 0..10 {
            pair.write(&[version(number)]).unwrap();
            wait(1).unwrap();
            thread::sleep(Duration::from_millis(200));
            pair.node.routes().remove("route.yaml").unwrap();
            wait(0).unwrap();
            thread::sleep(Duration::from_millis(100));
        }
        kept.join().unwrap();
        fresh.join().unwrap();
    });
    let metrics = agent.metrics().unwrap();
    let captured = metrics.sum("mirror_connections_total", &[("kind", "http1")]);
    println!("a route came and went: {captured} connections were captured meanwhile");
    assert!(captured > 0.0, "{}", agent.log());
    assert_eq!(metrics.sum("mirror_connections_total", &[("kind", "unknown_id")]), 0.0);
    assert_eq!(metrics.sum("mirror_requests_total", &[("ending", "primary_failed")]), 0.0);
}

#[test]
fn a_broken_file_keeps_the_last_good_state() {
    let pair = Pair::create("broken").unwrap();
    let [primary, shadow] = pair.echoes().unwrap();
    let agent = pair.mirroring(&[]).unwrap();
    let send = |tag: &str| {
        let url = format!("http://web:8000/get?id={tag}-[1-20]");
        pair.run(&["curl", "-sSf", "-m", "5", "-o", "/dev/null", &url]).unwrap();
        primary.wait(&format!("id={tag}-"), 20).unwrap();
        shadow.wait(&format!("id={tag}-"), 20).unwrap();
    };
    send("good");
    let good = Route::new("web", &pair.web).rule(to_primary().mirror("shadow", 80)).manifest();
    let broken = [
        ("syntax", good.replace("spec:", "spec: [")),
        (
            "percent",
            good.replace(
                "port: 80\n    backendRefs",
                "port: 80\n        percent: 101\n    backendRefs",
            ),
        ),
        ("misspelt", good.replace("requestMirror:", "requestMirrors:")),
        ("filter", good.replace("type: RequestMirror", "type: URLRewrite")),
    ];
    for (tag, text) in broken {
        assert_ne!(text, good, "{tag}");
        pair.node.routes().write("route.yaml", &text).unwrap();
        let problems = || config(&agent).unwrap()["problems"].to_string();
        let named = || problems().contains("route.yaml");
        let told = mirror_tests::eventually("told", Duration::from_secs(1), named);
        assert!(told.is_ok(), "{tag}: {}\n{}", problems(), agent.log());
        println!("{tag}: {}", problems());
        send(tag);
        pair.node.routes().write("route.yaml", &good).unwrap();
        let gone = || problems() == "[]";
        mirror_tests::eventually("forgotten", Duration::from_secs(1), gone).unwrap();
    }
    send("again");
}

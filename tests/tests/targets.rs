//! Targets of every form through the capture: a forward proxy as a Service, the Service's own
//! authority, and bytes that no URI has. What the primary sees is what it sees without the agent, or
//! what RFC 9112 makes of it; copies have the same.
#![allow(clippy::unwrap_used, reason = "helpers of tests; clippy knows only the tests themselves")]

use std::{fs, path::PathBuf};

use mirror_tests::{
    Copies, Echo, Pair, Pod, Process,
    pair::{lines, script},
};
use serde_json::{Value, json};

/// One of this crate's servers on port 80 of a pod, and its log.
fn start(pair: &Pair, pod: &Pod, name: &str) -> (Process, PathBuf) {
    let log = pair.node.folder().join(format!("{}.log", pod.name()));
    let mut server =
        pod.spawn(name, &["python3", &script(name), "80", log.to_str().unwrap()]).unwrap();
    pod.listening(&mut server, 80).unwrap();
    (server, log)
}

#[test]
fn a_forward_proxy_works_as_it_does_without_the_agent() {
    let pair = Pair::create("forward").unwrap();
    let origin = pair.node.pod("origin").unwrap();
    let (_proxy, log) = start(&pair, &pair.primary, "forward_proxy.py");
    let _shadow = Echo::start(&pair.node, &pair.shadow).unwrap();
    let _origin = Echo::start(&pair.node, &origin).unwrap();
    let url = format!("http://{}/status/204", origin.ip());
    let through = |flags: &[&str]| {
        let mut argv =
            vec!["curl", "-sS", "-m", "5", "-x", "http://web:8000", "-w", "%{http_code}"];
        argv.extend(flags);
        argv.push(&url);
        pair.run(&argv).unwrap()
    };
    let all = || [through(&[]), through(&["-p"]), through(&["-0"])];
    let direct = all();
    assert_eq!(direct, ["204", "204", "204"]);
    let requested = fs::read_to_string(&log).unwrap();
    let agent = pair.mirroring(&[]).unwrap();
    assert_eq!(all(), direct, "{}", agent.log());
    let both = fs::read_to_string(&log).unwrap();
    assert_eq!(both, [&requested[..], &requested[..]].concat(), "the very lines");
    let copies = Copies::settled(&agent).unwrap();
    assert_eq!(copies, Copies { selected: 2, delivered: 2, ..Copies::default() });
}

#[test]
fn targets_reach_primary_and_shadow() {
    let pair = Pair::create("targets").unwrap();
    let (_primary, log) = start(&pair, &pair.primary, "witness.py");
    let (_shadow, copied) = start(&pair, &pair.shadow, "witness.py");
    let address = pair.web.address();
    let by_address = format!("GET http://{address}/x");
    let cases: [(&str, &str); 10] = [
        (r#"GET /api/v1/query?query=up{job="x"}"#, r#"GET /api/v1/query?query=up{job="x"}"#),
        ("GET /q?q=<5>&r=a|b^c`d\\e", "GET /q?q=<5>&r=a|b^c`d\\e"),
        ("GET /caf\u{e9}?q=\u{ff}", "GET /caf\u{e9}?q=\u{ff}"),
        ("GET /x#frag", "GET /x#frag"),
        ("GET http://web?x=1", "GET /?x=1"),
        ("GET http://web.default.svc.cluster.local:8000/y", "GET /y"),
        (&by_address, "GET /x"),
        ("OPTIONS http://web", "OPTIONS *"),
        ("OPTIONS http://web:8000/", "OPTIONS /"),
        ("GET http://elsewhere.example?x=<1>", "GET http://elsewhere.example?x=<1>"),
    ];
    let request = |line: &str| format!("{line} HTTP/1.1\r\nHost: web:8000\r\n\r\n");
    let file = pair.node.folder().join("requests.json");
    fs::write(&file, json!(cases.map(|(sent, _)| request(sent))).to_string()).unwrap();
    let agent = pair.mirroring(&[]).unwrap();
    let sent = pair.script("send.py", &["web", "8000", file.to_str().unwrap()]).unwrap();
    assert!(!sent.to_string().contains("HTTP/1.1 400"), "{sent}");
    let copies = Copies::settled(&agent).unwrap();
    assert_eq!(copies, Copies { selected: 10, delivered: 10, ..Copies::default() });
    let first = |line: &Value| line["head"][0].as_str().unwrap().replace(" HTTP/1.1", "");
    let arrived: Vec<_> = lines(&log).iter().map(first).collect();
    assert_eq!(arrived, cases.map(|(_, expected)| expected));
    let mut copies: Vec<_> = lines(&copied).iter().map(first).collect();
    copies.sort();
    let mut expected = cases.map(|(_, expected)| expected);
    expected.sort_unstable();
    assert_eq!(copies, expected);
}

//! Clients not written by us, through the capture and with every request mirrored: curl, Python's
//! HTTP client, wrk, raw sockets. What client and primary see is what they see without a mirror.
#![allow(clippy::unwrap_used, reason = "helpers of tests; clippy knows only the tests themselves")]

use std::{
    collections::HashSet,
    fs::{self, File},
    io::Write,
    path::Path,
};

use mirror_tests::{Copies, Echo, Pair, pair::lines, usage};
use serde_json::{Value, json};

/// The requests that `mirror echo` saw under a tag, without what differs between two runs: the
/// tag and the client's port.
fn view(echo: &Echo, tag: &str, count: usize) -> Vec<Value> {
    let mut seen = echo.wait(&format!("id={tag}-"), count).unwrap();
    for line in &mut seen {
        line["target"] = line["target"].as_str().unwrap().replace(tag, "TAG").into();
        line["peer"] = line["peer"].as_str().unwrap().split(':').next().unwrap().into();
    }
    seen
}

/// What of a request a shadow sees as the primary does: all but who sends it and the Host.
fn body_and_target(seen: &[Value]) -> HashSet<String> {
    let fields = ["method", "target", "body_length", "body_sha256", "trailers", "complete"];
    seen.iter().map(|line| json!(fields.map(|field| &line[field])).to_string()).collect()
}

/// curl in all its ways; what it printed.
fn curl(pair: &Pair, tag: &str, upload: &Path) -> Vec<String> {
    let url = |path: &str, id: usize| format!("http://web:8000/{path}?id={tag}-{id}");
    let (get, post, headers) = (url("get", 0), url("anything", 1), url("headers", 2));
    let (put, status, head) = (url("put", 3), url("status/404", 4), url("get", 5));
    let bytes = url("bytes/300000", 6);
    let upload = upload.to_str().unwrap();
    let chunked = ["-H", "Transfer-Encoding: chunked", "-T", upload];
    let runs: [&[&str]; 8] = [
        &["-0", &get],
        &["--http1.1", "-d", "form=1&x=%20y", &post],
        // Several on one connection.
        &["-w", "%{num_connects}\n", &headers, &get, &headers],
        &["--http1.1", "-X", "PUT", "-H", chunked[1], chunked[2], chunked[3], &put],
        &["-i", "-o", "/dev/null", "-w", "%{http_code}\n", &status],
        &["-I", "-w", "%{http_code} %{num_connects}\n", &head],
        &["-0", "-d", "old", &post],
        &["-o", "/dev/null", "-w", "%{http_code} %{size_download}\n", &bytes],
    ];
    let run = |args: &&[&str]| {
        let argv: Vec<_> = ["curl", "-sS", "-m", "20"].iter().chain(*args).copied().collect();
        let text = pair.run(&argv).unwrap().replace(tag, "TAG");
        // The server's clock goes on.
        text.lines().filter(|line| !line.starts_with("date: ")).collect::<Vec<_>>().join("\n")
    };
    runs.iter().map(run).collect()
}

#[test]
fn curl_and_its_primary_see_no_difference() {
    let pair = Pair::create("curl").unwrap();
    let primary = Echo::start(&pair.node, &pair.primary).unwrap();
    let shadow = Echo::start(&pair.node, &pair.shadow).unwrap();
    let upload = pair.node.folder().join("upload");
    fs::write(&upload, "0123456789abcdef".repeat(100_000)).unwrap();
    let direct = curl(&pair, "straight", &upload);
    let agent = pair.mirroring(&[]).unwrap();
    let captured = curl(&pair, "captured", &upload);
    assert_eq!(direct, captured, "{}", agent.log());
    assert!(captured[2].ends_with('0'), "one connection for three: {}", captured[2]);
    let (direct, captured) = (view(&primary, "straight", 10), view(&primary, "captured", 10));
    assert_eq!(direct, captured);
    assert_eq!(captured[0]["peer"], pair.client.ip().to_string());
    let copies = view(&shadow, "captured", 10);
    assert_eq!(body_and_target(&copies), body_and_target(&captured));
    assert!(copies.iter().all(|line| line["host"] == "web-shadow:8000"), "{copies:?}");
}

#[test]
fn an_upload_of_a_gibibyte_is_streamed() {
    const MIB: u64 = 1 << 20;
    let pair = Pair::create("gibibyte").unwrap();
    let primary = Echo::start(&pair.node, &pair.primary).unwrap();
    let shadow = Echo::start(&pair.node, &pair.shadow).unwrap();
    let agent = pair.mirroring(&[]).unwrap();
    let upload = pair.node.folder().join("upload");
    fill(&upload, 1024);
    let send = |id: &str, file: &Path| {
        let url = format!("http://web:8000/anything?id={id}-0");
        let file = file.to_str().unwrap();
        pair.run(&["curl", "-sS", "-m", "100", "-o", "/dev/null", "-T", file, &url]).unwrap()
    };
    // What the first requests allocate for good is not growth.
    send("warm", Path::new("/etc/passwd"));
    shadow.wait("id=warm-", 1).unwrap();
    usage::reset_peak(agent.pid()).unwrap();
    let before = usage::rss(agent.pid()).unwrap();
    send("upload", &upload);
    let copies = Copies::settled(&agent).unwrap();
    let growth = usage::peak_rss(agent.pid()).unwrap() - before;
    println!("1 GiB: the agent's RSS grew by {} KiB; {copies:?}", growth / 1024);
    println!("{}", Copies::losses(&agent).unwrap());
    let arrived = &primary.wait("id=upload-", 1).unwrap()[0];
    assert_eq!(arrived["body_sha256"], sum(&upload));
    assert_eq!(arrived["body_length"], 1024 * MIB);
    // At this speed the shadow may fall behind by more than a copy may hold, which is half of what the
    // agent may, and is cut then; a cut copy must not look whole.
    assert!(growth <= (32 + 16) * MIB, "{growth} bytes\n{}", agent.log());
    let copy = &shadow.wait("id=upload-", 1).unwrap()[0];
    assert_eq!(copy["complete"], copies.delivered == 2, "{copies:?} {copy}\n{}", agent.log());
}

#[test]
fn a_large_copy_is_whole_where_the_shadow_keeps_up() {
    let pair = Pair::create("large").unwrap();
    let primary = Echo::start(&pair.node, &pair.primary).unwrap();
    let shadow = Echo::start(&pair.node, &pair.shadow).unwrap();
    let agent = pair.mirroring(&[]).unwrap();
    let upload = pair.node.folder().join("upload");
    fill(&upload, 256);
    // Some 100 MB/s, 2 to 5 times less than what a shadow takes that hashes as the primary does.
    let url = "http://web:8000/anything?id=upload-0";
    let (limit, file) = ("100M", upload.to_str().unwrap());
    let argv = ["curl", "-sS", "-o", "/dev/null", "--limit-rate", limit, "-T", file, url];
    pair.run(&argv).unwrap();
    let copies = Copies::settled(&agent).unwrap();
    assert_eq!(copies.delivered, 1, "{copies:?} {}", Copies::losses(&agent).unwrap());
    let seen = [&primary, &shadow].map(|echo| echo.wait("id=upload-", 1).unwrap());
    for seen in seen {
        assert_eq!(seen[0]["body_sha256"], sum(&upload));
    }
}

fn sum(file: &Path) -> String {
    let line = mirror_tests::run(&["sha256sum", file.to_str().unwrap()], "").unwrap();
    line.split(' ').next().unwrap().to_owned()
}

/// So many MiB of which no two are alike.
fn fill(path: &Path, count: u32) {
    let mut file = File::create(path).unwrap();
    let mut block: Vec<u8> = (0..1_u32 << 18)
        .flat_map(|i| i.wrapping_mul(2_654_435_761).rotate_left(13).to_le_bytes())
        .collect();
    for i in 0..count {
        block[..4].copy_from_slice(&i.to_le_bytes());
        file.write_all(&block).unwrap();
    }
}

#[test]
fn pythons_client_keeps_its_connection_and_pipelines() {
    let pair = Pair::create("python").unwrap();
    let primary = Echo::start(&pair.node, &pair.primary).unwrap();
    let shadow = Echo::start(&pair.node, &pair.shadow).unwrap();
    let agent = pair.mirroring(&[]).unwrap();
    let kept = pair.script("keepalive.py", &["web", "8000", "1000", "kept"]).unwrap();
    assert_eq!(kept, json!({ "ok": 1000, "right": 1000, "connections": 1 }), "{}", agent.log());
    primary.wait("id=kept-", 1000).unwrap();
    shadow.wait("id=kept-", 1000).unwrap();
    let piped = pair.script("pipeline.py", &["web", "8000", "200", "piped"]).unwrap();
    let ids: Vec<_> = (0..200).map(|i| format!("piped-{i}")).collect();
    assert_eq!(piped, json!({ "ids": ids, "statuses": 200 }), "{}", agent.log());
    let arrived = primary.wait("id=piped-", 200).unwrap();
    let copies = shadow.wait("id=piped-", 200).unwrap();
    assert_eq!(body_and_target(&arrived), body_and_target(&copies));
    let copies = Copies::settled(&agent).unwrap();
    assert_eq!(copies, Copies { selected: 1200, delivered: 1200, ..Copies::default() });
}

#[test]
fn wrk_meets_no_error() {
    let pair = Pair::create("wrk").unwrap();
    let primary = Echo::start(&pair.node, &pair.primary).unwrap();
    let shadow = Echo::start(&pair.node, &pair.shadow).unwrap();
    let agent = pair.mirroring(&[]).unwrap();
    let argv = ["wrk", "-t2", "-c32", "-d3s", "--latency", "http://web:8000/headers?id=wrk-1"];
    let report = pair.run(&argv).unwrap();
    println!("{report}");
    assert!(!report.contains("Socket errors") && !report.contains("Non-2xx"), "{report}");
    let counted = report.lines().find_map(|line| line.trim().split_once(" requests in "));
    let counted: usize = counted.unwrap().0.parse().unwrap();
    let copies = Copies::settled(&agent).unwrap();
    let (seen, copied) = (primary.seen().len(), shadow.seen().len());
    println!("wrk counts {counted}, the primary {seen}, the shadow {copied}; {copies:?}");
    println!("{}", Copies::losses(&agent).unwrap());
    // wrk leaves with one request in flight on each connection.
    assert!((counted..=counted + 32).contains(&seen), "{seen} {counted}\n{}", agent.log());
    let (_, metrics) = agent.get("/metrics").unwrap();
    assert_eq!(copies.selected, seen as u64, "{}\n{metrics}", agent.log());
    assert_eq!(copies.delivered, copied as u64);
    // The cores are saturated: what may be lost is what found every connection busy.
    let losses = Copies::losses(&agent).unwrap();
    assert!(losses.lines().all(|line| line.contains("reason=\"connections\"")), "{losses}");
}

#[test]
fn bytes_arrive_as_they_were_sent() {
    let pair = Pair::create("bytes").unwrap();
    let log = pair.node.folder().join("witness.json");
    let witness =
        ["python3", &mirror_tests::pair::script("witness.py"), "80", log.to_str().unwrap()];
    let mut witness = pair.primary.spawn("witness", &witness).unwrap();
    pair.primary.listening(&mut witness, 80).unwrap();
    let _shadow = Echo::start(&pair.node, &pair.shadow).unwrap();
    let requests = [
        "GET /plain HTTP/1.1\r\nHost: web:8000\r\n\r\n",
        "GET /a%20b/../c;x?q=%41&&r=%zz HTTP/1.1\r\nHost: WEB:8000\r\nX-Odd-CASE: 1\r\nx-odd-case: 2\r\n\
         accept: a\r\nACCEPT: b\r\nCookie: a=b; c=d\r\nX-Empty:\r\nX-Forwarded-For: 9.9.9.9\r\n\r\n",
        "POST /counted HTTP/1.1\r\nUser-Agent: raw\r\nHost: web:8000\r\nContent-Length: 11\r\n\r\nhello\r\nyou\n",
        "POST /empty HTTP/1.1\r\nHost: web:8000\r\nContent-Length: 0\r\n\r\n",
        "PUT /chunked HTTP/1.1\r\nHost: web:8000\r\nTransfer-Encoding: chunked\r\n\r\n\
         5\r\nhello\r\n1;x=y\r\n!\r\n0\r\n\r\n",
        "HEAD /head HTTP/1.1\r\nHost: web:8000\r\nX-B: 1\r\nX-A: 2\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: web:8000\r\n\r\n",
        "DELETE /x HTTP/1.1\r\nHost: web:8000\r\n\r\n",
        "BREW /pot HTTP/1.1\r\nHost: web:8000\r\n\r\n",
        "GET /one HTTP/1.1\r\nHost: web:8000\r\n\r\nGET /two HTTP/1.1\r\nhost: web:8000\r\n\r\n",
    ];
    let file = pair.node.folder().join("requests.json");
    fs::write(&file, json!(requests).to_string()).unwrap();
    let send = || pair.script("send.py", &["web", "8000", file.to_str().unwrap()]).unwrap();
    let direct = send();
    let agent = pair.mirroring(&[]).unwrap();
    let captured = send();
    assert_eq!(Copies::settled(&agent).unwrap().selected, 11);
    let seen = lines(&log);
    assert_eq!(seen.len(), 22, "{}", agent.log());
    for (direct, captured) in seen[..11].iter().zip(&seen[11..]) {
        assert_eq!(direct, captured);
    }
    assert_eq!(direct, captured);
}

#[test]
fn an_application_sees_the_names_it_expects() {
    let pair = Pair::create("names").unwrap();
    let _primary = Echo::start(&pair.node, &pair.primary).unwrap();
    let _shadow = Echo::start(&pair.node, &pair.shadow).unwrap();
    let agent = pair.mirroring(&[]).unwrap();
    let names = pair.script("names.py", &["web", "8000"]).unwrap();
    assert_eq!(names["peer"], json!([pair.web.cluster_ip, pair.web.port]), "{}", agent.log());
    assert_eq!(names["own"][0], pair.client.ip().to_string());
    assert!(names["answer"].as_str().unwrap().contains(&pair.client.ip().to_string()), "{names}");
    // It was captured indeed.
    assert_eq!(Copies::settled(&agent).unwrap().delivered, 1);
}

#[test]
fn who_waits_until_an_agent_is_ready_is_captured() {
    let pair = Pair::create("ready").unwrap();
    let _primary = Echo::start(&pair.node, &pair.primary).unwrap();
    let shadow = Echo::start(&pair.node, &pair.shadow).unwrap();
    for i in 0..15 {
        let agent = pair.mirroring(&[]).unwrap();
        let url = format!("http://web:8000/get?id=ready{i}-0");
        pair.run(&["curl", "-sS", "-m", "5", "-o", "/dev/null", &url]).unwrap();
        let arrived = shadow.wait(&format!("id=ready{i}-"), 1);
        assert!(arrived.is_ok(), "{i}: {}", agent.get("/metrics").unwrap().1);
    }
}

//! Servers not written by us, as primary and as shadow: each ends connections in a way of its own,
//! after every request, after a number of them, when idle, at random. No copy may be lost to that,
//! and none may be sent twice.
#![allow(clippy::unwrap_used, reason = "helpers of tests; clippy knows only the tests themselves")]

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use mirror_tests::{
    Agent, Copies, Pair, Pod, Process, eventually,
    pair::{lines, script, venv},
};
use serde_json::Value;
use std::time::Duration;

/// A server in a pod, and the file that gets a line for each request.
struct Server {
    process: Process,
    log: PathBuf,
}

impl Server {
    fn start(pair: &Pair, pod: &Pod, argv: impl FnOnce(&str) -> Vec<String>) -> Self {
        let log = pair.node.folder().join(format!("{}.log", pod.name()));
        let argv = argv(&log.to_string_lossy());
        let argv: Vec<_> = argv.iter().map(String::as_str).collect();
        let mut process = pod.spawn("server", &argv).unwrap();
        pod.listening(&mut process, 80).unwrap();
        Self { process, log }
    }

    /// How often each id of this tag is in the log, as `METHOD id`.
    fn counts(&self, tag: &str) -> HashMap<String, usize> {
        let mut counts = HashMap::new();
        for line in fs::read_to_string(&self.log).unwrap_or_default().lines() {
            let Some((head, rest)) = line.split_once("/anything?id=") else { continue };
            let method = if head.contains("POST") { "POST" } else { "GET" };
            let id: String =
                rest.chars().take_while(|c| c.is_alphanumeric() || *c == '-').collect();
            if id.starts_with(tag) {
                *counts.entry(format!("{method} {id}")).or_default() += 1;
            }
        }
        counts
    }
}

/// Sends requests and gives what the client saw of them; none of them may be an error.
fn load(pair: &Pair, tag: &str, count: usize, threads: usize, rate: usize) -> Value {
    let numbers = [count, threads, rate, 50].map(|number| number.to_string());
    let mut args = vec!["web", "8000", tag];
    args.extend(numbers.iter().map(String::as_str));
    let result = pair.script("load.py", &args).unwrap();
    assert_eq!(result["errors"], Value::Array(Vec::new()), "{tag}");
    result
}

/// Every request answered, every one delivered to the shadow, and none twice anywhere.
fn all_once(pair: &Pair, agent: &Agent<'_>, servers: [&Server; 2], tag: &str, counts: [usize; 3]) {
    let [count, threads, rate] = counts;
    let before = Copies::settled(agent).unwrap();
    let result = load(pair, tag, count, threads, rate);
    let copies = Copies::settled(agent).unwrap();
    println!(
        "{tag}: {} answered on {} connections; {copies:?} {}",
        result["ok"].as_array().unwrap().len(),
        result["connections"],
        Copies::losses(agent).unwrap()
    );
    assert_eq!(result["closed"], Value::Array(Vec::new()), "{tag}\n{}", agent.log());
    let what = format!("{tag} in both logs");
    eventually(&what, Duration::from_secs(5), || {
        servers.iter().all(|server| server.counts(tag).len() >= count)
    })
    .unwrap();
    for server in servers {
        let seen = server.counts(tag);
        assert_eq!(seen.len(), count, "{tag}");
        let twice: Vec<_> = seen.iter().filter(|(_, count)| **count > 1).collect();
        assert!(twice.is_empty(), "{tag}: {twice:?}");
    }
    let delivered = copies.delivered - before.delivered;
    assert_eq!(delivered, count as u64, "{tag}: {}", Copies::losses(agent).unwrap());
    assert_eq!(copies.selected - before.selected, count as u64, "{tag}");
}

fn gunicorn(pair: &Pair, pod: &Pod, flags: &[&str]) -> Server {
    let program = venv("gunicorn").unwrap();
    Server::start(pair, pod, |log| {
        let fixed = [&program, "-b", "0.0.0.0:80", "--access-logfile", log];
        let format = ["--access-logformat", "%(r)s", "--worker-tmp-dir", "/dev/shm"];
        let argv = fixed.iter().chain(&format).chain(flags).chain(&["httpbin:app"]);
        argv.map(|&arg| arg.to_owned()).collect()
    })
}

#[test]
fn gunicorn_sync_closes_after_every_request() {
    let pair = Pair::create("sync").unwrap();
    let servers =
        [&pair.primary, &pair.shadow].map(|pod| gunicorn(&pair, pod, &["-w", "2", "-k", "sync"]));
    let agent = pair.mirroring(&[]).unwrap();
    all_once(&pair, &agent, servers.each_ref(), "sync", [500, 8, 100]);
}

#[test]
fn gunicorn_gthread_restarts_its_workers() {
    let pair = Pair::create("gthread").unwrap();
    let flags = ["-w", "2", "-k", "gthread", "--threads", "16"];
    let recycle = ["--max-requests", "50", "--max-requests-jitter", "25", "--keep-alive", "2"];
    let servers = [&pair.primary, &pair.shadow]
        .map(|pod| gunicorn(&pair, pod, &[&flags[..], &recycle].concat()));
    let agent = pair.mirroring(&[]).unwrap();
    // Both workers restart at once now and then, for up to a second: not more than 64 copies may
    // have to wait for them, or the bound on connections drops some.
    all_once(&pair, &agent, servers.each_ref(), "gthread", [600, 8, 60]);
    let restarts = servers.map(|server| server.process.stderr().matches("Booting worker").count());
    println!("gthread: workers started: {restarts:?}");
    assert!(restarts.iter().all(|count| *count >= 6), "{restarts:?}");
}

fn nginx(pair: &Pair, pod: &Pod) -> Server {
    let folder = pair.node.folder().join(format!("{}-nginx", pod.name()));
    fs::create_dir_all(&folder).unwrap();
    let configuration = folder.join("nginx.conf");
    Server::start(pair, pod, |log| {
        fs::write(&configuration, nginx_configuration(&folder, log)).unwrap();
        let argv = ["nginx", "-c", &configuration.to_string_lossy(), "-e", "/dev/stderr"];
        argv.map(str::to_owned).to_vec()
    })
}

fn nginx_configuration(folder: &Path, log: &str) -> String {
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {}/{kind};\n", folder.display()))
        .concat();
    format!(
        "daemon off;\nuser root;\nworker_processes 2;\npid {}/pid;\nevents {{}}\nhttp {{\n\
         {temporary}log_format line '$request $request_length';\naccess_log {log} line;\n\
         keepalive_requests 20;\nserver {{\nlisten 80 backlog=1024;\n\
         location / {{ proxy_pass http://127.0.0.1:81; }}\n}}\n\
         server {{\nlisten 127.0.0.1:81;\naccess_log off;\nkeepalive_requests 100000;\n\
         location / {{ return 200 ok; }}\n}}\n}}\n",
        folder.display()
    )
}

#[test]
fn nginx_closes_after_twenty_requests() {
    let pair = Pair::create("nginx").unwrap();
    let servers = [&pair.primary, &pair.shadow].map(|pod| nginx(&pair, pod));
    let agent = pair.mirroring(&[]).unwrap();
    all_once(&pair, &agent, servers.each_ref(), "nginx", [3000, 8, 500]);
    // Longer pauses than our idle connections live.
    all_once(&pair, &agent, servers.each_ref(), "pauses", [40, 8, 8]);
}

/// Requests under way at a time.
const CLIENTS: u64 = 8;

#[test]
fn a_node_server_closing_at_random_executes_no_post_twice() {
    const COUNT: usize = 3000;
    let pair = Pair::create("node").unwrap();
    let [primary, shadow] = [(&pair.primary, "0"), (&pair.shadow, "20")].map(|(pod, share)| {
        Server::start(&pair, pod, |log| {
            ["node", &script("closing.js"), "80", log, share].map(str::to_owned).to_vec()
        })
    });
    let agent = pair.mirroring(&[]).unwrap();
    let result = load(&pair, "node", COUNT, CLIENTS as usize, 600);
    let copies = Copies::settled(&agent).unwrap();
    println!("node: {copies:?}\n{}", Copies::losses(&agent).unwrap());
    assert_eq!(result["ok"].as_array().unwrap().len(), COUNT, "{}", agent.log());
    assert_eq!(primary.counts("node").len(), COUNT);
    let seen = shadow.counts("node");
    let twice: Vec<_> = seen.iter().filter(|(_, count)| **count > 1).collect();
    assert!(twice.iter().all(|(id, _)| id.starts_with("GET")), "{twice:?}");
    assert!((twice.len() as u64) < CLIENTS, "{twice:?}");
    assert_eq!(copies.selected, COUNT as u64);
    explained(&shadow, copies, &agent);
}

/// Each copy that was not delivered has an end of a connection in the server's log as its reason.
fn explained(shadow: &Server, copies: Copies, agent: &Agent<'_>) {
    let mut ways = HashMap::<String, u64>::new();
    for line in lines(&shadow.log) {
        *ways.entry(line["way"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    println!("the shadow's ways: {ways:?}");
    let executed: u64 = ways.values().sum();
    // Executed and not answered: what became of it cannot be known. Everything else it executed
    // was answered.
    assert!(copies.unknown >= ways["instead"], "{copies:?} {ways:?}\n{}", agent.log());
    let behind = executed - ways["instead"] - copies.delivered;
    // Node does what lies behind a response that closes, and answers none of it. It was sent again;
    // after that nothing was sent behind another for a while.
    assert!(behind < CLIENTS, "{copies:?} {ways:?}");
    // A copy that met a connection while it was being closed: at most one for each.
    let lost = copies.unknown + copies.dropped - ways["instead"];
    assert!(lost <= ways["after"], "{copies:?} {ways:?}");
}

#[test]
fn a_node_primary_closing_at_random_executes_no_post_twice() {
    const COUNT: usize = 2000;
    let pair = Pair::create("nodeprimary").unwrap();
    let [primary, shadow] = [(&pair.primary, "20"), (&pair.shadow, "0")].map(|(pod, share)| {
        Server::start(&pair, pod, |log| {
            ["node", &script("closing.js"), "80", log, share].map(str::to_owned).to_vec()
        })
    });
    let agent = pair.mirroring(&[]).unwrap();
    let result = load(&pair, "random", COUNT, 8, 600);
    let copies = Copies::settled(&agent).unwrap();
    let (ok, closed) = ["ok", "closed"].map(|key| result[key].as_array().unwrap().len()).into();
    println!("node as primary: {ok} answered, {closed} closed; {copies:?}");
    assert_eq!(ok + closed, COUNT);
    for server in [&primary, &shadow] {
        let seen = server.counts("random");
        let twice: Vec<_> = seen.iter().filter(|(_, count)| **count > 1).collect();
        assert!(twice.iter().all(|(id, _)| id.starts_with("GET")), "{twice:?}");
    }
    // A mirror draws once for each request of a client, not for each attempt.
    let copied = shadow.counts("random");
    assert!(copied.values().all(|count| *count == 1), "{copied:?}");
    assert!(copies.selected <= COUNT as u64, "{copies:?}");
}

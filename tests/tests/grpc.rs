//! gRPC with the client and server of grpcio, through the capture and with every call mirrored:
//! all four kinds of call, status and metadata both ways, deadlines, cancellation, a primary that
//! is restarted. A shadow that stops reading costs the primary's stream nothing.
#![allow(clippy::unwrap_used, reason = "helpers of tests; clippy knows only the tests themselves")]

use std::{process::Command, thread, time::Duration};

use mirror_tests::{
    Agent, Copies, Pair, Peer, Signal, eventually,
    manifest::{Route, Rule},
    mirror_binary, usage,
};
use serde_json::{Value, json};

/// The channel of gRPC is HTTP/2 whatever the Service says; here it says so.
fn stage(name: &str) -> (Pair, [Peer; 2]) {
    // grpcio connects sockets of IPv6 to addresses of IPv4 (::ffff:10.96.0.10).
    let pair = Pair::speaking(name, Some("kubernetes.io/h2c")).unwrap();
    let servers = Peer::both(&pair, "grpc_server.py", &[]).unwrap();
    (pair, servers)
}

fn client(pair: &Pair, mode: &str, tag: &str) -> Value {
    pair.peer("grpc_client.py", &[mode, "web", "8000", tag]).unwrap()
}

/// What of a call the shadow sees as the primary does.
fn alike(lines: &[Value], tag: &str) -> Vec<String> {
    let fields = ["kind", "metadata", "messages", "bytes", "sha256", "code", "finished"];
    let text =
        |line: &Value| json!(fields.map(|field| &line[field])).to_string().replace(tag, "TAG");
    let mut seen: Vec<_> = lines.iter().map(text).collect();
    seen.sort();
    seen
}

/// Runs a mode of the client directly and through the agent: both ends see the same, and the
/// shadow gets the same calls. So many arrive at the server.
fn same(mode: &str, calls: usize) {
    let (pair, [primary, shadow]) = stage(mode);
    let direct = client(&pair, mode, "direct");
    let before = primary.wait("\"direct-", calls).unwrap();
    let agent = pair.mirroring(&[]).unwrap();
    let captured = client(&pair, mode, "captured");
    assert_eq!(captured, direct, "{}", agent.log());
    let after = primary.wait("\"captured-", calls).unwrap();
    assert_eq!(alike(&after, "captured"), alike(&before, "direct"), "{}", agent.log());
    let copies = Copies::settled(&agent).unwrap();
    println!("{copies}\n{}", Copies::losses(&agent).unwrap());
    let copied = shadow.wait("\"captured-", calls).unwrap();
    assert_eq!(alike(&copied, "captured"), alike(&after, "captured"));
    let requests = agent.parsed("http2").unwrap();
    assert!(requests >= calls as u64, "{requests}\n{}", agent.log());
    assert_eq!(copies.delivered, requests, "{}", Copies::losses(&agent).unwrap());
}

#[test]
fn all_kinds_of_calls() {
    same("calls", 16);
}

#[test]
fn a_grpc_route_mirrors_the_calls_that_it_names() {
    let (pair, [primary, shadow]) = stage("routed");
    let of_echo = Rule::to("primary", 80).matching("method:\n  service: test.Echo");
    let unary = Rule::to("primary", 80).mirror("shadow", 80);
    let unary = unary.matching("method:\n  service: test.Echo\n  method: Unary");
    let route = Route::new("web", &pair.web).grpc().rule(of_echo).rule(unary);
    pair.node.routes().write("route.yaml", &route.manifest()).unwrap();
    let agent = pair.agent(&[]).unwrap();
    let got = client(&pair, "calls", "routed");
    let calls = got.as_object().unwrap();
    let good = |call: &&Value| call["same"] == true;
    assert_eq!((calls.len(), calls.values().filter(good).count()), (16, 16), "{got}");
    primary.wait("\"routed-", 16).unwrap();
    let copies = Copies::settled(&agent).unwrap();
    assert_eq!((copies.selected, copies.delivered), (6, 6), "{}", Copies::losses(&agent).unwrap());
    let copied = shadow.wait("\"routed-", 6).unwrap();
    assert!(copied.iter().all(|line| line["tag"] == "routed-unary"), "{copied:?}");
    let (_, config) = agent.get("/config").unwrap();
    assert!(config.contains("grpcroute/default/web"), "{config}");
    // What no rule names gets an error that a client of gRPC understands.
    let got = client(&pair, "unrouted", "unrouted");
    assert_eq!(got["code"], "UNIMPLEMENTED", "{got}");
    let details = got["details"].as_str().unwrap();
    assert!(details.starts_with("mirror: no rule of the routes"), "{got}");
    // `mirror explain` says the same: 12 is UNIMPLEMENTED.
    let mut explain = Command::new(mirror_binary().unwrap());
    explain.args(["explain", "--json", "POST", "http://web:8000/test.Other/Unary"]);
    explain.args(["--header", "Content-Type: application/grpc", "--routes"]);
    let output = explain.arg(pair.node.routes().path()).output().unwrap();
    let explained: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&explained["status"], &explained["grpc_status"]), (&json!(200), &json!("12")));
    assert_eq!(explained["grpc_message"], details, "{explained}");
}

#[test]
fn every_status_arrives() {
    // One more call, of a method that no server has, is not seen by a handler.
    same("errors", 16);
}

#[test]
fn a_hundred_streams_at_once() {
    same("many", 100);
}

#[test]
fn deadlines_are_the_servers_too() {
    let (pair, [primary, shadow]) = stage("deadlines");
    let agent = pair.mirroring(&[]).unwrap();
    let got = client(&pair, "deadlines", "late");
    assert_eq!(got["late"], "DEADLINE_EXCEEDED", "{got}\n{}", agent.log());
    assert!(got["seconds"].as_f64().unwrap() < 1.5, "{got}");
    assert_eq!((&got["stream"], &got["got"]), (&json!("DEADLINE_EXCEEDED"), &json!(true)));
    assert_eq!(got["in_time"]["code"], "OK");
    // Primary and shadow know how long they have, and stop: no handler works for nobody.
    for server in [&primary, &shadow] {
        let seen = server.wait("\"late-", 3).unwrap();
        for line in seen.iter().filter(|line| line["tag"] != "late-in-time") {
            let (deadline, took) =
                (line["deadline"].as_f64().unwrap(), line["seconds"].as_f64().unwrap());
            assert!((0.2..=0.7).contains(&deadline), "{line}");
            assert!(took < 3.0 && line["finished"] == false, "{line}");
        }
    }
    assert!(agent.parsed("http2").unwrap() >= 3);
}

#[test]
fn a_cancelled_call_is_cancelled_at_the_server() {
    let (pair, [primary, shadow]) = stage("cancels");
    let agent = pair.mirroring(&[]).unwrap();
    let got = client(&pair, "cancels", "given");
    let expected = json!({ "waiting": "CANCELLED", "half": "CANCELLED", "got": 20, "after": "OK" });
    assert_eq!(got, expected, "{}", agent.log());
    let seen = primary.wait("\"given-", 4).unwrap();
    for line in &seen {
        let whole = line["finished"] == true && line["kind"] != "bidi";
        assert_eq!(whole, line["tag"] == "given-after", "{line}");
        assert!(line["seconds"].as_f64().unwrap() < 3.0, "{line}");
    }
    // A copy that was cut ends as well; that of a complete request goes on until it is too late.
    let both = shadow.wait("\"given-both", 1).unwrap();
    assert!(both[0]["seconds"].as_f64().unwrap() < 3.0, "{both:?}");
    shadow.wait("\"given-after", 1).unwrap();
    assert!(agent.parsed("http2").unwrap() >= 4);
}

#[test]
fn a_channel_recovers_from_a_restart_of_the_primary() {
    let (pair, [mut primary, shadow]) = stage("restart");
    let agent = pair.mirroring(&[]).unwrap();
    let got = thread::scope(|scope| {
        let client =
            scope.spawn(|| pair.peer("grpc_client.py", &["steady", "web", "8000", "re", "5"]));
        thread::sleep(Duration::from_millis(1500));
        primary.process.signal(Signal::SIGKILL).unwrap();
        primary.process.wait(Duration::from_secs(5)).unwrap();
        thread::sleep(Duration::from_millis(300));
        primary = Peer::start(&pair.node, &pair.primary, "grpc_server.py", &[]).unwrap();
        client.join().unwrap().unwrap()
    });
    println!("{got}");
    // Nothing but UNAVAILABLE, as without the agent, and not for longer than the server was gone.
    let codes = got["codes"].as_object().unwrap();
    assert!(
        codes.keys().all(|code| code == "OK" || code == "UNAVAILABLE"),
        "{got}\n{}",
        agent.log()
    );
    assert!(codes["OK"].as_u64().unwrap() > 50 && got["ended"] == "OK", "{got}\n{}", agent.log());
    assert!(got["gap"].as_f64().unwrap() < 3.0, "{got}");
    assert!(agent.parsed("http2").unwrap() > 50);
    let copies = Copies::settled(&agent).unwrap();
    println!("{copies}\n{}", Copies::losses(&agent).unwrap());
    assert!(shadow.about("\"re-steady").len() as u64 <= copies.selected);
}

#[test]
fn an_agent_that_ends_costs_no_call() {
    let (pair, [primary, _shadow]) = stage("drain");
    let mut agent = pair.mirroring(&[]).unwrap();
    let got = thread::scope(|scope| {
        let client =
            scope.spawn(|| pair.peer("grpc_client.py", &["steady", "web", "8000", "end", "3"]));
        thread::sleep(Duration::from_millis(1500));
        assert!(agent.parsed("http2").unwrap() > 10, "{}", agent.log());
        let status = agent.stop(Duration::from_secs(20)).unwrap();
        assert!(status.success(), "{status}: {}", agent.log());
        client.join().unwrap().unwrap()
    });
    println!("{got}");
    // GOAWAY first, then the responses to what was on its way; the next connection is a direct one.
    let calls = got["codes"]["OK"].as_u64().unwrap();
    assert_eq!(got["codes"], json!({ "OK": calls }), "{}", agent.log());
    primary.wait("\"end-steady", usize::try_from(calls).unwrap()).unwrap();
}

/// Messages of 64 KiB on one bidirectional stream: 200 MiB.
const MESSAGES: u32 = 3200;

/// What the shadow does while a stream is measured.
#[derive(Clone, Copy, Debug)]
enum Shadow {
    None,
    Healthy,
    /// Takes calls and never reads their messages: the stream's window stays shut.
    Stalled,
    /// The whole process is stopped in the middle of the stream: the socket's window shuts.
    Stopped,
}

const ROUNDS: usize = 3;

#[test]
fn a_shadow_that_stops_reading_never_slows_the_primarys_stream() {
    use Shadow::{Healthy, None, Stalled, Stopped};
    let pair = Pair::speaking("stall", Some("kubernetes.io/h2c")).unwrap();
    let primary = Peer::start(&pair.node, &pair.primary, "grpc_server.py", &[]).unwrap();
    let agent = pair.mirroring(&[]).unwrap();
    let ways = [None, Healthy, Stalled, Stopped];
    usage::reset_peak(agent.pid()).unwrap();
    let before = usage::rss(agent.pid()).unwrap();
    let mut best = [0.0_f64; 4];
    for _ in 0..ROUNDS {
        let rates = ways.map(|way| stream(&pair, &agent, way));
        for (way, rate) in ways.iter().zip(rates) {
            print!("{way:?} {:.0} MiB/s  ", rate / 16.0);
        }
        println!();
        // Of the unmirrored one just before. What else this machine does meets one or the other,
        // and only ever takes: the best round counts.
        for (best, rate) in best.iter_mut().zip(rates) {
            *best = best.max(rate / rates[0]);
        }
    }
    let growth = usage::peak_rss(agent.pid()).unwrap().saturating_sub(before) >> 20;
    println!("the agent's RSS grew by {growth} MiB");
    assert!(growth < 32 + 16, "a copy holds more than half of what the agent may");
    let [_, healthy, stalled, stopped] = best;
    println!("of the unmirrored: healthy {healthy:.2}, stalled {stalled:.2}, stopped {stopped:.2}");
    assert!(stalled.min(stopped) >= 0.7, "{best:?}");
    let seen = primary.wait("flow-stream", 4 * ROUNDS).unwrap();
    assert!(seen.iter().all(|line| line["messages"] == MESSAGES), "{seen:?}");
    // It was mirrored indeed. A copy counts as delivered when its response begins, which all shadows
    // see to at once, unless it was too far behind already.
    let copies = Copies::settled(&agent).unwrap();
    let losses = Copies::losses(&agent).unwrap();
    println!("{copies}\n{losses}");
    assert_eq!(copies.selected as usize, 3 * ROUNDS);
    assert!(losses.lines().all(|line| line.contains("reason=\"request_budget\"")), "{losses}");
    assert_eq!(agent.parsed("http2").unwrap() as usize, 4 * ROUNDS);
}

/// One stream's messages per second; each was answered.
fn stream(pair: &Pair, agent: &Agent<'_>, way: Shadow) -> f64 {
    let mut rule = Rule::to("primary", 80);
    if !matches!(way, Shadow::None) {
        rule = rule.mirror("shadow", 80);
    }
    // The name makes each route another than the one before.
    let way_field = format!(
        "type: RequestHeaderModifier\nrequestHeaderModifier:\n  set:\n  - name: x-way\n    value: {way:?}"
    );
    pair.apply(agent, &[rule.filter(&way_field)]).unwrap();
    let args: &[&str] = if matches!(way, Shadow::Stalled) { &["stall"] } else { &[] };
    let mut shadow = Peer::start(&pair.node, &pair.shadow, "grpc_server.py", args).unwrap();
    let count = MESSAGES.to_string();
    let args = ["stream", "web", "8000", "flow", &count];
    let got = thread::scope(|scope| {
        let client = scope.spawn(|| pair.peer("grpc_client.py", &args).unwrap());
        if matches!(way, Shadow::Stopped) {
            let busy = || agent.metric("mirror_shadow_connections", &[]).unwrap() > 0.0;
            eventually("the copy is on its way", Duration::from_secs(10), busy).unwrap();
            thread::sleep(Duration::from_millis(100));
            assert!(!client.is_finished(), "the stream is over already");
            shadow.process.signal(Signal::SIGSTOP).unwrap();
        }
        client.join().unwrap()
    });
    let right = (&json!(MESSAGES), &json!("OK"));
    assert_eq!((&got["got"], &got["code"]), right, "{way:?}: {got}\n{}", agent.log());
    f64::from(MESSAGES) / got["seconds"].as_f64().unwrap()
}

//! Tests of the admin server over real connections, with workers that respond and workers that do not.

use std::sync::Mutex;

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
};

use super::*;
use crate::{
    model::{ObjectName, RouteKind},
    outcome::{
        AccessLog, ConnectionKind, Recorder, RefusalEvent, RefusalReason, TimedResponse, Uncopied,
    },
    route::ServicePort,
};

/// A composition root whose state the test sets.
struct Root {
    heartbeats: Mutex<Vec<Duration>>,
    ready: Mutex<Result<(), String>>,
}

impl AdminView for Root {
    fn heartbeats(&self) -> Vec<Duration> {
        self.heartbeats.lock().expect("no test panics with the lock").clone()
    }

    fn ready(&self) -> Result<(), String> {
        self.ready.lock().expect("no test panics with the lock").clone()
    }

    fn config(&self) -> serde_json::Value {
        json!({ "generation": 3 })
    }

    fn agent_metrics(&self) -> AgentMetrics {
        AgentMetrics { generation: 3, ..AgentMetrics::default() }
    }
}

struct Server {
    root: Arc<Root>,
    address: SocketAddr,
    cancel: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

async fn serve(lines: Vec<mpsc::Sender<ReportRequest>>) -> Server {
    let fresh = vec![Duration::from_millis(50); 2];
    let root = Arc::new(Root { heartbeats: Mutex::new(fresh), ready: Mutex::new(Ok(())) });
    let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
    let admin = Admin::bind(any_port, false).await.expect("a free port on loopback");
    let address = admin.address();
    let cancel = CancellationToken::new();
    let serving = admin.serve(Arc::clone(&root), Workers::new(lines), cancel.clone());
    Server { root, address, cancel, task: tokio::spawn(serving) }
}

impl Server {
    async fn send(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.expect("it listens");
        stream.write_all(request.as_bytes()).await.expect("it reads");
        let mut response = String::new();
        stream.read_to_string(&mut response).await.expect("it answers in text");
        response
    }

    async fn get(&self, path: &str) -> String {
        self.send(&format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"))
            .await
    }
}

#[tokio::test]
async fn health_names_the_worker_that_is_stale() {
    let server = serve(Vec::new()).await;
    let healthy = server.get("/healthz").await;
    assert!(healthy.starts_with("HTTP/1.1 200 OK\r\n") && healthy.ends_with("\r\n\r\nok\n"));
    *server.root.heartbeats.lock().expect("not poisoned") =
        vec![Duration::from_millis(1000), Duration::from_millis(1001)];
    let ill = server.get("/healthz?verbose").await;
    assert!(ill.starts_with("HTTP/1.1 503 "), "{ill}");
    assert!(ill.ends_with("\r\n\r\nworker 1: last heartbeat 1001 ms ago\n"), "{ill}");
    server.root.heartbeats.lock().expect("not poisoned").clear();
    assert!(server.get("/healthz").await.ends_with("no worker is running\n"));
}

#[tokio::test]
async fn readiness_says_what_is_missing() {
    let server = serve(Vec::new()).await;
    assert!(server.get("/readyz").await.starts_with("HTTP/1.1 200 "));
    *server.root.ready.lock().expect("not poisoned") = Err("no routes were loaded".into());
    let missing = server.get("/readyz").await;
    assert!(missing.starts_with("HTTP/1.1 503 ") && missing.ends_with("no routes were loaded\n"));
}

#[tokio::test]
async fn config_is_json_and_all_else_is_refused() {
    let server = serve(Vec::new()).await;
    let config = server.get("/config").await;
    let (head, body) = config.split_once("\r\n\r\n").expect("a head and a body");
    assert!(head.to_lowercase().contains("content-type: application/json"), "{head}");
    let value: serde_json::Value = serde_json::from_str(body).expect("valid JSON");
    assert_eq!(value, json!({ "generation": 3 }));
    let status = server.get("/status").await;
    let (_, body) = status.split_once("\r\n\r\n").expect("a head and a body");
    let mut value: serde_json::Value = serde_json::from_str(body).expect("valid JSON");
    let run = value.as_object_mut().expect("an object").remove("run").expect("a run");
    assert!(run["uptime_seconds"].as_f64() > Some(0.0), "{run}");
    let expected = json!({
        "generation": 3, "ready": true, "unready": null, "copies": [], "uncopied": {},
        "refused": {}, "tapped": 0, "tap_stopped": {}, "tap_lost_bytes": 0,
        "responses": [],
    });
    assert_eq!(value, expected);
    assert!(server.get("/").await.starts_with("HTTP/1.1 404 "));
    let post = "POST /config HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    assert!(server.send(post).await.starts_with("HTTP/1.1 405 "));
    assert!(server.send("\0\r\n\r\n").await.starts_with("HTTP/1.1 400 "));
}

#[tokio::test]
async fn a_status_has_what_two_versions_are_compared_by_and_whose_run_it_is() {
    let worker = || {
        let (line, mut questions) = mpsc::channel::<ReportRequest>(1);
        let recorder = Recorder::new(AccessLog::off());
        let route = RouteKind::Http.named(ObjectName { namespace: "d".into(), name: "r".into() });
        let shadow = ServicePort { namespace: "d".into(), name: "v2".into(), port: 80 };
        let (route, shadow) = (Arc::new(route), Arc::new(shadow));
        let response = |status, millis| TimedResponse {
            status,
            grpc: None,
            after: Duration::from_millis(millis),
        };
        recorder.pair(&route, &shadow, &response(Some(200), 1), &response(Some(503), 20));
        recorder.pair(&route, &shadow, &response(Some(200), 2), &response(Some(200), 30));
        recorder.pair(&route, &shadow, &response(None, 0), &response(Some(200), 90_000));
        let report = recorder.report();
        tokio::spawn(async move {
            while let Some(reply) = questions.recv().await {
                let _ = reply.send(report.clone());
            }
        });
        line
    };
    let (server, other) = (serve(vec![worker(), worker()]).await, serve(Vec::new()).await);
    let status = async |server: &Server| {
        let status = server.get("/status").await;
        let (_, body) = status.split_once("\r\n\r\n").expect("a head and a body");
        serde_json::from_str::<serde_json::Value>(body).expect("valid JSON")
    };
    let (first, second) = (status(&server).await, status(&server).await);
    assert_eq!(first["run"]["id"], second["run"]["id"]);
    assert_ne!(first["run"]["id"], status(&other).await["run"]["id"]);
    let pair = &first["responses"][0];
    assert_eq!(pair["classes"], json!({"2xx": {"2xx": 2, "5xx": 2}, "none": {"2xx": 2}}));
    let [primary, shadow] = ["primary_times", "shadow_times"].map(|leg| &pair[leg]);
    let count = |times: &serde_json::Value, bound: f64| {
        let bounds = times["bounds_seconds"].as_array().expect("bounds");
        times["counts"][bounds.iter().position(|b| *b == bound).unwrap_or(bounds.len())].clone()
    };
    // A bucket contains its upper bound; the last has none.
    assert_eq!([0.001, 0.0025, f64::INFINITY].map(|bound| count(primary, bound)), [2, 2, 0]);
    assert_eq!([0.025, 0.05, f64::INFINITY].map(|bound| count(shadow, bound)), [2, 2, 2]);
    let sums = [primary, shadow].map(|times| times["sum_seconds"].as_f64().expect("a sum"));
    assert!((sums[0] - 0.006).abs() < 1e-9 && (sums[1] - 180.1).abs() < 1e-9, "{sums:?}");
}

#[tokio::test]
async fn a_worker_that_does_not_respond_keeps_its_last_counts() {
    let (line, mut questions) = mpsc::channel::<ReportRequest>(1);
    let (blocked, mut silent) = mpsc::channel::<ReportRequest>(1);
    let server = serve(vec![line, blocked]).await;
    let worker = |kind: ConnectionKind| {
        let recorder = Recorder::new(AccessLog::off());
        recorder.connection(kind);
        recorder.uncopied(Uncopied::WebSocket);
        recorder.refused(&RefusalEvent {
            client: "d/c",
            frontend: None,
            refusal: RefusalReason::UnknownId,
            status: None,
            first_line: [None; 3],
            reason: "mirror: why",
        });
        recorder.copy_selected(&Arc::new(ServicePort {
            namespace: "d".into(),
            name: "s".into(),
            port: 80,
        }));
        recorder.report()
    };
    // Both workers respond to the first scrape, only the first one to later scrapes.
    let (one, two) = (worker(ConnectionKind::Http1), worker(ConnectionKind::Opaque));
    tokio::spawn(async move {
        while let Some(request) = questions.recv().await {
            request.send(one.clone()).expect("the scrape waits");
        }
    });
    let once = tokio::spawn(async move {
        let request = silent.recv().await.expect("a question");
        request.send(two).expect("the scrape waits");
        silent
    });
    for scrape in 0..3 {
        let begun = std::time::Instant::now();
        let metrics = server.get("/metrics").await;
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
        for line in [
            "mirror_connections_total{kind=\"http1\"} 1",
            "mirror_connections_total{kind=\"opaque\"} 1",
            "mirror_copies_in_flight{shadow=\"d/s:80\"} 2",
            "mirror_snapshot_generation 3",
            "mirror_worker_heartbeat_age_seconds{worker=\"0\"} 0.05",
        ] {
            assert!(metrics.lines().any(|l| l == line), "scrape {scrape}: {line}\n{metrics}");
        }
        assert!(metrics.to_lowercase().contains("content-type: application/openmetrics-text"));
        assert!(metrics.ends_with("# EOF\n"));
    }
    let status = server.get("/status").await;
    let (_, body) = status.split_once("\r\n\r\n").expect("a head and a body");
    let value: serde_json::Value = serde_json::from_str(body).expect("valid JSON");
    assert_eq!(value["refused"], json!({ "unknown_id": 2 }));
    assert_eq!(value["uncopied"], json!({ "websocket": 2 }));
    drop(once);
}

#[tokio::test]
async fn it_stays_on_loopback_unless_configured() {
    for address in ["0.0.0.0:0", "[::]:0", "10.0.0.1:0", "[::ffff:10.0.0.1]:0"] {
        let address = address.parse().expect("an address");
        let error = Admin::bind(address, false).await.expect_err("not loopback");
        assert_eq!(error.label(), "remote");
        assert!(error.to_string().contains("--admin-remote"), "{error}");
    }
    let mapped = "[::ffff:127.0.0.1]:0".parse().expect("an address");
    Admin::bind(mapped, false).await.expect("loopback in its IPv6 form");
    let any = "0.0.0.0:0".parse().expect("an address");
    let admin = Admin::bind(any, true).await.expect("asked for");
    let taken = Admin::bind(admin.address(), true).await.expect_err("taken");
    assert_eq!(taken.label(), "bind");
}

#[tokio::test]
async fn cancelling_ends_it_though_a_client_holds_a_connection() {
    let server = serve(Vec::new()).await;
    let mut idle = TcpStream::connect(server.address).await.expect("it listens");
    idle.write_all(b"GET /he").await.expect("it reads");
    server.cancel.cancel();
    tokio::time::timeout(Duration::from_secs(1), server.task)
        .await
        .expect("it ends at once")
        .expect("it does not panic");
    let mut rest = Vec::new();
    let closed = tokio::time::timeout(Duration::from_secs(1), idle.read_to_end(&mut rest)).await;
    assert!(closed.is_ok(), "the idle connection is closed");
}

#[tokio::test]
async fn connections_that_do_not_read_or_do_not_ask_keep_no_probe_waiting() {
    let admin = Admin::bind(SocketAddr::from(([127, 0, 0, 1], 0)), false).await.expect("loopback");
    let address = admin.address();
    // More than the buffers of both sockets hold.
    let much = Bytes::from(vec![b'x'; 16 << 20]);
    let response = move |request: Request<Incoming>| {
        let body = if request.uri().path() == "/config" { much.clone() } else { "ok\n".into() };
        async { Response::new(body) }
    };
    let serving = tokio::spawn(admin.serve_by(response, CancellationToken::new()));
    let connect = || TcpStream::connect(address);
    let mut deaf = Vec::new();
    for round in 0..200 {
        let mut stream = connect().await.expect("it listens");
        if round % 2 == 0 {
            let request = b"GET /config HTTP/1.1\r\nhost: localhost\r\n\r\n";
            stream.write_all(request).await.expect("it reads");
        }
        deaf.push(stream);
        if round % 20 == 19 {
            let mut probe = connect().await.expect("it listens");
            let request = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
            probe.write_all(request).await.expect("it reads");
            let mut health = String::new();
            let read = probe.read_to_string(&mut health);
            let read = tokio::time::timeout(Duration::from_secs(2), read).await;
            assert!(read.is_ok() && health.ends_with("ok\n"), "after {round}");
        }
    }
    // The oldest were cut: their ends are there to be read.
    let mut rest = Vec::new();
    let end = tokio::time::timeout(Duration::from_secs(2), deaf[1].read_to_end(&mut rest)).await;
    assert!(end.is_ok(), "the second is open still");
    serving.abort();
}

#[tokio::test(start_paused = true)]
async fn a_connection_ends_whatever_it_does() {
    let connection_limit = connection_limit::ConnectionLimit::default();
    let begun = tokio::time::Instant::now();
    bounded(std::future::pending(), connection_limit.enter()).await;
    assert_eq!(begun.elapsed(), LIFETIME);
}

#[tokio::test]
async fn who_asks_by_another_name_learns_nothing() {
    let server = serve(Vec::new()).await;
    for path in ["/config", "/status", "/metrics", "/healthz"] {
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n");
        let refused = server.send(&request).await;
        assert!(refused.starts_with("HTTP/1.1 421 ") && refused.contains("--admin-host"), "{path}");
        assert!(!refused.contains("generation"), "{refused}");
    }
    assert!(server.send("GET /config HTTP/1.0\r\n\r\n").await.starts_with("HTTP/1.0 200 "));
}

#[test]
fn all_addresses_are_those_of_ipv4_on_a_host_without_ipv6() {
    let absent = std::io::Error::from_raw_os_error(libc::EAFNOSUPPORT);
    let address = |text: &str| text.parse::<SocketAddr>().unwrap();
    assert_eq!(without_ipv6(address("[::]:80"), &absent), Some(address("0.0.0.0:80")));
    assert_eq!(without_ipv6(address("[::1]:80"), &absent), None);
    let taken = std::io::Error::from_raw_os_error(libc::EADDRINUSE);
    assert_eq!(without_ipv6(address("[::]:80"), &taken), None);
}

//! Bytes that are not HTTP, through the capture: TLS, a server that speaks first, half-close. They
//! reach the original destination unharmed, and are never mirrored.
#![allow(clippy::unwrap_used, reason = "helpers of tests; clippy knows only the tests themselves")]

use std::time::Duration;

use mirror_tests::{
    Agent, Copies, Node, Pod, Process, Service,
    manifest::{Route, Rule},
    pair::script,
    run,
};

struct Stage {
    client: Pod,
    server: Pod,
    service: Service,
    // Last: its drop removes everything.
    node: Node,
}

impl Stage {
    /// A Service on this port whose route mirrors what it can to the same pod.
    fn new(name: &str, port: u16) -> Self {
        let node = Node::create(name).unwrap();
        let (client, server) = (node.pod("client").unwrap(), node.pod("server").unwrap());
        let service = node.service("server", port, port, &[&server]).unwrap();
        node.routes().write("service.yaml", &service.manifest()).unwrap();
        let rule = Rule::to("server", port).mirror("server", port);
        let route = Route::new("server", &service).rule(rule);
        node.routes().write("route.yaml", &route.manifest()).unwrap();
        Self { client, server, service, node }
    }

    fn serve(&self, argv: &[&str]) -> Process {
        let mut process = self.server.spawn("server", argv).unwrap();
        self.server.listening(&mut process, self.service.port).unwrap();
        process
    }

    fn python(&self, mode: &str) -> serde_json::Value {
        let (path, port) = (script("opaque_client.py"), self.service.port.to_string());
        let argv = ["python3", &path, mode, "server", &port];
        let output = self.client.run(&argv, Duration::from_secs(30)).unwrap();
        serde_json::from_str(&output.ok().unwrap()).unwrap()
    }

    /// Connections passed through and the copies of the agent.
    fn passed(&self, agent: &Agent<'_>) -> (f64, Copies) {
        let bytes = |direction| {
            agent.metric("mirror_bytes_total", &[("leg", "passed"), ("direction", direction)])
        };
        let both = bytes("sent").unwrap().min(bytes("received").unwrap());
        (both, Copies::settled(agent).unwrap())
    }
}

#[test]
fn tls_passes() {
    let stage = Stage::new("tls", 443);
    let folder = stage.node.folder().to_string_lossy().into_owned();
    let (key, certificate) = (format!("{folder}/key.pem"), format!("{folder}/cert.pem"));
    let new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
    let subject = ["-nodes", "-days", "2", "-subj", "/CN=server", "-addext"];
    let out = ["subjectAltName=DNS:server", "-keyout", &key, "-out", &certificate];
    run(&[&new[..], &subject, &out].concat(), "").unwrap();
    let serve = ["openssl", "s_server", "-accept", "443", "-www", "-key", &key];
    let _server = stage.serve(&[&serve[..], &["-cert", &certificate]].concat());
    let agent = Agent::start(&stage.node, &[&stage.client], &[]).unwrap();
    for _ in 0..5 {
        let argv = ["curl", "-sS", "-m", "10", "--cacert", &certificate, "https://server/"];
        let page = stage.client.run(&argv, Duration::from_secs(20)).unwrap().ok().unwrap();
        assert!(page.contains("s_server -accept 443"), "{page}\n{}", agent.log());
    }
    let (bytes, copies) = stage.passed(&agent);
    assert!(bytes > 1000.0, "{bytes}");
    assert_eq!(copies, Copies::default());
}

#[test]
fn a_server_may_speak_first() {
    let stage = Stage::new("first", 25);
    let _server = stage.serve(&["python3", &script("opaque_server.py"), "first", "25"]);
    let agent = Agent::start(&stage.node, &[&stage.client], &[]).unwrap();
    let talk = stage.python("first");
    let said = ["220 ready\r\n", "250 NOOP\r\n", "250 HELP\r\n", "221 bye\r\n"];
    assert_eq!(talk["said"], serde_json::json!(said), "{talk}\n{}", agent.log());
    assert_eq!(talk["end"], "");
    // The route does no more than mirror, so that nothing is waited for.
    let greeted = talk["greeted"].as_f64().unwrap();
    assert!(greeted < 0.15, "{greeted}");
    let first = agent.metric("mirror_connections_total", &[("kind", "server_first")]).unwrap();
    assert_eq!(first as u64, 1, "it was captured indeed");
    assert_eq!(stage.passed(&agent).1, Copies::default());
}

#[test]
fn a_half_closed_connection_goes_on() {
    let stage = Stage::new("half", 9000);
    let _server = stage.serve(&["python3", &script("opaque_server.py"), "half", "9000"]);
    let agent = Agent::start(&stage.node, &[&stage.client], &[]).unwrap();
    let talk = stage.python("half");
    assert_eq!(talk["answer"], talk["expected"], "{}", agent.log());
    let (bytes, copies) = stage.passed(&agent);
    assert!(bytes > 64.0, "{bytes}");
    assert_eq!(copies, Copies::default());
}

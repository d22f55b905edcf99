//! The access log's lines, against what clients asked and got.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
    time::Duration,
};

use mirror_user::{
    outcome::{AccessLog, LineFormat},
    route::{Matcher, PathMatch, RuleEntry},
};
use serde_json::{Value, json};

use super::{
    harness::{Rig, Setup, backend_ref, mirror, rule},
    server::Server,
};

/// Where the lines go.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The lines of one connection's requests.
fn lines(setup: Setup, requests: &[&str]) -> Vec<Value> {
    logged(setup, |rig| {
        let mut client = rig.client();
        for request in requests {
            client.request(request);
        }
    })
}

/// The lines of whatever happens.
pub(crate) fn logged(mut setup: Setup, talk: impl FnOnce(&Rig)) -> Vec<Value> {
    let out = Shared::default();
    let (access, writer) = AccessLog::start(LineFormat::Json, out.clone()).expect("a thread");
    setup.access = access;
    let rig = setup.start();
    talk(&rig);
    drop(rig);
    writer.finish(Duration::from_secs(10)).expect("written");
    let bytes = out.0.lock().expect("no panic").clone();
    let text = String::from_utf8(bytes).expect("JSON is UTF-8");
    text.lines().map(|line| serde_json::from_str(line).expect("valid JSON")).collect()
}

fn only(path: &str, entry: RuleEntry) -> RuleEntry {
    let path = PathMatch::Exact(path.into());
    RuleEntry { matches: vec![Matcher { path, ..Matcher::default() }], ..entry }
}

#[test]
fn a_target_of_any_bytes_is_reported() {
    let primary = Server::ok();
    let requests = [
        "GET /caf\u{e9}?q=<5>&r=\" HTTP/1.1\r\nHost: front\r\n\r\n",
        "GET http://elsewhere/x<y HTTP/1.1\r\nHost: front\r\n\r\n",
        "GET http://front?x HTTP/1.1\r\nHost: other\r\n\r\n",
    ];
    let lines = lines(Setup::to(&primary), &requests);
    let shown: Vec<_> =
        lines.iter().map(|line| ["target", "host"].map(|field| line[field].clone())).collect();
    assert_eq!(
        shown,
        [
            [json!("/caf\u{e9}?q=<5>&r=\""), json!("front")],
            [json!("/x<y"), json!("elsewhere")],
            [json!("?x"), json!("front")],
        ]
    );
}

#[test]
fn a_line_says_what_was_requested_and_who_responded() {
    let (primary, shadow) = (Server::ok(), Server::ok());
    let filters = vec![mirror("shadow", shadow.address)];
    let rules = vec![only("/get", rule(filters, vec![backend_ref("primary", &[primary.address])]))];
    let requests = [
        "GET /get?a=1 HTTP/1.1\r\nHost: front:8000\r\n\r\n",
        "POST http://other/none HTTP/1.1\r\nHost: front\r\nContent-Length: 0\r\n\r\n",
        "GET /get HTTP/1.1\r\nHost: a/b\r\n\r\n",
    ];
    let lines = lines(Setup::rules(primary.address, rules), &requests);
    let [whole, no_match, malformed] = &lines[..] else { panic!("{lines:?}") };
    let expected = json!({
        "client": "default/client-1", "client_namespace": "default",
        "frontend": "default/front:80", "route": "default/route", "rule": 0,
        "backend": "default/primary:80", "endpoint": primary.address,
        "method": "GET", "target": "/get?a=1", "protocol": "HTTP/1.1", "host": "front:8000",
        "status": 200, "answer": "primary", "ending": "complete", "copies": 1, "reason": null,
    });
    for (field, value) in expected.as_object().expect("an object") {
        assert_eq!(&whole[field], value, "{field}");
    }
    let (first, total) = (whole["first_byte_ms"].as_f64(), whole["duration_ms"].as_f64());
    assert!(first.is_some_and(|first| first > 0.0) && first <= total, "{whole}");
    let shown = |line: &Value, fields: [&str; 5]| fields.map(|field| line[field].clone());
    let fields = ["target", "host", "status", "answer", "reason"];
    assert_eq!(
        shown(no_match, fields),
        [
            json!("/none"),
            json!("other"),
            json!(404),
            json!("no_match"),
            json!("mirror: no rule of the routes attached to this Service matches the request")
        ]
    );
    assert_eq!(
        shown(malformed, fields),
        [
            json!("/get"),
            json!("a/b"),
            json!(400),
            json!("bad_request"),
            json!("mirror: the Host field is not host[:port] (RFC 9110, section 7.2)")
        ]
    );
}

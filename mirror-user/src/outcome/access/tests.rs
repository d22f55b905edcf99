//! Tests of the access log: both formats, escaping, and a writer that never reads.

use std::sync::Mutex;

use proptest::prelude::*;

use super::*;
use crate::outcome::{Answer, Ending, recorder::tests::frontend};
use crate::route::{RouteName, ServicePort};

/// A writer whose content the test sees.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no test panics with the lock").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn line<'a>(method: &'a str, target: &str) -> Line<'a> {
    Line {
        time: humantime::format_rfc3339_millis(SystemTime::UNIX_EPOCH + Duration::from_millis(5)),
        client: "default/curl",
        client_namespace: "default",
        frontend: "default/httpbin:8000".into(),
        route: Some("default/httpbin".into()),
        rule: Some(0),
        backend: None,
        endpoint: Some(([10, 0, 0, 1], 80).into()),
        method,
        target: target.into(),
        protocol: Some("HTTP/1.1".into()),
        host: Some("httpbin:8000".into()),
        status: None,
        answer: "none",
        ending: "client_gone",
        first_byte_ms: None,
        duration_ms: 1.25,
        request_bytes: 7,
        response_bytes: 0,
        copies: 2,
        reason: None,
    }
}

#[test]
fn text_has_every_field_and_keeps_to_its_quotes() {
    let text = line("GET", "/a\"b\\c\r\n\u{1}").format(LineFormat::Text);
    assert_eq!(
        String::from_utf8(text).expect("text is UTF-8"),
        "1970-01-01T00:00:00.005Z default/curl default/httpbin:8000 default/httpbin#0 - \
         10.0.0.1:80 \"GET /a\\\"b\\\\c\\x0d\\x0a\\x01 HTTP/1.1\" \"httpbin:8000\" - none \
         client_gone - 1.250 7 0 2 -\n"
    );
}

proptest! {
    #[test]
    fn json_gives_back_any_target_on_one_line(target in any::<String>()) {
        let json = line("GET", &target).format(LineFormat::Json);
        prop_assert_eq!(json.iter().position(|byte| *byte == b'\n'), Some(json.len() - 1));
        let value: serde_json::Value = serde_json::from_slice(&json).expect("valid JSON");
        prop_assert_eq!(value["target"].as_str(), Some(target.as_str()));
        prop_assert_eq!(&value["status"], &serde_json::Value::Null);
        prop_assert_eq!(value["time"].as_str(), Some("1970-01-01T00:00:00.005Z"));
    }

    #[test]
    fn text_stays_on_one_line(target in any::<String>()) {
        let text = line("GET", &target).format(LineFormat::Text);
        prop_assert_eq!(text.iter().position(|byte| *byte == b'\n'), Some(text.len() - 1));
    }
}

fn write(log: &AccessLog, target: &str) {
    write_noted(log, target, &Notes::default());
}

fn write_noted(log: &AccessLog, target: &str, notes: &Notes) {
    let frontend = frontend("httpbin");
    let backend = Arc::new(ServicePort { namespace: "d".into(), name: "v1".into(), port: 80 });
    let route = RouteName { namespace: "d".into(), name: "r".into() };
    log.write(&RequestEvent {
        client: "d/curl",
        frontend: &frontend,
        rule: Some((&route, 3)),
        backend: Some(&backend),
        endpoint: Some(([10, 0, 0, 1], 80).into()),
        method: &http::Method::POST,
        target: &target.parse().expect("a valid target"),
        status: Some(200),
        answer: Answer::Primary,
        ending: Ending::Complete,
        duration: Duration::from_micros(1500),
        request_bytes: 1,
        response_bytes: 2,
        copies: 1,
        notes,
    });
}

fn head(uri: &str, host: &'static str) -> request::Parts {
    let mut head = http::Request::new(()).into_parts().0;
    head.uri = uri.parse().expect("a valid target");
    head.headers.insert(http::header::HOST, http::HeaderValue::from_static(host));
    head
}

/// One line of a request for which everything is known.
fn whole_line(format: LineFormat) -> String {
    let out = Shared::default();
    let (log, writer) = AccessLog::start(format, out.clone()).expect("a thread");
    let mut notes = log.notes(&head("/get?a=1", "httpbin:8000"));
    notes.answered(std::time::Instant::now());
    notes.reason("mirror: \"because\"");
    notes.0.as_mut().expect("the log is on").first_byte = Some(Duration::from_micros(750));
    write_noted(&log, "http://httpbin:8000/get?a=1", &notes);
    drop(log);
    writer.finish(Duration::from_secs(10)).expect("written");
    let bytes = out.0.lock().expect("no test panics with the lock").clone();
    String::from_utf8(bytes).expect("a line is UTF-8")
}

#[test]
fn a_whole_line_has_every_documented_field() {
    let text = whole_line(LineFormat::Text);
    let (time, fields) = text.split_once(' ').expect("fields");
    assert_eq!(time.len(), "2026-11-22T23:08:02.000Z".len());
    assert_eq!(
        fields,
        "d/curl default/httpbin:8000 d/r#3 d/v1:80 10.0.0.1:80 \"POST /get?a=1 HTTP/1.1\" \
         \"httpbin:8000\" 200 primary complete 0.750 1.500 1 2 1 \"mirror: \\\"because\\\"\"\n"
    );
    let json: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(&whole_line(LineFormat::Json)).expect("valid JSON");
    assert!(json.values().all(|value| !value.is_null()), "{json:?}");
    // The table in this module's documentation names exactly the fields that there are.
    let mut documented: Vec<_> = include_str!("../access.rs")
        .lines()
        .filter_map(|line| line.strip_prefix("//! | `")?.split(" | ").nth(1))
        .flat_map(|names| names.split(", "))
        .map(|name| name.trim_matches('`').to_owned())
        .collect();
    documented.sort();
    assert_eq!(json.keys().cloned().collect::<Vec<_>>(), documented);
    assert_eq!(json["client_namespace"], "d");
    assert_eq!(json["host"], "httpbin:8000");
    assert_eq!(json["first_byte_ms"], 0.75);
}

#[test]
fn nothing_is_noted_while_the_log_is_off() {
    let mut notes = AccessLog::off().notes(&head("/", "httpbin"));
    notes.answered(std::time::Instant::now());
    notes.reason("mirror: no");
    assert!(notes.0.is_none());
}

#[test]
fn the_targets_authority_outranks_host() {
    let noted = |uri| Notes::new(&head(uri, "field")).0.expect("the log is on").host;
    assert_eq!(noted("http://target:80/").expect("a host"), "target:80");
    assert_eq!(noted("/").expect("a host"), "field");
    let connect = "httpbin:443".parse().expect("an authority");
    assert_eq!(target(&connect), "httpbin:443");
}

#[test]
fn lines_arrive_in_order_and_the_thread_ends_with_its_handles() {
    let out = Shared::default();
    let (log, writer) = AccessLog::start(LineFormat::Json, out.clone()).expect("a thread");
    for number in 0..100 {
        write(&log, &format!("/{number}?q=1"));
    }
    assert_eq!(log.dropped(), 0);
    drop(log);
    writer.finish(Duration::from_secs(10)).expect("written");
    let bytes = out.0.lock().expect("no test panics with the lock").clone();
    let lines: Vec<serde_json::Value> = String::from_utf8(bytes)
        .expect("JSON is UTF-8")
        .lines()
        .map(|line| serde_json::from_str(line).expect("valid JSON"))
        .collect();
    assert_eq!(lines.len(), 100);
    assert_eq!(lines[42]["target"], "/42?q=1");
    assert_eq!(lines[42]["route"], "d/r");
    assert_eq!(lines[42]["rule"], 3);
    assert_eq!(lines[42]["backend"], "d/v1:80");
    assert_eq!(lines[42]["duration_ms"], 1.5);
}

#[test]
fn a_reader_that_never_reads_costs_lines_and_no_time() {
    // A pipe that is never read: the writing thread blocks after 64 KiB.
    let (_reader, pipe) = io::pipe().expect("a pipe");
    let (log, writer) = AccessLog::start(LineFormat::Text, pipe).expect("a thread");
    let lines = 3 * WAITING;
    let begun = std::time::Instant::now();
    for _ in 0..lines {
        write(&log, "/");
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert!(log.dropped() > 0);
    drop(log);
    let error = writer.finish(Duration::from_millis(50)).expect_err("it cannot be written");
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
}

#[test]
fn a_closed_output_is_told_and_counts_what_is_lost() {
    let (reader, pipe) = io::pipe().expect("a pipe");
    drop(reader);
    let (log, writer) = AccessLog::start(LineFormat::Text, pipe).expect("a thread");
    write(&log, "/");
    let error = writer.finish(Duration::from_secs(10)).expect_err("a closed pipe");
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    write(&log, "/");
    assert_eq!(log.dropped(), 1);
}

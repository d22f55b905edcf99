//! Tests of the access log: both formats, escaping, and a writer that never reads.

use std::sync::{Arc, Mutex};

use proptest::prelude::*;

use super::*;
use crate::outcome::{Ending, Mode, RefusalReason, ResponseSource, recorder::tests::frontend};
use crate::{
    model::{ObjectName, RouteKind},
    route::ServicePort,
};

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

fn line<'a>(method: &'a str, target: &'a (impl AsRef<[u8]> + ?Sized)) -> LogLine<'a> {
    LogLine {
        time: humantime::format_rfc3339_millis(SystemTime::UNIX_EPOCH + Duration::from_millis(5)),
        client: "default/curl",
        client_namespace: "default",
        frontend: "default/httpbin:8000".into(),
        route: Some("default/httpbin".into()),
        rule: Some(0),
        backend: None,
        endpoint: Some(([10, 0, 0, 1], 80).into()),
        method: method.into(),
        target: target.as_ref().into(),
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
        attempts: 3,
        mode: "proxy",
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
         client_gone - 1.250 7 0 2 3 proxy -\n"
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
    fn a_line_stays_one_and_is_utf_8(target in any::<Vec<u8>>()) {
        for format in [LineFormat::Text, LineFormat::Json] {
            let text = line("GET", &target).format(format);
            prop_assert_eq!(text.iter().position(|byte| *byte == b'\n'), Some(text.len() - 1));
            prop_assert!(String::from_utf8(text).is_ok());
        }
    }
}

fn write(log: &AccessLog, target: &str) {
    write_noted(log, target, &LogFields::default());
}

fn write_noted(log: &AccessLog, target: &str, log_fields: &LogFields) {
    let frontend = frontend("httpbin");
    let backend = Arc::new(ServicePort { namespace: "d".into(), name: "v1".into(), port: 80 });
    let route = RouteKind::Http.named(ObjectName { namespace: "d".into(), name: "r".into() });
    log.write(&RequestEvent {
        mode: Mode::Proxy,
        client: "d/curl",
        frontend: &frontend,
        rule: Some((&route, 3)),
        backend: Some(&backend),
        endpoint: Some(([10, 0, 0, 1], 80).into()),
        method: &http::Method::POST,
        target: &target.parse().expect("a valid target"),
        status: Some(200),
        source: ResponseSource::Primary,
        ending: Ending::Complete,
        duration: Duration::from_micros(1500),
        request_bytes: 1,
        response_bytes: 2,
        copies: 1,
        attempts: 1,
        refusal: None,
        log_fields,
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
    let mut log_fields = log.log_fields(&head("/get?a=1", "httpbin:8000"));
    log_fields.response_started(std::time::Instant::now());
    log_fields.reason("mirror: \"because\"");
    log_fields.0.as_mut().expect("the log is on").first_byte = Some(Duration::from_micros(750));
    write_noted(&log, "http://httpbin:8000/get?a=1", &log_fields);
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
         \"httpbin:8000\" 200 primary complete 0.750 1.500 1 2 1 1 proxy \"mirror: \\\"because\\\"\"\n"
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

/// A line of a head that was refused, or of a connection without a frontend.
fn refused_line(format: LineFormat, known: bool) -> String {
    let out = Shared::default();
    let (log, writer) = AccessLog::start(format, out.clone()).expect("a thread");
    let frontend = frontend("httpbin");
    log.write_refusal(&RefusalEvent {
        client: "d/curl",
        frontend: known.then_some(&frontend),
        refusal: RefusalReason::MalformedHead,
        status: known.then_some(400),
        first_line: if known { [Some("GET"), Some("/\"a"), None] } else { [None; 3] },
        reason: "mirror: why",
    });
    drop(log);
    writer.finish(Duration::from_secs(10)).expect("written");
    let bytes = out.0.lock().expect("no test panics with the lock").clone();
    String::from_utf8(bytes).expect("a line is UTF-8")
}

#[test]
fn a_refusal_has_the_fields_of_any_line() {
    let fields = |line: &str| line.split_once(' ').expect("fields").1.to_owned();
    assert_eq!(
        fields(&refused_line(LineFormat::Text, true)),
        "d/curl default/httpbin:8000 - - - \"GET /\\\"a -\" - 400 bad_request refused - - 0 0 0 0 proxy \
         \"mirror: why\"\n"
    );
    assert_eq!(
        fields(&refused_line(LineFormat::Text, false)),
        "d/curl - - - - \"- - -\" - - none refused - - 0 0 0 0 proxy \"mirror: why\"\n"
    );
    let json = |line: &str| {
        serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(line).expect("JSON")
    };
    let refused = json(&refused_line(LineFormat::Json, true));
    let usual = json(&whole_line(LineFormat::Json));
    assert_eq!(refused.keys().collect::<Vec<_>>(), usual.keys().collect::<Vec<_>>());
    assert_eq!((&refused["target"], &refused["status"]), (&"/\"a".into(), &400.into()));
    assert!(json(&refused_line(LineFormat::Json, false))["frontend"].is_null());
}

#[test]
fn a_target_that_no_uri_holds_is_reported() {
    let mut odd = head("/", "field");
    let target = bytes::Bytes::from_static(b"/caf\xe9?q=\"<5>\"");
    crate::route::target::set(&mut odd, &target, 0..target.len()).expect("a path");
    let noted = LogFields::new(&odd).0.expect("the log is on");
    assert_eq!(noted.host.expect("a host"), "field");
    let message = super::target(&odd.uri, noted.target.as_ref());
    let text = String::from_utf8(line("GET", &message).format(LineFormat::Text)).expect("UTF-8");
    assert!(text.contains(r#" "GET /caf\xe9?q=\"<5>\" HTTP/1.1" "#), "{text}");
}

/// The lines of requests with these targets and hosts.
fn lines_of(format: LineFormat, requests: &[(&str, &'static str)]) -> Vec<String> {
    let out = Shared::default();
    let (log, writer) = AccessLog::start(format, out.clone()).expect("a thread");
    for (target, host) in requests {
        write_noted(&log, target, &log.log_fields(&head(target, host)));
    }
    drop(log);
    writer.finish(Duration::from_secs(10)).expect("written");
    let bytes = out.0.lock().expect("no test panics with the lock").clone();
    String::from_utf8(bytes).expect("UTF-8").lines().map(str::to_owned).collect()
}

#[test]
fn a_line_is_short_whatever_the_client_sends() {
    // Each of these becomes four bytes in text, six in JSON.
    let target = format!("/{}", "\"".repeat(60_000));
    for format in [LineFormat::Text, LineFormat::Json] {
        let uri = format!("/{}", "a".repeat(60_000));
        let cut = &lines_of(format, &[(&uri, "h")])[0];
        assert!(cut.contains("...(55905 bytes more)") && cut.len() < 5000, "{}", cut.len());
        let frontend = frontend("httpbin");
        let out = Shared::default();
        let (log, writer) = AccessLog::start(format, out.clone()).expect("a thread");
        log.write_refusal(&RefusalEvent {
            client: "d/curl",
            frontend: Some(&frontend),
            refusal: RefusalReason::MalformedHead,
            status: Some(400),
            first_line: [Some(&target), Some(&target), Some(&target)],
            reason: &target,
        });
        drop(log);
        writer.finish(Duration::from_secs(10)).expect("written");
        let length = out.0.lock().expect("no test panics with the lock").len();
        assert!(length < 32 << 10, "{length}");
    }
}

#[test]
fn a_users_name_and_password_are_never_in_a_line() {
    let requests = [
        ("http://user:secret@h/a", "h"),
        ("http://user:secret@h:80/a?b", "h"),
        ("user:secret@h:443", "h"),
        ("/", "user:secret@h"),
    ];
    for format in [LineFormat::Text, LineFormat::Json] {
        let lines = lines_of(format, &requests);
        assert_eq!(lines.len(), requests.len());
        assert!(!lines.iter().any(|line| line.contains("secret")), "{lines:?}");
    }
}

#[test]
fn nothing_in_a_line_is_a_terminals_to_obey() {
    let odd = "/\u{9b}2J\u{202e}\u{1b}";
    let text = String::from_utf8(line("GET", odd).format(LineFormat::Text)).expect("UTF-8");
    assert!(text.contains("GET /\\x9b2J\\u{202e}\\x1b HTTP"), "{text}");
    let json = String::from_utf8(line("GET", odd).format(LineFormat::Json)).expect("UTF-8");
    assert!(json.contains("/\\u009b2J\\u202e\\u001b\""), "{json}");
}

#[test]
fn nothing_is_noted_while_the_log_is_off() {
    let mut log_fields = AccessLog::off().log_fields(&head("/", "httpbin"));
    log_fields.response_started(std::time::Instant::now());
    log_fields.reason("mirror: no");
    assert!(log_fields.0.is_none());
}

#[test]
fn the_targets_authority_outranks_host() {
    let noted = |uri| LogFields::new(&head(uri, "field")).0.expect("the log is on").host;
    assert_eq!(noted("http://target:80/").expect("a host"), "target:80");
    assert_eq!(noted("/").expect("a host"), "field");
    let connect = "httpbin:443".parse().expect("an authority");
    assert_eq!(*target(&connect, None), *b"httpbin:443");
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
    let lines = 3 * queue::LINES;
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
fn a_closed_output_is_reported_and_counts_what_is_lost() {
    let (reader, pipe) = io::pipe().expect("a pipe");
    drop(reader);
    let (log, writer) = AccessLog::start(LineFormat::Text, pipe).expect("a thread");
    write(&log, "/");
    let error = writer.finish(Duration::from_secs(10)).expect_err("a closed pipe");
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    write(&log, "/");
    assert_eq!(log.dropped(), 1);
}

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
        frontend: "default/httpbin:8000".into(),
        route: Some("default/httpbin".into()),
        rule: Some(0),
        backend: None,
        endpoint: Some(([10, 0, 0, 1], 80).into()),
        method,
        target: target.into(),
        status: None,
        answer: "none",
        ending: "client_gone",
        duration_ms: 1.25,
        request_bytes: 7,
        response_bytes: 0,
        copies: 2,
    }
}

#[test]
fn text_has_every_field_and_keeps_to_its_quotes() {
    let text = line("GET", "/a\"b\\c\r\n\u{1}").format(LineFormat::Text);
    assert_eq!(
        String::from_utf8(text).expect("text is UTF-8"),
        "1970-01-01T00:00:00.005Z default/curl default/httpbin:8000 default/httpbin#0 - \
         10.0.0.1:80 \"GET /a\\\"b\\\\c\\x0d\\x0a\\x01\" - none client_gone 1.250 7 0 2\n"
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
    let frontend = frontend("httpbin");
    let backend = Arc::new(ServicePort { namespace: "d".into(), name: "v1".into(), port: 80 });
    let route = RouteName { namespace: "d".into(), name: "r".into() };
    log.write(&RequestEvent {
        client: "d/curl",
        frontend: &frontend,
        rule: Some((&route, 3)),
        backend: Some(&backend),
        endpoint: None,
        method: &http::Method::POST,
        target: &target.parse().expect("a valid target"),
        status: Some(200),
        answer: Answer::Primary,
        ending: Ending::Complete,
        duration: Duration::from_micros(1500),
        request_bytes: 1,
        response_bytes: 2,
        copies: 1,
    });
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

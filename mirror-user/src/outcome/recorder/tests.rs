//! Tests of the recorder: what is counted where, identity of copies, and the bounds.

use std::collections::HashMap as Map;

use proptest::prelude::*;

use super::*;
use crate::outcome::{DropReason, Ending, RefusalReason, Reports, ResponseSource, UnknownReason};
use crate::route::{Frontend, FrontendCapture, FrontendId};

pub(in crate::outcome) fn frontend(name: &str) -> Frontend {
    Frontend {
        ahead: false,
        capture: FrontendCapture::default(),
        id: FrontendId(7),
        address: ([10, 96, 0, 1], 8000).into(),
        service: service(name),
        producer: None,
        consumers: Map::new(),
        connection_ref: Arc::new(()),
    }
}

fn service(name: &str) -> Arc<ServicePort> {
    Arc::new(ServicePort { namespace: "default".into(), name: name.into(), port: 8000 })
}

pub(in crate::outcome) fn request(
    recorder: &Recorder,
    frontend: &Frontend,
    backend: Option<&Arc<ServicePort>>,
    status: Option<u16>,
) {
    recorder.request(&RequestEvent {
        mode: Mode::Proxy,
        client: "default/curl",
        frontend,
        rule: None,
        backend,
        endpoint: None,
        method: &http::Method::GET,
        target: &http::Uri::from_static("/"),
        status,
        source: if status.is_some() { ResponseSource::Primary } else { ResponseSource::None },
        ending: if status.is_some() { Ending::Complete } else { Ending::PrimaryFailed },
        duration: Duration::from_millis(4),
        request_bytes: 10,
        response_bytes: 100,
        copies: 0,
        attempts: 1,
        refusal: (status == Some(404)).then_some(RefusalReason::NoMatch),
        log_fields: &LogFields::default(),
    });
}

#[test]
fn refusals_count_by_reason_and_as_requests_where_they_got_a_response() {
    let recorder = Recorder::new(AccessLog::off());
    let httpbin = frontend("httpbin");
    request(&recorder, &httpbin, None, Some(404));
    request(&recorder, &httpbin, None, Some(200));
    for (refusal, frontend, status) in [
        (RefusalReason::HeadTooLarge, Some(&httpbin), Some(431)),
        (RefusalReason::HeadTimeout, Some(&httpbin), None),
        (RefusalReason::UnknownId, None, None),
    ] {
        let (client, first_line, reason) = ("default/curl", [None; 3], "mirror: why");
        recorder.refused(&RefusalEvent { client, frontend, refusal, status, first_line, reason });
    }
    let mut report = Report::default();
    for _ in 0..2 {
        report.absorb(&recorder.report());
    }
    for refusal in RefusalReason::ALL {
        let counted = matches!(
            refusal,
            RefusalReason::NoMatch
                | RefusalReason::HeadTooLarge
                | RefusalReason::HeadTimeout
                | RefusalReason::UnknownId
        );
        assert_eq!(report.refused[refusal as usize], if counted { 2 } else { 0 }, "{refusal:?}");
    }
    let requests =
        report.exchanges.values().map(|e| e.requests[4][ResponseSource::BadRequest as usize]);
    assert_eq!(requests.map(|by_ending| by_ending.iter().sum::<u64>()).sum::<u64>(), 2);
}

#[test]
fn uncopied_requests_count_by_reason() {
    let recorder = Recorder::new(AccessLog::off());
    recorder.uncopied(Uncopied::Connect);
    recorder.uncopied(Uncopied::Connect);
    recorder.uncopied(Uncopied::WebSocket);
    let mut report = recorder.report();
    report.absorb(&recorder.report());
    assert_eq!(report.uncopied, [2, 4, 0, 0, 0]);
}

#[test]
fn requests_count_by_frontend_and_backend_whichever_allocation_names_them() {
    let recorder = Recorder::new(AccessLog::off());
    for _publication in 0..3 {
        let (httpbin, backend) = (frontend("httpbin"), service("v1"));
        request(&recorder, &httpbin, Some(&backend), Some(200));
        request(&recorder, &httpbin, Some(&backend), None);
        request(&recorder, &httpbin, None, Some(404));
    }
    let report = recorder.report();
    assert_eq!(report.exchanges.len(), 2);
    let v1 = &report.exchanges[&(service("httpbin"), Some(service("v1")))];
    assert_eq!(v1.requests[2][ResponseSource::Primary as usize][Ending::Complete as usize], 3);
    assert_eq!(v1.requests[0][ResponseSource::None as usize][Ending::PrimaryFailed as usize], 3);
    assert_eq!((v1.sent, v1.received), (60, 600));
    assert_eq!(v1.durations[2].count(), 3);
    let nobody = &report.exchanges[&(service("httpbin"), None)];
    assert_eq!(nobody.requests[4][ResponseSource::Primary as usize][Ending::Complete as usize], 3);
}

#[test]
fn connections_open_and_close_by_kind() {
    let recorder = Recorder::new(AccessLog::off());
    recorder.connection(ConnectionKind::Http1);
    recorder.connection(ConnectionKind::Http1);
    recorder.connection_closed(ConnectionKind::Http1);
    recorder.retry(RetryReason::Unsent);
    recorder.passed(3, 4);
    let report = recorder.report();
    assert_eq!(report.connections[ConnectionKind::Http1 as usize], 2);
    assert_eq!(report.open[ConnectionKind::Http1 as usize], 1);
    assert_eq!(report.retries[RetryReason::Unsent as usize], 1);
    assert_eq!(report.passed, [3, 4]);
}

#[test]
fn what_exceeds_the_bound_is_counted_as_other() {
    let recorder = Recorder::new(AccessLog::off());
    let shadows: Vec<_> = (0..MAX_SERIES + 10).map(|n| service(&format!("s{n}"))).collect();
    for shadow in &shadows {
        recorder.copy_selected(shadow);
        recorder.copy_selected(shadow);
    }
    let report = recorder.report();
    assert_eq!(report.copies.len(), MAX_SERIES + 1);
    assert_eq!(report.copies[&other()].selected, 20);
    assert_eq!(report.copies[&shadows[3]].selected, 2);
    let object = |n| ObjectName { namespace: "d".into(), name: format!("r{n}") };
    let route = |n: usize| RouteKind::Http.named(object(n));
    for n in 0..MAX_SERIES + 10 {
        recorder.route_retry(&route(n), RouteRetryReason::Connect);
        recorder.route_retry(&route(n), RouteRetryReason::Code);
    }
    let retries = recorder.report().route_retries;
    assert_eq!(retries.len(), MAX_SERIES + 1);
    let mut other = [0; RouteRetryReason::ALL.len()];
    (other[RouteRetryReason::Code as usize], other[RouteRetryReason::Connect as usize]) = (10, 10);
    assert_eq!(retries[&other_route()], other);
}

#[test]
fn publications_without_end_do_not_grow_the_recorder() {
    let recorder = Recorder::new(AccessLog::off());
    let all: Vec<_> = (0..MAX_ADDRESSES + 5).map(|_| service("one")).collect();
    for shadow in &all {
        recorder.copy_selected(shadow);
    }
    let state = recorder.state.borrow();
    assert!(state.copies.by_address.len() <= MAX_ADDRESSES);
    assert_eq!(state.copies.slots.len(), 1);
    assert_eq!(state.copies.slots[0].1.selected, all.len() as u64);
}

#[test]
fn a_silent_worker_keeps_its_counts() {
    let (one, two) = (Recorder::new(AccessLog::off()), Recorder::new(AccessLog::off()));
    let mut reports = Reports::new(2);
    one.copy_selected(&service("s"));
    two.copy_selected(&service("s"));
    two.shadow_connections(&service("s"), 7);
    reports.update(0, one.report());
    reports.update(1, two.report());
    one.copy_selected(&service("s"));
    reports.update(0, one.report());
    let merged = reports.merged();
    assert_eq!(merged.copies[&service("s")].selected, 3);
    assert_eq!(merged.copies[&service("s")].connections, 7);
}

fn outcome() -> impl Strategy<Value = Option<CopyOutcome>> {
    prop_oneof![
        Just(None),
        Just(Some(CopyOutcome::Delivered)),
        proptest::sample::select(&DropReason::ALL[..]).prop_map(|r| Some(CopyOutcome::Dropped(r))),
        proptest::sample::select(&UnknownReason::ALL[..])
            .prop_map(|r| Some(CopyOutcome::Unknown(r))),
    ]
}

proptest! {
    #[test]
    fn selected_is_delivered_dropped_unknown_and_in_flight(
        copies in proptest::collection::vec((0..3_usize, 0..2_usize, outcome()), 0..200)
    ) {
        let workers = [Recorder::new(AccessLog::off()), Recorder::new(AccessLog::off())];
        let shadows = [service("a"), service("b"), service("c")];
        for (shadow, worker, ended) in &copies {
            workers[*worker].copy_selected(&shadows[*shadow]);
            if let Some(outcome) = ended {
                workers[*worker].copy(&shadows[*shadow], *outcome, 1, Duration::from_millis(1));
            }
        }
        let mut reports = Reports::new(2);
        for (number, worker) in workers.iter().enumerate() {
            reports.update(number, worker.report());
        }
        let merged = reports.merged();
        for (number, shadow) in shadows.iter().enumerate() {
            let mine = copies.iter().filter(|(at, ..)| *at == number);
            let open = mine.clone().filter(|(.., ended)| ended.is_none()).count() as u64;
            let counted = merged.copies.get(shadow).cloned().unwrap_or_default();
            prop_assert_eq!(counted.selected, mine.count() as u64);
            prop_assert_eq!(counted.in_flight(), open);
            prop_assert_eq!(counted.selected, counted.ended.iter().sum::<u64>() + open);
            prop_assert_eq!(counted.durations.count(), counted.ended.iter().sum::<u64>());
        }
    }
}

pub(in crate::outcome) fn tapped(recorder: &Recorder, frontend: &Frontend) {
    recorder.request(&RequestEvent {
        mode: Mode::Tap,
        client: "default/curl",
        frontend,
        rule: None,
        backend: Some(&service("httpbin")),
        endpoint: None,
        method: &http::Method::GET,
        target: &http::Uri::from_static("/"),
        status: None,
        source: ResponseSource::None,
        ending: Ending::Complete,
        duration: Duration::ZERO,
        request_bytes: 7,
        response_bytes: 0,
        copies: 1,
        attempts: 0,
        refusal: None,
        log_fields: &LogFields::default(),
    });
}

#[test]
fn requests_of_tapped_connections_count_apart() {
    let recorder = Recorder::new(AccessLog::off());
    tapped(&recorder, &frontend("httpbin"));
    recorder.tap_ended(TapEnd::Lost);
    let mut reports = Reports::new(1);
    reports.update(0, recorder.report());
    let report = reports.merged();
    let counts = report.exchanges.values().next().unwrap();
    assert_eq!((counts.tapped, counts.sent), (1, 0));
    assert!(counts.requests.as_flattened().as_flattened().iter().all(|count| *count == 0));
    assert_eq!(report.tap_ends[TapEnd::Lost as usize], 1);
}

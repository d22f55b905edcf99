//! Tests of the metrics text: what a scrape of a known report says.

use std::{collections::HashSet, sync::Arc};

use super::*;
use crate::{
    metric_reference::assert_documented,
    model::{ObjectName, RouteKind},
    outcome::TimedResponse,
    outcome::{
        AccessLog, DropReason, Recorder, RefusalEvent, UnknownReason,
        recorder::tests::{frontend, request, tapped},
    },
    route::ServicePort,
};

/// Responses of a shadow, and of the primary to the same requests.
fn respond(recorder: &Recorder, shadow: &Arc<ServicePort>) {
    let object = ObjectName { namespace: "default".into(), name: "httpbin".into() };
    let route = Arc::new(RouteKind::Http.named(object));
    let response = |status, grpc, ms| TimedResponse {
        status: Some(status),
        grpc,
        after: Duration::from_millis(ms),
    };
    for (primary, response_of_shadow) in [
        (response(200, None, 3), response(200, None, 4)),
        (response(200, None, 3), response(503, None, 400)),
        (response(200, Some(0), 3), response(200, Some(13), 4)),
    ] {
        recorder.shadow_response(shadow, &response_of_shadow);
        recorder.pair(&route, shadow, &primary, &response_of_shadow);
    }
}

/// Copies of each outcome, and one that has none yet.
fn copy(recorder: &Recorder, shadow: &Arc<ServicePort>) {
    for outcome in [
        Some(CopyOutcome::Delivered),
        Some(CopyOutcome::Dropped(DropReason::Connect)),
        Some(CopyOutcome::Unknown(UnknownReason::Timeout)),
        None,
    ] {
        recorder.copy_selected(shadow);
        if let Some(outcome) = outcome {
            recorder.copy(shadow, outcome, 5, Duration::from_millis(20));
        }
    }
}

fn scrape() -> String {
    let recorder = Recorder::new(AccessLog::off());
    let [v1, v2] = ["v1", "v2"].map(|name| {
        Arc::new(ServicePort { namespace: "default".into(), name: name.into(), port: 80 })
    });
    let httpbin = frontend("httpbin");
    recorder.connection(ConnectionKind::Http1);
    for (backend, status) in [(Some(&v1), 200), (Some(&v1), 200), (None, 404)] {
        request(&recorder, &httpbin, backend, Some(status));
    }
    recorder.refused(&RefusalEvent {
        client: "default/curl",
        frontend: Some(&httpbin),
        refusal: RefusalReason::TargetTooLong,
        status: Some(414),
        first_line: [None; 3],
        reason: "mirror: too long",
    });
    record_reasons(&recorder);
    recorder.shadow_closed(&v2, ShadowClosed::Flood, 1);
    respond(&recorder, &v2);
    recorder.tap_ended(TapEnd::Http2);
    tapped(&recorder, &httpbin);
    copy(&recorder, &v2);
    let agent_metrics = AgentMetrics {
        usage: vec![crate::memory::UsageSnapshot {
            workload: "d/curl".into(),
            bytes: 4096,
            connections: 2,
            full: true,
        }],
        capture_connects: vec![("captured", 12), ("not_a_frontend", 3)],
        workloads: vec![("captured", 1)],
        workloads_ipv6: vec![("off", 1)],
        predating: vec![("shop/cart".into(), "default/v1:80".into(), 7)],
        generation: 9,
        watches: vec![
            WatchMetrics { kind: "Service", age: Some(Duration::ZERO), lists: 1, failures: 0 },
            WatchMetrics {
                kind: "HTTPRoute",
                age: Some(Duration::from_millis(1500)),
                lists: 2,
                failures: 7,
            },
            WatchMetrics { kind: "Pod", age: None, lists: 0, failures: 1 },
        ],
        shadow_held: vec![("default/v2:80".into(), 4096)],
        frontends_refused: vec![("cluster_ip", 3)],
        shadow_endpoints_refused: vec![("not_a_pod", 2)],
        tap: TapCount::ALL.into_iter().map(|count| (count, 5)).collect(),
        access_log_dropped: 1,
        log_dropped: 2,
        log_suppressed: 3,
    };
    let heartbeats = vec![Duration::from_millis(100), Duration::from_millis(2500)];
    encode(recorder.report(), agent_metrics, heartbeats).expect("writing to a string does not fail")
}

fn record_reasons(recorder: &Recorder) {
    recorder.uncopied(Uncopied::WebSocket);
    let object = ObjectName { namespace: "default".into(), name: "httpbin".into() };
    let route = RouteKind::Http.named(object);
    for reason in [RouteRetryReason::Code, RouteRetryReason::Code, RouteRetryReason::Lost] {
        recorder.route_retry(&route, reason);
    }
}

#[test]
fn a_scrape_says_what_was_tapped() {
    let text = scrape();
    for expected in [
        "mirror_tapped_requests_total{frontend=\"default/httpbin:8000\"} 1",
        "mirror_tapped_connections_total 5",
        "mirror_tap_segments_total{outcome=\"lost\"} 5",
        "mirror_tap_bytes_total{outcome=\"copied\"} 5",
        // Of the programs, and of a worker.
        "mirror_tap_stopped_total{reason=\"http2\"} 6",
    ] {
        assert!(text.lines().any(|line| line == expected), "{expected}\n{text}");
    }
}

#[test]
fn a_scrape_says_what_was_counted() {
    let text = scrape();
    let lines: HashSet<_> = text.lines().collect();
    for expected in [
        "mirror_predating_connections{workload=\"shop/cart\",service=\"default/v1:80\"} 7",
        "mirror_requests_total{frontend=\"default/httpbin:8000\",backend=\"default/v1:80\",\
         code=\"2xx\",answer=\"primary\",ending=\"complete\"} 2",
        "mirror_requests_total{frontend=\"default/httpbin:8000\",backend=\"\",\
         code=\"4xx\",answer=\"primary\",ending=\"complete\"} 1",
        "mirror_request_duration_seconds_bucket{le=\"0.005\",frontend=\"default/httpbin:8000\",\
         backend=\"default/v1:80\",code=\"2xx\"} 2",
        "mirror_request_duration_seconds_bucket{le=\"+Inf\",frontend=\"default/httpbin:8000\",\
         backend=\"default/v1:80\",code=\"2xx\"} 2",
        "# UNIT mirror_bytes bytes",
        "mirror_bytes_total{leg=\"primary\",direction=\"received\",\
         frontend=\"default/httpbin:8000\",backend=\"default/v1:80\"} 200",
        "mirror_bytes_total{leg=\"shadow\",direction=\"sent\",frontend=\"\",\
         backend=\"default/v2:80\"} 15",
        "mirror_copies_selected_total{shadow=\"default/v2:80\"} 4",
        "mirror_copies_total{shadow=\"default/v2:80\",outcome=\"delivered\",reason=\"\"} 1",
        "mirror_copies_total{shadow=\"default/v2:80\",outcome=\"dropped\",reason=\"connect\"} 1",
        "mirror_copies_total{shadow=\"default/v2:80\",outcome=\"unknown\",reason=\"timeout\"} 1",
        "mirror_route_retries_total{route=\"default/httpbin\",reason=\"code\"} 2",
        "mirror_route_retries_total{route=\"default/httpbin\",reason=\"lost\"} 1",
        "mirror_refused_total{reason=\"target_too_long\"} 1",
        "mirror_refused_total{reason=\"unknown_id\"} 0",
        "mirror_requests_total{frontend=\"default/httpbin:8000\",backend=\"\",\
         code=\"4xx\",answer=\"bad_request\",ending=\"complete\"} 1",
        "mirror_uncopied_requests_total{reason=\"websocket\"} 1",
        "mirror_uncopied_requests_total{reason=\"connect\"} 0",
        "mirror_copies_in_flight{shadow=\"default/v2:80\"} 1",
        "mirror_copy_duration_seconds_count{shadow=\"default/v2:80\"} 3",
        "mirror_shadow_held_bytes{shadow=\"default/v2:80\"} 4096",
        "mirror_workload_held_bytes{workload=\"d/curl\"} 4096",
        "mirror_workload_connections{workload=\"d/curl\"} 2",
        "mirror_workload_full{workload=\"d/curl\"} 1",
        "mirror_connections_total{kind=\"http1\"} 1",
        "mirror_open_connections{kind=\"http1\"} 1",
        "mirror_capture_connects_total{reason=\"captured\"} 12",
        "mirror_workloads{state=\"captured\"} 1",
        "mirror_workloads_ipv6{state=\"off\"} 1",
        "mirror_snapshot_generation 9",
        "mirror_snapshot_age_seconds 1.5",
        "mirror_watch_age_seconds{kind=\"Service\"} 0.0",
        "mirror_watch_age_seconds{kind=\"HTTPRoute\"} 1.5",
        "mirror_watch_lists_total{kind=\"HTTPRoute\"} 2",
        "mirror_watch_failures_total{kind=\"Pod\"} 1",
        "mirror_worker_heartbeat_age_seconds{worker=\"1\"} 2.5",
        "mirror_frontends_refused{reason=\"cluster_ip\"} 3",
        "mirror_shadow_endpoints_refused{reason=\"not_a_pod\"} 2",
        "mirror_access_log_dropped_total 1",
        "mirror_log_dropped_total 2",
        "mirror_log_suppressed_total 3",
        "# EOF",
    ] {
        assert!(lines.contains(expected), "{expected}\nis not in\n{text}");
    }
}

#[test]
fn responses_of_shadows_are_counted_beside_those_of_primaries() {
    let text = scrape();
    let lines: HashSet<_> = text.lines().collect();
    for expected in [
        "mirror_shadow_responses_total{shadow=\"default/v2:80\",code=\"2xx\"} 1",
        "mirror_shadow_responses_total{shadow=\"default/v2:80\",code=\"5xx\"} 1",
        "mirror_shadow_responses_total{shadow=\"default/v2:80\",code=\"grpc_error\"} 1",
        "mirror_shadow_grpc_responses_total{shadow=\"default/v2:80\",grpc_status=\"13\"} 1",
        "mirror_shadow_response_duration_seconds_bucket{le=\"0.005\",shadow=\"default/v2:80\"} 2",
        "mirror_mirrored_responses_total{route=\"default/httpbin\",shadow=\"default/v2:80\",\
         primary_code=\"2xx\",shadow_code=\"5xx\"} 1",
        "mirror_mirrored_responses_total{route=\"default/httpbin\",shadow=\"default/v2:80\",\
         primary_code=\"grpc_ok\",shadow_code=\"grpc_error\"} 1",
        "mirror_mirrored_response_duration_seconds_bucket{le=\"0.005\",route=\"default/httpbin\",\
         shadow=\"default/v2:80\",leg=\"primary\"} 3",
    ] {
        assert!(lines.contains(expected), "{expected}\nis not in\n{text}");
    }
}

#[test]
fn every_family_has_help_type_and_one_name() {
    let text = scrape();
    let mut families = HashSet::new();
    let mut current = "";
    for line in text.lines().filter(|line| *line != "# EOF") {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            current = rest.split(' ').next().expect("a name");
            assert!(current.starts_with("mirror_"), "{line}");
            assert!(families.insert(current), "{current} is described twice");
        } else {
            let name = line.trim_start_matches("# TYPE ").trim_start_matches("# UNIT ");
            assert!(name.starts_with(current), "{line} is not of {current}");
        }
    }
    assert_eq!(families.len(), 46);
}

#[test]
fn the_reference_lists_exactly_the_agents_metrics() {
    assert_documented("### Metrics of the agent", &scrape());
}

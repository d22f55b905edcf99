//! Responses. In: a request's method and path. Out: a whole response.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};

use serde::Serialize;

use super::{AdminView, Workers};
use crate::{
    dump::StatusDump,
    outcome::{CONTENT_TYPE, encode},
    plain,
};

/// A worker whose heartbeat is older is not healthy: the hook passes it over from then on.
const STALE: Duration = Duration::from_secs(1);

const TEXT: &str = "text/plain; charset=utf-8";

pub(super) async fn respond<B>(
    request: &Request<B>,
    view: &impl AdminView,
    workers: &Workers,
) -> Response<Bytes> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refused = response(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET\n");
        refused.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    match request.uri().path() {
        "/healthz" => state(healthy(&view.heartbeats())),
        "/readyz" => state(view.ready()),
        "/metrics" => metrics(view, workers).await,
        "/config" => json(&view.config()),
        "/status" => status(view, workers).await,
        _ => response(
            StatusCode::NOT_FOUND,
            TEXT,
            "not found; the paths are /healthz, /readyz, /metrics, /config and /status\n",
        ),
    }
}

/// To a request for another server (RFC 9110, section 15.5.20).
pub(super) fn misdirected() -> Response<Bytes> {
    let why = "the Host is not accepted: use the server's IP address, localhost, or a name that \
               --admin-host allows\n";
    response(StatusCode::MISDIRECTED_REQUEST, TEXT, why)
}

/// Whether every worker's heartbeat is fresh; names those whose is not.
fn healthy(heartbeats: &[Duration]) -> Result<(), String> {
    if heartbeats.is_empty() {
        return Err("no worker is running".into());
    }
    let stale: Vec<_> = heartbeats
        .iter()
        .enumerate()
        .filter(|(_, age)| **age > STALE)
        .map(|(worker, age)| format!("worker {worker}: last heartbeat {} ms ago", age.as_millis()))
        .collect();
    if stale.is_empty() { Ok(()) } else { Err(stale.join("\n")) }
}

/// 200 or 503, and why.
pub(crate) fn state(state: Result<(), String>) -> Response<Bytes> {
    match state {
        Ok(()) => response(StatusCode::OK, TEXT, "ok\n"),
        Err(why) => response(StatusCode::SERVICE_UNAVAILABLE, TEXT, plain::page(&why) + "\n"),
    }
}

async fn metrics(view: &impl AdminView, workers: &Workers) -> Response<Bytes> {
    let report = workers.report().await;
    match encode(report, view.agent_metrics(), view.heartbeats()) {
        Ok(text) => response(StatusCode::OK, CONTENT_TYPE, text),
        Err(error) => failed(&format!("cannot encode the metrics: {error}")),
    }
}

async fn status(view: &impl AdminView, workers: &Workers) -> Response<Bytes> {
    let report = workers.report().await;
    let tap = view.agent_metrics().tap;
    json(&StatusDump::new(view.ready(), view.config(), &report, &tap, workers.run()))
}

fn json(value: &impl Serialize) -> Response<Bytes> {
    match serde_json::to_string_pretty(value) {
        Ok(json) => response(StatusCode::OK, "application/json", plain::json(json + "\n")),
        Err(error) => failed(&format!("cannot encode the response: {error}")),
    }
}

fn failed(why: &str) -> Response<Bytes> {
    response(StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("{why}\n"))
}

/// A response with a body of a media type.
pub(crate) fn response(
    status: StatusCode,
    kind: &'static str,
    body: impl Into<Bytes>,
) -> Response<Bytes> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let kind = header::HeaderValue::from_static(kind);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

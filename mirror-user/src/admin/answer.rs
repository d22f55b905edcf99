//! Answers: a request's method and path go in, a whole response comes out.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};

use serde::Serialize;

use super::{View, Workers, status::Status};
use crate::outcome::{CONTENT_TYPE, encode};

/// A worker whose heartbeat is older is not healthy: the hook passes it over from then on.
const STALE: Duration = Duration::from_secs(1);

const TEXT: &str = "text/plain; charset=utf-8";

pub(super) async fn answer<B>(
    request: &Request<B>,
    view: &impl View,
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
            "there are /healthz, /readyz, /metrics, /config and /status\n",
        ),
    }
}

/// Whether every worker's heartbeat is fresh; names those whose is not.
fn healthy(heartbeats: &[Duration]) -> Result<(), String> {
    if heartbeats.is_empty() {
        return Err("no worker runs".into());
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
        Err(why) => response(StatusCode::SERVICE_UNAVAILABLE, TEXT, why + "\n"),
    }
}

async fn metrics(view: &impl View, workers: &Workers) -> Response<Bytes> {
    let report = workers.report().await;
    match encode(report, view.facts(), view.heartbeats()) {
        Ok(text) => response(StatusCode::OK, CONTENT_TYPE, text),
        Err(error) => failed(&format!("the metrics cannot be written: {error}")),
    }
}

async fn status(view: &impl View, workers: &Workers) -> Response<Bytes> {
    let report = workers.report().await;
    json(&Status::new(view.ready(), view.config(), &report))
}

fn json(value: &impl Serialize) -> Response<Bytes> {
    match serde_json::to_vec_pretty(value) {
        Ok(mut json) => {
            json.push(b'\n');
            response(StatusCode::OK, "application/json", json)
        }
        Err(error) => failed(&format!("the answer cannot be written: {error}")),
    }
}

fn failed(why: &str) -> Response<Bytes> {
    response(StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("{why}\n"))
}

/// An answer with a body of a media type.
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

//! Answers of our own, where there is no primary to ask: each says in `x-mirror-reason` who
//! answered and why; the log tells a few of them, the metrics all.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};

use super::{exchange::Record, framing::Malformed, primary::AnswerBody};
use crate::outcome::Answer;

const REASON: HeaderName = HeaderName::from_static("x-mirror-reason");

/// The request is not a message that could be sent on.
pub(super) fn bad_request(record: Record, why: &Malformed) -> Response<AnswerBody> {
    let mut response =
        answer(record, Answer::BadRequest, StatusCode::BAD_REQUEST, &why.to_string());
    // What follows on this connection cannot be told from the rest of this message.
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// No rule matches (Gateway API, HTTPRouteRule).
pub(super) fn no_match(record: Record) -> Response<AnswerBody> {
    let why = "no rule of the routes attached to this Service matches the request";
    answer(record, Answer::NoMatch, StatusCode::NOT_FOUND, why)
}

/// The chosen backend is invalid (Gateway API, HTTPRouteRule.backendRefs).
pub(super) fn invalid_backend(record: Record, why: &str) -> Response<AnswerBody> {
    answer(record, Answer::InvalidBackend, StatusCode::INTERNAL_SERVER_ERROR, why)
}

/// The chosen backend has no ready endpoint.
pub(super) fn no_endpoint(record: Record) -> Response<AnswerBody> {
    let service = record.backend.as_ref().map(|b| b.service.to_string()).unwrap_or_default();
    let why = format!("Service {service} has no ready endpoint");
    answer(record, Answer::NoEndpoint, StatusCode::SERVICE_UNAVAILABLE, &why)
}

/// The rule's timeout passed (Gateway API, HTTPRouteTimeouts).
pub(super) fn timed_out(record: Record) -> Response<AnswerBody> {
    let why = "the primary did not answer within the route's timeout";
    answer(record, Answer::Timeout, StatusCode::GATEWAY_TIMEOUT, why)
}

fn answer(mut record: Record, by: Answer, status: StatusCode, why: &str) -> Response<AnswerBody> {
    if record.may_tell() {
        tracing::warn!(
            client = %record.client.workload.name,
            frontend = %record.client.frontend.service,
            status = status.as_u16(),
            why,
            "answered by mirror"
        );
    }
    record.answered(by, status);
    let reason = format!("mirror: {why}");
    record.reason(&reason);
    let text = Bytes::from(format!("{reason}\n"));
    let mut response = Response::new(AnswerBody::local(text, record));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    if let Ok(reason) = HeaderValue::from_str(&reason) {
        headers.insert(REASON, reason);
    }
    response
}

//! Responses of our own, where there is no primary to ask. Those of a filter are what the route wants.
//! All others are refusals: each says in `x-mirror-reason` who responded and why, to a gRPC call in `grpc-message`
//! as well; the log tells a few of them, the metrics all.

use std::{io, net::SocketAddr};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};

use super::{ExchangeRecord, ResponseBody, filters, grpc_status};
use crate::{
    outcome::{RefusalReason, ResponseSource},
    proxy::{http1, refusal, validate::Malformed},
};

const REASON: HeaderName = HeaderName::from_static("x-mirror-reason");

/// Why a request that no rule matches is refused.
pub(crate) const NO_MATCH: &str =
    "no rule of the routes attached to this Service matches the request";

/// Why there is no response in time.
pub(crate) const TIMED_OUT: &str = "the primary did not respond within the route's timeout";

/// The request is not a message that could be sent on.
pub(super) fn bad_request(record: ExchangeRecord, why: &Malformed) -> Response<ResponseBody> {
    let (by, refusal) = (ResponseSource::BadRequest, RefusalReason::from(*why));
    let mut response = reply(record, by, refusal, StatusCode::BAD_REQUEST, &why.to_string());
    // What follows on this connection cannot be told from the rest of this message.
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// No rule matches (Gateway API, HTTPRouteRule).
pub(super) fn no_match(record: ExchangeRecord) -> Response<ResponseBody> {
    let status = StatusCode::NOT_FOUND;
    reply(record, ResponseSource::NoMatch, RefusalReason::NoMatch, status, NO_MATCH)
}

/// The chosen backend is invalid (Gateway API, HTTPRouteRule.backendRefs).
pub(super) fn invalid_backend(record: ExchangeRecord, why: &str) -> Response<ResponseBody> {
    reply(
        record,
        ResponseSource::InvalidBackend,
        RefusalReason::InvalidBackend,
        StatusCode::INTERNAL_SERVER_ERROR,
        why,
    )
}

/// The chosen backend has no ready endpoint.
pub(super) fn no_endpoint(record: ExchangeRecord) -> Response<ResponseBody> {
    let service = record.backend.as_ref().map(|b| b.service.to_string()).unwrap_or_default();
    let why = format!("Service {service} has no ready endpoint");
    reply(
        record,
        ResponseSource::NoEndpoint,
        RefusalReason::NoEndpoint,
        StatusCode::SERVICE_UNAVAILABLE,
        &why,
    )
}

/// No connection to the primary came about. Each cause has its own name, because each has another
/// remedy.
pub(super) fn not_connected(
    mut record: ExchangeRecord,
    address: SocketAddr,
    error: &io::Error,
) -> Response<ResponseBody> {
    use io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable, TimedOut};
    let (by, why) = match error.kind() {
        ConnectionRefused => (ResponseSource::ConnectRefused, "the primary refused the connection"),
        TimedOut => {
            (ResponseSource::ConnectTimeout, "the primary did not accept the connection in time")
        }
        HostUnreachable | NetworkUnreachable => {
            (ResponseSource::Unreachable, "no route leads to the primary")
        }
        _ => (ResponseSource::ConnectFailed, "mirror cannot connect to the primary"),
    };
    tracing::debug!(%address, %error, why);
    record.endpoint = Some(address);
    reply(record, by, refusal::of_connect(error), StatusCode::SERVICE_UNAVAILABLE, why)
}

/// What the primary sent is no response, and this client cannot be given it as it is.
pub(super) fn bad_response(record: ExchangeRecord, error: &http1::Error) -> Response<ResponseBody> {
    let why = format!("the primary sent what is not a response: {error}");
    let refusal = RefusalReason::MalformedResponse;
    reply(record, ResponseSource::BadResponse, refusal, StatusCode::BAD_GATEWAY, &why)
}

/// The rule's timeout passed (Gateway API, HTTPRouteTimeouts).
pub(super) fn timed_out(record: ExchangeRecord) -> Response<ResponseBody> {
    let status = StatusCode::GATEWAY_TIMEOUT;
    reply(record, ResponseSource::Timeout, RefusalReason::Timeout, status, TIMED_OUT)
}

/// The primary switches protocols, and not to one that the request asked for (RFC 9110, section 7.8):
/// what follows on its connection is nothing that the client could read.
pub(super) fn unrequested_upgrade(record: ExchangeRecord) -> Response<ResponseBody> {
    let why = "the primary's 101 switches to a protocol that the request did not ask for";
    reply(
        record,
        ResponseSource::UnrequestedUpgrade,
        RefusalReason::UnrequestedUpgrade,
        StatusCode::BAD_GATEWAY,
        why,
    )
}

/// What a filter of the route responds with, whose content is empty.
pub(super) fn filtered(
    mut record: ExchangeRecord,
    source: ResponseSource,
    status: StatusCode,
    headers: HeaderMap,
) -> Response<ResponseBody> {
    let mut head = Response::new(()).into_parts().0;
    (head.status, head.headers) = (status, headers);
    if source == ResponseSource::Redirect {
        filters::apply_to_response(&record, &mut head);
    }
    record.responded(source, status);
    Response::from_parts(head, ResponseBody::local(Bytes::new(), record))
}

fn reply(
    mut record: ExchangeRecord,
    by: ResponseSource,
    refusal: RefusalReason,
    status: StatusCode,
    why: &str,
) -> Response<ResponseBody> {
    if record.may_log() {
        tracing::warn!(
            client = %record.client.workload.name,
            frontend = %record.client.frontend.service,
            status = status.as_u16(),
            why,
            "answered by mirror"
        );
    }
    let reason = format!("mirror: {why}");
    record.refuse(refusal, &reason);
    let mut head = Response::new(()).into_parts().0;
    let text = if record.is_grpc {
        head.headers = grpc_status::fields(status, &reason);
        Bytes::new()
    } else {
        head.status = status;
        let plain = HeaderValue::from_static("text/plain; charset=utf-8");
        head.headers.insert(header::CONTENT_TYPE, plain);
        Bytes::from(format!("{reason}\n"))
    };
    record.responded(by, head.status);
    record.grpc_status(&head.headers);
    if let Ok(reason) = HeaderValue::from_str(&reason) {
        head.headers.insert(REASON, reason);
    }
    filters::apply_cors(&record, &mut head.headers);
    Response::from_parts(head, ResponseBody::local(text, record))
}

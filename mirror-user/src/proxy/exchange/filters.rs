//! The filters of a rule, and of the backend that it chose, in the order of the route. In: a request's
//! head. Out: the head as the filters leave it, with the copies that were made on the way; or the
//! response of a filter that responds itself. And the fields of responses that filters change.

use std::{net::SocketAddr, rc::Rc};

use http::{HeaderMap, StatusCode, header, request, response};

use super::{ExchangeRecord, tunnel};
use crate::{
    outcome::{ResponseSource, Uncopied},
    proxy::{
        context::Context,
        normalize,
        shadow::{Offer, RequestInfo},
        validate::{Malformed, RequestKind, without_upgrade},
    },
    route::{Filter, InvalidBackend, Mirror, Redirect, target::InvalidTarget},
    workload::Workload,
};

/// A request between its filters.
pub(super) struct FilteredRequest<'r> {
    pub(super) head: &'r mut request::Parts,
    pub(super) kind: RequestKind,
    /// It has no content.
    pub(super) whole: bool,
    pub(super) offers: &'r mut Vec<Offer>,
}

/// A response of a filter: no primary gets the request.
pub(super) enum FilterResponse {
    /// `RequestRedirect`, or `CORS` to a preflight request.
    Whole { source: ResponseSource, status: StatusCode, headers: HeaderMap },
    /// What a filter makes of the request cannot be sent.
    Malformed(Malformed),
}

/// Applies `filters` in their order, up to one that responds: those behind it see no request.
pub(super) fn apply(
    ctx: &Rc<Context>,
    record: &mut ExchangeRecord,
    filters: &[Filter],
    request: FilteredRequest<'_>,
) -> Option<FilterResponse> {
    let FilteredRequest { head, kind, whole, offers } = request;
    for filter in filters {
        match filter {
            Filter::RequestHeaders(modifier) => modifier.apply(&mut head.headers),
            Filter::Mirror(mirror) => {
                if mirror.share.selects(ctx.draw()) {
                    offers.extend(offer(ctx, record, mirror, (head, kind), whole));
                }
            }
            Filter::ResponseHeaders(_) => {}
            Filter::Rewrite(rewrite) => {
                if let Err(InvalidTarget) = rewrite.apply(head) {
                    return Some(FilterResponse::Malformed(Malformed::BadTarget));
                }
            }
            Filter::Redirect(redirect) => {
                // A filter behind this one may set the fields of its response by the origin.
                note_origin(record, head);
                return Some(redirected(record, redirect, head));
            }
            Filter::Cors(cors) => {
                if let Some(headers) = cors.preflight(head) {
                    let (source, status) = (ResponseSource::Preflight, StatusCode::NO_CONTENT);
                    return Some(FilterResponse::Whole { source, status, headers });
                }
                note_origin(record, head);
            }
        }
    }
    None
}

/// Keeps the request's origin for `CORS`, as it was at the first filter that asked.
fn note_origin(record: &mut ExchangeRecord, head: &request::Parts) {
    if record.origin.is_none() {
        record.origin = head.headers.get(header::ORIGIN).cloned().map(Box::new);
    }
}

/// RFC 9110, section 15.4.
fn redirected(
    record: &ExchangeRecord,
    redirect: &Redirect,
    head: &request::Parts,
) -> FilterResponse {
    let connected = record.client.frontend.address;
    let Some(location) = redirect.location(head, normalize::scheme(head), connected) else {
        return FilterResponse::Malformed(Malformed::BadTarget);
    };
    let headers = HeaderMap::from_iter([(header::LOCATION, location)]);
    FilterResponse::Whole { source: ResponseSource::Redirect, status: redirect.status, headers }
}

/// A copy of a request that a mirror selected; None where none is made, or it was dropped at once.
fn offer(
    ctx: &Rc<Context>,
    record: &mut ExchangeRecord,
    mirror: &Mirror,
    request: (&request::Parts, RequestKind),
    whole: bool,
) -> Option<Offer> {
    if let Some(reason) = uncopied(mirror, request) {
        ctx.recorder.uncopied(reason);
        return None;
    }
    record.copies += 1;
    let mirrored = record.mirrored();
    let info = RequestInfo { started: record.started, whole, mirrored: mirrored.as_ref() };
    let client = (&*record.client.workload, record.client.frontend.address);
    copy(ctx, client, mirror, request, info)
}

/// Why no copy is made of a request that a mirror selected.
pub(in crate::proxy) fn uncopied(
    mirror: &Mirror,
    (head, kind): (&request::Parts, RequestKind),
) -> Option<Uncopied> {
    match (&mirror.target, kind) {
        (Err(InvalidBackend::Refused { .. }), _) => Some(Uncopied::RefusedShadow),
        (Err(_), _) => Some(Uncopied::InvalidBackend),
        (Ok(_), RequestKind::Tunnel) => Some(tunnel::uncopied(head)),
        (Ok(_), RequestKind::Message | RequestKind::Upgrade) => None,
    }
}

/// The copy of a request that is copied; None where it was dropped at once. `client`: whose request it
/// is, and what it connected to.
pub(in crate::proxy) fn copy(
    ctx: &Context,
    (workload, frontend): (&Workload, SocketAddr),
    mirror: &Mirror,
    (head, kind): (&request::Parts, RequestKind),
    info: RequestInfo<'_>,
) -> Option<Offer> {
    let plain = (kind == RequestKind::Upgrade).then(|| Box::new(without_upgrade(head)));
    let head = plain.as_deref().unwrap_or(head);
    ctx.shadows.offer(workload, frontend, mirror, head, info)
}

/// Those that apply to the response, in this order.
fn of(record: &ExchangeRecord) -> impl Iterator<Item = &Filter> {
    let rule = record.rule.as_deref();
    let entry = rule.and_then(|rule| rule.backends.refs().get(record.entry?));
    let entry = entry.map(|entry| &entry.filters[..]);
    entry.into_iter().chain(rule.map(|rule| &rule.filters[..])).flatten()
}

/// Whether a filter may change the response.
pub(super) fn change_response(record: &ExchangeRecord) -> bool {
    of(record).any(Filter::changes_response)
}

/// Changes the fields of a response: of the primary, or of a filter that redirects.
pub(super) fn apply_to_response(record: &ExchangeRecord, head: &mut response::Parts) {
    for filter in of(record) {
        match filter {
            Filter::ResponseHeaders(modifier) => modifier.apply(&mut head.headers),
            Filter::Cors(cors) => {
                cors.respond_to(record.origin.as_deref(), &mut head.headers);
            }
            Filter::RequestHeaders(_)
            | Filter::Mirror(_)
            | Filter::Redirect(_)
            | Filter::Rewrite(_) => {}
        }
    }
}

/// Sets the fields that a response of mirror itself gets: a client may read why it was refused wherever it
/// may read the primary's response.
pub(super) fn apply_cors(record: &ExchangeRecord, fields: &mut HeaderMap) {
    for filter in of(record) {
        if let Filter::Cors(cors) = filter {
            cors.respond_to(record.origin.as_deref(), fields);
        }
    }
}

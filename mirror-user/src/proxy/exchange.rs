//! One exchange: a request is checked, matched, sent to its primary, and offered to the shadows
//! that its rule names. In: a request. Out: the primary's answer, or ours where there is none.

mod record;

use std::{
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::Poll,
};

use http::{HeaderValue, Request, Response, Version, header::CONNECTION, request, response};
use hyper::body::Body;

pub(super) use self::record::Record;
use super::{
    connection::Client,
    context::Context,
    dress,
    framing::{Carriage, prepare_answer, prepare_request},
    inbound::Inbound,
    interim::Interim,
    local,
    primary::{
        AnswerBody, Destination, Errand, Failure, Limits, Outcome, PrimaryBody, Progress, Sent,
        Upstream,
    },
    shadow::{Asked, CopyWriter, Launch},
    tunnel,
};
use crate::{
    outcome::Answer,
    route::{Backend, BackendRef, Filter, Lookup, Rule},
};

/// The exchange has no answer: the client's connection is ended the way [`End`] says.
#[derive(Debug, thiserror::Error)]
#[error("no answer: {0}")]
pub(super) struct Abort(#[from] pub(super) Failure);

/// The client's side of an exchange.
pub(super) struct Side {
    /// Where what the primary says before its answer goes.
    pub(super) interim: Interim,
    pub(super) progress: Rc<Progress>,
}

/// Answers one request of a client.
///
/// # Errors
/// [`Abort`], when the primary gave no answer and none may be invented.
pub(super) async fn exchange(
    ctx: Rc<Context>,
    client: Rc<Client>,
    mut head: request::Parts,
    body: Inbound,
    side: Side,
) -> Result<Response<AnswerBody>, Abort> {
    let common =
        if head.version == Version::HTTP_2 { dress::from_http2(&mut head) } else { Ok(()) };
    let mut record = Record::new(Rc::clone(&ctx), client, side.progress, &head);
    let carriage = match common.and_then(|()| prepare_request(&mut head)) {
        Ok(carriage) => carriage,
        Err(malformed) => return Ok(local::bad_request(record, &malformed)),
    };
    let rule = match find_rule(&ctx, &record.client, &head) {
        Found::Rule(rule) => rule,
        Found::NoMatch => return Ok(local::no_match(record)),
        Found::NoRoute => {
            let to = Destination::Original(record.client.frontend.address);
            let freight = Freight { head, body, interim: side.interim, offers: Vec::new() };
            return carry(ctx, record, carriage, to, freight).await;
        }
    };
    record.rule = Some(Arc::clone(&rule));
    let mut offers = Vec::new();
    for filter in &rule.filters {
        match filter {
            Filter::RequestHeaders(modifier) => modifier.apply(&mut head.headers),
            Filter::Mirror(mirror) if carriage == Carriage::Message => {
                if mirror.target.is_ok() && mirror.share.selects(ctx.draw()) {
                    record.copies += 1;
                    let asked = Asked { started: record.started, whole: body.is_end_stream() };
                    offers.extend(ctx.shadows.offer(&ctx, &record.client, mirror, &head, asked));
                }
            }
            Filter::Mirror(_) | Filter::ResponseHeaders(_) => {}
        }
    }
    let (entry, backend) = match choose(&ctx, &rule) {
        Ok(chosen) => chosen,
        Err(why) => return Ok(refuse(record, offers, &why)),
    };
    apply_request_headers(&entry.filters, &mut head);
    record.entry = rule.backends.refs().iter().position(|other| std::ptr::eq(other, entry));
    record.backend = Some(Arc::clone(&backend));
    if backend.endpoints.is_empty() {
        return Ok(unready(record, offers));
    }
    let freight = Freight { head, body, interim: side.interim, offers };
    let to = Destination::Backend(backend, record.client.frontend.address);
    carry(ctx, record, carriage, to, freight).await
}

enum Found {
    Rule(Arc<Rule>),
    NoMatch,
    NoRoute,
}

fn find_rule(ctx: &Context, client: &Client, head: &request::Parts) -> Found {
    let routes = ctx.routes();
    let Some(Lookup::Live(frontend)) = routes.frontends.get(&client.frontend.id) else {
        return Found::NoRoute;
    };
    let Some(table) = frontend.routes(&client.workload.namespace) else { return Found::NoRoute };
    table.find(head).map_or(Found::NoMatch, |rule| Found::Rule(Arc::clone(rule)))
}

fn choose<'r>(ctx: &Context, rule: &'r Rule) -> Result<(&'r BackendRef, Arc<Backend>), String> {
    let entry = rule
        .backends
        .choose(ctx.draw())
        .ok_or_else(|| "the rule has no backend with a weight above 0".to_owned())?;
    match &entry.target {
        Ok(backend) => Ok((entry, Arc::clone(backend))),
        Err(invalid) => Err(invalid.to_string()),
    }
}

/// A request that no primary gets was selected all the same. Its body is read by nobody, so that a
/// copy with one is cut.
fn refuse(record: Record, offers: Vec<Offer>, why: &str) -> Response<AnswerBody> {
    launch(offers);
    local::invalid_backend(record, why)
}

fn unready(record: Record, offers: Vec<Offer>) -> Response<AnswerBody> {
    launch(offers);
    local::no_endpoint(record)
}

/// A copy, and where its body is written; no writer when the request has none.
pub(super) type Offer = (Launch, Option<CopyWriter>);

fn launch(offers: Vec<Offer>) {
    offers.into_iter().for_each(|(launch, _writer)| launch.now());
}

/// What goes to the primary.
struct Freight {
    head: request::Parts,
    body: Inbound,
    interim: Interim,
    offers: Vec<Offer>,
}

// What is rare is boxed: the future is as large as the largest of its parts, and is made and moved
// once per request.
async fn carry(
    ctx: Rc<Context>,
    mut record: Record,
    carriage: Carriage,
    to: Destination,
    freight: Freight,
) -> Result<Response<AnswerBody>, Abort> {
    let Freight { head, body, interim, offers } = freight;
    let (launches, writers): (Vec<_>, Vec<_>) = offers.into_iter().unzip();
    let writers = writers.into_iter().flatten().collect();
    let (client, progress) = (Rc::clone(&record.client), Rc::clone(&record.progress));
    let body = PrimaryBody::new(body, writers, Rc::clone(&progress), &interim);
    let request = Request::from_parts(head, body);
    // A tunnel of HTTP/2 is a stream like any other.
    if carriage == Carriage::Tunnel && request.version() != Version::HTTP_2 {
        return Box::pin(tunnel::open(&ctx, record, &to, request)).await;
    }
    let (ctx, workload, interim, progress) = (&*ctx, &*client.workload, &interim, &progress);
    let timeouts = record.rule.as_ref().map(|rule| rule.timeouts).unwrap_or_default();
    let limits = Limits { started: record.started, timeouts };
    let unread = request.version() == Version::HTTP_11 && !filters_answer(&record);
    let (to, shares) = (&to, &client.shares);
    let errand = Errand { ctx, client: workload, shares, to, interim, unread, limits, progress };
    let mut sending = pin!(ctx.primary.send(errand, request));
    // The primary is on its way before a copy is.
    let first = poll_fn(|cx| Poll::Ready(sending.as_mut().poll(cx))).await;
    launches.into_iter().for_each(Launch::now);
    let sent = match first {
        Poll::Ready(sent) => sent,
        Poll::Pending => sending.await,
    };
    match sent {
        Ok(Outcome::Answered(Sent { response, mut upstream })) => {
            let unasked = !interim.answered();
            upstream.abandoned = unasked;
            if carriage == Carriage::Tunnel && response.status().is_success() {
                record.tunnel();
            }
            let mut response = answer(record, response, upstream);
            if unasked {
                // The body may still come or not, so that what comes next cannot be told (RFC 9110,
                // section 10.1.1).
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(response)
        }
        Err(failure @ Failure::TimedOut(endpoint)) => {
            tracing::debug!(%failure, "answered with 504");
            record.endpoint = Some(endpoint);
            Ok(local::timed_out(record))
        }
        Ok(Outcome::Bridge(bridge)) => Box::pin(tunnel::bridge(ctx, record, *bridge)).await,
        Err(failure) => Err(record.fail(failure)),
    }
}

/// The primary's answer, as the client gets it.
pub(super) fn answer(
    mut record: Record,
    response: Response<Inbound>,
    upstream: Upstream,
) -> Response<AnswerBody> {
    let (mut head, body) = response.into_parts();
    prepare_answer(&mut head);
    for filters in filters(&record) {
        apply_response_headers(filters, &mut head);
    }
    record.answered(Answer::Primary, head.status);
    record.endpoint = Some(upstream.endpoint);
    let client = Rc::clone(&record.client);
    Response::from_parts(head, AnswerBody::primary(body, upstream, record, Rc::clone(&client.ends)))
}

/// Those that apply to the answer, in this order.
fn filters(record: &Record) -> impl Iterator<Item = &[Filter]> {
    let rule = record.rule.as_deref();
    let entry = rule.and_then(|rule| rule.backends.refs().get(record.entry?));
    let entry = entry.map(|entry| &entry.filters[..]);
    entry.into_iter().chain(rule.map(|rule| &rule.filters[..]))
}

fn filters_answer(record: &Record) -> bool {
    let mut all = filters(record).flatten();
    all.any(|filter| matches!(filter, Filter::ResponseHeaders(_)))
}

fn apply_request_headers(filters: &[Filter], head: &mut request::Parts) {
    for filter in filters {
        if let Filter::RequestHeaders(modifier) = filter {
            modifier.apply(&mut head.headers);
        }
    }
}

fn apply_response_headers(filters: &[Filter], head: &mut response::Parts) {
    for filter in filters {
        if let Filter::ResponseHeaders(modifier) = filter {
            modifier.apply(&mut head.headers);
        }
    }
}

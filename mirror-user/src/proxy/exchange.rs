//! One exchange: a request is checked, matched, sent to its primary, and offered to the shadows
//! that its rule names. In: a request. Out: the primary's response, or ours where there is none.

mod bridge;
mod discard;
mod filters;
pub(crate) mod grpc_status;
mod local_reply;
mod record;
mod response_body;
mod tunnel;
mod unsent;

use std::{
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::Poll,
};

use http::{HeaderValue, Response, StatusCode, Version, header::CONNECTION, request};
use hyper::body::Body;
use tokio::task::yield_now;

pub(crate) use self::local_reply::{NO_MATCH, TIMED_OUT};
use self::{filters::FilteredRequest, unsent::UnsentRequest};
pub(super) use self::{
    filters::{copy, uncopied},
    record::ExchangeRecord,
    response_body::ResponseBody,
};
use super::{
    body::{IncomingBody, PrimaryBody, Progress},
    client::Client,
    context::Context,
    http1::SharedEnd,
    interim::Interim,
    io::consume_budget,
    normalize,
    primary::{
        Destination, EarlierAttempts, Failure, Limits, PrimaryRequest, PrimaryResponse,
        RequestContext, RetryRule, SendOutcome, Upstream,
    },
    shadow::{Offer, PreparedCopy},
    unread, upgrade,
    validate::{RequestKind, prepare_request, prepare_response},
};
use crate::{
    outcome::ResponseSource,
    route::{Backend, BackendRef, FrontendState, RouteTable, Rule},
};

/// The exchange has no response: the client's connection is ended the way
/// [`CloseMode`](super::close::CloseMode) says.
#[derive(Debug, thiserror::Error)]
#[error("no response: {0}")]
pub(super) struct Abort(#[from] pub(super) Failure);

/// The client's side of an exchange.
pub(super) struct ClientHandle {
    /// Where what the primary says before its response goes.
    pub(super) interim: Interim,
    pub(super) progress: Rc<Progress>,
}

/// Fields of a head that are a unit of work (see [`consume_budget`]); most heads have fewer.
const FIELDS: usize = 64;

/// Responds to one request of a client.
///
/// # Errors
/// [`Abort`], when the primary gave no response and none may be invented.
pub(super) async fn exchange(
    ctx: Rc<Context>,
    client: Rc<Client>,
    mut head: Box<request::Parts>,
    body: IncomingBody,
    handle: ClientHandle,
) -> Result<Response<ResponseBody>, Abort> {
    let work = u32::try_from(head.headers.len() / FIELDS).unwrap_or(u32::MAX);
    if work > 0 {
        consume(work).await;
    }
    let common =
        if head.version == Version::HTTP_2 { normalize::from_http2(&mut head) } else { Ok(()) };
    let mut record = ExchangeRecord::new(Rc::clone(&ctx), client, handle.progress, &head);
    let to = record.client.connected();
    let kind = match common.and_then(|()| prepare_request(&mut head, to)) {
        Ok(kind) => kind,
        Err(malformed) => return Ok(local_reply::bad_request(record, &malformed)),
    };
    let found = match find_rule(&ctx, &record.client, &head) {
        Ok(found) => found,
        Err(table) => Box::pin(find_in_turns(&table, &head)).await,
    };
    let rule = match found {
        RuleLookup::Rule(rule) => rule,
        RuleLookup::NoMatch => {
            unsent::discard(body, head.version, Vec::new()).await;
            return Ok(local_reply::no_match(record));
        }
        RuleLookup::NoRoute => {
            let to = Destination::original(&record.client.frontend);
            let outgoing =
                OutgoingRequest { head, body, interim: handle.interim, offers: Vec::new() };
            return forward(ctx, record, kind, to, outgoing).await;
        }
    };
    record.rule = Some(Arc::clone(&rule));
    let (mut offers, whole) = (Vec::new(), body.is_end_stream());
    let request = FilteredRequest { head: &mut head, kind, whole, offers: &mut offers };
    if let Some(response) = filters::apply(&ctx, &mut record, &rule.filters, request) {
        let request = UnsentRequest::new(body, head.version, handle.interim, offers);
        return Ok(Box::pin(unsent::respond(record, response, request)).await);
    }
    let (entry, backend) = match choose(&ctx, &rule) {
        Ok(chosen) => chosen,
        Err(why) => {
            unsent::discard(body, head.version, offers).await;
            return Ok(local_reply::invalid_backend(record, &why));
        }
    };
    record.entry = rule.backends.refs().iter().position(|other| std::ptr::eq(other, entry));
    record.backend = Some(Arc::clone(&backend));
    let request = FilteredRequest { head: &mut head, kind, whole, offers: &mut offers };
    if let Some(response) = filters::apply(&ctx, &mut record, &entry.filters, request) {
        let request = UnsentRequest::new(body, head.version, handle.interim, offers);
        return Ok(Box::pin(unsent::respond(record, response, request)).await);
    }
    let to = Destination::of(&backend, &record.client.frontend, ctx.options.endpoints);
    if matches!(&to, Destination::Endpoints(backend, _) if backend.endpoints.is_empty()) {
        unsent::discard(body, head.version, offers).await;
        return Ok(local_reply::no_endpoint(record));
    }
    let outgoing = OutgoingRequest { head, body, interim: handle.interim, offers };
    forward(ctx, record, kind, to, outgoing).await
}

/// See [`consume_budget`].
async fn consume(work: u32) {
    poll_fn(|cx| {
        consume_budget(cx, work);
        Poll::Ready(())
    })
    .await;
}

enum RuleLookup {
    Rule(Arc<Rule>),
    NoMatch,
    NoRoute,
}

/// Steps of a search (see [`Search::run`](crate::route::Search::run)) before others have their turn:
/// half a millisecond. One match more may be looked at, whose expressions each read 256 KiB at most.
pub(super) const TURN: usize = 512 * 1024;

/// Looks for the rule in one turn; an error is the table that takes more.
fn find_rule(
    ctx: &Context,
    client: &Client,
    head: &request::Parts,
) -> Result<RuleLookup, RouteTable> {
    let routes = ctx.routes();
    let Some(FrontendState::Live(frontend)) = routes.frontends.get(&client.frontend.id) else {
        return Ok(RuleLookup::NoRoute);
    };
    let Some(table) = frontend.routes(&client.workload.namespace) else {
        return Ok(RuleLookup::NoRoute);
    };
    table.search(head).run(TURN).map(RuleLookup::of).ok_or_else(|| table.clone())
}

/// From the beginning, by the routes that were in force then.
async fn find_in_turns(table: &RouteTable, head: &request::Parts) -> RuleLookup {
    let mut search = table.search(head);
    loop {
        yield_now().await;
        if let Some(found) = search.run(TURN) {
            return RuleLookup::of(found);
        }
    }
}

impl RuleLookup {
    fn of(rule: Option<&Arc<Rule>>) -> Self {
        rule.map_or(Self::NoMatch, |rule| Self::Rule(Arc::clone(rule)))
    }
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

/// What goes to the primary.
struct OutgoingRequest {
    head: Box<request::Parts>,
    body: IncomingBody,
    interim: Interim,
    offers: Vec<Offer>,
}

// What is rare is boxed: the future is as large as the largest of its parts, and is made and moved
// once per request.
async fn forward(
    ctx: Rc<Context>,
    mut record: ExchangeRecord,
    kind: RequestKind,
    to: Destination,
    outgoing: OutgoingRequest,
) -> Result<Response<ResponseBody>, Abort> {
    let OutgoingRequest { head, body, interim, offers } = outgoing;
    let (copies, writers): (Vec<_>, Vec<_>) = offers.into_iter().unzip();
    let writers = writers.into_iter().flatten().collect();
    let (client, progress) = (Rc::clone(&record.client), Rc::clone(&record.progress));
    progress.attempts.set(1);
    let (retried, interim) = retried(&record, kind, interim);
    let body = PrimaryBody::new(body, writers, Rc::clone(&progress), &interim);
    let request = PrimaryRequest { head, body };
    // A tunnel of HTTP/2 is a stream like any other.
    if kind == RequestKind::Tunnel && request.head.version != Version::HTTP_2 {
        return Box::pin(tunnel::open(&ctx, record, &to, request)).await;
    }
    let requested = (kind == RequestKind::Upgrade)
        .then(|| upgrade::RequestedProtocols::of(&request.head.headers));
    let (ctx, workload, interim, progress) = (&*ctx, &*client.workload, &interim, &progress);
    let timeouts = record.rule.as_ref().map(|rule| rule.timeouts).unwrap_or_default();
    let limits = Limits { started: record.started, timeouts };
    let unread = request.head.version == Version::HTTP_11 && !filters::change_response(&record);
    let (to, upstreams, socket) = (&to, &client.upstreams, &*client.socket);
    let request_context = RequestContext {
        client: workload,
        socket,
        upstreams,
        to,
        interim,
        unread,
        limits,
        progress,
        retry: retried.as_deref().and_then(RetryRule::of),
        earlier: EarlierAttempts::default(),
    };
    let mut sending = pin!(ctx.primary.send(&request_context, request));
    // The primary is on its way before a copy is.
    let first = poll_fn(|cx| Poll::Ready(sending.as_mut().poll(cx))).await;
    copies.into_iter().for_each(PreparedCopy::dispatch);
    let sent = match first {
        Poll::Ready(sent) => sent,
        Poll::Pending => sending.await,
    };
    match sent {
        Ok(SendOutcome::Response(PrimaryResponse { response, upstream }))
            if response.status() == StatusCode::SWITCHING_PROTOCOLS =>
        {
            Ok(tunnel::switch(record, requested.as_ref(), response, upstream))
        }
        Ok(SendOutcome::Response(PrimaryResponse { response, mut upstream })) => {
            let body_not_requested = !interim.response_arrived();
            upstream.abandoned = body_not_requested;
            if kind == RequestKind::Tunnel && response.status().is_success() {
                record.tunnel();
            }
            let mut response = primary_response(record, response, upstream);
            if body_not_requested {
                // The body may still come or not, so that what comes next cannot be told (RFC 9110,
                // section 10.1.1).
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(response)
        }
        Ok(SendOutcome::Bridge(bridge)) => Box::pin(bridge::bridge(ctx, record, *bridge)).await,
        Err(failure) => failed(ctx, record, failure),
    }
}

/// The rule of a request that may be sent again, as long as nothing has passed to its client. One for a
/// tunnel is not: it is no message that is sent as a whole.
fn retried(
    record: &ExchangeRecord,
    kind: RequestKind,
    interim: Interim,
) -> (Option<Arc<Rule>>, Interim) {
    let retries = |rule: &&Arc<Rule>| rule.retry.is_some() && kind != RequestKind::Tunnel;
    match record.rule.as_ref().filter(retries) {
        Some(rule) => (Some(Arc::clone(rule)), interim.noted()),
        None => (None, interim),
    }
}

/// Returns a local response if the primary cannot have begun one of its own.
///
/// # Errors
/// [`Abort`]: the client's connection is to end as the primary's did.
pub(super) fn failed(
    ctx: &Context,
    mut record: ExchangeRecord,
    failure: Failure,
) -> Result<Response<ResponseBody>, Abort> {
    match failure {
        Failure::Unreadable(endpoint, error, lease) => {
            record.endpoint = Some(endpoint);
            let needs_head = record.by_http2 || filters::change_response(&record);
            if needs_head || !unread::pass_on(ctx, &record.client, endpoint, &lease) {
                return Ok(local_reply::bad_response(record, &error));
            }
            record.unread(&error);
            Err(Abort(Failure::Unreadable(endpoint, error, lease)))
        }
        Failure::NoEndpoint => Ok(local_reply::no_endpoint(record)),
        Failure::Connect(address, error) => Ok(local_reply::not_connected(record, address, &error)),
        Failure::TimedOut(endpoint) => {
            record.endpoint = Some(endpoint);
            Ok(local_reply::timed_out(record))
        }
        // Nobody has seen it, so that its client may be told.
        Failure::InvalidHead(_, why) => Ok(local_reply::bad_request(record, &why)),
        failure => Err(record.fail(failure)),
    }
}

/// The primary's response, as the client gets it.
pub(super) fn primary_response(
    mut record: ExchangeRecord,
    response: Response<IncomingBody>,
    upstream: Upstream,
) -> Response<ResponseBody> {
    let (mut head, body) = response.into_parts();
    prepare_response(&mut head);
    filters::apply_to_response(&record, &mut head);
    record.responded(ResponseSource::Primary, head.status);
    record.grpc_status(&head.headers);
    record.endpoint = Some(upstream.endpoint);
    let client = Rc::clone(&record.client);
    if upstream.closes() && client.upstreams.is_only_one() {
        // The client's connection has nowhere else to go: it ends as it would without us.
        head.extensions.insert(SharedEnd);
    }
    Response::from_parts(
        head,
        ResponseBody::primary(body, upstream, record, Rc::clone(&client.ends)),
    )
}

//! One connection of HTTP/1. In: a stream and the bytes sniffed. Out: requests to the
//! [`exchange`], one at a time, and the connection's end.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    task::{Context as TaskContext, Poll},
    time::Instant,
};

use bytes::BytesMut;
use http::{HeaderValue, Response, StatusCode, header::CONNECTION, request};
use tokio::net::TcpStream;

use super::clock::{HeadClock, QuietClock};
use crate::proxy::{
    body::IncomingBody,
    client::Client,
    close::{self, CloseMode},
    context::Context,
    exchange::{Abort, ClientHandle, exchange},
    http1::{
        ConnectionNext, Error, NextHead, RequestContent, ResponseToken, ServerConnection, SharedEnd,
    },
    interim::Interim,
    primary::IdleEvent,
    refusal, tunnel, unread,
};
use crate::{
    outcome::RefusalReason,
    proxy::{body::Progress, exchange::ResponseBody},
};

/// What a connection that is served takes beside an idle one, in bytes: its buffers, and what serves it.
const SERVED: usize = 8 * 1024;

/// Serves the connection to its end.
pub(in crate::proxy) async fn serve(
    ctx: Rc<Context>,
    client: Rc<Client>,
    mut stream: TcpStream,
    mut first: BytesMut,
) {
    loop {
        // Boxed: an idle connection is to cost as little as can be.
        let unserved = Box::pin(until_idle(&ctx, &client, stream, first)).await;
        let Some((idle, unread)) = unserved else { return };
        if unread.is_empty()
            && let Some(end) = wait(&client, &idle).await
        {
            return Box::pin(finish(idle, end)).await;
        }
        (stream, first) = (idle, unread);
    }
}

/// Waits until an idle client or its upstream does something. Returns how the client's only
/// upstream connection has ended, if it has and the client has said nothing.
async fn wait(client: &Client, stream: &TcpStream) -> Option<CloseMode> {
    client.upstreams.shrink();
    client.memory.settle();
    poll_fn(|cx| {
        if stream.poll_read_ready(cx).is_ready() {
            // How it failed is what the next read says.
            return Poll::Ready(None);
        }
        client.upstreams.poll_idle(cx).map(|event| match event {
            IdleEvent::Ended(end) => Some(end),
            IdleEvent::Unsolicited => None,
        })
    })
    .await
}

async fn finish(stream: TcpStream, end: CloseMode) {
    match end {
        CloseMode::Reset => close::reset(stream),
        CloseMode::Close => close::linger(stream).await,
    }
}

/// Serves until the client has been silent for a while: then the socket alone is kept, since the
/// buffers of a connection are most of what an idle one costs. None: the connection came to its
/// end.
async fn until_idle(
    ctx: &Rc<Context>,
    client: &Rc<Client>,
    stream: TcpStream,
    first: BytesMut,
) -> Option<(TcpStream, BytesMut)> {
    let _held = client.memory.held(SERVED);
    let connection = ServerConnection::new(stream, first, &client.memory);
    let end = RequestLoop::new(ctx, client, &connection).run().await;
    let (stream, unread) = connection.take()?;
    if let Some(upstream) = client.tunnel.take() {
        tunnel::run(&ctx.recorder, stream, unread.freeze(), upstream).await;
        return None;
    }
    match (end, client.ends.take()) {
        (ServeEnd::Idle, None) => return Some((stream, unread)),
        (_, Some(end)) => finish(stream, end).await,
        (ServeEnd::Failed, None) => close::reset(stream),
        (ServeEnd::Done | ServeEnd::HeadTimeout, None) => close::linger(stream).await,
    }
    None
}

/// How a connection's serving ended.
enum ServeEnd {
    Done,
    Failed,
    HeadTimeout,
    /// The client has been silent for a while.
    Idle,
}

/// A request, or what came instead of one.
enum NextRequest {
    Request(Box<request::Parts>, RequestContent, ResponseToken),
    Over(ServeEnd),
}

/// Serves one request after the other.
struct RequestLoop<'a> {
    ctx: &'a Rc<Context>,
    client: &'a Rc<Client>,
    connection: &'a Rc<ServerConnection>,
    head: HeadClock,
    quiet: QuietClock,
    /// Requests so far.
    begun: u64,
}

impl<'a> RequestLoop<'a> {
    fn new(
        ctx: &'a Rc<Context>,
        client: &'a Rc<Client>,
        connection: &'a Rc<ServerConnection>,
    ) -> Self {
        let (head, quiet) = Default::default();
        Self { ctx, client, connection, head, quiet, begun: 0 }
    }

    async fn run(mut self) -> ServeEnd {
        loop {
            let (head, content, context) = match self.next().await {
                NextRequest::Request(head, content, context) => (head, content, context),
                NextRequest::Over(end) => return end,
            };
            self.begun += 1;
            let Some(response) = self.respond(head, content).await else { return ServeEnd::Failed };
            let ends_alike = response.extensions().get::<SharedEnd>().is_some();
            match self.connection.respond(response, context).await {
                Ok(ConnectionNext::Request) => {}
                // The primary may want the rest of an upload that it has answered already.
                Ok(ConnectionNext::Close) if self.ctx.is_draining() => {}
                Ok(ConnectionNext::Close) if ends_alike => return self.end_as_the_primary().await,
                Ok(ConnectionNext::Close | ConnectionNext::Tunnel) => return ServeEnd::Done,
                Err(error) => {
                    tracing::debug!(client = %self.client.workload.name, %error, "connection ended");
                    return ServeEnd::Failed;
                }
            }
            // A response whose head had left before the drain began is the last one all the same.
            if !self.connection.finish_request().await || self.ctx.is_draining() {
                return ServeEnd::Done;
            }
        }
    }

    /// The last response said that its connection ends: so does the client's, when and how the
    /// primary's does, unless the client is faster or says more.
    async fn end_as_the_primary(&self) -> ServeEnd {
        // The primary may want the rest of an upload that it has answered already. A reset would
        // destroy the response of a client that still sends.
        if !self.connection.is_request_over() && !self.connection.finish_request().await {
            return ServeEnd::Done;
        }
        let mut drained = pin!(self.ctx.drained());
        poll_fn(|cx| {
            match self.client.upstreams.poll_idle(cx) {
                Poll::Ready(IdleEvent::Ended(end)) => {
                    self.client.ends.set(end);
                    return Poll::Ready(());
                }
                Poll::Ready(IdleEvent::Unsolicited) if self.pass_on_unsolicited() => {
                    return Poll::Ready(());
                }
                // It is closed already: the request was never whole.
                _ if !self.client.upstreams.any_idle() => return Poll::Ready(()),
                _ => {}
            }
            if drained.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            self.connection.poll_head(cx).map(drop)
        })
        .await;
        ServeEnd::Done
    }

    /// Waits for a head, or for a reason to wait no longer.
    async fn next(&mut self) -> NextRequest {
        let mut since = None;
        let next = poll_fn(|cx| self.poll_next(&mut since, cx)).await;
        match next {
            Ok(NextHead::Request(head, content, context)) => {
                NextRequest::Request(head, content, context)
            }
            Ok(NextHead::End) => NextRequest::Over(ServeEnd::Done),
            Ok(NextHead::Malformed(error, first)) => {
                refusal::head(self.ctx, self.client, error, &first);
                self.connection.refuse(error).await;
                NextRequest::Over(ServeEnd::Done)
            }
            Ok(NextHead::Failed(error)) => {
                if matches!(error, Error::Closed) {
                    refusal::connection(
                        self.ctx,
                        self.client,
                        RefusalReason::IncompleteHead,
                        &error,
                    );
                }
                tracing::debug!(client = %self.client.workload.name, %error, "connection ended");
                NextRequest::Over(ServeEnd::Failed)
            }
            Err(end) => {
                if matches!(end, ServeEnd::HeadTimeout) {
                    let why = "the request's head did not come to its end in time";
                    refusal::connection(self.ctx, self.client, RefusalReason::HeadTimeout, &why);
                }
                NextRequest::Over(end)
            }
        }
    }

    fn poll_next(
        &mut self,
        since: &mut Option<Instant>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Result<NextHead, ServeEnd>> {
        let upstream = self.client.upstreams.poll_idle(cx);
        if upstream == Poll::Ready(IdleEvent::Unsolicited) && self.pass_on_unsolicited() {
            return Poll::Ready(Err(ServeEnd::Done));
        }
        if let Poll::Ready(next) = self.connection.poll_head(cx) {
            return Poll::Ready(Ok(next));
        }
        if !self.connection.is_within_head() {
            if let Poll::Ready(IdleEvent::Ended(end)) = upstream {
                self.client.ends.set(end);
                return Poll::Ready(Err(ServeEnd::Done));
            }
            return self.quiet.poll(self.begun, cx).map(|()| Err(ServeEnd::Idle));
        }
        let since = *since.get_or_insert_with(Instant::now);
        let limit = self.ctx.options.head_timeout;
        self.head.poll(Some(since), limit, cx).map(|()| Err(ServeEnd::HeadTimeout))
    }

    /// The primary sent bytes that no request asked for: the client gets them as it would without us,
    /// before anything else.
    fn pass_on_unsolicited(&self) -> bool {
        let Some((endpoint, lease)) = self.client.upstreams.take_only() else { return false };
        tracing::debug!(client = %self.client.workload.name, %endpoint, "unsolicited bytes pass on");
        unread::pass_on(self.ctx, self.client, endpoint, &lease)
    }

    /// The response to a request; None where there is none, or nobody waits for it any more.
    async fn respond(
        &self,
        head: Box<request::Parts>,
        content: RequestContent,
    ) -> Option<Response<ResponseBody>> {
        let interim = Interim::http1(head.version, self.connection, &self.ctx.interim_dropped);
        let handle = ClientHandle { interim, progress: Rc::new(Progress::default()) };
        let (ctx, client) = (Rc::clone(self.ctx), Rc::clone(self.client));
        let mut exchange =
            pin!(exchange(ctx, client, head, IncomingBody::Request(content), handle));
        let result: Result<_, Abort> = poll_fn(|cx| {
            if let Poll::Ready(result) = exchange.as_mut().poll(cx) {
                return Poll::Ready(result.map(Some));
            }
            self.connection.poll_gone(cx).map(|error| {
                tracing::debug!(client = %self.client.workload.name, %error, "the client is gone");
                Ok(None)
            })
        })
        .await;
        let mut response = result.ok()??;
        if self.ctx.is_draining() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Some(response)
    }
}

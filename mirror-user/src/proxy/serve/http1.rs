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
    connection::Client,
    context::Context,
    ending::{self, End},
    exchange::{Abort, Side, exchange},
    http1::{After, Asked, NextHead, RequestContent, Served},
    inbound::Inbound,
    interim::Interim,
    primary::{AnswerBody, Progress},
    tunnel,
};

/// Serves the connection to its end.
pub(in crate::proxy) async fn serve(
    ctx: Rc<Context>,
    client: Rc<Client>,
    mut stream: TcpStream,
    mut first: BytesMut,
) {
    loop {
        // Boxed: an idle connection is to cost as little as can be.
        let served = Box::pin(until_idle(&ctx, &client, stream, first)).await;
        let Some((idle, unread)) = served else { return };
        if unread.is_empty() {
            // How it failed is what the next read says.
            let _ = idle.readable().await;
        }
        (stream, first) = (idle, unread);
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
    let served = Served::new(stream, first);
    let driven = Driver::new(ctx, client, &served).run().await;
    let (stream, unread) = served.take()?;
    if let Some(upstream) = client.tunnel.take() {
        tunnel::run(ctx, stream, unread.freeze(), upstream).await;
        return None;
    }
    match (driven, client.ends.take()) {
        (Driven::Idle, None) => return Some((stream, unread)),
        (_, Some(End::Reset)) => ending::reset(stream),
        (Driven::Failed, None) => ending::reset(stream),
        (Driven::Done | Driven::HeadTimeout, None) | (_, Some(End::Close)) => {
            ending::linger(stream).await;
        }
    }
    None
}

/// How a connection's serving ended.
enum Driven {
    Done,
    Failed,
    HeadTimeout,
    /// The client has been silent for a while.
    Idle,
}

/// A request, or what came instead of one.
#[expect(clippy::large_enum_variant, reason = "made once a request, and nearly always the large")]
enum Next {
    Request(request::Parts, RequestContent, Asked),
    Over(Driven),
}

/// Serves one request after the other.
struct Driver<'a> {
    ctx: &'a Rc<Context>,
    client: &'a Rc<Client>,
    served: &'a Rc<Served>,
    head: HeadClock,
    quiet: QuietClock,
    /// Requests so far.
    begun: u64,
}

impl<'a> Driver<'a> {
    fn new(ctx: &'a Rc<Context>, client: &'a Rc<Client>, served: &'a Rc<Served>) -> Self {
        let (head, quiet) = Default::default();
        Self { ctx, client, served, head, quiet, begun: 0 }
    }

    async fn run(mut self) -> Driven {
        loop {
            let (head, content, asked) = match self.next().await {
                Next::Request(head, content, asked) => (head, content, asked),
                Next::Over(driven) => return driven,
            };
            self.begun += 1;
            let Some(response) = self.answer(head, content).await else { return Driven::Failed };
            match self.served.answer(response, asked).await {
                Ok(After::Request) => {}
                // The primary may want the rest of an upload that it has answered already.
                Ok(After::Close) if self.ctx.is_draining() => {}
                Ok(After::Close | After::Tunnel) => return Driven::Done,
                Err(error) => {
                    tracing::debug!(client = %self.client.workload.name, %error, "connection ended");
                    return Driven::Failed;
                }
            }
            // An answer whose head had left before the drain began is the last one all the same.
            if !self.served.finish_request().await || self.ctx.is_draining() {
                return Driven::Done;
            }
        }
    }

    /// Waits for a head, or for a reason to wait no longer.
    async fn next(&mut self) -> Next {
        let mut since = None;
        let next = poll_fn(|cx| self.poll_next(&mut since, cx)).await;
        match next {
            Ok(NextHead::Request(head, content, asked)) => Next::Request(head, content, asked),
            Ok(NextHead::End) => Next::Over(Driven::Done),
            Ok(NextHead::Malformed(error)) => {
                tracing::debug!(client = %self.client.workload.name, %error, "no request");
                self.served.refuse(error).await;
                Next::Over(Driven::Done)
            }
            Ok(NextHead::Broken(error)) => {
                tracing::debug!(client = %self.client.workload.name, %error, "connection ended");
                Next::Over(Driven::Failed)
            }
            Err(driven) => Next::Over(driven),
        }
    }

    fn poll_next(
        &mut self,
        since: &mut Option<Instant>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Result<NextHead, Driven>> {
        if let Poll::Ready(next) = self.served.poll_head(cx) {
            return Poll::Ready(Ok(next));
        }
        if !self.served.is_within_head() {
            return self.quiet.poll(self.begun, cx).map(|()| Err(Driven::Idle));
        }
        let since = *since.get_or_insert_with(Instant::now);
        let limit = self.ctx.options.head_timeout;
        self.head.poll(Some(since), limit, cx).map(|()| Err(Driven::HeadTimeout))
    }

    /// The answer to a request; None where there is none, or nobody waits for it any more.
    async fn answer(
        &self,
        head: request::Parts,
        content: RequestContent,
    ) -> Option<Response<AnswerBody>> {
        let interim = Interim::http1(head.version, self.served, &self.ctx.interim_dropped);
        let side = Side { interim, progress: Rc::new(Progress::default()) };
        let (ctx, client) = (Rc::clone(self.ctx), Rc::clone(self.client));
        let mut exchange = pin!(exchange(ctx, client, head, Inbound::Request(content), side));
        let answered: Result<_, Abort> = poll_fn(|cx| {
            if let Poll::Ready(answered) = exchange.as_mut().poll(cx) {
                return Poll::Ready(answered.map(Some));
            }
            self.served.poll_gone(cx).map(|error| {
                tracing::debug!(client = %self.client.workload.name, %error, "the client is gone");
                Ok(None)
            })
        })
        .await;
        let mut response = answered.ok()??;
        if self.ctx.is_draining() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Some(response)
    }
}

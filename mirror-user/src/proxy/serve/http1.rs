//! One connection of HTTP/1, by hyper. In: a stream and the bytes sniffed. Out: requests to the
//! [`exchange`], one at a time, and the connection's end.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    rc::Rc,
    task::{Context as TaskContext, Poll},
};

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header::CONNECTION};
use hyper::{
    Request, Response,
    body::Incoming,
    server::conn::http1::{Builder, Connection},
    service::Service,
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::clock::{HeadClock, QuietClock};
use crate::proxy::{
    connection::Client,
    context::Context,
    ending::{self, End},
    exchange::{Abort, Side, exchange},
    inbound::Inbound,
    interim::Interim,
    io::ClientIo,
    primary::{AnswerBody, Progress},
    tunnel,
};

/// Largest head of a request, in bytes; a larger one is answered with 431.
const HEAD_LIMIT: usize = 256 * 1024;

/// Most fields of a request; more are answered with 431.
const FIELD_LIMIT: usize = 1000;

type Io = TokioIo<ClientIo>;

/// Serves the connection to its end.
pub(in crate::proxy) async fn serve(
    ctx: Rc<Context>,
    client: Rc<Client>,
    mut stream: TcpStream,
    mut first: Bytes,
) {
    while let Some((idle, unread)) = until_idle(&ctx, &client, stream, first).await {
        if unread.is_empty() {
            // How it failed is what the next read says.
            let _ = idle.readable().await;
        }
        (stream, first) = (idle, unread);
    }
}

/// Serves until the client has been silent for a while: then the socket alone is kept, since what
/// hyper holds for a connection (16 KiB of buffers) is most of what an idle one costs. None: the
/// connection came to its end.
async fn until_idle(
    ctx: &Rc<Context>,
    client: &Rc<Client>,
    stream: TcpStream,
    first: Bytes,
) -> Option<(TcpStream, Bytes)> {
    let io = TokioIo::new(ClientIo::new(stream, first, Rc::clone(&client.state)));
    let exchanges = Exchanges { ctx: Rc::clone(ctx), client: Rc::clone(client) };
    let mut connection = builder().serve_connection(io, exchanges);
    let mut driver = Driver {
        ctx: Rc::clone(ctx),
        client: Rc::clone(client),
        head: HeadClock::default(),
        quiet: QuietClock::default(),
        closing: false,
    };
    let driven = poll_fn(|cx| driver.poll(&mut connection, cx)).await;
    let parts = connection.into_parts();
    let stream = parts.io.into_inner().into_stream();
    if let Some(upstream) = client.tunnel.take() {
        tunnel::run(ctx, stream, parts.read_buf, upstream).await;
        return None;
    }
    match (driven, client.ends.take()) {
        (Driven::Idle, None) => return Some((stream, parts.read_buf)),
        (_, Some(End::Reset)) => ending::reset(stream),
        (Driven::Done, _) | (_, Some(End::Close)) => ending::linger(stream).await,
        (Driven::Failed, None) => ending::reset(stream),
        (Driven::HeadTimeout, None) => ending::linger(stream).await,
    }
    None
}

/// hyper's defaults are for servers; a proxy that must not be noticed differs in each of these.
fn builder() -> Builder {
    let mut builder = Builder::new();
    builder
        .half_close(true)
        .preserve_header_case(true)
        .auto_date_header(false)
        .header_read_timeout(None)
        .pipeline_flush(false)
        .max_headers(FIELD_LIMIT)
        .max_header_size(HEAD_LIMIT)
        .max_buf_size(HEAD_LIMIT)
        .writev(true);
    builder
}

enum Driven {
    Done,
    Failed,
    HeadTimeout,
    /// The client has been silent for a while.
    Idle,
}

/// Polls hyper's connection, and the clock on its heads.
struct Driver {
    ctx: Rc<Context>,
    client: Rc<Client>,
    head: HeadClock,
    quiet: QuietClock,
    closing: bool,
}

impl Driver {
    fn poll(
        &mut self,
        connection: &mut Connection<Io, Exchanges>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Driven> {
        match connection.poll_without_shutdown(cx) {
            Poll::Ready(Ok(())) => return Poll::Ready(Driven::Done),
            // hyper has answered (400, 414, 431): a reset could overtake the answer.
            Poll::Ready(Err(error)) if error.is_parse() => return Poll::Ready(Driven::Done),
            Poll::Ready(Err(error)) => {
                tracing::debug!(client = %self.client.workload.name, %error, "connection ended");
                return Poll::Ready(Driven::Failed);
            }
            Poll::Pending => {}
        }
        // An answer whose head had left before the drain began is the last one all the same.
        let state = &self.client.state;
        if self.ctx.is_draining() && !self.closing && state.is_busy() {
            self.closing = true;
            Pin::new(connection).graceful_shutdown();
        }
        if state.is_quiet() && self.quiet.poll(state.begun(), cx).is_ready() {
            return Poll::Ready(Driven::Idle);
        }
        let since = state.head_since.get();
        self.head.poll(since, self.ctx.options.head_timeout, cx).map(|()| Driven::HeadTimeout)
    }
}

/// hyper's view of the exchange. Boxed futures: taking the socket back after the end needs an
/// `Unpin` service.
struct Exchanges {
    ctx: Rc<Context>,
    client: Rc<Client>,
}

impl Service<Request<Incoming>> for Exchanges {
    type Response = Response<AnswerBody>;
    type Error = Abort;
    type Future = Pin<Box<dyn Future<Output = Result<Response<AnswerBody>, Abort>>>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let (ctx, client) = (Rc::clone(&self.ctx), Rc::clone(&self.client));
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let interim = Interim::http1(&head, &ctx.interim_dropped);
            let progress = Rc::new(Progress::new(client.state.begin()));
            let side = Side { interim, progress };
            let exchange = exchange(Rc::clone(&ctx), client, head, Inbound::Http1(body), side);
            let mut response = exchange.await?;
            if ctx.is_draining() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(response)
        })
    }
}

//! One connection of HTTP/2. In: a stream and the bytes sniffed. Out: requests to the
//! [`exchange`], many at a time, and the connection's end. One task a stream.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    task::Poll,
};

use bytes::Bytes;
use h2::{
    Reason, RecvStream,
    server::{Builder, Connection, SendResponse},
};
use http::{Method, Request, Response};
use hyper::body::Body as _;
use tokio::{net::TcpStream, task::JoinSet, time::timeout};

use crate::proxy::{
    connection::Client,
    context::Context,
    dress, ending,
    exchange::{Abort, Side, exchange},
    http2::{CLIENT_STREAMS, CLIENT_WINDOW, HEAD_LIMIT, Pump, Unsent, connection_window},
    inbound::Inbound,
    interim::{Interim, Line},
    io::Replay,
    primary::{AnswerBody, Progress},
};

type Answer = Result<Response<AnswerBody>, Abort>;

/// Serves the connection to its end.
pub(in crate::proxy) async fn serve(
    ctx: Rc<Context>,
    client: Rc<Client>,
    stream: TcpStream,
    first: Bytes,
) {
    // The h2 crate keeps its socket to itself; this one is for the end.
    let spare = socket2::SockRef::from(&stream).try_clone();
    let hello = builder().handshake(Replay::new(stream, first));
    match timeout(ctx.options.head_timeout, hello).await {
        Ok(Ok(connection)) => run(&ctx, &client, connection).await,
        Ok(Err(error)) => {
            tracing::debug!(client = %client.workload.name, %error, "no connection of HTTP/2");
        }
        Err(_) => {
            tracing::debug!(client = %client.workload.name, "no settings came in time");
        }
    }
    // Our last word (GOAWAY) is to arrive though the client still sends.
    if let Ok(spare) = spare
        && let Ok(stream) = TcpStream::from_std(spare.into())
    {
        ending::linger(stream).await;
    }
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder
        .initial_window_size(CLIENT_WINDOW)
        .initial_connection_window_size(connection_window(CLIENT_WINDOW, CLIENT_STREAMS))
        .max_concurrent_streams(CLIENT_STREAMS)
        // All streams cancelled at once is no attack: many clients do so when they are cancelled.
        .max_pending_accept_reset_streams(CLIENT_STREAMS as usize)
        .max_header_list_size(HEAD_LIMIT)
        .enable_connect_protocol();
    builder
}

async fn run(ctx: &Rc<Context>, client: &Rc<Client>, mut connection: Connection<Replay, Bytes>) {
    // Dropped with the connection: what it carried ends with it.
    let mut streams = JoinSet::new();
    let mut closing = false;
    loop {
        tokio::select! {
            biased;
            () = ctx.drained(), if !closing => {
                closing = true;
                connection.graceful_shutdown();
            }
            accepted = connection.accept() => match accepted {
                Some(Ok((request, respond))) => {
                    streams.spawn_local(stream(Rc::clone(ctx), Rc::clone(client), request, respond));
                }
                Some(Err(error)) => {
                    tracing::debug!(client = %client.workload.name, %error, "connection ended");
                    return;
                }
                None => return,
            },
            Some(_) = streams.join_next() => {}
        }
    }
}

/// Takes one stream to its end.
async fn stream(
    ctx: Rc<Context>,
    client: Rc<Client>,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) {
    let (head, body) = request.into_parts();
    let body = Inbound::request(body, &head.headers);
    let bodiless = head.method == Method::HEAD;
    let (interim, line) = Interim::http2();
    let progress = Rc::new(Progress::new(client.state.begin()));
    let side = Side { interim, progress: Rc::clone(&progress) };
    let answer = {
        let exchange = pin!(exchange(ctx, client, head, body, side));
        match await_answer(exchange, &line, &mut respond).await {
            Ok(answer) => answer,
            // The exchange is dropped, and its upstream's stream reset with the same code.
            Err(reason) => return progress.reset.set(reason),
        }
    };
    match answer {
        Ok(answer) => send(respond, answer, bodiless, &progress).await,
        Err(Abort(failure)) => respond.send_reset(failure.reset_code()),
    }
}

/// Waits for the answer and passes on what comes before it. An error is the client's reset.
async fn await_answer(
    mut exchange: std::pin::Pin<&mut impl Future<Output = Answer>>,
    line: &Line,
    respond: &mut SendResponse<Bytes>,
) -> Result<Answer, Option<Reason>> {
    poll_fn(|cx| {
        let polled = exchange.as_mut().poll(cx);
        while let Poll::Ready(told) = line.poll_next(cx) {
            // A stream that is gone is seen below.
            let _ = respond.send_informational(told);
        }
        if let Poll::Ready(answer) = polled {
            return Poll::Ready(Ok(answer));
        }
        match respond.poll_reset(cx) {
            Poll::Ready(Ok(reason)) => Poll::Ready(Err(Some(reason))),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error.reason())),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

async fn send(
    mut respond: SendResponse<Bytes>,
    answer: Response<AnswerBody>,
    bodiless: bool,
    progress: &Progress,
) {
    let (mut head, body) = answer.into_parts();
    dress::remove_connection_fields(&mut head.headers);
    let whole = bodiless || body.is_end_stream();
    let stream = match respond.send_response(Response::from_parts(head, ()), whole) {
        Ok(stream) => stream,
        Err(error) => {
            tracing::debug!(%error, "an answer that HTTP/2 cannot carry");
            return respond.send_reset(error.reason().unwrap_or(Reason::INTERNAL_ERROR));
        }
    };
    if whole {
        return;
    }
    let mut pump = pin!(Pump::new(body, stream));
    if let Err(Unsent::Peer(error)) = pump.as_mut().await {
        progress.reset.set(error.reason());
    }
}

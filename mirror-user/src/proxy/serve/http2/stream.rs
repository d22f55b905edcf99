//! One stream of a client. In: a request. Out: the exchange's answer, with what the primary says
//! before it; or the stream itself, where the primary's connection ended.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    rc::Rc,
    task::Poll,
};

use bytes::Bytes;
use h2::{Reason, RecvStream, server::SendResponse};
use http::{Method, Request, Response};
use hyper::body::Body as _;

use crate::{
    memory::MemoryCharge,
    proxy::{
        body::{IncomingBody, Progress},
        client::Client,
        context::Context,
        exchange::{Abort, ClientHandle, ResponseBody, exchange},
        http2::{BufferLimit, SendBody, Unsent},
        interim::{Interim, InterimQueue, head_size},
        normalize,
    },
};

type ExchangeResult = Result<Response<ResponseBody>, Abort>;

/// A stream that lost its primary, before or in the middle of the response.
pub(super) enum Orphan {
    NoResponse(SendResponse<Bytes>),
    Responding(Box<SendBody<ResponseBody>>),
}

impl Orphan {
    pub(super) fn reset(self, reason: Reason) {
        match self {
            Self::NoResponse(mut respond) => respond.send_reset(reason),
            Self::Responding(mut send_body) => send_body.reset(reason),
        }
    }
}

/// Takes the stream to its end, or back.
pub(super) async fn run(
    ctx: Rc<Context>,
    client: Rc<Client>,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    buffer_limit: Rc<BufferLimit>,
    _charge: MemoryCharge,
) -> Option<Orphan> {
    let (head, body) = request.into_parts();
    let body = IncomingBody::request(body, &head.headers);
    let bodiless = head.method == Method::HEAD;
    let (interim, queue) = Interim::http2();
    let progress = Rc::new(Progress::default());
    let handle = ClientHandle { interim, progress: Rc::clone(&progress) };
    let response = {
        let exchange = pin!(exchange(ctx, client, Box::new(head), body, handle));
        let mut interim_sender = InterimSender { buffer_limit: &buffer_limit, queued: 0 };
        match await_response(exchange, &queue, &mut respond, &mut interim_sender).await {
            Ok(response) => response,
            Err(reason) => {
                // The exchange is dropped, and its upstream's stream reset with the same code.
                progress.reset.set(reason);
                return None;
            }
        }
    };
    match response {
        Ok(response) => send(respond, response, bodiless, &progress, buffer_limit).await,
        Err(Abort(failure)) => match failure.reset_code() {
            Some(reason) => {
                respond.send_reset(reason);
                None
            }
            None => Some(Orphan::NoResponse(respond)),
        },
    }
}

/// Waits for the response and passes on what comes before it. An error is the client's reset.
async fn await_response(
    mut exchange: Pin<&mut impl Future<Output = ExchangeResult>>,
    queue: &InterimQueue,
    respond: &mut SendResponse<Bytes>,
    interim_sender: &mut InterimSender<'_>,
) -> Result<ExchangeResult, Option<Reason>> {
    poll_fn(|cx| {
        let polled = exchange.as_mut().poll(cx);
        while let Poll::Ready(head) = queue.poll_next(cx) {
            interim_sender.send(head, respond);
        }
        if let Poll::Ready(response) = polled {
            return Poll::Ready(Ok(response));
        }
        match respond.poll_reset(cx) {
            Poll::Ready(Ok(reason)) => Poll::Ready(Err(Some(reason))),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error.reason())),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Interim responses on their way to a client. Those that find no room are dropped: a client that does
/// not read has no use for them.
struct InterimSender<'a> {
    buffer_limit: &'a BufferLimit,
    /// Bytes of those that may not have left yet.
    queued: usize,
}

impl InterimSender<'_> {
    fn send(&mut self, head: Response<()>, respond: &mut SendResponse<Bytes>) {
        /// Bytes of them that wait for a client to read, in one stream.
        const ROOM: usize = 16 * 1024;
        let bytes = head_size(head.headers());
        if self.queued > 0 && !respond.has_queued() {
            self.queued = 0;
        }
        if self.queued + bytes > ROOM || !self.buffer_limit.has_room(bytes) {
            return;
        }
        self.queued += bytes;
        self.buffer_limit.sends(bytes);
        // A stream that is gone is seen by whoever waits for the response.
        let _ = respond.send_informational(head);
    }
}

async fn send(
    mut respond: SendResponse<Bytes>,
    response: Response<ResponseBody>,
    bodiless: bool,
    progress: &Progress,
    buffer_limit: Rc<BufferLimit>,
) -> Option<Orphan> {
    let (mut head, body) = response.into_parts();
    normalize::remove_connection_fields(&mut head.headers);
    let whole = bodiless || body.is_end_stream();
    let stream = match respond.send_response(Response::from_parts(head, ()), whole) {
        Ok(stream) => stream,
        Err(error) => {
            tracing::debug!(%error, "an answer that HTTP/2 cannot carry");
            respond.send_reset(error.reason().unwrap_or(Reason::INTERNAL_ERROR));
            return None;
        }
    };
    if whole {
        return None;
    }
    let mut send_body = SendBody::new(body, stream, buffer_limit);
    match Pin::new(&mut send_body).await {
        Ok(()) => None,
        Err(Unsent::Peer(error)) => {
            progress.reset.set(error.reason());
            None
        }
        Err(Unsent::Body(Some(reason))) => {
            send_body.reset(reason);
            None
        }
        Err(Unsent::Body(None)) => Some(Orphan::Responding(Box::new(send_body))),
    }
}

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

use crate::proxy::{
    connection::Client,
    context::Context,
    dress,
    exchange::{Abort, Side, exchange},
    http2::{Pump, Unsent},
    inbound::Inbound,
    interim::{Interim, Line},
    primary::{AnswerBody, Progress},
};

type Answer = Result<Response<AnswerBody>, Abort>;

/// A stream that lost its primary, before or in the middle of the answer.
pub(super) enum Orphan {
    Unanswered(SendResponse<Bytes>),
    Answered(Box<Pump<AnswerBody>>),
}

impl Orphan {
    pub(super) fn reset(self, reason: Reason) {
        match self {
            Self::Unanswered(mut respond) => respond.send_reset(reason),
            Self::Answered(mut pump) => pump.reset(reason),
        }
    }
}

/// Takes the stream to its end, or back.
pub(super) async fn run(
    ctx: Rc<Context>,
    client: Rc<Client>,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) -> Option<Orphan> {
    let (head, body) = request.into_parts();
    let body = Inbound::request(body, &head.headers);
    let bodiless = head.method == Method::HEAD;
    let (interim, line) = Interim::http2();
    let progress = Rc::new(Progress::default());
    let side = Side { interim, progress: Rc::clone(&progress) };
    let answer = {
        let exchange = pin!(exchange(ctx, client, head, body, side));
        match await_answer(exchange, &line, &mut respond).await {
            Ok(answer) => answer,
            Err(reason) => {
                // The exchange is dropped, and its upstream's stream reset with the same code.
                progress.reset.set(reason);
                return None;
            }
        }
    };
    match answer {
        Ok(answer) => send(respond, answer, bodiless, &progress).await,
        Err(Abort(failure)) => match failure.reset_code() {
            Some(reason) => {
                respond.send_reset(reason);
                None
            }
            None => Some(Orphan::Unanswered(respond)),
        },
    }
}

/// Waits for the answer and passes on what comes before it. An error is the client's reset.
async fn await_answer(
    mut exchange: Pin<&mut impl Future<Output = Answer>>,
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
) -> Option<Orphan> {
    let (mut head, body) = answer.into_parts();
    dress::remove_connection_fields(&mut head.headers);
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
    let mut pump = Pump::new(body, stream);
    match Pin::new(&mut pump).await {
        Ok(()) => None,
        Err(Unsent::Peer(error)) => {
            progress.reset.set(error.reason());
            None
        }
        Err(Unsent::Body(Some(reason))) => {
            pump.reset(reason);
            None
        }
        Err(Unsent::Body(None)) => Some(Orphan::Answered(Box::new(pump))),
    }
}

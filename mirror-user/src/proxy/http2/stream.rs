//! One exchange on a connection to an upstream: the head goes out, the body behind it, the response
//! comes back. In: room on a connection, a request. Out: the response's head and body.

use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    pin::Pin,
    rc::Rc,
    task::{Poll, ready},
};

use bytes::Bytes;
use h2::{
    Reason, RecvStream, SendStream,
    client::{ResponseFuture, SendRequest},
};
use http::{Request, Response};
use hyper::body::Body;
use tokio::task::JoinHandle;

use super::{ResetCode, SendBody, Slot, Unsent};
use crate::proxy::{interim::Interim, time_slices};

/// The sending half of an exchange. Dropped before [`RequestStream::finish`], it resets the stream.
pub(in crate::proxy) struct RequestStream<B> {
    slot: Rc<Slot>,
    sending: BodyState<B>,
    finished: bool,
}

enum BodyState<B> {
    Sent(SendStream<Bytes>),
    /// The body, and the task that sends what was not there at once.
    Streaming(Rc<RefCell<SendBody<B>>>, Option<JoinHandle<()>>),
}

impl<B> RequestStream<B>
where
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: ResetCode,
{
    /// Sends the head, and what there is of the body. `sender` is the slot's own.
    ///
    /// # Errors
    /// The request is none that HTTP/2 can carry.
    pub(in crate::proxy) async fn open(
        slot: Slot,
        mut sender: SendRequest<Bytes>,
        request: Request<()>,
        body: B,
    ) -> Result<(Self, ResponseFuture), h2::Error> {
        let whole = body.is_end_stream();
        let (response, stream) = sender.send_request(request, whole)?;
        let slot = Rc::new(slot);
        let sending =
            if whole { BodyState::Sent(stream) } else { send_body(&slot, body, stream).await };
        Ok((Self { slot, sending, finished: false }, response))
    }
}

impl<B> RequestStream<B> {
    /// The exchange came to its end: a body that is still being sent goes on.
    pub(in crate::proxy) fn finish(&mut self) {
        self.finished = true;
    }

    /// Waits until the body has left, or the upstream has ended the stream.
    pub(in crate::proxy) async fn sent(&mut self) {
        if let BodyState::Streaming(_, task) = &mut self.sending
            && let Some(running) = task
        {
            // It does not panic, and nobody else aborts it.
            let _ = running.await;
            *task = None;
        }
    }

    /// Ends the exchange before its end.
    pub(in crate::proxy) fn reset(&mut self, reason: Reason) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        match &mut self.sending {
            BodyState::Sent(stream) => stream.send_reset(reason),
            BodyState::Streaming(send_body, task) => {
                send_body.borrow_mut().reset(reason);
                task.iter().for_each(JoinHandle::abort);
            }
        }
    }

    pub(in crate::proxy) fn slot(&self) -> &Slot {
        &self.slot
    }
}

impl<B> Drop for RequestStream<B> {
    fn drop(&mut self) {
        self.reset(Reason::CANCEL);
    }
}

/// A body that is there already leaves without a task of its own.
async fn send_body<B>(slot: &Rc<Slot>, body: B, stream: SendStream<Bytes>) -> BodyState<B>
where
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: ResetCode,
{
    let buffer_limit = Rc::clone(slot.connection().buffer_limit());
    let send_body = Rc::new(RefCell::new(SendBody::new(body, stream, buffer_limit)));
    let first = poll_fn(|cx| Poll::Ready(Pin::new(&mut *send_body.borrow_mut()).poll(cx))).await;
    if let Poll::Ready(sent) = first {
        end(&send_body, &sent);
        return BodyState::Streaming(send_body, None);
    }
    let (run, slot) = (Rc::clone(&send_body), Rc::clone(slot));
    let task = time_slices::spawn(async move {
        let sent = poll_fn(|cx| Pin::new(&mut *run.borrow_mut()).poll(cx)).await;
        end(&run, &sent);
        drop(slot);
    });
    BodyState::Streaming(send_body, Some(task))
}

/// Whoever waits for the response learns from it that the upstream ended the stream.
fn end<B>(send_body: &RefCell<SendBody<B>>, sent: &Result<(), Unsent>) {
    if let Err(Unsent::Body(reason)) = sent {
        send_body.borrow_mut().reset(reason.unwrap_or(Reason::CANCEL));
    }
}

/// Waits for the response, and tells what comes before it. To be polled for the first time before
/// anything else runs after [`RequestStream::open`].
pub(in crate::proxy) async fn receive_response(
    mut response: ResponseFuture,
    interim: &Interim,
) -> Result<Response<RecvStream>, h2::Error> {
    // Nothing can have come yet, and for nobody nothing is looked for: that is to take what came
    // from its queue, and to put the response back.
    let mut looks = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut looks, interim.is_wanted()) {
            while let Some(head) = ready!(response.poll_informational(cx)) {
                let head = head?;
                interim.forward(head.status(), head.headers(), head.extensions());
            }
        }
        Pin::new(&mut response).poll(cx)
    })
    .await
}

/// Whether the upstream says that it has not looked at the request (RFC 9113, section 8.7): the
/// stream was above GOAWAY's last, or refused.
pub(in crate::proxy) fn is_unseen(error: &h2::Error) -> bool {
    let refused = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
    error.is_remote() && (error.is_go_away() || refused)
}

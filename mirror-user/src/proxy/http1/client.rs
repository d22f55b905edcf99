//! The client's end of a connection: to a primary or a shadow. In: a request whose body is asked
//! for as the socket takes it. Out: the answer's head, and a body that reads from this socket.
//!
//! A peer that answers early and closes makes our next write fail while its answer lies in the
//! receive buffer. So a failed write is noted, later bytes are let go, and the read side tells how
//! the connection ended.

use std::{
    cell::{RefCell, RefMut},
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
};

use bytes::{Bytes, BytesMut};
use http::{Method, Response, StatusCode, request, response};
use hyper::body::{Body, Frame, SizeHint};
use tokio::net::TcpStream;

use super::{
    Error,
    decode::Decoder,
    parse,
    print::{self, Printed},
    sending::{Filled, Sending},
    wire::Wire,
};

/// Writes in a row before other tasks have their turn: copies are read by one, and may hold no more
/// than their budget meanwhile.
const TURN: usize = 4;

/// A connection to an upstream, which carries one exchange at a time.
#[derive(Debug)]
pub(in crate::proxy) struct Connection<B> {
    inner: RefCell<Inner<B>>,
}

#[derive(Debug)]
pub(super) struct Inner<B> {
    pub(super) wire: Wire,
    /// What is left of the request's content.
    sending: Option<Sending<B>>,
    /// How long the head is, while nothing of it has left.
    head: usize,
    /// The request's content broke: the message must not end as if it were whole.
    body_broke: bool,
    /// The kernel refused bytes.
    pub(super) write_broken: bool,
    method: Method,
    /// How much of an answer's head was looked at in vain.
    pub(super) seen: usize,
    /// The answer's content.
    pub(super) content: Decoder,
    /// The head of an answer that nobody reads was taken, its content was not.
    pub(super) passing: bool,
    /// Whoever sends the rest of a request that is answered already.
    sender: Option<Waker>,
    pub(super) persists: bool,
}

/// A request that got no answer's head.
#[derive(Debug)]
pub(in crate::proxy) struct Unanswered {
    pub(in crate::proxy) error: Error,
    /// The kernel took no byte of the request.
    pub(in crate::proxy) unsent: bool,
    /// The upstream sent no byte.
    pub(in crate::proxy) silent: bool,
}

impl<B> Connection<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    pub(in crate::proxy) fn new(stream: TcpStream) -> Rc<Self> {
        let inner = Inner {
            wire: Wire::new(stream, BytesMut::new()),
            sending: None,
            head: 0,
            body_broke: false,
            write_broken: false,
            method: Method::GET,
            seen: 0,
            content: Decoder::length(0),
            passing: false,
            sender: None,
            persists: true,
        };
        Rc::new(Self { inner: RefCell::new(inner) })
    }

    /// Sends a request, its content as far as it is there, and waits for the answer's head; `told`
    /// hears of interim answers (1xx) before it. `unread`: the answer goes to a client of HTTP/1.1
    /// and nobody wants its fields, so that the head may come without them. A body of which nothing
    /// was asked for is handed back in an error; the head stays with its owner.
    ///
    /// # Errors
    /// [`Unanswered`], and the body where it is untouched.
    pub(in crate::proxy) async fn send(
        self: &Rc<Self>,
        head: &mut request::Parts,
        body: B,
        unread: bool,
        told: impl FnMut(&response::Parts),
    ) -> Result<Response<AnswerContent<B>>, (Unanswered, Option<B>)> {
        let untouched = self.inner.borrow_mut().begin(head, body);
        self.answer(unread, told).await.map_err(|unanswered| (unanswered, untouched))
    }

    /// The same for a head that is printed already.
    ///
    /// # Errors
    /// As [`Connection::send`].
    pub(in crate::proxy) async fn send_printed(
        self: &Rc<Self>,
        printed: &Printed,
        body: B,
    ) -> Result<Response<AnswerContent<B>>, (Unanswered, Option<B>)> {
        let untouched = self.inner.borrow_mut().begin_printed(printed, body);
        self.answer(false, |_| {}).await.map_err(|unanswered| (unanswered, untouched))
    }

    async fn answer(
        self: &Rc<Self>,
        unread: bool,
        mut told: impl FnMut(&response::Parts),
    ) -> Result<Response<AnswerContent<B>>, Unanswered> {
        let (written, read) = (self.written(), self.read());
        let answered =
            poll_fn(|cx| self.inner.borrow_mut().poll_answer(cx, unread, &mut told)).await;
        match answered {
            Ok(head) => Ok(Response::from_parts(head, AnswerContent(Rc::clone(self)))),
            Err(error) => {
                let (unsent, silent) = (self.written() == written, self.read() == read);
                Err(Unanswered { error, unsent, silent })
            }
        }
    }

    /// Sends what is left of the request, until its end or the connection's, whichever comes first
    /// once the answer is whole.
    pub(in crate::proxy) async fn send_rest(&self) {
        poll_fn(|cx| self.inner.borrow_mut().poll_rest(cx)).await;
    }

    /// Some of the request is still to be sent.
    pub(in crate::proxy) fn is_sending(&self) -> bool {
        let inner = self.inner.borrow();
        inner.sending.is_some() || !inner.wire.out.is_empty()
    }

    /// Whether the connection may carry another exchange now, as far as is known without asking the
    /// kernel.
    pub(in crate::proxy) fn is_ready(&self) -> bool {
        !self.is_sending() && self.persists() && {
            let inner = self.inner.borrow();
            inner.content.is_done() && inner.wire.seems_quiet()
        }
    }

    /// Whether the connection may ever carry another exchange.
    pub(in crate::proxy) fn persists(&self) -> bool {
        let inner = self.inner.borrow();
        inner.persists && !inner.write_broken && !inner.body_broke && !inner.wire.ended
    }
}

impl<B> Connection<B> {
    /// Bytes that the kernel took since the connection was made.
    pub(in crate::proxy) fn written(&self) -> u64 {
        self.inner.borrow().wire.written
    }

    pub(super) fn inner(&self) -> RefMut<'_, Inner<B>> {
        self.inner.borrow_mut()
    }

    /// Bytes that the kernel gave since the connection was made.
    fn read(&self) -> u64 {
        self.inner.borrow().wire.read
    }

    /// Whether the kernel refused bytes, so that not all was sent.
    pub(in crate::proxy) fn write_failed(&self) -> bool {
        self.inner.borrow().write_broken
    }

    /// Whether the peer reset the connection (RST, not FIN).
    pub(in crate::proxy) fn was_reset(&self) -> bool {
        self.inner.borrow().wire.reset
    }

    /// Whether the kernel knows of nothing that the peer said or did: no close, no byte unasked.
    pub(in crate::proxy) fn is_quiet(&self) -> bool {
        let inner = self.inner.borrow();
        let wire = &inner.wire;
        wire.is_untouched() && wire.stream().is_some_and(crate::proxy::io::is_quiet)
    }

    /// The socket is to be reset when it is closed, whatever the kernel still has to send.
    pub(in crate::proxy) fn abort(&self) {
        self.inner.borrow().wire.abort();
    }

    /// The socket, and what was read of it behind the answer's head: the connection's HTTP is over.
    pub(in crate::proxy) fn take(&self) -> Option<(TcpStream, BytesMut)> {
        self.inner.borrow_mut().wire.take()
    }
}

impl<B> Inner<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    /// Puts the head in front of what is to be sent. A body that has nothing to send is given back.
    fn begin(&mut self, head: &mut request::Parts, body: B) -> Option<B> {
        let encoder = print::frame_request(head, &body);
        print::request(self.wire.out.buffer(), head);
        self.head = self.wire.out.len();
        self.method = head.method.clone();
        self.seen = 0;
        match encoder {
            Some(encoder) => {
                self.sending = Some(Sending::new(body, encoder));
                None
            }
            None => Some(body),
        }
    }

    fn begin_printed(&mut self, printed: &Printed, body: B) -> Option<B> {
        self.wire.out.buffer().extend_from_slice(&printed.head);
        self.head = self.wire.out.len();
        self.method = printed.method.clone();
        self.seen = 0;
        match printed.framing {
            Some(framing) => {
                self.sending = Some(Sending::new(body, framing.into()));
                None
            }
            None => Some(body),
        }
    }

    fn poll_answer(
        &mut self,
        cx: &mut Context<'_>,
        unread: bool,
        told: &mut impl FnMut(&response::Parts),
    ) -> Poll<Result<response::Parts, Error>> {
        if let Poll::Ready(Err(error)) = self.poll_send(cx) {
            return Poll::Ready(Err(error));
        }
        loop {
            let answer = parse::answer(&mut self.wire.input, &mut self.seen, &self.method, unread)?;
            if let Some(answer) = answer {
                self.seen = 0;
                let status = answer.head.status;
                if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
                    told(&answer.head);
                    // 100 may have opened the gate before the body.
                    if let Poll::Ready(Err(error)) = self.poll_send(cx) {
                        return Poll::Ready(Err(error));
                    }
                    continue;
                }
                self.content = answer.content;
                self.persists = answer.persists;
                return Poll::Ready(Ok(answer.head));
            }
            if !ready!(self.wire.poll_read(cx))? {
                return Poll::Ready(Err(Error::Closed));
            }
        }
    }

    /// Sends as much as the socket takes and the body has. Ready once all has left.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        for _ in 0..TURN {
            let filled = self.fill(cx);
            let flushed = self.wire.poll_flush(cx);
            let waits = filled.inspect_err(|_| {
                // The upstream is to see that no more comes, whoever waits for its answer.
                self.wire.shut_down();
            })?;
            match flushed {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => {
                    tracing::debug!(%error, "an upstream takes no more of a request");
                    self.write_broken = true;
                    self.wire.out.clear();
                }
                Poll::Pending => return Poll::Pending,
            }
            if waits {
                return Poll::Pending;
            }
            if self.sending.is_none() {
                return Poll::Ready(Ok(()));
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // Whoever reads the answer learns of a body that broke.
        if self.poll_send(cx).is_ready() {
            return Poll::Ready(());
        }
        if !self.content.is_done() {
            self.sender = Some(cx.waker().clone());
            return Poll::Pending;
        }
        while let Poll::Ready(read) = self.wire.poll_read(cx) {
            if !matches!(read, Ok(true)) {
                // The upstream has closed and wants no more.
                self.persists = false;
                self.sending = None;
                self.wire.out.clear();
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }

    /// Takes from the body while there is room; true when it has nothing at the moment.
    fn fill(&mut self, cx: &mut Context<'_>) -> Result<bool, Error> {
        let Some(sending) = &mut self.sending else { return Ok(false) };
        let filled = sending.fill(cx, &mut self.wire.out);
        if self.write_broken {
            self.wire.out.clear();
        }
        match filled {
            Ok(Filled::Waits) => return Ok(true),
            Ok(Filled::Full) => {}
            Ok(Filled::Over) => self.sending = None,
            Err(error) => {
                self.body_broke = true;
                self.sending = None;
                // A malformed request is not to be passed on (RFC 9113, section 8.1.1), where
                // nothing of it has been yet.
                if self.wire.out.len() == self.head {
                    self.wire.out.clear();
                }
                return Err(error);
            }
        }
        Ok(false)
    }

    fn poll_content(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let polled = self.poll_frame(cx);
        if self.content.is_done()
            && let Some(sender) = self.sender.take()
        {
            sender.wake();
        }
        polled
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if self.body_broke {
            return Poll::Ready(Some(Err(Error::Body)));
        }
        self.content.poll_frame(&mut self.wire, cx)
    }
}

/// An answer's content. The connection stays its exchange's until it is done.
#[derive(Debug)]
pub(in crate::proxy) struct AnswerContent<B>(Rc<Connection<B>>);

impl<B> Body for AnswerContent<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        self.0.inner.borrow_mut().poll_content(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.inner.borrow().content.is_done()
    }

    fn size_hint(&self) -> SizeHint {
        let left = self.0.inner.borrow().content.left();
        left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

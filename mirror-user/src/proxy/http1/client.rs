//! The client's end of a connection: to a primary or a shadow. In: a request whose body is asked
//! for as the socket takes it. Out: the response's head, and a body that reads from this socket.
//!
//! A peer that answers early and closes makes our next write fail while its response lies in the
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
    Error, READ,
    body_writer::{BodyWriter, WriteProgress},
    buffered_io::BufferedIo,
    decode::BodyDecoder,
    encode_head::{self, EncodedHead},
    head_size, parse,
};
use crate::{
    memory::{ConnectionUsage, MemoryCharge},
    proxy::{
        io::{after_others, poll_budget},
        read_limit::{Element, UpstreamStream},
    },
};

/// Writes in a row before others have their turn: a copy is sent by another task, and holds what a
/// faster primary has taken meanwhile.
const TURN: usize = 4;

/// A connection to an upstream, which carries one exchange at a time.
#[derive(Debug)]
pub(in crate::proxy) struct ClientConnection<B> {
    inner: RefCell<Inner<B>>,
}

#[derive(Debug)]
pub(super) struct Inner<B> {
    pub(super) io: BufferedIo,
    /// The head of the response that is under way, where it is large.
    head_memory: MemoryCharge,
    /// What is left of the request's content.
    sending: Option<BodyWriter<B>>,
    /// How long the head is, while nothing of it has left.
    head: usize,
    /// The request's content broke: the message must not end as if it were whole.
    body_broke: bool,
    /// The kernel refused bytes.
    pub(super) write_broken: bool,
    method: Method,
    /// How much of a response's head was looked at in vain.
    pub(super) seen: usize,
    /// The response's content.
    pub(super) content: BodyDecoder,
    /// The head of a response that nobody reads was taken, its content was not.
    pub(super) discarding: bool,
    /// Status of that response, or of the last one.
    pub(super) discarded_status: u16,
    /// Whoever sends the rest of a request that is answered already.
    sender: Option<Waker>,
    /// Whoever waits until that was sent.
    idler: Option<Waker>,
    pub(super) persists: bool,
}

/// What an idle connection does on its own account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Idle {
    /// Bytes that no request asked for are there; [`ClientConnection::take`] hands them over.
    Unsolicited,
    /// FIN.
    Closed,
    /// RST, or the kernel has given the peer up.
    Reset,
}

/// A request that got no response's head.
#[derive(Debug)]
pub(in crate::proxy) struct SendError {
    pub(in crate::proxy) error: Error,
    /// The kernel took no byte of the request.
    pub(in crate::proxy) unsent: bool,
    /// The upstream sent no byte.
    pub(in crate::proxy) silent: bool,
}

impl<B> ClientConnection<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    /// A connection that nobody pays for.
    pub(in crate::proxy) fn new(stream: impl Into<UpstreamStream>) -> Rc<Self> {
        Self::paid(stream, MemoryCharge::default(), MemoryCharge::default())
    }

    /// A connection that is charged to a client.
    pub(in crate::proxy) fn charged(stream: TcpStream, memory: &Rc<ConnectionUsage>) -> Rc<Self> {
        Self::paid(stream, memory.held(0), memory.held(0))
    }

    fn paid(
        stream: impl Into<UpstreamStream>,
        buffers: MemoryCharge,
        head_memory: MemoryCharge,
    ) -> Rc<Self> {
        let inner = Inner {
            io: BufferedIo::new(stream, BytesMut::new(), buffers),
            head_memory,
            sending: None,
            head: 0,
            body_broke: false,
            write_broken: false,
            method: Method::GET,
            seen: 0,
            content: BodyDecoder::length(0),
            discarding: false,
            discarded_status: 0,
            sender: None,
            idler: None,
            persists: true,
        };
        Rc::new(Self { inner: RefCell::new(inner) })
    }

    /// Sends a request, its content as far as it is there, and waits for the response's head; `on_interim`
    /// is called with interim responses (1xx) before it. `unread`: the response goes to a client of HTTP/1.1
    /// and nobody wants its fields, so that the head may come without them. A body of which nothing
    /// was asked for is handed back in an error; the head stays with its owner.
    ///
    /// # Errors
    /// [`SendError`], and the body where it is untouched.
    pub(in crate::proxy) async fn send(
        self: &Rc<Self>,
        head: &mut request::Parts,
        body: B,
        unread: bool,
        on_interim: impl FnMut(&response::Parts),
    ) -> Result<Response<ResponseContent<B>>, (SendError, Option<B>)> {
        let untouched = self.inner.borrow_mut().begin(head, body);
        self.response(unread, on_interim).await.map_err(|error| (error, untouched))
    }

    /// The same for a head that is encoded already.
    ///
    /// # Errors
    /// As [`ClientConnection::send`].
    pub(in crate::proxy) async fn send_encoded(
        self: &Rc<Self>,
        encoded: &EncodedHead,
        body: B,
    ) -> Result<Response<ResponseContent<B>>, (SendError, Option<B>)> {
        let untouched = self.inner.borrow_mut().begin_encoded(encoded, body);
        self.response(false, |_| {}).await.map_err(|error| (error, untouched))
    }

    async fn response(
        self: &Rc<Self>,
        unread: bool,
        mut on_interim: impl FnMut(&response::Parts),
    ) -> Result<Response<ResponseContent<B>>, SendError> {
        let (written, read) = (self.written(), self.read());
        let result =
            poll_fn(|cx| self.inner.borrow_mut().poll_response(cx, unread, &mut on_interim)).await;
        match result {
            Ok(head) => Ok(Response::from_parts(head, ResponseContent(Rc::clone(self)))),
            Err(error) => {
                let (unsent, silent) = (self.written() == written, self.read() == read);
                Err(SendError { error, unsent, silent })
            }
        }
    }

    /// Sends what is left of the request, until its end or the connection's, whichever comes first
    /// once the response is whole.
    pub(in crate::proxy) async fn send_rest(&self) {
        poll_fn(|cx| self.inner.borrow_mut().poll_rest(cx)).await;
        let idler = self.inner.borrow_mut().idler.take();
        idler.into_iter().for_each(Waker::wake);
    }

    /// Some of the request is still to be sent.
    pub(in crate::proxy) fn is_sending(&self) -> bool {
        let inner = self.inner.borrow();
        inner.sending.is_some() || !inner.io.out.is_empty()
    }

    /// Whether the connection may carry another exchange now, as far as is known without asking the
    /// kernel.
    pub(in crate::proxy) fn is_ready(&self) -> bool {
        !self.is_sending() && self.persists() && {
            let inner = self.inner.borrow();
            inner.content.is_done() && inner.io.seems_quiet()
        }
    }

    /// Whether the connection may ever carry another exchange.
    pub(in crate::proxy) fn persists(&self) -> bool {
        let inner = self.inner.borrow();
        inner.persists && !inner.write_broken && !inner.body_broke && !inner.io.ended
    }
}

impl<B> ClientConnection<B> {
    /// Bytes that the kernel took since the connection was made.
    pub(in crate::proxy) fn written(&self) -> u64 {
        self.inner.borrow().io.written
    }

    pub(super) fn inner(&self) -> RefMut<'_, Inner<B>> {
        self.inner.borrow_mut()
    }

    /// Bytes that the kernel gave since the connection was made.
    fn read(&self) -> u64 {
        self.inner.borrow().io.read
    }

    /// Whether the kernel refused bytes, so that not all was sent.
    pub(in crate::proxy) fn write_failed(&self) -> bool {
        self.inner.borrow().write_broken
    }

    /// Whether the peer reset the connection (RST, not FIN).
    pub(in crate::proxy) fn was_reset(&self) -> bool {
        self.inner.borrow().io.reset
    }

    /// Whether the kernel knows of nothing that the peer said or did: no close, no byte unasked.
    pub(in crate::proxy) fn is_quiet(&self) -> bool {
        let inner = self.inner.borrow();
        let io = &inner.io;
        io.is_untouched() && io.stream().is_some_and(crate::proxy::io::is_quiet)
    }

    /// Has this task woken when the rest of a request was sent.
    pub(in crate::proxy) fn watch_sent(&self, cx: &Context<'_>) {
        self.inner.borrow_mut().idler = Some(cx.waker().clone());
    }

    /// Ready when the peer did something though no exchange is under way.
    pub(in crate::proxy) fn poll_idle(&self, cx: &mut Context<'_>) -> Poll<Idle> {
        let io = &mut self.inner.borrow_mut().io;
        if !io.input.is_empty() {
            return Poll::Ready(Idle::Unsolicited);
        }
        match io.stream() {
            // Asked first: a read makes room for what it may find.
            Some(stream) if !io.ended => drop(ready!(stream.poll_read_ready(cx))),
            _ => return Poll::Ready(Idle::Closed),
        }
        Poll::Ready(match ready!(io.poll_read(cx)) {
            Ok(true) => Idle::Unsolicited,
            Ok(false) => Idle::Closed,
            Err(_) => Idle::Reset,
        })
    }

    /// Gives back the memory of empty buffers.
    pub(in crate::proxy) fn shrink(&self) {
        let mut inner = self.inner.borrow_mut();
        inner.head_memory.shrink_to(0);
        inner.io.shrink();
    }

    /// The socket is to be reset when it is closed, whatever the kernel still has to send.
    pub(in crate::proxy) fn abort(&self) {
        self.inner.borrow().io.abort();
    }

    /// The socket, and what was read of it behind the response's head, or with it if it is unreadable:
    /// the connection's HTTP is over.
    pub(in crate::proxy) fn take(&self) -> Option<(TcpStream, BytesMut)> {
        self.inner.borrow_mut().io.take()
    }
}

impl<B> Inner<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    /// Puts the head in front of what is to be sent. A body that has nothing to send is given back.
    fn begin(&mut self, head: &mut request::Parts, body: B) -> Option<B> {
        self.head_memory.shrink_to(0);
        self.io.settle();
        let encoder = encode_head::frame_request(head, &body);
        encode_head::request(self.io.out.buffer(), head);
        self.head = self.io.out.len();
        self.method = head.method.clone();
        self.seen = 0;
        match encoder {
            Some(encoder) => {
                self.sending = Some(BodyWriter::new(body, encoder));
                None
            }
            None => Some(body),
        }
    }

    fn begin_encoded(&mut self, encoded: &EncodedHead, body: B) -> Option<B> {
        self.io.out.buffer().extend_from_slice(&encoded.head);
        self.head = self.io.out.len();
        self.method = encoded.method.clone();
        self.seen = 0;
        match encoded.framing {
            Some(framing) => {
                self.sending = Some(BodyWriter::new(body, framing.into()));
                None
            }
            None => Some(body),
        }
    }

    fn poll_response(
        &mut self,
        cx: &mut Context<'_>,
        unread: bool,
        on_interim: &mut impl FnMut(&response::Parts),
    ) -> Poll<Result<response::Parts, Error>> {
        if let Poll::Ready(Err(error)) = self.poll_send(cx) {
            return Poll::Ready(Err(error));
        }
        loop {
            let before = self.io.input.len();
            let response =
                parse::response(&mut self.io.input, &mut self.seen, &self.method, unread);
            let response = response.map_err(Error::Unreadable)?;
            if let Some(response) = response {
                self.seen = 0;
                self.io.found(Element::Head, 1);
                let length = before - self.io.input.len();
                self.head_memory.grow_to(head_size::of(length, &response.head.headers))?;
                let status = response.head.status;
                if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
                    on_interim(&response.head);
                    // 100 may have opened the gate before the body.
                    if let Poll::Ready(Err(error)) = self.poll_send(cx) {
                        return Poll::Ready(Err(error));
                    }
                    ready!(poll_budget(cx));
                    ready!(self.io.poll_turn(cx))?;
                    continue;
                }
                self.content = response.content;
                self.persists = response.persists;
                return Poll::Ready(Ok(response.head));
            }
            match ready!(self.io.poll_read(cx)) {
                Ok(true) => {}
                Ok(false) => return Poll::Ready(Err(Error::Closed)),
                // What is there may pass unread.
                Err(Error::Memory(exceeded)) => {
                    return Poll::Ready(Err(Error::Unreadable(exceeded.into())));
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Sends as much as the socket takes and the body has. Ready once all has left.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        for _ in 0..TURN {
            let filled = self.fill(cx);
            let flushed = self.io.poll_flush(cx);
            let waits = filled.inspect_err(|_| {
                // The upstream is to see that no more comes, whoever waits for its response.
                self.io.shut_down();
            })?;
            match flushed {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => {
                    tracing::debug!(%error, "an upstream takes no more of a request");
                    self.write_broken = true;
                    self.io.out.clear();
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
        after_others(cx);
        Poll::Pending
    }

    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // Whoever reads the response learns of a body that broke.
        if self.poll_send(cx).is_ready() {
            return Poll::Ready(());
        }
        if !self.content.is_done() {
            self.sender = Some(cx.waker().clone());
            return Poll::Pending;
        }
        while let Poll::Ready(read) = self.io.poll_read(cx) {
            if !matches!(read, Ok(true)) || self.io.input.len() > READ {
                // The upstream has closed and wants no more, or has more to say than its response.
                self.persists = false;
                self.sending = None;
                self.io.out.clear();
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }

    /// Takes from the body while there is room; true when it has nothing at the moment.
    fn fill(&mut self, cx: &mut Context<'_>) -> Result<bool, Error> {
        let Some(sending) = &mut self.sending else { return Ok(false) };
        let filled = sending.fill(cx, &mut self.io.out);
        if self.write_broken {
            self.io.out.clear();
        }
        match filled {
            Ok(WriteProgress::Waits) => return Ok(true),
            Ok(WriteProgress::Full) => {}
            Ok(WriteProgress::Over) => self.sending = None,
            Err(error) => {
                self.body_broke = true;
                self.sending = None;
                // A malformed request is not to be passed on (RFC 9113, section 8.1.1), where
                // nothing of it has been yet.
                if self.io.out.len() == self.head {
                    self.io.out.clear();
                }
                return Err(error);
            }
        }
        Ok(false)
    }

    fn poll_content(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let polled = self.poll_frame(cx);
        self.wake_sender();
        polled
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if self.body_broke {
            return Poll::Ready(Some(Err(Error::Body)));
        }
        self.content.poll_frame(&mut self.io, cx)
    }
}

impl<B> Inner<B> {
    /// Whoever sends the rest of a request goes on once the response is whole.
    pub(super) fn wake_sender(&mut self) {
        if self.content.is_done()
            && let Some(sender) = self.sender.take()
        {
            sender.wake();
        }
    }
}

/// A response's content. The connection stays its exchange's until it is done.
#[derive(Debug)]
pub(in crate::proxy) struct ResponseContent<B>(Rc<ClientConnection<B>>);

impl<B> Body for ResponseContent<B>
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

#[cfg(test)]
mod tests {
    use http_body_util::Empty;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    /// What is left of an upstream's words when they are no response, and what came behind them.
    async fn unreadable(words: &[&[u8]]) -> (SendError, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut upstream, _) = listener.accept().await.unwrap();
        let connection = ClientConnection::new(stream);
        let mut head = http::Request::new(()).into_parts().0;
        let sent = connection.send(&mut head, Empty::<Bytes>::new(), true, |_| {});
        let say = async {
            for word in words {
                upstream.write_all(word).await.unwrap();
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        let (sent, ()) = tokio::join!(sent, say);
        let (error, _) = sent.unwrap_err();
        let (mut stream, mut rest) = connection.take().unwrap();
        upstream.write_all(b"more").await.unwrap();
        drop(upstream);
        stream.read_buf(&mut rest).await.unwrap();
        (error, rest.to_vec())
    }

    #[tokio::test]
    async fn what_is_no_response_stays_unread() {
        for words in [
            &[&b"garbage\r\nand so on"[..]][..],
            &[b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n", b"Content-Length: 2\r\n\r\nab"],
            &[b"HTTP/1.1 200 OK\r\nX : y\r\n(Content-Length): 1\r\n", b"\r\nab"],
            &[b"HTTP/2.0 200 OK\r\n\r\n"],
        ] {
            let (error, rest) = unreadable(words).await;
            assert!(matches!(error.error, Error::Unreadable(_)), "{error:?}");
            assert!(!error.silent && !error.unsent);
            let all = [&words.concat()[..], b"more"].concat();
            assert_eq!(rest.escape_ascii().to_string(), all.escape_ascii().to_string());
        }
    }

    #[tokio::test]
    async fn only_interim_responses_before_it_are_read() {
        let interim = b"HTTP/1.1 103 Early Hints\r\nLink : x\r\n\r\n";
        let (error, rest) = unreadable(&[interim, b"nonsense\r\n"]).await;
        assert!(matches!(error.error, Error::Unreadable(_)), "{error:?}");
        assert_eq!(rest, b"nonsense\r\nmore");
    }
}

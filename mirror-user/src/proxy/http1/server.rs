//! The server's end of a connection: a client's. In: bytes. Out: requests, one at a time, each with
//! a body that reads from this socket when it is asked for; answers go back the same way.

use std::{
    cell::RefCell,
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{Extensions, HeaderMap, Method, Response, StatusCode, Version, header, request};
use hyper::body::{Body, Frame, SizeHint};
use tokio::{net::TcpStream, time::timeout};

use super::{
    Error, HeadError,
    body_writer::{BodyWriter, WriteProgress},
    buffered_io::BufferedIo,
    decode::{BodyDecoder, ChunkStep},
    encode_head::{self, ConnectionNext},
    first_line::FirstLine,
    head_size, parse,
    write_buffer::WriteBuffer,
};
use crate::memory::{ConnectionUsage, MemoryCharge};

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// How often a client is looked at whose request is answered and not read to its end.
const LOOK: Duration = Duration::from_secs(1);

/// Of a request's unread content, so much is read and dropped to keep the connection, in bytes.
const DRAINED: u64 = 64 * 1024;

/// A client's connection.
#[derive(Debug)]
pub(in crate::proxy) struct ServerConnection(RefCell<Inner>);

#[derive(Debug)]
struct Inner {
    io: BufferedIo,
    /// The head of the request that is under way, where it is large.
    head: MemoryCharge,
    /// How much of a head was looked at in vain.
    seen: usize,
    /// The content of the request that is under way.
    content: BodyDecoder,
    /// Somebody holds its body.
    held: bool,
    /// The client waits for 100 before it sends its content.
    expects: bool,
    /// The body was asked for and has nothing: whoever asked is told when the socket has something.
    awaited: bool,
    /// Waits for the body's end, or until it may ask the socket itself.
    watcher: Option<Waker>,
}

/// What comes next on a connection.
#[derive(Debug)]
pub(in crate::proxy) enum NextHead {
    Request(Box<request::Parts>, RequestContent, ResponseToken),
    /// The client closed its side between two requests.
    End,
    /// No request: it is to be told so.
    Malformed(HeadError, FirstLine),
    /// The connection broke, or ended within a head.
    Failed(Error),
}

/// What a response depends on beside its own head.
#[derive(Clone, Copy, Debug)]
pub(in crate::proxy) struct ResponseToken(encode_head::ResponseContext);

impl ServerConnection {
    /// `first`: what was read of the socket already; `memory`: of the connection.
    pub(in crate::proxy) fn new(
        stream: TcpStream,
        first: BytesMut,
        memory: &Rc<ConnectionUsage>,
    ) -> Rc<Self> {
        let charge = memory.held(BufferedIo::beyond_first(&first));
        Rc::new(Self(RefCell::new(Inner {
            io: BufferedIo::new(stream, first, charge),
            head: memory.held(0),
            seen: 0,
            content: BodyDecoder::length(0),
            held: false,
            expects: false,
            awaited: false,
            watcher: None,
        })))
    }

    /// The next request's head. To be asked for once the last request's body is over.
    pub(in crate::proxy) fn poll_head(self: &Rc<Self>, cx: &mut Context<'_>) -> Poll<NextHead> {
        let next = ready!(self.0.borrow_mut().poll_head(cx));
        Poll::Ready(match next {
            Ok(Some((head, context))) => {
                NextHead::Request(head, RequestContent(Rc::clone(self)), context)
            }
            Ok(None) => NextHead::End,
            Err(Error::Head(error)) => {
                NextHead::Malformed(error, FirstLine::of(&self.0.borrow().io.input))
            }
            Err(error) => NextHead::Failed(error),
        })
    }

    /// Whether a head has begun that is not yet whole.
    pub(in crate::proxy) fn is_within_head(&self) -> bool {
        !self.0.borrow().io.input.is_empty()
    }

    /// Ready when the client has reset the connection. (One that only closes its side still waits
    /// for its response.) Interim responses leave meanwhile.
    pub(in crate::proxy) fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<Error> {
        self.0.borrow_mut().poll_gone(cx)
    }

    /// Whether all of the last request was read.
    pub(in crate::proxy) fn is_request_over(&self) -> bool {
        self.0.borrow().content.is_done()
    }

    /// An interim response (1xx), which leaves with the next look at the client. One that finds no room
    /// is dropped: it is of no use to a client that does not read.
    pub(in crate::proxy) fn interim(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        as_it_came: &Extensions,
    ) {
        let out = &mut self.0.borrow_mut().io.out;
        if out.has_room() {
            encode_head::interim(out.buffer(), status, headers, as_it_came);
        }
    }

    /// Sends a response to its end; what comes after it.
    ///
    /// # Errors
    /// The client is gone, or the body broke: what was there of it has left.
    pub(in crate::proxy) async fn respond<B>(
        &self,
        response: Response<B>,
        context: ResponseToken,
    ) -> Result<ConnectionNext, Error>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let (mut head, body) = response.into_parts();
        let (encoder, next) = encode_head::frame_response(&mut head, &body, context.0);
        let mut out = self.take_write_buffer();
        encode_head::response(out.buffer(), &head, context.0.version);
        drop(head);
        // A body that is not sent ends here.
        let mut sending = encoder.map(|encoder| BodyWriter::new(body, encoder));
        let mut broken = None;
        poll_fn(|cx| self.poll_response(cx, &mut out, &mut sending, &mut broken)).await?;
        // Its buffer serves for the next response.
        self.0.borrow_mut().io.out = out;
        match broken {
            Some(error) => Err(error),
            None => Ok(next),
        }
    }

    // The body is asked while nothing of the connection is borrowed: its end may drop the request's
    // body, which looks at the connection.
    fn poll_response<B>(
        &self,
        cx: &mut Context<'_>,
        out: &mut WriteBuffer,
        sending: &mut Option<BodyWriter<B>>,
        broken: &mut Option<Error>,
    ) -> Poll<Result<(), Error>>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        loop {
            let mut waits = false;
            if let Some(content) = sending {
                match content.fill(cx, out) {
                    Ok(WriteProgress::Waits) => waits = true,
                    Ok(WriteProgress::Full) => {}
                    Ok(WriteProgress::Over) => *sending = None,
                    Err(error) => {
                        *broken = Some(error);
                        *sending = None;
                    }
                }
            }
            let mut inner = self.0.borrow_mut();
            std::mem::swap(&mut inner.io.out, out);
            let flushed = inner.io.poll_flush(cx);
            std::mem::swap(&mut inner.io.out, out);
            ready!(flushed)?;
            if waits {
                return inner.poll_gone(cx).map(Err);
            }
            if sending.is_none() {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// What waits to be written: interim responses go before the response.
    fn take_write_buffer(&self) -> WriteBuffer {
        std::mem::take(&mut self.0.borrow_mut().io.out)
    }

    /// Waits until nobody reads the last request's body any more, then reads what is left of it if
    /// it is there. False: the client is gone, or more may come, and what comes next cannot be told
    /// from it.
    pub(in crate::proxy) async fn finish_request(&self) -> bool {
        let over = || poll_fn(|cx| self.0.borrow_mut().poll_closed(cx));
        if !self.0.borrow().is_over() {
            // A primary that has answered may read no more of the request: bytes lie unread, so that
            // the runtime has told all that it tells of this socket.
            while timeout(LOOK, over()).await.is_err() {
                if self.0.borrow().has_failed() {
                    return false;
                }
            }
        }
        poll_fn(|cx| Poll::Ready(self.0.borrow_mut().finish(cx))).await
    }

    /// The client waits for 100 before it sends its content.
    pub(in crate::proxy) fn expects(&self) -> bool {
        self.0.borrow().expects
    }

    /// Says why there is no response, and that the connection ends.
    pub(in crate::proxy) async fn refuse(&self, error: HeadError) {
        let status = error.status();
        let reason = status.canonical_reason().unwrap_or("");
        let line = format!(
            "HTTP/1.1 {} {reason}\r\nconnection: close\r\ncontent-length: 0\r\n\
             x-mirror-reason: mirror: {error}\r\n\r\n",
            status.as_str()
        );
        self.0.borrow_mut().io.out.buffer().extend_from_slice(line.as_bytes());
        // A client that is gone learns nothing.
        let _ = poll_fn(|cx| self.0.borrow_mut().io.poll_flush(cx)).await;
    }

    /// The socket, and what was read behind the last request; the connection's HTTP is over.
    pub(in crate::proxy) fn take(&self) -> Option<(TcpStream, BytesMut)> {
        self.0.borrow_mut().io.take()
    }
}

/// A request's head, and what the response to it needs to know of it.
type ReadHead = (Box<request::Parts>, ResponseToken);

impl Inner {
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<ReadHead>, Error>> {
        loop {
            let before = self.io.input.len();
            if let Some(parsed_request) = parse::request(&mut self.io.input, &mut self.seen)? {
                self.seen = 0;
                let length = before - self.io.input.len();
                self.head
                    .grow_to(head_size::of(length, &parsed_request.head.headers))
                    .map_err(HeadError::Memory)?;
                self.content = parsed_request.content;
                self.held = true;
                let head = parsed_request.head;
                let expected = head.headers.get(header::EXPECT);
                self.expects = head.version == Version::HTTP_11
                    && expected.is_some_and(|e| e.as_bytes().eq_ignore_ascii_case(b"100-continue"));
                let context = ResponseToken(encode_head::ResponseContext {
                    head: head.method == Method::HEAD,
                    connect: head.method == Method::CONNECT,
                    version: head.version,
                    persists: parsed_request.persists,
                });
                return Poll::Ready(Ok(Some((head, context))));
            }
            let read = match ready!(self.io.poll_read(cx)) {
                Err(Error::Memory(exceeded)) => Err(HeadError::Memory(exceeded).into()),
                read => read,
            };
            if !read? {
                let clean = self.io.input.is_empty();
                return Poll::Ready(if clean { Ok(None) } else { Err(Error::Closed) });
            }
        }
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        if let Poll::Ready(Err(error)) = self.io.poll_flush(cx) {
            return Poll::Ready(error.into());
        }
        // Whoever waits for content learns of a reset by reading, and has the socket's one place
        // for a reader.
        if self.awaited {
            self.watch(cx);
            return Poll::Pending;
        }
        let Some(stream) = self.io.stream() else { return Poll::Ready(Error::Closed) };
        if stream.poll_read_ready(cx).is_ready() {
            match stream.take_error() {
                Ok(None) => {}
                Ok(Some(error)) | Err(error) => return Poll::Ready(error.into()),
            }
        }
        Poll::Pending
    }

    fn is_over(&self) -> bool {
        !self.held || self.content.is_done()
    }

    /// Whether the client has reset the connection, as the kernel knows.
    fn has_failed(&self) -> bool {
        self.io.stream().is_none_or(|stream| !matches!(stream.take_error(), Ok(None)))
    }

    fn poll_closed(&mut self, cx: &Context<'_>) -> Poll<()> {
        if self.is_over() {
            return Poll::Ready(());
        }
        self.watch(cx);
        Poll::Pending
    }

    /// Nothing of the last request is held any more.
    fn finish(&mut self, cx: &mut Context<'_>) -> bool {
        let finished = self.drain(cx);
        self.head.shrink_to(0);
        self.io.settle();
        finished
    }

    fn drain(&mut self, cx: &mut Context<'_>) -> bool {
        let mut left = DRAINED;
        loop {
            // Whose rest is that much work is not waited for either.
            if self.content.poll_turn(cx).is_pending() {
                return false;
            }
            match self.content.decode(&mut self.io.input) {
                Ok(ChunkStep::End | ChunkStep::Trailers(_)) => return true,
                Ok(ChunkStep::Data(data)) => match left.checked_sub(data.len() as u64) {
                    Some(rest) => left = rest,
                    None => return false,
                },
                Ok(ChunkStep::More) => {
                    if !matches!(self.io.poll_read(cx), Poll::Ready(Ok(true))) {
                        return false;
                    }
                }
                Err(_) => return false,
            }
        }
    }

    fn poll_content(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let polled = self.poll_frame(cx);
        self.awaited = polled.is_pending();
        if !self.awaited
            && let Some(watcher) = self.watcher.take()
            && !watcher.will_wake(cx.waker())
        {
            watcher.wake();
        }
        polled
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if std::mem::take(&mut self.expects) && !self.content.is_done() && self.io.out.has_room() {
            self.io.out.buffer().extend_from_slice(CONTINUE);
            // What does not leave now leaves with the next look at the client.
            if let Poll::Ready(Err(error)) = self.io.poll_flush(cx) {
                return Poll::Ready(Some(Err(error.into())));
            }
        }
        self.content.poll_frame(&mut self.io, cx)
    }

    fn watch(&mut self, cx: &Context<'_>) {
        match &mut self.watcher {
            Some(watcher) => watcher.clone_from(cx.waker()),
            None => self.watcher = Some(cx.waker().clone()),
        }
    }
}

/// The content of a client's request. Dropped before its end, the connection knows that nobody
/// reads it any more.
#[derive(Debug)]
pub(in crate::proxy) struct RequestContent(Rc<ServerConnection>);

impl Drop for RequestContent {
    fn drop(&mut self) {
        let mut inner = self.0.0.borrow_mut();
        inner.held = false;
        inner.awaited = false;
        let watcher = inner.watcher.take();
        drop(inner);
        watcher.into_iter().for_each(Waker::wake);
    }
}

impl Body for RequestContent {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        self.0.0.borrow_mut().poll_content(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.0.borrow().content.is_done()
    }

    fn size_hint(&self) -> SizeHint {
        let left = self.0.0.borrow().content.left();
        left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

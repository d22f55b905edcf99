//! The client's end of a connection whose responses nobody reads: requests without content, several
//! on their way at a time (RFC 9112, section 9.3.2). In: encoded heads. Out: for each, in their
//! order, that its response came to its end.

use std::task::{Context, Poll, ready};

use super::{
    Error,
    client::{ClientConnection, Inner},
    decode::Discarded,
    encode_head::EncodedHead,
    parse,
};
use crate::proxy::read_limit::Element;

/// Where a request lies among the bytes of its connection, the first and the one behind the last.
#[derive(Clone, Copy, Debug)]
pub(in crate::proxy) struct Span {
    from: u64,
    to: u64,
}

/// How much of a request the kernel took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Written {
    Nothing,
    Some,
    All,
}

impl<B> ClientConnection<B> {
    /// Puts a request behind those that wait to be written. `last`: it says so, and the server is
    /// to close after its response.
    pub(in crate::proxy) fn queue(&self, encoded: &EncodedHead, last: bool) -> Span {
        let io = &mut self.inner().io;
        let from = io.written + io.out.len() as u64;
        let buffer = io.out.buffer();
        if last && let Some(open) = encoded.head.strip_suffix(b"\r\n") {
            buffer.extend_from_slice(open);
            buffer.extend_from_slice(b"Connection: close\r\n\r\n");
        } else {
            buffer.extend_from_slice(&encoded.head);
        }
        Span { from, to: io.written + io.out.len() as u64 }
    }

    /// Whether another request may be queued before something has left.
    pub(in crate::proxy) fn has_room(&self) -> bool {
        self.inner().io.out.has_room()
    }

    /// Writes what was queued.
    ///
    /// # Errors
    /// What the kernel says; it takes no more.
    pub(in crate::proxy) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let inner = &mut *self.inner();
        let flushed = ready!(inner.io.poll_flush(cx));
        inner.write_broken |= flushed.is_err();
        Poll::Ready(flushed.map_err(Error::Io))
    }

    /// Reads the next response to its end and drops it; whether the server takes more requests.
    ///
    /// # Errors
    /// The connection ended before the response's end, or what came is no response.
    pub(in crate::proxy) fn poll_discard_response(
        &self,
        cx: &mut Context<'_>,
        to: &EncodedHead,
    ) -> Poll<Result<bool, Error>> {
        self.inner().poll_discard_response(cx, to)
    }

    /// The same for a response whose head was taken already: reads its content to its end and drops it.
    ///
    /// # Errors
    /// The connection ended before the response's end, or what came is no content.
    pub(in crate::proxy) fn poll_discard_content(
        &self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Error>> {
        let inner = &mut *self.inner();
        let passed = ready!(inner.poll_discard_content(cx));
        inner.wake_sender();
        Poll::Ready(passed)
    }

    /// Whether the head of the next response is there, and not all of its content.
    pub(in crate::proxy) fn is_discarding(&self) -> bool {
        self.inner().discarding
    }

    /// Status of the response whose head [`ClientConnection::poll_discard_response`] has taken last.
    pub(in crate::proxy) fn discarded_status(&self) -> u16 {
        self.inner().discarded_status
    }

    /// Ready when an idle connection is of no more use: the server has closed it, or said something
    /// unasked.
    pub(in crate::proxy) fn poll_closed(&self, cx: &mut Context<'_>) -> Poll<()> {
        let inner = self.inner();
        let Some(stream) = inner.io.stream() else { return Poll::Ready(()) };
        if !inner.io.is_untouched() {
            return Poll::Ready(());
        }
        loop {
            // How it failed is of no interest.
            let _ = ready!(stream.poll_read_ready(cx));
            if !inner.io.seems_quiet() {
                return Poll::Ready(());
            }
        }
    }

    /// How much of a request the kernel took.
    pub(in crate::proxy) fn written_of(&self, span: Span) -> Written {
        match self.written() {
            written if written <= span.from => Written::Nothing,
            written if written < span.to => Written::Some,
            _ => Written::All,
        }
    }
}

impl<B> Inner<B> {
    fn poll_discard_response(
        &mut self,
        cx: &mut Context<'_>,
        to: &EncodedHead,
    ) -> Poll<Result<bool, Error>> {
        loop {
            if !self.discarding
                && let Some(summary) =
                    parse::parse_summary(&mut self.io.input, &mut self.seen, &to.method)?
            {
                self.seen = 0;
                self.io.found(Element::Head, 1);
                if summary.interim {
                    ready!(self.io.poll_turn(cx))?;
                    continue;
                }
                (self.content, self.persists) = (summary.content, summary.persists);
                self.discarded_status = summary.status;
                self.discarding = true;
            }
            if self.discarding {
                ready!(self.poll_discard_content(cx))?;
                self.discarding = false;
                return Poll::Ready(Ok(self.persists));
            }
            if !ready!(self.io.poll_read(cx))? {
                return Poll::Ready(Err(Error::Closed));
            }
        }
    }

    fn poll_discard_content(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        loop {
            let Discarded { over, chunks, stopped } = self.content.discard(&mut self.io.input)?;
            self.io.found(Element::Chunk, chunks);
            if stopped {
                ready!(self.io.poll_turn(cx))?;
                continue;
            }
            if over {
                self.io.rejoin();
                return Poll::Ready(Ok(()));
            }
            if !ready!(self.io.poll_read(cx))? {
                self.content.close()?;
            }
        }
    }
}

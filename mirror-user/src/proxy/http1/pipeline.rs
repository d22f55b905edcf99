//! The client's end of a connection whose answers nobody reads: requests without content, several
//! on their way at a time (RFC 9112, section 9.3.2). In: printed heads. Out: for each, in their
//! order, that its answer came to its end.

use std::task::{Context, Poll, ready};

use super::{
    Error,
    client::{Connection, Inner},
    parse,
    print::Printed,
};

/// Where a request lies among the bytes of its connection, the first and the one behind the last.
#[derive(Clone, Copy, Debug)]
pub(in crate::proxy) struct Span {
    from: u64,
    to: u64,
}

/// How much of a request the kernel took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Left {
    Nothing,
    Some,
    All,
}

impl<B> Connection<B> {
    /// Puts a request behind those that wait to be written. `last`: it says so, and the server is
    /// to close after its answer.
    pub(in crate::proxy) fn queue(&self, printed: &Printed, last: bool) -> Span {
        let wire = &mut self.inner().wire;
        let from = wire.written + wire.out.len() as u64;
        let buffer = wire.out.buffer();
        if last && let Some(open) = printed.head.strip_suffix(b"\r\n") {
            buffer.extend_from_slice(open);
            buffer.extend_from_slice(b"Connection: close\r\n\r\n");
        } else {
            buffer.extend_from_slice(&printed.head);
        }
        Span { from, to: wire.written + wire.out.len() as u64 }
    }

    /// Whether another request may be queued before something has left.
    pub(in crate::proxy) fn has_room(&self) -> bool {
        self.inner().wire.out.has_room()
    }

    /// Writes what was queued.
    ///
    /// # Errors
    /// What the kernel says; it takes no more.
    pub(in crate::proxy) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let inner = &mut *self.inner();
        let flushed = ready!(inner.wire.poll_flush(cx));
        inner.write_broken |= flushed.is_err();
        Poll::Ready(flushed.map_err(Error::Io))
    }

    /// Reads the next answer to its end and drops it; whether the server takes more requests.
    ///
    /// # Errors
    /// The connection ended before the answer's end, or what came is no answer.
    pub(in crate::proxy) fn poll_passed(
        &self,
        cx: &mut Context<'_>,
        to: &Printed,
    ) -> Poll<Result<bool, Error>> {
        self.inner().poll_passed(cx, to)
    }

    /// Ready when an idle connection is of no more use: the server has closed it, or said something
    /// unasked.
    pub(in crate::proxy) fn poll_over(&self, cx: &mut Context<'_>) -> Poll<()> {
        let inner = self.inner();
        let Some(stream) = inner.wire.stream() else { return Poll::Ready(()) };
        if !inner.wire.is_untouched() {
            return Poll::Ready(());
        }
        loop {
            // How it failed is of no interest.
            let _ = ready!(stream.poll_read_ready(cx));
            if !inner.wire.seems_quiet() {
                return Poll::Ready(());
            }
        }
    }

    /// How much of a request the kernel took.
    pub(in crate::proxy) fn left(&self, span: Span) -> Left {
        match self.written() {
            written if written <= span.from => Left::Nothing,
            written if written < span.to => Left::Some,
            _ => Left::All,
        }
    }
}

impl<B> Inner<B> {
    fn poll_passed(&mut self, cx: &mut Context<'_>, to: &Printed) -> Poll<Result<bool, Error>> {
        loop {
            if !self.passing
                && let Some(skimmed) =
                    parse::skim(&mut self.wire.input, &mut self.seen, &to.method)?
            {
                self.seen = 0;
                if skimmed.interim {
                    continue;
                }
                (self.content, self.persists) = (skimmed.content, skimmed.persists);
                self.passing = true;
            }
            if self.passing && self.content.pass_over(&mut self.wire.input)? {
                self.passing = false;
                return Poll::Ready(Ok(self.persists));
            }
            if !ready!(self.wire.poll_read(cx))? {
                if !self.passing {
                    return Poll::Ready(Err(Error::Closed));
                }
                self.content.close()?;
            }
        }
    }
}

//! Copies without content on one connection, as many on their way as its [`PooledConnection`] takes. In:
//! copies, from the queue. Out: an outcome for each, and what becomes of the connection.

use std::{
    collections::VecDeque,
    rc::Rc,
    task::{Context, Poll},
    time::Instant,
};

use super::{
    connection_task::unknown, copy::Copy, endpoint_pool::EndpointPool, head::Http1Head, outcome,
    pooled_connection::PooledConnection,
};
use crate::{
    outcome::{CopyOutcome, DropReason},
    proxy::http1::{Error, Span, Written},
};

/// How often a copy may move to another connection.
const MOVES: u8 = 3;

/// What becomes of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PipelineEnd {
    /// All is answered; it may carry more.
    Reusable,
    /// It is over; the shadow ended it properly, or we did.
    Closed,
}

/// Copies on their way.
pub(super) struct Pipeline<'a> {
    pool: &'a Rc<EndpointPool>,
    pooled: &'a PooledConnection,
    sent: VecDeque<InFlight>,
    /// Taken from the queue so far.
    taken: u32,
    /// When the last response ended.
    ended: Option<Instant>,
    /// The first copy.
    first: Option<Copy<Http1Head>>,
    began: Instant,
}

struct InFlight {
    copy: Copy<Http1Head>,
    span: Span,
    at: Instant,
    /// When the head of its response was there, where the rest took longer.
    responded: Option<Instant>,
}

impl<'a> Pipeline<'a> {
    /// `taken`: copies that the connection carried before.
    pub(super) fn new(
        pool: &'a Rc<EndpointPool>,
        pooled: &'a PooledConnection,
        first: Copy<Http1Head>,
        taken: u32,
    ) -> Self {
        Self {
            pool,
            pooled,
            sent: VecDeque::new(),
            taken,
            ended: None,
            first: Some(first),
            began: pooled.since(),
        }
    }

    /// Sends what there is and reads what comes, until nothing is on its way.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<PipelineEnd> {
        self.pooled.listen(cx.waker());
        loop {
            self.queue();
            // A server that closes may have answered before: that is read first.
            let _ = self.pooled.connection.poll_flush(cx);
            let Some(oldest) = self.sent.front() else { return Poll::Ready(self.end_state()) };
            match self.pooled.connection.poll_discard_response(cx, &oldest.copy.head.encoded) {
                Poll::Pending if self.pooled.is_timed_out() => {
                    self.time_out();
                    return Poll::Ready(PipelineEnd::Closed);
                }
                Poll::Pending => {
                    self.note_head();
                    return Poll::Pending;
                }
                Poll::Ready(Ok(persists)) => {
                    self.settle();
                    if !persists {
                        self.pool.health.record_response(true);
                        self.end(None);
                        return Poll::Ready(PipelineEnd::Closed);
                    }
                }
                Poll::Ready(Err(error)) => {
                    let unsent = self.pooled.connection.written_of(oldest.span) == Written::Nothing;
                    if !unsent && self.pooled.limit.exceeded().is_none() {
                        self.pool.health.record_response(false);
                    }
                    self.end(Some(&error));
                    return Poll::Ready(PipelineEnd::Closed);
                }
            }
        }
    }

    /// Copies taken from the queue so far.
    pub(super) fn taken(&self) -> u32 {
        self.taken
    }

    fn end_state(&self) -> PipelineEnd {
        if self.pooled.is_last(self.taken) { PipelineEnd::Closed } else { PipelineEnd::Reusable }
    }

    fn queue(&mut self) {
        while self.pooled.connection.has_room() {
            let Some((copy, at)) = self.next() else { return };
            // One that bears no company was handed over only while the connection was idle.
            self.taken += 1;
            let last = self.pooled.is_last(self.taken);
            let span = self.pooled.connection.queue(&copy.head.encoded, last);
            self.pooled.limit.begin();
            self.sent.push_back(InFlight { at, copy, span, responded: None });
        }
    }

    /// The next copy, and since when this connection has it: those that the pool handed over, then
    /// those that wait for any connection.
    fn next(&mut self) -> Option<(Copy<Http1Head>, Instant)> {
        if let Some(copy) = self.first.take() {
            return Some((copy, self.began));
        }
        if let Some(copy) = self.pooled.next() {
            let at = copy.guard.started();
            return Some((copy, at));
        }
        if !self.pool.has_waiting() {
            return None;
        }
        let now = Instant::now();
        let copy = self.pool.next_pipelined(self.pooled, now)?;
        self.pooled.begin(&copy, now);
        Some((copy, now))
    }

    /// The oldest is answered.
    fn settle(&mut self) {
        let Some(sent) = self.sent.pop_front() else { return };
        self.observe(&sent);
        self.pooled.limit.end();
        self.pooled.response_done(self.sent.front().map(|next| next.at));
        sent.copy.guard.settle(CopyOutcome::Delivered, 0);
    }

    /// The head of the oldest one's response may be there, and not all of its content.
    fn note_head(&mut self) {
        if self.pooled.connection.is_discarding()
            && let Some(oldest) = self.sent.front_mut()
        {
            oldest.responded.get_or_insert_with(Instant::now);
        }
    }

    /// Reports a response: how long its head took since the shadow could turn to it, which is when the copy
    /// was sent, or the response before it ended.
    fn observe(&mut self, sent: &InFlight) {
        let now = Instant::now();
        let since = self.ended.map_or(sent.at, |ended| ended.max(sent.at));
        let after = sent.responded.unwrap_or(now).saturating_duration_since(since);
        self.ended = Some(now);
        sent.copy.guard.responded(self.pooled.connection.discarded_status(), after);
    }

    /// The shadow ended the connection: with the last response, or (`error`) before the next.
    fn end(&mut self, error: Option<&Error>) {
        self.pooled.close();
        let unsent = self.first.take().into_iter().chain(std::iter::from_fn(|| self.pooled.next()));
        let unsent: Vec<_> = unsent.collect();
        // The oldest may have caused a close without a word; what is behind it was lost to it.
        if self.sent.len() > usize::from(error.is_some()) {
            self.pool.http1.stop_pipelining();
        }
        let why = unknown(&self.pooled.limit, error.is_some_and(Error::is_malformed));
        self.settle_responding();
        for InFlight { copy, span, .. } in self.sent.drain(..) {
            let written = self.pooled.connection.written_of(span);
            // A server that said close must not process what lies behind (RFC 9112, section
            // 9.6). Some do (Node); these are safe methods.
            match outcome::pipelined_closed(written, why).filter(|_| error.is_some()) {
                None => resend(self.pool, copy),
                Some(outcome) => copy.guard.settle(outcome, 0),
            }
        }
        unsent.into_iter().for_each(|copy| resend(self.pool, copy));
    }

    /// A copy whose response's head is there is delivered, whatever becomes of the rest.
    fn settle_responding(&mut self) {
        if self.pooled.connection.is_discarding()
            && let Some(sent) = self.sent.pop_front()
        {
            self.observe(&sent);
            sent.copy.guard.settle(CopyOutcome::Delivered, 0);
        }
    }

    /// No response came in time: what is on its way is not waited for any more.
    fn time_out(&mut self) {
        self.pooled.close();
        self.pooled.connection.abort();
        self.settle_responding();
        for InFlight { copy, span, .. } in self.sent.drain(..) {
            let written = self.pooled.connection.written_of(span);
            copy.guard.settle(outcome::pipelined_timed_out(written), 0);
        }
        let unsent = self.first.take().into_iter().chain(std::iter::from_fn(|| self.pooled.next()));
        for copy in unsent {
            copy.guard.settle(CopyOutcome::Dropped(DropReason::SendTimeout), 0);
        }
    }
}

/// To another connection, by itself.
fn resend(pool: &Rc<EndpointPool>, mut copy: Copy<Http1Head>) {
    if copy.moves >= MOVES {
        return copy.guard.settle(CopyOutcome::Dropped(DropReason::ShadowClosed), 0);
    }
    copy.moves += 1;
    copy.head.pipelined = false;
    pool.dispatch_http1(copy);
}

#[cfg(test)]
mod tests;

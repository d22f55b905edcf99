//! What one connection to a shadow may read. In: the responses that it owes, what was read of it. Out:
//! how much may be read now, or when; or why it is to be closed.

use std::{
    cell::{Cell, RefCell},
    io,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use super::{CREDIT, Element, EndpointReads, FLOOD, READ, ReadExceeded, TOLERATED, TURN};
use crate::proxy::io::after_others;

/// How much of what carries no content a connection may have earned by what was sent on it, in bytes.
const MOST_EARNED: i64 = 64 << 20;

/// How responses share the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum ConnectionMode {
    /// One after the other (HTTP/1).
    Serial,
    /// On streams (HTTP/2).
    Streams,
}

/// A connection's share, and what it has used of it.
pub(in crate::proxy) struct ReadLimit {
    endpoint: Rc<EndpointReads>,
    mode: ConnectionMode,
    /// Responses that the shadow owes.
    pending_responses: Cell<i64>,
    /// What may be read as it comes.
    credit: Cell<i64>,
    /// It is beyond its credit, and read once per tick.
    paced: Cell<bool>,
    /// The last tick that was looked at.
    tick: Cell<u64>,
    /// What is left of that tick, for one that is paced.
    left: Cell<i64>,
    /// It has read all that there was, or all that it may, in that tick.
    done: Cell<bool>,
    /// What is left of its turn.
    turn: Cell<i64>,
    /// Read beyond the credit: of the responses under way, and of what nobody asked for. The latter is below
    /// zero while there is more to acknowledge than was acknowledged.
    content: Cell<i64>,
    overhead: Cell<i64>,
    exceeded: Cell<Option<ReadExceeded>>,
    /// Who is woken when the next tick begins.
    reader: RefCell<Option<Waker>>,
}

/// What may be read now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ReadAllowance {
    /// In bytes, at least 1.
    pub(super) bytes: usize,
    /// The connection is beyond its credit.
    pub(super) paced: bool,
    /// It is read once per tick, and does not wake its task for what arrives meanwhile.
    pub(super) apart: bool,
}

impl ReadLimit {
    pub(in crate::proxy) fn new(endpoint: &Rc<EndpointReads>, mode: ConnectionMode) -> Rc<Self> {
        Rc::new(Self {
            endpoint: Rc::clone(endpoint),
            mode,
            pending_responses: Cell::new(0),
            credit: Cell::new(CREDIT),
            paced: Cell::new(false),
            tick: Cell::new(endpoint.worker.now()),
            left: Cell::new(endpoint.worker.share()),
            done: Cell::new(false),
            turn: Cell::new(TURN),
            content: Cell::new(0),
            overhead: Cell::new(0),
            exceeded: Cell::new(None),
            reader: RefCell::default(),
        })
    }

    /// A copy is on its way: the shadow owes one more response.
    pub(in crate::proxy) fn begin(&self) {
        self.pending_responses.set(self.pending_responses.get() + 1);
        self.add_credit(CREDIT);
    }

    /// A response is over, or nobody waits for it any more.
    pub(in crate::proxy) fn end(&self) {
        self.pending_responses.set((self.pending_responses.get() - 1).max(0));
        self.add_credit(0);
        match self.mode {
            ConnectionMode::Serial => self.content.set(0),
            ConnectionMode::Streams if self.pending_responses.get() == 0 => self.content.set(0),
            ConnectionMode::Streams => {
                self.content.set((self.content.get() - self.longest()).max(0));
            }
        }
    }

    /// The same when the guard is dropped.
    pub(in crate::proxy) fn expect_response(self: &Rc<Self>) -> PendingResponse {
        self.begin();
        PendingResponse(Rc::clone(self))
    }

    /// Elements were found in what was read.
    pub(in crate::proxy) fn found(&self, element: Element, count: usize) {
        if count > 0 {
            let cost = element.cost().saturating_mul(i64::try_from(count).unwrap_or(i64::MAX));
            self.charge(cost, if element.is_content() { 0 } else { cost }, 0);
        }
    }

    /// Why the connection is to be closed.
    pub(in crate::proxy) fn exceeded(&self) -> Option<ReadExceeded> {
        self.exceeded.get()
    }

    /// Whether the content of a response on a stream of its own is longer than is read of one.
    pub(in crate::proxy) fn is_long(&self, length: usize) -> bool {
        i64::try_from(length).is_ok_and(|length| length > self.longest().saturating_add(CREDIT))
    }

    /// The same; it is counted, and its stream is to be reset.
    pub(in crate::proxy) fn is_cut_off(&self, length: usize) -> bool {
        let long = self.is_long(length);
        if long {
            self.endpoint.note(ReadExceeded::LongResponse);
        }
        long
    }

    /// How much may be read now; Pending until the next turn or tick.
    ///
    /// # Errors
    /// [`ReadExceeded`]: the connection has sent too much.
    pub(super) fn poll_allowance(
        self: &Rc<Self>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<ReadAllowance>> {
        self.catch_up();
        if let Some(exceeded) = self.exceeded.get() {
            return Poll::Ready(Err(io::Error::other(exceeded)));
        }
        if self.turn.get() <= 0 {
            self.turn.set(TURN);
            after_others(cx);
            return Poll::Pending;
        }
        let paced = self.paced.get();
        let mine = if paced { self.left.get() } else { self.credit.get() };
        let all = self.endpoint.worker.left(paced);
        if mine > 0 && all > 0 && !(paced && self.done.get()) {
            let bytes = usize::try_from(mine.min(all)).unwrap_or(1);
            let apart = paced && self.endpoint.worker.is_crowded();
            return Poll::Ready(Ok(ReadAllowance { bytes, paced, apart }));
        }
        self.wait(cx, mine > 0 && all <= 0);
        Poll::Pending
    }

    /// The same for one who has yet to look at what was read.
    ///
    /// # Errors
    /// As [`ReadLimit::poll_allowance`].
    pub(in crate::proxy) fn poll_turn(
        self: &Rc<Self>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        // That the kernel has no more of it in this tick says nothing of what is here.
        let (done, tick) = (self.done.replace(false), self.tick.get());
        let allowance = self.poll_allowance(cx);
        self.done.set(done && self.tick.get() == tick);
        allowance.map_ok(drop)
    }

    /// As much was read at once.
    pub(super) fn read(&self, bytes: usize) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.charge(bytes, 0, bytes);
        self.charge(READ, 0, 0);
    }

    /// As much was sent to a shadow of HTTP/2, with so many DATA frames in it. That earns credit: each DATA
    /// frame may be acknowledged by two WINDOW_UPDATE frames, of its stream and of the connection (RFC 9113,
    /// section 5.2), which are no flood however long the copy is and however small its messages are.
    pub(super) fn wrote(&self, bytes: usize, data_frames: usize) {
        let acknowledged = data_frames.saturating_mul(2 * Element::Control.cost() as usize);
        let earned = i64::try_from(bytes.max(acknowledged)).unwrap_or(i64::MAX);
        self.overhead.set((self.overhead.get() - earned).max(-MOST_EARNED));
        self.add_credit(earned);
    }

    /// A paced connection may read no more in this tick.
    pub(super) fn is_spent(&self) -> bool {
        self.paced.get() && (self.left.get() <= 0 || self.endpoint.worker.left(true) <= 0)
    }

    /// A paced connection has nothing more to read in this tick.
    pub(super) fn dry(&self) {
        self.done.set(true);
        self.charge(READ, 0, 0);
    }

    /// Has the connection's task woken when the next tick begins.
    pub(super) fn wait(self: &Rc<Self>, cx: &Context<'_>, starved: bool) {
        let known = self.reader.borrow_mut().replace(cx.waker().clone());
        if known.is_none() {
            self.endpoint.worker.wait(self, starved);
        }
    }

    /// The next tick has begun.
    pub(super) fn wake(&self) {
        self.reader.take().into_iter().for_each(Waker::wake);
    }

    /// Takes account of the ticks since it was asked last.
    fn catch_up(&self) {
        let now = self.endpoint.worker.now();
        let ticks = i64::try_from(now - self.tick.replace(now)).unwrap_or(i64::MAX);
        if ticks == 0 {
            return;
        }
        let share = self.endpoint.worker.share();
        let per_tick = match self.mode {
            ConnectionMode::Serial => share,
            ConnectionMode::Streams => share * self.pending_responses.get().max(1),
        };
        let left = self.left.get().saturating_add(per_tick.saturating_mul(ticks));
        self.left.set(left.min(per_tick));
        self.done.set(false);
        self.turn.set(TURN);
        let tolerated = TOLERATED.saturating_mul(ticks);
        if self.overhead.get() > 0 {
            self.overhead.set((self.overhead.get() - tolerated).max(0));
        }
        if !self.paced.get() {
            self.add_credit(tolerated);
        }
    }

    /// Never more than what the responses that are owed may have, and one for what nobody asked for. A
    /// paced connection is so until much of it is there: it has been asked for more.
    fn add_credit(&self, more: i64) {
        let most = CREDIT * (self.pending_responses.get() + 1);
        self.credit.set(self.credit.get().saturating_add(more).min(most));
        if self.paced.get() && self.credit.get() >= CREDIT / 2 {
            self.set_paced(false);
        }
    }

    /// Charges for what was read: its cost, and what of that carried no content, or is part of a response.
    fn charge(&self, cost: i64, overhead: i64, content: i64) {
        let paced = self.paced.get();
        self.endpoint.worker.charge(paced, cost);
        self.turn.set(self.turn.get() - cost);
        if !paced {
            self.credit.set(self.credit.get() - cost);
            if self.credit.get() <= 0 {
                self.set_paced(true);
                self.left.set(self.left.get().min(self.endpoint.worker.share()));
            }
            return;
        }
        self.left.set(self.left.get() - cost);
        self.overhead.set(self.overhead.get() + overhead);
        self.content.set(self.content.get() + content);
        self.check();
    }

    /// What is read of a response beyond the credit.
    fn longest(&self) -> i64 {
        self.endpoint.worker.longest
    }

    fn set_paced(&self, paced: bool) {
        if self.paced.replace(paced) != paced {
            self.endpoint.worker.count_paced(paced);
        }
    }

    fn check(&self) {
        let longest = match self.mode {
            ConnectionMode::Serial => self.longest(),
            ConnectionMode::Streams => {
                self.longest().saturating_mul(self.pending_responses.get() + 1)
            }
        };
        let exceeded = if self.overhead.get() > FLOOD {
            ReadExceeded::Flood
        } else if self.content.get() > longest {
            ReadExceeded::LongResponse
        } else {
            return;
        };
        if self.exceeded.get().is_none() {
            self.exceeded.set(Some(exceeded));
            self.endpoint.note(exceeded);
        }
    }
}

impl Drop for ReadLimit {
    fn drop(&mut self) {
        self.set_paced(false);
    }
}

/// A response that is owed; it is over when this is dropped.
pub(in crate::proxy) struct PendingResponse(Rc<ReadLimit>);

impl Drop for PendingResponse {
    fn drop(&mut self) {
        self.0.end();
    }
}

#[cfg(test)]
mod tests;

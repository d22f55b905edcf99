//! What a connection of HTTP/2 makes the agent hold: frames that nobody has read yet, and frames that the
//! peer does not take. In: what the h2 crate holds, after each of its polls. Out: how much more it may
//! hold before it reads no more, and whether a body may be taken from its sender.
//!
//! Each connection may hold [`FIRST`] of either, which is part of what it is charged with; more is charged
//! while something is held. The two are bounded apart: what one direction holds never stands in the way of
//! the other, or an upload and a download could wait for each other for ever.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use crate::memory::{ConnectionUsage, MemoryCharge, MemoryExceeded};
use tokio::time::{Instant, Sleep, sleep};

/// What a connection may hold of either direction without asking, in bytes.
const FIRST: usize = 16 * 1024;

/// How often it is asked again whether more may be held.
const RETRY: Duration = Duration::from_millis(20);

/// How long a connection may be held up while nothing leaves.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a peer may send in any case, in bytes: the window that each connection begins with (RFC 9113,
/// section 6.9.2), and what it takes to hold that.
pub(in crate::proxy) const WINDOW: usize = 80 * 1024;

/// Shared by what runs the connection and by those who send on it.
#[derive(Debug)]
pub(in crate::proxy) struct BufferLimit {
    unread: Direction,
    unsent: Direction,
    /// What may be unread though a bound is in the way.
    least: usize,
    /// Who waits for room to send.
    waiting: RefCell<Vec<Waker>>,
    short: RefCell<Option<Shortage>>,
}

/// What is held of one direction.
#[derive(Debug)]
struct Direction {
    /// None: nobody pays, and nothing is bounded.
    charge: Option<RefCell<MemoryCharge>>,
    held: Cell<usize>,
    limit: Cell<usize>,
}

/// More would be held, and may not.
#[derive(Debug)]
struct Shortage {
    retry: Pin<Box<Sleep>>,
    /// When less was held than ever since it became short, and how much.
    progress: Instant,
    least: usize,
}

/// What a connection holds, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::proxy) struct BufferedBytes {
    pub(in crate::proxy) unread: usize,
    pub(in crate::proxy) unsent: usize,
    /// Of a header block, which cannot leave before it is whole.
    pub(in crate::proxy) block: usize,
}

/// What became of a connection's request for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum LimitChange {
    /// Nothing is to be done.
    Unchanged,
    /// From now on it may hold this many bytes.
    Limit(usize),
    /// It may not hold more now, and is asked for again.
    Short(MemoryExceeded),
    /// Nothing has left it for a long time: it is to be ended.
    Stuck(MemoryExceeded),
}

impl Direction {
    fn new(memory: Option<&Rc<ConnectionUsage>>) -> Self {
        let charge = memory.map(|memory| RefCell::new(memory.held(0)));
        let limit = Cell::new(if charge.is_some() { FIRST } else { usize::MAX });
        Self { charge, held: Cell::new(0), limit }
    }

    /// Four times as much as before, or what will do; up to `least` in any case.
    fn grow(&self, least: usize) -> Result<(), MemoryExceeded> {
        let Some(charge) = &self.charge else { return Ok(()) };
        let (mut charge, held) = (charge.borrow_mut(), self.held.get());
        let ample = self.limit.get().saturating_mul(4).max(held.saturating_mul(2));
        let scant = held.saturating_add(FIRST).max(self.limit.get());
        let granted = charge.grow_to(ample).map(|()| ample);
        let granted = granted.or_else(|_| charge.grow_to(scant).map(|()| scant));
        let limit = match granted {
            Ok(limit) => limit,
            Err(_) if self.limit.get() < least && held <= least => {
                charge.hold_to(least);
                least
            }
            Err(exceeded) => return Err(exceeded),
        };
        self.limit.set(limit);
        Ok(())
    }

    /// True: no more than at first may be held from now on.
    fn shrink(&self) -> bool {
        let shrinks = self.limit.get() > FIRST && self.held.get() < FIRST;
        if let Some(charge) = self.charge.as_ref().filter(|_| shrinks) {
            charge.borrow_mut().shrink_to(0);
            self.limit.set(FIRST);
            return true;
        }
        false
    }
}

impl BufferLimit {
    /// Of a connection that is charged to this usage; `least`: bytes that may be unread in any case.
    pub(in crate::proxy) fn new(memory: &Rc<ConnectionUsage>, least: usize) -> Rc<Self> {
        Self::with(Some(memory), least)
    }

    /// Of a connection that nobody pays for.
    pub(in crate::proxy) fn unbounded() -> Rc<Self> {
        Self::with(None, 0)
    }

    fn with(memory: Option<&Rc<ConnectionUsage>>, least: usize) -> Rc<Self> {
        let (unread, unsent) = (Direction::new(memory), Direction::new(memory));
        let (waiting, short) = Default::default();
        Rc::new(Self { unread, unsent, least, waiting, short })
    }

    /// How much may be unread before the connection reads no more.
    pub(in crate::proxy) fn limit(&self) -> usize {
        self.unread.limit.get()
    }

    /// So many bytes more are held from now on, to be sent.
    pub(in crate::proxy) fn sends(&self, bytes: usize) {
        self.unsent.held.set(self.unsent.held.get().saturating_add(bytes));
    }

    /// Whether so many more may be held; those who ask can do without.
    pub(in crate::proxy) fn has_room(&self, bytes: usize) -> bool {
        self.unsent.held.get().saturating_add(bytes) <= self.unsent.limit.get()
    }

    /// Ready when something more may be taken to be sent.
    pub(in crate::proxy) fn poll_room(&self, cx: &Context<'_>) -> Poll<()> {
        if self.unsent.held.get() < self.unsent.limit.get() || self.unsent.grow(0).is_ok() {
            return Poll::Ready(());
        }
        self.waiting.borrow_mut().push(cx.waker().clone());
        Poll::Pending
    }

    /// The connection holds this. `held_up`: it reads no more for that reason. `idle`: it carries
    /// nothing.
    pub(in crate::proxy) fn follow(
        &self,
        holds: BufferedBytes,
        (held_up, idle): (bool, bool),
        cx: &mut Context<'_>,
    ) -> LimitChange {
        self.unread.held.set(holds.unread + holds.block);
        self.unsent.held.set(holds.unsent);
        if holds.unsent < self.unsent.limit.get() {
            self.wake();
        }
        if idle {
            self.unsent.shrink();
        }
        let (held, limit) = (self.unread.held.get(), self.limit());
        // Asked for in time: what a peer may send ahead follows the limit.
        if !held_up && held < limit / 2 {
            *self.short.borrow_mut() = None;
            return if idle && self.unread.shrink() {
                LimitChange::Limit(FIRST)
            } else {
                LimitChange::Unchanged
            };
        }
        match self.unread.grow(self.least) {
            Ok(()) => {
                *self.short.borrow_mut() = None;
                LimitChange::Limit(self.limit())
            }
            Err(_) if !held_up && held <= limit => LimitChange::Unchanged,
            Err(exceeded) if holds.block > FIRST || self.is_stuck(held, cx) => {
                LimitChange::Stuck(exceeded)
            }
            Err(exceeded) => LimitChange::Short(exceeded),
        }
    }

    fn is_stuck(&self, held: usize, cx: &mut Context<'_>) -> bool {
        let now = Instant::now();
        let mut short = self.short.borrow_mut();
        let short = short.get_or_insert_with(|| Shortage {
            retry: Box::pin(sleep(RETRY)),
            progress: now,
            least: held,
        });
        if held < short.least {
            (short.least, short.progress) = (held, now);
        }
        while short.retry.as_mut().poll(cx).is_ready() {
            short.retry.as_mut().reset(now + RETRY);
        }
        now.saturating_duration_since(short.progress) >= PATIENCE
    }

    fn wake(&self) {
        if !self.waiting.borrow().is_empty() {
            self.waiting.take().into_iter().for_each(Waker::wake);
        }
    }
}

impl Drop for BufferLimit {
    fn drop(&mut self) {
        self.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{AgentUsage, MemoryLimits};

    fn memory(agent: usize) -> Rc<ConnectionUsage> {
        let (connection, workload, connections) = (usize::MAX, usize::MAX, 100);
        let memory = AgentUsage::new(MemoryLimits { connection, workload, agent, connections });
        ConnectionUsage::open(&memory.open("a/b")).unwrap()
    }

    async fn follow(
        buffer_limit: &BufferLimit,
        holds: BufferedBytes,
        state: (bool, bool),
    ) -> LimitChange {
        std::future::poll_fn(|cx| Poll::Ready(buffer_limit.follow(holds, state, cx))).await
    }

    async fn has_room(buffer_limit: &BufferLimit) -> bool {
        std::future::poll_fn(|cx| Poll::Ready(buffer_limit.poll_room(cx).is_ready())).await
    }

    fn unread(unread: usize) -> BufferedBytes {
        BufferedBytes { unread, ..BufferedBytes::default() }
    }

    #[tokio::test]
    async fn the_limit_follows_what_is_held_and_comes_back_once_nothing_is() {
        let buffer_limit = BufferLimit::new(&memory(64 << 20), 0);
        for (held, state, expected) in [
            (100, (false, false), LimitChange::Unchanged),
            (FIRST + 1, (true, false), LimitChange::Limit(4 * FIRST)),
            (40 * FIRST, (true, false), LimitChange::Limit(80 * FIRST)),
            (100, (false, false), LimitChange::Unchanged),
            (100, (false, true), LimitChange::Limit(FIRST)),
        ] {
            assert_eq!(follow(&buffer_limit, unread(held), state).await, expected, "{held}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_move_is_stuck_and_what_moves_is_not() {
        let buffer_limit = BufferLimit::new(&memory(2 << 20), WINDOW);
        let up = (true, false);
        assert_eq!(
            follow(&buffer_limit, unread(FIRST + 1), up).await,
            LimitChange::Limit(4 * FIRST)
        );
        assert!(matches!(follow(&buffer_limit, unread(8 << 20), up).await, LimitChange::Short(_)));
        tokio::time::sleep(PATIENCE / 2).await;
        assert!(
            matches!(follow(&buffer_limit, unread(7 << 20), up).await, LimitChange::Short(_)),
            "moves"
        );
        tokio::time::sleep(PATIENCE / 2 + RETRY).await;
        assert!(matches!(follow(&buffer_limit, unread(7 << 20), up).await, LimitChange::Short(_)));
        tokio::time::sleep(PATIENCE / 2).await;
        assert!(matches!(follow(&buffer_limit, unread(7 << 20), up).await, LimitChange::Stuck(_)));
        assert!(matches!(
            follow(&buffer_limit, unread(100 << 10), up).await,
            LimitChange::Limit(_)
        ));
    }

    #[tokio::test]
    async fn senders_wait_for_room_of_their_own_direction_alone() {
        let buffer_limit = BufferLimit::new(&memory(2 << 20), 0);
        assert!(matches!(
            follow(&buffer_limit, unread(8 << 20), (true, false)).await,
            LimitChange::Short(_)
        ));
        assert!(has_room(&buffer_limit).await, "what is unread is no obstacle");
        buffer_limit.sends(8 << 20);
        assert!(!has_room(&buffer_limit).await && !buffer_limit.has_room(1));
        follow(&buffer_limit, unread(0), (false, false)).await;
        assert!(has_room(&buffer_limit).await);
    }

    #[tokio::test]
    async fn a_header_block_for_which_there_is_no_room_is_not_waited_for() {
        let buffer_limit = BufferLimit::new(&memory(256 << 10), 0);
        let holds = BufferedBytes { block: 1 << 20, ..BufferedBytes::default() };
        let followed = follow(&buffer_limit, holds, (false, false)).await;
        assert!(matches!(followed, LimitChange::Stuck(_)), "{followed:?}");
    }
}

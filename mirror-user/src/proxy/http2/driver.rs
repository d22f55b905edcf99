//! The task that runs a connection to an upstream. In: the connection of the h2 crate. Out: the
//! connection's end, and what its users wait for meanwhile: a stream, or proof that the upstream
//! lives.

use std::{
    cell::{Cell, OnceCell, RefCell},
    future::{Future, poll_fn},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use h2::{Ping, PingPong, Reason, client};

use super::{
    buffer_limit::{BufferLimit, BufferedBytes, LimitChange},
    queue::StreamQueue,
};
use crate::{memory::MemoryCharge, proxy::http2::UpstreamIo};

/// Wakes the task that serves a client, when something has become of the connections to primaries
/// that belong to it.
#[derive(Default)]
pub(in crate::proxy) struct Watcher(RefCell<Option<Waker>>);

impl Watcher {
    /// Has this task woken from now on.
    pub(in crate::proxy) fn watch(&self, cx: &Context<'_>) {
        let mut known = self.0.borrow_mut();
        if !known.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *known = Some(cx.waker().clone());
        }
    }

    fn wake(&self) {
        self.0.borrow().iter().for_each(Waker::wake_by_ref);
    }
}

/// What a PING of ours is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Probe {
    Idle,
    Wanted,
    Sent,
}

/// What a GOAWAY says: its code and debug data (RFC 9113, section 6.8).
#[derive(Clone, Debug)]
pub(in crate::proxy) struct GoAway {
    pub(in crate::proxy) reason: Reason,
    pub(in crate::proxy) data: Bytes,
}

/// What a connection's driver shares with the connection's users.
pub(super) struct DriverState {
    /// It takes no more streams.
    pub(super) gone: Cell<bool>,
    /// Who waits for a stream.
    pub(super) queue: StreamQueue,
    /// The driver has ended, and what the upstream said before that, if only a farewell.
    end: OnceCell<GoAway>,
    probe: Cell<Probe>,
    task: OnceCell<Waker>,
    watcher: Rc<Watcher>,
}

impl DriverState {
    pub(super) fn new(watcher: Rc<Watcher>) -> Rc<Self> {
        Rc::new(Self {
            gone: Cell::new(false),
            queue: StreamQueue::default(),
            end: OnceCell::new(),
            probe: Cell::new(Probe::Idle),
            task: OnceCell::new(),
            watcher,
        })
    }

    /// The end of the connection, once it has come.
    pub(super) fn end(&self) -> Option<&GoAway> {
        self.end.get()
    }

    /// Has a PING sent to the upstream, unless one is on its way.
    pub(super) fn probe(&self) {
        if self.probe.get() == Probe::Idle {
            self.probe.set(Probe::Wanted);
            self.task.get().into_iter().for_each(Waker::wake_by_ref);
        }
    }

    /// Whether the last PING has been acknowledged, or never will be since the connection ended.
    pub(super) fn is_probed(&self) -> bool {
        self.probe.get() == Probe::Idle || self.end.get().is_some()
    }

    /// No more streams: those who wait for one try another connection.
    pub(super) fn retire(&self) {
        self.gone.set(true);
        self.queue.wake_all();
    }

    /// Runs the connection to its end; `_held` is what it is charged with.
    pub(super) async fn run(
        self: Rc<Self>,
        mut connection: client::Connection<UpstreamIo, Bytes>,
        buffer_limit: Rc<BufferLimit>,
        _held: Option<MemoryCharge>,
    ) {
        let driver_state = EndNotifier(self);
        let driver_state = &driver_state.0;
        let mut pings = None;
        connection.set_hold_limit(buffer_limit.limit());
        let ended = poll_fn(|cx| {
            driver_state.task.get_or_init(|| cx.waker().clone());
            driver_state.send_probe(&mut connection, &mut pings);
            let polled = Pin::new(&mut connection).poll(cx);
            driver_state.await_probe(&mut pings, cx);
            if polled.is_pending() && limit_memory(&buffer_limit, &mut connection, cx) {
                return Poll::Ready(Ok(()));
            }
            // The upstream may allow more streams than before, or none any more.
            driver_state.queue.wake_first();
            polled
        })
        .await;
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection of HTTP/2 to an upstream ended");
        }
        if let Some((reason, data)) = connection.received_go_away() {
            let _ = driver_state.end.set(GoAway { reason, data });
        }
    }

    /// Only a connection that is ever asked for a proof pays for it, at each of its polls.
    fn send_probe(
        &self,
        connection: &mut client::Connection<UpstreamIo, Bytes>,
        pings: &mut Option<PingPong>,
    ) {
        if self.probe.get() != Probe::Wanted {
            return;
        }
        if pings.is_none() {
            *pings = connection.ping_pong();
        }
        // It fails at the connection's end alone, which is told otherwise.
        let _ = pings.as_mut().map(|pings| pings.send_ping(Ping::opaque()));
        self.probe.set(Probe::Sent);
    }

    fn await_probe(&self, pings: &mut Option<PingPong>, cx: &mut Context<'_>) {
        if self.probe.get() != Probe::Sent {
            return;
        }
        if let Some(pings) = pings
            && let Poll::Ready(Ok(_)) = pings.poll_pong(cx)
        {
            self.probe.set(Probe::Idle);
            self.watcher.wake();
        }
    }
}

/// Bounds what the connection holds; true when it is to be ended.
fn limit_memory(
    buffer_limit: &BufferLimit,
    connection: &mut client::Connection<UpstreamIo, Bytes>,
    cx: &mut Context<'_>,
) -> bool {
    let (unread, unsent) = connection.held();
    let held_up = connection.is_held_up();
    let holds = BufferedBytes { unread, unsent, block: 0 };
    match buffer_limit.follow(holds, (held_up, unread + unsent == 0), cx) {
        LimitChange::Unchanged | LimitChange::Short(_) => false,
        LimitChange::Limit(limit) => {
            connection.set_hold_limit(limit);
            if held_up {
                cx.waker().wake_by_ref();
            }
            false
        }
        LimitChange::Stuck(exceeded) => {
            tracing::debug!(%exceeded, unread, "a connection of HTTP/2 to an upstream is given up");
            true
        }
    }
}

/// Tells everyone of the end, also when the task is aborted.
struct EndNotifier(Rc<DriverState>);

impl Drop for EndNotifier {
    fn drop(&mut self) {
        let _ = self.0.end.set(GoAway { reason: Reason::NO_ERROR, data: Bytes::new() });
        self.0.retire();
        self.0.watcher.wake();
    }
}

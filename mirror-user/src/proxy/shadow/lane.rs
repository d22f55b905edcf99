//! A lane: the connections of this worker to one shadow endpoint. In: copies. Each goes to an idle
//! connection or a free stream, or to a new one; where there is none, it waits for a moment, or is
//! dropped. As many may wait as there are connections: what a burst needs, and a slow shadow cannot
//! make longer.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::poll_fn,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    task::{Poll, Waker},
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

use super::{ShadowOptions, backoff::Backoff, carrier, copy::Copy, streams};
use crate::{
    outcome::{CopyOutcome, DropReason},
    proxy::{
        http2::{OpenError, Pool, Slot, UPSTREAM_STREAMS},
        io::WireState,
        primary::Speaks,
    },
    route::ServicePort,
    sockets::{Place, SocketFactory},
};

/// Longest time between two copies on a connection (gunicorn's gthread closes after 2 s).
const IDLE: Duration = Duration::from_secs(1);

/// How long a copy may wait for a connection of HTTP/1.
const PATIENCE: Duration = Duration::from_secs(1);

/// Connections in a row that may break before an answer's end: each costs a new one, and a
/// shadow that breaks them all would cost one per request.
const BROKEN: u32 = 16;

/// How long a lane without connections remembers its endpoint's failures.
const MEMORY: Duration = Duration::from_secs(60);

pub(super) struct Lane {
    pub(super) service: Arc<ServicePort>,
    pub(super) endpoint: SocketAddr,
    pub(super) place: Place,
    pub(super) options: Rc<ShadowOptions>,
    pub(super) sockets: Arc<dyn SocketFactory>,
    open: Cell<usize>,
    carriers: RefCell<JoinSet<()>>,
    idle: RefCell<Vec<Rc<Letterbox>>>,
    /// Copies that wait for one of the connections of HTTP/1, and since when.
    queue: RefCell<VecDeque<(Instant, Copy)>>,
    /// Connections of HTTP/2.
    shared: Pool,
    /// Copies that wait for one of them to open.
    waiting: Cell<usize>,
    /// Of connects.
    reach: Cell<Backoff>,
    /// Of connections that broke before an answer's end.
    answers: Cell<Backoff>,
    used: Cell<Instant>,
}

impl Lane {
    pub(super) fn new(
        service: &Arc<ServicePort>,
        endpoint: SocketAddr,
        place: Place,
        options: Rc<ShadowOptions>,
        sockets: Arc<dyn SocketFactory>,
    ) -> Rc<Self> {
        Rc::new(Self {
            service: Arc::clone(service),
            endpoint,
            place,
            options,
            sockets,
            open: Cell::new(0),
            carriers: RefCell::default(),
            idle: RefCell::default(),
            queue: RefCell::default(),
            shared: Pool::default(),
            waiting: Cell::new(0),
            reach: Cell::new(Backoff::new(0)),
            answers: Cell::new(Backoff::new(BROKEN)),
            used: Cell::new(Instant::now()),
        })
    }

    /// Sends the copy on its way, or drops it.
    pub(super) fn take(self: &Rc<Self>, copy: Copy) {
        self.used.set(Instant::now());
        if copy.speaks == Speaks::Http2 {
            return self.take_stream(copy);
        }
        loop {
            let Some(slot) = self.idle.borrow_mut().pop() else { break };
            if slot.wire.is_quiet() {
                return slot.hand(copy);
            }
            slot.close();
        }
        if self.open.get() < self.options.connections {
            self.open(copy);
        } else if self.queue.borrow().len() < self.options.connections {
            self.queue.borrow_mut().push_back((self.used.get(), copy));
        } else {
            copy.ticket.settle(CopyOutcome::Dropped(DropReason::Connections), 0);
        }
    }

    fn open(self: &Rc<Self>, copy: Copy) {
        self.open.set(self.open.get() + 1);
        let run = carrier::run(Opened(Rc::clone(self)), copy);
        self.carriers.borrow_mut().spawn_local(run);
    }

    /// Whether copies wait for a connection of HTTP/1.
    pub(super) fn is_awaited(&self) -> bool {
        !self.queue.borrow().is_empty()
    }

    /// The next copy that waits.
    pub(super) fn next(&self) -> Option<Copy> {
        self.queue.borrow_mut().pop_front().map(|(_, copy)| copy)
    }

    /// Opens connections for those that wait, as far as there is room.
    pub(super) fn relieve(self: &Rc<Self>) {
        while self.open.get() < self.options.connections {
            let Some(copy) = self.next() else { return };
            if self.is_resting() {
                copy.ticket.settle(CopyOutcome::Dropped(DropReason::Backoff), 0);
            } else {
                self.open(copy);
            }
        }
    }

    /// Drops those that have waited too long.
    fn expire(&self) {
        let late = |(since, _): &(Instant, Copy)| since.elapsed() > PATIENCE;
        while self.queue.borrow().front().is_some_and(late) {
            if let Some(copy) = self.next() {
                copy.ticket.settle(CopyOutcome::Dropped(DropReason::Connections), 0);
            }
        }
    }

    fn take_stream(self: &Rc<Self>, copy: Copy) {
        let slot = self.shared.find();
        if slot.is_none() && self.is_full(Speaks::Http2) {
            return copy.ticket.settle(CopyOutcome::Dropped(DropReason::Connections), 0);
        }
        let run = streams::run(Rc::clone(self), slot, copy);
        self.carriers.borrow_mut().spawn_local(run);
    }

    /// Waits for room on a connection of HTTP/2.
    pub(super) async fn room(&self) -> Result<Slot, OpenError> {
        let _waiting = Waiting::new(&self.waiting);
        self.shared.slot(self.most_shared(), async || Box::pin(streams::open(self)).await).await
    }

    fn most_shared(&self) -> usize {
        streams::CONNECTIONS.min(self.options.connections)
    }

    /// Whether a copy would find no connection, none more is allowed, and no more may wait.
    pub(super) fn is_full(&self, speaks: Speaks) -> bool {
        match speaks {
            Speaks::Http1 => {
                self.idle.borrow().is_empty()
                    && self.open.get() >= self.options.connections
                    && self.queue.borrow().len() >= self.options.connections
            }
            Speaks::Http2 => {
                let may_wait = self.shared.len() < self.most_shared() || self.shared.is_opening();
                let full = !may_wait || self.waiting.get() >= UPSTREAM_STREAMS;
                full && self.shared.find().is_none()
            }
        }
    }

    /// Connections, idle ones as well.
    pub(super) fn connections(&self) -> usize {
        self.open.get() + self.shared.len()
    }

    /// Copies that wait, and connections and streams that carry one or are being made.
    pub(super) fn busy(&self) -> usize {
        let single = self.open.get() - self.idle.borrow().len().min(self.open.get());
        single + self.queue.borrow().len() + self.shared.streams() + self.waiting.get()
    }

    /// Whether the endpoint failed lately and is left alone.
    pub(super) fn is_resting(&self) -> bool {
        let now = Instant::now();
        self.reach.get().is_resting(now) || self.answers.get().is_resting(now)
    }

    /// Whether a connection could be made.
    pub(super) fn reached(&self, reached: bool) {
        note(&self.reach, reached);
    }

    /// Whether an answer came to its end, or the shadow ended the connection before that.
    pub(super) fn answered(&self, whole: bool) {
        note(&self.answers, whole);
    }

    /// Waits on an idle connection for the next copy; None: it is to be closed.
    pub(super) async fn park(&self, wire: &Rc<WireState>) -> Option<Copy> {
        let slot = Rc::new(Letterbox::new(Rc::clone(wire)));
        self.idle.borrow_mut().push(Rc::clone(&slot));
        poll_fn(|cx| slot.poll(cx.waker())).await
    }

    /// Closes what has idled too long; whether the lane is still of use.
    pub(super) fn sweep(self: &Rc<Self>) -> bool {
        self.expire();
        self.relieve();
        while self.carriers.borrow_mut().try_join_next().is_some() {}
        self.idle.borrow_mut().retain(|slot| {
            let stays = slot.since.elapsed() <= IDLE;
            if !stays {
                slot.close();
            }
            stays
        });
        self.shared.sweep(IDLE) || self.open.get() > 0 || self.used.get().elapsed() < MEMORY
    }

    /// Closes all connections, whatever they carry, and drops what waits.
    pub(super) fn close(&self) {
        let waiting = std::mem::take(&mut *self.queue.borrow_mut());
        drop(waiting);
        self.shared.close();
        self.carriers.borrow_mut().abort_all();
    }
}

fn note(backoff: &Cell<Backoff>, success: bool) {
    let mut noted = backoff.get();
    if success {
        noted.succeeded();
    } else {
        noted.failed(Instant::now());
    }
    backoff.set(noted);
}

/// One of the lane's connections, counted while it lasts.
pub(super) struct Opened(Rc<Lane>);

impl Opened {
    pub(super) fn lane(&self) -> &Rc<Lane> {
        &self.0
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
    }
}

/// A copy that waits for a connection.
struct Waiting<'a>(&'a Cell<usize>);

impl<'a> Waiting<'a> {
    fn new(count: &'a Cell<usize>) -> Self {
        count.set(count.get() + 1);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// An idle connection's letter box.
struct Letterbox {
    wire: Rc<WireState>,
    since: Instant,
    copy: RefCell<Option<Copy>>,
    closed: Cell<bool>,
    carrier: RefCell<Option<Waker>>,
}

impl Letterbox {
    fn new(wire: Rc<WireState>) -> Self {
        let since = Instant::now();
        let (copy, closed, carrier) = Default::default();
        Self { wire, since, copy, closed, carrier }
    }

    fn hand(&self, copy: Copy) {
        *self.copy.borrow_mut() = Some(copy);
        self.wake();
    }

    fn close(&self) {
        self.closed.set(true);
        self.wake();
    }

    fn wake(&self) {
        if let Some(carrier) = self.carrier.borrow_mut().take() {
            carrier.wake();
        }
    }

    fn poll(&self, waker: &Waker) -> Poll<Option<Copy>> {
        if let Some(copy) = self.copy.borrow_mut().take() {
            return Poll::Ready(Some(copy));
        }
        if self.closed.get() {
            return Poll::Ready(None);
        }
        *self.carrier.borrow_mut() = Some(waker.clone());
        Poll::Pending
    }
}

//! A lane: the connections of this worker to one shadow endpoint. In: copies. Each goes to an idle
//! connection or a free stream, or to a new one; where there is none, it waits for a moment, or is
//! dropped.

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use http::request;
use tokio::task::JoinSet;

use super::{
    ShadowOptions,
    backoff::Backoff,
    carrier,
    copy::Copy,
    fleet::Fleet,
    head::{Head, SingleHead},
    post::Post,
    queue::Queue,
    streams,
};
use crate::{
    outcome::{CopyOutcome, DropReason},
    proxy::{
        http2::{OpenError, Pool, Slot, UPSTREAM_STREAMS},
        primary::Speaks,
    },
    route::ServicePort,
    sockets::{Place, SocketFactory},
};

/// Longest time between two copies on a connection (gunicorn's gthread closes after 2 s).
const IDLE: Duration = Duration::from_secs(1);

/// Copies that may wait for a stream of HTTP/2: as many as there may be streams.
const WAITING_STREAMS: usize = streams::CONNECTIONS * UPSTREAM_STREAMS;

/// Connections in a row that may break before an answer's end: each costs a new one, and a
/// shadow that breaks them all would cost one per request.
const BROKEN: u32 = 16;

/// How long nothing is pipelined to an endpoint that closed with copies on their way.
const ONE_BY_ONE: Duration = Duration::from_secs(60);

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
    /// Connections of HTTP/1 that are open.
    posts: RefCell<Vec<Rc<Post>>>,
    /// Those of them that carry nothing.
    idle: RefCell<Vec<Rc<Post>>>,
    /// The one that was handed a copy last, and may take more.
    current: RefCell<Option<Rc<Post>>>,
    /// Until when nothing is pipelined, since the endpoint closed with copies on their way.
    one_by_one: Cell<Option<Instant>>,
    /// Copies that wait for a connection of HTTP/1.
    queue: Queue,
    /// Connections of HTTP/2.
    shared: Pool,
    /// Copies that wait for one of them to open.
    waiting: Cell<usize>,
    /// Copies on streams, and those that wait for one.
    pub(super) fleet: Rc<Fleet>,
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
        let most = streams::CONNECTIONS.min(options.connections);
        let shared = Pool::limited(most, streams::LIFE);
        Rc::new(Self {
            service: Arc::clone(service),
            endpoint,
            place,
            queue: Queue::new(options.connections),
            options,
            sockets,
            open: Cell::new(0),
            carriers: RefCell::default(),
            posts: RefCell::default(),
            idle: RefCell::default(),
            current: RefCell::default(),
            one_by_one: Cell::default(),
            shared,
            waiting: Cell::new(0),
            fleet: Fleet::new(Instant::now()),
            reach: Cell::new(Backoff::new(0)),
            answers: Cell::new(Backoff::new(BROKEN)),
            used: Cell::new(Instant::now()),
        })
    }

    /// Sends the copy on its way, or drops it.
    pub(super) fn take(self: &Rc<Self>, copy: Copy<Head>) {
        let Copy { head, body, ticket, charge, moves } = copy;
        match head {
            Head::Single(head) => self.take_single(Copy { head, body, ticket, charge, moves }),
            Head::Stream(head) => {
                self.take_stream(Copy { head: *head, body, ticket, charge, moves });
            }
        }
    }

    /// The same for one that goes by HTTP/1.
    pub(super) fn take_single(self: &Rc<Self>, copy: Copy<SingleHead>) {
        let now = copy.ticket.started();
        self.used.set(now);
        if copy.head.pipelined
            && self.takes_more(now)
            && let Some(post) = &*self.current.borrow()
        {
            return post.hand(copy, now);
        }
        loop {
            let Some(post) = self.idle.borrow_mut().pop() else { break };
            if post.connection.is_quiet() {
                post.hand(copy, now);
                *self.current.borrow_mut() = Some(post);
                return;
            }
            post.close();
        }
        if self.open.get() < self.options.connections {
            self.open(copy);
        } else if self.queue.has_room(copy.head.printed.is_whole()) {
            self.queue.push(copy, now);
        } else {
            copy.ticket.settle(CopyOutcome::Dropped(DropReason::Connections), 0);
        }
    }

    /// Whether a copy may be sent behind others on the current connection.
    fn takes_more(&self, now: Instant) -> bool {
        self.pipelines(now)
            && self.current.borrow().as_ref().is_some_and(|post| post.takes_more(now))
    }

    fn pipelines(&self, now: Instant) -> bool {
        self.one_by_one.get().is_none_or(|until| now >= until)
    }

    /// The endpoint closed while more than one copy was on its way.
    pub(super) fn do_not_pipeline(&self) {
        self.one_by_one.set(Some(Instant::now() + ONE_BY_ONE));
    }

    /// A connection is open.
    pub(super) fn enter(self: &Rc<Self>, post: Rc<Post>) -> Entered {
        self.posts.borrow_mut().push(Rc::clone(&post));
        Entered { lane: Rc::clone(self), post }
    }

    fn open(self: &Rc<Self>, copy: Copy<SingleHead>) {
        self.open.set(self.open.get() + 1);
        let run = carrier::run(Opened(Rc::clone(self)), copy);
        self.carriers.borrow_mut().spawn_local(run);
    }

    /// Whether copies wait for a connection of HTTP/1.
    pub(super) fn is_awaited(&self) -> bool {
        !self.queue.is_empty()
    }

    /// The next copy that waits.
    pub(super) fn next(&self) -> Option<Copy<SingleHead>> {
        self.queue.pop()
    }

    /// The same if it may be sent behind those that are on their way on this connection.
    pub(super) fn next_behind(&self, post: &Post, now: Instant) -> Option<Copy<SingleHead>> {
        let takes = self.pipelines(now) && post.takes_more(now);
        if takes { self.queue.pop_pipelined() } else { None }
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
    fn expire(&self, now: Instant) {
        while let Some(copy) = self.queue.pop_expired(now) {
            copy.ticket.settle(CopyOutcome::Dropped(DropReason::Connections), 0);
        }
    }

    /// Sends a copy that goes by HTTP/2 on its way, or drops it.
    pub(super) fn take_stream(self: &Rc<Self>, copy: Copy<request::Parts>) {
        self.used.set(copy.ticket.started());
        let slot = self.shared.find();
        if slot.is_none() && self.is_full(Speaks::Http2, true) {
            return copy.ticket.settle(CopyOutcome::Dropped(DropReason::Connections), 0);
        }
        if self.fleet.add(streams::run(Rc::clone(self), slot, copy)) {
            let run = Rc::clone(&self.fleet).run();
            self.carriers.borrow_mut().spawn_local(run);
        }
    }

    /// Waits for room on a connection of HTTP/2.
    pub(super) async fn room(&self) -> Result<Slot, OpenError> {
        let _waiting = Waiting::new(&self.waiting);
        self.shared.slot(async || Box::pin(streams::open(self)).await).await
    }

    /// Whether a copy would find no connection, none more is allowed, and no more may wait.
    pub(super) fn is_full(&self, speaks: Speaks, whole: bool) -> bool {
        match speaks {
            Speaks::Http1 => {
                self.idle.borrow().is_empty()
                    && self.open.get() >= self.options.connections
                    && !self.queue.has_room(whole)
                    && !self.takes_more(Instant::now())
            }
            Speaks::Http2 => {
                let may_wait = self.shared.may_open() || self.shared.is_opening();
                let full = !may_wait || self.waiting.get() >= WAITING_STREAMS;
                full && !self.shared.has_room()
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
        single + self.queue.len() + self.shared.streams() + self.waiting.get()
    }

    /// Whether the endpoint failed lately and is left alone.
    pub(super) fn is_resting(&self) -> bool {
        let rests = |backoff: Backoff| backoff.has_failed() && backoff.is_resting(Instant::now());
        rests(self.reach.get()) || rests(self.answers.get())
    }

    /// Whether a connection could be made.
    pub(super) fn reached(&self, reached: bool) {
        note(&self.reach, reached);
    }

    /// Whether an answer came to its end, or the shadow ended the connection before that.
    pub(super) fn answered(&self, whole: bool) {
        note(&self.answers, whole);
    }

    /// A connection has nothing to carry.
    pub(super) fn park(&self, post: &Rc<Post>) {
        self.current.borrow_mut().take_if(|current| Rc::ptr_eq(current, post));
        self.idle.borrow_mut().push(Rc::clone(post));
    }

    /// An idle connection is over.
    pub(super) fn unpark(&self, post: &Rc<Post>) {
        self.idle.borrow_mut().retain(|idle| !Rc::ptr_eq(idle, post));
    }

    /// Closes what has idled too long; whether the lane is still of use.
    pub(super) fn sweep(self: &Rc<Self>, now: Instant) -> bool {
        self.fleet.sweep(now);
        self.expire(now);
        self.relieve();
        while self.carriers.borrow_mut().try_join_next().is_some() {}
        self.idle.borrow_mut().retain(|post| {
            let stays = post.age() <= IDLE;
            if !stays {
                post.close();
            }
            stays
        });
        for post in self.posts.borrow().iter() {
            if !post.is_idle() && post.age() > self.options.response_timeout {
                post.be_late();
            }
        }
        let carries = self.shared.sweep(IDLE) || self.open.get() > 0 || !self.fleet.is_empty();
        carries || self.used.get().elapsed() < MEMORY
    }

    /// Closes all connections, whatever they carry, and drops what waits.
    pub(super) fn close(&self) {
        while self.queue.pop().is_some() {}
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

/// A connection that the lane may hand copies to, for as long as it lasts.
pub(super) struct Entered {
    lane: Rc<Lane>,
    post: Rc<Post>,
}

impl std::ops::Deref for Entered {
    type Target = Rc<Post>;

    fn deref(&self) -> &Rc<Post> {
        &self.post
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let Self { lane, post } = self;
        lane.posts.borrow_mut().retain(|other| !Rc::ptr_eq(other, post));
        lane.unpark(post);
        lane.current.borrow_mut().take_if(|current| Rc::ptr_eq(current, post));
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

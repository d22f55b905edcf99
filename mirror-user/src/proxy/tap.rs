//! The tap: copies of requests that go from the client to its primary without mirror. In: segments of
//! tapped connections, which the kernel has copied. Out: copies to the shadows, as the proxy makes them:
//! by the same parser, routes and shadow leg.
//!
//! Nothing here can delay or break a connection. What cannot be read exactly is not copied, and counted.

mod accounts;
mod connection;
mod flow;
mod request;

use std::{
    cell::{Cell, RefCell},
    io,
    os::fd::OwnedFd,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{Interest, unix::AsyncFd},
    task::yield_now,
    time::{sleep, timeout},
};

use self::{
    accounts::Accounts,
    connection::{TappedConnection, tapped},
};
use super::context::Context;
use crate::{
    hash::FastHashMap,
    outcome::TapEnd,
    segment::{Segment, SegmentKind, SegmentSource, TappedSocket},
    workload::Workload,
};

/// Segments that are read before others have their turn.
const BATCH: u32 = 64;

/// How long segments are left to gather while some come: one look costs less than one for each.
const GATHER: Duration = Duration::from_millis(1);

/// So many looks in vain, and the source is asked to report what comes.
const LOOKS: u32 = 20;

/// A segment that is written while the worker falls asleep may go unnoticed until then.
const NAP: Duration = Duration::from_millis(100);

/// The tapped connections of one worker.
pub(crate) struct Tap {
    ctx: Rc<Context>,
    /// By the cookie of their network namespace.
    workloads: RefCell<FastHashMap<u64, Arc<Workload>>>,
    connections: RefCell<FastHashMap<TappedSocket, Box<TappedConnection>>>,
    /// How often something was read.
    clock: Cell<u64>,
    accounts: RefCell<Accounts>,
}

/// What is to be done about a segment that was taken.
enum SegmentAction {
    None,
    /// Its connection has bytes to be read.
    Read(TappedSocket, Box<TappedConnection>),
    /// Nothing more of its connection is wanted.
    Stop(TappedSocket),
}

impl Tap {
    pub(crate) fn new(ctx: &Rc<Context>) -> Rc<Self> {
        let (workloads, connections, clock, accounts) = Default::default();
        Rc::new(Self { ctx: Rc::clone(ctx), workloads, connections, clock, accounts })
    }

    /// From now on connections from this workload's network namespace are known.
    pub(crate) fn join(&self, workload: &Arc<Workload>) {
        if let Some(cookie) = workload.netns.cookie() {
            self.workloads.borrow_mut().insert(cookie, Arc::clone(workload));
            self.accounts.borrow_mut().open(workload.key);
        }
    }

    /// Forgets a workload with its connections.
    pub(crate) fn leave(&self, key: u64) {
        self.workloads.borrow_mut().retain(|_, workload| workload.key != key);
        self.accounts.borrow_mut().close(key);
        let of = |connection: &TappedConnection| connection.workload.key == key;
        let gone: Vec<_> =
            self.connections.borrow_mut().extract_if(|_, connection| of(connection)).collect();
        // They report their requests' ends when nothing here is borrowed.
        drop(gone);
    }

    /// Reads the source until it is dropped.
    pub(crate) async fn run(self: Rc<Self>, mut source: Box<dyn SegmentSource>) {
        let readable = source.fd().try_clone_to_owned().and_then(watch);
        let Ok(readable) = readable.inspect_err(
            |error| tracing::error!(%error, "nothing that is tapped is copied by this worker"),
        ) else {
            return;
        };
        let mut looks = 0;
        loop {
            match self.read(&mut *source).await {
                0 if looks < LOOKS => looks += 1,
                0 => {
                    source.fall_asleep();
                    // What came before it was asked for is not reported.
                    if self.read(&mut *source).await > 0 {
                        looks = 0;
                    } else if let Ok(Ok(mut ready)) = timeout(NAP, readable.readable()).await {
                        ready.clear_ready();
                        looks = 0;
                    }
                    continue;
                }
                BATCH => {
                    looks = 0;
                    yield_now().await;
                    continue;
                }
                _ => looks = 0,
            }
            sleep(GATHER).await;
        }
    }

    /// Reads a batch of segments. Returns how many there were.
    async fn read(&self, source: &mut dyn SegmentSource) -> u32 {
        for read in 0..BATCH {
            let mut action = SegmentAction::None;
            if !source.read(&mut |segment| action = self.take(&segment)) {
                return read;
            }
            match action {
                SegmentAction::None => {}
                SegmentAction::Stop(socket) => source.stop(socket),
                SegmentAction::Read(socket, connection) => {
                    if !self.advance(socket, connection).await {
                        source.stop(socket);
                    }
                }
            }
        }
        BATCH
    }

    fn take(&self, segment: &Segment<'_>) -> SegmentAction {
        let socket = segment.socket;
        let known = self.connections.borrow_mut().remove(&socket);
        match (segment.kind, known) {
            (SegmentKind::Start, known) => {
                self.forget(known);
                if self.start(segment) { SegmentAction::None } else { SegmentAction::Stop(socket) }
            }
            (SegmentKind::Data, Some(mut connection)) => {
                match connection.add(segment.place, segment.bytes) {
                    Ok(()) => SegmentAction::Read(socket, connection),
                    Err(end) => {
                        self.end(connection, end);
                        SegmentAction::Stop(socket)
                    }
                }
            }
            (SegmentKind::Data, None) => SegmentAction::Stop(socket),
            (SegmentKind::End | SegmentKind::Reset, known) => {
                // Where bytes are missing before the end, the client may have sent all of a request.
                self.forget(known.map(|mut connection| {
                    if connection.add(segment.place, &[]).is_err() {
                        connection.cut();
                    }
                    connection
                }));
                SegmentAction::None
            }
            (SegmentKind::Stopped, known) => {
                self.forget(known.map(|mut connection| {
                    connection.cut();
                    connection
                }));
                SegmentAction::None
            }
        }
    }

    /// A connection begins. False: it is not copied.
    fn start(&self, segment: &Segment<'_>) -> bool {
        let workload = self.workloads.borrow().get(&segment.netns).map(Arc::clone);
        let Some(workload) = workload else {
            self.ctx.recorder.tap_ended(TapEnd::UnknownWorkload);
            return false;
        };
        let Some(frontend) = tapped(&self.ctx, segment.frontend) else {
            self.ctx.recorder.tap_ended(TapEnd::Untapped);
            return false;
        };
        if self.accounts.borrow().is_full() {
            self.evict();
        }
        self.accounts.borrow_mut().begin(workload.key);
        self.keep(segment.socket, Box::new(TappedConnection::new(&workload, &frontend)));
        true
    }

    /// Reads the requests that are there of a connection. False: nothing more of it is wanted.
    async fn advance(&self, socket: TappedSocket, mut connection: Box<TappedConnection>) -> bool {
        let key = connection.workload.key;
        let end = match connection.advance(&self.ctx).await {
            Ok(more) => {
                let fits = self.accounts.borrow_mut().hold(key, more);
                (!fits).then_some(TapEnd::Memory)
            }
            Err(end) => Some(end),
        };
        if let Some(end) = end {
            self.end(connection, end);
            return false;
        }
        // Others had their turn: its workload may be gone.
        let wanted = !connection.is_over() && self.accounts.borrow().has(key);
        if wanted {
            self.keep(socket, connection);
        } else {
            self.forget(Some(connection));
        }
        wanted
    }

    fn keep(&self, socket: TappedSocket, mut connection: Box<TappedConnection>) {
        self.clock.set(self.clock.get() + 1);
        connection.used = self.clock.get();
        self.connections.borrow_mut().insert(socket, connection);
    }

    /// Nothing more of it is copied.
    fn end(&self, mut connection: Box<TappedConnection>, end: TapEnd) {
        connection.cut();
        self.ctx.recorder.tap_ended(end);
        self.forget(Some(connection));
    }

    fn forget(&self, connection: Option<Box<TappedConnection>>) {
        if let Some(connection) = connection {
            self.accounts.borrow_mut().end(connection.workload.key, connection.held());
        }
    }

    /// Makes room: an eighth of the connections of the workload that has most, those that were silent for
    /// longest. If one says something again, it is not copied.
    fn evict(&self) {
        let Some(key) = self.accounts.borrow().largest() else { return };
        let connections = self.connections.borrow();
        let of = connections.iter().filter(|(_, connection)| connection.workload.key == key);
        let mut oldest: Vec<_> = of.map(|(socket, c)| (c.used, *socket)).collect();
        drop(connections);
        oldest.sort_unstable_by_key(|(used, _)| *used);
        let count = oldest.len().div_ceil(8);
        for (_, socket) in oldest.drain(..count) {
            let gone = self.connections.borrow_mut().remove(&socket);
            gone.into_iter().for_each(|connection| self.end(connection, TapEnd::Evicted));
        }
    }
}

/// Has the runtime report when it can be read.
#[expect(
    deprecated,
    reason = "its successor is unsafe for descriptors that may be closed; this is owned"
)]
fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(fd, Interest::READABLE)
}

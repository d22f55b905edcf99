//! What the unit tests of the shadow leg share: what a worker has for it, copies and their outcomes, and
//! a shadow whose connections the test reads and responds on itself. The tests busy-wait for events, so
//! that a paused clock stands still until they advance it.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Method, Request, header};
use hyper::body::Frame;
use tokio::task::{LocalSet, yield_now};

use super::{
    ShadowNetns, ShadowOptions,
    accounting::OutcomeGuard,
    copy::Copy,
    endpoint_pool::{EndpointPool, PoolParts},
    head::Http1Head,
};
use crate::{
    outcome::{AccessLog, CopyOutcome, Recorder},
    proxy::{
        read_limit::{EndpointReads, WorkerReads},
        tee::{BackendBudget, Budgets, CopyBody},
    },
    route::ServicePort,
    sockets::{NetnsTarget, plain::PlainSockets},
};

/// A response of a shadow.
pub(super) const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// The same with the last response of a connection.
pub(super) const CLOSE: &[u8] =
    b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok";

/// Longer than anything takes on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs a test whose tasks are local to this thread.
pub(super) async fn local<F: Future>(test: F) -> F::Output {
    LocalSet::new().run_until(test).await
}

/// Waits for an event, and not for a time: the clock does not advance meanwhile.
pub(super) async fn event<T>(what: &str, mut happened: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = happened() {
            return value;
        }
        assert!(begun.elapsed() < PATIENCE, "never came: {what}");
        yield_now().await;
    }
}

/// The same for a condition.
pub(super) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    event(what, || holds().then_some(())).await;
}

/// Lets all tasks do what they can do now.
pub(super) async fn settle() {
    for _ in 0..1000 {
        yield_now().await;
    }
}

/// What a worker has for its shadow leg, and the backend that the copies are for.
pub(super) struct Worker {
    recorder: Rc<Recorder>,
    budgets: Arc<Budgets>,
    service: Arc<ServicePort>,
    backend: Arc<BackendBudget>,
    options: ShadowOptions,
    /// When each copy was selected.
    pub(super) now: Instant,
}

impl Worker {
    pub(super) fn new() -> Self {
        let options = ShadowOptions {
            host_suffix: "-shadow".into(),
            netns: ShadowNetns::Node,
            connections: 64,
            connect_timeout: Duration::from_secs(1),
            response_timeout: Duration::from_secs(15),
            response_limit: 1 << 20,
        };
        let budgets = Arc::new(Budgets::new(64 << 20, 64 << 20, 64 << 20));
        let service = ServicePort { namespace: "default".into(), name: "shadow".into(), port: 80 };
        let backend = budgets.backend(&service);
        Self {
            recorder: Rc::new(Recorder::new(AccessLog::off())),
            budgets,
            service: Arc::new(service),
            backend,
            options,
            now: Instant::now(),
        }
    }

    /// A pool of at most so many connections to this endpoint.
    pub(super) fn pool(&self, endpoint: SocketAddr, connections: usize) -> Rc<EndpointPool> {
        let options = Rc::new(ShadowOptions { connections, ..self.options.clone() });
        let (sockets, protocols) = (Arc::new(PlainSockets), Rc::default());
        let parts = PoolParts { options, sockets, reads: Self::reads(), protocols };
        EndpointPool::new(&self.service, endpoint, NetnsTarget::Own, parts)
    }

    pub(super) fn reads() -> Rc<EndpointReads> {
        EndpointReads::new(&WorkerReads::new(1 << 20))
    }

    pub(super) fn guard(&self) -> OutcomeGuard {
        OutcomeGuard::new(&self.recorder, &self.service, self.now, None)
    }

    /// A copy that others may follow before its response.
    pub(super) fn get(&self) -> Copy<Http1Head> {
        self.without_content(Method::GET)
    }

    /// A copy without content that has a connection for itself.
    pub(super) fn delete(&self) -> Copy<Http1Head> {
        self.without_content(Method::DELETE)
    }

    fn without_content(&self, method: Method) -> Copy<Http1Head> {
        self.copy(Request::builder().method(method), CopyBody::empty(), true)
    }

    /// A copy with content, all of it there.
    pub(super) fn post(&self) -> Copy<Http1Head> {
        let (body, writer) = CopyBody::stream(self.budgets.copy_budget(Arc::clone(&self.backend)));
        let writer = writer.expect("a body has a writer");
        writer.frame(&Frame::data(Bytes::from_static(b"body")));
        writer.finish();
        let request = Request::builder().method(Method::POST).header(header::CONTENT_LENGTH, "4");
        self.copy(request, body, false)
    }

    fn copy(
        &self,
        request: http::request::Builder,
        body: CopyBody,
        whole: bool,
    ) -> Copy<Http1Head> {
        let request = request.uri("/").header(header::HOST, "a").body(()).expect("a request");
        let head = Http1Head::new(&request.into_parts().0, None, whole);
        let copy_budget = self.budgets.copy_budget(Arc::clone(&self.backend));
        let charge = copy_budget.charge(head.encoded.size()).expect("room for one more");
        Copy { head, body, guard: self.guard(), charge, moves: 0 }
    }

    pub(super) fn selected(&self) -> u64 {
        let report = self.recorder.report();
        report.copies.get(&self.service).map_or(0, |copies| copies.selected)
    }

    /// How many copies ended like this.
    pub(super) fn ended(&self, outcome: CopyOutcome) -> u64 {
        let report = self.recorder.report();
        report.copies.get(&self.service).map_or(0, |copies| copies.ended[outcome.index()])
    }

    /// Waits until so many have ended like this, and checks that no others did.
    pub(super) async fn all_ended(&self, outcome: CopyOutcome, count: u64) {
        let all = || CopyOutcome::all().map(|outcome| self.ended(outcome)).sum::<u64>();
        until("copies end", || all() >= count).await;
        assert_eq!((self.ended(outcome), all()), (count, count), "{outcome:?}");
    }
}

/// A shadow: the test takes its connections and responds on them.
pub(super) struct Shadow {
    listener: TcpListener,
    pub(super) address: SocketAddr,
}

impl Shadow {
    pub(super) fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a socket");
        let address = listener.local_addr().expect("bound");
        Self { listener, address }
    }

    /// The next connection.
    pub(super) async fn accept(&self) -> Connection {
        event("a connection to the shadow", || self.try_accept()).await
    }

    /// The next connection, if there is one by now.
    pub(super) fn try_accept(&self) -> Option<Connection> {
        let (stream, _) = self.listener.accept().ok()?;
        stream.set_nonblocking(true).expect("a socket");
        Some(Connection { stream, bytes: Vec::new(), closed: false })
    }
}

/// A connection as the shadow sees it.
pub(super) struct Connection {
    stream: TcpStream,
    bytes: Vec<u8>,
    closed: bool,
}

impl Connection {
    /// Heads of requests that have arrived by now.
    pub(super) fn heads(&mut self) -> usize {
        let mut buffer = [0; 16 << 10];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => self.closed = true,
                Ok(count) => {
                    self.bytes.extend_from_slice(&buffer[..count]);
                    continue;
                }
                Err(error) => self.closed |= error.kind() != ErrorKind::WouldBlock,
            }
            return self.bytes.windows(4).filter(|bytes| bytes == b"\r\n\r\n").count();
        }
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    /// Waits until so many heads have arrived in all; there must not be more.
    pub(super) async fn has(&mut self, heads: usize) {
        until("heads at the shadow", || self.heads() >= heads).await;
        settle().await;
        assert_eq!(self.heads(), heads, "{}", self.text());
    }

    pub(super) fn respond(&mut self, response: &[u8]) {
        self.stream.write_all(response).expect("the pool reads");
    }

    /// Waits until so many heads have arrived in all, and responds to the last.
    pub(super) async fn respond_to_all(&mut self, heads: usize, response: &[u8]) {
        self.has(heads).await;
        self.respond(response);
        settle().await;
    }

    /// Waits until the pool has closed it.
    pub(super) async fn is_closed(&mut self) {
        until("the connection ends", || {
            self.heads();
            self.closed
        })
        .await;
    }
}

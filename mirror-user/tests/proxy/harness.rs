//! The rig: one real worker with hand-made routes, and what it counted.

use std::{
    collections::HashMap,
    fs::File,
    io,
    net::{SocketAddr, TcpListener},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use mirror_user::{
    heartbeat::HeartbeatSink,
    memory::{AgentUsage, MemoryLimits},
    model::{ObjectName, RouteKind},
    outcome::{AccessLog, Copies, CopyOutcome, Report},
    proxy::{Budgets, Options, ShadowNetns, ShadowOptions, SharedContext},
    route::{
        AppProtocol, Backend, BackendRef, Backends, EndpointChoice, Filter, Fraction, Frontend,
        FrontendCapture, FrontendId, FrontendState, Mirror, RouteTable, Rule, RuleEntry,
        ServicePort, Snapshot, Timeouts,
    },
    segment::SegmentSource,
    sockets::{Netns, NetnsTarget, SocketFactory, keepalive_left},
    worker::{Worker, WorkerParts},
    workload::{WorkerCommand, Workload},
};
use tokio::{
    net::TcpSocket,
    sync::oneshot::{self, error::TryRecvError},
};

use super::{
    raw_connection::{PATIENCE, RawConnection},
    server::Server,
};

/// The frontend of every rig.
pub(crate) const FRONTEND: FrontendId = FrontendId(2);

/// Waits for a condition, not for a time.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "never came: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// A script's wait for the test: the first opens, with a message or by going away.
pub(crate) fn gate() -> (mpsc::Sender<()>, impl Fn() + Send + Sync) {
    let (open, opened) = mpsc::channel();
    let opened = Mutex::new(opened);
    let wait = move || {
        // An error says that the other end has gone: open.
        let _ = opened.lock().expect("no panic").recv();
    };
    (open, wait)
}

pub(crate) fn service(name: &str) -> Arc<ServicePort> {
    Arc::new(ServicePort { namespace: "default".into(), name: name.into(), port: 80 })
}

pub(crate) fn backend(name: &str, endpoints: &[SocketAddr]) -> Arc<Backend> {
    let (protocol, endpoints) = (AppProtocol::default(), endpoints.to_vec());
    let (addresses, unready, affinity) = (Vec::new(), Vec::new(), false);
    let service = service(name);
    Arc::new(Backend { service, protocol, addresses, endpoints, unready, affinity })
}

/// The Service port that a rig's clients connect to, balanced by somebody else behind `address`.
pub(crate) fn own_ref(address: SocketAddr) -> BackendRef {
    let (service, protocol) = (service("front"), AppProtocol::default());
    let (addresses, endpoints, unready, affinity) = (vec![address], Vec::new(), Vec::new(), false);
    let backend = Backend { service, protocol, addresses, endpoints, unready, affinity };
    BackendRef { weight: 1, filters: Vec::new(), target: Ok(Arc::new(backend)) }
}

pub(crate) fn backend_ref(name: &str, endpoints: &[SocketAddr]) -> BackendRef {
    BackendRef { weight: 1, filters: Vec::new(), target: Ok(backend(name, endpoints)) }
}

pub(crate) fn mirror(name: &str, endpoint: SocketAddr) -> Filter {
    mirror_of(name, endpoint, Fraction::ALL)
}

pub(crate) fn mirror_of(name: &str, endpoint: SocketAddr, share: Fraction) -> Filter {
    Filter::Mirror(Mirror { target: Ok(backend(name, &[endpoint])), share })
}

/// A rule for all requests.
pub(crate) fn rule(filters: Vec<Filter>, refs: Vec<BackendRef>) -> RuleEntry {
    let route =
        RouteKind::Http.named(ObjectName { namespace: "default".into(), name: "route".into() });
    let (backends, timeouts) = (Backends::new(refs), Timeouts::default());
    let (route, name, retry) = (Arc::new(route), None, None);
    let rule = Rule { route, index: 0, name, filters, backends, timeouts, retry };
    RuleEntry { rule: Arc::new(rule), matches: Vec::new(), created: None }
}

/// A frontend with these rules for all clients.
pub(crate) fn frontend(
    id: FrontendId,
    original: SocketAddr,
    rules: Option<Vec<RuleEntry>>,
) -> Arc<Frontend> {
    Arc::new(Frontend {
        ahead: false,
        capture: FrontendCapture::default(),
        id,
        address: original,
        service: service("front"),
        producer: rules.map(RouteTable::new),
        consumers: HashMap::new(),
        connection_ref: Arc::default(),
    })
}

/// What a rig is made of; each part may be changed before [`Setup::start`].
pub(crate) struct Setup {
    pub(crate) options: Options,
    /// Request, backend, agent; the agent's default and no other bound, unless changed.
    pub(crate) budgets: (usize, usize, usize),
    /// The agent's defaults, unless changed.
    pub(crate) memory: MemoryLimits,
    pub(crate) original: SocketAddr,
    pub(crate) rules: Vec<RuleEntry>,
    /// Off, unless changed.
    pub(crate) access: AccessLog,
    /// Of each socket to an upstream, in bytes; the kernel's own choice, unless changed.
    pub(crate) send_buffer: Option<u32>,
    /// What clients of a tapped frontend send; None, unless changed: it is proxied.
    pub(crate) tap: Option<Box<dyn SegmentSource>>,
}

impl Setup {
    /// All requests go to `primary`, which is the original destination as well.
    pub(crate) fn to(primary: &Server) -> Self {
        Self::with(primary, Vec::new())
    }

    /// The same, mirrored to `shadow`.
    pub(crate) fn mirrored(primary: &Server, shadow: SocketAddr) -> Self {
        Self::with(primary, vec![mirror("shadow", shadow)])
    }

    /// The cluster chooses the endpoint, and the route does no more than mirror.
    pub(crate) fn balanced(primary: &Server, filters: Vec<Filter>) -> Self {
        let rules = vec![rule(filters, vec![own_ref(primary.address)])];
        let mut setup = Self::rules(primary.address, rules);
        setup.options.endpoints = EndpointChoice::Service;
        setup
    }

    pub(crate) fn with(primary: &Server, filters: Vec<Filter>) -> Self {
        let refs = vec![backend_ref("primary", &[primary.address])];
        Self::rules(primary.address, vec![rule(filters, refs)])
    }

    pub(crate) fn rules(original: SocketAddr, rules: Vec<RuleEntry>) -> Self {
        let shadow = ShadowOptions {
            host_suffix: "-shadow".into(),
            netns: ShadowNetns::Node,
            connections: 64,
            connect_timeout: Duration::from_secs(1),
            response_timeout: Duration::from_secs(15),
            response_limit: 1 << 20,
        };
        let options = Options {
            sniff_timeout: Duration::from_secs(10),
            head_timeout: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(5),
            endpoints: EndpointChoice::Mirror,
            shadow,
        };
        let access = AccessLog::off();
        let budgets = (64 << 20, 64 << 20, 64 << 20);
        let memory = MemoryLimits {
            connection: usize::MAX,
            workload: usize::MAX,
            agent: 128 << 20,
            connections: 4096,
        };
        let (send_buffer, tap) = (None, None);
        Self { options, budgets, memory, original, rules, access, send_buffer, tap }
    }

    pub(crate) fn start(self) -> Rig {
        let mut front = frontend(FRONTEND, self.original, Some(self.rules));
        let tapped = self.tap.is_some();
        if tapped {
            Arc::get_mut(&mut front).expect("new").capture = FrontendCapture::Tapped;
        }
        let routes = Snapshot {
            generation: 1,
            frontends: HashMap::from_iter([(FRONTEND, FrontendState::Live(front))]),
        };
        let budgets = Arc::new(Budgets::new(self.budgets.0, self.budgets.1, self.budgets.2));
        let memory = Arc::new(AgentUsage::new(self.memory));
        let routes = Arc::new(ArcSwap::from_pointee(routes));
        let sockets = Arc::new(Plain { send_buffer: self.send_buffer, ..Plain::default() });
        let shared = SharedContext {
            options: self.options,
            routes: Arc::clone(&routes),
            sockets: Arc::clone(&sockets) as Arc<dyn SocketFactory>,
            budgets: Arc::clone(&budgets),
        };
        let heartbeat = Box::new(NoHeartbeats);
        let access = self.access;
        let parts = WorkerParts { index: 0, shared, access, heartbeat, tap: self.tap };
        let worker = Worker::start(parts).expect("a thread");
        let keys = AtomicU64::new(1);
        let mut rig =
            Rig { worker, routes, budgets, memory, sockets, address: self.original, keys, tapped };
        rig.address = rig.serve(FRONTEND).1;
        rig
    }
}

/// A running worker.
pub(crate) struct Rig {
    pub(crate) worker: Worker,
    pub(crate) routes: Arc<ArcSwap<Snapshot>>,
    pub(crate) budgets: Arc<Budgets>,
    pub(crate) memory: Arc<AgentUsage>,
    pub(crate) sockets: Arc<Plain>,
    /// Where clients of the first workload connect to.
    address: SocketAddr,
    keys: AtomicU64,
    /// Its workloads are known to a tap, by their keys as cookies.
    tapped: bool,
}

impl Rig {
    /// A listener of one more workload; its key and where its clients connect to.
    pub(crate) fn serve(&self, id: FrontendId) -> (u64, SocketAddr) {
        let key = self.keys.fetch_add(1, SeqCst);
        let listener = TcpListener::bind((id.address(), 0)).expect("127/8 is local");
        listener.set_nonblocking(true).expect("a socket");
        let address = listener.local_addr().expect("bound");
        let name = format!("default/client-{key}");
        let (namespace, memory) = ("default".into(), self.memory.open(&name));
        let netns = if self.tapped {
            let fd = File::open("/proc/self/ns/net").expect("/proc is mounted").into();
            NetnsTarget::Netns(Arc::new(Netns { fd, cookie: key }))
        } else {
            NetnsTarget::Own
        };
        let workload = Workload { name, namespace, netns, key, memory };
        self.worker.send(WorkerCommand::Serve { workload: Arc::new(workload), listener });
        (key, address)
    }

    /// Where clients of the first workload connect to.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// A new client.
    pub(crate) fn client(&self) -> RawConnection {
        RawConnection::connect(self.address)
    }

    /// Replaces all routes.
    pub(crate) fn publish(&self, frontends: impl IntoIterator<Item = (FrontendId, FrontendState)>) {
        self.publish_as(2, frontends);
    }

    /// The same once more.
    pub(crate) fn publish_as(
        &self,
        generation: u64,
        frontends: impl IntoIterator<Item = (FrontendId, FrontendState)>,
    ) {
        let frontends = frontends.into_iter().collect();
        self.routes.store(Arc::new(Snapshot { generation, frontends }));
    }

    pub(crate) fn report(&self) -> Report {
        // By polling: some tests ask from inside a runtime of their own.
        let (request, mut response) = oneshot::channel();
        self.worker.report_requests().try_send(request).expect("the worker lives, and keeps up");
        loop {
            match response.try_recv() {
                Ok(report) => return report,
                Err(TryRecvError::Empty) => thread::sleep(Duration::from_micros(200)),
                Err(TryRecvError::Closed) => panic!("the worker did not answer"),
            }
        }
    }

    /// What is known of the copies for a shadow now.
    pub(crate) fn copies(&self, shadow: &str) -> Copies {
        self.report().copies.get(&*service(shadow)).cloned().unwrap_or_default()
    }

    /// Waits until every copy has ended and nothing is held, and checks the counts.
    pub(crate) fn settled(&self, shadow: &str, selected: u64) -> Copies {
        eventually("all copies ended", || {
            let copies = self.copies(shadow);
            copies.selected == selected && copies.in_flight() == 0
        });
        eventually("nothing is held", || self.budgets.agent().used() == 0);
        let copies = self.copies(shadow);
        assert_eq!(copies.ended.iter().sum::<u64>(), selected, "{copies:?}");
        copies
    }

    /// The same, and all of them ended like this.
    pub(crate) fn all_ended(&self, shadow: &str, selected: u64, outcome: CopyOutcome) {
        let copies = self.settled(shadow, selected);
        assert_eq!(ended(&copies, outcome), selected, "{}", describe(&copies));
    }
}

pub(crate) fn ended(copies: &Copies, outcome: CopyOutcome) -> u64 {
    copies.ended[outcome.index()]
}

/// The outcomes, for people.
pub(crate) fn describe(copies: &Copies) -> String {
    CopyOutcome::all().map(|o| format!("{o:?}: {}; ", ended(copies, o))).collect()
}

/// Plain sockets of this network namespace.
#[derive(Debug, Default)]
pub(crate) struct Plain {
    /// How many were made.
    pub(crate) made: AtomicUsize,
    send_buffer: Option<u32>,
}

impl SocketFactory for Plain {
    fn stream(&self, _: &NetnsTarget, v6: bool) -> io::Result<TcpSocket> {
        self.made.fetch_add(1, SeqCst);
        let socket = if v6 { TcpSocket::new_v6()? } else { TcpSocket::new_v4()? };
        if let Some(size) = self.send_buffer {
            socket.set_send_buffer_size(size)?;
        }
        Ok(socket)
    }

    fn listener(&self, _: &NetnsTarget, address: SocketAddr) -> io::Result<TcpListener> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    }

    fn keepalive_left(
        &self,
        _: &NetnsTarget,
        client: SocketAddr,
        server: SocketAddr,
    ) -> io::Result<Option<Duration>> {
        keepalive_left(client, server)
    }
}

/// Nobody listens to the heartbeats.
struct NoHeartbeats;

impl HeartbeatSink for NoHeartbeats {
    fn beat(&mut self, _: u32, _: bool) {}
}

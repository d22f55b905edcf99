//! That no input keeps a worker's other tasks waiting: real sockets, a connection as it is accepted, and
//! a task beside it that measures how much CPU time passes until it has its turn again.

use std::{
    cell::Cell,
    collections::HashMap,
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    rc::Rc,
    sync::Arc,
    thread,
    time::Duration,
};

use arc_swap::ArcSwap;
use nix::time::{ClockId, clock_gettime};
use tokio::{
    runtime::Builder,
    task::{spawn_local, yield_now},
    time::timeout,
};

use super::{Budgets, Context, Options, ShadowNetns, ShadowOptions, SharedContext, connection};
use crate::{
    memory::{AgentUsage, MemoryLimits},
    model::{ObjectName, RouteKind},
    outcome::{AccessLog, Recorder},
    route::{
        AppProtocol, Backend, BackendRef, Backends, EndpointChoice, Frontend, FrontendCapture,
        FrontendId, FrontendState, HeaderMatch, Matcher, Pattern, RouteTable, Rule, RuleEntry,
        ServicePort, Snapshot, Timeouts, ValueMatch,
    },
    sockets::{NetnsTarget, plain::PlainSockets},
    workload::Workload,
};

/// What the other tasks may have to wait: 5 ms for each of the tasks that a connection has (its own, and
/// those that drive its upstream). Without optimization everything takes some eight times as long.
const LIMIT: Duration = Duration::from_millis(if cfg!(debug_assertions) { 120 } else { 15 });

const FRONTEND: FrontendId = FrontendId(2);

fn service() -> Arc<ServicePort> {
    Arc::new(ServicePort { namespace: "default".into(), name: "front".into(), port: 80 })
}

/// A rule for what `matches` hold for.
fn rule(primary: SocketAddr, protocol: AppProtocol, matches: Vec<Matcher>) -> RuleEntry {
    let (addresses, unready, affinity) = Default::default();
    let endpoints = vec![primary];
    let service = service();
    let target =
        Ok(Arc::new(Backend { service, protocol, addresses, endpoints, unready, affinity }));
    let refs = vec![BackendRef { weight: 1, filters: Vec::new(), target }];
    let route =
        RouteKind::Http.named(ObjectName { namespace: "default".into(), name: "route".into() });
    let (filters, timeouts) = (Vec::new(), Timeouts::default());
    let backends = Backends::new(refs);
    let (route, name, retry) = (route.into(), None, None);
    let rule = Rule { route, index: 0, name, filters, backends, timeouts, retry };
    RuleEntry { rule: Arc::new(rule), matches, created: None }
}

fn context(original: SocketAddr, rules: Vec<RuleEntry>) -> Rc<Context> {
    let front = Frontend {
        id: FRONTEND,
        address: original,
        service: service(),
        producer: Some(RouteTable::new(rules)),
        consumers: HashMap::new(),
        ahead: false,
        capture: FrontendCapture::default(),
        connection_ref: Arc::default(),
    };
    let frontends = HashMap::from_iter([(FRONTEND, FrontendState::Live(Arc::new(front)))]);
    let shadow = ShadowOptions {
        host_suffix: "-shadow".into(),
        netns: ShadowNetns::Node,
        connections: 64,
        connect_timeout: Duration::from_secs(1),
        response_timeout: Duration::from_secs(15),
        response_limit: 64 << 20,
    };
    let options = Options {
        sniff_timeout: Duration::from_secs(10),
        head_timeout: Duration::from_secs(60),
        connect_timeout: Duration::from_secs(5),
        endpoints: EndpointChoice::Mirror,
        shadow,
    };
    let shared = SharedContext {
        options,
        routes: Arc::new(ArcSwap::from_pointee(Snapshot { generation: 1, frontends })),
        sockets: Arc::new(PlainSockets),
        budgets: Arc::new(Budgets::new(64 << 20, 64 << 20, 64 << 20)),
    };
    Context::new(&shared, Recorder::new(AccessLog::off()))
}

/// Of one connection.
fn memory() -> AgentUsage {
    let (connection, workload) = (usize::MAX, usize::MAX);
    AgentUsage::new(MemoryLimits { connection, workload, agent: 128 << 20, connections: 16 })
}

/// The longest CPU time between two turns of a task beside the connection, while `client` talks to it.
fn longest_wait(
    rules: impl FnOnce(SocketAddr) -> Vec<RuleEntry>,
    primary: impl FnOnce(TcpStream) + Send + 'static,
    client: impl FnOnce(TcpStream) + Send + 'static,
) -> Duration {
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    let original = upstream.local_addr().unwrap();
    thread::spawn(move || primary(upstream.accept().unwrap().0));
    let listener = TcpListener::bind((FRONTEND.address(), 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let talk = thread::spawn(move || client(TcpStream::connect(address).unwrap()));
    let (stream, peer) = listener.accept().unwrap();
    stream.set_nonblocking(true).unwrap();
    let longest = Rc::new(Cell::new(Duration::ZERO));
    let beside = Rc::clone(&longest);
    let runtime = Builder::new_current_thread().enable_all().build_local(Default::default());
    runtime.unwrap().block_on(async move {
        let ctx = context(original, rules(original));
        let name = "default/client".into();
        let (namespace, memory) = ("default".into(), memory().open("default/client"));
        let workload = Workload { name, namespace, netns: NetnsTarget::Own, key: 1, memory };
        let stream = tokio::net::TcpStream::from_std(stream).unwrap();
        let served = spawn_local(connection::run(ctx, Arc::new(workload), stream, peer));
        let watch = spawn_local(async move {
            let now =
                || clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).unwrap();
            let mut last = now();
            loop {
                yield_now().await;
                let at = now();
                beside.set(beside.get().max(at - last));
                last = at;
            }
        });
        timeout(Duration::from_secs(60), served).await.expect("it comes to its end").unwrap();
        watch.abort();
    });
    talk.join().unwrap();
    longest.get()
}

/// Sends all of this, while another thread reads what comes until the other side ends or says `last`.
fn exchange(mut stream: TcpStream, sent: &[u8], last: &'static [u8]) {
    let mut reader = stream.try_clone().unwrap();
    let reading = thread::spawn(move || {
        let (mut buffer, mut tail) = (vec![0; 1 << 20], Vec::new());
        while let Ok(n @ 1..) = reader.read(&mut buffer) {
            tail.extend_from_slice(&buffer[..n]);
            if tail.windows(last.len()).any(|part| part == last) {
                break;
            }
            tail.drain(..tail.len().saturating_sub(last.len()));
        }
        let _ = reader.shutdown(Shutdown::Both);
    });
    // One that refuses what it gets closes first.
    let _ = stream.write_all(sent);
    reading.join().unwrap();
}

/// Reads a head.
fn head(stream: &mut TcpStream) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
        head.push(byte[0]);
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn assert_short(what: &str, longest: Duration) {
    println!("{what}: others waited {longest:?} at most");
    assert!(longest < LIMIT, "{what}: others waited {longest:?}");
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const GOODBYE: &[u8] = b"goodbye!";

/// A PING whose acknowledgement shows that all before it was read.
fn goodbye() -> Vec<u8> {
    frame(6, 0, 0, GOODBYE)
}

fn all(primary: SocketAddr) -> Vec<RuleEntry> {
    vec![rule(primary, AppProtocol::default(), Vec::new())]
}

fn none(_: SocketAddr) -> Vec<RuleEntry> {
    Vec::new()
}

#[test]
fn chunks_of_one_byte() {
    let many = b"1\r\nx\r\n".repeat(500_000);
    let content = many.clone();
    let primary = move |mut stream: TcpStream| {
        head(&mut stream);
        let begin = &b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"[..];
        stream.write_all(&[begin, &content, b"3\r\nend\r\n0\r\n\r\n"].concat()).unwrap();
    };
    let longest = longest_wait(all, primary, |stream| exchange(stream, GET, b"end"));
    assert_short("of a response", longest);
    let primary = |stream: TcpStream| {
        let response = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\nend";
        exchange(stream.try_clone().unwrap(), b"", b"\r\n0\r\n\r\n");
        drop((stream, response));
    };
    let begin = &b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"[..];
    let sent = [begin, &many, b"0\r\n\r\n"].concat();
    let longest = longest_wait(all, primary, move |stream| exchange(stream, &sent, b"end"));
    assert_short("of a request", longest);
}

#[test]
fn interim_responses() {
    let primary = |mut stream: TcpStream| {
        head(&mut stream);
        let many = b"HTTP/1.1 103 \r\n\r\n".repeat(100_000);
        let end = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nend";
        stream.write_all(&[&many[..], end].concat()).unwrap();
    };
    let longest = longest_wait(all, primary, |stream| exchange(stream, GET, b"end"));
    assert_short("interim responses", longest);
}

#[test]
fn requests_with_a_local_response() {
    let last = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let sent = [&GET.repeat(5000), &last[..]].concat();
    let longest = longest_wait(none, drop, move |stream| exchange(stream, &sent, b"never"));
    assert_short("pipelined", longest);
    // `:method GET`, `:scheme http`, `:path /`, and an authority.
    let block = b"\x82\x86\x84\x01\x01a";
    let streams = (0..4000).flat_map(|n| frame(1, 5, 2 * n + 1, block));
    let sent = [PREFACE.to_vec(), streams.collect(), goodbye()].concat();
    let longest = longest_wait(none, drop, move |stream| exchange(stream, &sent, GOODBYE));
    assert_short("streams", longest);
}

#[test]
fn fields_of_one_byte() {
    // An entry of the dynamic table, referred to by a byte each.
    let fill = b"\x82\x86\x84\x01\x01a\x40\x01b\x01c";
    let block = [&b"\x82\x86\x84\x01\x01a"[..], &[0xbe; 2000]].concat();
    let streams = (1..180).flat_map(|n| frame(1, 5, 2 * n + 1, &block));
    let sent = [PREFACE.to_vec(), frame(1, 5, 1, fill), streams.collect(), goodbye()].concat();
    let longest = longest_wait(none, drop, move |stream| exchange(stream, &sent, GOODBYE));
    assert_short("fields", longest);
}

#[test]
fn frames_that_say_little() {
    let floods: [(&str, Vec<u8>); 3] = [
        ("WINDOW_UPDATE", frame(8, 0, 0, &[0, 0, 0, 1])),
        ("PRIORITY", frame(2, 0, 1, &[0, 0, 0, 0, 1])),
        ("unknown frames", frame(0xee, 0, 0, &[])),
    ];
    for (what, one) in floods {
        let many = one.repeat(150_000);
        let sent = [PREFACE, &many, &goodbye()].concat();
        let longest = longest_wait(none, drop, move |stream| exchange(stream, &sent, GOODBYE));
        assert_short(what, longest);
        let primary = move |mut stream: TcpStream| {
            let mut hello = [0; PREFACE.len()];
            stream.read_exact(&mut hello).unwrap();
            let settings = frame(4, 0, 0, &[]);
            exchange(stream, &[settings, many, goodbye()].concat(), GOODBYE);
        };
        let h2c = |primary| vec![rule(primary, AppProtocol::H2c, Vec::new())];
        let longest = longest_wait(h2c, primary, |stream| exchange(stream, GET, b"never"));
        assert_short(&format!("{what} of a primary"), longest);
    }
}

#[test]
fn expressions_that_read_a_long_header() {
    let expression = Pattern::new("[ab]*a[ab]{10}c").unwrap();
    let value = ValueMatch::Regex(expression);
    let matches = |n: usize| Matcher {
        headers: vec![HeaderMatch { name: "x-long".parse().unwrap(), value: value.clone() }],
        path: crate::route::PathMatch::Prefix(format!("/{}", &"/".repeat(n)[..n % 2])),
        ..Matcher::default()
    };
    let rules =
        |primary| vec![rule(primary, AppProtocol::default(), (0..100).map(matches).collect())];
    let long = "ab".repeat(100 * 1024);
    let sent = format!("GET // HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Long: {long}\r\n\r\n");
    let longest =
        longest_wait(rules, drop, move |stream| exchange(stream, sent.as_bytes(), b"never"));
    assert_short("expressions", longest);
}

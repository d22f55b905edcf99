//! Early final responses: a primary answers 413 to an upload of 64 MiB that it does not read, and
//! ends the connection in every way that destroys answers on their way. The client gets each one.
#![allow(clippy::unwrap_used, reason = "helpers of tests; clippy knows only the tests themselves")]

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use mirror_tests::{
    Agent, Copies, Node, Pod,
    manifest::{Route, Rule},
    pair::script,
};
use socket2::SockRef;

const COUNT: usize = 100;
/// Of the client that sends all of it, whatever comes back.
const SIMPLE_COUNT: usize = 20;
const MIB: u64 = 64;

const ANSWER: &[u8] =
    b"HTTP/1.1 413 Payload Too Large\r\nConnection: close\r\nContent-Length: 3\r\n\r\nbig";

/// How a primary ends the connection behind its response.
#[derive(Clone, Copy, Debug)]
enum Ending {
    /// close(2) with bytes unread: the kernel sends RST at once.
    Close,
    /// The same by `SO_LINGER` of zero.
    Reset,
    /// FIN, and RST a little later, in the middle of what still comes.
    HalfClose,
}

const ENDINGS: [(Ending, u16); 3] =
    [(Ending::Close, 81), (Ending::Reset, 82), (Ending::HalfClose, 83)];

impl Ending {
    /// Serves connections until the process ends.
    fn listen(self, pod: &Pod, port: u16) {
        let listener = pod.netns().enter(|| TcpListener::bind(("0.0.0.0", port))).unwrap().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                thread::spawn(move || self.serve(stream.unwrap()));
            }
        });
    }

    fn serve(self, mut stream: TcpStream) {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            // One at a time: not a byte of the body is read.
            if stream.read(&mut byte).unwrap_or(0) == 0 {
                return;
            }
            head.extend(byte);
        }
        stream.write_all(ANSWER).unwrap();
        match self {
            Self::Close => {}
            Self::Reset => SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap(),
            Self::HalfClose => {
                // Fails where the client has gone already.
                let _ = stream.shutdown(Shutdown::Write);
                thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

/// How often each response came to a client that reads while it sends.
fn curl(client: &Pod, url: &str) -> BTreeMap<String, usize> {
    let file = client.hosts().with_file_name("upload");
    let script = format!(
        "truncate -s {MIB}M {0}; for i in $(seq {COUNT}); do \
         curl -s -m 20 -H Expect: -T {0} -w ' %{{http_code}}\\n' {url}; done",
        file.display()
    );
    let output = client.run(&["sh", "-c", &script], Duration::from_secs(120)).unwrap();
    let mut responses = BTreeMap::new();
    for line in output.stdout.lines() {
        let (body, status) = line.rsplit_once(' ').unwrap();
        *responses.entry(format!("{status} {body}")).or_default() += 1;
    }
    responses
}

/// The same for one that reads only when it can send no more.
fn simple(client: &Pod, url: &str) -> BTreeMap<String, usize> {
    let (path, mib, count) = (script("early.py"), MIB.to_string(), SIMPLE_COUNT.to_string());
    let argv = ["python3", &path, url, &mib, &count];
    let output = client.run(&argv, Duration::from_secs(120)).unwrap().ok().unwrap();
    serde_json::from_str(&output).unwrap()
}

#[test]
fn early_responses_arrive_a_hundred_times_of_a_hundred() {
    let node = Node::create("early").unwrap();
    let (client, primary) = (node.pod("client").unwrap(), node.pod("primary").unwrap());
    let shadow = node.pod("shadow").unwrap();
    let _echo = shadow.echo(&["--listen", "0.0.0.0:80", "--quiet"]).unwrap();
    let copy = node.service("shadow", 80, 80, &[&shadow]).unwrap();
    let mut manifests = vec![copy.manifest()];
    for (ending, port) in ENDINGS {
        ending.listen(&primary, port);
        for way in ["plain", "mirrored"] {
            let service = node.service(&format!("{way}-{port}"), 80, port, &[&primary]).unwrap();
            let rule = Rule::to(&service.name, 80);
            let rule = if way == "plain" { rule } else { rule.mirror("shadow", 80) };
            manifests.push(service.manifest());
            manifests.push(Route::new(&service.name, &service).rule(rule).manifest());
        }
    }
    node.routes().write("all.yaml", &manifests.join("---\n")).unwrap();
    let agent = Agent::start(&node, &[&client], &[]).unwrap();
    let all = |count: usize| BTreeMap::from([("413 big".to_owned(), count)]);
    for (ending, port) in ENDINGS {
        for way in ["plain", "mirrored"] {
            let url = format!("http://{way}-{port}/upload");
            let responses = [curl(&client, &url), simple(&client, &url)];
            println!(
                "{ending:?}, {way}: curl {:?}, simple client {:?}",
                responses[0], responses[1]
            );
            let expected = [all(COUNT), all(SIMPLE_COUNT)];
            assert_eq!(responses, expected, "{ending:?} {way}\n{}", agent.log());
        }
    }
    let mirrored = ENDINGS.len() * (COUNT + SIMPLE_COUNT);
    let taken = agent.metric("mirror_connections_total", &[("kind", "http1")]).unwrap();
    assert!(taken >= 2.0 * mirrored as f64, "the agent took only {taken}");
    let copies = Copies::settled(&agent).unwrap();
    println!("copies: {copies}");
    assert_eq!(copies.selected, mirrored as u64);
    assert_eq!(copies.delivered, 0, "a copy of what the primary did not take: {copies}");
}

//! The cases of `tests/corpus/mirrors.yaml`, each over HTTP/1.1 and HTTP/2: a route as its author writes it is
//! decoded, resolved and published; primary and shadows must get what the case says, each copy exactly once.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    net::SocketAddr,
    path::Path,
    sync::Arc,
};

use http::{HeaderMap, HeaderName, Request};
use mirror_user::{
    control::{
        decode::decode,
        objects::Objects,
        resolve::{AddressPolicy, Resolved, resolve},
    },
    outcome::CopyOutcome,
    route::{Frontend, FrontendCapture, FrontendState},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    harness::{FRONTEND, Rig, Setup, ended, eventually},
    raw_connection::Message,
    server::Server,
    streams::{Client, ReceivedRequest, ReceivedResponse, Upstream, run, until},
};

const HOST: &str = "front:8000";

/// Fields of a connection, or of how its version frames messages.
const OF_THE_CONNECTION: [&str; 6] =
    ["host", "connection", "content-length", "transfer-encoding", "trailer", "te"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    #[serde(default = "http_route")]
    kind: String,
    rules: Value,
    request: Content,
    #[serde(default = "once")]
    times: usize,
    #[serde(default = "ok")]
    status: u16,
    #[serde(default)]
    primary: Expected,
    copies: BTreeMap<String, Expected>,
    refs: Option<String>,
}

/// What a request says; what a server got of it.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
struct Content {
    method: String,
    host: String,
    path: String,
    headers: BTreeMap<String, String>,
    body: String,
    trailers: BTreeMap<String, String>,
}

/// What somebody gets otherwise than another, and how often.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Expected {
    count: Option<usize>,
    least: Option<usize>,
    most: Option<usize>,
    host: Option<String>,
    path: Option<String>,
    headers: BTreeMap<String, String>,
    absent: Vec<String>,
}

fn http_route() -> String {
    "HTTPRoute".into()
}

fn once() -> usize {
    1
}

fn ok() -> u16 {
    200
}

impl Expected {
    /// What is got where `content` is with these differences.
    fn of(&self, content: &Content, host: &str) -> Content {
        let mut content = content.clone();
        self.host.as_deref().unwrap_or(host).clone_into(&mut content.host);
        if let Some(path) = &self.path {
            content.path.clone_from(path);
        }
        content.headers.extend(self.headers.clone());
        content.headers.retain(|name, _| !self.absent.contains(name));
        content
    }

    fn check(&self, case: &str, who: &str, got: &[Content], expected: &Content, times: usize) {
        let exactly = self.count.unwrap_or(times);
        let (least, most) = (self.least.unwrap_or(exactly), self.most.unwrap_or(exactly));
        let count = got.len();
        assert!((least..=most).contains(&count), "{case}: {who} got {count}: {got:?}");
        for got in got {
            assert_eq!(got, expected, "{case}: {who}");
        }
    }
}

impl Content {
    fn of_http1(message: &Message) -> Self {
        let mut line = message.head.lines().next().unwrap_or_default().split(' ');
        let mut word = || line.next().unwrap_or_default().to_owned();
        let (method, path) = (word(), word());
        let fields = message.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        let trailers = message.trailers.lines().filter_map(|line| line.split_once(": "));
        Self {
            method,
            host: message.value("host").unwrap_or_default().to_owned(),
            path,
            headers: relevant(fields),
            body: String::from_utf8_lossy(&message.body).into_owned(),
            trailers: relevant(trailers),
        }
    }

    fn of_http2(request: &ReceivedRequest) -> Self {
        let uri: http::Uri = request.uri.parse().expect("a target");
        let texts = |fields: &http::HeaderMap| {
            let texts = fields.iter();
            let texts = texts.map(|(name, value)| (name.as_str(), value.to_str().expect("text")));
            relevant(texts)
        };
        Self {
            method: request.method.clone(),
            host: uri.authority().map(ToString::to_string).unwrap_or_default(),
            path: uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
            headers: texts(&request.headers),
            body: String::from_utf8_lossy(&request.body).into_owned(),
            trailers: request.trailers.as_ref().map(texts).unwrap_or_default(),
        }
    }

    fn http1(&self) -> String {
        let Self { method, path, body, .. } = self;
        let lines = |fields: &BTreeMap<String, String>| {
            fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect::<String>()
        };
        let head = format!("{method} {path} HTTP/1.1\r\nHost: {HOST}\r\n{}", lines(&self.headers));
        match (self.trailers.is_empty(), body.len()) {
            (true, 0) => format!("{head}\r\n"),
            (true, length) => format!("{head}Content-Length: {length}\r\n\r\n{body}"),
            (false, length) => format!(
                "{head}Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n{}\r\n",
                lines(&self.trailers)
            ),
        }
    }
}

fn relevant<'f>(fields: impl Iterator<Item = (&'f str, &'f str)>) -> BTreeMap<String, String> {
    let fields = fields.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()));
    fields.filter(|(name, _)| !OF_THE_CONNECTION.contains(&name.as_str())).collect()
}

fn cases() -> Vec<Case> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/corpus/mirrors.yaml");
    let text = fs::read_to_string(file).expect("the cases");
    let cases: Vec<Value> = serde_saphyr::from_str(&text).expect("YAML");
    let parse =
        |case: Value| serde_json::from_value(case.clone()).map_err(|e| format!("{e}: {case}"));
    let cases: Vec<Case> = cases.into_iter().map(|case| parse(case).expect("a case")).collect();
    for case in &cases {
        assert_eq!(case.request.host, "", "{}: each request is sent to {HOST}", case.name);
    }
    cases
}

/// The route of the case at Service web, whose backends are at these addresses.
fn resolved(case: &Case, backends: &[(&str, SocketAddr)]) -> Resolved {
    let mut objects = Objects::default();
    let mut add = |object: Value| objects.insert(decode(object).expect("a valid object"));
    let service = |namespace: &str, name: &str, address: &str| {
        json!({"apiVersion": "v1", "kind": "Service",
               "metadata": {"namespace": namespace, "name": name},
               "spec": {"clusterIP": address, "ports": [{"port": 80}]}})
    };
    add(service("default", "web", "10.96.0.1"));
    for (at, (name, address)) in backends.iter().enumerate() {
        let namespace = if *name == "far" { "other" } else { "default" };
        add(service(namespace, name, &format!("10.96.0.{}", at + 2)));
        add(json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"namespace": namespace, "name": name,
                         "labels": {"kubernetes.io/service-name": name}},
            "ports": [{"port": address.port()}],
            "endpoints": [{"addresses": [address.ip().to_string()]}],
        }));
    }
    add(json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": case.kind,
        "metadata": {"namespace": "default", "name": "web"},
        "spec": {"parentRefs": [{"group": "", "kind": "Service", "name": "web", "port": 80}],
                 "rules": case.rules},
    }));
    let resolved = resolve(&AddressPolicy::default(), &objects);
    let [status] = &resolved.conditions[..] else { panic!("{:?}", resolved.conditions) };
    assert!(status.accepted.holds, "{}: {:?}", case.name, status.accepted);
    let reason = (!status.resolved_refs.holds).then_some(status.resolved_refs.reason);
    assert_eq!(reason, case.refs.as_deref(), "{}: {:?}", case.name, status.resolved_refs);
    resolved
}

/// A rig whose clients connect to Service web.
fn start(case: &Case, backends: &[(&str, SocketAddr)]) -> Rig {
    let resolved = resolved(case, backends);
    let [web] = &resolved.frontends[..] else { panic!("{:?}", resolved.frontends) };
    let (_, primary) = backends[0];
    let rig = Setup::rules(primary, Vec::new()).start();
    let frontend = Frontend {
        ahead: false,
        capture: FrontendCapture::default(),
        id: FRONTEND,
        address: primary,
        service: Arc::clone(&web.service),
        producer: web.producer.clone(),
        consumers: HashMap::new(),
        connection_ref: Arc::default(),
    };
    rig.publish([(FRONTEND, FrontendState::Live(Arc::new(frontend)))]);
    rig
}

/// Whether each copy has ended.
fn is_settled(rig: &Rig) -> bool {
    rig.report().copies.values().all(|copies| copies.in_flight() == 0)
}

/// What v1, v2, v3 and far got, against what the case says. Each copy that was selected must have been
/// delivered.
fn check(case: &Case, rig: &Rig, got: &[Vec<Content>]) {
    for copies in rig.report().copies.values() {
        assert_eq!(ended(copies, CopyOutcome::Delivered), copies.selected, "{}", case.name);
    }
    let expected = case.primary.of(&case.request, HOST);
    case.primary.check(&case.name, "the primary", &got[0], &expected, case.times);
    let none = Expected { count: Some(0), ..Expected::default() };
    for (shadow, got) in ["v2", "v3", "far"].into_iter().zip(&got[1..]) {
        let of_shadow = case.copies.get(shadow).unwrap_or(&none);
        let copy = of_shadow.of(&expected, "front-shadow:8000");
        of_shadow.check(&case.name, shadow, got, &copy, case.times);
    }
}

#[test]
fn the_cases_of_mirrors_over_http1() {
    let cases = cases();
    assert!(cases.len() > 20, "{} cases", cases.len());
    for case in &cases {
        let servers = [(); 4].map(|()| Server::ok());
        let names = ["v1", "v2", "v3", "far"];
        let backends: Vec<_> =
            names.into_iter().zip(servers.iter().map(|server| server.address)).collect();
        let rig = start(case, &backends);
        let mut client = rig.client();
        for _ in 0..case.times {
            let response = client.request(case.request.http1());
            assert_eq!(response.status(), case.status, "{}: {}", case.name, response.head);
        }
        eventually("all copies ended", || is_settled(&rig));
        let got = servers
            .iter()
            .map(|server| server.requests().iter().map(Content::of_http1).collect::<Vec<_>>());
        check(case, &rig, &got.collect::<Vec<_>>());
    }
}

#[test]
fn the_cases_of_mirrors_over_http2() {
    for case in &cases() {
        run(async {
            let servers = [
                Upstream::echo().await,
                Upstream::echo().await,
                Upstream::echo().await,
                Upstream::echo().await,
            ];
            let names = ["v1", "v2", "v3", "far"];
            let backends: Vec<_> =
                names.into_iter().zip(servers.iter().map(|server| server.address)).collect();
            let rig = start(case, &backends);
            let mut client = Client::connect(rig.address()).await;
            for _ in 0..case.times {
                let status = send(&mut client, &case.request).await;
                assert_eq!(status, case.status, "{}", case.name);
            }
            until("all copies ended", || is_settled(&rig)).await;
            let got = servers
                .iter()
                .map(|server| server.got().iter().map(Content::of_http2).collect::<Vec<_>>());
            check(case, &rig, &got.collect::<Vec<_>>());
        });
    }
}

/// Sends a request of HTTP/2; the status of its response.
async fn send(client: &mut Client, content: &Content) -> u16 {
    let mut request = Request::builder()
        .method(content.method.as_str())
        .uri(format!("http://{HOST}{}", content.path));
    for (name, value) in &content.headers {
        request = request.header(name, value);
    }
    let whole = content.body.is_empty() && content.trailers.is_empty();
    let (response, mut body) = client.send(request.body(()).expect("a request"), whole).await;
    if !whole {
        let bare = content.trailers.is_empty();
        body.send_data(content.body.clone().into(), bare).expect("an open stream");
        if !bare {
            let fields = content.trailers.iter();
            let fields = fields.map(|(name, value)| {
                let name: HeaderName = name.parse().expect("a name");
                (name, value.parse().expect("a value"))
            });
            body.send_trailers(HeaderMap::from_iter(fields)).expect("an open stream");
        }
    }
    ReceivedResponse::of(response).await.expect("a response").status()
}

//! `mirror explain` and the data path, given the same files and the same requests: what the one
//! says is what the other does.

use std::{collections::HashMap, fs, path::Path, process::Command, sync::Arc};

use mirror_user::{
    control::{
        files,
        resolve::{self, AddressPolicy},
    },
    route::{Frontend, FrontendCapture, FrontendState, RouteTable},
};
use serde_json::Value;

use super::{
    harness::{FRONTEND, Rig, Setup, service},
    raw_connection::Message,
    server::Server,
};

const ROUTE: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web}
spec:
  parentRefs: [{group: '', kind: Service, name: web}]
  rules:
  - matches:
    - path: {type: PathPrefix, value: /api}
      headers: [{name: x-env, value: canary}]
    filters:
    - type: RequestMirror
      requestMirror: {backendRef: {name: one, port: 80}}
    - type: RequestHeaderModifier
      requestHeaderModifier:
        set: [{name: host, value: 'changed.example:81'}, {name: x-set, value: s}]
        add: [{name: x-env, value: more}]
        remove: [x-secret]
    - type: RequestMirror
      requestMirror: {backendRef: {name: two, port: 80}}
    backendRefs:
    - name: primary
      port: 80
      filters:
      - type: RequestHeaderModifier
        requestHeaderModifier: {set: [{name: host, value: backend.example}]}
  - matches:
    - path: {type: PathPrefix, value: /api}
    filters:
    - type: RequestMirror
      requestMirror: {backendRef: {name: two, port: 80}}
    backendRefs: [{name: primary, port: 80}]
  - matches:
    - path: {type: Exact, value: /invalid}
    backendRefs: [{name: nowhere, port: 80}]
";

/// A Service whose one endpoint is the server.
fn manifest(name: &str, cluster_ip: &str, server: &Server) -> String {
    let (ip, port) = (server.address.ip(), server.address.port());
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{clusterIP: \
         {cluster_ip}, ports: [{{name: http, port: 80}}]}}\n---\napiVersion: \
         discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {name}-1, labels: \
         {{kubernetes.io/service-name: {name}}}}}\naddressType: IPv4\nports: [{{name: http, port: \
         {port}}}]\nendpoints: [{{addresses: ['{ip}']}}]\n"
    )
}

/// The routes that the agent would make of the folder.
fn table(folder: &Path) -> RouteTable {
    let state = files::read(folder).expect("a folder");
    assert_eq!(state.problems, []);
    let mut resolved = resolve::resolve(&AddressPolicy::default(), &state.objects);
    let frontend = resolved.frontends.pop().expect("one Service has a route");
    assert_eq!(frontend.service.name, "web");
    frontend.producer.expect("a producer route")
}

fn serve(table: RouteTable, primary: &Server) -> Rig {
    let rig = Setup::to(primary).start();
    let frontend = Frontend {
        ahead: false,
        capture: FrontendCapture::default(),
        id: FRONTEND,
        address: primary.address,
        service: service("web"),
        producer: Some(table),
        consumers: HashMap::new(),
        connection_ref: Arc::default(),
    };
    rig.publish([(FRONTEND, FrontendState::Live(Arc::new(frontend)))]);
    rig
}

fn explain(folder: &Path, method: &str, path: &str, fields: &[&str]) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mirror"));
    command.args(["explain", method, &format!("http://web{path}"), "--json", "--routes"]);
    command.arg(folder).args(fields.iter().flat_map(|field| ["-H", field]));
    let output = command.env_remove("MIRROR_SHADOW_HOST_SUFFIX").output().expect("it starts");
    serde_json::from_slice(&output.stdout).expect("JSON on stdout")
}

/// The copy's fields, as explained and as received.
fn same(copy: &Value, message: &Message) {
    let fields = copy["headers"].as_array().expect("a list");
    let explained: Vec<_> = fields
        .iter()
        .map(|field| (field[0].as_str().expect("text"), field[1].as_str().expect("text")))
        .collect();
    assert_eq!(message.head.lines().count() - 2, explained.len(), "{copy} {message:?}");
    for (name, _) in &explained {
        let values = explained.iter().filter(|(n, _)| n == name).map(|(_, v)| *v);
        assert_eq!(message.values(name), values.collect::<Vec<_>>(), "{copy} {message:?}");
    }
    assert_eq!(message.value("host"), copy["host"].as_str());
}

#[test]
fn what_is_explained_is_what_happens() {
    let [web, primary, one, two] = [0; 4].map(|_| Server::ok());
    let folder = tempfile::tempdir().expect("a folder");
    let services = [("web", &web), ("primary", &primary), ("one", &one), ("two", &two)];
    let services = services.iter().zip(1..);
    let services: String = services
        .map(|((name, server), n)| manifest(name, &format!("10.0.0.{n}"), server))
        .collect();
    fs::write(folder.path().join("all.yaml"), format!("{ROUTE}{services}")).expect("written");
    let rig = serve(table(folder.path()), &primary);
    let cases: [(&str, &str, &[&str]); 6] = [
        ("GET", "/api/x?y=1", &["X-Env: canary", "X-Secret: 1", "Accept: */*"]),
        ("DELETE", "/api", &["X-Env: other", "Connection: x-hop", "X-Hop: 1"]),
        ("GET", "/api", &["X-Env: canary", "Host: 10.0.0.1:8000"]),
        ("GET", "/api/caf\u{e9}<`?q={\"x\"}|^", &["X-Env: other"]),
        ("GET", "/", &[]),
        ("GET", "/invalid", &[]),
    ];
    for (method, path, fields) in cases {
        let seen = [&primary, &one, &two].map(|server| server.requests().len());
        let host = if fields.iter().any(|f| f.starts_with("Host")) { "" } else { "Host: web\r\n" };
        let lines: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
        let request = format!("{method} {path} HTTP/1.1\r\n{host}{lines}\r\n");
        let response = rig.client().request(request);
        let explained = explain(folder.path(), method, path, fields);
        let rule = &explained["rule"];
        let Some(backend) = rule["backends"].get(0) else {
            assert_eq!(explained["status"], response.status(), "{explained}");
            continue;
        };
        if let Some(status) = backend["answer"].get(0) {
            assert_eq!(*status, response.status(), "{explained}");
            continue;
        }
        assert_eq!(response.status(), 200);
        let requested = &primary.wait_requests(seen[0] + 1)[seen[0]];
        assert_eq!(requested.value("host"), backend["host"].as_str(), "{explained}");
        let filters = rule["filters"].as_array().expect("a list").iter();
        let copies: Vec<_> = filters.filter(|filter| filter["filter"] == "mirror").collect();
        for (name, server, seen) in [("one", &one, seen[1]), ("two", &two, seen[2])] {
            let to = format!("default/{name}:80");
            let copies: Vec<_> = copies.iter().filter(|copy| copy["shadow"] == to).collect();
            let messages = server.wait_requests(seen + copies.len());
            copies.iter().zip(&messages[seen..]).for_each(|(copy, message)| same(copy, message));
        }
    }
    assert_eq!([one.requests().len(), two.requests().len()], [2, 4]);
}

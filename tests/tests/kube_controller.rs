//! `mirror controller` against a real API server: what it writes, beside whom, and by which rights.
#![allow(clippy::unwrap_used, reason = "helpers of tests; clippy knows only the tests themselves")]

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant, SystemTime},
};

use mirror_tests::{
    Node,
    cluster::{
        Account, Api, Channel, ControlPlane, Controller, DEPLOY, NAMESPACE, Options, allowed,
    },
    eventually, mirror_binary, usage,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

const ROUTES: &str = "/apis/gateway.networking.k8s.io/v1/namespaces/default/httproutes";
const GRPC_ROUTES: &str = "/apis/gateway.networking.k8s.io/v1/namespaces/default/grpcroutes";
const OURS: &str = "mirror.dev/controller";
const FOREIGN: &str = "example.net/foreign";
const SOON: Duration = Duration::from_secs(10);

const OBJECTS: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: shop}
spec: {ports: [{port: 80}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: shop}
spec:
  parentRefs: [{group: "", kind: Service, name: shop, port: 80}]
  rules:
  - backendRefs: [{name: shop, port: 80}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: refused}
spec:
  parentRefs: [{group: "", kind: Service, name: shop}, {name: a-gateway}]
  rules:
  - filters: [{type: ExtensionRef, extensionRef: {group: example.org, kind: Other, name: other}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: orphan}
spec:
  parentRefs: [{group: "", kind: Service, name: none}]
  rules:
  - backendRefs: [{name: shop, port: 80}]
"#;

/// Of the name of an HTTPRoute, and attached to the same port.
const GRPC_ROUTE: &str = r#"
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: shop}
spec:
  parentRefs: [{group: "", kind: Service, name: shop, port: 80}]
  rules:
  - matches: [{method: {service: shop.Cart}}]
    backendRefs: [{name: gone, port: 80}]
"#;

/// A cluster with the CRDs, mirror's manifests and the objects above.
fn cluster(node: &Node) -> ControlPlane<'_> {
    let options = Options { controllers: false, audit: true, ..Options::default() };
    let plane = ControlPlane::start(node, &options).unwrap();
    plane.install_gateway_api(Channel::Standard).unwrap();
    plane.kubectl(&["apply", "-k", DEPLOY], "").unwrap();
    plane.kubectl(&["apply", "-f", "-"], OBJECTS).unwrap();
    plane
}

fn parents(route: &Value) -> Vec<Value> {
    route["status"]["parents"].as_array().cloned().unwrap_or_default()
}

/// A condition of our only entry.
fn condition(route: &Value, kind: &str) -> Option<Value> {
    let ours: Vec<_> =
        parents(route).into_iter().filter(|entry| entry["controllerName"] == OURS).collect();
    assert!(ours.len() <= 1, "{ours:?}");
    let conditions = ours.first()?["conditions"].as_array()?.clone();
    conditions.into_iter().find(|condition| condition["type"] == kind)
}

/// Waits for a condition that is about the newest generation.
fn wait_for(api: &Api<'_>, route: &str, kind: &str, reason: &str) -> Value {
    wait_for_route(api, &format!("{ROUTES}/{route}"), kind, reason)
}

/// The same of a route of any kind, by its path at the API server.
fn wait_for_route(api: &Api<'_>, path: &str, kind: &str, reason: &str) -> Value {
    let mut last = Value::Null;
    let done = eventually(&format!("{path}: {kind} {reason}"), SOON, || {
        last = api.get(path).unwrap();
        condition(&last, kind).is_some_and(|condition| {
            condition["reason"] == reason
                && condition["observedGeneration"] == last["metadata"]["generation"]
        })
    });
    assert!(done.is_ok(), "{done:?}: {last:#}");
    last
}

/// Points the route's only rule at a Service. The API server tries a patch without a
/// resourceVersion five times beside other writers, and then responds 409.
fn lead_to(api: &Api<'_>, service: &str) {
    let rules = json!([{"backendRefs": [{"name": service, "port": 80}]}]);
    let patch = json!({"spec": {"rules": rules}});
    let done = eventually(&format!("the route leads to {service}"), SOON, || {
        let (status, response) = api.patch(&format!("{ROUTES}/shop"), &patch).unwrap();
        assert!(matches!(status, 200 | 409), "{status}: {response}");
        status == 200
    });
    done.unwrap();
}

/// Adds a second rule that mirror cannot serve, and the API server accepts.
fn add_a_rule_with_an_extension(api: &Api<'_>) {
    let extension = json!({"group": "example.net", "kind": "Filter", "name": "f"});
    let rules = json!([
        {"backendRefs": [{"name": "shop", "port": 80}]},
        {"matches": [{"path": {"type": "PathPrefix", "value": "/x"}}],
         "filters": [{"type": "ExtensionRef", "extensionRef": extension}],
         "backendRefs": [{"name": "shop", "port": 80}]},
    ]);
    let (status, response) =
        api.patch(&format!("{ROUTES}/shop"), &json!({"spec": {"rules": rules}})).unwrap();
    assert_eq!(status, 200, "{response}");
}

/// How often each of our Events about a backend that is not there happened.
fn backends_not_found(api: &Api<'_>) -> Vec<Option<u64>> {
    events(api)
        .into_iter()
        .filter(|event| event["reason"] == "BackendNotFound")
        .map(|event| event["series"]["count"].as_u64())
        .collect()
}

/// Our Events.
fn events(api: &Api<'_>) -> Vec<Value> {
    let list = api.get("/apis/events.k8s.io/v1/namespaces/default/events").unwrap();
    let items = list["items"].as_array().unwrap().clone();
    items.into_iter().filter(|event| event["reportingController"] == OURS).collect()
}

/// Every request of the token was allowed, and by a verb that the manifests name.
fn assert_rights(plane: &ControlPlane<'_>, account: &Account) {
    let roles = allowed(
        plane,
        &[&["clusterrole", "mirror-controller"], &["-n", NAMESPACE, "role", "mirror-controller"]],
    );
    let roles = roles.unwrap();
    let requests = account.requests(plane).unwrap();
    assert!(requests.len() > 5, "{requests:?}");
    for request in &requests {
        assert_ne!(request.code, 403, "{request:?}");
        let requested = format!("{} {}", request.verb, request.resource);
        assert!(roles.contains(&requested), "{requested} is not in {roles:?}");
    }
}

#[test]
fn conditions_events_rights_and_what_uninstalling_leaves() {
    let node = Node::create("status").unwrap();
    let plane = cluster(&node);
    let api = Api::start(&node, &plane).unwrap();
    let mut controller = Controller::start(&node, &plane, "first", 15921).unwrap();
    let shop = wait_for(&api, "shop", "Accepted", "Accepted");
    assert_eq!(condition(&shop, "ResolvedRefs").unwrap()["status"], "True");
    let refused = wait_for(&api, "refused", "Accepted", "UnsupportedValue");
    assert_eq!(parents(&refused).len(), 1, "the Gateway is another's");
    wait_for(&api, "orphan", "Accepted", "NoMatchingParent");
    // What a route is about changes, without the route.
    plane.kubectl(&["create", "service", "clusterip", "none", "--tcp=80"], "").unwrap();
    wait_for(&api, "orphan", "Accepted", "Accepted");
    lead_to(&api, "gone");
    wait_for(&api, "shop", "ResolvedRefs", "BackendNotFound");

    let events = || events(&api);
    eventually("three Events", SOON, || events().len() == 3).unwrap();
    // It counts a write when the API server has responded, which is after others see it.
    eventually("it has counted five writes", SOON, || controller.written() >= 5.0).unwrap();
    let written = controller.written();
    // A controller that starts again looks at everything again, and has nothing to add.
    assert_eq!(controller.stop().unwrap(), Some(0), "{}", controller.log());
    assert_rights(&plane, &controller.account);
    let mut second = Controller::start(&node, &plane, "second", 15921).unwrap();
    eventually("it leads", SOON, || second.leads()).unwrap();
    lead_to(&api, "shop");
    wait_for(&api, "shop", "ResolvedRefs", "ResolvedRefs");
    eventually("it has counted a write", SOON, || second.written() >= 1.0).unwrap();
    assert_eq!((written, second.written()), (5.0, 1.0), "no write that says what is there");
    let notes: Vec<_> = events().iter().map(|event| event["reason"].clone()).collect();
    assert_eq!(notes.len(), 3, "{notes:?}");
    add_a_rule_with_an_extension(&api);
    let partial = wait_for(&api, "shop", "PartiallyInvalid", "UnsupportedValue");
    let message = condition(&partial, "PartiallyInvalid").unwrap()["message"].clone();
    let message = message.as_str().unwrap();
    assert!(message.starts_with("Dropped Rule: spec.rules[1].filters[0].type: "), "{message}");
    assert_eq!(condition(&partial, "Accepted").unwrap()["status"], "True");
    eventually("an Event about the rule", SOON, || events().len() == 4).unwrap();

    plane.kubectl(&["apply", "-f", "-"], GRPC_ROUTE).unwrap();
    let grpc = format!("{GRPC_ROUTES}/shop");
    let route = wait_for_route(&api, &grpc, "ResolvedRefs", "BackendNotFound");
    assert_eq!(condition(&route, "Accepted").unwrap()["status"], "True");
    let displaced = wait_for(&api, "shop", "Accepted", "Conflicted");
    assert_eq!(condition(&displaced, "Accepted").unwrap()["status"], "False");
    eventually("Events about both", SOON, || events().len() == 6).unwrap();
    let about = |kind: &str| events().iter().filter(|e| e["regarding"]["kind"] == kind).count();
    assert_eq!((about("GRPCRoute"), about("HTTPRoute")), (1, 5));

    assert!(!uninstall(&node, &plane).0, "while a controller runs");
    assert_eq!(second.stop().unwrap(), Some(0));
    assert_rights(&plane, &second.account);
    let entry = foreign_entry(1);
    write_parents(&api, |parents| parents.push(entry.clone()));
    let (done, said) = uninstall(&node, &plane);
    assert!(done && said.contains("3 of 3 HTTPRoutes"), "{said}");
    assert!(said.contains("1 of 1 GRPCRoutes"), "{said}");
    assert!(parents(&api.get(&grpc).unwrap()).is_empty());
    assert_eq!(parents(&api.get(&format!("{ROUTES}/shop")).unwrap()), [entry]);
    assert!(parents(&api.get(&format!("{ROUTES}/refused")).unwrap()).is_empty());
    let lease = ["-n", NAMESPACE, "get", "lease", "mirror-controller"];
    assert!(plane.kubectl(&lease, "").unwrap_err().to_string().contains("NotFound"));
}

/// Runs `mirror uninstall` as the administrator: whether it succeeded, and what it said.
fn uninstall(node: &Node, plane: &ControlPlane<'_>) -> (bool, String) {
    let mirror = mirror_binary().unwrap().to_string_lossy().into_owned();
    let config = format!("KUBECONFIG={}", plane.kubeconfig().display());
    let output = node.run(&["env", &config, &mirror, "uninstall"], Duration::from_secs(30));
    let output = output.unwrap();
    (output.status.success(), format!("{}{}", output.stdout, output.stderr))
}

fn foreign_entry(number: u64) -> Value {
    json!({
        "controllerName": FOREIGN,
        "parentRef": {"group": "", "kind": "Service", "name": "shop", "port": 80},
        "conditions": [{"type": "Accepted", "status": "True", "reason": "Accepted",
                        "message": format!("number {number}"), "observedGeneration": 1,
                        "lastTransitionTime": "2026-01-01T00:00:00Z"}],
    })
}

/// Changes the list as a careful controller does; false when another one was faster.
fn write_parents(api: &Api<'_>, change: impl FnOnce(&mut Vec<Value>)) -> bool {
    let route = api.get(&format!("{ROUTES}/shop")).unwrap();
    let mut list = parents(&route);
    change(&mut list);
    let version = &route["metadata"]["resourceVersion"];
    let patch = json!({"metadata": {"resourceVersion": version}, "status": {"parents": list}});
    let (status, response) = api.patch(&format!("{ROUTES}/shop/status"), &patch).unwrap();
    assert!(matches!(status, 200 | 409), "{status}: {response}");
    status == 200
}

/// Writes its entry again and again, and looks each time whether the last one is still there.
fn write_in_a_loop(api: &Api<'_>, stop: &AtomicBool, met: &AtomicBool) -> (u64, u64, u64) {
    let (mut written, mut conflicts, mut lost) = (0, 0, 0);
    while !stop.load(Ordering::Relaxed) {
        let entry = foreign_entry(written + 1);
        let done = write_parents(api, |parents| {
            if written > 0 && !parents.contains(&foreign_entry(written)) {
                lost += 1;
            }
            parents.retain(|entry| entry["controllerName"] != FOREIGN);
            parents.insert(0, entry);
        });
        if done {
            written += 1;
        } else {
            conflicts += 1;
            met.store(true, Ordering::Relaxed);
        }
    }
    (written, conflicts, lost)
}

#[test]
fn no_entry_of_a_foreign_writer_is_lost() {
    let node = Node::create("foreign").unwrap();
    let plane = cluster(&node);
    let api = Api::start(&node, &plane).unwrap();
    let controller = Controller::start(&node, &plane, "ours", 15921).unwrap();
    wait_for(&api, "shop", "Accepted", "Accepted");
    let (stop, met) = (AtomicBool::new(false), AtomicBool::new(false));
    let outcome = |outcome| {
        controller.metric("mirror_controller_status_writes_total", &[("outcome", outcome)])
    };
    let (written, conflicts, lost) = thread::scope(|scope| {
        let foreign = scope.spawn(|| write_in_a_loop(&api, &stop, &met));
        // Each change makes ours write as well. Two writers may pass each other by for long.
        for round in 0.. {
            let met = met.load(Ordering::Relaxed) || outcome("conflict") >= 1.0;
            // A series is written at most every 10 s, when what it counts happens again.
            let counts = matches!(backends_not_found(&api)[..], [Some(2..)]);
            if round >= 10 && (met && counts && outcome("written") >= 10.0 || round == 60) {
                break;
            }
            for service in ["gone", "shop"] {
                lead_to(&api, service);
                thread::sleep(Duration::from_millis(700));
            }
        }
        stop.store(true, Ordering::Relaxed);
        foreign.join().unwrap()
    });
    let last = wait_for(&api, "shop", "ResolvedRefs", "ResolvedRefs");
    assert!(parents(&last).contains(&foreign_entry(written)), "{last:#}");
    let (ours, ours_lost) = (outcome("written"), outcome("conflict"));
    println!(
        "foreign: {written} writes, {conflicts} conflicts, {lost} lost; ours: {ours} writes, \
         {ours_lost} conflicts"
    );
    assert_eq!(lost, 0);
    assert!(written >= 100 && ours >= 10.0, "too little happened to show anything");
    assert!(ours_lost + conflicts as f64 >= 1.0, "they never met");
    // What came and went all the time is one Event that counts.
    let counted = eventually("one Event that counts", SOON, || {
        matches!(backends_not_found(&api)[..], [Some(2..)])
    });
    assert!(counted.is_ok(), "{:?}", backends_not_found(&api));
    assert_rights(&plane, &controller.account);
}

fn holder(api: &Api<'_>) -> String {
    let lease =
        format!("/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/mirror-controller");
    let lease = api.get(&lease).unwrap_or_default();
    lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned()
}

/// How long until `next` holds the Lease and has written a status.
fn takeover(api: &Api<'_>, next: &Controller<'_>) -> (Duration, Duration) {
    let (start, before) = (Instant::now(), next.written());
    let bound = Duration::from_secs(30);
    eventually("another holds the Lease", bound, || next.is(&holder(api))).unwrap();
    let held = start.elapsed();
    eventually("it writes", bound, || next.written() > before).unwrap();
    (held, start.elapsed())
}

fn now() -> String {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let date = mirror_tests::run(
        &["date", "-u", "-d", &format!("@{}", since.as_secs_f64()), "+%Y-%m-%dT%H:%M:%S.%6NZ"],
        "",
    );
    date.unwrap().trim().to_owned()
}

/// It asks for the Lease again, and writes nothing.
fn writes_nothing_since(controller: &Controller<'_>, plane: &ControlPlane<'_>, stopped: &str) {
    let later = controller.account.requests(plane).unwrap();
    let later: Vec<_> =
        later.into_iter().filter(|request| request.time.as_str() > stopped).collect();
    assert!(!later.is_empty(), "it is back, and asks for the Lease");
    let writes = ["patch", "create", "update"];
    let done = |code| (200..300).contains(&code);
    let wrote: Vec<_> = later
        .iter()
        .filter(|request| writes.contains(&request.verb.as_str()) && done(request.code))
        .collect();
    assert!(wrote.is_empty(), "{wrote:?}");
    let status: Vec<_> =
        later.iter().filter(|request| request.resource.ends_with("/status")).collect();
    assert!(status.is_empty(), "not even tried: {status:?}");
}

/// Goal: under 12 s.
#[test]
fn a_killed_or_stopped_leader_is_replaced_and_writes_nothing_when_it_is_back() {
    let node = Node::create("lease").unwrap();
    let plane = cluster(&node);
    let api = Api::start(&node, &plane).unwrap();
    let mut first = Controller::start(&node, &plane, "first", 15921).unwrap();
    eventually("the first leads", SOON, || first.leads()).unwrap();
    let mut second = Controller::start(&node, &plane, "second", 15922).unwrap();
    assert!(!second.leads() && first.is(&holder(&api)));
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        // There is always something to write.
        scope.spawn(|| {
            for round in 0_u64.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                lead_to(&api, if round % 2 == 0 { "gone" } else { "shop" });
                thread::sleep(Duration::from_millis(100));
            }
        });
        let steps = std::panic::AssertUnwindSafe(|| {
            eventually("the first writes", SOON, || first.written() > 3.0).unwrap();
            first.kill().unwrap();
            let (held, wrote) = takeover(&api, &second);
            println!("SIGKILL: Lease taken after {held:?}, first write after {wrote:?}");
            assert!(held < Duration::from_secs(12), "{held:?}");

            let third = Controller::start(&node, &plane, "third", 15921).unwrap();
            eventually("the second writes", SOON, || second.written() > 3.0).unwrap();
            second.signal(Signal::SIGSTOP).unwrap();
            // What was under way arrives within a second.
            thread::sleep(Duration::from_secs(1));
            let stopped = now();
            let (held, wrote) = takeover(&api, &third);
            let second_later = Duration::from_secs(1);
            let (held, wrote) = (held + second_later, wrote + second_later);
            println!("SIGSTOP: Lease taken after {held:?}, first write after {wrote:?}");
            assert!(held < Duration::from_secs(12), "{held:?}");
            second.signal(Signal::SIGCONT).unwrap();
            thread::sleep(Duration::from_secs(5));
            assert!(!second.leads() && third.leads() && third.is(&holder(&api)));
            writes_nothing_since(&second, &plane, &stopped);
            for account in [&first.account, &second.account, &third.account] {
                assert_rights(&plane, account);
            }
        });
        let outcome = std::panic::catch_unwind(steps);
        stop.store(true, Ordering::Relaxed);
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
}

/// A route and its Service, the `number`th.
fn route_and_service(number: usize) -> (String, Value, Value) {
    let (namespace, name) = (format!("team-{}", number % 50), format!("r{number}"));
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
                         "spec": {"ports": [{"port": 80}]}});
    let mirror = json!({"type": "RequestMirror", "requestMirror":
        {"percent": 10, "backendRef": {"name": name, "port": 80}}});
    let route = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": name},
        "spec": {"parentRefs": [{"group": "", "kind": "Service", "name": name, "port": 80}],
                 "rules": [{"filters": [mirror], "backendRefs": [{"name": name, "port": 80}]}]},
    });
    (namespace, service, route)
}

fn create(api: &Api<'_>, path: &str, object: &Value) {
    let (status, response) = api.post(path, object).unwrap();
    assert_eq!(status, 201, "{path}: {response}");
}

/// So many routes and Services, four at a time.
fn create_routes(api: &Api<'_>, count: usize) {
    thread::scope(|scope| {
        for part in 0..4 {
            scope.spawn(move || {
                for number in (part..count).step_by(4) {
                    let (namespace, service, route) = route_and_service(number);
                    create(api, &format!("/api/v1/namespaces/{namespace}/services"), &service);
                    let group = "/apis/gateway.networking.k8s.io/v1";
                    create(api, &format!("{group}/namespaces/{namespace}/httproutes"), &route);
                }
            });
        }
    });
}

fn watches_each_kind_once(controller: &Controller<'_>, plane: &ControlPlane<'_>) {
    let requests = controller.account.requests(plane).unwrap();
    let kinds = ["services", "endpointslices", "httproutes", "grpcroutes", "referencegrants"];
    for kind in kinds {
        let of_kind = requests.iter().filter(|request| request.resource.ends_with(kind));
        // A server that has just learnt of a CRD answers with 429 at first.
        let watches = of_kind.filter(|request| request.verb == "watch" && request.code == 200);
        let watches: Vec<_> = watches.collect();
        assert_eq!(watches.len(), 1, "{kind}: {watches:?}");
    }
}

/// 1,000 routes over 50 namespaces: each is written once, and then nothing is.
#[test]
fn a_burst_of_routes_is_written_once_each() {
    const ROUTES: usize = 1000;
    let node = Node::create("burst").unwrap();
    let plane = cluster(&node);
    let api = Api::start(&node, &plane).unwrap();
    let controller = Controller::start(&node, &plane, "burst", 15921).unwrap();
    eventually("what was there is written", SOON, || controller.written() == 3.0).unwrap();
    for number in 0..50 {
        let name = format!("team-{number}");
        let namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        create(&api, "/api/v1/namespaces", &namespace);
    }
    let start = Instant::now();
    create_routes(&api, ROUTES);
    let created = start.elapsed();
    let known = || controller.metric("mirror_controller_routes", &[]);
    let unwritten = || controller.metric("mirror_controller_routes_unwritten", &[]);
    let all = ROUTES as f64 + 3.0;
    let written = eventually("all are written", Duration::from_secs(60), || {
        known() == all && unwritten() == 0.0
    });
    assert!(
        written.is_ok(),
        "{} known, {} written, {} unwritten: {}",
        known(),
        controller.written(),
        unwritten(),
        controller.log()
    );
    let done = start.elapsed();
    let list = api.get("/apis/gateway.networking.k8s.io/v1/httproutes").unwrap();
    let burst = list["items"].as_array().unwrap().iter().filter(|route| {
        let namespace = route["metadata"]["namespace"].as_str().unwrap();
        namespace.starts_with("team-")
            && condition(route, "Accepted").is_some_and(|accepted| accepted["status"] == "True")
    });
    assert_eq!(burst.count(), ROUTES);
    // Nothing more is written.
    thread::sleep(Duration::from_secs(5));
    let outcome = |outcome| {
        controller.metric("mirror_controller_status_writes_total", &[("outcome", outcome)])
    };
    let rss = usage::peak_rss(controller.pid()).unwrap();
    println!(
        "{ROUTES} routes and Services created in {created:?}, all statuses written after {done:?}; \
         {} writes, {} dropped, {} conflicts; peak RSS {} MiB",
        controller.written(),
        outcome("dropped"),
        outcome("conflict"),
        rss >> 20
    );
    // A route may be seen before its Service is: then it is judged twice.
    assert!(controller.written() < all * 1.2, "{} writes", controller.written());
    assert_eq!(outcome("failed"), 0.0, "{}", controller.log());
    assert!(rss < 100 << 20, "{rss}");
    watches_each_kind_once(&controller, &plane);
}

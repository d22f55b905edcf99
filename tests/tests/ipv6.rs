//! IPv6, end to end: native frontends, IPv4-mapped ones, pods without IPv6, and what becomes of
//! connections when IPv6 breaks, a route is removed, or an agent dies.
#![allow(clippy::unwrap_used, reason = "helpers of tests; clippy knows only the tests themselves")]

use std::time::Duration;

use mirror_tests::{
    Agent, Copies, Echo, Node, Pair, Pod, Service, eventually,
    manifest::{CONSENT, Route, Rule},
    pair::{config, script},
};
use serde_json::{Value, json};

const SHORT: Duration = Duration::from_secs(20);

fn echoes(pair: &Pair) -> [Echo; 2] {
    [&pair.primary, &pair.shadow].map(|pod| Echo::dual(&pair.node, pod).unwrap())
}

/// Sends so many requests over a family (`-4`, `-6`), each on a connection of its own.
fn send(pod: &Pod, family: &str, tag: &str, count: usize) {
    let url = format!("http://web:8000/get?id={tag}-[1-{count}]");
    let close = ["-H", "Connection: close"];
    let argv = ["curl", "-sSf", "-m", "5", "-o", "/dev/null", family, close[0], close[1], &url];
    pod.run(&argv, SHORT).unwrap().ok().unwrap();
}

/// A socket of the client, see scripts/sockets6.py.
fn socket(pair: &Pair, mode: &str, host: &str, tag: &str) -> Value {
    let target = format!("/get?id={tag}-1");
    pair.script("sockets6.py", &[mode, host, "8000", &target]).unwrap()
}

/// How it stands with IPv6 in the first workload.
fn ipv6(agent: &Agent<'_>) -> Value {
    config(agent).unwrap()["workloads"][0]["ipv6"].clone()
}

/// The agents' routes in the pod, by metric.
fn routes(pod: &Pod) -> Vec<String> {
    let argv = ["ip", "-6", "route", "show", "table", "local", "proto", "109"];
    let text = pod.run(&argv, SHORT).unwrap().ok().unwrap();
    let metrics = text.split("metric ").skip(1);
    metrics.map(|rest| rest.split(' ').next().unwrap().to_owned()).collect()
}

fn peers(seen: &[Value]) -> Vec<String> {
    let ip = |line: &Value| {
        let peer = line["peer"].as_str().unwrap();
        peer.rsplit_once(':').unwrap().0.trim_matches(['[', ']']).to_owned()
    };
    let mut peers: Vec<_> = seen.iter().map(ip).collect();
    peers.sort();
    peers.dedup();
    peers
}

#[test]
fn requests_of_both_families_are_mirrored() {
    let pair = Pair::dual("both").unwrap();
    let [primary, shadow] = echoes(&pair);
    let agent = pair.mirroring(&[]).unwrap();
    assert_eq!(ipv6(&agent), json!({"state": "on", "reason": null}));
    let shown = config(&agent).unwrap();
    for address in [pair.web.address().to_string(), pair.web.address6().to_string()] {
        assert_eq!(shown["frontends"][&address]["service"], "default/web:8000", "{shown}");
    }
    // The primary sees the pod's own address, of the family that the client used; the copies come
    // from the node, over the same.
    let (ip, ip6) = (format!("::ffff:{}", pair.client.ip()), pair.client.ip6().unwrap());
    for (family, tag, from, node) in [
        ("-4", "four", ip, "::ffff:192.168.77.1"),
        ("-6", "six", ip6.to_string(), "fd00:192:168:77::1"),
    ] {
        send(&pair.client, family, tag, 50);
        assert_eq!(peers(&primary.wait(&format!("id={tag}-"), 50).unwrap()), [from]);
        let copies = shadow.wait(&format!("id={tag}-"), 50).unwrap();
        assert_eq!(peers(&copies), [node]);
        assert!(copies.iter().all(|copy| copy["host"] == "web-shadow:8000"), "{copies:?}");
    }
    let copies = Copies::settled(&agent).unwrap();
    assert_eq!((copies.selected, copies.delivered), (100, 100), "{copies}");
}

#[test]
fn http2_is_mirrored_over_ipv6() {
    let pair = Pair::dual("http2six").unwrap();
    let [primary, shadow] = echoes(&pair);
    let agent = pair.mirroring(&[]).unwrap();
    // One by one: curl 7.88 fails with the second request on a connection of prior knowledge.
    let script = "for i in $(seq 20); do curl -sSf -m 5 -6 --http2-prior-knowledge -o /dev/null \
                  -w '%{http_version} ' http://web:8000/get?id=two-$i || exit; done";
    assert_eq!(pair.run(&["sh", "-c", script]).unwrap(), "2 ".repeat(20), "{}", agent.log());
    let ip6 = pair.client.ip6().unwrap().to_string();
    assert_eq!(peers(&primary.wait("id=two-", 20).unwrap()), [ip6]);
    shadow.wait("id=two-", 20).unwrap();
}

#[test]
fn applications_see_the_names_they_expect() {
    let pair = Pair::dual("names6").unwrap();
    let [primary, shadow] = echoes(&pair);
    let agent = pair.mirroring(&[]).unwrap();
    let (vip, vip6) = (pair.web.cluster_ip.to_string(), pair.web.address6().ip().to_string());
    let (own, own6) =
        (format!("::ffff:{}", pair.client.ip()), pair.client.ip6().unwrap().to_string());
    for (mode, host, peer, own) in [
        ("plain", &vip6, vip6.clone(), &own6),
        ("only", &vip6, vip6.clone(), &own6),
        ("dual", &vip6, vip6.clone(), &own6),
        ("bound", &vip6, vip6.clone(), &own6),
        ("mapped", &vip, format!("::ffff:{vip}"), &own),
        ("device", &vip6, vip6.clone(), &own6),
    ] {
        let names = socket(&pair, mode, host, mode);
        assert_eq!(names["peer"], json!([peer, 8000]), "{mode}\n{}", agent.log());
        assert_eq!(names["own"], json!(own), "{mode}");
        assert!(names["answer"].as_str().unwrap().starts_with("HTTP/1.1 200"), "{mode}: {names}");
        primary.wait(&format!("id={mode}-"), 1).unwrap();
        // Loopback cannot be reached from a socket that is bound to a device.
        let copies = usize::from(mode != "device");
        shadow.wait(&format!("id={mode}-"), copies).unwrap();
    }
    let connects =
        |reason| agent.metric("mirror_capture_connects_total", &[("reason", reason)]).unwrap();
    assert_eq!((connects("captured"), connects("bound_device")), (5.0, 1.0));
    assert_eq!(Copies::settled(&agent).unwrap().delivered, 5);
}

/// What carries no route, or another protocol than TCP, is not touched.
#[test]
fn a_headless_service_is_captured_by_its_ipv6_endpoints_and_datagrams_are_not() {
    let pair = Pair::dual("headless").unwrap();
    let [_primary, shadow] = echoes(&pair);
    let headless = |service: &Service| {
        let text = service.manifest();
        let is_address = |line: &&str| !line.trim_start().starts_with("clusterIPs:");
        let lines: Vec<_> = text.lines().filter(is_address).collect();
        lines.join("\n").replace(&service.cluster_ip.to_string(), "None") + "\n"
    };
    let pods = pair.node.dual_service("pods", 80, 80, &[&pair.primary]).unwrap();
    pair.node.routes().write("namespace.yaml", CONSENT).unwrap();
    pair.node.routes().write("pods.yaml", &headless(&pods)).unwrap();
    let rule = Rule::to("pods", 80).mirror("shadow", 80);
    pair.node
        .routes()
        .write("route.yaml", &Route::new("pods", &pods).rule(rule).manifest())
        .unwrap();
    let agent = pair.agent(&[]).unwrap();
    let endpoint = format!("[{}]", pair.primary.ip6().unwrap());
    for (tag, host) in [("six", endpoint.as_str()), ("four", &pair.primary.ip().to_string())] {
        let url = format!("http://{host}/get?id={tag}-1");
        pair.run(&["curl", "-sSf", "-g", "-m", "5", &url]).unwrap();
        shadow.wait(&format!("id={tag}-"), 1).unwrap();
    }
    // The same address and port by UDP.
    let server = "import socket\ns = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)\n\
                  s.bind((\"::\", 80))\nwhile True:\n    data, at = s.recvfrom(100)\n    \
                  s.sendto(data + at[0].encode(), at)";
    let _server = pair.primary.spawn("udp", &["python3", "-c", server]).unwrap();
    let client = "import socket, sys\ns = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)\n\
                  s.settimeout(0.2)\ns.connect((sys.argv[1], 80))\nfor _ in range(50):\n    try:\n        \
                  s.send(b\"from \")\n        print(s.recv(100).decode(), s.getpeername()[0])\n        \
                  break\n    except OSError:\n        pass";
    let at = pair.primary.ip6().unwrap().to_string();
    let said = pair.run(&["python3", "-c", client, &at]).unwrap();
    assert_eq!(said.trim(), format!("from {} {at}", pair.client.ip6().unwrap()));
    let connects =
        |reason| agent.metric("mirror_capture_connects_total", &[("reason", reason)]).unwrap();
    assert_eq!(connects("captured"), 2.0);
    assert!(connects("not_tcp") >= 1.0);
}

#[test]
fn a_pod_without_ipv6_is_captured_for_ipv4() {
    let node = Node::create("without").unwrap();
    let client = node.pod_without_ipv6("client").unwrap();
    let (primary, shadow) = (node.pod("primary").unwrap(), node.pod("shadow").unwrap());
    let web = node.dual_service("web", 8000, 80, &[&primary]).unwrap();
    let services = [
        web.manifest(),
        node.dual_service("primary", 80, 80, &[&primary]).unwrap().manifest(),
        node.dual_service("shadow", 80, 80, &[&shadow]).unwrap().manifest(),
    ];
    node.routes().write("services.yaml", &services.join("---\n")).unwrap();
    let pair = Pair { client, primary, shadow, web, node };
    let [primary, shadow] = echoes(&pair);
    let agent = pair.mirroring(&[]).unwrap();
    let told = ipv6(&agent);
    assert_eq!(told["state"], "absent");
    assert!(told["reason"].as_str().unwrap().contains("no IPv6 address"), "{told}");
    assert_eq!(agent.metric("mirror_workloads_ipv6", &[("state", "absent")]).unwrap(), 1.0);
    // A pool of both families: none of IPv6 may be tried from there.
    send(&pair.client, "-4", "four", 40);
    let from = format!("::ffff:{}", pair.client.ip());
    assert_eq!(peers(&primary.wait("id=four-", 40).unwrap()), [from]);
    shadow.wait("id=four-", 40).unwrap();
    socket(&pair, "mapped", &pair.web.cluster_ip.to_string(), "mapped");
    shadow.wait("id=mapped-", 1).unwrap();
    let url = "http://web:8000/get?id=six-1";
    let output = pair.client.run(&["curl", "-sS", "-m", "5", "-6", url], SHORT).unwrap();
    assert_eq!(output.status.code(), Some(7), "{}", output.stderr);
    assert_eq!(agent.metric("mirror_retries_total", &[]).unwrap(), 0.0);
    assert!(routes(&pair.client).is_empty());
}

/// As in a cluster of IPv6 alone: IPv4 has `lo` and nothing else.
#[test]
fn a_pod_without_ipv4_is_captured_for_ipv6() {
    let pair = Pair::dual("only6").unwrap();
    let [primary, shadow] = echoes(&pair);
    let address = format!("address del {}/32 dev eth0\n", pair.client.ip());
    pair.client.netns().ip(&address).unwrap();
    let agent = pair.mirroring(&["--shadow-from", "pod"]).unwrap();
    assert_eq!(ipv6(&agent)["state"], "on");
    send(&pair.client, "-6", "six", 40);
    let ip6 = pair.client.ip6().unwrap().to_string();
    assert_eq!(peers(&primary.wait("id=six-", 40).unwrap()), [ip6.as_str()]);
    assert_eq!(peers(&shadow.wait("id=six-", 40).unwrap()), [ip6.as_str()]);
    assert_eq!(agent.metric("mirror_retries_total", &[]).unwrap(), 0.0);
}

/// When the family that the client uses has no endpoint, the other's serve.
#[test]
fn endpoints_of_the_other_family_are_better_than_none() {
    let pair = Pair::dual("other").unwrap();
    let [primary, shadow] = echoes(&pair);
    let mut backend = pair.node.dual_service("backend", 80, 80, &[&pair.primary]).unwrap();
    let mut copies = pair.node.dual_service("copies", 80, 80, &[&pair.shadow]).unwrap();
    (backend.endpoints6, copies.endpoints) = (Vec::new(), Vec::new());
    let manifests = backend.manifest() + "---\n" + &copies.manifest();
    pair.node.routes().write("more.yaml", &manifests).unwrap();
    pair.write(&[Rule::to("backend", 80).mirror("copies", 80)]).unwrap();
    let _agent = pair.agent(&["--endpoints", "mirror"]).unwrap();
    for (family, tag) in [("-4", "four"), ("-6", "six")] {
        send(&pair.client, family, tag, 20);
        let seen = primary.wait(&format!("id={tag}-"), 20).unwrap();
        assert_eq!(peers(&seen), [format!("::ffff:{}", pair.client.ip())]);
        let seen = shadow.wait(&format!("id={tag}-"), 20).unwrap();
        assert_eq!(peers(&seen), ["fd00:192:168:77::1"]);
    }
}

#[test]
fn copies_leave_from_the_pod_over_ipv6_when_configured() {
    let pair = Pair::dual("frompod").unwrap();
    let [_primary, shadow] = echoes(&pair);
    let _agent = pair.mirroring(&["--shadow-from", "pod"]).unwrap();
    send(&pair.client, "-6", "six", 20);
    let ip6 = pair.client.ip6().unwrap().to_string();
    assert_eq!(peers(&shadow.wait("id=six-", 20).unwrap()), [ip6]);
}

#[test]
fn what_is_not_http_passes_through_over_ipv6() {
    let pair = Pair::dual("opaque6").unwrap();
    let _shadow = Echo::dual(&pair.node, &pair.shadow).unwrap();
    let agent = pair.mirroring(&[]).unwrap();
    let (server, client) = (script("opaque_server.py"), script("opaque_client.py"));
    let vip6 = pair.web.address6().ip().to_string();
    for (mode, kind) in [("half", "opaque"), ("first", "server_first")] {
        let mut process = pair.primary.spawn("server", &["python3", &server, mode, "80"]).unwrap();
        pair.primary.listening(&mut process, 80).unwrap();
        let text = pair.run(&["python3", &client, mode, &vip6, "8000"]).unwrap();
        let told: Value = serde_json::from_str(&text).unwrap();
        if mode == "half" {
            assert_eq!(told["answer"], told["expected"]);
        } else {
            assert_eq!(told["said"][0], "220 ready\r\n", "{told}");
            assert_eq!(told["said"][3], "221 bye\r\n", "{told}");
        }
        let count = agent.metric("mirror_connections_total", &[("kind", kind)]).unwrap();
        assert_eq!(count, 1.0, "{mode}");
    }
    assert_eq!(Copies::settled(&agent).unwrap().selected, 0);
}

/// A frontend that is removed: new connections go direct, one that is open keeps its names and is
/// served by the Service as it is, and one that was on its way passes through.
#[test]
fn a_removed_frontend_leaves_a_tombstone() {
    let pair = Pair::dual("tombstone").unwrap();
    let [primary, shadow] = echoes(&pair);
    let agent = pair.mirroring(&[]).unwrap();
    let address = pair.web.address6().to_string();
    let shown = config(&agent).unwrap();
    let id = shown["frontends"][&address]["id"].as_u64().unwrap();
    let port = shown["workloads"][0]["port"].as_u64().unwrap();
    let held = "import socket, sys, time\ns = socket.create_connection((sys.argv[1], 8000))\n\
                print(\"open\", flush=True)\ntime.sleep(float(sys.argv[2]))\n\
                print(s.getpeername()[:2])\n\
                s.sendall(b\"GET /get?id=held-1 HTTP/1.1\\r\\nHost: a\\r\\nConnection: close\\r\\n\\r\\n\")\n\
                print(s.makefile(\"rb\").readline())";
    let vip6 = pair.web.address6().ip().to_string();
    let mut open = pair.client.spawn("held", &["python3", "-c", held, &vip6, "2.5"]).unwrap();
    eventually("it is open", SHORT, || open.stdout().contains("open")).unwrap();
    pair.node.routes().remove("route.yaml").unwrap();
    let tombstones = || config(&agent).unwrap()["tombstones"].as_object().unwrap().clone();
    eventually("the tombstone", SHORT, || {
        tombstones().get(&id.to_string()) == Some(&json!(address))
    })
    .unwrap();
    send(&pair.client, "-6", "direct", 5);
    primary.wait("id=direct-", 5).unwrap();
    let late = format!("http://[fd6d:6972:726f:7200::{id:x}]:{port}/get?id=late-1");
    pair.run(&["curl", "-sSf", "-g", "-m", "5", &late]).unwrap();
    primary.wait("id=late-", 1).unwrap();
    let kind = |kind| agent.metric("mirror_connections_total", &[("kind", kind)]).unwrap();
    assert_eq!(kind("tombstone"), 1.0);
    // An id that was never issued is reset.
    let never = format!("http://[fd6d:6972:726f:7200::3f:ffff]:{port}/");
    let output = pair.client.run(&["curl", "-sS", "-g", "-m", "5", &never], SHORT).unwrap();
    assert!(!output.status.success());
    assert_eq!(kind("unknown_id"), 1.0);
    open.wait(SHORT).unwrap().expect("it ends");
    let said = open.stdout();
    assert!(said.contains(&format!("('{vip6}', 8000)")), "{said}{}", open.stderr());
    assert!(said.contains("200 OK"), "{said}");
    primary.wait("id=held-", 1).unwrap();
    assert!(shadow.seen().is_empty(), "{:?}", shadow.seen());
}

/// The /96 is no loopback for the kernel: a neighbour's packets to it are let in. The agent is not
/// to act for a neighbour as if it were the pod.
#[test]
fn a_neighbour_gets_nothing_from_the_listeners() {
    let pair = Pair::dual("neighbour").unwrap();
    let [primary, shadow] = echoes(&pair);
    let agent = pair.mirroring(&[]).unwrap();
    let shown = config(&agent).unwrap();
    let id = shown["frontends"][pair.web.address6().to_string()]["id"].as_u64().unwrap();
    let port = shown["workloads"][0]["port"].as_u64().unwrap();
    let url = format!("http://[fd6d:6972:726f:7200::{id:x}]:{port}/get?id=near-1");
    // From within the pod it is as good as the Service's own address.
    pair.run(&["curl", "-sSf", "-g", "-m", "5", &url]).unwrap();
    primary.wait("id=near-", 1).unwrap();
    shadow.wait("id=near-", 1).unwrap();
    let via = pair.client.ip6().unwrap();
    let route = format!("route add fd6d:6972:726f:7200::/96 via {via}\n");
    pair.node.netns().ip(&route).unwrap();
    let argv = ["curl", "-sS", "-g", "-m", "5", &url];
    let output = pair.node.run(&argv, SHORT).unwrap();
    assert!(!output.status.success(), "{}", output.stdout);
    primary.wait("id=near-", 1).unwrap();
    // It did arrive: a worker has seen where from.
    let kind = |kind| agent.metric("mirror_connections_total", &[("kind", kind)]).unwrap();
    assert_eq!(kind("unknown_id"), 1.0);
}

/// An agent that goes takes its route, listeners and programs with it, and one that is killed
/// leaves a route that harms nobody and goes with its successor's start.
#[test]
fn nothing_stays_of_an_agent() {
    let pair = Pair::dual("leaves").unwrap();
    let [primary, shadow] = echoes(&pair);
    let listeners = || {
        let argv = ["cat", "/proc/net/tcp", "/proc/net/tcp6"];
        let text = pair.run(&argv).unwrap();
        // Ports 61440 to 61471, LISTEN.
        let is_ours = |line: &&str| line.contains(":F00") && line.contains(" 0A ");
        text.lines().filter(is_ours).count()
    };
    let mut agent = pair.mirroring(&["--workers", "2"]).unwrap();
    assert_eq!((routes(&pair.client), listeners()), (vec!["61440".to_owned()], 4));
    let status = agent.stop(SHORT).unwrap();
    assert_eq!(status.code(), Some(0), "{}", agent.log());
    assert_eq!((routes(&pair.client), listeners()), (vec![], 0));
    send(&pair.client, "-6", "stopped", 5);
    primary.wait("id=stopped-", 5).unwrap();

    let mut agent = pair.mirroring(&[]).unwrap();
    send(&pair.client, "-6", "before", 5);
    shadow.wait("id=before-", 5).unwrap();
    agent.kill().unwrap();
    send(&pair.client, "-6", "killed", 20);
    primary.wait("id=killed-", 20).unwrap();
    assert_eq!((routes(&pair.client).len(), listeners()), (1, 0));
    drop(agent);
    // Of an agent that had another port, since two were there at once.
    let stale = "-6 route add local fd6d:6972:726f:7200::/96 dev lo proto 109 metric 61441";
    let argv: Vec<_> = ["ip"].into_iter().chain(stale.split(' ')).collect();
    pair.run(&argv).unwrap();
    let mut agent = pair.mirroring(&[]).unwrap();
    assert_eq!(routes(&pair.client), ["61440"], "{}", agent.log());
    send(&pair.client, "-6", "again", 5);
    shadow.wait("id=again-", 5).unwrap();
    agent.stop(SHORT).unwrap();
    assert!(routes(&pair.client).is_empty());
    assert_eq!(shadow.seen().len(), 10);
}

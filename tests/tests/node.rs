//! The simulated node itself: its Services balance, its pods cannot leave it, and nothing stays.

use std::{collections::HashSet, path::Path, time::Duration};

use mirror_tests::{Node, Signal, eventually, run};

const SHORT: Duration = Duration::from_secs(10);

#[test]
fn services_balance_and_names_resolve() {
    let node = Node::create("balance").unwrap();
    let (curl, v1, v2) =
        (node.pod("curl").unwrap(), node.pod("v1").unwrap(), node.pod("v2").unwrap());
    let echoes = [v1.echo(&["--listen", "0.0.0.0:80"]), v2.echo(&["--listen", "0.0.0.0:80"])]
        .map(Result::unwrap);
    node.service("httpbin", 8000, 80, &[&v1, &v2]).unwrap();
    for name in ["httpbin", "httpbin.default.svc.cluster.local"] {
        for _ in 0..20 {
            let url = format!("http://{name}:8000/headers");
            let response =
                curl.run(&["curl", "-sS", "-m", "5", &url], SHORT).unwrap().ok().unwrap();
            assert!(response.contains(&format!("\"Host\": \"{name}:8000\"")), "{response}");
        }
    }
    let lines = echoes.each_ref().map(|echo| echo.stdout().lines().count());
    assert_eq!(lines[0] + lines[1], 40);
    // All 40 on one side happen once in 2^39 runs.
    assert!(lines[0] > 0 && lines[1] > 0, "{lines:?}");
    let log = echoes[0].stdout();
    assert!(log.starts_with(&format!("{} - - [", curl.ip())), "{log}");
    // From the node's own namespace as well.
    let url = "http://httpbin:8000/headers";
    node.run(&["curl", "-sS", "-m", "5", url], SHORT).unwrap().ok().unwrap();
}

#[test]
fn dual_stack_services_balance_over_ipv6_as_well() {
    let node = Node::create("dual").unwrap();
    let (curl, v1, v2) =
        (node.pod("curl").unwrap(), node.pod("v1").unwrap(), node.pod("v2").unwrap());
    let old = node.pod_without_ipv6("old").unwrap();
    let echoes =
        [v1.echo(&["--listen", "[::]:80"]), v2.echo(&["--listen", "[::]:80"])].map(Result::unwrap);
    let _old = old.echo(&["--listen", "0.0.0.0:80"]).unwrap();
    let mut service = node.dual_service("httpbin", 8000, 80, &[&v1, &v2, &old]).unwrap();
    assert_eq!((service.endpoints.len(), service.endpoints6.len()), (3, 2));
    let get = |url: &str| curl.run(&["curl", "-sS", "-g", "-m", "5", url], SHORT);
    // By address: which of a name's two is tried depends on the resolver's settings (host.conf).
    let url6 = format!("http://{}/ip", service.address6());
    for _ in 0..40 {
        let response = get(&url6).unwrap().ok().unwrap();
        assert!(response.contains(&curl.ip6().unwrap().to_string()), "{response}");
    }
    let lines = echoes.each_ref().map(|echo| echo.stdout().lines().count());
    assert_eq!(lines[0] + lines[1], 40);
    // All 40 on one side happen once in 2^39 runs.
    assert!(lines[0] > 0 && lines[1] > 0, "{lines:?}");
    let response = get(&format!("http://{}/ip", service.address())).unwrap().ok().unwrap();
    assert!(response.contains(&curl.ip().to_string()), "{response}");
    get("http://v1.pod6/ip").unwrap().ok().unwrap();
    // A pod without IPv6 has none at all.
    let output = old.run(&["curl", "-sS", "-g", "-m", "5", &url6], SHORT).unwrap();
    assert_eq!(output.status.code(), Some(7), "{}", output.stderr);
    // Not the Service: it may choose the very pod, whose own response would not be translated back.
    old.run(&["curl", "-sS", "-m", "5", "http://v1.pod/ip"], SHORT).unwrap().ok().unwrap();
    service.endpoints6.clear();
    node.update(&service).unwrap();
    assert_eq!(get(&url6).unwrap().status.code(), Some(7), "refused");
}

#[test]
fn endpoints_change_and_an_empty_service_refuses() {
    let node = Node::create("endpoints").unwrap();
    let (curl, v1) = (node.pod("curl").unwrap(), node.pod("v1").unwrap());
    let mut echo = v1.echo(&["--listen", "0.0.0.0:80"]).unwrap();
    let mut service = node.service("httpbin", 8000, 80, &[]).unwrap();
    let get = || curl.run(&["curl", "-sS", "-m", "5", "http://httpbin:8000/ip"], SHORT).unwrap();
    // 7: connection refused.
    assert_eq!(get().status.code(), Some(7));
    service.endpoints = vec![format!("{}:80", v1.ip()).parse().unwrap()];
    node.update(&service).unwrap();
    assert!(get().ok().unwrap().contains(&curl.ip().to_string()));
    echo.kill().unwrap();
    assert_eq!(get().status.code(), Some(7));
}

#[test]
fn a_stopped_server_is_silent_until_it_continues() {
    let node = Node::create("stop").unwrap();
    let (curl, v1) = (node.pod("curl").unwrap(), node.pod("v1").unwrap());
    let mut echo = v1.echo(&["--listen", "0.0.0.0:80"]).unwrap();
    node.service("httpbin", 8000, 80, &[&v1]).unwrap();
    let get = || curl.run(&["curl", "-sS", "-m", "1", "http://httpbin:8000/ip"], SHORT).unwrap();
    echo.signal(Signal::SIGSTOP).unwrap();
    // 28: timeout.
    assert_eq!(get().status.code(), Some(28));
    echo.signal(Signal::SIGCONT).unwrap();
    get().ok().unwrap();
}

#[test]
fn no_route_leads_out() {
    let node = Node::create("closed").unwrap();
    let curl = node.pod("curl").unwrap();
    assert_eq!(node.netns().ip("route show default").unwrap(), "");
    let v6 = node.run(&["ip", "-6", "route", "show", "default"], SHORT).unwrap().ok().unwrap();
    assert_eq!(v6, "");
    for url in ["http://192.0.2.1/", "http://[2001:db8::1]/"] {
        let get = ["curl", "-sS", "-m", "2", url];
        let output = curl.run(&get, SHORT).unwrap();
        assert_eq!(output.status.code(), Some(7), "{}", output.stderr);
        let output = node.run(&get, SHORT).unwrap();
        assert_eq!(output.status.code(), Some(7), "{}", output.stderr);
    }
}

#[test]
fn a_pod_has_its_own_cgroup_and_hosts() {
    let node = Node::create("place").unwrap();
    let pod = node.pod("pod").unwrap();
    let mut sleep = pod.spawn("sleep", &["sleep", "60"]).unwrap();
    let procs = || std::fs::read_to_string(pod.cgroup().join("cgroup.procs")).unwrap();
    let pid = sleep.pid().to_string();
    let inside = || procs().lines().any(|line| line == pid);
    eventually("the process is in the cgroup", SHORT, inside).unwrap();
    let hosts = pod.run(&["cat", "/etc/hosts"], SHORT).unwrap().ok().unwrap();
    assert!(hosts.contains(&format!("{} pod.pod", pod.ip())), "{hosts}");
    assert_ne!(hosts, std::fs::read_to_string("/etc/hosts").unwrap());
    sleep.kill().unwrap();
    eventually("the process has left the cgroup", SHORT, || !inside()).unwrap();
}

#[test]
fn a_missing_program_says_what_to_do() {
    let node = Node::create("missing").unwrap();
    let pod = node.pod("pod").unwrap();
    let error = pod.run(&["no-such-program", "-x"], SHORT).unwrap().ok().unwrap_err();
    assert!(error.to_string().contains("cargo xtask test --only tools"), "{error}");
}

#[test]
fn nothing_stays() {
    let namespaces = || -> HashSet<String> {
        let list = run(&["ip", "netns", "list"], "").unwrap();
        let own = format!("mirror-sim-{}-", std::process::id());
        list.lines().filter(|line| line.starts_with(&own)).map(str::to_owned).collect()
    };
    let before = namespaces();
    let node = Node::create("gone").unwrap();
    let pod = node.pod("pod").unwrap();
    let sleep = pod.spawn("sleep", &["sleep", "600"]).unwrap();
    let (pid, cgroup, folder) = (sleep.pid(), pod.cgroup().to_owned(), node.folder().to_owned());
    // As after a panic that unwinds in an unlucky order.
    drop(node);
    drop(pod);
    drop(sleep);
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
    assert!(!cgroup.exists() && !cgroup.parent().unwrap().exists() && !folder.exists());
    assert_eq!(namespaces(), before);
}

#[test]
fn a_hundred_pods_come_and_go() {
    let node = Node::create("many").unwrap();
    let veths = || node.netns().ip("link show type veth").unwrap().matches("veth").count();
    let pods: Vec<_> = (0..100).map(|i| node.pod(&format!("p{i}")).unwrap()).collect();
    assert_eq!(veths(), 100);
    let ping = ["curl", "-sS", "-m", "5", "http://p99.pod/"];
    let echo = pods[99].echo(&["--listen", "0.0.0.0:80"]).unwrap();
    pods[0].run(&ping, SHORT).unwrap().ok().unwrap();
    drop(echo);
    drop(pods);
    eventually("the interfaces are gone", SHORT, || veths() == 0).unwrap();
}

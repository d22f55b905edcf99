//! A large node: how long the agent takes to be ready with a thousand frontends and a hundred
//! captured pods, and what memory it takes.
#![allow(clippy::unwrap_used, reason = "helpers of tests; clippy knows only the tests themselves")]

use std::{
    fmt::Write as _,
    net::Ipv6Addr,
    time::{Duration, Instant},
};

use mirror_tests::{
    Agent, Node, Pod, Service, bpf,
    manifest::{Route, Rule},
    stats::verdict,
    usage,
};

const PODS: usize = 100;
/// Dual-stack ones: two frontends each.
const SERVICES: u16 = 500;
const SHORT: Duration = Duration::from_secs(20);

/// What it may take on a busy machine (4.5 s and 29 MiB at a load of 10 on two processors).
const MOST_SECONDS: f64 = 10.0;
const MOST_MIB: f64 = 40.0;
/// What is wanted on an idle one.
const GOAL_SECONDS: f64 = 3.0;

#[test]
fn a_thousand_frontends_and_a_hundred_pods_are_ready_soon() {
    let node = Node::create("scale").unwrap();
    let primary = node.pod("primary").unwrap();
    let _echo = primary.echo(&["--listen", "[::]:80", "--quiet"]).unwrap();
    let service = node.dual_service("service", 80, 80, &[&primary]).unwrap();
    node.routes().write("all.yaml", &many(&service)).unwrap();
    let pods: Vec<_> = (0..PODS).map(|at| node.pod(&format!("p{at}")).unwrap()).collect();
    let refs: Vec<&Pod> = pods.iter().collect();

    let start = Instant::now();
    let agent = Agent::start(&node, &refs, &["--workers", "2"]).unwrap();
    let ready = start.elapsed().as_secs_f64();
    let mib = usage::rss(agent.pid()).unwrap() as f64 / 1_048_576.0;
    let on = agent.metric("mirror_workloads", &[("state", "on")]).unwrap();
    assert_eq!(on, PODS as f64, "{}", agent.log());
    let held = [
        bpf::entries::<8, 4>(agent.pid(), "FRONTENDS").unwrap(),
        bpf::entries::<20, 4>(agent.pid(), "FRONTENDS6").unwrap(),
        bpf::entries::<8, 28>(agent.pid(), "PODS").unwrap(),
    ];
    println!(
        "{} frontends and {PODS} pods of both families: ready after {ready:.2} s (goal \
         {GOAL_SECONDS} s: {}), {mib:.1} MiB",
        2 * SERVICES,
        verdict(ready, GOAL_SECONDS)
    );
    assert_eq!(held, [usize::from(SERVICES), usize::from(SERVICES), PODS], "{}", agent.log());
    for pod in [&pods[0], &pods[PODS - 1]] {
        for family in ["-4", "-6"] {
            let argv = ["curl", "-sSf", "-m", "5", "-i", family, "http://service/get"];
            let response = pod.run(&argv, SHORT).unwrap().ok().unwrap();
            assert!(response.contains("x-via: agent"), "{response}");
        }
    }
    assert!(ready < MOST_SECONDS, "{ready}");
    assert!(mib < MOST_MIB, "{mib}");
}

/// The Service, and others like it under other names and addresses, each with a route.
fn many(service: &Service) -> String {
    let mut text = String::new();
    for at in 0..SERVICES {
        let mut other = service.clone();
        if at > 0 {
            let [high, low] = (at + 256).to_be_bytes();
            other.name = format!("service-{at}");
            other.cluster_ip = [10, 97, high, low].into();
            other.cluster_ip6 = Some(Ipv6Addr::new(0xfd00, 0x10, 0x97, 0, 0, 0, 0, at));
        }
        let rule = Rule::to(&other.name, 80).mark();
        let route = Route::new(&format!("route-{at}"), &other).rule(rule);
        let _ = write!(text, "{}---\n{}---\n", other.manifest(), route.manifest());
    }
    text
}

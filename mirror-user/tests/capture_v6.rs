//! Capture of IPv6 against the real kernel: native frontends by the /96, IPv4-mapped ones, and what
//! becomes of both when IPv6 or `lo` is toggled (how soon is for ipv6_life.rs of mirror-tests). Needs
//! root, and fails without.

#[path = "capture/fixture.rs"]
mod fixture;

use std::{
    net::{Ipv6Addr, SocketAddr},
    thread,
    time::{Duration, Instant},
};

use fixture::{Agent, Beats, ID, ID6, OTHER6, POD_IP, POD_IP6, Pod, VIP, VIP6, eventually};
use mirror_user::{
    capture::{FamilyState, WorkloadState},
    control::publish::FrontendMap as _,
};
use socket2::{Domain, Socket, Type};

/// [`VIP`] as an IPv6 socket names it.
const MAPPED: &str = "[::ffff:10.99.0.1]:80";
const ROUTES: &str = "ip -6 route show table local proto 109";

/// A pod that an agent captures, with both families on.
fn captured() -> (Pod, Agent) {
    let pod = Pod::new();
    let agent = Agent::new(vec![pod.config("default/web")]);
    agent.wait_for(WorkloadState::On);
    agent.wait_for_v6(FamilyState::On);
    (pod, agent)
}

fn port(agent: &Agent) -> u16 {
    agent.status()[0].port.expect("captured")
}

#[test]
fn a_native_connection_carries_the_id_and_the_application_sees_what_it_requested() {
    let (mut pod, agent) = captured();
    for (word, count) in [("connect", 1), ("only", 2), ("dual", 3), ("loop", 4)] {
        let seen = pod.send(word, VIP6);
        assert_eq!(
            seen.greeting,
            format!("default/web [{}]:{}", ID6.address_v6(), port(&agent)),
            "{word}"
        );
        assert_eq!(seen.peer, VIP6, "{word}");
        assert!(seen.own.starts_with(&format!("[{POD_IP6}]:")), "{word}: {seen:?}");
        assert_eq!(agent.count("captured"), count, "{word}");
    }
}

#[test]
fn an_ipv4_mapped_destination_is_an_ipv4_frontend() {
    let (mut pod, agent) = captured();
    for word in ["connect", "dual"] {
        let seen = pod.send(word, MAPPED);
        assert_eq!(seen.greeting, format!("default/web {}:{}", ID.address(), port(&agent)));
        assert_eq!(seen.peer, MAPPED);
        assert!(seen.own.starts_with(&format!("[::ffff:{POD_IP}]:")), "{seen:?}");
    }
    assert_eq!(agent.count("captured"), 2);
    // Without us as well: such a socket speaks IPv6 alone.
    assert_eq!(pod.send("only", MAPPED).peer, "error");
}

#[test]
fn what_must_not_be_captured_goes_direct_and_is_counted() {
    let (mut pod, agent) = captured();
    assert!(pod.connect(OTHER6).is_direct());
    assert_eq!(agent.count("not_a_frontend"), 1);
    assert!(pod.send("bound", VIP6).is_direct());
    assert_eq!(agent.count("bound_device"), 1);
    assert!(pod.send("mesh", VIP6).is_direct());
    assert_eq!(agent.count("mesh_uid"), 1);
    assert_eq!(pod.send("udp", VIP6).peer, VIP6);
    assert_eq!(pod.send("udp", MAPPED).peer, MAPPED);
    // A datagram socket's connect passes another hook (BPF_CGROUP_INET6_CONNECT as well).
    assert_eq!(agent.count("not_tcp"), 2);
    for local in ["[::1]:9", "[::ffff:127.0.0.1]:9"] {
        assert_eq!(pod.connect(local).peer, "error");
    }
    assert_eq!(agent.count("loopback"), 2);
    assert_eq!(agent.count("captured"), 0);
}

#[test]
fn a_removed_frontend_goes_direct_and_its_open_connections_keep_their_names() {
    let (mut pod, mut agent) = captured();
    assert!(!pod.send("keep", VIP6).is_direct());
    agent.frontends.remove(VIP6.parse().unwrap()).unwrap();
    agent.frontends.remove(VIP6.parse().unwrap()).expect("twice is no error");
    assert!(pod.connect(VIP6).is_direct());
    assert!(!pod.connect(VIP).is_direct(), "the other family's stays");
    assert_eq!(pod.send("again", VIP6).peer, VIP6);
    agent.frontends.forget(ID6).unwrap();
    assert!(pod.send("again", VIP6).peer.starts_with(&format!("[{}]", ID6.address_v6())));
}

#[test]
fn stale_workers_and_full_queues_let_connections_go_direct() {
    let (mut pod, agent) = captured();
    agent.beat(Beats::Full);
    thread::sleep(Duration::from_millis(300));
    assert!(pod.connect(VIP6).is_direct());
    assert_eq!(agent.count("queue_full"), 1);
    agent.beat(Beats::None);
    thread::sleep(Duration::from_millis(1200));
    assert!(pod.connect(VIP6).is_direct());
    assert_eq!(agent.count("no_live_worker") + agent.count("pod_off"), 1);
    agent.beat(Beats::Fresh);
    eventually("capturing again", || {
        let seen = pod.connect(VIP6);
        if seen.is_direct() { Err(format!("{seen:?}")) } else { Ok(()) }
    });
}

#[test]
fn a_pod_without_ipv6_is_captured_for_ipv4_and_says_so() {
    let mut pod = Pod::without_ipv6();
    let agent = Agent::new(vec![pod.config("default/web")]);
    agent.wait_for(WorkloadState::On);
    let reason = agent.wait_for_v6(FamilyState::Absent).expect("with a reason");
    assert!(reason.contains("no IPv6 address"), "{reason}");
    assert!(!pod.connect(VIP).is_direct());
    assert!(!pod.connect(MAPPED).is_direct());
    assert_eq!(pod.connect(VIP6).peer, "error");
    assert_eq!((agent.count("captured"), agent.count("pod_off")), (2, 1));
    assert_eq!(pod.shell("ip -6 route show table all"), "");
}

/// The pod's server is behind `lo` as well, so that only its silence can be seen here; that direct
/// connections go on is for a whole node to show.
#[test]
fn ipv6_is_restored_after_it_was_toggled_and_ipv4_never_notices() {
    let (mut pod, agent) = captured();
    for (what, again) in [
        ("lo", ""),
        // The addresses of all others go as well; whoever gave them gives them again.
        ("all", "&& ip address add fd00:98::7/64 dev eth0 nodad"),
    ] {
        let sysctl = format!("/proc/sys/net/ipv6/conf/{what}/disable_ipv6");
        pod.shell(&format!("echo 1 > {sysctl}"));
        let start = Instant::now();
        eventually("IPv6 is off", || {
            let state = agent.status()[0].ipv6.clone().expect("captured").state;
            assert!(!pod.connect(VIP).is_direct(), "IPv4 goes on");
            if state == FamilyState::On { Err(format!("{state:?}")) } else { Ok(()) }
        });
        let noticed = start.elapsed();
        pod.shell(&format!("echo 0 > {sysctl} {again}"));
        let start = Instant::now();
        agent.wait_for_v6(FamilyState::On);
        let restored = start.elapsed();
        assert!(!pod.connect(VIP6).is_direct());
        assert!(!pod.connect(VIP).is_direct(), "IPv4 goes on");
        println!("{what}: noticed after {noticed:?}, restored after {restored:?}");
    }
    assert_eq!(agent.status()[0].state, WorkloadState::On);
}

#[test]
fn both_families_are_restored_after_lo_was_down() {
    let (mut pod, agent) = captured();
    pod.shell("ip link set lo down");
    agent.wait_for(WorkloadState::Off);
    agent.wait_for_v6(FamilyState::Off);
    pod.shell("ip link set lo up");
    let start = Instant::now();
    agent.wait_for(WorkloadState::On);
    agent.wait_for_v6(FamilyState::On);
    println!("restored {:?} after lo was up", start.elapsed());
    assert!(!pod.connect(VIP).is_direct());
    assert!(!pod.connect(VIP6).is_direct());
}

#[test]
fn a_route_that_somebody_removes_comes_back() {
    let (mut pod, agent) = captured();
    pod.shell("ip -6 route flush table local proto 109");
    eventually("the route is back", || match pod.shell(ROUTES) {
        text if text.is_empty() => Err("no route".to_owned()),
        _ => Ok(()),
    });
    agent.wait_for_v6(FamilyState::On);
    assert!(!pod.connect(VIP6).is_direct());
}

#[test]
fn a_policy_that_drops_the_way_switches_ipv6_off_alone() {
    let (mut pod, agent) = captured();
    pod.shell(
        "echo 'table ip6 deny { chain output { type filter hook output priority 0; \
         ip6 daddr fd6d:6972:726f:7200::/96 drop; }; }' | nft -f -",
    );
    let reason = agent.wait_for_v6(FamilyState::Off).expect("with a reason");
    assert!(reason.contains("canary") && reason.contains("fd6d:6972:726f:7200::1"), "{reason}");
    assert!(pod.connect(VIP6).is_direct());
    assert!(!pod.connect(VIP).is_direct());
    assert_eq!(agent.status()[0].state, WorkloadState::On);
    pod.shell("nft delete table ip6 deny");
    agent.wait_for_v6(FamilyState::On);
    assert!(!pod.connect(VIP6).is_direct());
}

/// The port is chosen where it is free for both families; later it may not be.
#[test]
fn a_port_that_is_taken_keeps_ipv6_off_alone() {
    let mut pod = Pod::without_ipv6();
    let agent = Agent::new(vec![pod.config("default/web")]);
    agent.wait_for_v6(FamilyState::Absent);
    let at = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port(&agent)));
    let listener = pod.inside(|| {
        let socket = Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
        socket.set_only_v6(true).unwrap();
        socket.bind(&at.into()).unwrap();
        socket.listen(1).unwrap();
        socket
    });
    pod.shell(
        "echo 0 > /proc/sys/net/ipv6/conf/all/disable_ipv6 && \
         ip address add fd00:98::7/64 dev eth0 nodad",
    );
    let reason = agent.wait_for_v6(FamilyState::Off).expect("with a reason");
    assert!(reason.contains("in use"), "{reason}");
    assert!(!pod.connect(VIP).is_direct());
    drop(listener);
    agent.wait_for_v6(FamilyState::On);
    assert!(!pod.connect(VIP6).is_direct());
}

#[test]
fn two_agents_each_have_a_route_and_the_second_takes_over() {
    let (mut pod, first) = captured();
    let second = Agent::new(vec![pod.config("default/web")]);
    second.wait_for(WorkloadState::On);
    second.wait_for_v6(FamilyState::On);
    assert_eq!(pod.shell(ROUTES).lines().count(), 2);
    assert!(!pod.connect(VIP6).is_direct());
    assert_eq!(first.count("captured") + second.count("captured"), 1);
    // The second one's hook has seen that the first has taken it.
    assert_eq!(first.count("loopback") + second.count("loopback"), 1);
    first.capture.as_ref().unwrap().stop_capturing();
    let greeting = format!("default/web [{}]:{}", ID6.address_v6(), port(&second));
    assert_eq!(pod.connect(VIP6).greeting, greeting);
    drop(first);
    for _ in 0..20 {
        assert_eq!(pod.connect(VIP6).greeting, greeting, "the first takes its own route only");
    }
    assert_eq!(pod.shell(ROUTES).lines().count(), 1);
    drop(second);
    assert_eq!(pod.shell(ROUTES), "");
    assert!(pod.connect(VIP6).is_direct());
}

#[test]
fn the_route_of_a_killed_agent_is_removed_at_the_next_start() {
    let pod = Pod::new();
    let route = |metric| {
        format!("ip -6 route add local fd6d:6972:726f:7200::/96 dev lo proto 109 metric {metric}")
    };
    // Of ports that nobody listens on, and one of somebody else's.
    pod.shell(&route(61441));
    pod.shell(&route(61450));
    pod.shell(&route(1024));
    let agent = Agent::new(vec![pod.config("default/web")]);
    agent.wait_for_v6(FamilyState::On);
    let routes = pod.shell(ROUTES);
    let metrics: Vec<_> =
        routes.split("metric ").skip(1).filter_map(|t| t.split(' ').next()).collect();
    assert_eq!(metrics, ["1024", "61440"], "{routes}");
    drop(agent);
    assert!(!pod.shell(ROUTES).contains("61440"));
}

//! Tests against the kernel, each in a separate network namespace: needs root.

use nix::sched::{CloneFlags, unshare};

use super::*;

const PREFIX: Ipv6Addr = Ipv6Addr::new(0xfd00, 1, 2, 3, 0, 0, 0, 0);

/// Runs on a thread in a separate network namespace, whose `lo` is down.
fn apart(test: fn()) {
    std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("needs root: run the tests with sudo -E");
        test();
    })
    .join()
    .expect("no panic");
}

fn ip(args: &[&str]) {
    assert!(std::process::Command::new("ip").args(args).status().expect("iproute2").success());
}

fn route(metric: u32) -> LocalRoute {
    LocalRoute { prefix: PREFIX, length: 96, metric }
}

#[test]
fn routes_come_and_go_each_with_its_metric() {
    apart(|| {
        assert_eq!(route(5).add().unwrap_err().raw_os_error(), Some(libc::ENETDOWN));
        ip(&["link", "set", "lo", "up"]);
        ip(&["-6", "route", "add", "local", "fd00:1:2:3::/96", "dev", "lo", "metric", "9"]);
        for metric in [5, 6, 5] {
            route(metric).add().unwrap();
        }
        let metrics = || {
            let mut metrics = LocalRoute::metrics(PREFIX, 96).unwrap();
            metrics.sort_unstable();
            metrics
        };
        assert_eq!(metrics(), [5, 6], "another's is not ours");
        route(5).remove().unwrap();
        route(5).remove().expect("twice is no error");
        assert_eq!(metrics(), [6]);
        route(9).remove().expect("another's is not there");
        let text = std::process::Command::new("ip")
            .args(["-6", "route", "show", "table", "local", "root", "fd00::/8"])
            .output()
            .expect("iproute2");
        let text = String::from_utf8_lossy(&text.stdout).into_owned();
        assert!(text.contains("metric 9") && text.contains("metric 6"), "{text}");
    });
}

#[test]
fn the_monitor_reports_changes_alone() {
    apart(|| {
        let monitor = RouteMonitor::new().unwrap();
        assert!(!monitor.changed());
        for change in [
            &["link", "set", "lo", "up"][..],
            &["-6", "route", "add", "local", "fd00:1:2:3::/96", "dev", "lo"],
            &["-6", "address", "add", "fd00:9::1/128", "dev", "lo"],
            &["link", "set", "lo", "down"],
        ] {
            ip(change);
            assert!(monitor.changed(), "{change:?}");
        }
        // Some of it is reported a moment later.
        std::thread::sleep(std::time::Duration::from_millis(50));
        monitor.changed();
        assert!(!monitor.changed());
    });
}

/// A socket with a port, to which another socket has written `message` `times` times.
fn written_to(message: &[u8], times: usize) -> OwnedFd {
    let socket = route_socket(SockFlag::SOCK_CLOEXEC).unwrap();
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0)).unwrap();
    write_to(&socket, message, times);
    socket
}

fn write_to(socket: &OwnedFd, message: &[u8], times: usize) {
    use nix::sys::socket::{getsockname, sendto};
    let port = getsockname::<NetlinkAddr>(socket.as_raw_fd()).unwrap();
    let other = route_socket(SockFlag::SOCK_CLOEXEC).unwrap();
    for _ in 0..times {
        // The queue may be full.
        let flags = MsgFlags::MSG_DONTWAIT;
        let _ = sendto(other.as_raw_fd(), message, &port, flags);
    }
}

#[test]
fn what_another_process_of_the_namespace_writes_is_not_the_kernels_word() {
    apart(|| {
        ip(&["link", "set", "lo", "up"]);
        let add = route(5).message(libc::RTM_NEWROUTE, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE);
        // "Done": and the route would be taken for added.
        let mut done = header(NLMSG_ERROR, 0);
        done.extend([0; 20]);
        let mut seen = 0;
        exchange_on(&written_to(&finished(done), 3), &add, |_, _| seen += 1).unwrap();
        assert_eq!(LocalRoute::metrics(PREFIX, 96).unwrap(), [5]);
        // "It failed", and a route that is not there.
        let mut failed = header(NLMSG_ERROR, 0);
        failed.extend((-libc::EPERM).to_ne_bytes());
        let forged = [finished(failed), route(7).message(libc::RTM_NEWROUTE, 0)].concat();
        let mut dump = header(libc::RTM_GETROUTE, NLM_F_REQUEST | NLM_F_DUMP);
        dump.extend([family(), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let mut metrics = Vec::new();
        exchange_on(&written_to(&forged, 3), &finished(dump), |_, body| {
            metrics.extend(ours(body, PREFIX, 96));
        })
        .unwrap();
        assert_eq!(metrics, [5]);
    });
}

#[test]
fn a_flood_of_others_ends_in_an_error_and_reports_no_change() {
    apart(|| {
        ip(&["link", "set", "lo", "up"]);
        let noise = route(7).message(libc::RTM_NEWROUTE, 0);
        let monitor = RouteMonitor::new().unwrap();
        write_to(&monitor.0, &noise, LOOK / 2);
        assert!(!monitor.changed());
        let begun = std::time::Instant::now();
        let add = route(5).message(libc::RTM_NEWROUTE, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE);
        // Its queue is full, and the kernel's word had no room.
        let flooded = written_to(&noise, 100_000);
        exchange_on(&flooded, &add, |_, _| panic!("nothing of it is the kernel's")).unwrap_err();
        assert!(begun.elapsed() < std::time::Duration::from_secs(5), "{:?}", begun.elapsed());
    });
}

#[test]
fn cut_messages_are_no_messages() {
    let whole = route(7).message(libc::RTM_NEWROUTE, 0);
    let (kind, body, after) = next(&whole).expect("whole");
    assert_eq!((kind, after), (libc::RTM_NEWROUTE, &[][..]));
    assert_eq!(ours(body, PREFIX, 96), Some(7));
    for length in 0..whole.len() {
        assert!(next(&whole[..length]).is_none());
    }
    for length in 0..body.len() {
        assert_eq!(ours(&body[..length], PREFIX, 96), None);
    }
}

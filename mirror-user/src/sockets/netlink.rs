//! rtnetlink of the network namespace that the calling thread is in: the few messages that a route
//! on `lo` takes, and a bell that rings when links, addresses or routes change. In: a prefix and a
//! metric. Out: the kernel's answer. Synchronous, since a namespace is entered for one call only.

use std::{
    io,
    net::Ipv6Addr,
    os::fd::{AsRawFd as _, OwnedFd},
};

use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send,
        socket,
    },
};

/// The interface number of `lo` in every network namespace (LOOPBACK_IFINDEX, net/core/dev.c).
pub(crate) const LOOPBACK: u32 = 1;

/// `rtm_protocol` of our routes: who made them. Beyond those that iproute2 has names for.
const PROTOCOL: u8 = 109;

/// Room for one part of a dump: the kernel fills at most 32 KiB (net/netlink/af_netlink.c).
const PART: usize = 64 * 1024;

pub(super) const HEADER: usize = 16;
const ROUTE: usize = 12;

pub(super) const NLM_F_REQUEST: u16 = 1;
pub(super) const NLM_F_ACK: u16 = 4;
pub(super) const NLM_F_DUMP: u16 = 0x300;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

/// A local route on `lo`: packets to the prefix go to this host's own sockets. The metric tells
/// routes to the same prefix apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LocalRoute {
    pub(crate) prefix: Ipv6Addr,
    /// In bits.
    pub(crate) length: u8,
    pub(crate) metric: u32,
}

impl LocalRoute {
    /// Adds the route. That it is there is no error.
    ///
    /// # Errors
    /// What the kernel says: ENETDOWN when `lo` is down, EACCES when IPv6 is disabled on it,
    /// EPERM without CAP_NET_ADMIN.
    pub(crate) fn add(&self) -> io::Result<()> {
        let flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        forgiven(ask(&self.message(libc::RTM_NEWROUTE, flags)), libc::EEXIST)
    }

    /// Removes the route. That it is not there is no error.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn remove(&self) -> io::Result<()> {
        let answer = ask(&self.message(libc::RTM_DELROUTE, NLM_F_REQUEST | NLM_F_ACK));
        forgiven(answer, libc::ESRCH)
    }

    /// The metrics of all routes to the prefix that this module has made, by whichever process.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn metrics(prefix: Ipv6Addr, length: u8) -> io::Result<Vec<u32>> {
        let mut request = header(libc::RTM_GETROUTE, NLM_F_REQUEST | NLM_F_DUMP);
        request.extend([family(), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let mut metrics = Vec::new();
        exchange(&finished(request), |kind, body| {
            if kind == libc::RTM_NEWROUTE {
                metrics.extend(ours(body, prefix, length));
            }
        })?;
        Ok(metrics)
    }

    fn message(&self, kind: u16, flags: u16) -> Vec<u8> {
        let mut message = header(kind, flags);
        message.extend([
            family(),
            self.length,
            0,
            0,
            libc::RT_TABLE_LOCAL,
            PROTOCOL,
            libc::RT_SCOPE_HOST,
            libc::RTN_LOCAL,
            0,
            0,
            0,
            0,
        ]);
        attribute(&mut message, libc::RTA_DST, &self.prefix.octets());
        attribute(&mut message, libc::RTA_OIF, &LOOPBACK.to_ne_bytes());
        attribute(&mut message, libc::RTA_PRIORITY, &self.metric.to_ne_bytes());
        finished(message)
    }
}

/// Rings when a link, an address or a route of the namespace that it was made in has changed.
#[derive(Debug)]
pub(crate) struct Bell(OwnedFd);

impl Bell {
    /// Listens from now on.
    ///
    /// # Errors
    /// What `socket(2)` or `bind(2)` says.
    pub(crate) fn new() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = route_socket(flags)?;
        let groups = libc::RTMGRP_LINK
            | libc::RTMGRP_IPV4_IFADDR
            | libc::RTMGRP_IPV4_ROUTE
            | libc::RTMGRP_IPV6_IFADDR
            | libc::RTMGRP_IPV6_ROUTE;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups.cast_unsigned()))?;
        Ok(Self(socket))
    }

    /// Whether it has rung since the last call. Never blocks.
    pub(crate) fn rang(&self) -> bool {
        // What is longer than this is cut: only that it came counts.
        let mut buffer = [0; 64];
        let mut rang = false;
        loop {
            match recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(_) => rang = true,
                Err(Errno::EINTR) => {}
                // ENOBUFS: there were more than the socket has room for.
                Err(Errno::ENOBUFS) => rang = true,
                Err(_) => return rang,
            }
        }
    }
}

fn route_socket(flags: SockFlag) -> nix::Result<OwnedFd> {
    socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)
}

fn family() -> u8 {
    u8::try_from(libc::AF_INET6).expect("ten")
}

/// A message's header, its length yet unknown.
pub(super) fn header(kind: u16, flags: u16) -> Vec<u8> {
    let mut message = vec![0; 4];
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend(1_u32.to_ne_bytes());
    message.extend(0_u32.to_ne_bytes());
    message
}

/// `value` is as long as a multiple of four bytes.
fn attribute(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).expect("twenty at most");
    message.extend(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(value);
}

pub(super) fn finished(mut message: Vec<u8>) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("less than a hundred");
    message[..4].copy_from_slice(&length.to_ne_bytes());
    message
}

fn ask(request: &[u8]) -> io::Result<()> {
    exchange(request, |_, _| {})
}

fn forgiven(answer: io::Result<()>, code: i32) -> io::Result<()> {
    match answer {
        Err(error) if error.raw_os_error() == Some(code) => Ok(()),
        other => other,
    }
}

/// Sends a request, and shows each message of the answer (type, and what follows the header) until
/// the last. The kernel answers within the call, so that nothing is waited for.
fn exchange(request: &[u8], each: impl FnMut(u16, &[u8])) -> io::Result<()> {
    exchange_on(&route_socket(SockFlag::SOCK_CLOEXEC)?, request, each)
}

/// The same on a netlink socket of any protocol.
pub(super) fn exchange_on(
    socket: &OwnedFd,
    request: &[u8],
    mut each: impl FnMut(u16, &[u8]),
) -> io::Result<()> {
    send(socket.as_raw_fd(), request, MsgFlags::empty())?;
    let mut buffer = vec![0; PART];
    loop {
        let length = match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Ok(length) => length,
            Err(Errno::EINTR) => continue,
            Err(error) => return Err(error.into()),
        };
        let mut rest = &buffer[..length];
        while let Some((kind, body, after)) = next(rest) {
            match kind {
                NLMSG_DONE => return Ok(()),
                NLMSG_ERROR => return errno(body),
                _ => each(kind, body),
            }
            rest = after;
        }
    }
}

/// The first message: its type, what follows its header, and what follows it.
fn next(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::try_from(u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?)).ok()?;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let body = bytes.get(HEADER..length)?;
    Some((kind, body, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

/// The code of an `nlmsgerr`; 0 is an acknowledgement.
fn errno(body: &[u8]) -> io::Result<()> {
    let code = body.get(..4).and_then(|code| code.try_into().ok()).map_or(0, i32::from_ne_bytes);
    if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-code)) }
}

/// The metric of a route that is one of ours to the prefix.
fn ours(body: &[u8], prefix: Ipv6Addr, length: u8) -> Option<u32> {
    let [of, bits, _, _, table, protocol, ..] = *body.get(..ROUTE)? else { return None };
    if (of, bits, table, protocol) != (family(), length, libc::RT_TABLE_LOCAL, PROTOCOL) {
        return None;
    }
    let attributes = || Attributes(&body[ROUTE..]);
    let to = attributes().find(|(kind, _)| *kind == libc::RTA_DST)?.1;
    let metric = attributes().find(|(kind, _)| *kind == libc::RTA_PRIORITY)?.1;
    (to == prefix.octets()).then_some(u32::from_ne_bytes(metric.try_into().ok()?))
}

/// Attributes (`struct rtattr`) one after the other.
pub(super) struct Attributes<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::from(u16::from_ne_bytes(self.0.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(self.0.get(2..4)?.try_into().ok()?);
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

#[cfg(test)]
mod tests {
    use nix::sched::{CloneFlags, unshare};

    use super::*;

    const PREFIX: Ipv6Addr = Ipv6Addr::new(0xfd00, 1, 2, 3, 0, 0, 0, 0);

    /// Runs on a thread in a network namespace of its own, whose `lo` is down.
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
    fn the_bell_rings_for_changes_alone() {
        apart(|| {
            let bell = Bell::new().unwrap();
            assert!(!bell.rang());
            for change in [
                &["link", "set", "lo", "up"][..],
                &["-6", "route", "add", "local", "fd00:1:2:3::/96", "dev", "lo"],
                &["-6", "address", "add", "fd00:9::1/128", "dev", "lo"],
                &["link", "set", "lo", "down"],
            ] {
                ip(change);
                assert!(bell.rang(), "{change:?}");
            }
            // Some of it is told a moment later.
            std::thread::sleep(std::time::Duration::from_millis(50));
            bell.rang();
            assert!(!bell.rang());
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
}

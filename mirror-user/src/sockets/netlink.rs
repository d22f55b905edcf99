//! rtnetlink of the network namespace that the calling thread is in: the few messages that a route
//! on `lo` takes, and a monitor that reports when links, addresses or routes change. In: a prefix and a
//! metric. Out: the kernel's response. Synchronous, since a namespace is entered for one call only.
//!
//! Whoever has CAP_NET_ADMIN in a namespace may write to any netlink socket in it (netlink_sendmsg()
//! in net/netlink/af_netlink.c): what the kernel has not sent itself is not read.

use std::{
    io,
    net::Ipv6Addr,
    os::fd::{AsRawFd as _, OwnedFd},
};

use nix::{
    errno::Errno,
    sys::{
        socket::{
            AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvfrom,
            send, setsockopt, socket, sockopt::ReceiveTimeout,
        },
        time::{TimeVal, TimeValLike as _},
    },
};

/// The interface number of `lo` in every network namespace (LOOPBACK_IFINDEX, net/core/dev.c).
pub(crate) const LOOPBACK: u32 = 1;

/// `rtm_protocol` of our routes: who made them. Beyond those that iproute2 has names for.
const PROTOCOL: u8 = 109;

/// Room for one part of a dump: the kernel fills at most 32 KiB (net/netlink/af_netlink.c).
const PART: usize = 64 * 1024;

/// How many messages of others are passed over before the kernel's is given up: its own is there
/// within the call that asks for it.
const FOREIGN: usize = 1024;

/// How many messages one look at a monitor takes: a pod can change its routes faster than they are read.
const LOOK: usize = 256;

/// For a response of the kernel's that the socket had no room for.
const PATIENCE: i64 = 1;

pub(super) const HEADER: usize = 16;
const ROUTE: usize = 12;

pub(super) const NLM_F_REQUEST: u16 = 1;
pub(super) const NLM_F_ACK: u16 = 4;
pub(super) const NLM_F_DUMP: u16 = 0x300;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

/// A local route on `lo`: packets to the prefix go to this host's own sockets. The metric distinguishes
/// routes to the same prefix.
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
        ignore_errno(request_ack(&self.message(libc::RTM_NEWROUTE, flags)), libc::EEXIST)
    }

    /// Removes the route. That it is not there is no error.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn remove(&self) -> io::Result<()> {
        let result = request_ack(&self.message(libc::RTM_DELROUTE, NLM_F_REQUEST | NLM_F_ACK));
        ignore_errno(result, libc::ESRCH)
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

/// Reports when a link, an address or a route of the namespace that it was made in has changed.
#[derive(Debug)]
pub(crate) struct RouteMonitor(OwnedFd);

impl RouteMonitor {
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
    pub(crate) fn changed(&self) -> bool {
        // What is longer than this is cut: only that it came counts.
        let mut buffer = [0; 64];
        let mut changed = false;
        for _ in 0..LOOK {
            match recvfrom(self.0.as_raw_fd(), &mut buffer) {
                Ok((_, sender)) => changed |= is_kernel(sender),
                Err(Errno::EINTR) => {}
                // ENOBUFS: there were more than the socket has room for.
                Err(Errno::ENOBUFS) => changed = true,
                Err(_) => return changed,
            }
        }
        changed
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

fn request_ack(request: &[u8]) -> io::Result<()> {
    exchange(request, |_, _| {})
}

fn ignore_errno(result: io::Result<()>, code: i32) -> io::Result<()> {
    match result {
        Err(error) if error.raw_os_error() == Some(code) => Ok(()),
        other => other,
    }
}

/// Whether the kernel has sent it: its port is 0, which no socket has.
fn is_kernel(sender: Option<NetlinkAddr>) -> bool {
    sender.is_some_and(|sender| sender.pid() == 0)
}

/// Sends a request, and shows each message of the response (type, and what follows the header) until
/// the last. The kernel responds within the call, so that there is no wait.
fn exchange(request: &[u8], each: impl FnMut(u16, &[u8])) -> io::Result<()> {
    exchange_on(&route_socket(SockFlag::SOCK_CLOEXEC)?, request, each)
}

/// The same on a netlink socket of any protocol.
pub(super) fn exchange_on(
    socket: &OwnedFd,
    request: &[u8],
    mut each: impl FnMut(u16, &[u8]),
) -> io::Result<()> {
    setsockopt(socket, ReceiveTimeout, &TimeVal::seconds(PATIENCE))?;
    send(socket.as_raw_fd(), request, MsgFlags::empty())?;
    let mut buffer = vec![0; PART];
    let mut foreign = 0;
    loop {
        let length = match recvfrom(socket.as_raw_fd(), &mut buffer) {
            Ok((length, sender)) if is_kernel(sender) => length,
            Ok(_) if foreign < FOREIGN => {
                foreign += 1;
                continue;
            }
            Ok(_) => return Err(io::Error::other("another process floods the netlink socket")),
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
mod tests;

//! sock_diag of the network namespace that the calling thread is in: which TCP connections there
//! are, whose they are, and an end to one of them. In: what to look for. Out: connections.
//! Synchronous, since a namespace is entered for one call only.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::OwnedFd,
    time::Duration,
};

use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};

use super::netlink::{
    Attributes, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, exchange_on, finished, header,
};

/// include/uapi/linux/sock_diag.h.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
/// The attribute with the id of the socket's cgroup (v2), which is its folder's inode: Linux 5.8
/// (include/uapi/linux/inet_diag.h, INET_DIAG_CGROUP_ID).
const CGROUP_ID: u16 = 21;
/// ESTABLISHED, SYN_SENT and CLOSE_WAIT, by their numbers in include/net/tcp_states.h: those that
/// an application has a use for.
const STATES: u32 = 1 << 1 | 1 << 2 | 1 << 8;
/// `struct inet_diag_sockid`, opaque but for the destination.
const ID: usize = 48;
/// Of `struct inet_diag_msg`: family, state, timer and retransmissions, the id, and five numbers.
const MESSAGE: usize = 4 + ID + 20;

/// A TCP connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SocketConnection {
    /// Where it leads; an IPv4 address even when the socket is of IPv6.
    pub(crate) destination: SocketAddr,
    /// The id of the cgroup in which its socket was made.
    pub(crate) cgroup: u64,
    family: u8,
    id: [u8; ID],
}

/// The connections of both families that are to be kept.
///
/// # Errors
/// The kernel's error. A kernel that reports no cgroup (before Linux 5.8) shows no connection.
pub(crate) fn connections(
    keep: impl Fn(&SocketConnection) -> bool,
) -> io::Result<Vec<SocketConnection>> {
    let socket = diag_socket()?;
    let mut kept = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut request = header(SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP);
        request.extend(wanted(family as i32, &[0; ID]));
        exchange_on(&socket, &finished(request), |kind, body| {
            if kind == SOCK_DIAG_BY_FAMILY {
                kept.extend(SocketConnection::parse(body).filter(&keep));
            }
        })?;
    }
    Ok(kept)
}

/// How much is left of the keepalive timer of the socket whose connection leads from `local` to
/// `peer`; None where it has no SO_KEEPALIVE.
///
/// # Errors
/// ENOENT: there is no such connection; `WouldBlock`: another timer of the socket hides it (data is in
/// flight); or the kernel's error.
pub(crate) fn keepalive_left(local: SocketAddr, peer: SocketAddr) -> io::Result<Option<Duration>> {
    let (local, peer) = (canonical(local), canonical(peer));
    let family = if local.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let mut request = header(SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_ACK);
    request.extend(wanted(family, &socket_id(local, peer)));
    let mut timer = None;
    exchange_on(&diag_socket()?, &finished(request), |kind, body| {
        if kind == SOCK_DIAG_BY_FAMILY {
            timer = body.get(..MESSAGE).map(|message| {
                let left: [u8; 4] = message[4 + ID..8 + ID].try_into().unwrap_or_default();
                (message[2], u32::from_ne_bytes(left))
            });
        }
    })?;
    // inet_sk_diag_fill() in net/ipv4/inet_diag.c: 0 none, 2 keepalive, in milliseconds.
    match timer.ok_or(io::ErrorKind::NotFound)? {
        (0, _) => Ok(None),
        (2, left) => Ok(Some(Duration::from_millis(left.into()))),
        _ => Err(io::ErrorKind::WouldBlock.into()),
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// `struct inet_diag_sockid` of any interface and cookie (INET_DIAG_NOCOOKIE).
fn socket_id(local: SocketAddr, peer: SocketAddr) -> [u8; ID] {
    let mut id = [0; ID];
    id[..2].copy_from_slice(&local.port().to_be_bytes());
    id[2..4].copy_from_slice(&peer.port().to_be_bytes());
    for (at, ip) in [(4, local.ip()), (20, peer.ip())] {
        match ip {
            IpAddr::V4(ip) => id[at..at + 4].copy_from_slice(&ip.octets()),
            IpAddr::V6(ip) => id[at..at + 16].copy_from_slice(&ip.octets()),
        }
    }
    id[40..].fill(0xff);
    id
}

impl SocketConnection {
    /// Ends it: the application finds it aborted, its peer gets a reset. That it has ended is no
    /// error.
    ///
    /// # Errors
    /// What the kernel says: EOPNOTSUPP without CONFIG_INET_DIAG_DESTROY, EPERM without
    /// CAP_NET_ADMIN.
    pub(crate) fn destroy(&self) -> io::Result<()> {
        let mut request = header(SOCK_DESTROY, NLM_F_REQUEST | NLM_F_ACK);
        request.extend(wanted(i32::from(self.family), &self.id));
        match exchange_on(&diag_socket()?, &finished(request), |_, _| {}) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            ended => ended,
        }
    }

    /// Reads a `struct inet_diag_msg` and its attributes.
    fn parse(body: &[u8]) -> Option<Self> {
        let message = body.get(..MESSAGE)?;
        let family = message[0];
        let id: [u8; ID] = message[4..4 + ID].try_into().ok()?;
        let port = u16::from_be_bytes([id[2], id[3]]);
        let ip = match i32::from(family) {
            libc::AF_INET => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(&id[20..24]).ok()?)),
            _ => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(&id[20..36]).ok()?)).to_canonical(),
        };
        let (_, cgroup) = Attributes(&body[MESSAGE..]).find(|(kind, _)| *kind == CGROUP_ID)?;
        let cgroup = u64::from_ne_bytes(cgroup.try_into().ok()?);
        Some(Self { destination: SocketAddr::new(ip, port), cgroup, family, id })
    }
}

/// `struct inet_diag_req_v2`.
fn wanted(family: i32, id: &[u8; ID]) -> Vec<u8> {
    let byte = |number: i32| u8::try_from(number).expect("families and protocols are small");
    let mut request = vec![byte(family), byte(libc::IPPROTO_TCP), 0, 0];
    request.extend(STATES.to_ne_bytes());
    request.extend(id);
    request
}

fn diag_socket() -> nix::Result<OwnedFd> {
    let (kind, flags) = (SockType::Raw, SockFlag::SOCK_CLOEXEC);
    socket(AddressFamily::Netlink, kind, flags, SockProtocol::NetlinkSockDiag)
}

#[cfg(test)]
mod tests {
    use std::{
        io::Read as _,
        net::{TcpListener, TcpStream},
    };

    use super::*;

    #[test]
    fn a_connection_is_found_by_its_destination_and_ended() {
        for local in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(local).unwrap();
            let address = listener.local_addr().unwrap();
            let mut client = TcpStream::connect(address).unwrap();
            let (mut server, _) = listener.accept().unwrap();
            let found = connections(|connection| connection.destination == address).unwrap();
            let [connection] = &found[..] else { panic!("{found:?}") };
            assert!(connection.cgroup > 0, "{connection:?}");
            connection.destroy().unwrap();
            let error = client.read(&mut [0]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
            let error = server.read(&mut [0]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
            connection.destroy().expect("that it has ended is no error");
            let left = connections(|connection| connection.destination == address).unwrap();
            assert_eq!(left, []);
        }
    }

    #[test]
    fn a_keepalive_timer_is_found_and_told_from_none() {
        for local in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(local).unwrap();
            let server = listener.local_addr().unwrap();
            let stream = TcpStream::connect(server).unwrap();
            let client = stream.local_addr().unwrap();
            assert_eq!(keepalive_left(client, server).unwrap(), None);
            let (accepted, _) = listener.accept().unwrap();
            let time = Duration::from_secs(40);
            let keepalive = socket2::TcpKeepalive::new().with_time(time);
            socket2::SockRef::from(&stream).set_tcp_keepalive(&keepalive).unwrap();
            let left = keepalive_left(client, server).unwrap().unwrap();
            assert!(left <= time && left > time / 2, "{left:?}");
            assert_eq!(keepalive_left(server, client).unwrap(), None, "the other end has none");
            let nobody = SocketAddr::new(client.ip(), 1);
            assert!(keepalive_left(nobody, server).is_err());
            drop(accepted);
        }
    }

    #[test]
    fn mangled_messages_are_no_connections() {
        let mut message = vec![0; MESSAGE];
        message[0] = 2;
        message[6..8].copy_from_slice(&80_u16.to_be_bytes());
        message[24..28].copy_from_slice(&[10, 96, 0, 1]);
        message.extend(12_u16.to_ne_bytes());
        message.extend(CGROUP_ID.to_ne_bytes());
        message.extend(77_u64.to_ne_bytes());
        let whole = SocketConnection::parse(&message).expect("whole");
        assert_eq!((whole.destination, whole.cgroup), ("10.96.0.1:80".parse().unwrap(), 77));
        for length in 0..message.len() {
            assert_eq!(SocketConnection::parse(&message[..length]), None);
        }
    }
}

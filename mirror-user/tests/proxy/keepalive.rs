//! TCP keepalive of a client's connection is that of its upstream connections.

use std::{
    net::{SocketAddr, TcpStream},
    sync::{Arc, Mutex},
    time::Duration,
};

use mirror_user::sockets::keepalive_left;
use socket2::{SockRef, TcpKeepalive};

use super::{
    harness::{Rig, Setup, eventually},
    raw_connection::{RawConnection, Tap},
    server::{OK, Server},
};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// A primary, and the addresses of the connections that it has accepted.
fn primary() -> (Server, Arc<Mutex<Vec<SocketAddr>>>) {
    let peers = Arc::<Mutex<Vec<_>>>::default();
    let seen = Arc::clone(&peers);
    let server = Server::start(move |mut visit| {
        seen.lock().expect("no panic").push(visit.raw_connection.peer());
        while visit.request().is_some() {
            visit.raw_connection.send(OK);
        }
    });
    (server, peers)
}

fn client(rig: &Rig, keepalive: Option<u64>) -> RawConnection {
    let stream = TcpStream::connect(rig.address()).expect("the listener is there");
    if let Some(idle) = keepalive {
        let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(idle));
        SockRef::from(&stream).set_tcp_keepalive(&keepalive).expect("a TCP socket");
    }
    RawConnection::new(stream, Tap::default())
}

#[test]
fn upstream_connections_have_the_keepalive_of_their_client() {
    let (server, peers) = primary();
    for setup in [Setup::to(&server), Setup::balanced(&server, Vec::new())] {
        let rig = setup.start();
        for idle in [40, 2] {
            let mut client = client(&rig, Some(idle));
            client.request(GET);
            let upstream = *peers.lock().expect("no panic").last().expect("it is there");
            let left = || keepalive_left(upstream, server.address).ok().flatten();
            eventually("the upstream connection has keepalive", || left().is_some());
            assert!(left().expect("just now") <= Duration::from_secs(idle + 1), "{:?}", left());
        }
    }
}

#[test]
fn a_client_without_keepalive_has_upstream_connections_without() {
    let (server, peers) = primary();
    let rig = Setup::to(&server).start();
    let mut client = client(&rig, None);
    client.request(GET);
    // Longer than until the first look.
    std::thread::sleep(Duration::from_millis(1500));
    client.request(GET);
    let upstream = peers.lock().expect("no panic")[0];
    assert_eq!(keepalive_left(upstream, server.address).expect("it is open"), None);
}

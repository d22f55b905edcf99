//! Plain sockets of this network namespace, for tests.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use tokio::net::TcpSocket;

use super::{NetnsTarget, SocketFactory};

/// Makes sockets of IPv4 in the caller's network namespace.
#[derive(Debug)]
pub(crate) struct PlainSockets;

impl SocketFactory for PlainSockets {
    fn stream(&self, _: &NetnsTarget, _: bool) -> io::Result<TcpSocket> {
        TcpSocket::new_v4()
    }

    fn listener(&self, _: &NetnsTarget, address: SocketAddr) -> io::Result<TcpListener> {
        TcpListener::bind(address)
    }

    fn keepalive_left(
        &self,
        _: &NetnsTarget,
        _: SocketAddr,
        _: SocketAddr,
    ) -> io::Result<Option<Duration>> {
        Ok(None)
    }
}

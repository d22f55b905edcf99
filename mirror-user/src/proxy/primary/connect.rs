//! New connections to a primary, made inside the client's network namespace.

use std::{io, net::SocketAddr};

use tokio::{net::TcpStream, time::timeout};

use super::{ATTEMPTS, ConnectionLease, Destination, Failure, Primary, Upstreams};
use crate::{proxy::client_socket::ClientSocket, workload::Workload};

impl Primary {
    /// An HTTP/1 connection for a client's request, and where it leads: to the destination's address, or
    /// to one of its endpoints; to another endpoint where one refuses. An idle one of the client's own
    /// comes first.
    ///
    /// # Errors
    /// [`Failure::NoEndpoint`], or what the last `connect(2)` said.
    pub(in crate::proxy) async fn connect(
        &self,
        workload: &Workload,
        client: &ClientSocket,
        upstreams: &Upstreams,
        to: &Destination,
    ) -> Result<(SocketAddr, ConnectionLease), Failure> {
        let mut failed = Vec::new();
        let mut failure = Failure::NoEndpoint;
        while failed.len() < ATTEMPTS {
            let endpoint = upstreams.endpoint(to, self, workload, &failed);
            let Some(endpoint) = endpoint else { break };
            if let Some(idle) = upstreams.take(endpoint, true) {
                return Ok((endpoint, idle));
            }
            match self.connect_socket(workload, client, endpoint).await {
                Ok(stream) => return Ok((endpoint, ConnectionLease::new(stream, upstreams))),
                Err(error) => {
                    failed.push(endpoint);
                    failure = Failure::Connect(endpoint, error);
                }
            }
        }
        Err(failure)
    }

    /// A connected socket inside the workload's network namespace, for the client of this socket.
    ///
    /// # Errors
    /// What the socket factory or `connect(2)` says, or `TimedOut`.
    pub(in crate::proxy) async fn connect_socket(
        &self,
        workload: &Workload,
        client: &ClientSocket,
        endpoint: SocketAddr,
    ) -> io::Result<TcpStream> {
        if let Some(stream) = client.take_ahead(endpoint) {
            return Ok(stream);
        }
        let connecting = async {
            match self.connect_once(workload, endpoint).await {
                Err(error) if is_unreachable(&error) => self.connect_once(workload, endpoint).await,
                connected => connected,
            }
        };
        let stream = timeout(self.parts.connect_timeout, connecting).await??;
        client.opened(&stream, endpoint);
        Ok(stream)
    }

    async fn connect_once(
        &self,
        workload: &Workload,
        endpoint: SocketAddr,
    ) -> io::Result<TcpStream> {
        let socket = self.parts.sockets.stream(&workload.netns, endpoint.is_ipv6())?;
        socket.set_nodelay(true)?;
        socket.connect(endpoint).await
    }
}

/// Whether an ICMP message, or the routing table, says that nothing is there. Behind a ClusterIP that may
/// be true of one endpoint alone: the node's connection tracking keeps the endpoint of an earlier
/// connection from the same port for some seconds after a reset, also when its Pod is gone. Another
/// attempt is made from another port.
fn is_unreachable(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable)
}

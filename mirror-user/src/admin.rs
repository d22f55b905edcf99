//! The agent's window: a small HTTP/1.1 server on loopback, on the control runtime. In: GET
//! requests of people, probes and Prometheus. Out: /healthz, /readyz, /metrics, /config, /status. It
//! changes nothing, and no worker ever waits for it.

#![forbid(unsafe_code)]

mod collect;
mod connection_limit;
mod hosts;
mod respond;
mod status;

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use self::respond::misdirected;
pub(crate) use self::respond::{response, state};
pub use self::{
    collect::{ReportRequest, Workers},
    hosts::Hosts,
};
use crate::outcome::AgentMetrics;
use connection_limit::{ConnectionLimit, ConnectionSlot};

/// How long a connection may last, whatever it does: a client that reads slowly, or not at all, holds what
/// was written for it no longer.
const LIFETIME: Duration = Duration::from_secs(30);

/// For a request's head, and for the next request on an idle connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Pause after a failed accept(), which usually means that file descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the composition root reports about the agent. Called on the control runtime for each request, so
/// each must return at once.
pub trait AdminView: Send + Sync + 'static {
    /// Age of each worker's last heartbeat, by worker.
    fn heartbeats(&self) -> Vec<Duration>;

    /// Whether routes are loaded and the programs attached.
    ///
    /// # Errors
    /// What is missing, as text.
    fn ready(&self) -> Result<(), String>;

    /// What is in force.
    fn config(&self) -> serde_json::Value;

    /// What metrics say beside the workers' reports.
    fn agent_metrics(&self) -> AgentMetrics;
}

/// Why the admin server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// Reachable from elsewhere, and not asked for.
    #[error(
        "--admin {0} is not a loopback address, so everybody who can reach it could read the \
         configuration: use 127.0.0.1, or give --admin-remote as well"
    )]
    Remote(SocketAddr),
    /// `bind(2)` or `listen(2)` failed.
    #[error("cannot listen on --admin {address}: {source}{}", advice(.source))]
    Bind {
        /// The address asked for.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
}

/// All addresses of IPv4 for all addresses, if the kernel has no IPv6 (`ipv6.disable=1`).
fn without_ipv6(address: SocketAddr, error: &io::Error) -> Option<SocketAddr> {
    let absent = error.raw_os_error() == Some(libc::EAFNOSUPPORT);
    let all = address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    (absent && all).then(|| (Ipv4Addr::UNSPECIFIED, address.port()).into())
}

/// What to do about an address that cannot be bound.
fn advice(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EADDRINUSE) => " (does another agent run on this address?)",
        Some(libc::EAFNOSUPPORT) => ": use an IPv4 address on a host without IPv6, such as 0.0.0.0",
        _ => "",
    }
}

impl AdminError {
    /// The name in metrics and logs; never changes.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Remote(_) => "remote",
            Self::Bind { .. } => "bind",
        }
    }
}

/// The bound listener.
#[derive(Debug)]
pub struct Admin {
    listener: TcpListener,
    address: SocketAddr,
    hosts: Hosts,
}

impl Admin {
    /// Whether it may listen on `address` at all, which must be loopback unless `remote`: known
    /// before anything is begun.
    ///
    /// # Errors
    /// When the address is not loopback.
    pub fn check(address: SocketAddr, remote: bool) -> Result<(), AdminError> {
        if remote || address.ip().to_canonical().is_loopback() {
            return Ok(());
        }
        Err(AdminError::Remote(address))
    }

    /// Listens on `address`, which must be loopback unless `remote`. To be called within a tokio
    /// runtime.
    ///
    /// # Errors
    /// When the address is not loopback, or cannot be bound. A host without IPv6 listens on all IPv4
    /// addresses for `[::]`.
    pub async fn bind(address: SocketAddr, remote: bool) -> Result<Self, AdminError> {
        Self::check(address, remote)?;
        let failed = |source| AdminError::Bind { address, source };
        let listener = match TcpListener::bind(address).await {
            Err(error) => match without_ipv6(address, &error) {
                Some(address) => TcpListener::bind(address).await,
                None => Err(error),
            },
            bound => bound,
        };
        let listener = listener.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address, hosts: Hosts::default() })
    }

    /// May be asked by these names as well.
    #[must_use]
    pub fn with_hosts(self, hosts: Hosts) -> Self {
        Self { hosts, ..self }
    }

    /// Where it listens; the real port when 0 was asked for.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves requests until cancelled; requests in progress are then cut.
    pub async fn serve(
        self,
        view: Arc<impl AdminView>,
        workers: Workers,
        cancel: CancellationToken,
    ) {
        let workers = Arc::new(workers);
        let handler = move |request: Request<Incoming>| {
            let (view, workers) = (Arc::clone(&view), Arc::clone(&workers));
            async move { respond::respond(&request, view.as_ref(), &workers).await }
        };
        self.serve_by(handler, cancel).await;
    }

    /// The same with responses of the caller's own.
    pub(crate) async fn serve_by<A, F>(self, handler: A, cancel: CancellationToken)
    where
        A: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<Bytes>> + Send + 'static,
    {
        let (connection_limit, hosts) = (ConnectionLimit::default(), Arc::new(self.hosts));
        let accepting = async {
            loop {
                match self.listener.accept().await {
                    Ok((stream, _)) => {
                        let (handler, cancel) = (handler.clone(), cancel.clone());
                        let (slot, hosts) = (connection_limit.enter(), Arc::clone(&hosts));
                        tokio::spawn(async move {
                            let served = connection(stream, handler, hosts);
                            cancel.run_until_cancelled(bounded(served, slot)).await;
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "the admin server cannot accept a connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        };
        cancel.run_until_cancelled(accepting).await;
    }
}

/// Until its time is over, or its place is another's.
async fn bounded(served: impl Future<Output = ()>, slot: ConnectionSlot) {
    let served = slot.gone.run_until_cancelled(timeout(LIFETIME, served)).await;
    if !matches!(served, Some(Ok(()))) {
        tracing::debug!("closed a connection to the admin server: it was open for too long");
    }
}

async fn connection<A, F>(stream: TcpStream, handler: A, hosts: Arc<Hosts>)
where
    A: Fn(Request<Incoming>) -> F,
    F: Future<Output = Response<Bytes>>,
{
    let service = service_fn(|request| {
        // What is asked for by another's name is not even looked up.
        let handler = if hosts.allow(&request) { Ok(handler(request)) } else { Err(misdirected()) };
        async {
            let response = match handler {
                Ok(handler) => handler.await,
                Err(refused) => refused,
            };
            Ok::<_, Infallible>(response.map(Full::new))
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection to the admin server failed");
    }
}

#[cfg(test)]
mod tests;

//! The agent's window: a small HTTP/1.1 server on loopback, on the control runtime. In: GET
//! requests of people, probes and Prometheus. Out: /healthz, /readyz, /metrics, /config, /status. It
//! changes nothing, and no worker ever waits for it.

mod answer;
mod collect;
mod status;

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::sync::CancellationToken;

pub(crate) use self::answer::{response, state};
pub use self::collect::{Ask, Workers};
use crate::outcome::Facts;

/// Connections at a time; more wait in the accept queue.
const CONNECTIONS: usize = 64;

/// For a request's head, and for the next request on an idle connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Pause after a failed accept(), which mostly means that file descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the composition root tells of itself; called on the control runtime for each request, so
/// each must return at once.
pub trait View: Send + Sync + 'static {
    /// Age of each worker's last heartbeat, by worker.
    fn heartbeats(&self) -> Vec<Duration>;

    /// Whether routes are loaded and the programs attached.
    ///
    /// # Errors
    /// What is missing, for people.
    fn ready(&self) -> Result<(), String>;

    /// What is in force.
    fn config(&self) -> serde_json::Value;

    /// What metrics say beside the workers' reports.
    fn facts(&self) -> Facts;
}

/// Why there is no window.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// Reachable from elsewhere, and not asked for.
    #[error(
        "--admin {0} is not a loopback address: whoever reaches it could read the configuration; \
         use 127.0.0.1, or give --admin-remote as well"
    )]
    Remote(SocketAddr),
    /// `bind(2)` or `listen(2)` failed.
    #[error("cannot listen on --admin {address}: {source} (is another agent running?)")]
    Bind {
        /// The address asked for.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
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
    /// When the address is not loopback, or cannot be bound.
    pub async fn bind(address: SocketAddr, remote: bool) -> Result<Self, AdminError> {
        Self::check(address, remote)?;
        let failed = |source| AdminError::Bind { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address })
    }

    /// Where it listens; the real port when 0 was asked for.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until cancelled; requests in progress are then cut.
    pub async fn serve(self, view: Arc<impl View>, workers: Workers, cancel: CancellationToken) {
        let workers = Arc::new(workers);
        let answer = move |request: Request<Incoming>| {
            let (view, workers) = (Arc::clone(&view), Arc::clone(&workers));
            async move { answer::answer(&request, view.as_ref(), &workers).await }
        };
        self.serve_by(answer, cancel).await;
    }

    /// The same with answers of the caller's own.
    pub(crate) async fn serve_by<A, F>(self, answer: A, cancel: CancellationToken)
    where
        A: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<Bytes>> + Send + 'static,
    {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        let accepting = async {
            loop {
                let place = Arc::clone(&places).acquire_owned().await;
                let place = place.expect("the semaphore is never closed");
                match self.listener.accept().await {
                    Ok((stream, _)) => {
                        let (answer, cancel) = (answer.clone(), cancel.clone());
                        tokio::spawn(async move {
                            cancel.run_until_cancelled(connection(stream, answer)).await;
                            drop(place);
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

async fn connection<A, F>(stream: TcpStream, answer: A)
where
    A: Fn(Request<Incoming>) -> F,
    F: Future<Output = Response<Bytes>>,
{
    let service = service_fn(|request| {
        let answer = answer(request);
        async { Ok::<_, Infallible>(answer.await.map(Full::new)) }
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

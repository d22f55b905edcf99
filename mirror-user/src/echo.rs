//! `mirror echo`: a server of HTTP/1.1 and HTTP/2 (prior knowledge) whose responses have httpbin's form, for demos and tests.
//!
//! In: flags. Out: responses, one access log line for each request as gunicorn writes it, and on
//! request a JSON line that says exactly what arrived. It never buffers an upload, and a
//! [`Fault`] makes it the bad server that a shadow may be.

#![forbid(unsafe_code)]

mod body;
mod fault;
mod log;
mod response;

use std::{convert::Infallible, net::SocketAddr, path::PathBuf, sync::Arc};

use anyhow::Context;
use hyper::{Request, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpSocket, TcpStream},
    signal::unix::{SignalKind, signal},
};

use fault::SlowReader;
pub use fault::{Fault, InvalidFault};
use log::EchoLog;

/// Flags of `mirror echo`.
#[derive(clap::Args, Clone, Debug)]
pub struct EchoArgs {
    /// Address to listen on. Repeatable.
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:8080")]
    listen: Vec<SocketAddr>,
    /// Name of the server in its JSON log.
    #[arg(long, default_value = "echo")]
    name: String,
    /// Write a JSON line for each request to this file; - is stdout, in place of the access log.
    #[arg(long, value_name = "FILE|-")]
    log_json: Option<PathBuf>,
    /// Write no access log.
    #[arg(long)]
    quiet: bool,
    /// Fault to simulate: refuse, accept-never-read, answer-never, delay=1s, slow-read=1024 (bytes per
    /// second), close-mid-answer or early-answer.
    #[arg(long)]
    fault: Option<Fault>,
}

/// What every connection shares.
#[derive(Debug)]
struct Server {
    fault: Option<Fault>,
    log: EchoLog,
}

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// An address cannot be bound, or the log cannot be opened.
pub async fn run(args: EchoArgs) -> anyhow::Result<()> {
    let log = EchoLog::open(args.name, args.log_json.as_deref(), args.quiet)?;
    let server = Arc::new(Server { fault: args.fault, log });
    if server.fault != Some(Fault::Refuse) {
        for address in args.listen {
            let listener = listen(address, server.fault)
                .with_context(|| format!("mirror echo cannot listen on {address}"))?;
            tokio::spawn(accept(listener, server.clone()));
        }
    }
    let mut term = signal(SignalKind::terminate()).context("cannot handle SIGTERM")?;
    let mut int = signal(SignalKind::interrupt()).context("cannot handle SIGINT")?;
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    Ok(())
}

fn listen(address: SocketAddr, fault: Option<Fault>) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    if matches!(fault, Some(Fault::AcceptNeverRead | Fault::SlowRead(_))) {
        // Accepted sockets inherit it: the kernel must not read ahead for us.
        socket.set_recv_buffer_size(4096)?;
    }
    socket.bind(address)?;
    socket.listen(4096)
}

async fn accept(listener: TcpListener, server: Arc<Server>) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                tokio::spawn(connection(stream, peer, server.clone()));
            }
            // Out of descriptors, or the client is gone already: the next may do better.
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
        }
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, server: Arc<Server>) {
    // Only a matter of latency: a socket that refuses it serves as well.
    let _ = stream.set_nodelay(true);
    match server.fault {
        Some(Fault::AcceptNeverRead) => {
            std::future::pending::<()>().await;
            drop(stream);
        }
        Some(Fault::SlowRead(rate)) => serve(SlowReader::new(stream, rate), peer, server).await,
        _ => serve(stream, peer, server).await,
    }
}

async fn serve<S>(stream: S, peer: SocketAddr, server: Arc<Server>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(|request: Request<Incoming>| {
        let server = server.clone();
        async move { Ok::<_, Infallible>(response::respond(request, peer, &server).await) }
    });
    // How a connection ends is the client's affair; what arrived is in the log.
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .half_close(true)
        .max_headers(1000)
        .header_read_timeout(None)
        .http2()
        .max_concurrent_streams(None);
    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
}

//! Bytes that pass both ways between a client and its primary, once nothing of them is HTTP any more: a
//! tunnel that the primary agreed to, and what mirror cannot read and yet passes on. How a tunnel is
//! requested is in [`exchange::tunnel`](super::exchange). (Between two sides of HTTP/2 a tunnel is a
//! stream like any other.)

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional_with_sizes},
    net::TcpStream,
};

use super::{close, primary::ConnectionLease};
use crate::outcome::Recorder;

/// Bytes held each way.
const BUFFER: usize = 16 * 1024;

/// The primary's side of a tunnel, once its HTTP is over.
pub(super) struct TunnelUpstream {
    pub(super) endpoint: SocketAddr,
    pub(super) stream: TcpStream,
    /// What came behind the response's head.
    pub(super) early: Bytes,
    pub(super) directions: TunnelDirections,
}

/// Which bytes pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TunnelDirections {
    /// Both sides'.
    Both,
    /// The primary's alone, until it ends or the client sends more.
    ToClient,
    /// The primary's alone, until it ends: the client is in the middle of a request.
    ToClientOnly,
}

impl TunnelUpstream {
    /// A connection to a primary whose bytes are passed on unread, from those that it has read on.
    pub(super) fn unread(
        endpoint: SocketAddr,
        lease: &ConnectionLease,
        directions: TunnelDirections,
    ) -> Option<Self> {
        let (stream, early) = lease.connection.take()?;
        Some(Self { endpoint, stream, early: early.freeze(), directions })
    }
}

/// Passes bytes on until both sides are done. `early` is what the client has sent behind its
/// request.
pub(super) async fn run(
    recorder: &Recorder,
    mut client: TcpStream,
    early: Bytes,
    tunnel: TunnelUpstream,
) {
    let TunnelUpstream { stream: mut upstream, early: early_response, directions, .. } = tunnel;
    if directions != TunnelDirections::Both {
        let more = directions == TunnelDirections::ToClient && !early.is_empty();
        return to_client(recorder, client, upstream, early_response, directions, more).await;
    }
    // What the primary has said is the client's, whatever becomes of the rest.
    if client.write_all(&early_response).await.is_err() {
        return close::reset(upstream);
    }
    match upstream.write_all(&early).await {
        Ok(()) => {
            recorder.passed(early.len() as u64, early_response.len() as u64);
            pass(recorder, &mut client, &mut upstream).await;
        }
        Err(_) if early_response.is_empty() => close::reset(client),
        Err(_) => close::linger(client).await,
    }
}

/// Passes on what the primary sends until it ends, or until the client sends more where that may
/// not pass; then both are closed. `more`: the client has sent more already.
async fn to_client(
    recorder: &Recorder,
    client: TcpStream,
    upstream: TcpStream,
    early_response: Bytes,
    directions: TunnelDirections,
    more: bool,
) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_upstream, mut to_upstream) = upstream.into_split();
    if to_client.write_all(&early_response).await.is_err() {
        return;
    }
    let client_ends = async {
        if more {
            return Ok(0);
        }
        let mut sink = [0_u8; 4096];
        loop {
            match from_client.read(&mut sink).await {
                Ok(0) => {
                    // One that has only closed its side still waits for the rest; the primary is to
                    // know.
                    let _ = to_upstream.shutdown().await;
                    std::future::pending::<()>().await;
                }
                Ok(_) if directions == TunnelDirections::ToClient => return Ok(0),
                Ok(_) => {}
                Err(error) => return Err(error),
            }
        }
    };
    let passed = tokio::select! {
        passed = tokio::io::copy(&mut from_upstream, &mut to_client) => passed,
        ended = client_ends => ended,
    };
    recorder.passed(0, early_response.len() as u64 + passed.as_ref().map_or(0, |passed| *passed));
    let (Ok(client), Ok(upstream)) =
        (from_client.reunite(to_client), from_upstream.reunite(to_upstream))
    else {
        return;
    };
    match passed {
        Ok(_) => {
            drop(upstream);
            close::linger(client).await;
        }
        Err(_) => {
            close::reset(upstream);
            close::reset(client);
        }
    }
}

/// Passes bytes both ways until both sides are done. One side's reset resets the other.
pub(super) async fn pass(recorder: &Recorder, client: &mut TcpStream, upstream: &mut TcpStream) {
    match copy_bidirectional_with_sizes(client, upstream, BUFFER, BUFFER).await {
        Ok((to_server, to_client)) => recorder.passed(to_server, to_client),
        Err(_) => {
            for stream in [client, upstream] {
                // A socket that refuses the option is closed with FIN: the next best.
                let _ = SockRef::from(&*stream).set_linger(Some(Duration::ZERO));
            }
        }
    }
}

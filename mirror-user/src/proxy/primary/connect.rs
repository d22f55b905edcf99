//! New connections to a primary, made inside the client's network namespace.

use std::{io, net::SocketAddr, rc::Rc};

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::spawn_local, time::timeout};

use super::PrimaryBody;
use crate::{
    proxy::{
        context::Context,
        io::{UpstreamIo, WireState},
    },
    sockets::Place,
};

/// Largest head of an answer, in bytes.
const HEAD_LIMIT: usize = 256 * 1024;

/// Most fields of an answer.
const FIELD_LIMIT: usize = 1000;

/// Opens a connection and lets it run on this worker until both sides are done with it.
///
/// # Errors
/// What the socket factory or `connect(2)` says, or `TimedOut`.
pub(in crate::proxy) async fn open(
    ctx: &Context,
    place: &Place,
    endpoint: SocketAddr,
) -> io::Result<(SendRequest<PrimaryBody>, Rc<WireState>)> {
    let (io, wire) = UpstreamIo::new(transport(ctx, place, endpoint).await?);
    let (sender, connection) =
        builder().handshake(TokioIo::new(io)).await.map_err(io::Error::other)?;
    let driver = spawn_local(async move {
        // Its user learns of an error from the exchange itself.
        let _ = connection.await;
    });
    wire.drive(driver.abort_handle());
    Ok((sender, wire))
}

/// A connected socket inside `place`.
///
/// # Errors
/// As [`open`].
pub(in crate::proxy) async fn transport(
    ctx: &Context,
    place: &Place,
    endpoint: SocketAddr,
) -> io::Result<TcpStream> {
    let socket = ctx.sockets.stream(place, endpoint.is_ipv6())?;
    socket.set_nodelay(true)?;
    timeout(ctx.options.connect_timeout, socket.connect(endpoint)).await?
}

/// hyper's settings for a connection to a primary.
pub(in crate::proxy) fn builder() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .preserve_header_case(true)
        .max_headers(FIELD_LIMIT)
        .max_header_size(HEAD_LIMIT)
        .max_buf_size(HEAD_LIMIT)
        .allow_obsolete_multiline_headers_in_responses(true)
        .writev(true);
    builder
}

//! New connections to a primary, made inside the client's network namespace.

use std::{io, net::SocketAddr};

use tokio::{net::TcpStream, time::timeout};

use crate::{proxy::context::Context, sockets::Place};

/// A connected socket inside `place`.
///
/// # Errors
/// What the socket factory or `connect(2)` says, or `TimedOut`.
pub(in crate::proxy) async fn transport(
    ctx: &Context,
    place: &Place,
    endpoint: SocketAddr,
) -> io::Result<TcpStream> {
    let socket = ctx.sockets.stream(place, endpoint.is_ipv6())?;
    socket.set_nodelay(true)?;
    timeout(ctx.options.connect_timeout, socket.connect(endpoint)).await?
}

//! What mirror cannot read and yet passes on: bytes that a primary sends without a request, and a
//! response that is none. In: a client's HTTP/1 connection and the upstream connection whose bytes
//! cannot be read. Out: a tunnel, where the client's routes do no more than mirror; else a tunnel
//! that takes nothing more of the client. Requests that are ambiguous never come here: they are
//! refused.

use super::{
    client::Client,
    context::Context,
    primary::ConnectionLease,
    tunnel::{TunnelDirections, TunnelUpstream},
};
use crate::route::FrontendState;

/// From here on the client's connection carries the upstream's bytes as they come. False: the
/// upstream's socket is gone.
pub(super) fn pass_on(
    ctx: &Context,
    client: &Client,
    endpoint: std::net::SocketAddr,
    lease: &ConnectionLease,
) -> bool {
    let directions = match () {
        // The bytes of the request's rest are framed by its own connection's codec.
        () if lease.connection.is_sending() => TunnelDirections::ToClientOnly,
        () if only_mirrors(ctx, client) => TunnelDirections::Both,
        () => TunnelDirections::ToClient,
    };
    let tunnel = TunnelUpstream::unread(endpoint, lease, directions);
    let there = tunnel.is_some();
    client.tunnel.set(tunnel);
    there
}

/// Whether all requests of the client have one destination, which gets them as they are.
fn only_mirrors(ctx: &Context, client: &Client) -> bool {
    let routes = ctx.routes();
    match routes.frontends.get(&client.frontend.id) {
        Some(FrontendState::Live(now)) => {
            now.only_mirrors(&client.workload.namespace, ctx.options.endpoints)
        }
        // No route holds any more: the original destination gets everything.
        Some(FrontendState::Tombstone(_)) | None => true,
    }
}

//! Opaque bytes: copied both ways to the original destination, half-close and all; never parsed,
//! never shadowed.

use std::{io, rc::Rc};

use bytes::BytesMut;
use tokio::{io::AsyncWriteExt, net::TcpStream};

use super::{client::Client, close, context::Context, refusal, tunnel};

/// Opens the original destination and passes all bytes, `first` before the rest. A destination
/// that cannot be reached resets the client, which would have seen it fail to connect.
pub(super) async fn relay(ctx: &Rc<Context>, client: &Client, stream: TcpStream, first: BytesMut) {
    let address = client.frontend.address;
    match ctx.primary.connect_socket(&client.workload, &client.socket, address).await {
        Ok(upstream) => join(ctx, stream, upstream, first).await,
        Err(error) => unreachable(ctx, client, stream, &error),
    }
}

/// The destination cannot be connected to: the client, which would have seen its connect fail, is
/// reset.
pub(super) fn unreachable(ctx: &Context, client: &Client, stream: TcpStream, error: &io::Error) {
    let address = client.frontend.address;
    let why = format!("cannot connect to the original destination {address}: {error}");
    refusal::connection(ctx, client, refusal::of_connect(error), &why);
    close::reset(stream);
}

/// Passes `first` to the upstream, then all bytes both ways.
pub(super) async fn join(
    ctx: &Context,
    mut client: TcpStream,
    mut upstream: TcpStream,
    first: BytesMut,
) {
    match upstream.write_all(&first).await {
        Ok(()) => {
            ctx.recorder.passed(first.len() as u64, 0);
            drop(first);
            tunnel::pass(&ctx.recorder, &mut client, &mut upstream).await;
        }
        Err(_) => close::reset(client),
    }
}

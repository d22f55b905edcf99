//! Opaque bytes: copied both ways to the original destination, half-close and all; never parsed,
//! never shadowed.

use std::{rc::Rc, time::Duration};

use bytes::BytesMut;
use socket2::SockRef;
use tokio::{
    io::{AsyncWriteExt, copy_bidirectional_with_sizes},
    net::TcpStream,
};

use super::{connection::Client, context::Context, ending, primary};

/// Bytes held each way.
const BUFFER: usize = 16 * 1024;

/// Opens the original destination and passes all bytes, `first` before the rest. A destination
/// that cannot be reached resets the client, which would have seen it fail to connect.
pub(super) async fn relay(ctx: &Rc<Context>, client: &Client, stream: TcpStream, first: BytesMut) {
    let address = client.frontend.address;
    match primary::transport(ctx, &client.workload.place, address).await {
        Ok(upstream) => join(ctx, stream, upstream, first).await,
        Err(error) => {
            if ctx.may_tell() {
                tracing::warn!(
                    client = %client.workload.name,
                    %address,
                    %error,
                    "cannot reach the original destination; the client's connection is reset"
                );
            }
            ending::reset(stream);
        }
    }
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
            pass(ctx, &mut client, &mut upstream).await;
        }
        Err(_) => ending::reset(client),
    }
}

/// Passes bytes both ways until both sides are done. One side's reset resets the other.
pub(super) async fn pass(ctx: &Context, client: &mut TcpStream, upstream: &mut TcpStream) {
    match copy_bidirectional_with_sizes(client, upstream, BUFFER, BUFFER).await {
        Ok((to_server, to_client)) => ctx.recorder.passed(to_server, to_client),
        Err(_) => {
            for stream in [client, upstream] {
                // A socket that refuses the option is closed with FIN: the next best.
                let _ = SockRef::from(&*stream).set_linger(Some(Duration::ZERO));
            }
        }
    }
}

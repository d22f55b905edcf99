//! Tunnels: CONNECT, and requests that ask for Upgrade. Each has a connection of its own; when
//! the primary agrees, the bytes pass both ways until both sides are done. Never mirrored.

use std::{io, net::SocketAddr, rc::Rc};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use hyper::{body::Incoming, client::conn::http1::Parts};
use hyper_util::rt::TokioIo;
use tokio::{io::AsyncWriteExt, net::TcpStream, sync::oneshot, task::spawn_local};

use super::{
    context::Context,
    exchange::{Abort, Record, answer},
    io::UpstreamIo,
    opaque,
    primary::{
        ATTEMPTS, AnswerBody, Destination, Failure, Load, PrimaryBody, Upstream, builder, transport,
    },
};
use crate::{outcome::Ending, sockets::Place};

type Promise = oneshot::Receiver<Parts<TokioIo<UpstreamIo>>>;

/// The primary's side of a tunnel, once its HTTP is over.
pub(super) struct Far {
    parts: Promise,
    /// Held until the socket is out: hyper closes a connection that nobody can send on.
    upstream: Upstream,
}

/// Sends the request on a new connection; a tunnel begins if the primary agrees to it.
///
/// # Errors
/// As any exchange: the primary gave no answer.
pub(super) async fn open(
    ctx: &Rc<Context>,
    mut record: Record,
    to: &Destination,
    request: Request<Incoming>,
) -> Result<Response<AnswerBody>, Abort> {
    let connect = request.method() == Method::CONNECT;
    let client = Rc::clone(&record.client);
    let progress = Rc::clone(&record.progress);
    let request = request.map(|body| PrimaryBody::new(body, Vec::new(), progress));
    let (mut upstream, parts) = match dial(ctx, &record, to).await {
        Ok(dialled) => dialled,
        Err(failure) => return Err(record.fail(failure)),
    };
    let response = match upstream.ask(request).await {
        Ok(response) => response,
        Err(failure) => return Err(record.fail(failure)),
    };
    let agreed = response.status() == StatusCode::SWITCHING_PROTOCOLS
        || (connect && response.status().is_success());
    if !agreed {
        return Ok(answer(record, response, upstream));
    }
    record.ending = Ending::Tunnel;
    record.endpoint = Some(upstream.endpoint);
    record.answered(crate::outcome::Answer::Primary, response.status());
    client.tunnel.set(Some(Far { parts, upstream }));
    let (head, _) = response.into_parts();
    Ok(Response::from_parts(head, AnswerBody::tunnel(record)))
}

async fn dial(
    ctx: &Rc<Context>,
    record: &Record,
    to: &Destination,
) -> Result<(Upstream, Promise), Failure> {
    let (endpoint, load, stream) = connect(ctx, &record.client.workload.place, to).await?;
    let (io, wire) = UpstreamIo::new(stream);
    let (sender, connection) = builder()
        .handshake(TokioIo::new(io))
        .await
        .map_err(|error| Failure::Lost(endpoint, error))?;
    let (tell, promise) = oneshot::channel();
    spawn_local(async move {
        if let Ok(parts) = connection.without_shutdown().await {
            // Nobody waits where no tunnel came of it.
            let _ = tell.send(parts);
        }
    });
    Ok((Upstream::new(endpoint, wire, record.client.workload.key, sender, load), promise))
}

/// Connects to one of the endpoints, and to another where one refuses.
async fn connect(
    ctx: &Rc<Context>,
    place: &Place,
    to: &Destination,
) -> Result<(SocketAddr, Load, TcpStream), Failure> {
    let mut failed = Vec::new();
    let mut failure = Failure::NoEndpoint;
    while failed.len() < ATTEMPTS {
        let Some((endpoint, load)) = ctx.primary.pick(to, ctx.draw(), &failed) else { break };
        match transport(ctx, place, endpoint).await {
            Ok(stream) => return Ok((endpoint, load, stream)),
            Err(error) => {
                failed.push(endpoint);
                failure = Failure::Connect(endpoint, error);
            }
        }
    }
    Err(failure)
}

/// Passes bytes both ways. `early` is what the client has sent behind its request.
pub(super) async fn run(ctx: &Context, mut client: TcpStream, early: Bytes, far: Far) {
    let Ok(parts) = far.parts.await else { return super::ending::reset(client) };
    // Counts towards its endpoint for as long as the tunnel lasts.
    let _upstream = far.upstream;
    let mut io = parts.io.into_inner();
    let upstream = io.stream_mut();
    let begun: io::Result<()> = async {
        upstream.write_all(&early).await?;
        client.write_all(&parts.read_buf).await
    }
    .await;
    if begun.is_ok() {
        ctx.recorder.passed(early.len() as u64, parts.read_buf.len() as u64);
        opaque::pass(ctx, &mut client, upstream).await;
    }
}

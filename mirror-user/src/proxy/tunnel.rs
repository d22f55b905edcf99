//! Tunnels over HTTP/1: CONNECT, and requests that ask for Upgrade. Each has a connection of its
//! own; when the primary agrees, the bytes pass both ways until both sides are done. Never
//! mirrored. (Between two sides of HTTP/2 a tunnel is a stream like any other.)

mod bridge;

use std::{io, net::SocketAddr, rc::Rc};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use hyper::client::conn::http1::Parts;
use hyper_util::rt::TokioIo;
use tokio::{io::AsyncWriteExt, net::TcpStream, sync::oneshot, task::spawn_local};

pub(super) use self::bridge::bridge;
use super::{
    context::Context,
    exchange::{Abort, Record, answer},
    framing::prepare_tunnel,
    inbound::Inbound,
    io::UpstreamIo,
    opaque,
    primary::{
        ATTEMPTS, AnswerBody, Destination, Failure, Line, Load, PrimaryBody, Single, Upstream,
        builder, transport,
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

/// What the primary said to the wish for a tunnel.
enum Reply {
    Agreed(Response<Inbound>, Far),
    Declined(Response<Inbound>, Upstream),
}

/// Sends the request on a new connection; a tunnel begins if the primary agrees to it.
///
/// # Errors
/// As any exchange: the primary gave no answer.
pub(super) async fn open(
    ctx: &Rc<Context>,
    mut record: Record,
    to: &Destination,
    request: Request<PrimaryBody>,
) -> Result<Response<AnswerBody>, Abort> {
    let client = Rc::clone(&record.client);
    let asked = async {
        let (endpoint, load, stream) = connect(ctx, &client.workload.place, to).await?;
        ask((endpoint, load), client.workload.key, stream, request).await
    };
    match asked.await {
        Err(failure) => Err(record.fail(failure)),
        Ok(Reply::Declined(response, upstream)) => Ok(answer(record, response, upstream)),
        Ok(Reply::Agreed(response, far)) => {
            record.ending = Ending::Tunnel;
            record.endpoint = Some(far.upstream.endpoint);
            record.answered(crate::outcome::Answer::Primary, response.status());
            client.tunnel.set(Some(far));
            let (mut head, _) = response.into_parts();
            prepare_tunnel(&mut head);
            Ok(Response::from_parts(head, AnswerBody::tunnel(record)))
        }
    }
}

/// Asks for a tunnel on a connection that is open.
async fn ask(
    (endpoint, load): (SocketAddr, Load),
    workload: u64,
    stream: TcpStream,
    request: Request<PrimaryBody>,
) -> Result<Reply, Failure> {
    let lost = |error: hyper::Error| Failure::Lost(endpoint, error.into());
    let connect = request.method() == Method::CONNECT;
    let (io, wire) = UpstreamIo::new(stream);
    let (sender, connection) = builder().handshake(TokioIo::new(io)).await.map_err(lost)?;
    let (tell, parts) = oneshot::channel();
    spawn_local(async move {
        if let Ok(parts) = connection.without_shutdown().await {
            // Nobody waits where no tunnel came of it.
            let _ = tell.send(parts);
        }
    });
    let mut single = Single::new(wire, workload, sender, false);
    let response = single.ask(request).await.map_err(lost)?;
    let agreed = response.status() == StatusCode::SWITCHING_PROTOCOLS
        || (connect && response.status().is_success());
    let upstream = Upstream::new(endpoint, Line::Single(single), load);
    Ok(if agreed {
        Reply::Agreed(response, Far { parts, upstream })
    } else {
        Reply::Declined(response, upstream)
    })
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

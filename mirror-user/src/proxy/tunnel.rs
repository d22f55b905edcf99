//! Tunnels over HTTP/1: CONNECT, and requests that ask for Upgrade. Each has a connection of its
//! own; when the primary agrees, the bytes pass both ways until both sides are done. Never
//! mirrored. (Between two sides of HTTP/2 a tunnel is a stream like any other.)

mod bridge;

use std::{io, net::SocketAddr, rc::Rc};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use tokio::{io::AsyncWriteExt, net::TcpStream};

pub(super) use self::bridge::bridge;
use super::{
    context::Context,
    exchange::{Abort, Record, answer},
    framing::prepare_tunnel,
    inbound::Inbound,
    interim::Interim,
    opaque,
    primary::{
        ATTEMPTS, AnswerBody, Destination, Failure, Line, Load, PrimaryBody, Single, Upstream,
        transport,
    },
};
use crate::{outcome::Ending, sockets::Place};

/// The primary's side of a tunnel, once its HTTP is over.
pub(super) struct Far {
    endpoint: SocketAddr,
    stream: TcpStream,
    /// What came behind the answer's head.
    early: Bytes,
    /// Counts the tunnel towards its endpoint while it lasts.
    load: Load,
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
            record.endpoint = Some(far.endpoint);
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
    let connect = request.method() == Method::CONNECT;
    let mut single = Single::new(stream, workload);
    let (mut head, body) = request.into_parts();
    let asked = single.ask(&mut head, body, false, &Interim::Ignore).await;
    let response =
        asked.map_err(|(unanswered, _)| Failure::Lost(endpoint, unanswered.error.into()))?;
    let agreed = response.status() == StatusCode::SWITCHING_PROTOCOLS
        || (connect && response.status().is_success());
    if !agreed {
        return Ok(Reply::Declined(response, Upstream::new(endpoint, Line::Single(single), load)));
    }
    let Some((stream, early)) = single.connection.take() else {
        return Err(Failure::Refused(endpoint));
    };
    Ok(Reply::Agreed(response, Far { endpoint, stream, early: early.freeze(), load }))
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
    let Far { stream: mut upstream, early: answered, load: _load, .. } = far;
    let begun: io::Result<()> = async {
        upstream.write_all(&early).await?;
        client.write_all(&answered).await
    }
    .await;
    if begun.is_ok() {
        ctx.recorder.passed(early.len() as u64, answered.len() as u64);
        opaque::pass(ctx, &mut client, &mut upstream).await;
    }
}

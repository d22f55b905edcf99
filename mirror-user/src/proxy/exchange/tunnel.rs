//! Tunnels over HTTP/1: CONNECT, and Upgrade. What asks for nothing else (CONNECT, WebSocket) takes a
//! connection for itself and is never mirrored; a request that only offers another protocol has gone
//! the way of all others. When the primary agrees to what was asked, the bytes pass both ways until
//! both sides are done. (Between two sides of HTTP/2 a tunnel is a stream like any other.)

use std::{net::SocketAddr, rc::Rc};

use http::{Method, Response, StatusCode};

use super::{Abort, ExchangeRecord, ResponseBody, failed, local_reply, primary_response};
use crate::{
    outcome::{Ending, Uncopied},
    proxy::{
        body::IncomingBody,
        client::Client,
        context::Context,
        interim::Interim,
        primary::{ConnectionLease, Destination, Failure, PrimaryRequest, Transport, Upstream},
        tunnel::{TunnelDirections, TunnelUpstream},
        upgrade,
        validate::prepare_tunnel,
    },
};

/// What the primary said to the request for a tunnel.
pub(super) enum TunnelResponse {
    Agreed(Response<IncomingBody>, TunnelUpstream),
    Declined(Response<IncomingBody>, Upstream),
    /// It switched to what nobody asked for.
    Unsolicited(SocketAddr),
}

/// Sends the request to the primary; a tunnel begins if the primary agrees to it.
///
/// # Errors
/// As any exchange: the primary gave no response.
pub(super) async fn open(
    ctx: &Rc<Context>,
    mut record: ExchangeRecord,
    to: &Destination,
    request: PrimaryRequest,
) -> Result<Response<ResponseBody>, Abort> {
    let client = Rc::clone(&record.client);
    let requested = async {
        let Client { workload, socket, upstreams, .. } = &*client;
        let (endpoint, lease) = ctx.primary.connect(workload, socket, upstreams, to).await?;
        request_tunnel(endpoint, lease, request).await
    };
    match requested.await {
        Err(failure) => failed(ctx, record, failure),
        Ok(TunnelResponse::Declined(response, upstream)) => {
            Ok(primary_response(record, response, upstream))
        }
        Ok(TunnelResponse::Agreed(response, tunnel)) => Ok(begin(record, response, tunnel)),
        Ok(TunnelResponse::Unsolicited(endpoint)) => {
            record.endpoint = Some(endpoint);
            Ok(local_reply::unrequested_upgrade(record))
        }
    }
}

/// The primary answered a request with 101 that went the way of all requests. A tunnel begins if that
/// was `requested`; else the primary's connection ends here, and the client is told so.
pub(super) fn switch(
    mut record: ExchangeRecord,
    requested: Option<&upgrade::RequestedProtocols>,
    response: Response<IncomingBody>,
    upstream: Upstream,
) -> Response<ResponseBody> {
    record.endpoint = Some(upstream.endpoint);
    let allowed = requested.is_some_and(|requested| requested.allows(response.headers()));
    match tunnel(upstream).filter(|_| allowed) {
        Some(tunnel) => begin(record, response, tunnel),
        None => local_reply::unrequested_upgrade(record),
    }
}

/// The tunnel begins when the client has this head.
fn begin(
    mut record: ExchangeRecord,
    response: Response<IncomingBody>,
    tunnel: TunnelUpstream,
) -> Response<ResponseBody> {
    record.ending = Ending::Tunnel;
    record.endpoint = Some(tunnel.endpoint);
    record.responded(crate::outcome::ResponseSource::Primary, response.status());
    record.client.tunnel.set(Some(tunnel));
    let (mut head, _) = response.into_parts();
    prepare_tunnel(&mut head);
    Response::from_parts(head, ResponseBody::tunnel(record))
}

/// Why a request that asks for a tunnel is not copied.
pub(super) fn uncopied(head: &http::request::Parts) -> Uncopied {
    let protocol = head.extensions.get::<h2::ext::Protocol>();
    let websocket = protocol.is_none_or(|protocol| protocol.as_str() == "websocket");
    let plain = protocol.is_none() && head.method == Method::CONNECT;
    if websocket && !plain { Uncopied::WebSocket } else { Uncopied::Connect }
}

/// Asks for a tunnel on a connection that is open.
pub(super) async fn request_tunnel(
    endpoint: SocketAddr,
    mut lease: ConnectionLease,
    request: PrimaryRequest,
) -> Result<TunnelResponse, Failure> {
    let PrimaryRequest { mut head, body } = request;
    let connect = head.method == Method::CONNECT;
    let offered = upgrade::RequestedProtocols::of(&head.headers);
    let requested = lease.send(&mut head, body, false, &Interim::Ignore).await;
    let response = match requested {
        Ok(response) => response,
        Err((error, _)) if error.error.is_malformed() => {
            return Err(Failure::Unreadable(endpoint, error.error, Box::new(lease)));
        }
        Err((error, _)) => return Err(Failure::Lost(endpoint, error.error.into())),
    };
    let (status, upstream) = (response.status(), Upstream::new(endpoint, Transport::Http1(lease)));
    let agreed = if status == StatusCode::SWITCHING_PROTOCOLS {
        offered.allows(response.headers())
    } else if connect && status.is_success() {
        true
    } else {
        return Ok(TunnelResponse::Declined(response, upstream));
    };
    Ok(match tunnel(upstream).filter(|_| agreed) {
        Some(tunnel) => TunnelResponse::Agreed(response, tunnel),
        None => TunnelResponse::Unsolicited(endpoint),
    })
}

/// The connection itself. None for a stream of HTTP/2, and while the request is not sent to its end:
/// nobody may switch before (RFC 9110, section 7.8).
fn tunnel(upstream: Upstream) -> Option<TunnelUpstream> {
    let Upstream { endpoint, transport: Transport::Http1(lease), .. } = upstream else {
        return None;
    };
    if lease.connection.is_sending() {
        return None;
    }
    let (stream, early) = lease.connection.take()?;
    Some(TunnelUpstream {
        endpoint,
        stream,
        early: early.freeze(),
        directions: TunnelDirections::Both,
    })
}

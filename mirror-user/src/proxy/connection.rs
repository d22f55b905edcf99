//! One accepted connection: which frontend it is for, what it speaks, and who takes it from there.
//!
//! The frontend's id is the socket's own local address, which the connect hook chose.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::pin,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use bytes::BytesMut;
use mirror_common::FrontendId;
use tokio::{
    io::Interest,
    net::TcpStream,
    time::{sleep, timeout},
};

use super::{
    client::Client,
    client_socket::ClientSocket,
    close,
    context::Context,
    opaque, refusal, serve,
    sniff::{Protocol, sniff},
};
use crate::{
    memory::{ConnectionUsage, MemoryExceeded},
    outcome::{ConnectionKind, RefusalReason},
    route::FrontendState,
    sockets,
    workload::Workload,
};

/// A connection that was told to the outcome, until its end.
struct ConnectionGuard {
    ctx: Rc<Context>,
    kind: ConnectionKind,
}

impl ConnectionGuard {
    fn new(ctx: &Rc<Context>, kind: ConnectionKind) -> Self {
        ctx.recorder.connection(kind);
        Self { ctx: Rc::clone(ctx), kind }
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.ctx.recorder.connection_closed(self.kind);
    }
}

/// Takes the connection to its end.
///
/// What a connection may become is boxed, here and below, because the future of each connection is as
/// large as its largest part for as long as it lives, idle or not.
pub(super) async fn run(
    ctx: Rc<Context>,
    workload: Arc<Workload>,
    stream: TcpStream,
    peer: SocketAddr,
) {
    let _live = ctx.enter();
    // Small responses are not to wait for an acknowledgement; failing that, they do.
    let _ = stream.set_nodelay(true);
    let local = stream.local_addr().ok();
    let Some((local, id)) = local.and_then(|local| Some((local, frontend_id(local, &stream)?)))
    else {
        return refuse(&ctx, &workload, stream, RefusalReason::Outside);
    };
    if id == FrontendId::CANARY {
        drop(ConnectionGuard::new(&ctx, ConnectionKind::Canary));
        return;
    }
    let Some(state) = ctx.routes().frontends.get(&id).cloned() else {
        return refuse(&ctx, &workload, stream, RefusalReason::UnknownId);
    };
    let memory = match ConnectionUsage::open(&workload.memory) {
        Ok(memory) => memory,
        Err(exceeded) => return reject_full(&ctx, &workload, stream, &state, exceeded),
    };
    let socket = ClientSocket::new(peer, local);
    ctx.keepalives.add(&socket, &workload, ctx.sweeps());
    match state {
        FrontendState::Tombstone(frontend) => {
            let _seen = ConnectionGuard::new(&ctx, ConnectionKind::Tombstone);
            let client = Client::new(socket, workload, frontend, memory);
            Box::pin(opaque::relay(&ctx, &client, stream, BytesMut::new())).await;
        }
        FrontendState::Live(frontend) => {
            let client = Rc::new(Client::new(socket, workload, frontend, memory));
            serve_live(&ctx, client, stream).await;
        }
    }
}

/// An id that was never issued, or a connection from outside of the pod: somebody connects to the
/// agent's own addresses.
fn refuse(ctx: &Rc<Context>, workload: &Workload, stream: TcpStream, refusal: RefusalReason) {
    let why = match refusal {
        RefusalReason::Outside => "a connection that did not come from the pod is reset",
        _ => "a connection to an address that was never given to anybody is reset",
    };
    refusal::unknown(ctx, workload, None, refusal, &why);
    let _seen = ConnectionGuard::new(ctx, ConnectionKind::UnknownId);
    close::reset(stream);
}

/// A connection that came faster than new ones were sent past the agent: see
/// [`WorkloadUsage::is_full`](super::WorkloadUsage::is_full).
fn reject_full(
    ctx: &Rc<Context>,
    workload: &Workload,
    stream: TcpStream,
    state: &FrontendState,
    exceeded: MemoryExceeded,
) {
    let (FrontendState::Live(frontend) | FrontendState::Tombstone(frontend)) = state;
    refusal::unknown(ctx, workload, Some(frontend), exceeded.into(), &exceeded);
    let _seen = ConnectionGuard::new(ctx, ConnectionKind::Refused);
    close::reset(stream);
}

fn frontend_id(local: SocketAddr, stream: &TcpStream) -> Option<FrontendId> {
    match local.ip() {
        IpAddr::V4(address) => FrontendId::from_address(address),
        IpAddr::V6(address) if sockets::came_by_loopback(stream) => {
            FrontendId::from_address_v6(address)
        }
        IpAddr::V6(_) => None,
    }
}

async fn serve_live(ctx: &Rc<Context>, client: Rc<Client>, mut stream: TcpStream) {
    let routes = client.frontend.routes(&client.workload.namespace);
    if routes.is_none() && !client.frontend.ahead {
        let _seen = ConnectionGuard::new(ctx, ConnectionKind::NoRoute);
        return Box::pin(opaque::relay(ctx, &client, stream, BytesMut::new())).await;
    }
    if client.frontend.only_mirrors(&client.workload.namespace, ctx.options.endpoints) {
        return Box::pin(ahead(ctx, client, stream)).await;
    }
    let mut first = BytesMut::new();
    let patience = ctx.options.sniff_timeout;
    match timeout(patience, sniff(&mut stream, &mut first, patience)).await {
        Ok(sniffed) => proceed(ctx, client, stream, first, sniffed, None).await,
        Err(_) if first.is_empty() => Box::pin(wait(ctx, client, stream, first)).await,
        Err(_) => {
            let sniffed = sniff(&mut stream, &mut first, patience).await;
            proceed(ctx, client, stream, first, sniffed, None).await;
        }
    }
}

/// All that the client may send has one destination, which is connected to at once: a refusal, a
/// server that speaks first, and one that closes what stays silent are seen as without us.
async fn ahead(ctx: &Rc<Context>, client: Rc<Client>, stream: TcpStream) {
    let address = client.frontend.address;
    match Box::pin(ctx.primary.connect_socket(&client.workload, &client.socket, address)).await {
        Ok(upstream) => either(ctx, client, stream, BytesMut::new(), upstream).await,
        Err(error) => opaque::unreachable(ctx, &client, stream, &error),
    }
}

/// The client is silent: the server may be the one to speak first, so the original upstream is
/// opened. Who sends first decides.
async fn wait(ctx: &Rc<Context>, client: Rc<Client>, mut stream: TcpStream, mut first: BytesMut) {
    let address = client.frontend.address;
    let patience = ctx.options.sniff_timeout;
    match Box::pin(ctx.primary.connect_socket(&client.workload, &client.socket, address)).await {
        Ok(upstream) => either(ctx, client, stream, first, upstream).await,
        Err(error) => {
            // An HTTP client may still come; a server that cannot be reached never speaks.
            tracing::debug!(%address, %error, "a silent client's original destination");
            let sniffed = sniff(&mut stream, &mut first, patience).await;
            proceed(ctx, client, stream, first, sniffed, None).await;
        }
    }
}

/// Ready when the server says, or does, something before its client: but for the SETTINGS that a
/// server of HTTP/2 may send at once (RFC 9113, section 3.4), which say nothing of what the client
/// speaks.
async fn speaks_first(upstream: &TcpStream) {
    /// How often a server is looked at that has said no more.
    const LOOK: Duration = Duration::from_secs(1);
    /// Of a frame's header: type SETTINGS, no flags, stream 0 (RFC 9113, sections 4.1 and 6.5).
    const SETTINGS: [u8; 6] = [4, 0, 0, 0, 0, 0];
    let mut header = [0; 9];
    if !matches!(upstream.peek(&mut header).await, Ok(9) if header[3..] == SETTINGS) {
        return;
    }
    // What it said stays unread, so that nothing but a look tells of its end.
    while let Ok(ready) = upstream.ready(Interest::READABLE).await
        && !ready.is_read_closed()
    {
        sleep(LOOK).await;
    }
}

/// Waits for either side's first bytes.
async fn either(
    ctx: &Rc<Context>,
    client: Rc<Client>,
    mut stream: TcpStream,
    mut first: BytesMut,
    upstream: TcpStream,
) {
    let sniffed = {
        let mut sniffing = pin!(sniff(&mut stream, &mut first, ctx.options.sniff_timeout));
        tokio::select! {
            biased;
            sniffed = &mut sniffing => Some(sniffed),
            () = speaks_first(&upstream) => None,
        }
    };
    let Some(sniffed) = sniffed else {
        let _seen = ConnectionGuard::new(ctx, ConnectionKind::ServerFirst);
        return Box::pin(opaque::join(ctx, stream, upstream, first)).await;
    };
    proceed(ctx, client, stream, first, sniffed, Some(upstream)).await;
}

async fn proceed(
    ctx: &Rc<Context>,
    client: Rc<Client>,
    stream: TcpStream,
    first: BytesMut,
    sniffed: io::Result<Protocol>,
    opened: Option<TcpStream>,
) {
    let kind = match sniffed {
        Ok(Protocol::Http1) => ConnectionKind::Http1,
        Ok(Protocol::Http2) => ConnectionKind::Http2,
        Ok(Protocol::Opaque) => ConnectionKind::Opaque,
        Ok(Protocol::Silent) => ConnectionKind::Silent,
        // Reset by the client before it said anything that counts.
        Err(_) => return drop(ConnectionGuard::new(ctx, ConnectionKind::Silent)),
    };
    let _seen = ConnectionGuard::new(ctx, kind);
    let ctx = Rc::clone(ctx);
    let is_http = matches!(kind, ConnectionKind::Http1 | ConnectionKind::Http2);
    let opened = opened.and_then(|upstream| {
        if !is_http {
            return Some(upstream);
        }
        // The client's first request goes there; or else it is closed.
        client.socket.keep_ahead(client.frontend.address, upstream);
        None
    });
    match (kind, opened) {
        (ConnectionKind::Http1, _) => {
            Box::pin(serve::http1(ctx, client, stream, first)).await;
        }
        (ConnectionKind::Http2, _) => {
            Box::pin(serve::http2(ctx, client, stream, first.freeze())).await;
        }
        (_, Some(upstream)) => Box::pin(opaque::join(&ctx, stream, upstream, first)).await,
        // A client that ends without a byte is shown to the server as it is.
        (_, None) => Box::pin(opaque::relay(&ctx, &client, stream, first)).await,
    }
}

//! One accepted connection: which frontend it is for, what it speaks, and who takes it from there.
//!
//! The frontend's id is the socket's own local address, which the connect hook chose.

use std::{cell::Cell, io, net::IpAddr, rc::Rc, sync::Arc};

use bytes::BytesMut;
use mirror_common::FrontendId;
use tokio::{net::TcpStream, time::timeout};

use super::{
    context::Context,
    ending::{self, Ends},
    opaque,
    primary::{self, Shares},
    serve,
    sniff::{Protocol, sniff},
    tunnel::Far,
};
use crate::{
    outcome::ConnectionKind,
    route::{Frontend, Lookup, Token},
    sockets,
    worker::Workload,
};

/// The client's side of a connection, shared by its exchanges.
pub(super) struct Client {
    pub(super) workload: Arc<Workload>,
    pub(super) frontend: Arc<Frontend>,
    pub(super) ends: Rc<Ends>,
    /// Set by an exchange that became a tunnel.
    pub(super) tunnel: Cell<Option<Far>>,
    /// What it has open to primaries that speak HTTP/2.
    pub(super) shares: Shares,
    /// Keeps the frontend's id from being issued anew.
    _token: Token,
}

impl Client {
    fn new(workload: Arc<Workload>, frontend: Arc<Frontend>) -> Self {
        Self {
            workload,
            _token: Arc::clone(&frontend.token),
            frontend,
            ends: Rc::default(),
            tunnel: Cell::new(None),
            shares: Shares::default(),
        }
    }
}

/// A connection that was told to the outcome, until its end.
struct Seen {
    ctx: Rc<Context>,
    kind: ConnectionKind,
}

impl Seen {
    fn new(ctx: &Rc<Context>, kind: ConnectionKind) -> Self {
        ctx.recorder.connection(kind);
        Self { ctx: Rc::clone(ctx), kind }
    }
}

impl Drop for Seen {
    fn drop(&mut self) {
        self.ctx.recorder.connection_closed(self.kind);
    }
}

/// Takes the connection to its end.
pub(super) async fn run(ctx: Rc<Context>, workload: Arc<Workload>, stream: TcpStream) {
    let _live = ctx.enter();
    // Small answers are not to wait for an acknowledgement; failing that, they do.
    let _ = stream.set_nodelay(true);
    let Some(id) = frontend_id(&stream) else { return refuse(&ctx, &workload, stream) };
    if id == FrontendId::CANARY {
        drop(Seen::new(&ctx, ConnectionKind::Canary));
        return;
    }
    let lookup = ctx.routes().frontends.get(&id).cloned();
    match lookup {
        None => refuse(&ctx, &workload, stream),
        Some(Lookup::Tombstone(frontend)) => {
            let _seen = Seen::new(&ctx, ConnectionKind::Tombstone);
            let client = Client::new(workload, frontend);
            opaque::relay(&ctx, &client, stream, BytesMut::new()).await;
        }
        Some(Lookup::Live(frontend)) => live(&ctx, Client::new(workload, frontend), stream).await,
    }
}

/// An id that was never issued, or a connection from outside of the pod: somebody connects to the
/// agent's own addresses.
fn refuse(ctx: &Rc<Context>, workload: &Workload, stream: TcpStream) {
    tracing::debug!(client = %workload.name, "a connection to an id never issued was reset");
    let _seen = Seen::new(ctx, ConnectionKind::UnknownId);
    ending::reset(stream);
}

fn frontend_id(stream: &TcpStream) -> Option<FrontendId> {
    match stream.local_addr().ok()?.ip() {
        IpAddr::V4(address) => FrontendId::from_address(address),
        IpAddr::V6(address) if sockets::came_by_loopback(stream) => {
            FrontendId::from_address_v6(address)
        }
        IpAddr::V6(_) => None,
    }
}

async fn live(ctx: &Rc<Context>, client: Client, mut stream: TcpStream) {
    let routes = client.frontend.routes(&client.workload.namespace);
    if routes.is_none() && !client.frontend.ahead {
        let _seen = Seen::new(ctx, ConnectionKind::NoRoute);
        return opaque::relay(ctx, &client, stream, BytesMut::new()).await;
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

/// The client is silent: the server may be the one to speak first, so the original upstream is
/// opened. Who sends first decides.
async fn wait(ctx: &Rc<Context>, client: Client, mut stream: TcpStream, mut first: BytesMut) {
    let address = client.frontend.address;
    let patience = ctx.options.sniff_timeout;
    let upstream = match primary::transport(ctx, &client.workload.place, address).await {
        Ok(upstream) => upstream,
        Err(error) => {
            // An HTTP client may still come; a server that cannot be reached never speaks.
            tracing::debug!(%address, %error, "a silent client's original destination");
            let sniffed = sniff(&mut stream, &mut first, patience).await;
            return proceed(ctx, client, stream, first, sniffed, None).await;
        }
    };
    let sniffed = tokio::select! {
        biased;
        sniffed = sniff(&mut stream, &mut first, patience) => sniffed,
        _ = upstream.readable() => {
            let _seen = Seen::new(ctx, ConnectionKind::ServerFirst);
            return opaque::join(ctx, stream, upstream, first).await;
        }
    };
    proceed(ctx, client, stream, first, sniffed, Some(upstream)).await;
}

// Boxed: a connection's task is as large as its largest part, and that of HTTP/2 is twice as large
// as that of HTTP/1.
async fn proceed(
    ctx: &Rc<Context>,
    client: Client,
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
        Err(_) => return drop(Seen::new(ctx, ConnectionKind::Silent)),
    };
    let _seen = Seen::new(ctx, kind);
    let ctx = Rc::clone(ctx);
    match (kind, opened) {
        (ConnectionKind::Http1, opened) => {
            drop(opened);
            Box::pin(serve::http1(ctx, Rc::new(client), stream, first)).await;
        }
        (ConnectionKind::Http2, opened) => {
            drop(opened);
            Box::pin(serve::http2(ctx, Rc::new(client), stream, first.freeze())).await;
        }
        (_, Some(upstream)) => opaque::join(&ctx, stream, upstream, first).await,
        // A client that ends without a byte is shown to the server as it is.
        (_, None) => opaque::relay(&ctx, &client, stream, first).await,
    }
}

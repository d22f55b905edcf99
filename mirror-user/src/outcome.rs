//! Outcomes: how each connection, request and copy ended. The data path hands events in; metrics
//! and the access log come out. One [`Recorder`] per worker, used by that worker's thread alone:
//! no lock and no atomic on the data path. [`Reports`], on the admin side, keeps what each worker
//! last said, and [`encode`] writes it as metrics.

#![forbid(unsafe_code)]

mod access;
mod histogram;
mod labels;
mod metrics;
mod recorder;
mod report;
mod response;

pub use access::{AccessLog, LineFormat, LogFields, LogWriter};
pub use histogram::Histogram;
pub(crate) use metrics::stopped;
pub use metrics::{AgentMetrics, CONTENT_TYPE, WatchMetrics, encode};
pub use recorder::Recorder;
pub use report::{Copies, Exchanges, FrontendBackend, Pairs, Report, Reports};
pub use response::{GRPC_CODES, TimedResponse};

use std::{net::SocketAddr, sync::Arc, time::Duration};

use crate::{
    model::RouteName,
    route::{Frontend, ServicePort},
};

/// What an accepted connection turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ConnectionKind {
    /// Served as HTTP/1.
    Http1,
    /// Bytes that are not HTTP, copied both ways to the original destination.
    Opaque,
    /// Served as HTTP/2.
    Http2,
    /// The server spoke first.
    ServerFirst,
    /// No route holds for this client's namespace.
    NoRoute,
    /// A frontend that was removed.
    Tombstone,
    /// The agent's own canary.
    Canary,
    /// An id that was never issued: reset.
    UnknownId,
    /// Ended before it said anything.
    Silent,
    /// One more than its pod may have, or than there is memory for: reset.
    Refused,
}

/// Who made the response that the client got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ResponseSource {
    /// The primary backend.
    Primary,
    /// mirror itself: no rule matches (404).
    NoMatch,
    /// mirror itself: the backend is invalid (500).
    InvalidBackend,
    /// mirror itself: no ready endpoint (503).
    NoEndpoint,
    /// mirror itself: the request is malformed (400).
    BadRequest,
    /// mirror itself: the rule's timeout passed before the primary responded (504).
    Timeout,
    /// mirror itself: the primary's address refused the connection (503).
    ConnectRefused,
    /// mirror itself: the primary's address took too long to accept the connection (503).
    ConnectTimeout,
    /// mirror itself: no route leads to the primary's address (503).
    Unreachable,
    /// mirror itself: connecting failed for a reason that is not the primary's (503).
    ConnectFailed,
    /// mirror itself: what the primary sent is no response (502).
    BadResponse,
    /// The primary, with bytes that are no response and were passed on unread.
    Unread,
    /// mirror itself: the primary switched to a protocol that was not asked for (502).
    UnrequestedUpgrade,
    /// mirror itself, as the route wants it: a RequestRedirect filter (301, 302, 303, 307, 308).
    Redirect,
    /// mirror itself, as the route wants it: a CORS filter to a preflight request (204).
    Preflight,
    /// No response: the connection was closed or reset, as the primary did.
    None,
}

/// How a request's exchange with the primary ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Ending {
    /// Request and response whole.
    Complete,
    /// The client went away first.
    ClientGone,
    /// The primary's connection failed or ended early.
    PrimaryFailed,
    /// The connection became a tunnel (101, or CONNECT).
    Tunnel,
}

/// How mirror saw a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mode {
    /// It stood between the client and the primary.
    #[default]
    Proxy,
    /// It read what the client sent to the primary. What the primary responded is not known.
    Tap,
}

/// Why no further requests of a tapped connection are copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TapEnd {
    /// Bytes are missing, and with them where the next request begins.
    Lost,
    /// What came is no request of HTTP/1, or one that could be read in two ways.
    Malformed,
    /// HTTP/2 without TLS.
    Http2,
    /// CONNECT: what follows depends on the response.
    Connect,
    /// The request asks for another protocol: what follows depends on the response.
    Upgrade,
    /// `Expect: 100-continue`: whether content follows depends on the response.
    Expect,
    /// Too much is held of heads that are not complete.
    Memory,
    /// More connections are tapped than are kept track of, and this one was silent for longest.
    Evicted,
    /// Its routes do more than mirror since it was opened, or are gone.
    Untapped,
    /// It belongs to no workload that is captured.
    UnknownWorkload,
}

/// One request on the primary leg, reported once, at its end.
#[derive(Debug)]
pub struct RequestEvent<'a> {
    /// How it was seen.
    pub mode: Mode,
    /// The client, as `namespace/name`.
    pub client: &'a str,
    /// Where the client connected to.
    pub frontend: &'a Frontend,
    /// The rule that matched.
    pub rule: Option<(&'a RouteName, usize)>,
    /// The backend chosen.
    pub backend: Option<&'a Arc<ServicePort>>,
    /// The address that the request was last sent to.
    pub endpoint: Option<SocketAddr>,
    /// Method of the request.
    pub method: &'a http::Method,
    /// Target of the request.
    pub target: &'a http::Uri,
    /// Status that the client got; None when it got none.
    pub status: Option<u16>,
    /// Who made it.
    pub source: ResponseSource,
    /// How it ended.
    pub ending: Ending,
    /// From the end of the request's head to the end of the response.
    pub duration: Duration,
    /// Bytes of the request's body.
    pub request_bytes: u64,
    /// Bytes of the response's body.
    pub response_bytes: u64,
    /// How many mirrors selected it.
    pub copies: u32,
    /// How often mirror tried to send it to the primary: once, and once for each retry of its rule.
    pub attempts: u32,
    /// Why mirror refused it, or ended it on its own account.
    pub refusal: Option<RefusalReason>,
    /// What the access log alone needs.
    pub log_fields: &'a LogFields,
}

/// What mirror refused before there was a request.
#[derive(Debug)]
pub struct RefusalEvent<'a> {
    /// The client, as `namespace/name`.
    pub client: &'a str,
    /// Where the client connected to, where that is known.
    pub frontend: Option<&'a Frontend>,
    /// Why.
    pub refusal: RefusalReason,
    /// Status of the response; None if there was no response.
    pub status: Option<u16>,
    /// Method, target and protocol, as far as they can be distinguished.
    pub first_line: [Option<&'a str>; 3],
    /// Why, as text.
    pub reason: &'a str,
}

impl RefusalEvent<'_> {
    fn source(&self) -> ResponseSource {
        if self.status.is_some() { ResponseSource::BadRequest } else { ResponseSource::None }
    }
}

/// Why mirror refused a request, or ended a connection or a stream on its own account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RefusalReason {
    /// A head that is no head of HTTP/1 (400).
    MalformedHead,
    /// A head beyond 256 KiB (431).
    HeadTooLarge,
    /// A head with more than 1,000 fields (431).
    TooManyFields,
    /// A target beyond 65,534 bytes (414).
    TargetTooLong,
    /// An invalid target (400).
    InvalidTarget,
    /// No Host, more than one, or an invalid one (400).
    InvalidHost,
    /// A field with an invalid name or value (400).
    InvalidField,
    /// Content-Length fields that differ, or are no numbers (400).
    InvalidLength,
    /// A Transfer-Encoding that does not end with `chunked` (400).
    InvalidEncoding,
    /// CONNECT with content (400).
    ConnectContent,
    /// No rule matches (404).
    NoMatch,
    /// The chosen backend is invalid (500).
    InvalidBackend,
    /// No endpoint is ready (503, or a reset).
    NoEndpoint,
    /// The route's timeout passed (504, or a reset within the response).
    Timeout,
    /// The primary switched to a protocol that was not asked for (502).
    UnrequestedUpgrade,
    /// A head did not come to its end in time: closed.
    HeadTimeout,
    /// The client closed its side within a head: reset.
    IncompleteHead,
    /// The content of a request is malformed: reset.
    MalformedBody,
    /// A response is malformed (502, or a reset).
    MalformedResponse,
    /// The primary's address, or the original destination, refuses the connection (503, or a reset).
    ConnectRefused,
    /// It took too long to accept the connection (503, or a reset).
    ConnectTimeout,
    /// No route leads to it (503, or a reset).
    Unreachable,
    /// Connecting failed for a reason that is not its own (503, or a reset).
    ConnectFailed,
    /// HTTP/2, which the primary speaks, cannot carry the request: reset.
    Unfit,
    /// The primary takes no CONNECT with a protocol (RFC 8441): reset.
    NoConnectProtocol,
    /// A request that is malformed in HTTP/2: its stream is reset.
    MalformedStream,
    /// A client's stream of HTTP/2 beyond the limit: it is refused.
    StreamLimit,
    /// Frames of a client that are invalid in HTTP/2: GOAWAY.
    MalformedHttp2,
    /// Too much of what costs a server and carries nothing (HTTP/2): GOAWAY.
    Http2Flood,
    /// A connection to an id that was never issued: reset.
    UnknownId,
    /// A connection from outside of the pod: reset.
    Outside,
    /// A connection would hold more memory than it may (431, REFUSED_STREAM, GOAWAY, 502 or a reset).
    ConnectionMemory,
    /// Its pod's connections would hold more than they may (the same).
    PodMemory,
    /// All connections would hold more than they may (the same).
    AgentMemory,
    /// A connection beyond those that a pod may have: reset.
    PodConnections,
}

/// How a selected copy ended: delivered + dropped(reason) + unknown = selected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CopyOutcome {
    /// The shadow responded.
    Delivered,
    /// Never sent, or cut before its end.
    Dropped(DropReason),
    /// Sent, and no response came.
    Unknown(UnknownReason),
}

/// Why a copy was dropped or cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DropReason {
    /// No endpoint is ready.
    NoEndpoint,
    /// All connections to the endpoint are busy, and no more are allowed.
    Connections,
    /// The endpoint failed lately and is left alone.
    Backoff,
    /// Connecting failed.
    Connect,
    /// Connecting took longer than allowed.
    ConnectTimeout,
    /// The budget of the request was used up.
    RequestBudget,
    /// The budget of the shadow backend was used up.
    BackendBudget,
    /// The budget of the shadow backend's namespace was used up.
    NamespaceBudget,
    /// The budget of the agent was used up.
    AgentBudget,
    /// The primary ended the exchange before the body was over.
    PrimaryEnded,
    /// The client went away before the body was over.
    ClientGone,
    /// The shadow closed the connection before the copy was sent whole.
    ShadowClosed,
    /// The copy was not sent whole within the response timeout.
    SendTimeout,
    /// HTTP/2, which the shadow speaks, cannot carry its head.
    Unfit,
    /// The agent went away.
    Shutdown,
    /// The connection is tapped, and bytes of the request could not be copied.
    Tap,
}

/// Why nothing is known of a copy that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum UnknownReason {
    /// No response within the response timeout.
    Timeout,
    /// The shadow closed the connection without a response.
    Closed,
    /// The response could not be parsed.
    Malformed,
    /// mirror closed the connection, since the shadow sent too much that is no response.
    Flood,
}

/// Why mirror closed a connection to a shadow for what the shadow sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ShadowClosed {
    /// A response beyond what is read of one.
    LongResponse,
    /// Too much that carries no content: interim responses, small chunks, frames of HTTP/2.
    Flood,
}

/// Why no copy was made of a request that a mirror selected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Uncopied {
    /// It asks for a WebSocket.
    WebSocket,
    /// CONNECT: it asks for a tunnel.
    Connect,
    /// The mirror's backend is invalid; the route's conditions say why.
    InvalidBackend,
    /// None of the shadow's endpoints may get copies; the route's conditions say why.
    RefusedShadow,
    /// It is malformed, and came by a tapped connection. (A proxied one gets 400.)
    Malformed,
}

/// Why a request was sent to the primary once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RetryReason {
    /// Connecting failed; another endpoint was tried.
    Connect,
    /// A reused connection had closed before any byte of the request was sent.
    Unsent,
    /// A reused connection failed before any byte of the response, and the request may be repeated.
    NoResponse,
    /// An upstream of HTTP/2 said that it has not looked at the request (GOAWAY, REFUSED_STREAM).
    Refused,
}

/// Why a request was sent again as the `retry` of its rule asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RouteRetryReason {
    /// The response had one of the rule's `codes`.
    Code,
    /// Connecting failed.
    Connect,
    /// An upstream of HTTP/2 said that it has not looked at the request.
    Refused,
    /// The connection or stream ended before a response, and the method is idempotent.
    Lost,
    /// `timeouts.backendRequest` passed, and the method is idempotent.
    Timeout,
}

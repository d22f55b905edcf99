//! Outcomes: how each connection, request and copy ended. The data path hands events in; metrics
//! and the access log come out. One [`Recorder`] per worker, used by that worker's thread alone:
//! no lock and no atomic on the data path. [`Reports`], on the admin side, keeps what each worker
//! last said, and [`encode`] writes it as metrics.

mod access;
mod histogram;
mod labels;
mod metrics;
mod recorder;
mod report;

pub use access::{AccessLog, LineFormat, LogWriter, Notes};
pub use histogram::Histogram;
pub use metrics::{CONTENT_TYPE, Facts, WatchFacts, encode};
pub use recorder::Recorder;
pub use report::{Copies, Exchanges, Pair, Report, Reports};

use std::{net::SocketAddr, sync::Arc, time::Duration};

use crate::route::{Frontend, RouteName, ServicePort};

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
}

/// Who made the answer that the client got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Answer {
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
    /// mirror itself: the rule's timeout passed before the primary answered (504).
    Timeout,
    /// Nobody: the connection was closed or reset, as the primary did.
    None,
}

/// How a request's exchange with the primary ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Ending {
    /// Request and answer whole.
    Complete,
    /// The client went away first.
    ClientGone,
    /// The primary's connection failed or ended early.
    PrimaryFailed,
    /// The connection became a tunnel (101, or CONNECT).
    Tunnel,
}

/// One request on the primary leg, told once, at its end.
#[derive(Debug)]
pub struct RequestEvent<'a> {
    /// The client, as `namespace/name`.
    pub client: &'a str,
    /// Where the client connected to.
    pub frontend: &'a Frontend,
    /// The rule that matched.
    pub rule: Option<(&'a RouteName, usize)>,
    /// The backend chosen.
    pub backend: Option<&'a Arc<ServicePort>>,
    /// The endpoint that the request was last sent to.
    pub endpoint: Option<SocketAddr>,
    /// Method of the request.
    pub method: &'a http::Method,
    /// Target of the request.
    pub target: &'a http::Uri,
    /// Status that the client got; None when it got none.
    pub status: Option<u16>,
    /// Who made it.
    pub answer: Answer,
    /// How it ended.
    pub ending: Ending,
    /// From the end of the request's head to the end of the answer.
    pub duration: Duration,
    /// Bytes of the request's body.
    pub request_bytes: u64,
    /// Bytes of the answer's body.
    pub response_bytes: u64,
    /// How many mirrors selected it.
    pub copies: u32,
    /// What the access log alone needs.
    pub notes: &'a Notes,
}

/// How a selected copy ended: delivered + dropped(reason) + unknown = selected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CopyOutcome {
    /// The shadow answered.
    Delivered,
    /// Never sent, or cut before its end.
    Dropped(DropReason),
    /// Sent, and no answer came.
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
}

/// Why nothing is known of a copy that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum UnknownReason {
    /// No answer within the response timeout.
    Timeout,
    /// The shadow closed the connection without an answer.
    Closed,
    /// The answer could not be parsed.
    Malformed,
}

/// Why a request was sent to the primary once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RetryReason {
    /// Connecting failed; another endpoint was tried.
    Connect,
    /// A reused connection had closed before any byte of the request was sent.
    Unsent,
    /// A reused connection failed before any byte of the answer, and the request may be repeated.
    Unanswered,
    /// An upstream of HTTP/2 said that it has not looked at the request (GOAWAY, REFUSED_STREAM).
    Refused,
}

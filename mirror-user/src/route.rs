//! Compiled routes: what the control path resolves, and all that the data path reads of it.
//!
//! In: the resolved HTTPRoutes of one moment. Out: a [`Snapshot`], immutable, loaded once per
//! request. Nothing here knows of tokio, sockets or a Kubernetes client.

#![forbid(unsafe_code)]

mod backend;
mod choice;
mod cors;
mod filter;
mod matcher;
mod redirect;
mod retry;
mod rewrite;
mod scheme;
mod snapshot;
mod table;
mod tap;
pub(crate) mod target;
mod timeouts;

pub use backend::{AppProtocol, Backend, BackendRef, Backends, InvalidBackend, ServicePort};
pub use choice::EndpointChoice;
pub use cors::{AllowedNames, AllowedOrigins, Cors, Origin};
pub use filter::{Filter, Fraction, HeaderModifier, Mirror, retain};
pub use matcher::{
    GrpcMethodMatch, HeaderMatch, Matcher, Mismatch, Part, PathMatch, Pattern, PatternError,
    QueryMatch, ValueMatch, Values,
};
pub use redirect::Redirect;
pub use retry::Retry;
pub use rewrite::{PathModifier, Rewrite};
pub use scheme::HttpScheme;
pub use snapshot::{ConnectionRef, Frontend, FrontendId, FrontendState, Snapshot};
pub use table::{Criterion, Precedence, RouteTable, Rule, RuleEntry, Search};
pub use tap::{CaptureMode, FrontendCapture, ObstacleKind, TapObstacle, TapSubject};
pub use target::{Target, Verbatim};
pub use timeouts::Timeouts;

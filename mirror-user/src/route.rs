//! Compiled routes: what the control path resolves, and all that the data path reads of it.
//!
//! In: the resolved HTTPRoutes of one moment. Out: a [`Snapshot`], immutable, loaded once per
//! request. Nothing here knows of tokio, sockets or a Kubernetes client.

mod backend;
mod filter;
mod matcher;
mod snapshot;
mod table;
mod timeouts;

pub use backend::{AppProtocol, Backend, BackendRef, Backends, InvalidBackend, ServicePort};
pub use filter::{Filter, HeaderModifier, Mirror, Share, retain};
pub use matcher::{
    HeaderMatch, Matcher, Mismatch, Part, PathMatch, Pattern, QueryMatch, ValueMatch,
};
pub use snapshot::{Frontend, FrontendId, Lookup, Snapshot, Token};
pub use table::{Criterion, Precedence, RouteName, RouteTable, Rule, RuleEntry};
pub use timeouts::Timeouts;

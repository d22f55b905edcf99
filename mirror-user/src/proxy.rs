//! The data path of one worker: accept -> sniff -> serve -> match -> primary leg + shadow leg ->
//! outcome.
//!
//! In: listeners inside captured network namespaces. Out: bytes to primaries, copies to shadows,
//! events to the [`crate::outcome`]. Everything here runs on one thread, so that the hot path
//! takes no lock. The shadow leg is offered frames by `primary`'s request body and answers
//! nothing: no type of the primary leg can carry a shadow's failure.

#![forbid(unsafe_code)]

mod accept;
mod authority;
mod body;
mod client;
mod client_socket;
mod close;
mod connection;
mod context;
mod draw;
mod exchange;
#[cfg(test)]
mod fairness;
mod http1;
mod http2;
mod interim;
mod io;
mod keepalive;
mod log_limiter;
mod mirrored;
mod normalize;
mod opaque;
mod primary;
mod protocol;
mod read_limit;
mod refusal;
mod serve;
mod shadow;
mod sniff;
mod tap;
mod task_set;
mod tee;
mod time_slices;
mod tunnel;
mod unread;
mod upgrade;
mod validate;

pub(crate) use accept::accept;
pub(crate) use authority::Connected;
pub use context::{Context, Options, SharedContext};
pub(crate) use exchange::{NO_MATCH, TIMED_OUT, grpc_status};
pub(crate) use shadow::shadow_host;
pub use shadow::{ShadowNetns, ShadowOptions};
pub(crate) use tap::Tap;
pub use tee::{Budget, Budgets};
pub(crate) use validate::{RequestKind, prepare_request, without_upgrade};

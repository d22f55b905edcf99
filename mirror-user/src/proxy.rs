//! The data path of one worker: accept -> sniff -> serve -> match -> primary leg + shadow leg ->
//! outcome.
//!
//! In: listeners inside captured network namespaces. Out: bytes to primaries, copies to shadows,
//! events to the [`crate::outcome`]. Everything here runs on one thread, so that the hot path
//! takes no lock. The shadow leg is offered frames by `primary`'s request body and answers
//! nothing: no type of the primary leg can carry a shadow's failure.

mod accept;
mod connection;
mod context;
mod crew;
mod dress;
mod ending;
mod exchange;
mod framing;
mod http1;
mod http2;
mod inbound;
mod interim;
mod io;
mod local;
mod maps;
mod opaque;
mod primary;
mod serve;
mod shadow;
mod sniff;
mod tunnel;

pub(crate) use accept::accept;
pub use context::{Context, Options, SharedContext};
pub(crate) use framing::{Carriage, prepare_request};
#[cfg(feature = "bench")]
pub use shadow::Tee;
pub(crate) use shadow::shadow_host;
pub use shadow::{Budget, Budgets, ShadowOptions, ShadowPlace};

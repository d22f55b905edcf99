//! What mirror's programs in the kernel and its agent share: map types, the id codec, and every
//! decision that can be a pure function.
//!
//! Nothing here allocates, blocks or calls the kernel, so that the tests on the host cover what
//! the verifier runs.
#![no_std]

mod codec;
mod decide;
#[allow(unsafe_code, reason = "aya reads these types from maps as they are: unsafe impl Pod")]
mod maps;
mod reason;
mod tap;

pub use codec::{FrontendId, is_loopback_v6, mapped_v4, words};
pub use decide::{
    Caller, CaptureDecision, Connect, FUTURE_NS, Family, MAX_SOCKETS, MESH_UIDS, STALE_NS,
    WorkerState, consider, is_loopback, socket_index, worker_state,
};
pub use maps::{
    FrontendEntry, FrontendKey, FrontendKeyV6, Heartbeat, MAX_FRONTENDS, MAX_PODS, MAX_WORKERS,
    PodEntry, PodFlags,
};
pub use reason::Reason;
pub use tap::{
    FIRST_BYTES, Piece, STOP_ENTRIES, Stream, TapCount, TapKind, TapMark, TapRecord, TapState,
    TapStop, first_bytes, shard, stop_index,
};

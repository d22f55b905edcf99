//! The maps and the constants that the agent sets before it loads the programs. All maps are
//! shared by all loads; the constants [`POD_SLOT`] and [`POD_PORT`] differ for each load of
//! sk_lookup.

use aya_ebpf::{
    Global,
    bindings::BPF_F_NO_PREALLOC,
    macros::map,
    maps::{Array, HashMap, PerCpuArray, SockMap},
};
use mirror_common::{
    FrontendEntry, FrontendId, FrontendKey, FrontendKeyV6, Heartbeat, MAX_FRONTENDS, MAX_PODS,
    MAX_SOCKETS, MAX_WORKERS, PodEntry, Reason,
};

/// Captured network namespaces by their cookie.
#[map]
pub(crate) static PODS: HashMap<u64, PodEntry> = HashMap::with_max_entries(MAX_PODS, 0);

/// The IPv4 frontends that a route names.
#[map]
pub(crate) static FRONTENDS: HashMap<FrontendKey, FrontendEntry> =
    HashMap::with_max_entries(MAX_FRONTENDS, 0);

/// IPv4 frontends by id, tombstones included.
#[map]
pub(crate) static ADDRESSES: HashMap<FrontendId, FrontendKey> =
    HashMap::with_max_entries(MAX_FRONTENDS, 0);

/// The IPv6 frontends that a route names. Not allocated ahead, as the next: most clusters have
/// none, and 65,536 entries are some ten megabytes.
#[map]
pub(crate) static FRONTENDS6: HashMap<FrontendKeyV6, FrontendEntry> =
    HashMap::with_max_entries(MAX_FRONTENDS, BPF_F_NO_PREALLOC);

/// IPv6 frontends by id, tombstones included.
#[map]
pub(crate) static ADDRESSES6: HashMap<FrontendId, FrontendKeyV6> =
    HashMap::with_max_entries(MAX_FRONTENDS, BPF_F_NO_PREALLOC);

/// Listeners: [`mirror_common::socket_index`].
#[map]
pub(crate) static SOCKETS: SockMap = SockMap::with_max_entries(MAX_SOCKETS, 0);

/// Signs of life by worker.
#[map]
pub(crate) static HEARTBEATS: Array<Heartbeat> = Array::with_max_entries(MAX_WORKERS, 0);

/// Connections by [`Reason`].
#[map]
pub(crate) static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Reason::COUNT, 0);

/// Workers of the agent, 1 to [`MAX_WORKERS`].
#[unsafe(no_mangle)]
pub(crate) static WORKERS: Global<u32> = Global::new(1);

/// Slot of the network namespace that this load of sk_lookup is attached to.
#[unsafe(no_mangle)]
pub(crate) static POD_SLOT: Global<u32> = Global::new(u32::MAX);

/// The agent's port there, host byte order; 0 matches nothing.
#[unsafe(no_mangle)]
pub(crate) static POD_PORT: Global<u32> = Global::new(0);

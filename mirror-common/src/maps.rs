//! The types of the maps' keys and values, laid out the same for the programs and the agent. Every
//! padding byte is a field: the kernel compares keys byte by byte.

use crate::FrontendId;

/// Workers that one agent may have; the stride of a slot in the map of sockets.
pub const MAX_WORKERS: u32 = 64;
/// Network namespaces captured at one time: kubelet's limit is 110 pods on a node by default.
pub const MAX_PODS: u32 = 1024;
/// Frontends, tombstones included.
pub const MAX_FRONTENDS: u32 = 65_536;

/// Key of an IPv4 frontend: what an application connects to. IPv6 has a type and maps of its own,
/// so that an IPv4 connection hashes no more than eight bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct FrontendKey {
    /// IPv4 address, network byte order.
    pub address: u32,
    /// Port, network byte order.
    pub port: u16,
    /// Always 0.
    pub zero: u16,
}

/// Key of an IPv6 frontend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct FrontendKeyV6 {
    /// IPv6 address, network byte order.
    pub address: [u32; 4],
    /// Port, network byte order.
    pub port: u16,
    /// Always 0.
    pub zero: u16,
}

/// Value of a frontend: its id, and what becomes of connections to it. One word, so that a program
/// never sees half of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct FrontendEntry(pub u32);

impl FrontendEntry {
    /// The bit above all ids.
    const TAPPED: u32 = 1 << 31;

    /// Connections are taken to the agent.
    #[must_use]
    pub const fn proxied(id: FrontendId) -> Self {
        Self(id.0 & FrontendId::MAX.0)
    }

    /// Connections stay as they are, and what their clients send is copied.
    #[must_use]
    pub const fn tapped(id: FrontendId) -> Self {
        Self(Self::proxied(id).0 | Self::TAPPED)
    }

    /// The frontend's id.
    #[inline(always)]
    #[must_use]
    pub const fn id(self) -> FrontendId {
        FrontendId(self.0 & FrontendId::MAX.0)
    }

    /// Whether it is [`FrontendEntry::tapped`].
    #[inline(always)]
    #[must_use]
    pub const fn is_tapped(self) -> bool {
        self.0 & Self::TAPPED != 0
    }
}

/// What the programs know of a captured network namespace; its key is the netns cookie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct PodEntry {
    /// The namespace's own IPv4 address, network byte order; 0 when it has none.
    pub own_address: u32,
    /// Which listeners are its: [`crate::socket_index`].
    pub slot: u32,
    /// The agent's port there, network byte order.
    pub port: u16,
    /// See [`PodFlags`].
    pub flags: PodFlags,
    /// The namespace's own IPv6 address, network byte order; all 0 when it has none.
    pub own_address_v6: [u32; 4],
}

/// Bits of a pod's entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct PodFlags(pub u16);

impl PodFlags {
    /// IPv4 connections are captured.
    pub const CAPTURE_V4: Self = Self(1);
    /// IPv6 connections are captured.
    pub const CAPTURE_V6: Self = Self(2);
    /// Connections to tapped frontends are tapped; without it they are taken to the agent.
    pub const TAP: Self = Self(4);

    /// Whether all bits of `other` are set.
    #[inline(always)]
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// With the bits of `other` set.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// With the bits of `other` cleared.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

/// A worker's sign of life, written by its own loop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Heartbeat {
    /// CLOCK_MONOTONIC in ns; 0 before the first beat.
    pub ns: u64,
    /// Not 0 when an accept queue is over half full.
    pub full: u32,
    /// Always 0.
    pub zero: u32,
}

const _: () = assert!(size_of::<FrontendKey>() == 8 && align_of::<FrontendKey>() == 4);
const _: () = assert!(size_of::<FrontendKeyV6>() == 20 && align_of::<FrontendKeyV6>() == 4);
const _: () = assert!(size_of::<PodEntry>() == 28 && align_of::<PodEntry>() == 4);
const _: () = assert!(size_of::<Heartbeat>() == 16 && align_of::<Heartbeat>() == 8);
const _: () = assert!(size_of::<FrontendId>() == 4 && size_of::<FrontendEntry>() == 4);

#[cfg(feature = "user")]
mod user {
    // SAFETY: repr(C) or repr(transparent) over integers, without padding (asserted above), valid
    // for every pattern of bits.
    unsafe impl aya::Pod for super::FrontendKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::FrontendKeyV6 {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::PodEntry {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Heartbeat {}
    // SAFETY: as above.
    unsafe impl aya::Pod for crate::FrontendId {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::FrontendEntry {}
    // SAFETY: as above; asserted beside it.
    unsafe impl aya::Pod for crate::TapStop {}
}

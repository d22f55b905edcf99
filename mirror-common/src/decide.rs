//! The pure decisions of the programs: is a connect looked at, is a worker alive, where is its
//! socket. The programs call these very functions; the host tests them.

use crate::{
    FrontendEntry, FrontendId, Heartbeat, MAX_PODS, MAX_WORKERS, PodEntry, PodFlags, Reason,
};

/// A heartbeat older than this is stale, in ns.
pub const STALE_NS: u64 = 1_000_000_000;
/// How far ahead of the reader's clock a heartbeat may lie, in ns: the programs read the fast
/// monotonic clock, which may lag behind the writer's by an update (`ktime_get_mono_fast_ns`).
pub const FUTURE_NS: u64 = 50_000_000;
/// The users whose connections are a mesh's own: Istio's proxy and Linkerd's.
pub const MESH_UIDS: [u32; 2] = [1337, 2102];

const SOCK_STREAM: u32 = 1;
const IPPROTO_TCP: u32 = 6;

/// The two families, each captured or not by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4, IPv4-mapped destinations of IPv6 sockets included.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The bit of a pod's entry that switches it on.
    #[inline(always)]
    #[must_use]
    pub const fn flag(self) -> PodFlags {
        match self {
            Self::V4 => PodFlags::CAPTURE_V4,
            Self::V6 => PodFlags::CAPTURE_V6,
        }
    }
}

/// What the connect hook knows of a connection before it asks the frontends.
#[derive(Clone, Copy, Debug)]
pub struct Connect {
    /// `SOCK_*`.
    pub kind: u32,
    /// `IPPROTO_*`.
    pub protocol: u32,
    /// The family of the way: an IPv4-mapped destination goes by IPv4.
    pub family: Family,
    /// Whether the destination never leaves the pod: [`is_loopback`], [`crate::is_loopback_v6`].
    pub loopback: bool,
}

/// Who connects.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    /// Of the calling process.
    pub uid: u32,
    /// Interface that the socket is bound to; 0 for none.
    pub bound_dev_if: u32,
}

/// What becomes of a connection to a frontend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaptureDecision {
    /// It goes to a worker, if one takes it.
    Proxy(FrontendId, PodEntry),
    /// It goes where the client wants, and is copied.
    Tap(FrontendId),
}

/// What becomes of this connection, or the reason for letting it go direct. Nearly all connections of
/// a pod lead to no frontend, so that nothing else is asked for those: each question is some 20 to
/// 60 ns of their connect(2). `taps`: whether the program can tap; a pod that cannot be tapped has
/// the connections to tapped frontends taken to the agent, as all others.
///
/// # Errors
/// The first reason that holds, in the order below.
#[inline(always)]
pub fn consider(
    connect: &Connect,
    taps: bool,
    frontend: impl FnOnce() -> Option<FrontendEntry>,
    pod: impl FnOnce() -> Option<PodEntry>,
    caller: impl FnOnce() -> Caller,
) -> Result<CaptureDecision, Reason> {
    if connect.kind != SOCK_STREAM || connect.protocol != IPPROTO_TCP {
        return Err(Reason::NotTcp);
    }
    if connect.loopback {
        return Err(Reason::Loopback);
    }
    let Some(frontend) = frontend() else { return Err(Reason::NotAFrontend) };
    let Some(pod) = pod() else { return Err(Reason::PodUnknown) };
    let tapped = taps && frontend.is_tapped() && pod.flags.contains(PodFlags::TAP);
    if !tapped && !pod.flags.contains(connect.family.flag()) {
        return Err(Reason::PodOff);
    }
    let Caller { uid, bound_dev_if } = caller();
    if uid == MESH_UIDS[0] || uid == MESH_UIDS[1] {
        return Err(Reason::MeshUid);
    }
    if tapped {
        return Ok(CaptureDecision::Tap(frontend.id()));
    }
    if bound_dev_if != 0 {
        return Err(Reason::BoundDevice);
    }
    Ok(CaptureDecision::Proxy(frontend.id(), pod))
}

/// Whether an address (network byte order) is in 127.0.0.0/8.
#[inline(always)]
#[must_use]
pub const fn is_loopback(address: u32) -> bool {
    u32::from_be(address) >> 24 == 127
}

/// The state of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerState {
    /// Takes connections.
    Fresh,
    /// Alive, with an accept queue over half full.
    Full,
    /// Silent for longer than [`STALE_NS`], or never heard of.
    Stale,
}

/// What a heartbeat says at the time `now` (CLOCK_MONOTONIC, ns). All arithmetic is unsigned and
/// wraps: a beat slightly ahead of `now` is fresh, one far ahead is stale.
#[inline(always)]
#[must_use]
pub const fn worker_state(beat: &Heartbeat, now: u64) -> WorkerState {
    let alive =
        beat.ns != 0 && now.wrapping_sub(beat.ns).wrapping_add(FUTURE_NS) < STALE_NS + FUTURE_NS;
    match (alive, beat.full != 0) {
        (false, _) => WorkerState::Stale,
        (true, true) => WorkerState::Full,
        (true, false) => WorkerState::Fresh,
    }
}

/// Where a worker's listener of a family in a slot lies in the map of sockets; `slot` is below
/// [`MAX_PODS`], `worker` below [`MAX_WORKERS`].
#[inline(always)]
#[must_use]
pub const fn socket_index(family: Family, slot: u32, worker: u32) -> u32 {
    let first = match family {
        Family::V4 => 0,
        Family::V6 => MAX_PODS * MAX_WORKERS,
    };
    first + slot * MAX_WORKERS + worker
}

/// Entries of the map of sockets.
pub const MAX_SOCKETS: u32 = 2 * MAX_PODS * MAX_WORKERS;

#[cfg(test)]
mod tests {
    use core::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    const ON: PodEntry = PodEntry {
        own_address: 0,
        slot: 3,
        port: 0,
        flags: PodFlags::CAPTURE_V4,
        own_address_v6: [0; 4],
    };

    const FRONTEND: FrontendId = FrontendId(7);

    fn tcp(address: [u8; 4]) -> Connect {
        let loopback = is_loopback(Ipv4Addr::from(address).to_bits().to_be());
        Connect { kind: 1, protocol: 6, family: Family::V4, loopback }
    }

    #[allow(clippy::unnecessary_wraps, reason = "as a map gives it")]
    fn proxied() -> Option<FrontendEntry> {
        Some(FrontendEntry::proxied(FRONTEND))
    }

    fn someone() -> Caller {
        Caller { uid: 1000, bound_dev_if: 0 }
    }

    /// To a frontend, from an ordinary process.
    fn considered(connect: &Connect, pod: Option<PodEntry>) -> Result<CaptureDecision, Reason> {
        consider(connect, true, proxied, || pod, someone)
    }

    #[test]
    fn an_ordinary_connection_is_looked_at() {
        assert_eq!(
            considered(&tcp([10, 96, 0, 1]), Some(ON)),
            Ok(CaptureDecision::Proxy(FRONTEND, ON))
        );
    }

    #[test]
    fn each_reason_is_given() {
        let off = PodEntry { flags: PodFlags::default(), ..ON };
        let to = tcp([10, 96, 0, 1]);
        for (connect, pod, reason) in [
            (Connect { kind: 2, protocol: 17, ..to }, Some(ON), Reason::NotTcp),
            (Connect { protocol: 132, ..to }, Some(ON), Reason::NotTcp),
            (tcp([127, 0, 0, 1]), Some(ON), Reason::Loopback),
            (tcp([127, 64, 0, 9]), Some(ON), Reason::Loopback),
            (to, None, Reason::PodUnknown),
            (to, Some(off), Reason::PodOff),
        ] {
            assert_eq!(considered(&connect, pod), Err(reason));
        }
        let by = |caller| consider(&to, true, proxied, || Some(ON), || caller);
        for uid in MESH_UIDS {
            assert_eq!(by(Caller { uid, ..someone() }), Err(Reason::MeshUid));
        }
        assert_eq!(by(Caller { bound_dev_if: 2, ..someone() }), Err(Reason::BoundDevice));
    }

    #[test]
    fn each_family_has_its_own_switch() {
        let to = |family| Connect { family, ..tcp([10, 96, 0, 1]) };
        let with = |flags| Some(PodEntry { flags, ..ON });
        for (family, other) in [(Family::V4, Family::V6), (Family::V6, Family::V4)] {
            assert!(considered(&to(family), with(family.flag())).is_ok());
            assert_eq!(considered(&to(family), with(other.flag())), Err(Reason::PodOff));
            let both = family.flag().with(other.flag());
            assert!(considered(&to(family), with(both)).is_ok());
        }
    }

    #[test]
    fn a_tapped_frontend_is_tapped_where_program_and_pod_can() {
        let to = tcp([10, 96, 0, 1]);
        let tapped = || Some(FrontendEntry::tapped(FRONTEND));
        let with = |flags| move || Some(PodEntry { flags, ..ON });
        let both = PodFlags::TAP.with(PodFlags::CAPTURE_V4);
        let ends = |taps, flags| consider(&to, taps, tapped, with(flags), someone);
        // Neither a listener nor a canary is needed.
        for flags in [PodFlags::TAP, both] {
            assert_eq!(ends(true, flags), Ok(CaptureDecision::Tap(FRONTEND)));
        }
        for (taps, flags) in [(false, both), (true, PodFlags::CAPTURE_V4)] {
            let proxied = CaptureDecision::Proxy(FRONTEND, PodEntry { flags, ..ON });
            assert_eq!(ends(taps, flags), Ok(proxied));
        }
        assert_eq!(ends(false, PodFlags::TAP), Err(Reason::PodOff));
        let caller = |caller| consider(&to, true, tapped, with(both), || caller);
        assert_eq!(caller(Caller { uid: MESH_UIDS[0], ..someone() }), Err(Reason::MeshUid));
        let bound = Caller { bound_dev_if: 2, ..someone() };
        assert_eq!(caller(bound), Ok(CaptureDecision::Tap(FRONTEND)));
        let flags = both;
        let ordinary = consider(&to, true, proxied, with(flags), someone);
        assert_eq!(ordinary, Ok(CaptureDecision::Proxy(FRONTEND, PodEntry { flags, ..ON })));
    }

    #[test]
    fn nothing_is_asked_that_need_not_be() {
        let (pod, caller) = (|| panic!("the pod"), || panic!("the caller"));
        for connect in [Connect { kind: 2, ..tcp([10, 0, 0, 1]) }, tcp([127, 0, 0, 1])] {
            assert!(consider(&connect, true, || panic!("the frontend"), pod, caller).is_err());
        }
        let to = tcp([10, 0, 0, 1]);
        assert_eq!(consider(&to, true, || None, pod, caller), Err(Reason::NotAFrontend));
        let off = || Some(PodEntry { flags: PodFlags::default(), ..ON });
        assert_eq!(consider(&to, true, proxied, off, caller), Err(Reason::PodOff));
    }

    #[test]
    fn a_worker_that_never_beat_is_stale_even_just_after_boot() {
        assert_eq!(worker_state(&Heartbeat::default(), 5), WorkerState::Stale);
    }

    #[test]
    fn the_age_decides_to_the_nanosecond() {
        let beat = Heartbeat { ns: 10 * STALE_NS, full: 0, zero: 0 };
        assert_eq!(worker_state(&beat, beat.ns + STALE_NS - 1), WorkerState::Fresh);
        assert_eq!(worker_state(&beat, beat.ns + STALE_NS), WorkerState::Stale);
        assert_eq!(worker_state(&beat, beat.ns - FUTURE_NS), WorkerState::Fresh);
        assert_eq!(worker_state(&beat, beat.ns - FUTURE_NS - 1), WorkerState::Stale);
        assert_eq!(worker_state(&Heartbeat { full: 1, ..beat }, beat.ns), WorkerState::Full);
        assert_eq!(
            worker_state(&Heartbeat { full: 1, ..beat }, beat.ns + STALE_NS),
            WorkerState::Stale
        );
    }

    proptest! {
        #[test]
        fn alive_means_within_the_window(ns in 1..=u64::MAX, now: u64) {
            let alive = worker_state(&Heartbeat { ns, full: 0, zero: 0 }, now) == WorkerState::Fresh;
            // The window as signed distance, wide enough not to wrap.
            let age = i128::from(now.wrapping_sub(ns).cast_signed());
            let inside = -i128::from(FUTURE_NS) <= age && age < i128::from(STALE_NS);
            prop_assert_eq!(alive, inside);
        }

        #[test]
        fn sockets_of_different_pods_never_meet(
            a in 0..MAX_PODS, b in 0..MAX_PODS,
            v in 0..MAX_WORKERS, w in 0..MAX_WORKERS,
            f in prop::sample::select(&Family::ALL[..]), g in prop::sample::select(&Family::ALL[..]),
        ) {
            let (one, other) = (socket_index(f, a, v), socket_index(g, b, w));
            prop_assert_eq!(one == other, (f, a, v) == (g, b, w));
            prop_assert!(one < MAX_SOCKETS);
        }
    }
}

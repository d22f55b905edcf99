//! Records in the workers' rings. In: what a marked socket sends. Out: a record, or a count of what
//! found no room. Nothing waits: a ring that is full loses the record, and its place shows the hole.
//!
//! A record is as long as the least class that the bytes fit, because the kernel reserves constant
//! lengths only. The classes are spelled out: as a loop they are more than verifiers before 6.8 look at.

use core::hint::black_box;

use aya_ebpf::{
    EbpfContext as _,
    bindings::{BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    btf_maps::{ArrayOfMaps, RingBuf},
    helpers::generated::{
        bpf_ringbuf_discard, bpf_ringbuf_reserve, bpf_ringbuf_submit, bpf_skb_load_bytes,
    },
    macros::{btf_map, map},
    maps::{Array, PerCpuArray},
    programs::SkBuffContext,
};
use mirror_common::{
    MAX_WORKERS, STOP_ENTRIES, TapCount, TapKind, TapMark, TapRecord, TapStop, shard, stop_index,
};

use crate::workers::workers;

/// The agent makes rings of the configured length.
type Ring = RingBuf<u8, 65536>;

/// A ring for each worker.
#[btf_map]
static TAP_RINGS: ArrayOfMaps<Ring, { MAX_WORKERS as usize }> = ArrayOfMaps::new();

/// Not 0 while a worker sleeps and is to be woken. (The kernel's own way, to wake whoever has read
/// everything, costs each send some 10 us.)
#[map]
static TAP_ASLEEP: Array<u32> = Array::with_max_entries(MAX_WORKERS, 0);

/// Connections of which the agent wants nothing more.
#[map]
static TAP_STOPS: Array<TapStop> = Array::with_max_entries(STOP_ENTRIES, 0);

/// By [`TapCount`].
#[map]
static TAP_COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(TapCount::COUNT, 0);

/// The most bytes of a record; segments of BIG TCP, and those over loopback, are longer.
pub(crate) const LARGEST: u32 = 65536;

/// A record as it stands in a ring.
#[repr(C)]
struct Slot<const N: usize> {
    record: TapRecord,
    bytes: [u8; N],
}

/// Bytes of a packet, and their place in the stream.
#[derive(Clone, Copy)]
pub(crate) struct Bytes {
    pub(crate) place: u64,
    pub(crate) offset: u32,
    pub(crate) len: u32,
}

/// Adds to a counter.
#[inline(always)]
pub(crate) fn count(what: TapCount, n: u64) {
    if let Some(counter) = TAP_COUNTERS.get_ptr_mut(what.index()) {
        // SAFETY: the pointer is to this CPU's own value of the map.
        unsafe { *counter += n };
    }
}

/// Whether the agent wants nothing more of this connection.
#[inline(always)]
pub(crate) fn is_stopped(mark: &TapMark) -> bool {
    TAP_STOPS
        .get(stop_index(mark.cookie))
        .is_some_and(|stop| stop.cookie == mark.cookie && stop.generation == mark.generation)
}

/// Writes a record without bytes. False: it found no room.
#[inline(always)]
pub(crate) fn event(ctx: &SkBuffContext, mark: &TapMark, kind: TapKind, place: u64) -> bool {
    put::<0>(ctx, mark, kind, Bytes { place, offset: 0, len: 0 })
}

/// Copies at most [`LARGEST`] bytes, and at least one. False: they found no room.
#[inline(always)]
pub(crate) fn copy(ctx: &SkBuffContext, mark: &TapMark, bytes: Bytes) -> bool {
    match bytes.len {
        0..=216 => put::<216>(ctx, mark, TapKind::Data, bytes),
        217..=472 => put::<472>(ctx, mark, TapKind::Data, bytes),
        473..=984 => put::<984>(ctx, mark, TapKind::Data, bytes),
        985..=2008 => put::<2008>(ctx, mark, TapKind::Data, bytes),
        2009..=4056 => put::<4056>(ctx, mark, TapKind::Data, bytes),
        4057..=8152 => put::<8152>(ctx, mark, TapKind::Data, bytes),
        8153..=17368 => put::<17368>(ctx, mark, TapKind::Data, bytes),
        17369..=32728 => put::<32728>(ctx, mark, TapKind::Data, bytes),
        32729..=LARGEST => put::<{ LARGEST as usize }>(ctx, mark, TapKind::Data, bytes),
        _ => false,
    }
}

/// Copies [`LARGEST`] bytes of more.
#[inline(always)]
pub(crate) fn copy_largest(ctx: &SkBuffContext, mark: &TapMark, bytes: Bytes) -> bool {
    put::<{ LARGEST as usize }>(ctx, mark, TapKind::Data, Bytes { len: LARGEST, ..bytes })
}

#[inline(always)]
fn put<const N: usize>(
    ctx: &SkBuffContext,
    mark: &TapMark,
    kind: TapKind,
    Bytes { place, offset, len }: Bytes,
) -> bool {
    let worker = shard(mark.cookie, workers());
    let Some(ring) = TAP_RINGS.get(worker) else { return false };
    // SAFETY: the ring is one that the verifier knows; what is reserved is written before it is
    // submitted, but for bytes behind those that the record counts.
    unsafe {
        let length = size_of::<Slot<N>>() as u64;
        let slot: *mut Slot<N> =
            bpf_ringbuf_reserve(core::ptr::from_ref(ring).cast_mut().cast(), length, 0).cast();
        if slot.is_null() {
            return false;
        }
        let TapMark { cookie, netns, frontend, generation, .. } = *mark;
        let kind = kind as u32;
        (*slot).record = TapRecord { cookie, netns, place, frontend, generation, len, kind };
        if N > 0 {
            let to = (&raw mut (*slot).bytes).cast();
            if bpf_skb_load_bytes(ctx.as_ptr(), offset, to, bounded::<N>(len)) != 0 {
                bpf_ringbuf_discard(slot.cast(), u64::from(BPF_RB_NO_WAKEUP));
                return false;
            }
        }
        bpf_ringbuf_submit(slot.cast(), wake(worker));
    }
    true
}

/// The length, from 1 to N in a way that verifiers before 6.8 follow: a comparison with 0 proves nothing
/// to them.
#[inline(always)]
fn bounded<const N: usize>(len: u32) -> u32 {
    let len = black_box(((black_box(u64::from(len)) - 1) & 0x1_ffff) + 1);
    if len > N as u64 { N as u32 } else { len as u32 }
}

/// The flags by which a record is submitted.
#[inline(always)]
fn wake(worker: u32) -> u64 {
    if let Some(asleep) = TAP_ASLEEP.get_ptr_mut(worker) {
        // SAFETY: the pointer is to a word of the map. Two CPUs that see it at once both wake, which
        // is harmless.
        unsafe {
            if *asleep != 0 {
                *asleep = 0;
                return u64::from(BPF_RB_FORCE_WAKEUP);
            }
        }
    }
    u64::from(BPF_RB_NO_WAKEUP)
}

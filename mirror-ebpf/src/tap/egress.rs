//! Packets that the pod's sockets send. In: each of them. Out: records of what marked sockets send, each
//! byte once and at its place in the stream. It decides nothing about a packet.

use aya_ebpf::{EbpfContext as _, helpers::generated::bpf_skb_load_bytes, programs::SkBuffContext};
use mirror_common::{
    FIRST_BYTES, Piece, Stream, TapCount, TapKind, TapMark, TapState, first_bytes,
};

use crate::{
    mark,
    records::{Bytes, LARGEST, copy, copy_largest, count, event, is_stopped},
    segment::{FIN, RST, SYN, Segment, URG, segment},
};

/// Records of one packet, at most, before the last.
const RECORDS: u32 = 8;

/// Looks at a packet.
#[inline(always)]
pub(crate) fn egress(ctx: &SkBuffContext) {
    // SAFETY: the kernel passes a valid context.
    let socket = unsafe { (*ctx.skb.skb).__bindgen_anon_2.sk };
    if socket.is_null() {
        return;
    }
    // SAFETY: not null, and the context's.
    let mark = unsafe { mark::of(socket) };
    if mark.is_null() {
        return;
    }
    // SAFETY: not null. The kernel sends a socket's packets one after the other.
    let mark = unsafe { &mut *mark };
    if mark.state == TapState::Over as u32 {
        return;
    }
    let Some(segment) = segment(ctx) else { return stop(ctx, mark, TapCount::Unreadable) };
    if segment.flags & SYN != 0 && mark.state == TapState::New as u32 {
        start(ctx, mark, &segment);
    }
    if segment.len > 0 || segment.flags & (FIN | RST) != 0 {
        more(ctx, mark, &segment);
    }
}

/// A connection begins.
#[inline(always)]
fn start(ctx: &SkBuffContext, mark: &mut TapMark, segment: &Segment) {
    mark.state = TapState::Over as u32;
    if segment.loopback {
        // A hook that ran later has taken the connection to an agent, which makes the copies.
        return;
    }
    mark.first = segment.sequence.wrapping_add(1);
    if event(ctx, mark, TapKind::Start, 0) {
        mark.state = TapState::Copied as u32;
        count(TapCount::Connections, 1);
    } else {
        count(TapCount::NoRoom, 1);
    }
}

/// Bytes, or the end.
#[inline(always)]
fn more(ctx: &SkBuffContext, mark: &mut TapMark, segment: &Segment) {
    if mark.state == TapState::New as u32 {
        return stop(ctx, mark, TapCount::Gap);
    }
    if mark.state != TapState::Copied as u32 {
        return;
    }
    let Segment { flags, offset, len, .. } = *segment;
    if len > 0 {
        if is_stopped(mark) {
            mark.state = TapState::Over as u32;
            return;
        }
        if flags & URG != 0 {
            return stop(ctx, mark, TapCount::Urgent);
        }
        // Bytes may be in the SYN already (TCP Fast Open), which counts as one itself.
        let sequence =
            if flags & SYN != 0 { segment.sequence.wrapping_add(1) } else { segment.sequence };
        let stream = Stream { first: mark.first, next: mark.next };
        let Piece::New { skip } = stream.piece(sequence, len) else {
            return stop(ctx, mark, TapCount::Gap);
        };
        if skip < len {
            let bytes = Bytes { place: mark.next, offset: offset + skip, len: len - skip };
            if mark.next == 0
                && let Some(why) = looks_like(ctx, bytes)
            {
                return stop(ctx, mark, why);
            }
            mark.next += u64::from(bytes.len);
            copy_all(ctx, mark, bytes);
        }
    }
    let kind = match flags & (FIN | RST) {
        0 => return,
        FIN => TapKind::End,
        _ => TapKind::Reset,
    };
    mark.state = TapState::Over as u32;
    event(ctx, mark, kind, mark.next);
}

/// What speaks against HTTP/1.
#[inline(always)]
fn looks_like(ctx: &SkBuffContext, bytes: Bytes) -> Option<TapCount> {
    let mut first = [0_u8; FIRST_BYTES];
    let to = (&raw mut first).cast();
    // SAFETY: `first` has room for so many bytes.
    let failed = unsafe {
        if bytes.len >= FIRST_BYTES as u32 {
            bpf_skb_load_bytes(ctx.as_ptr(), bytes.offset, to, FIRST_BYTES as u32)
        } else {
            bpf_skb_load_bytes(ctx.as_ptr(), bytes.offset, to, 1)
        }
    };
    if failed != 0 {
        return Some(TapCount::Unreadable);
    }
    let known = if bytes.len >= FIRST_BYTES as u32 { FIRST_BYTES as u32 } else { 1 };
    first_bytes(first, known)
}

/// Copies the bytes, in several records if there are many.
#[inline(always)]
fn copy_all(ctx: &SkBuffContext, mark: &TapMark, mut bytes: Bytes) {
    for _ in 0..RECORDS {
        if bytes.len <= LARGEST {
            break;
        }
        let copied = copy_largest(ctx, mark, bytes);
        counted(copied, LARGEST);
        bytes.place += u64::from(LARGEST);
        bytes.offset += LARGEST;
        bytes.len -= LARGEST;
    }
    counted(copy(ctx, mark, bytes), bytes.len);
}

#[inline(always)]
fn counted(copied: bool, len: u32) {
    let (records, bytes) = if copied {
        (TapCount::Records, TapCount::Bytes)
    } else {
        (TapCount::LostRecords, TapCount::LostBytes)
    };
    count(records, 1);
    count(bytes, u64::from(len));
}

/// Nothing more of it is copied.
#[inline(always)]
fn stop(ctx: &SkBuffContext, mark: &mut TapMark, why: TapCount) {
    mark.state = TapState::Over as u32;
    count(why, 1);
    event(ctx, mark, TapKind::Stopped, mark.next);
}

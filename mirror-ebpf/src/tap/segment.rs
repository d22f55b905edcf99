//! A packet of a marked socket. In: the kernel's context. Out: what its headers say of a TCP segment.

use aya_ebpf::programs::SkBuffContext;
use mirror_common::{is_loopback, is_loopback_v6};

const IPPROTO_TCP: u8 = 6;
/// An IPv4 header without options, as Linux writes it unless an application sets some.
const V4_WITHOUT_OPTIONS: u8 = 0x45;
const V4_HEADER: usize = 20;
const V6_HEADER: usize = 40;
/// With the length of a packet beyond 64 KiB behind it, as BIG TCP has it (RFC 2675; `struct
/// hop_jumbo_hdr`), eight bytes.
const V6_JUMBO: usize = 48;
/// Options header of IPv6 (RFC 8200, section 4.3).
const HOP_BY_HOP: u8 = 0;
const TCP_HEADER: usize = 20;
/// Beyond the largest packet of BIG TCP (`GSO_MAX_SIZE`, 512 KiB).
const LARGEST: u32 = 1 << 20;

pub(crate) const FIN: u8 = 1;
pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
pub(crate) const URG: u8 = 32;

/// A TCP segment.
#[derive(Clone, Copy)]
pub(crate) struct Segment {
    /// Of its first byte, or of its SYN.
    pub(crate) sequence: u32,
    pub(crate) flags: u8,
    /// Where its bytes begin in the packet.
    pub(crate) offset: u32,
    /// How many there are.
    pub(crate) len: u32,
    /// It goes to an address that never leaves the pod: another agent takes the connection.
    pub(crate) loopback: bool,
}

/// None: the packet cannot be read.
#[inline(always)]
pub(crate) fn segment(ctx: &SkBuffContext) -> Option<Segment> {
    // SAFETY: the kernel passes a valid context; the verifier checks each read against its end.
    unsafe {
        let skb = &*ctx.skb.skb;
        let (data, end) = (skb.data as usize, skb.data_end as usize);
        if data + V4_HEADER + TCP_HEADER > end {
            return None;
        }
        let first = *(data as *const u8);
        if first == V4_WITHOUT_OPTIONS {
            if *((data + 9) as *const u8) != IPPROTO_TCP {
                return None;
            }
            let to = *((data + 16) as *const u32);
            tcp(data + V4_HEADER, V4_HEADER as u32, skb.len, is_loopback(to))
        } else if first >> 4 == 6 {
            if data + V6_HEADER + TCP_HEADER > end {
                return None;
            }
            let to = (data + 24) as *const u32;
            let to = [*to, *to.add(1), *to.add(2), *to.add(3)];
            match *((data + 6) as *const u8) {
                IPPROTO_TCP => tcp(data + V6_HEADER, V6_HEADER as u32, skb.len, is_loopback_v6(to)),
                HOP_BY_HOP => {
                    let header = data + V6_HEADER;
                    let next = [*(header as *const u8), *((header + 1) as *const u8)];
                    if next != [IPPROTO_TCP, 0] || data + V6_JUMBO + TCP_HEADER > end {
                        return None;
                    }
                    tcp(data + V6_JUMBO, V6_JUMBO as u32, skb.len, is_loopback_v6(to))
                }
                _ => None,
            }
        } else {
            None
        }
    }
}

/// # Safety
/// A TCP header is at this address.
#[inline(always)]
unsafe fn tcp(header: usize, before: u32, packet: u32, loopback: bool) -> Option<Segment> {
    // SAFETY: the caller's promise.
    let (sequence, length, flags) = unsafe {
        (
            u32::from_be(*((header + 4) as *const u32)),
            *((header + 12) as *const u8) >> 4,
            *((header + 13) as *const u8),
        )
    };
    let offset = before + u32::from(length) * 4;
    let len = packet.wrapping_sub(offset);
    if len > LARGEST {
        return None;
    }
    Some(Segment { sequence, flags, offset, len, loopback })
}

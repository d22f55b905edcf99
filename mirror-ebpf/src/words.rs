//! IPv6 addresses in the kernel's contexts, word by word: copied at once they become accesses of a
//! width that the verifier refuses.

use aya_ebpf::programs::SockAddrContext;

/// The four words behind the pointer.
///
/// # Safety
/// It points into a context or a socket that the verifier knows, or to four live words.
#[inline(always)]
pub(crate) unsafe fn read(address: *const [u32; 4]) -> [u32; 4] {
    let word = address.cast::<u32>();
    // SAFETY: the caller's promise.
    unsafe {
        [
            word.read_volatile(),
            word.add(1).read_volatile(),
            word.add(2).read_volatile(),
            word.add(3).read_volatile(),
        ]
    }
}

/// The address of a `bpf_sock_addr`.
#[inline(always)]
pub(crate) fn peer_address(ctx: &SockAddrContext) -> [u32; 4] {
    // SAFETY: the kernel passes a valid context.
    unsafe { read(&raw const (*ctx.sock_addr).user_ip6) }
}

/// Changes it, in a hook that may.
#[inline(always)]
pub(crate) fn set_peer_address(ctx: &SockAddrContext, address: [u32; 4]) {
    // SAFETY: the kernel passes a valid context, and the verifier checks that this hook may write.
    unsafe {
        let word = (&raw mut (*ctx.sock_addr).user_ip6).cast::<u32>();
        word.write_volatile(address[0]);
        word.add(1).write_volatile(address[1]);
        word.add(2).write_volatile(address[2]);
        word.add(3).write_volatile(address[3]);
    }
}

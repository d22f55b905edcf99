//! Marks of sockets. In: the connect hooks' decision. Out: a note on the socket, which the kernel drops
//! with it, so that nothing has to be removed.

use aya_ebpf::{
    EbpfContext as _,
    bindings::{BPF_SK_STORAGE_GET_F_CREATE, bpf_sock},
    btf_maps::SkStorage,
    helpers::generated::{
        bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_sk_storage_delete, bpf_sk_storage_get,
    },
    macros::btf_map,
    programs::SockAddrContext,
};
use mirror_common::{FrontendId, Reason, TapMark, TapState};

use crate::workers::now;

/// The marks, each with its socket.
#[btf_map]
static MARKS: SkStorage<TapMark> = SkStorage::new();

/// Whether connections can be tapped.
pub(crate) const TAPS: bool = true;

/// Marks the socket: what it sends on the connection that it is about to make is copied.
#[inline(always)]
pub(crate) fn mark(ctx: &SockAddrContext, frontend: FrontendId) -> Result<Reason, Reason> {
    // SAFETY: the kernel passes a valid context with a socket; the map's values are marks.
    let mark: *mut TapMark = unsafe {
        let socket = (*ctx.sock_addr).__bindgen_anon_1.sk;
        if socket.is_null() {
            return Err(Reason::TapFailed);
        }
        storage(socket, u64::from(BPF_SK_STORAGE_GET_F_CREATE))
    };
    if mark.is_null() {
        return Err(Reason::TapFailed);
    }
    // SAFETY: the context is the kernel's. The mark is not null, and of this socket, which is not
    // connected: nothing else reads or writes it.
    unsafe {
        *mark = TapMark {
            cookie: bpf_get_socket_cookie(ctx.as_ptr()),
            netns: bpf_get_netns_cookie(ctx.as_ptr()),
            next: 0,
            frontend: frontend.0,
            // Microseconds, roughly: a socket does not connect twice in one.
            generation: (now() >> 10) as u32,
            first: 0,
            state: TapState::New as u32,
        };
    }
    Ok(Reason::Tapped)
}

/// The socket is about to connect to something else.
#[inline(always)]
pub(crate) fn clear(ctx: &SockAddrContext) {
    // SAFETY: the kernel passes a valid context with a socket.
    unsafe {
        let socket = (*ctx.sock_addr).__bindgen_anon_1.sk;
        if !socket.is_null() {
            bpf_sk_storage_delete((&raw const MARKS).cast_mut().cast(), socket.cast());
        }
    }
}

/// The mark of a socket; null if it has none.
///
/// # Safety
/// The socket is one that the verifier knows, and not null.
#[inline(always)]
pub(crate) unsafe fn of(socket: *mut bpf_sock) -> *mut TapMark {
    // SAFETY: the caller's promise.
    unsafe { storage(socket, 0) }
}

/// # Safety
/// As of [`of`].
#[inline(always)]
unsafe fn storage(socket: *mut bpf_sock, flags: u64) -> *mut TapMark {
    // SAFETY: the caller's promise; the map is one of socket storage.
    unsafe {
        bpf_sk_storage_get(
            (&raw const MARKS).cast_mut().cast(),
            socket.cast(),
            core::ptr::null_mut(),
            flags,
        )
        .cast()
    }
}

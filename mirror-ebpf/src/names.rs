//! getpeername(2) and getsockname(2) of a captured connection of an IPv4 socket: the address that
//! the application asked for, and the pod's own address instead of 127.0.0.1.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};
use mirror_common::{FrontendId, is_loopback};

use crate::{
    connect::{GO_ON, pod},
    maps::ADDRESSES,
};

/// Attached to the pod's own cgroup.
#[cgroup_sock_addr(getpeername4)]
pub fn getpeername4(ctx: SockAddrContext) -> i32 {
    // SAFETY: the kernel passes a valid context.
    let (address, port) = unsafe { ((*ctx.sock_addr).user_ip4, (*ctx.sock_addr).user_port as u16) };
    let Some(id) = FrontendId::from_net(address) else { return GO_ON };
    if pod(&ctx).is_none_or(|pod| pod.port != port) {
        return GO_ON;
    }
    // SAFETY: the value is copied at once; entries are inserted and deleted, never changed.
    if let Some(frontend) = (unsafe { ADDRESSES.get(&id) }).copied() {
        // SAFETY: both fields are writable in this hook.
        unsafe {
            (*ctx.sock_addr).user_ip4 = frontend.address;
            (*ctx.sock_addr).user_port = u32::from(frontend.port);
        }
    }
    GO_ON
}

/// Attached to the pod's own cgroup.
#[cgroup_sock_addr(getsockname4)]
pub fn getsockname4(ctx: SockAddrContext) -> i32 {
    // SAFETY: the kernel passes a valid context.
    let address = unsafe { (*ctx.sock_addr).user_ip4 };
    if !is_loopback(address) {
        return GO_ON;
    }
    // SAFETY: as above; the verifier checks the fields of the socket.
    let (peer, port) = unsafe {
        let sk = (*ctx.sock_addr).__bindgen_anon_1.sk;
        if sk.is_null() {
            return GO_ON;
        }
        ((*sk).dst_ip4, (*sk).dst_port)
    };
    if FrontendId::from_net(peer).is_none() {
        return GO_ON;
    }
    if let Some(pod) = pod(&ctx)
        && pod.port == port
        && pod.own_address != 0
    {
        // SAFETY: the field is writable in this hook.
        unsafe { (*ctx.sock_addr).user_ip4 = pod.own_address };
    }
    GO_ON
}

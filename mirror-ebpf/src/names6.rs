//! getpeername(2) and getsockname(2) of a captured connection of an IPv6 socket; an IPv4-mapped
//! address stays mapped.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};
use mirror_common::{FrontendId, is_loopback, is_loopback_v6, mapped_v4};

use crate::{
    connect::{GO_ON, pod},
    maps::{ADDRESSES, ADDRESSES6},
    words::{peer_address, read, set_peer_address},
};

/// Attached to the pod's own cgroup.
#[cgroup_sock_addr(getpeername6)]
pub fn getpeername6(ctx: SockAddrContext) -> i32 {
    let address = peer_address(&ctx);
    let mapped = mapped_v4(address);
    let id = match mapped {
        Some(v4) => FrontendId::from_net(v4),
        None => FrontendId::from_net_v6(address),
    };
    let Some(id) = id else { return GO_ON };
    // SAFETY: the kernel passes a valid context.
    let port = unsafe { (*ctx.sock_addr).user_port as u16 };
    if pod(&ctx).is_none_or(|pod| pod.port != port) {
        return GO_ON;
    }
    // SAFETY: the values are copied at once; entries are inserted and deleted, never changed. The
    // fields are writable in this hook.
    unsafe {
        if mapped.is_some() {
            if let Some(frontend) = ADDRESSES.get(&id).copied() {
                (*ctx.sock_addr).user_ip6[3] = frontend.address;
                (*ctx.sock_addr).user_port = u32::from(frontend.port);
            }
        } else if let Some(frontend) = ADDRESSES6.get(&id).copied() {
            set_peer_address(&ctx, frontend.address);
            (*ctx.sock_addr).user_port = u32::from(frontend.port);
        }
    }
    GO_ON
}

/// Attached to the pod's own cgroup. A native connection through the /96 has the pod's own address
/// already, unless the application chose ::1 or the pod had no other.
#[cgroup_sock_addr(getsockname6)]
pub fn getsockname6(ctx: SockAddrContext) -> i32 {
    let address = peer_address(&ctx);
    let mapped = mapped_v4(address);
    if !mapped.map_or_else(|| is_loopback_v6(address), is_loopback) {
        return GO_ON;
    }
    // SAFETY: the kernel passes a valid context; the verifier checks the fields of the socket.
    let (peer, port) = unsafe {
        let sk = (*ctx.sock_addr).__bindgen_anon_1.sk;
        if sk.is_null() {
            return GO_ON;
        }
        (read(&raw const (*sk).dst_ip6), (*sk).dst_port)
    };
    let id = match mapped_v4(peer) {
        Some(v4) => FrontendId::from_net(v4),
        None => FrontendId::from_net_v6(peer),
    };
    if id.is_none() {
        return GO_ON;
    }
    let Some(pod) = pod(&ctx) else { return GO_ON };
    if pod.port != port {
        return GO_ON;
    }
    if mapped.is_some() {
        if pod.own_address != 0 {
            // SAFETY: the field is writable in this hook.
            unsafe { (*ctx.sock_addr).user_ip6[3] = pod.own_address };
        }
    } else if pod.own_address_v6 != [0; 4] {
        set_peer_address(&ctx, pod.own_address_v6);
    }
    GO_ON
}

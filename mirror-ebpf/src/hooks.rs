//! The connect hooks, as the kernel calls them.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};

/// Attached to the pod's own cgroup.
#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    crate::connect::connect4(&ctx)
}

/// Attached to the pod's own cgroup.
#[cgroup_sock_addr(connect6)]
pub fn connect6(ctx: SockAddrContext) -> i32 {
    crate::connect6::connect6(&ctx)
}

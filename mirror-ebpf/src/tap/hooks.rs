//! The hooks, as the kernel calls them. Their names differ from those of the other binary, so that an
//! agent sees which programs on a cgroup tap.

use aya_ebpf::{
    macros::{cgroup_skb, cgroup_sock_addr},
    programs::{SkBuffContext, SockAddrContext},
};

/// Attached to the pod's own cgroup.
#[cgroup_sock_addr(connect4)]
pub fn tap_connect4(ctx: SockAddrContext) -> i32 {
    crate::connect::connect4(&ctx)
}

/// Attached to the pod's own cgroup.
#[cgroup_sock_addr(connect6)]
pub fn tap_connect6(ctx: SockAddrContext) -> i32 {
    crate::connect6::connect6(&ctx)
}

/// Attached to the pod's own cgroup: sees each packet that one of its sockets sends.
#[cgroup_skb(egress)]
pub fn tap_egress(ctx: SkBuffContext) -> i32 {
    crate::egress::egress(&ctx);
    crate::connect::GO_ON
}

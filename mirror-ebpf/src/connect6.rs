//! connect(2) of an IPv6 socket of a captured pod. An IPv4-mapped destination is an IPv4 frontend,
//! and stays mapped: the socket's way is IPv4. Any other is an IPv6 one, and goes to an address of
//! the private /96.

use aya_ebpf::{
    EbpfContext as _,
    bindings::{BPF_F_CURRENT_NETNS, bpf_sock, bpf_sock_tuple},
    helpers::generated::{bpf_sk_lookup_tcp, bpf_sk_release},
    macros::cgroup_sock_addr,
    programs::SockAddrContext,
};
use aya_log_ebpf::debug;
use mirror_common::{
    Family, FrontendId, FrontendKeyV6, PodEntry, Reason, consider, is_loopback_v6, mapped_v4,
};

use crate::{
    connect::{GO_ON, caller, captured_v4, facts, pod},
    count::count,
    maps::FRONTENDS6,
    words::{peer_address, read, set_peer_address},
    workers::no_worker_reason,
};

/// Length of the IPv6 part of a `bpf_sock_tuple`.
const TUPLE_V6: u32 = 36;

/// Attached to the pod's own cgroup, so that it runs before programs on ancestors.
#[cgroup_sock_addr(connect6)]
pub fn connect6(ctx: SockAddrContext) -> i32 {
    let reason = match redirect(&ctx) {
        Ok(()) => Reason::Captured,
        Err(reason) => reason,
    };
    count(reason);
    GO_ON
}

#[inline(always)]
fn redirect(ctx: &SockAddrContext) -> Result<(), Reason> {
    let addr = ctx.sock_addr;
    let address = peer_address(ctx);
    // SAFETY: the kernel passes a valid context; the verifier checks every field.
    let port = unsafe { (*addr).user_port as u16 };
    let to = match mapped_v4(address) {
        Some(v4) => {
            let (id, pod) = captured_v4(ctx, v4, port)?;
            // SAFETY: both fields are writable in this hook.
            unsafe {
                (*addr).user_ip6[3] = id.to_net();
                (*addr).user_port = u32::from(pod.port);
            }
            return Ok(());
        }
        None => captured_v6(ctx, address, port)?,
    };
    set_peer_address(ctx, to.0.to_net_v6());
    // SAFETY: the field is writable in this hook.
    unsafe { (*addr).user_port = u32::from(to.1.port) };
    Ok(())
}

#[inline(always)]
fn captured_v6(
    ctx: &SockAddrContext,
    address: [u32; 4],
    port: u16,
) -> Result<(FrontendId, PodEntry), Reason> {
    let key = FrontendKeyV6 { address, port, zero: 0 };
    // SAFETY: the value is copied at once, and it is one word.
    let frontend = || unsafe { FRONTENDS6.get(&key) }.copied();
    let facts = facts(ctx, Family::V6, is_loopback_v6(address));
    let (id, pod) = consider(&facts, frontend, || pod(ctx), || caller(ctx))?;
    if !worker_takes(ctx, id, &pod) {
        let reason = no_worker_reason();
        debug!(
            ctx,
            "connect to [{:i}]:{} goes direct: no worker",
            octets(address),
            u16::from_be(port)
        );
        return Err(reason);
    }
    debug!(
        ctx,
        "connect to [{:i}]:{} captured with id {}",
        octets(address),
        u16::from_be(port),
        id.0
    );
    Ok((id, pod))
}

/// As [`crate::connect`] asks for IPv4.
#[inline(always)]
fn worker_takes(ctx: &SockAddrContext, id: FrontendId, pod: &PodEntry) -> bool {
    // SAFETY: all zeroes is a valid tuple, and what the verifier wants of every byte.
    let mut tuple: bpf_sock_tuple = unsafe { core::mem::zeroed() };
    tuple.__bindgen_anon_1.ipv6.daddr = id.to_net_v6();
    tuple.__bindgen_anon_1.ipv6.dport = pod.port;
    // SAFETY: the tuple outlives the call, and the reference is released below.
    let found: *mut bpf_sock = unsafe {
        bpf_sk_lookup_tcp(ctx.as_ptr(), &mut tuple, TUPLE_V6, BPF_F_CURRENT_NETNS as u64, 0)
    };
    if found.is_null() {
        return false;
    }
    // SAFETY: not null, and referenced until the release.
    unsafe {
        let ours = read(&raw const (*found).src_ip6) == FrontendId::LISTENER.to_net_v6();
        bpf_sk_release(found.cast());
        ours
    }
}

/// For the log.
#[inline(always)]
fn octets(address: [u32; 4]) -> [u8; 16] {
    // SAFETY: both are sixteen bytes, and any will do; in memory they are in network order.
    unsafe { core::mem::transmute(address) }
}

//! connect(2) of an IPv6 socket of a captured pod. An IPv4-mapped destination is an IPv4 frontend,
//! and stays mapped: the socket's way is IPv4. Any other is an IPv6 one, and goes to an address of
//! the private /96.

use aya_ebpf::{
    EbpfContext as _,
    bindings::{BPF_F_CURRENT_NETNS, bpf_sock, bpf_sock_tuple},
    helpers::generated::{bpf_sk_lookup_tcp, bpf_sk_release},
    programs::SockAddrContext,
};
use aya_log_ebpf::debug;
use mirror_common::{
    CaptureDecision, Family, FrontendId, FrontendKeyV6, PodEntry, Reason, consider, is_loopback_v6,
    mapped_v4,
};

use crate::{
    connect::{caller, captured_v4, done, facts, pod},
    maps::FRONTENDS6,
    mark,
    words::{peer_address, read, set_peer_address},
    workers::no_worker_reason,
};

/// Length of the IPv6 part of a `bpf_sock_tuple`.
const TUPLE_V6: u32 = 36;

/// To be attached to the pod's own cgroup, so that it runs before programs on ancestors.
#[inline(always)]
pub(crate) fn connect6(ctx: &SockAddrContext) -> i32 {
    done(ctx, redirect(ctx))
}

#[inline(always)]
fn redirect(ctx: &SockAddrContext) -> Result<Reason, Reason> {
    let addr = ctx.sock_addr;
    let address = peer_address(ctx);
    // SAFETY: the kernel passes a valid context; the verifier checks every field.
    let port = unsafe { (*addr).user_port as u16 };
    let mapped = mapped_v4(address);
    let capture = match mapped {
        Some(v4) => captured_v4(ctx, v4, port)?,
        None => captured_v6(ctx, address, port)?,
    };
    let (id, pod) = match capture {
        CaptureDecision::Proxy(id, pod) => (id, pod),
        CaptureDecision::Tap(id) => return mark::mark(ctx, id),
    };
    if mapped.is_some() {
        // SAFETY: the field is writable in this hook.
        unsafe { (*addr).user_ip6[3] = id.to_net() };
    } else {
        set_peer_address(ctx, id.to_net_v6());
    }
    // SAFETY: the field is writable in this hook.
    unsafe { (*addr).user_port = u32::from(pod.port) };
    Ok(Reason::Captured)
}

#[inline(always)]
fn captured_v6(
    ctx: &SockAddrContext,
    address: [u32; 4],
    port: u16,
) -> Result<CaptureDecision, Reason> {
    let key = FrontendKeyV6 { address, port, zero: 0 };
    // SAFETY: the value is copied at once, and it is one word.
    let frontend = || unsafe { FRONTENDS6.get(&key) }.copied();
    let facts = facts(ctx, Family::V6, is_loopback_v6(address));
    let capture = consider(&facts, mark::TAPS, frontend, || pod(ctx), || caller(ctx))?;
    let CaptureDecision::Proxy(id, pod) = capture else { return Ok(capture) };
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
    Ok(capture)
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

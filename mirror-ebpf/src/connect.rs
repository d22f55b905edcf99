//! connect(2) of an IPv4 socket of a captured pod: a connection to a frontend goes to
//! 127.64.0.0 + id on the agent's port, when a worker is there to take it, or is marked where its
//! frontend is tapped. Anything else passes untouched.

use aya_ebpf::{
    EbpfContext as _,
    bindings::{BPF_F_CURRENT_NETNS, bpf_sock, bpf_sock_tuple},
    helpers::{
        bpf_get_current_uid_gid,
        generated::{bpf_get_netns_cookie, bpf_sk_lookup_tcp, bpf_sk_release},
    },
    programs::SockAddrContext,
};
use aya_log_ebpf::debug;
use mirror_common::{
    Caller, CaptureDecision, Connect, Family, FrontendId, FrontendKey, PodEntry, Reason, consider,
    is_loopback,
};

use crate::{
    count::count,
    maps::{FRONTENDS, PODS},
    mark,
    workers::no_worker_reason,
};

/// Lets the call go on; 0 would make it fail with EPERM.
pub(crate) const GO_ON: i32 = 1;
/// Length of the IPv4 part of a `bpf_sock_tuple`.
const TUPLE_V4: u32 = 12;

/// To be attached to the pod's own cgroup, so that it runs before programs on ancestors.
#[inline(always)]
pub(crate) fn connect4(ctx: &SockAddrContext) -> i32 {
    done(ctx, redirect(ctx))
}

/// Counts how it ended. A socket that is not tapped may have been before.
#[inline(always)]
pub(crate) fn done(ctx: &SockAddrContext, ended: Result<Reason, Reason>) -> i32 {
    let reason = match ended {
        Ok(reason) | Err(reason) => reason,
    };
    if mark::TAPS && reason != Reason::Tapped && reason != Reason::NotTcp {
        mark::clear(ctx);
    }
    count(reason);
    GO_ON
}

#[inline(always)]
fn redirect(ctx: &SockAddrContext) -> Result<Reason, Reason> {
    let addr = ctx.sock_addr;
    // SAFETY: the kernel passes a valid context; the verifier checks every field.
    let (address, port) = unsafe { ((*addr).user_ip4, (*addr).user_port as u16) };
    let (id, pod) = match captured_v4(ctx, address, port)? {
        CaptureDecision::Proxy(id, pod) => (id, pod),
        CaptureDecision::Tap(id) => return mark::mark(ctx, id),
    };
    // SAFETY: both fields are writable in this hook.
    unsafe {
        (*addr).user_ip4 = id.to_net();
        (*addr).user_port = u32::from(pod.port);
    }
    Ok(Reason::Captured)
}

/// What becomes of a connection to an IPv4 destination; or why it goes direct.
#[inline(always)]
pub(crate) fn captured_v4(
    ctx: &SockAddrContext,
    address: u32,
    port: u16,
) -> Result<CaptureDecision, Reason> {
    let key = FrontendKey { address, port, zero: 0 };
    // SAFETY: the value is copied at once, and it is one word.
    let frontend = || unsafe { FRONTENDS.get(&key) }.copied();
    let facts = facts(ctx, Family::V4, is_loopback(address));
    let capture = consider(&facts, mark::TAPS, frontend, || pod(ctx), || caller(ctx))?;
    let CaptureDecision::Proxy(id, pod) = capture else { return Ok(capture) };
    if !worker_takes(ctx, id, &pod) {
        let reason = no_worker_reason();
        debug!(
            ctx,
            "connect to {:i}:{} goes direct: no worker",
            u32::from_be(address),
            u16::from_be(port)
        );
        return Err(reason);
    }
    debug!(
        ctx,
        "connect to {:i}:{} captured with id {}",
        u32::from_be(address),
        u16::from_be(port),
        id.0
    );
    Ok(capture)
}

/// What is known of the connection beside its destination.
#[inline(always)]
pub(crate) fn facts(ctx: &SockAddrContext, family: Family, loopback: bool) -> Connect {
    let addr = ctx.sock_addr;
    // SAFETY: the kernel passes a valid context; the verifier checks every field.
    unsafe { Connect { kind: (*addr).type_, protocol: (*addr).protocol, family, loopback } }
}

/// Who connects.
#[inline(always)]
pub(crate) fn caller(ctx: &SockAddrContext) -> Caller {
    // SAFETY: the kernel passes a valid context with a socket; the verifier checks every field.
    unsafe {
        let sk = (*ctx.sock_addr).__bindgen_anon_1.sk;
        Caller {
            uid: bpf_get_current_uid_gid() as u32,
            bound_dev_if: if sk.is_null() { 0 } else { (*sk).bound_dev_if },
        }
    }
}

/// The entry of the network namespace that the socket is in.
#[inline(always)]
pub(crate) fn pod(ctx: &SockAddrContext) -> Option<PodEntry> {
    // SAFETY: the context is the one that the kernel passed; the value is copied at once.
    unsafe { PODS.get(&bpf_get_netns_cookie(ctx.as_ptr())).copied() }
}

/// Asks the pod's own sk_lookup for a worker. Only a socket on the listeners' address counts: a
/// wildcard listener of the application on the same port is not ours.
#[inline(always)]
fn worker_takes(ctx: &SockAddrContext, id: FrontendId, pod: &PodEntry) -> bool {
    // SAFETY: all zeroes is a valid tuple, and what the verifier wants of every byte.
    let mut tuple: bpf_sock_tuple = unsafe { core::mem::zeroed() };
    // A source of 0 marks the question; see steer.rs.
    tuple.__bindgen_anon_1.ipv4.daddr = id.to_net();
    tuple.__bindgen_anon_1.ipv4.dport = pod.port;
    // SAFETY: the tuple outlives the call, and the reference is released below.
    let found: *mut bpf_sock = unsafe {
        bpf_sk_lookup_tcp(ctx.as_ptr(), &mut tuple, TUPLE_V4, BPF_F_CURRENT_NETNS as u64, 0)
    };
    if found.is_null() {
        return false;
    }
    // SAFETY: not null, and referenced until the release.
    unsafe {
        let ours = (*found).src_ip4 == FrontendId::LISTENER.to_net();
        bpf_sk_release(found.cast());
        ours
    }
}

//! sk_lookup of a pod's network namespace: who takes a SYN to 127.64.0.0/10, or to the private /96,
//! on the agent's port. The connect hooks' question runs through here as well, so that "is there a
//! worker" and "which worker" cannot disagree.
//!
//! The kernel does not tell this program which namespace it runs for
//! (`sk_lookup_func_proto` has no `bpf_get_netns_cookie`), so it is loaded once for each, with the
//! namespace's slot as a constant.

use aya_ebpf::{helpers::bpf_get_prandom_u32, macros::sk_lookup, programs::SkLookupContext};
use aya_log_ebpf::debug;
use mirror_common::{Family, FrontendId, MAX_PODS, WorkerState, socket_index};

use crate::{
    maps::{POD_PORT, POD_SLOT, SOCKETS},
    words::read,
    workers::{now, state, workers},
};

const SK_DROP: u32 = 0;
const SK_PASS: u32 = 1;
const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;
const IPPROTO_TCP: u32 = 6;
/// `BPF_SK_LOOKUP_F_NO_REUSEPORT`: the chosen listener, not one of its group.
const NO_REUSEPORT: u64 = 2;

/// Attached to one network namespace.
#[sk_lookup]
pub fn steer(ctx: SkLookupContext) -> u32 {
    // SAFETY: the kernel passes a valid context; the verifier checks every field.
    let (family, protocol, port) =
        unsafe { ((*ctx.lookup).family, (*ctx.lookup).protocol, (*ctx.lookup).local_port) };
    if protocol != IPPROTO_TCP || port != POD_PORT.load() {
        return SK_PASS;
    }
    let origin = match family {
        AF_INET => origin_v4(&ctx),
        AF_INET6 => origin_v6(&ctx),
        _ => None,
    };
    let Some((family, origin)) = origin else { return SK_PASS };
    let slot = POD_SLOT.load();
    if slot >= MAX_PODS {
        return SK_PASS;
    }
    if assign(&ctx, family, slot, WorkerState::Fresh) {
        return SK_PASS;
    }
    // A real SYN has passed the hook already, so that a full queue (the SYN is sent again) is
    // better than a reset.
    if origin == LookupOrigin::Syn && assign(&ctx, family, slot, WorkerState::Full) {
        return SK_PASS;
    }
    debug!(&ctx, "no worker on port {}", port);
    // Not SK_PASS: a wildcard listener of the application must not get the connection.
    SK_DROP
}

/// Who looks a listener up.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LookupOrigin {
    /// A connect hook: its lookup has no source address.
    ConnectHook,
    /// A SYN, which has one.
    Syn,
}

/// Of an IPv4 packet to one of our addresses.
#[inline(always)]
fn origin_v4(ctx: &SkLookupContext) -> Option<(Family, LookupOrigin)> {
    // SAFETY: the kernel passes a valid context.
    let (local, remote) = unsafe { ((*ctx.lookup).local_ip4, (*ctx.lookup).remote_ip4) };
    FrontendId::from_net(local)?;
    Some((Family::V4, if remote == 0 { LookupOrigin::ConnectHook } else { LookupOrigin::Syn }))
}

/// Of an IPv6 packet to one of our addresses.
#[inline(always)]
fn origin_v6(ctx: &SkLookupContext) -> Option<(Family, LookupOrigin)> {
    // SAFETY: the kernel passes a valid context.
    let (local, remote) = unsafe {
        (read(&raw const (*ctx.lookup).local_ip6), read(&raw const (*ctx.lookup).remote_ip6))
    };
    FrontendId::from_net_v6(local)?;
    Some((Family::V6, if remote == [0; 4] { LookupOrigin::ConnectHook } else { LookupOrigin::Syn }))
}

/// Assigns the socket of a worker in the wanted state, from a random one onward.
#[inline(always)]
fn assign(ctx: &SkLookupContext, family: Family, slot: u32, wanted: WorkerState) -> bool {
    let workers = workers();
    let now = now();
    // SAFETY: takes no argument.
    let random = unsafe { bpf_get_prandom_u32() };
    // Multiply-shift, and no remainder anywhere: rustc would guard it with a panic, which the
    // verifier refuses.
    let start = ((u64::from(random) * u64::from(workers)) >> 32) as u32;
    for i in 0..workers {
        let worker = if start + i < workers { start + i } else { start + i - workers };
        if state(worker, now) == wanted
            && SOCKETS
                .redirect_sk_lookup(ctx, socket_index(family, slot, worker), NO_REUSEPORT)
                .is_ok()
        {
            return true;
        }
    }
    false
}

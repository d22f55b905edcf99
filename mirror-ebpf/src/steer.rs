//! sk_lookup of a pod's network namespace: who takes a SYN to 127.64.0.0/10 on the agent's port.
//! The connect hook's question runs through here as well, so that "is there a worker" and "which
//! worker" cannot disagree.
//!
//! The kernel does not tell this program which namespace it runs for
//! (`sk_lookup_func_proto` has no `bpf_get_netns_cookie`), so it is loaded once for each, with the
//! namespace's slot as a constant.

use aya_ebpf::{helpers::bpf_get_prandom_u32, macros::sk_lookup, programs::SkLookupContext};
use aya_log_ebpf::debug;
use mirror_common::{FrontendId, MAX_PODS, Pulse, socket_index};

use crate::{
    maps::{POD_PORT, POD_SLOT, SOCKETS},
    workers::{now, state, workers},
};

const SK_DROP: u32 = 0;
const SK_PASS: u32 = 1;
const AF_INET: u32 = 2;
const IPPROTO_TCP: u32 = 6;
/// `BPF_SK_LOOKUP_F_NO_REUSEPORT`: the chosen listener, not one of its group.
const NO_REUSEPORT: u64 = 2;

/// Attached to one network namespace.
#[sk_lookup]
pub fn steer(ctx: SkLookupContext) -> u32 {
    // SAFETY: the kernel passes a valid context; the verifier checks every field.
    let (family, protocol, remote, local, port) = unsafe {
        let c = ctx.lookup;
        ((*c).family, (*c).protocol, (*c).remote_ip4, (*c).local_ip4, (*c).local_port)
    };
    let ours = family == AF_INET
        && protocol == IPPROTO_TCP
        && port == POD_PORT.load()
        && FrontendId::from_net(local).is_some();
    if !ours {
        return SK_PASS;
    }
    let slot = POD_SLOT.load();
    if slot >= MAX_PODS {
        return SK_PASS;
    }
    if assign(&ctx, slot, Pulse::Fresh) {
        return SK_PASS;
    }
    // The connect hook's question has no source address; a real SYN has passed the hook already,
    // so that a full queue (the SYN is sent again) is better than a reset.
    if remote != 0 && assign(&ctx, slot, Pulse::Full) {
        return SK_PASS;
    }
    debug!(&ctx, "no worker for {:i}", u32::from_be(local));
    // Not SK_PASS: a wildcard listener of the application must not get the connection.
    SK_DROP
}

/// Assigns the socket of a worker in the wanted state, from a random one onward.
#[inline(always)]
fn assign(ctx: &SkLookupContext, slot: u32, wanted: Pulse) -> bool {
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
            && SOCKETS.redirect_sk_lookup(ctx, socket_index(slot, worker), NO_REUSEPORT).is_ok()
        {
            return true;
        }
    }
    false
}

//! What the connect hooks ask of the tap where there is none: the compiler removes all of it.

use aya_ebpf::programs::SockAddrContext;
use mirror_common::{FrontendId, Reason};

/// Whether connections can be tapped.
pub(crate) const TAPS: bool = false;

/// Never asked for.
#[inline(always)]
pub(crate) fn mark(_ctx: &SockAddrContext, _frontend: FrontendId) -> Result<Reason, Reason> {
    Err(Reason::TapFailed)
}

/// There is nothing to clear.
#[inline(always)]
pub(crate) fn clear(_ctx: &SockAddrContext) {}

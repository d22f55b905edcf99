//! What the agent taps with (which frontends it taps is decided in `route::tap`). In: the flags, and the programs. Out: the mode that is in force, the workers'
//! rings, and the counters of the tap's programs.

use crate::{
    capture::{Programs, TapCounters, TapRing},
    cli::TapArgs,
    route::CaptureMode,
};

/// The mode in force, and what it takes.
pub(super) struct Tapping {
    /// Of the flag, or `Proxy` where the kernel cannot tap.
    pub(super) mode: CaptureMode,
    rings: Vec<TapRing>,
    /// None where nothing is tapped.
    pub(super) counters: Option<TapCounters>,
}

impl Tapping {
    /// Loads the tap's programs, if the flags ask for a tap. A kernel that refuses them has everything
    /// proxied.
    pub(super) fn load(args: TapArgs, programs: &mut Programs, log: bool) -> Self {
        let mode = args.mode.into();
        if mode == CaptureMode::Proxy {
            return Self::off();
        }
        match programs.load_tap(args.ring(), log) {
            Ok((rings, counters)) => Self { mode, rings, counters: Some(counters) },
            Err(error) => {
                tracing::warn!(
                    %error,
                    "cannot tap on this kernel: all captured connections are proxied"
                );
                Self::off()
            }
        }
    }

    fn off() -> Self {
        Self { mode: CaptureMode::Proxy, rings: Vec::new(), counters: None }
    }

    /// One for each worker; none where nothing is tapped.
    pub(super) fn take_rings(&mut self) -> Vec<TapRing> {
        std::mem::take(&mut self.rings)
    }
}

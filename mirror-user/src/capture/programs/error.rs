//! Why the programs cannot be loaded or attached. The verifier's log is kept.

use aya::{EbpfError, maps::MapError, programs::ProgramError};
use mirror_common::MAX_WORKERS;

use crate::error_chain::WithCauses;

/// Why the programs cannot be loaded or attached.
#[derive(Debug, thiserror::Error)]
pub enum ProgramsError {
    /// More workers than the maps have room for.
    #[error("{0} workers: 1 to {MAX_WORKERS} are possible")]
    Workers(u32),
    /// `fsopen("bpf")` failed.
    #[error("making a private bpffs for the maps (fsopen, Linux 5.2; needs CAP_SYS_ADMIN): {0}")]
    Mount(#[source] std::io::Error),
    /// The object's maps or its BTF.
    #[error("loading the maps of the programs: {}", WithCauses(.0))]
    Object(#[source] EbpfError),
    /// The kernel refused a program; the verifier's log is in it.
    #[error("the kernel refused the program {name}: {}", WithCauses(.source))]
    Refused {
        /// The program.
        name: &'static str,
        /// With the verifier's log.
        source: ProgramError,
    },
    /// A map of the object.
    #[error("map {name}: {}", WithCauses(.source))]
    Map {
        /// The map.
        name: &'static str,
        /// What the kernel said.
        source: MapError,
    },
    /// The object lacks what this agent expects: build.rs checks its sources' hash.
    #[error("the object with the programs has no {0}: rebuild with `cargo xtask build-ebpf`")]
    Missing(&'static str),
    /// The log of the programs.
    #[error("the programs' log: {}", WithCauses(.0))]
    Log(#[source] aya_log::Error),
    /// Attaching.
    #[error("attaching {name}: {}", WithCauses(.source))]
    Attach {
        /// The program.
        name: &'static str,
        /// What the kernel said.
        source: ProgramError,
    },
}

impl ProgramsError {
    /// Whether the kernel said EPERM to an attachment: a program on an ancestor forbids it.
    pub(crate) fn is_forbidden(&self) -> bool {
        let Self::Attach { source: ProgramError::SyscallError(error), .. } = self else {
            return false;
        };
        error.io_error.raw_os_error() == Some(libc::EPERM)
    }
}

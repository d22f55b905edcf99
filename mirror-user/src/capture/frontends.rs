//! The frontends in the kernel's maps. In: what the publisher adds and removes. Out: what the
//! connect hook captures, and what getpeername answers.

use std::net::SocketAddrV4;

use aya::maps::{HashMap, MapData, MapError};
use mirror_common::{FrontendId, FrontendKey};

use super::programs::{Programs, ProgramsError};
use crate::control::publish::FrontendMap;

/// Why a frontend could not be written.
#[derive(Debug, thiserror::Error)]
pub enum FrontendMapError {
    /// An id that is reserved or has more than 22 bits.
    #[error("id {} cannot be issued: ids go from {} to {}", .0.0, FrontendId::FIRST.0, FrontendId::MAX.0)]
    Id(FrontendId),
    /// The kernel refused: E2BIG when the map is full.
    #[error("frontend {what}: {source}")]
    Kernel {
        /// The address or the id.
        what: String,
        /// What the kernel said.
        source: MapError,
    },
}

/// The maps of the loaded programs.
pub struct KernelFrontends {
    forward: HashMap<MapData, FrontendKey, FrontendId>,
    reverse: HashMap<MapData, FrontendId, FrontendKey>,
}

impl std::fmt::Debug for KernelFrontends {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KernelFrontends")
    }
}

impl KernelFrontends {
    /// Opens the maps.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn new(programs: &Programs) -> Result<Self, ProgramsError> {
        Ok(Self { forward: programs.frontends()?, reverse: programs.addresses()? })
    }
}

impl FrontendMap for KernelFrontends {
    type Error = FrontendMapError;

    /// The reverse entry is written first, so that getpeername never sees an id that it does not
    /// know.
    fn insert(&mut self, id: FrontendId, address: SocketAddrV4) -> Result<(), FrontendMapError> {
        if !(FrontendId::FIRST..=FrontendId::MAX).contains(&id) {
            return Err(FrontendMapError::Id(id));
        }
        let key = key(address);
        self.reverse
            .insert(id, key, 0)
            .and_then(|()| self.forward.insert(key, id, 0))
            .map_err(|source| FrontendMapError::Kernel { what: address.to_string(), source })
    }

    fn remove(&mut self, address: SocketAddrV4) -> Result<(), FrontendMapError> {
        gone(self.forward.remove(&key(address)), || address.to_string())
    }

    fn forget(&mut self, id: FrontendId) -> Result<(), FrontendMapError> {
        gone(self.reverse.remove(&id), || format!("id {}", id.0))
    }
}

fn key(address: SocketAddrV4) -> FrontendKey {
    FrontendKey { address: address.ip().to_bits().to_be(), port: address.port().to_be(), zero: 0 }
}

fn gone(result: Result<(), MapError>, what: impl Fn() -> String) -> Result<(), FrontendMapError> {
    match result {
        Err(MapError::SyscallError(e)) if e.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        Err(source) => Err(FrontendMapError::Kernel { what: what(), source }),
        Ok(()) => Ok(()),
    }
}

//! The frontends in the kernel's maps, a pair of maps for each family. In: what the publisher adds
//! and removes. Out: what the connect hooks capture, and what getpeername returns.

use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};

use aya::{
    Pod,
    maps::{HashMap, MapData, MapError},
};
use mirror_common::{FrontendEntry, FrontendId, FrontendKey, FrontendKeyV6, words};

use super::programs::{Programs, ProgramsError};
use crate::{
    control::publish::{FrontendMap, MapEntry},
    error_chain::WithCauses,
};

/// Why a frontend could not be written.
#[derive(Debug, thiserror::Error)]
pub enum FrontendMapError {
    /// An id that is reserved or has more than 22 bits.
    #[error("id {} cannot be issued: ids go from {} to {}", .0.0, FrontendId::FIRST.0, FrontendId::MAX.0)]
    Id(FrontendId),
    /// The kernel refused: E2BIG when the map is full.
    #[error("frontend {what}: {}", WithCauses(.source))]
    Kernel {
        /// The address or the id.
        what: String,
        /// What the kernel said.
        source: MapError,
    },
}

/// The maps of the loaded programs.
pub struct KernelFrontends {
    v4: MapPair<FrontendKey>,
    v6: MapPair<FrontendKeyV6>,
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
        let v4 = MapPair { forward: programs.frontends()?, reverse: programs.addresses()? };
        let v6 = MapPair { forward: programs.frontends_v6()?, reverse: programs.addresses_v6()? };
        Ok(Self { v4, v6 })
    }
}

impl FrontendMap for KernelFrontends {
    type Error = FrontendMapError;

    fn insert(
        &mut self,
        id: FrontendId,
        address: SocketAddr,
        capture: MapEntry,
    ) -> Result<(), FrontendMapError> {
        if !(FrontendId::FIRST..=FrontendId::MAX).contains(&id) {
            return Err(FrontendMapError::Id(id));
        }
        let entry = match capture {
            MapEntry::Proxied => FrontendEntry::proxied(id),
            MapEntry::Tapped => FrontendEntry::tapped(id),
        };
        let inserted = match address {
            SocketAddr::V4(address) => self.v4.insert(entry, key(address)),
            SocketAddr::V6(address) => self.v6.insert(entry, key_v6(address)),
        };
        inserted.map_err(|source| FrontendMapError::Kernel { what: address.to_string(), source })
    }

    fn remove(&mut self, address: SocketAddr) -> Result<(), FrontendMapError> {
        let removed = match address {
            SocketAddr::V4(address) => self.v4.forward.remove(&key(address)),
            SocketAddr::V6(address) => self.v6.forward.remove(&key_v6(address)),
        };
        gone(removed, || address.to_string())
    }

    /// An id is of one family only, and which is not asked.
    fn forget(&mut self, id: FrontendId) -> Result<(), FrontendMapError> {
        let what = || format!("id {}", id.0);
        gone(self.v4.reverse.remove(&id), what)?;
        gone(self.v6.reverse.remove(&id), what)
    }
}

/// The maps of one family.
struct MapPair<K> {
    forward: HashMap<MapData, K, FrontendEntry>,
    reverse: HashMap<MapData, FrontendId, K>,
}

impl<K: Pod> MapPair<K> {
    /// The reverse entry is written first, so that getpeername never sees an id that it does not
    /// know.
    fn insert(&mut self, entry: FrontendEntry, key: K) -> Result<(), MapError> {
        self.reverse.insert(entry.id(), key, 0).and_then(|()| self.forward.insert(key, entry, 0))
    }
}

fn key(address: SocketAddrV4) -> FrontendKey {
    FrontendKey { address: address.ip().to_bits().to_be(), port: address.port().to_be(), zero: 0 }
}

fn key_v6(address: SocketAddrV6) -> FrontendKeyV6 {
    FrontendKeyV6 { address: words(*address.ip()), port: address.port().to_be(), zero: 0 }
}

fn gone(result: Result<(), MapError>, what: impl Fn() -> String) -> Result<(), FrontendMapError> {
    match result {
        Err(MapError::SyscallError(e)) if e.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        Err(source) => Err(FrontendMapError::Kernel { what: what(), source }),
        Ok(()) => Ok(()),
    }
}

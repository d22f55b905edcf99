//! The programs in the kernel: loads them, attaches them, opens their maps. Whatever the
//! verifier says is kept in the error.
//!
//! sk_lookup cannot ask which namespace it runs for, so that it is loaded once for each with the
//! slot as a constant. The loads share their maps through pins in a bpffs that is mounted nowhere
//! and dies with the process.

mod error;
mod tap;

use std::{
    collections::BTreeMap,
    os::fd::{AsFd, OwnedFd},
};

use aya::{
    Ebpf, EbpfLoader, include_bytes_aligned,
    maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, SockMap},
    programs::{
        CgroupAttachMode, CgroupSockAddr, ProgramInfo, SkLookup,
        cgroup_sock_addr::CgroupSockAddrLink, loaded_programs, sk_lookup::SkLookupLink,
    },
};
use aya_log::EbpfLogger;
use mirror_common::{
    FrontendEntry, FrontendId, FrontendKey, FrontendKeyV6, Heartbeat, MAX_PODS, MAX_WORKERS,
    PodEntry,
};

pub use error::ProgramsError;

use crate::sockets::{fd_path, sys};

/// Built by xtask, chosen by build.rs.
static OBJECT: &[u8] = include_bytes_aligned!(env!("MIRROR_OBJECT"));
/// Maps that all loads share.
const SHARED: [&str; 9] = [
    "PODS",
    "FRONTENDS",
    "FRONTENDS6",
    "ADDRESSES",
    "ADDRESSES6",
    "SOCKETS",
    "HEARTBEATS",
    "COUNTERS",
    "AYA_LOGS",
];
const STEER: &str = "steer";
/// aya-log's levels: everything, or nothing (the verifier then removes the calls).
static LOG_ALL: u8 = 4;
static LOG_NONE: u8 = 0;

/// The agent's ports: outside the ephemeral ones (32768-60999) and those that meshes use; 32
/// generations of the agent.
pub(crate) const PORTS: std::ops::Range<u16> = 61440..61472;

/// The values that the constants of the programs may have, as statics: the loader keeps
/// references to them.
static SMALL: [u32; MAX_PODS as usize] = count_from(0);
static PORT_VALUES: [u32; PORTS.end as usize - PORTS.start as usize] =
    count_from(PORTS.start as u32);
static NO_SLOT: u32 = u32::MAX;
static NO_PORT: u32 = 0;

const fn count_from<const N: usize>(first: u32) -> [u32; N] {
    let mut numbers = [first; N];
    let mut i = 1;
    while i < N {
        numbers[i] = numbers[i - 1] + 1;
        i += 1;
    }
    numbers
}

/// The hooks of one cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    /// connect(2) of IPv4 sockets.
    Connect4,
    /// connect(2) of IPv6 sockets.
    Connect6,
    /// getpeername(2) of IPv4 sockets.
    GetPeerName4,
    /// getpeername(2) of IPv6 sockets.
    GetPeerName6,
    /// getsockname(2) of IPv4 sockets.
    GetSockName4,
    /// getsockname(2) of IPv6 sockets.
    GetSockName6,
}

impl Hook {
    /// Those that give the application its own view back.
    pub(crate) const NAMES: [Self; 4] =
        [Self::GetPeerName4, Self::GetPeerName6, Self::GetSockName4, Self::GetSockName6];
    /// Those that capture.
    pub(crate) const CONNECT: [Self; 2] = [Self::Connect4, Self::Connect6];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Connect4 => "connect4",
            Self::Connect6 => "connect6",
            Self::GetPeerName4 => "getpeername4",
            Self::GetPeerName6 => "getpeername6",
            Self::GetSockName4 => "getsockname4",
            Self::GetSockName6 => "getsockname6",
        }
    }

    /// The program that stands in for it where connections are tapped.
    fn tap_name(self) -> Option<&'static str> {
        match self {
            Self::Connect4 => Some(tap::CONNECT4),
            Self::Connect6 => Some(tap::CONNECT6),
            _ => None,
        }
    }

    /// `enum bpf_attach_type`.
    pub(crate) fn attach_type(self) -> u32 {
        match self {
            Self::Connect4 => 10,
            Self::Connect6 => 11,
            Self::GetPeerName4 => 29,
            Self::GetPeerName6 => 30,
            Self::GetSockName4 => 31,
            Self::GetSockName6 => 32,
        }
    }
}

/// The programs, loaded, attached nowhere yet.
pub struct Programs {
    /// Kept: making one parses the kernel's BTF (70 ms in a debug build), which these programs
    /// have no use for.
    loader: EbpfLoader<'static>,
    mount: OwnedFd,
    ebpf: Ebpf,
    /// The programs of the tap, whose connect hooks stand in for the others'; None where nothing is
    /// tapped.
    tap: Option<Ebpf>,
    /// Whether they mark sockets, of programs by their ids, which the kernel does not use again.
    markers: BTreeMap<u32, bool>,
    /// Reads the programs' log; None when they write none.
    flush: Option<Box<dyn FnMut() + Send>>,
    workers: u32,
}

impl std::fmt::Debug for Programs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Programs").field("workers", &self.workers).finish_non_exhaustive()
    }
}

impl Programs {
    /// Loads the programs for an agent of `workers` workers (1 to 64). With `log`, they write
    /// what they do at debug level to the `log` crate's logger, under `mirror::`.
    ///
    /// # Errors
    /// What the kernel refuses, with the verifier's log.
    pub fn load(workers: u32, log: bool) -> Result<Self, ProgramsError> {
        if !(1..=MAX_WORKERS).contains(&workers) {
            return Err(ProgramsError::Workers(workers));
        }
        let mount = sys::detached_bpffs().map_err(ProgramsError::Mount)?;
        let mut loader = loader(&mount, workers, log);
        let mut ebpf = loader.load(OBJECT).map_err(ProgramsError::Object)?;
        for hook in Hook::NAMES.into_iter().chain(Hook::CONNECT) {
            let name = hook.name();
            sock_addr(&mut ebpf, name)?
                .load()
                .map_err(|source| ProgramsError::Refused { name, source })?;
        }
        let flush = if log { Some(reader(&mut ebpf)?) } else { None };
        let (tap, markers) = Default::default();
        let mut programs = Self { loader, mount, ebpf, tap, markers, flush, workers };
        // Loaded once without a namespace, so that a refusal is known at start.
        programs.load_steer()?;
        Ok(programs)
    }

    /// For how many workers the programs were loaded.
    #[must_use]
    pub fn workers(&self) -> u32 {
        self.workers
    }

    /// Writes what the programs logged since the last call.
    pub(crate) fn flush_log(&mut self) {
        if let Some(flush) = &mut self.flush {
            flush();
        }
    }

    /// Attaches one hook to a cgroup. Links coexist with other programs on the same cgroup
    /// whatever the mode says; AllowMultiple is refused with EINVAL.
    pub(crate) fn attach(
        &mut self,
        hook: Hook,
        cgroup: impl AsFd,
    ) -> Result<CgroupSockAddrLink, ProgramsError> {
        let name = hook.name();
        let program = self.sock_addr(hook)?;
        program
            .attach(cgroup, CgroupAttachMode::Single)
            .and_then(|id| program.take_link(id))
            .map_err(|source| ProgramsError::Attach { name, source })
    }

    fn sock_addr(&mut self, hook: Hook) -> Result<&mut CgroupSockAddr, ProgramsError> {
        match (&mut self.tap, hook.tap_name()) {
            (Some(tap), Some(name)) => sock_addr(tap, name),
            _ => sock_addr(&mut self.ebpf, hook.name()),
        }
    }

    /// Loads sk_lookup for a slot (below [`MAX_PODS`]) and a port (of [`PORTS`]), and attaches it
    /// to a network namespace. The link keeps the program.
    pub(crate) fn steer(
        &mut self,
        netns: impl AsFd,
        slot: u32,
        port: u16,
    ) -> Result<SkLookupLink, ProgramsError> {
        let slot = usize::try_from(slot).ok().and_then(|slot| SMALL.get(slot)).unwrap_or(&NO_SLOT);
        let port = PORT_VALUES.iter().find(|p| **p == u32::from(port)).unwrap_or(&NO_PORT);
        self.loader.override_global("POD_SLOT", slot, true);
        self.loader.override_global("POD_PORT", port, true);
        let mut ebpf = self.load_steer()?;
        let program = steer_of(&mut ebpf)?;
        program
            .attach(netns)
            .and_then(|id| program.take_link(id))
            .map_err(|source| ProgramsError::Attach { name: STEER, source })
    }

    /// Loads sk_lookup with the constants that are set; opening the object loads no program.
    fn load_steer(&mut self) -> Result<Ebpf, ProgramsError> {
        let mut ebpf = self.loader.load(OBJECT).map_err(ProgramsError::Object)?;
        let refused = |source| ProgramsError::Refused { name: STEER, source };
        steer_of(&mut ebpf)?.load().map_err(refused)?;
        Ok(ebpf)
    }

    pub(crate) fn pods(&self) -> Result<HashMap<MapData, u64, PodEntry>, ProgramsError> {
        self.map("PODS", Map::HashMap)
    }

    pub(crate) fn frontends(
        &self,
    ) -> Result<HashMap<MapData, FrontendKey, FrontendEntry>, ProgramsError> {
        self.map("FRONTENDS", Map::HashMap)
    }

    pub(crate) fn addresses(
        &self,
    ) -> Result<HashMap<MapData, FrontendId, FrontendKey>, ProgramsError> {
        self.map("ADDRESSES", Map::HashMap)
    }

    pub(crate) fn frontends_v6(
        &self,
    ) -> Result<HashMap<MapData, FrontendKeyV6, FrontendEntry>, ProgramsError> {
        self.map("FRONTENDS6", Map::HashMap)
    }

    pub(crate) fn addresses_v6(
        &self,
    ) -> Result<HashMap<MapData, FrontendId, FrontendKeyV6>, ProgramsError> {
        self.map("ADDRESSES6", Map::HashMap)
    }

    pub(crate) fn sockets(&self) -> Result<SockMap<MapData>, ProgramsError> {
        self.map("SOCKETS", Map::SockMap)
    }

    pub(crate) fn heartbeats(&self) -> Result<Array<MapData, Heartbeat>, ProgramsError> {
        self.map("HEARTBEATS", Map::Array)
    }

    pub(crate) fn counters(&self) -> Result<PerCpuArray<MapData, u64>, ProgramsError> {
        self.map("COUNTERS", Map::PerCpuArray)
    }

    /// Another handle of a shared map.
    fn map<T: TryFrom<Map, Error = MapError>>(
        &self,
        name: &'static str,
        kind: fn(MapData) -> Map,
    ) -> Result<T, ProgramsError> {
        MapData::from_pin(fd_path(&self.mount).join(name))
            .and_then(|data| T::try_from(kind(data)))
            .map_err(|source| ProgramsError::Map { name, source })
    }
}

/// A loader with the maps shared and the agent's constants set; `workers` is in range.
fn loader(mount: &OwnedFd, workers: u32, log: bool) -> EbpfLoader<'static> {
    let mut loader = EbpfLoader::new();
    let workers = usize::try_from(workers).expect("at most 64");
    loader.btf(None);
    loader.override_global("WORKERS", &SMALL[workers], true);
    loader.override_global(aya_log::LEVEL, if log { &LOG_ALL } else { &LOG_NONE }, true);
    for name in SHARED {
        loader.map_pin_path(name, fd_path(mount).join(name));
    }
    loader
}

fn reader(ebpf: &mut Ebpf) -> Result<Box<dyn FnMut() + Send>, ProgramsError> {
    let mut logger = EbpfLogger::init(ebpf).map_err(ProgramsError::Log)?;
    Ok(Box::new(move || logger.flush()))
}

/// What a program of the kernel is called, in its first 15 characters.
pub(super) fn program_name(id: u32) -> String {
    let info: Option<ProgramInfo> =
        loaded_programs().filter_map(Result::ok).find(|program| program.id() == id);
    info.as_ref().and_then(|info| info.name_as_str()).unwrap_or("?").to_owned()
}

fn sock_addr<'e>(
    ebpf: &'e mut Ebpf,
    name: &'static str,
) -> Result<&'e mut CgroupSockAddr, ProgramsError> {
    let missing = ProgramsError::Missing(name);
    match ebpf.program_mut(name).map(TryInto::try_into) {
        Some(Ok(program)) => Ok(program),
        _ => Err(missing),
    }
}

fn steer_of(ebpf: &mut Ebpf) -> Result<&mut SkLookup, ProgramsError> {
    match ebpf.program_mut(STEER).map(TryInto::try_into) {
        Some(Ok(program)) => Ok(program),
        _ => Err(ProgramsError::Missing(STEER)),
    }
}

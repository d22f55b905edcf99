//! The programs of the tap, a separate object: an agent that does not tap loads none of them, and
//! a kernel that refuses them is left with the others. In: the maps of the other object. Out: a ring
//! for each worker, and an egress hook for each cgroup.

use std::os::fd::AsFd;

use aya::{
    Ebpf, EbpfLoader, include_bytes_aligned,
    maps::{Array, ArrayOfMaps, Map, MapData, MapError, PerCpuArray, RingBuf},
    programs::{
        CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, cgroup_skb::CgroupSkbLink,
        cgroup_sock_addr::CgroupSockAddr,
    },
};
use mirror_common::TapStop;

use super::{Programs, ProgramsError, loader, program_name, sock_addr};
use crate::capture::tap::{TapCounters, TapRing};

/// Built by xtask, chosen by build.rs.
static OBJECT: &[u8] = include_bytes_aligned!(env!("MIRROR_TAP_OBJECT"));
pub(super) const CONNECT4: &str = "tap_connect4";
pub(super) const CONNECT6: &str = "tap_connect6";
const EGRESS: &str = "tap_egress";
/// `BPF_MAP_TYPE_RINGBUF`.
const RINGBUF: u32 = 27;

impl Programs {
    /// Loads the programs of the tap, with a ring of `bytes` (a power of two) for each worker: their
    /// connect hooks are attached from now on. Nothing may be attached yet.
    ///
    /// # Errors
    /// What the kernel refuses, with the verifier's log; then nothing is tapped.
    pub fn load_tap(
        &mut self,
        bytes: u32,
        log: bool,
    ) -> Result<(Vec<TapRing>, TapCounters), ProgramsError> {
        let mut loader: EbpfLoader<'static> = loader(&self.mount, self.workers, log);
        let mut tap = loader.load(OBJECT).map_err(ProgramsError::Object)?;
        for name in [CONNECT4, CONNECT6] {
            let refused = |source| ProgramsError::Refused { name, source };
            sock_addr(&mut tap, name)?.load().map_err(refused)?;
        }
        let refused = |source| ProgramsError::Refused { name: EGRESS, source };
        egress(&mut tap)?.load().map_err(refused)?;
        // Loading looks the maps up: none is taken before.
        let rings = rings(&mut tap, self.workers, bytes)?;
        let counters: PerCpuArray<_, u64> = take(&mut tap, "TAP_COUNTERS")?;
        self.tap = Some(tap);
        Ok((rings, TapCounters::new(counters)))
    }

    /// Attaches the egress hook to a cgroup; None where nothing is tapped.
    pub(crate) fn attach_egress(
        &mut self,
        cgroup: impl AsFd,
    ) -> Result<Option<CgroupSkbLink>, ProgramsError> {
        let Some(tap) = &mut self.tap else { return Ok(None) };
        let program = egress(tap)?;
        program
            .attach(cgroup, CgroupSkbAttachType::Egress, CgroupAttachMode::Single)
            .and_then(|id| program.take_link(id))
            .map(Some)
            .map_err(|source| ProgramsError::Attach { name: EGRESS, source })
    }

    /// The kernel's id of the program that marks sockets of IPv4.
    pub(crate) fn marker(&self) -> Option<u32> {
        let program = self.tap.as_ref()?.program(CONNECT4)?;
        let program: &CgroupSockAddr = program.try_into().ok()?;
        Some(program.info().ok()?.id())
    }

    /// Whether a program marks sockets, this agent's or another's. Its name is looked for once, among those of
    /// all programs of the kernel, because another agent is waited for every 100 ms.
    pub(crate) fn marks(&mut self, id: u32) -> bool {
        *self.markers.entry(id).or_insert_with(|| program_name(id) == CONNECT4)
    }
}

fn egress(tap: &mut Ebpf) -> Result<&mut CgroupSkb, ProgramsError> {
    match tap.program_mut(EGRESS).map(TryInto::try_into) {
        Some(Ok(program)) => Ok(program),
        _ => Err(ProgramsError::Missing(EGRESS)),
    }
}

fn rings(tap: &mut Ebpf, workers: u32, bytes: u32) -> Result<Vec<TapRing>, ProgramsError> {
    let mut all: ArrayOfMaps<MapData, RingBuf<MapData>> = take(tap, "TAP_RINGS")?;
    (0..workers)
        .map(|worker| {
            let failed = |source| ProgramsError::Map { name: "TAP_RINGS", source };
            let ring = ring(bytes).map_err(failed)?;
            all.set(worker, &ring, 0).map_err(failed)?;
            // Each worker writes by separate descriptors.
            let asleep: Array<_, u32> = open(tap, "TAP_ASLEEP")?;
            let stops: Array<_, TapStop> = open(tap, "TAP_STOPS")?;
            Ok(TapRing::new(worker, ring, asleep, stops))
        })
        .collect()
}

fn ring(bytes: u32) -> Result<RingBuf<MapData>, MapError> {
    let map = aya_obj::Map::new_from_params(RINGBUF, 0, 0, bytes, 0);
    Map::RingBuf(MapData::create(map, "tap_ring", None)?).try_into()
}

fn take<T: TryFrom<Map, Error = MapError>>(
    tap: &mut Ebpf,
    name: &'static str,
) -> Result<T, ProgramsError> {
    let map = tap.take_map(name).ok_or(ProgramsError::Missing(name))?;
    map.try_into().map_err(|source| ProgramsError::Map { name, source })
}

/// Another handle of a map.
fn open<V: aya::Pod>(tap: &Ebpf, name: &'static str) -> Result<Array<MapData, V>, ProgramsError> {
    let failed = |source| ProgramsError::Map { name, source };
    let Some(Map::Array(map)) = tap.map(name) else { return Err(ProgramsError::Missing(name)) };
    let fd = map.fd().as_fd().try_clone_to_owned();
    let fd = fd.map_err(|error| failed(MapError::IoError(error)))?;
    let data = MapData::from_fd(fd).map_err(failed)?;
    Map::Array(data).try_into().map_err(failed)
}

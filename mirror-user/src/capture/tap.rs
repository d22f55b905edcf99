//! What the tap's programs have copied. In: the ring of a worker. Out: segments of the connections of
//! captured workloads, in the order in which each connection sent them, with holes where the ring had no
//! room. It knows no HTTP.

use std::{
    os::fd::{AsFd as _, BorrowedFd},
    sync::Arc,
};

use aya::maps::{Array, MapData, PerCpuArray, RingBuf};
use mirror_common::{FrontendId, TapCount, TapKind, TapRecord, TapStop, stop_index};

use super::programs::ProgramsError;
use crate::{
    error_chain::WithCauses,
    segment::{Segment, SegmentKind, SegmentSource, TappedSocket},
};

/// The length of what stands before the bytes of a record.
const HEADER: usize = size_of::<TapRecord>();

/// The ring of one worker.
pub struct TapRing {
    worker: u32,
    ring: RingBuf<MapData>,
    asleep: Array<MapData, u32>,
    stops: Array<MapData, TapStop>,
}

impl std::fmt::Debug for TapRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TapRing").field("worker", &self.worker).finish_non_exhaustive()
    }
}

impl TapRing {
    pub(super) fn new(
        worker: u32,
        ring: RingBuf<MapData>,
        asleep: Array<MapData, u32>,
        stops: Array<MapData, TapStop>,
    ) -> Self {
        Self { worker, ring, asleep, stops }
    }
}

impl SegmentSource for TapRing {
    fn read(&mut self, with: &mut dyn FnMut(Segment<'_>)) -> bool {
        let Some(record) = self.ring.next() else { return false };
        if let Some(segment) = segment(&record) {
            with(segment);
        }
        true
    }

    fn stop(&mut self, socket: TappedSocket) {
        let TappedSocket { cookie, generation } = socket;
        let stop = TapStop { cookie, generation, zero: 0 };
        if let Err(error) = self.stops.set(stop_index(cookie), stop, 0) {
            // It is copied on, in vain.
            tracing::debug!(error = %WithCauses(&error), "cannot stop the tap of a connection");
        }
    }

    fn fall_asleep(&mut self) {
        if let Err(error) = self.asleep.set(self.worker, 1, 0) {
            // It is looked at every now and then.
            tracing::debug!(error = %WithCauses(&error), "cannot ask to be woken");
        }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}

/// None: it is no record of this version.
fn segment(record: &[u8]) -> Option<Segment<'_>> {
    let (header, bytes) = record.split_at_checked(HEADER)?;
    let long = |at: usize| header[at..at + 8].try_into().map(u64::from_ne_bytes).ok();
    let word = |at: usize| header[at..at + 4].try_into().map(u32::from_ne_bytes).ok();
    let kind = match TapKind::of(word(36)?)? {
        TapKind::Start => SegmentKind::Start,
        TapKind::Data => SegmentKind::Data,
        TapKind::End => SegmentKind::End,
        TapKind::Reset => SegmentKind::Reset,
        TapKind::Stopped => SegmentKind::Stopped,
    };
    Some(Segment {
        socket: TappedSocket { cookie: long(0)?, generation: word(28)? },
        netns: long(8)?,
        place: long(16)?,
        frontend: FrontendId(word(24)?),
        bytes: bytes.get(..usize::try_from(word(32)?).ok()?)?,
        kind,
    })
}

/// What the tap's programs count; cheap to clone.
#[derive(Clone)]
pub struct TapCounters(Arc<PerCpuArray<MapData, u64>>);

impl std::fmt::Debug for TapCounters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TapCounters")
    }
}

impl TapCounters {
    pub(super) fn new(map: PerCpuArray<MapData, u64>) -> Self {
        Self(Arc::new(map))
    }

    /// Each count since the programs were loaded, summed over the CPUs.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn read(&self) -> Result<Vec<(TapCount, u64)>, ProgramsError> {
        let failed = |source| ProgramsError::Map { name: "TAP_COUNTERS", source };
        let sum = |count: TapCount| {
            let values = self.0.get(&count.index(), 0).map_err(failed)?;
            Ok((count, values.iter().sum()))
        };
        TapCount::ALL.into_iter().map(sum).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_where_the_program_writes() {
        let record = TapRecord {
            cookie: 0x0102_0304_0506_0708,
            netns: 9,
            place: 1 << 40,
            frontend: 7,
            generation: 3,
            len: 2,
            kind: TapKind::Data as u32,
        };
        let TapRecord { cookie, netns, place, frontend, generation, len, kind } = record;
        let longs = [cookie, netns, place].map(u64::to_ne_bytes).concat();
        let words = [frontend, generation, len, kind].map(u32::to_ne_bytes).concat();
        let bytes = [&longs[..], &words, b"ab-rest"].concat();
        let segment = segment(&bytes).unwrap();
        assert_eq!(segment.socket, TappedSocket { cookie, generation });
        assert_eq!((segment.netns, segment.place, segment.frontend), (9, 1 << 40, FrontendId(7)));
        assert_eq!((segment.kind, segment.bytes), (SegmentKind::Data, &b"ab"[..]));
        for cut in [0, HEADER - 1, HEADER, HEADER + 1] {
            assert!(super::segment(&bytes[..cut]).is_none(), "{cut}");
        }
        let offsets = [
            std::mem::offset_of!(TapRecord, netns),
            std::mem::offset_of!(TapRecord, place),
            std::mem::offset_of!(TapRecord, frontend),
            std::mem::offset_of!(TapRecord, generation),
            std::mem::offset_of!(TapRecord, len),
            std::mem::offset_of!(TapRecord, kind),
        ];
        assert_eq!(offsets, [8, 16, 24, 28, 32, 36]);
    }
}

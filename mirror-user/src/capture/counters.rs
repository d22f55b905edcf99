//! How connections fared in the hook, summed over the CPUs.

use std::sync::Arc;

use aya::maps::{MapData, PerCpuArray};
use mirror_common::Reason;

use super::programs::{Programs, ProgramsError};

/// A handle of the counters; cheap to clone.
#[derive(Clone)]
pub struct Counters(Arc<PerCpuArray<MapData, u64>>);

impl std::fmt::Debug for Counters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Counters")
    }
}

impl Counters {
    /// Opens the map.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn new(programs: &Programs) -> Result<Self, ProgramsError> {
        programs.counters().map(|map| Self(Arc::new(map)))
    }

    /// Connections by reason since the programs were loaded.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn read(&self) -> Result<Vec<(Reason, u64)>, ProgramsError> {
        let sum = |reason: Reason| {
            let values = self.0.get(&reason.index(), 0);
            let values =
                values.map_err(|source| ProgramsError::Map { name: "COUNTERS", source })?;
            Ok((reason, values.iter().sum()))
        };
        Reason::ALL.into_iter().map(sum).collect()
    }
}

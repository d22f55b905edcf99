//! Sizes in bytes with binary units, and the budgets made of them.

use std::{fmt, str::FromStr};

use super::{BoundError, bounds};

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// Units, largest first.
const UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// What is wrong with a size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// Not digits and a unit.
    #[error("not a size: write a whole number and B, KiB, MiB or GiB, for example 8MiB")]
    Malformed,
    /// More than 2^64 - 1 bytes.
    #[error("too large")]
    TooLarge,
}

impl FromStr for ByteSize {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let (_, factor) = UNITS
            .iter()
            .find(|(name, _)| *name == unit.trim_start())
            .ok_or(SizeError::Malformed)?;
        if number.is_empty() {
            return Err(SizeError::Malformed);
        }
        let number: u64 = number.parse().map_err(|_| SizeError::TooLarge)?;
        number.checked_mul(*factor).map(Self).ok_or(SizeError::TooLarge)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole =
            UNITS.iter().find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor));
        let (unit, factor) = whole.unwrap_or(&UNITS[UNITS.len() - 1]);
        write!(f, "{}{unit}", self.0 / factor)
    }
}

/// A size as the machine counts; what exceeds the address space is all of it.
pub(super) fn bytes(size: ByteSize) -> usize {
    usize::try_from(size.0).unwrap_or(usize::MAX)
}

/// The least that a copy may be bounded to: a held frame may pin a whole read buffer.
const LEAST: ByteSize = ByteSize(64 << 10);

/// The least that the agent may be: of it a copy may hold half.
const LEAST_AGENT: ByteSize = ByteSize(256 << 10);

/// Bounds on memory held for shadows, in bytes: request <= backend <= agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BudgetLimits {
    /// For one copy.
    pub request: u64,
    /// For one shadow backend.
    pub backend: u64,
    /// For the agent.
    pub agent: u64,
}

impl BudgetLimits {
    /// Compares the bounds. If a part has no bound, that of the whole applies.
    ///
    /// # Errors
    /// When one is out of bounds or of order.
    pub fn new(
        request: Option<ByteSize>,
        backend: Option<ByteSize>,
        agent: ByteSize,
    ) -> Result<Self, BoundError> {
        let agent = ("--budget-agent", agent);
        let backend = backend.map_or(agent, |size| ("--budget-backend", size));
        let request = request.map_or(backend, |size| ("--budget-request", size));
        let bounds = [(request, LEAST), (backend, LEAST), (agent, LEAST_AGENT)];
        bounds::check(bounds, "one read of a body would exceed it")?;
        Ok(Self { request: request.1.0, backend: backend.1.0, agent: agent.1.0 })
    }
}

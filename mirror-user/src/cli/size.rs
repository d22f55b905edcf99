//! Sizes in bytes with binary units, and the budgets made of them.

use std::{fmt, str::FromStr};

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

/// The least budget: one read buffer, which a held frame may pin.
const LEAST: ByteSize = ByteSize(64 << 10);

/// Bounds on memory held for shadows, in bytes: request <= backend <= agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budgets {
    /// For the copies of one request.
    pub request: u64,
    /// For one shadow backend.
    pub backend: u64,
    /// For the agent.
    pub agent: u64,
}

/// What is wrong with the budgets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BudgetError {
    /// Below one read buffer.
    #[error("--budget-request {0} is below {LEAST}: one read of a body would exceed it")]
    TooSmall(ByteSize),
    /// A part that exceeds the whole.
    #[error("{part} {least} exceeds {whole} {most}: raise the second or lower the first")]
    Order {
        /// Flag of the part.
        part: &'static str,
        /// Its value.
        least: ByteSize,
        /// Flag of the whole.
        whole: &'static str,
        /// Its value.
        most: ByteSize,
    },
}

impl Budgets {
    /// Compares the three bounds.
    ///
    /// # Errors
    /// When one is out of bounds or of order.
    pub fn new(request: ByteSize, backend: ByteSize, agent: ByteSize) -> Result<Self, BudgetError> {
        if request < LEAST {
            return Err(BudgetError::TooSmall(request));
        }
        for (part, least, whole, most) in [
            ("--budget-request", request, "--budget-backend", backend),
            ("--budget-backend", backend, "--budget-agent", agent),
        ] {
            if least > most {
                return Err(BudgetError::Order { part, least, whole, most });
            }
        }
        Ok(Self { request: request.0, backend: backend.0, agent: agent.0 })
    }
}

//! A worker's random numbers.

use std::cell::RefCell;

use rand::{RngCore, SeedableRng, rngs::SmallRng};

/// Draws numbers that need not be unpredictable.
#[derive(Debug)]
pub(super) struct Draw(RefCell<SmallRng>);

impl Draw {
    /// Seeded by the operating system.
    pub(super) fn new() -> Self {
        Self(RefCell::new(SmallRng::from_os_rng()))
    }

    /// Uniform over all of u64.
    pub(super) fn next(&self) -> u64 {
        self.0.borrow_mut().next_u64()
    }

    /// Uniform over 0 to `count` - 1; 0 where there is nothing to choose from.
    pub(super) fn below(&self, count: usize) -> usize {
        let at = (u128::from(self.next()) * count as u128) >> 64;
        usize::try_from(at).unwrap_or(0)
    }
}

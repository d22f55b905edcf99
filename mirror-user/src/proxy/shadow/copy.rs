//! A copy on its way: what the shadow leg knows of it besides its body.

use super::OutcomeGuard;
use crate::proxy::tee::{BudgetCharge, CopyBody};

/// A copy on its way to a shadow connection, with a head in the form that this connection speaks.
pub(super) struct Copy<H> {
    pub(super) head: H,
    pub(super) body: CopyBody,
    pub(super) guard: OutcomeGuard,
    /// For the head.
    pub(super) charge: BudgetCharge,
    /// How often it came back unsent.
    pub(super) moves: u8,
}

impl<H> Copy<H> {
    pub(super) fn map<G>(self, map: impl FnOnce(H) -> G) -> Copy<G> {
        let Self { head, body, guard, charge, moves } = self;
        Copy { head: map(head), body, guard, charge, moves }
    }
}

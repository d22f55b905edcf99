//! What both legs share of a copy: the writer that the primary leg shows frames to, the body that a shadow
//! connection reads, and the budgets that bound what lies between them. Neither leg is named here.

mod body;
mod bounds;
mod budget;

pub use self::budget::{Budget, Budgets};
pub(super) use self::{
    body::{CopyBody, CopyStatus, CopyWriter},
    budget::{BackendBudget, BudgetCharge, CopyBudget},
};

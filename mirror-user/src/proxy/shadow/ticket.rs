//! A selected copy's entry in the accounts: settled exactly once, so that
//! selected = delivered + dropped(reason) + unknown + in flight always holds.

use std::{rc::Rc, sync::Arc, time::Instant};

use super::copy::Watch;
use crate::{
    outcome::{CopyOutcome, DropReason},
    proxy::context::Context,
    route::ServicePort,
};

/// Open from the selection of a copy to its outcome.
pub(super) struct Ticket {
    /// None once settled.
    open: Option<(Rc<Context>, Arc<ServicePort>)>,
    started: Instant,
}

impl Ticket {
    /// `started`: when the request was there, which is when its copies are selected.
    pub(super) fn new(ctx: &Rc<Context>, shadow: &Arc<ServicePort>, started: Instant) -> Self {
        ctx.recorder.copy_selected(shadow);
        Self { open: Some((Rc::clone(ctx), Arc::clone(shadow))), started }
    }

    /// The worker's, until the copy is settled.
    pub(super) fn context(&self) -> Option<&Rc<Context>> {
        self.open.as_ref().map(|(ctx, _)| ctx)
    }

    /// When the copy was selected.
    pub(super) fn started(&self) -> Instant {
        self.started
    }

    /// Tells the outcome. `bytes`: what of the copy's body was taken by its connection.
    pub(super) fn settle(mut self, outcome: CopyOutcome, bytes: u64) {
        self.tell(outcome, bytes);
    }

    /// The shadow has answered: a copy that it has whole is delivered. One whose body still goes on
    /// (a stream of both sides) may yet be cut, and is handed back.
    pub(super) fn settle_if_whole(self, watch: &Watch) -> Option<Self> {
        if !watch.is_taken_whole() {
            return Some(self);
        }
        self.settle(CopyOutcome::Delivered, watch.taken());
        None
    }

    fn tell(&mut self, outcome: CopyOutcome, bytes: u64) {
        if let Some((ctx, shadow)) = self.open.take() {
            ctx.recorder.copy(&shadow, outcome, bytes, self.started.elapsed());
        }
    }
}

impl Drop for Ticket {
    /// Whoever held the copy went away with the worker.
    fn drop(&mut self) {
        self.tell(CopyOutcome::Dropped(DropReason::Shutdown), 0);
    }
}

//! A selected copy's outcome: settled exactly once, so that
//! selected = delivered + dropped(reason) + unknown + in flight always holds.

use std::{
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    outcome::{CopyOutcome, DropReason, Recorder, TimedResponse},
    proxy::{
        mirrored::{self, MirroredRequest, ShadowObserver},
        tee::CopyStatus,
    },
    route::ServicePort,
};

/// Open from the selection of a copy to its outcome.
pub(super) struct OutcomeGuard {
    /// None once settled.
    open: Option<(Rc<Recorder>, Arc<ServicePort>)>,
    started: Instant,
    mirrored: Option<Rc<MirroredRequest>>,
}

impl OutcomeGuard {
    /// `started`: when the request was there, which is when its copies are selected.
    pub(super) fn new(
        recorder: &Rc<Recorder>,
        shadow: &Arc<ServicePort>,
        started: Instant,
        mirrored: Option<&Rc<MirroredRequest>>,
    ) -> Self {
        recorder.copy_selected(shadow);
        let open = Some((Rc::clone(recorder), Arc::clone(shadow)));
        Self { open, started, mirrored: mirrored.cloned() }
    }

    /// The shadow has responded; see [`ShadowObserver::responded`].
    pub(super) fn responded(&self, status: u16, after: Duration) {
        if let Some((recorder, shadow)) = &self.open {
            let response = TimedResponse { status: Some(status), grpc: None, after };
            mirrored::report(recorder, shadow, self.mirrored.as_deref(), response);
        }
    }

    /// Where the shadow's response is reported, if all of it is known only after the outcome is settled.
    pub(super) fn observer(&self) -> Option<ShadowObserver> {
        let (recorder, shadow) = self.open.as_ref()?;
        Some(ShadowObserver::new(recorder, shadow, self.mirrored.as_ref()))
    }

    /// When the copy was selected.
    pub(super) fn started(&self) -> Instant {
        self.started
    }

    /// Tells the outcome. `bytes`: what of the copy's body was taken by its connection.
    pub(super) fn settle(mut self, outcome: CopyOutcome, bytes: u64) {
        self.report(outcome, bytes);
    }

    /// The shadow has answered: a copy that it has whole is delivered. One whose body still goes on
    /// (a stream of both sides) may yet be cut, and is handed back.
    pub(super) fn settle_if_whole(self, status: &CopyStatus) -> Option<Self> {
        if !status.is_taken_whole() {
            return Some(self);
        }
        self.settle(CopyOutcome::Delivered, status.taken());
        None
    }

    fn report(&mut self, outcome: CopyOutcome, bytes: u64) {
        if let Some((recorder, shadow)) = self.open.take() {
            recorder.copy(&shadow, outcome, bytes, self.started.elapsed());
        }
    }
}

impl Drop for OutcomeGuard {
    /// Whoever held the copy went away with the worker.
    fn drop(&mut self) {
        self.report(CopyOutcome::Dropped(DropReason::Shutdown), 0);
    }
}

#[cfg(test)]
mod tests;

//! How a watch fares, for metrics and readiness. In: what [`super::Watch`] notes. Out: numbers.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Shared between a watch and who tells of it. A clone is the same one.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// The last list that was complete.
    complete: bool,
    /// A stream is open, and what it tells is all there is to know.
    current: bool,
    /// When the server last said anything.
    heard: Option<Instant>,
    lists: u64,
    failures: u64,
    last_failure: Option<String>,
}

impl Health {
    /// Whether everything was listed once; the first sync.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.state().complete
    }

    /// How old what is known may be: zero while the server tells of each change, else the time
    /// since it last said anything. None before the first complete list.
    #[must_use]
    pub fn age(&self) -> Option<Duration> {
        let state = self.state();
        let heard = state.heard.filter(|_| state.complete)?;
        Some(if state.current { Duration::ZERO } else { heard.elapsed() })
    }

    /// Complete lists since the start: the first, and those after a cut that could not be resumed.
    #[must_use]
    pub fn lists(&self) -> u64 {
        self.state().lists
    }

    /// Failed attempts since the start.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.state().failures
    }

    /// Why it does not follow the server at this moment.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let state = self.state();
        state.last_failure.clone().filter(|_| !state.current)
    }

    pub(super) fn hear(&self) {
        self.state().heard = Some(Instant::now());
    }

    /// Everything was listed.
    pub(super) fn list(&self) {
        let mut state = self.state();
        state.complete = true;
        state.lists += 1;
    }

    /// The reader of the events takes the kind for absent: nothing is all there is.
    pub fn absent(&self) {
        let mut state = self.state();
        (state.complete, state.current, state.heard) = (true, true, Some(Instant::now()));
    }

    /// A stream follows a complete list.
    pub(super) fn current(&self) {
        self.state().current = true;
    }

    pub(super) fn fail(&self, error: &str) {
        let mut state = self.state();
        state.current = false;
        state.failures += 1;
        state.last_failure = Some(error.to_owned());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics with it in hand, and numbers stay numbers.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

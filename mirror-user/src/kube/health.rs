//! How a watch fares, for metrics and readiness. In: what [`super::Watch`] notes. Out: numbers.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Shared between a watch and those who report it. A clone is a handle to the same state.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// The last list that was complete.
    complete: bool,
    /// A stream is open and has delivered all changes.
    current: bool,
    /// When the server last said anything.
    last_message: Option<Instant>,
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

    /// The greatest possible age of what is known: zero while the server reports each change, else the time
    /// since it last said anything. None before the first complete list.
    #[must_use]
    pub fn age(&self) -> Option<Duration> {
        let state = self.state();
        let last_message = state.last_message.filter(|_| state.complete)?;
        Some(if state.current { Duration::ZERO } else { last_message.elapsed() })
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

    pub(super) fn record_message(&self) {
        self.state().last_message = Some(Instant::now());
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
        (state.complete, state.current, state.last_message) = (true, true, Some(Instant::now()));
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

//! Copies that wait for a connection of HTTP/1. In: those that found none. Out: the oldest first, to
//! whichever connection has room. How many may wait is what a burst needs, and a slow shadow cannot
//! make it more; what they hold is bounded by the budgets.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::{copy::Copy, head::Http1Head};

/// Copies that may wait for each connection that there may be, of those with content as many as of
/// those without. A server that closes after 1,000 requests does so on all connections within a
/// moment, since they are used alike; what comes before the new ones are open is to be kept.
const EACH: usize = 16;

/// How long a copy may wait.
const PATIENCE: Duration = Duration::from_secs(1);

pub(super) struct CopyQueue {
    /// Connections that there may be.
    connections: usize,
    copies: RefCell<VecDeque<(Instant, Copy<Http1Head>)>>,
    /// How many have content.
    content: Cell<usize>,
}

impl CopyQueue {
    pub(super) fn new(connections: usize) -> Self {
        Self { connections, copies: RefCell::default(), content: Cell::new(0) }
    }

    /// Whether one more may wait. `whole`: it has no content.
    pub(super) fn has_room(&self, whole: bool) -> bool {
        let content = self.content.get();
        let waiting = if whole { self.len() - content } else { content };
        waiting < self.connections * EACH
    }

    /// `since`: when it began to wait.
    pub(super) fn push(&self, copy: Copy<Http1Head>, since: Instant) {
        let content = usize::from(!copy.head.encoded.has_no_content());
        self.content.set(self.content.get() + content);
        self.copies.borrow_mut().push_back((since, copy));
    }

    /// The one that waits longest.
    pub(super) fn pop(&self) -> Option<Copy<Http1Head>> {
        self.pop_if(|_, _| true)
    }

    /// The same, if it may be sent behind others.
    pub(super) fn pop_pipelined(&self) -> Option<Copy<Http1Head>> {
        self.pop_if(|_, copy| copy.head.pipelined)
    }

    /// The same, if it has waited too long.
    pub(super) fn pop_expired(&self, now: Instant) -> Option<Copy<Http1Head>> {
        self.pop_if(|since, _| now.saturating_duration_since(since) > PATIENCE)
    }

    fn pop_if(
        &self,
        fits: impl FnOnce(Instant, &Copy<Http1Head>) -> bool,
    ) -> Option<Copy<Http1Head>> {
        let mut copies = self.copies.borrow_mut();
        let (since, oldest) = copies.front()?;
        if !fits(*since, oldest) {
            return None;
        }
        let (_, copy) = copies.pop_front()?;
        let content = usize::from(!copy.head.encoded.has_no_content());
        self.content.set(self.content.get() - content);
        Some(copy)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.copies.borrow().is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.copies.borrow().len()
    }
}

#[cfg(test)]
mod tests;

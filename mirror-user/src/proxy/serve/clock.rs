//! Clocks of a connection: on a head that does not come to its end, and on a silence between
//! requests. Neither is armed or read per request: the first not for a head that arrives whole, the
//! second once per [`QUIET`]. An idle connection stays open for as long as its client likes.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::time::{Sleep, sleep, sleep_until};

/// From when on a connection without a request counts as idle, at most twice this long after the
/// last one.
const QUIET: Duration = Duration::from_secs(1);

/// Tells when no request has begun for a while.
#[derive(Default)]
pub(super) struct QuietClock {
    armed: Option<Pin<Box<Sleep>>>,
    /// Requests begun when it was armed.
    begun: u64,
}

impl QuietClock {
    /// Ready once no request began for [`QUIET`]; to be asked whenever the connection is quiet.
    pub(super) fn poll(&mut self, begun: u64, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(armed) = &self.armed {
            if !armed.is_elapsed() {
                return Poll::Pending;
            }
            if self.begun == begun {
                return Poll::Ready(());
            }
        }
        self.begun = begun;
        let mut armed = Box::pin(sleep(QUIET));
        let polled = armed.as_mut().poll(cx);
        self.armed = Some(armed);
        polled
    }
}

#[derive(Default)]
pub(super) struct HeadClock(Option<Pin<Box<Sleep>>>);

impl HeadClock {
    /// Ready once the head that began at `since` is late; to be asked whenever bytes were read.
    pub(super) fn poll(
        &mut self,
        since: Option<Instant>,
        limit: Duration,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        let Some(since) = since else {
            self.0 = None;
            return Poll::Pending;
        };
        let deadline = since + limit;
        let clock = self.0.get_or_insert_with(|| Box::pin(sleep_until(deadline.into())));
        if clock.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        if Instant::now() < deadline {
            // Armed for an earlier head.
            self.0 = None;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(())
    }
}

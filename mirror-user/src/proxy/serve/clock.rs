//! A clock on a head that does not come to its end. None is armed for a head that arrives whole,
//! nor between requests: an idle connection stays open for as long as its client likes.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::time::{Sleep, sleep_until};

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

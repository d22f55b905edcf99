//! Interim answers (1xx, RFC 9110, section 15.2) between the primary and its client. In: what the
//! primary says before its answer. Out: the same to a client of HTTP/2; to one of HTTP/1 only the
//! wish for the body (100), since hyper's server can send no other: those are counted and dropped.
//! Asking a client for its body before the primary does would hide an early refusal from it.

use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use http::{Response, StatusCode, Version, header::EXPECT, request};
use tokio::time::{Sleep, sleep};

/// How long the primary is waited for before the client is asked for its body all the same
/// (RFC 9110, section 10.1.1: a client waits no longer either).
const PATIENCE: Duration = Duration::from_secs(1);

/// Interim answers kept for a client that does not take them; more are dropped.
const KEPT: usize = 16;

/// Where the interim answers of one exchange go. hyper wants it to be shared between threads,
/// though it never is.
#[derive(Clone, Debug)]
pub(super) enum Interim {
    /// Nobody takes any.
    Ignore,
    /// Nobody takes any: they are counted.
    Count(Arc<AtomicU64>),
    /// The client waits for 100; others are counted.
    Continue(Arc<Line>, Arc<AtomicU64>),
    /// The client takes all.
    Pass(Arc<Line>),
}

/// Interim answers, and who waits for them.
#[derive(Debug, Default)]
pub(super) struct Line(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The client is asked for its body.
    continued: bool,
    /// The answer itself is there: the client that was not asked by now never is.
    answered: bool,
    kept: VecDeque<Response<()>>,
    waker: Option<Waker>,
}

impl Interim {
    /// For a client of HTTP/1.
    pub(super) fn http1(head: &request::Parts, dropped: &Arc<AtomicU64>) -> Self {
        let waits = head.version == Version::HTTP_11
            && head
                .headers
                .get(EXPECT)
                .is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"100-continue"));
        let dropped = Arc::clone(dropped);
        if waits { Self::Continue(Arc::default(), dropped) } else { Self::Count(dropped) }
    }

    /// For a client of HTTP/2, and what it has to take.
    pub(super) fn http2() -> (Self, Arc<Line>) {
        let line = Arc::default();
        (Self::Pass(Arc::clone(&line)), line)
    }

    /// What the request's body waits for; None where nothing does.
    pub(super) fn gate(&self) -> Option<Gate> {
        match self {
            Self::Continue(line, _) => {
                Some(Gate { line: Arc::clone(line), clock: Box::pin(sleep(PATIENCE)) })
            }
            Self::Ignore | Self::Count(_) | Self::Pass(_) => None,
        }
    }

    /// Whether anybody takes or counts them.
    pub(super) fn is_told(&self) -> bool {
        !matches!(self, Self::Ignore)
    }

    /// The primary said this before its answer.
    pub(super) fn tell(&self, status: StatusCode, headers: &http::HeaderMap) {
        match self {
            Self::Ignore => {}
            Self::Continue(line, _) if status == StatusCode::CONTINUE => line.go_on(),
            Self::Count(dropped) | Self::Continue(_, dropped) => {
                if status != StatusCode::CONTINUE {
                    dropped.fetch_add(1, Relaxed);
                }
            }
            Self::Pass(line) => line.keep(status, headers),
        }
    }

    /// The answer is there. False: the client was not asked for its body, and may never send it.
    pub(super) fn answered(&self) -> bool {
        match self {
            Self::Continue(line, _) => {
                let mut state = line.state();
                state.answered = true;
                state.continued
            }
            Self::Ignore | Self::Count(_) | Self::Pass(_) => true,
        }
    }
}

impl Line {
    /// The next one for the client.
    pub(super) fn poll_next(&self, cx: &Context<'_>) -> Poll<Response<()>> {
        let mut state = self.state();
        match state.kept.pop_front() {
            Some(answer) => Poll::Ready(answer),
            None => {
                state.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics half way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn go_on(&self) {
        let mut state = self.state();
        state.continued = true;
        state.waker.take().into_iter().for_each(Waker::wake);
    }

    fn keep(&self, status: StatusCode, headers: &http::HeaderMap) {
        let mut state = self.state();
        // 101 has no meaning in HTTP/2 (RFC 9113, section 8.6).
        if state.kept.len() >= KEPT || status == StatusCode::SWITCHING_PROTOCOLS {
            return;
        }
        let mut answer = Response::new(());
        *answer.status_mut() = status;
        *answer.headers_mut() = headers.clone();
        super::dress::remove_connection_fields(answer.headers_mut());
        state.kept.push_back(answer);
        state.waker.take().into_iter().for_each(Waker::wake);
    }
}

/// A request's body waits here until the primary wants it, or has said nothing for [`PATIENCE`].
#[derive(Debug)]
pub(super) struct Gate {
    line: Arc<Line>,
    clock: Pin<Box<Sleep>>,
}

impl Gate {
    pub(super) fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.line.state();
        if state.continued {
            return Poll::Ready(());
        }
        if state.answered {
            return Poll::Pending;
        }
        state.continued = self.clock.as_mut().poll(cx).is_ready();
        if state.continued {
            return Poll::Ready(());
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

//! Interim answers (1xx, RFC 9110, section 15.2) between the primary and its client. In: what the
//! primary says before its answer. Out: the same to the client, unless it speaks HTTP/1.0, which has
//! none: then they are counted and dropped. A client that waits for 100 gets it when the primary says
//! it: asking for the body before the primary does would hide an early refusal.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use http::{Extensions, HeaderMap, Response, StatusCode, Version};
use tokio::time::{Sleep, sleep};

use super::http1::Served;

/// How long the primary is waited for before the client is asked for its body all the same
/// (RFC 9110, section 10.1.1: a client waits no longer either).
const PATIENCE: Duration = Duration::from_secs(1);

/// Interim answers kept for a client that does not take them; more are dropped.
const KEPT: usize = 16;

/// Where the interim answers of one exchange go.
#[derive(Debug)]
pub(super) enum Interim {
    /// Nobody takes any.
    Ignore,
    /// Nobody takes any: they are counted.
    Count(Rc<Cell<u64>>),
    /// To a client of HTTP/1.1.
    Single(Rc<Served>),
    /// The same, and it waits for 100.
    Continue(Rc<Line>, Rc<Served>),
    /// To a client of HTTP/2.
    Stream(Rc<Line>),
}

/// Interim answers, and who waits for them.
#[derive(Debug, Default)]
pub(super) struct Line(RefCell<State>);

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
    pub(super) fn http1(version: Version, client: &Rc<Served>, dropped: &Rc<Cell<u64>>) -> Self {
        if version != Version::HTTP_11 {
            return Self::Count(Rc::clone(dropped));
        }
        let waits = client.expects();
        let client = Rc::clone(client);
        if waits { Self::Continue(Rc::default(), client) } else { Self::Single(client) }
    }

    /// For a client of HTTP/2, and what it has to take.
    pub(super) fn http2() -> (Self, Rc<Line>) {
        let line = Rc::default();
        (Self::Stream(Rc::clone(&line)), line)
    }

    /// What the request's body waits for; None where nothing does.
    pub(super) fn gate(&self) -> Option<Gate> {
        match self {
            Self::Continue(line, _) => {
                Some(Gate { line: Rc::clone(line), clock: Box::pin(sleep(PATIENCE)) })
            }
            _ => None,
        }
    }

    /// Whether anybody takes or counts them.
    pub(super) fn is_told(&self) -> bool {
        !matches!(self, Self::Ignore)
    }

    /// The primary said this before its answer.
    pub(super) fn tell(&self, status: StatusCode, headers: &HeaderMap, as_it_came: &Extensions) {
        match self {
            Self::Ignore => {}
            Self::Count(dropped) => dropped.set(dropped.get() + 1),
            // The client hears it when its body is asked for.
            Self::Continue(line, _) if status == StatusCode::CONTINUE => line.go_on(),
            Self::Single(client) | Self::Continue(_, client) => {
                client.interim(status, headers, as_it_came);
            }
            Self::Stream(line) => line.keep(status, headers),
        }
    }

    /// The answer is there. False: the client was not asked for its body, and may never send it.
    pub(super) fn answered(&self) -> bool {
        match self {
            Self::Continue(line, _) => {
                let mut state = line.0.borrow_mut();
                state.answered = true;
                state.continued
            }
            _ => true,
        }
    }
}

impl Line {
    /// The next one for the client.
    pub(super) fn poll_next(&self, cx: &Context<'_>) -> Poll<Response<()>> {
        let mut state = self.0.borrow_mut();
        match state.kept.pop_front() {
            Some(answer) => Poll::Ready(answer),
            None => {
                state.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn go_on(&self) {
        let mut state = self.0.borrow_mut();
        state.continued = true;
        state.waker.take().into_iter().for_each(Waker::wake);
    }

    fn keep(&self, status: StatusCode, headers: &HeaderMap) {
        let mut state = self.0.borrow_mut();
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
    line: Rc<Line>,
    clock: Pin<Box<Sleep>>,
}

impl Gate {
    pub(super) fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.line.0.borrow_mut();
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

//! Interim responses (1xx, RFC 9110, section 15.2) between the primary and its client. In: what the
//! primary says before its response. Out: the same to the client, unless it speaks HTTP/1.0, which has
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

use super::http1::ServerConnection;

/// How long the primary is waited for before the client is asked for its body all the same
/// (RFC 9110, section 10.1.1: a client waits no longer either).
const PATIENCE: Duration = Duration::from_secs(1);

/// Bytes of interim responses kept for a client that does not take them; more are dropped.
const KEPT: usize = 16 * 1024;

/// Where the interim responses of one exchange go.
#[derive(Debug)]
pub(super) enum Interim {
    /// Nobody takes any.
    Ignore,
    /// Nobody takes any: they are counted.
    Count(Rc<Cell<u64>>),
    /// To a client of HTTP/1.1.
    Http1(Rc<ServerConnection>),
    /// The same, and it waits for 100.
    Continue(Rc<InterimQueue>, Rc<ServerConnection>),
    /// To a client of HTTP/2.
    Http2(Rc<InterimQueue>),
    /// As the other, and whether any but 100 was among them.
    Noted(Box<Interim>, Cell<bool>),
}

/// Interim responses, and who waits for them.
#[derive(Debug, Default)]
pub(super) struct InterimQueue(RefCell<State>);

#[derive(Debug, Default)]
struct State {
    /// The client is asked for its body.
    continued: bool,
    /// The response itself is there: the client that was not asked by now never is.
    response_arrived: bool,
    kept: VecDeque<Response<()>>,
    /// Their bytes.
    bytes: usize,
    waker: Option<Waker>,
}

impl Interim {
    /// For a client of HTTP/1.
    pub(super) fn http1(
        version: Version,
        client: &Rc<ServerConnection>,
        dropped: &Rc<Cell<u64>>,
    ) -> Self {
        if version != Version::HTTP_11 {
            return Self::Count(Rc::clone(dropped));
        }
        let waits = client.expects();
        let client = Rc::clone(client);
        if waits { Self::Continue(Rc::default(), client) } else { Self::Http1(client) }
    }

    /// For a client of HTTP/2, and what it has to take.
    pub(super) fn http2() -> (Self, Rc<InterimQueue>) {
        let queue = Rc::default();
        (Self::Http2(Rc::clone(&queue)), queue)
    }

    /// The same for a request that may be sent again until its client gets anything.
    pub(super) fn noted(self) -> Self {
        Self::Noted(Box::new(self), Cell::default())
    }

    /// Whether any but 100 has passed, where that is [noted](Interim::noted).
    pub(super) fn has_passed(&self) -> bool {
        matches!(self, Self::Noted(_, any) if any.get())
    }

    /// What the request's body waits for; None where nothing does.
    pub(super) fn gate(&self) -> Option<Gate> {
        match self {
            Self::Continue(queue, _) => {
                Some(Gate { queue: Rc::clone(queue), clock: Box::pin(sleep(PATIENCE)) })
            }
            Self::Noted(interim, _) => interim.gate(),
            _ => None,
        }
    }

    /// Whether the client waits for 100 before it sends its body.
    pub(super) fn is_awaited(&self) -> bool {
        match self {
            Self::Continue(..) => true,
            Self::Noted(interim, _) => interim.is_awaited(),
            _ => false,
        }
    }

    /// Whether anybody takes or counts them.
    pub(super) fn is_wanted(&self) -> bool {
        match self {
            Self::Ignore => false,
            Self::Noted(interim, _) => interim.is_wanted(),
            _ => true,
        }
    }

    /// The primary said this before its response.
    pub(super) fn forward(&self, status: StatusCode, headers: &HeaderMap, as_it_came: &Extensions) {
        // No protocol is ever switched by HTTP/2, which alone tells one here (RFC 9113, section 8.6).
        if status == StatusCode::SWITCHING_PROTOCOLS {
            return;
        }
        match self {
            Self::Ignore => {}
            Self::Count(dropped) => dropped.set(dropped.get() + 1),
            // The client hears it when its body is asked for.
            Self::Continue(queue, _) if status == StatusCode::CONTINUE => queue.go_on(),
            Self::Http1(client) | Self::Continue(_, client) => {
                client.interim(status, headers, as_it_came);
            }
            Self::Http2(queue) => queue.keep(status, headers),
            Self::Noted(interim, any) => {
                let passes = !matches!(**interim, Self::Ignore | Self::Count(_));
                any.set(any.get() || (passes && status != StatusCode::CONTINUE));
                interim.forward(status, headers, as_it_came);
            }
        }
    }

    /// The response is there. False: the client was not asked for its body, and may never send it.
    pub(super) fn response_arrived(&self) -> bool {
        match self {
            Self::Continue(queue, _) => {
                let mut state = queue.0.borrow_mut();
                state.response_arrived = true;
                state.continued
            }
            Self::Noted(interim, _) => interim.response_arrived(),
            _ => true,
        }
    }
}

/// What an interim response takes, in bytes.
pub(super) fn head_size(headers: &HeaderMap) -> usize {
    /// Of each field beside its text, and of a response without any.
    const FIELD: usize = 256;
    let fields = headers.iter();
    fields.fold(FIELD, |sum, (name, value)| sum + name.as_str().len() + value.len() + FIELD)
}

impl InterimQueue {
    /// The next one for the client.
    pub(super) fn poll_next(&self, cx: &Context<'_>) -> Poll<Response<()>> {
        let mut state = self.0.borrow_mut();
        match state.kept.pop_front() {
            Some(response) => {
                state.bytes -= head_size(response.headers());
                Poll::Ready(response)
            }
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
        let mut response = Response::new(());
        *response.status_mut() = status;
        *response.headers_mut() = headers.clone();
        super::normalize::remove_connection_fields(response.headers_mut());
        let bytes = state.bytes + head_size(response.headers());
        if bytes > KEPT {
            return;
        }
        state.bytes = bytes;
        state.kept.push_back(response);
        state.waker.take().into_iter().for_each(Waker::wake);
    }
}

/// A request's body waits here until the primary wants it, or has said nothing for [`PATIENCE`].
#[derive(Debug)]
pub(super) struct Gate {
    queue: Rc<InterimQueue>,
    clock: Pin<Box<Sleep>>,
}

impl Gate {
    pub(super) fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.queue.0.borrow_mut();
        if state.continued {
            return Poll::Ready(());
        }
        if state.response_arrived {
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

//! What all sockets and bodies share: how much is read and written at once, and when others have their turn.

use std::{
    cell::Cell,
    future::Future,
    io::{self, IoSlice},
    os::fd::AsRawFd,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::socket::{MsgFlags, recv},
};
use tokio::{
    io::AsyncWrite,
    net::TcpStream,
    task::{coop, yield_now},
};

/// What a held frame that shares a read buffer may pin, in bytes.
pub(super) const READ_BUFFER: usize = 32 * 1024;

/// What a workload's tasks may use of a worker's thread before others have their turn.
pub(super) const SLICE: Duration = Duration::from_micros(250);

thread_local! {
    /// When the poll began that is in progress, of a task that a slice pays for.
    static POLL_BEGAN: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Whether a connection was reset, or the kernel has given its peer up: its client is to find no
/// proper end.
pub(super) fn is_abnormal(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionReset, HostUnreachable, NetworkUnreachable, TimedOut};
    matches!(error.kind(), ConnectionReset | HostUnreachable | NetworkUnreachable | TimedOut)
}

/// Whether an idle connection may carry another message: the peer has neither closed nor said
/// anything unasked, as the kernel knows.
pub(super) fn is_quiet(stream: &TcpStream) -> bool {
    let mut byte = [0_u8; 1];
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    matches!(recv(stream.as_raw_fd(), &mut byte, flags), Err(Errno::EAGAIN))
}

/// Has the task polled again once every other that is ready had its turn, and the kernel was asked
/// whose sockets are. A task that wakes itself is polled 61 times before the runtime asks (tokio 1.54,
/// `event_interval`): a copy whose socket has room again would not know of it for megabytes of its
/// primary's upload.
pub(super) fn after_others(cx: &mut Context<'_>) {
    // Its first poll hands the waker to the runtime; it is not ready before.
    let _ = pin!(yield_now()).poll(cx);
}

/// Has a poll count as begun then; returns what was set before.
pub(super) fn set_poll_began(began: Option<Instant>) -> Option<Instant> {
    POLL_BEGAN.replace(began)
}

/// Has so much work counted for the task that is polled: a unit is some 20 µs. The runtime gives a task
/// 128 of them for each poll (tokio 1.54, `task::coop`), of which a read or a write of a socket takes one.
/// Once they are used up, sockets seem not to be ready, and the task is polled again when all others had
/// their turn. So whatever comes of a few bytes (a thousand frames, a hundred responses of our own)
/// keeps a worker busy for 5 ms at most.
pub(super) fn consume_budget(cx: &mut Context<'_>, units: u32) {
    for _ in 0..units {
        if poll_budget(cx).is_pending() {
            return;
        }
    }
}

/// The same of one unit; not ready when there is none.
pub(super) fn poll_budget(cx: &mut Context<'_>) -> Poll<()> {
    ready!(coop::poll_proceed(cx)).made_progress();
    Poll::Ready(())
}

/// Whether more may be taken up in the poll that is in progress: not once it has taken a [`SLICE`]. The task is
/// then polled again when all others had their turn.
pub(super) fn poll_slice(cx: &mut Context<'_>) -> Poll<()> {
    if POLL_BEGAN.get().is_some_and(|began| began.elapsed() >= SLICE) {
        after_others(cx);
        return Poll::Pending;
    }
    Poll::Ready(())
}

/// Most messages leave as one buffer, and send(2) costs less than writev(2).
pub(super) fn poll_write_buffers<S: AsyncWrite + Unpin>(
    stream: &mut S,
    cx: &mut Context<'_>,
    buffers: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    match buffers {
        [only] => Pin::new(stream).poll_write(cx, only),
        many => Pin::new(stream).poll_write_vectored(cx, many),
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, future::poll_fn, io::Write, rc::Rc};

    use tokio::{net::UnixStream, runtime::Builder, task::spawn_local};

    use super::*;

    /// How often a task that always has work is polled before another hears of its socket.
    fn turns_until_heard(wake: fn(&mut Context<'_>)) -> u32 {
        let runtime = Builder::new_current_thread().enable_all().build_local(Default::default());
        runtime.unwrap().block_on(async {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let mut theirs = theirs.into_std().unwrap();
            let heard = Rc::new(Cell::new(false));
            let hears = Rc::clone(&heard);
            spawn_local(async move {
                ours.readable().await.unwrap();
                hears.set(true);
            });
            // It waits, and the runtime knows that nothing is there.
            yield_now().await;
            yield_now().await;
            let mut turns = 0;
            let busy = spawn_local(poll_fn(move |cx| {
                if turns == 0 {
                    theirs.write_all(b"x").unwrap();
                }
                if heard.get() {
                    return Poll::Ready(turns);
                }
                turns += 1;
                wake(cx);
                Poll::Pending
            }));
            busy.await.unwrap()
        })
    }

    #[test]
    fn a_task_that_yields_lets_others_hear_of_their_sockets_first() {
        assert!(turns_until_heard(after_others) <= 2);
        // What it is for: as long as this is no better, a waker alone will not do.
        assert!(turns_until_heard(|cx| cx.waker().wake_by_ref()) > 10);
    }

    #[test]
    fn a_poll_that_has_taken_a_slice_takes_up_no_more() {
        let runtime = Builder::new_current_thread().build_local(Default::default()).unwrap();
        let polls_after = |taken: Option<Duration>| {
            let mut polls = 0;
            runtime.block_on(poll_fn(|cx| {
                let taken = taken.filter(|_| polls == 0);
                let outer = set_poll_began(taken.map(|taken| Instant::now() - taken));
                let polled = poll_slice(cx);
                set_poll_began(outer);
                polls += 1;
                polled
            }));
            polls
        };
        assert_eq!(polls_after(None), 1, "no slice pays for it");
        assert_eq!(polls_after(Some(SLICE / 10)), 1);
        assert_eq!(polls_after(Some(SLICE)), 2, "it is polled again");
    }
}

//! Faults: the ways in which `mirror echo` misbehaves when asked to.

use std::{
    io,
    num::NonZeroU32,
    pin::Pin,
    str::FromStr,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep_until},
};

/// One way to misbehave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Does not listen: connections are refused.
    Refuse,
    /// Accepts connections and never reads from them.
    AcceptNeverRead,
    /// Reads requests whole and never responds.
    AnswerNever,
    /// Responds to each request this much later.
    Delay(Duration),
    /// Reads this many bytes per second from each connection.
    SlowRead(NonZeroU32),
    /// Closes the connection in the middle of the response's body.
    CloseMidAnswer,
    /// Responds with 413 without reading the body, and closes.
    EarlyAnswer,
}

/// The value of `--fault` is unknown.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown fault {0:?}: expected refuse, accept-never-read, answer-never, delay=DURATION, \
     slow-read=BYTES_PER_SECOND, close-mid-answer or early-answer"
)]
pub struct InvalidFault(String);

impl FromStr for Fault {
    type Err = InvalidFault;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidFault(text.to_owned());
        match text.split_once('=') {
            None => match text {
                "refuse" => Ok(Self::Refuse),
                "accept-never-read" => Ok(Self::AcceptNeverRead),
                "answer-never" => Ok(Self::AnswerNever),
                "close-mid-answer" => Ok(Self::CloseMidAnswer),
                "early-answer" => Ok(Self::EarlyAnswer),
                _ => Err(invalid()),
            },
            Some(("delay", value)) => {
                humantime::parse_duration(value).map(Self::Delay).map_err(|_| invalid())
            }
            Some(("slow-read", value)) => value.parse().map(Self::SlowRead).map_err(|_| invalid()),
            Some(_) => Err(invalid()),
        }
    }
}

/// A connection that is read at a fixed rate; writing is not slowed.
#[derive(Debug)]
pub(super) struct SlowReader {
    stream: TcpStream,
    /// Bytes in each tick of 100 ms, at least 1.
    portion: usize,
    pause: Pin<Box<Sleep>>,
}

impl SlowReader {
    const TICK: Duration = Duration::from_millis(100);

    pub(super) fn new(stream: TcpStream, bytes_per_second: NonZeroU32) -> Self {
        let portion = usize::try_from(bytes_per_second.get().div_ceil(10)).unwrap_or(usize::MAX);
        Self { stream, portion, pause: Box::pin(sleep_until(Instant::now())) }
    }
}

impl AsyncRead for SlowReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.pause.as_mut().poll(cx));
        let mut portion = vec![0; self.portion.min(buf.remaining())];
        let mut part = ReadBuf::new(&mut portion);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut part))?;
        buf.put_slice(part.filled());
        self.pause.as_mut().reset(Instant::now() + Self::TICK);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for SlowReader {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_parsed() {
        assert_eq!("refuse".parse(), Ok(Fault::Refuse));
        assert_eq!("delay=1s".parse(), Ok(Fault::Delay(Duration::from_secs(1))));
        let rate = NonZeroU32::new(1024).unwrap();
        assert_eq!("slow-read=1024".parse(), Ok(Fault::SlowRead(rate)));
    }

    #[test]
    fn unknown_faults_are_named() {
        for text in ["", "slow", "delay", "delay=", "delay=fast", "slow-read=0", "refuse=1"] {
            assert_eq!(text.parse::<Fault>(), Err(InvalidFault(text.to_owned())), "{text}");
        }
    }
}

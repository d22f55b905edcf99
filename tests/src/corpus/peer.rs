//! One scripted socket: all that arrives is read at once into a buffer, from which the steps take.

use std::{
    io::ErrorKind,
    task::{Context, Poll},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use socket2::SockRef;
use tokio::{io::AsyncWriteExt, net::TcpStream};

use super::frames::Reader;

/// How a side's receiving ended, or why a wait did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum End {
    Fin,
    Rst,
    /// The script itself closed or reset it.
    Ours,
    /// It is open, and what was waited for did not come.
    Missed,
    /// Something came where silence was expected.
    Noise,
    /// There was no connection to wait on.
    None,
    /// The client could not connect.
    Refused,
}

pub(super) struct Peer {
    /// None once the script closed it.
    stream: Option<TcpStream>,
    pub(super) buffer: Vec<u8>,
    pub(super) end: Option<End>,
    /// Of an HTTP/2 conversation.
    pub(super) frames: Option<Reader>,
    /// A write consumed the socket's error, so that a reset reads as the end.
    reset: bool,
}

impl Peer {
    pub(super) fn new(stream: TcpStream, frames: Option<Reader>) -> Self {
        // Small writes are to leave as they are written; failing that, they leave later.
        let _ = stream.set_nodelay(true);
        Self { stream: Some(stream), buffer: Vec::new(), end: None, frames, reset: false }
    }

    /// One that was reset as soon as it was open.
    pub(super) fn gone(frames: Option<Reader>) -> Self {
        Self { stream: None, buffer: Vec::new(), end: Some(End::Rst), frames, reset: true }
    }

    /// Reads what there is; ready when that was something.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.end.is_some() {
            return Poll::Pending;
        }
        let Some(stream) = &self.stream else { return Poll::Pending };
        loop {
            match stream.poll_read_ready(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => self.end = Some(End::Rst),
            }
            self.buffer.reserve(64 * 1024);
            match stream.try_read_buf(&mut self.buffer) {
                Ok(0) => self.end = Some(if self.reset { End::Rst } else { End::Fin }),
                Ok(_) => self.answer_frames(),
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Err(_) => self.end = Some(End::Rst),
            }
            return Poll::Ready(());
        }
    }

    /// Reads frames, and says what HTTP/2 wants said to them (acknowledgements, windows).
    fn answer_frames(&mut self) {
        if let Some(frames) = &mut self.frames {
            let responses = frames.read(&mut self.buffer);
            self.say(&responses);
        }
    }

    /// Writes the rest of it, as far as the peer lets us: that it does not shows in what it says.
    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>, left: &mut &[u8]) -> Poll<()> {
        while let Some(stream) = self.stream.as_ref().filter(|_| !left.is_empty()) {
            if stream.poll_write_ready(cx).is_pending() {
                return Poll::Pending;
            }
            match stream.try_write(left) {
                Ok(n) => *left = &left[n..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => {
                    self.reset |= error.kind() == ErrorKind::ConnectionReset;
                    return Poll::Ready(());
                }
            }
        }
        Poll::Ready(())
    }

    /// Writes a few bytes into an empty buffer; a peer that is gone shows when it is read.
    pub(super) fn say(&mut self, bytes: &[u8]) {
        if let Some(stream) = &self.stream
            && let Err(error) = stream.try_write(bytes)
        {
            self.reset |= error.kind() == ErrorKind::ConnectionReset;
        }
    }

    pub(super) async fn fin(&mut self) {
        if let Some(stream) = &mut self.stream {
            // Fails if the peer has reset the connection, which reading shows.
            let _ = stream.shutdown().await;
        }
    }

    pub(super) fn close(&mut self) {
        self.stream = None;
        self.end.get_or_insert(End::Ours);
    }

    pub(super) fn reset(&mut self) {
        if let Some(stream) = &self.stream {
            // Fails on a connection that is gone already.
            let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
        self.close();
    }
}

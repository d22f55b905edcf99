//! Endings: how a client's connection is closed, so that a response already sent always arrives,
//! and a primary's end looks to the client as it would have without us.
//!
//! How a connection ends is decided where its exchange ends: in `exchange::record` if there is no response,
//! in `exchange::response_body` within one, in `primary::upstreams` while it is idle. `serve` and `tunnel` do
//! it.

use std::{cell::Cell, time::Duration};

use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// How long a client that still sends is listened to after the last response. There is no bound in
/// bytes: a client on the same node sends 3 MiB before it looks for a response (curl, one upload of
/// some two hundred), and a reset in its send buffer's face makes it give up without looking.
const LINGER_TIME: Duration = Duration::from_secs(2);

/// How a connection ends that has no proper end of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CloseMode {
    /// FIN: the primary sent one too early.
    Close,
    /// RST: the primary reset, gave no response, or stopped within one.
    Reset,
}

/// Where the exchange leaves word for the connection's driver.
#[derive(Debug, Default)]
pub(super) struct CloseSlot(Cell<Option<CloseMode>>);

impl CloseSlot {
    pub(super) fn set(&self, end: CloseMode) {
        self.0.set(Some(end));
    }

    pub(super) fn take(&self) -> Option<CloseMode> {
        self.0.take()
    }
}

/// FIN, then what the client still sends is read and dropped for a while: closing with unread
/// bytes makes the kernel send RST, which destroys a response on its way (RFC 9112, section 9.6).
pub(super) async fn linger(mut stream: TcpStream) {
    if stream.shutdown().await.is_err() {
        return;
    }
    let drained = async {
        let mut sink = vec![0_u8; 16 * 1024];
        while matches!(stream.read(&mut sink).await, Ok(n) if n > 0) {}
    };
    // Past the time the connection is closed as it is.
    let _ = timeout(LINGER_TIME, drained).await;
}

/// RST at once (`SO_LINGER` of zero).
pub(super) fn reset(stream: TcpStream) {
    // A socket that refuses the option is closed with FIN: the next best.
    let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    drop(stream);
}

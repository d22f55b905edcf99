//! A raw socket's end with just enough HTTP to tell where a message ends. Whatever does not come
//! within [`PATIENCE`] fails the test, with what came so far.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::{Arc, Mutex},
    time::Duration,
};

use socket2::SockRef;

/// Longer than anything takes on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("text")
}

/// How the other side ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Fin,
    Reset,
}

/// A message as it was on the wire.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Message {
    /// Start line and fields, with the empty line.
    pub(crate) head: String,
    /// Without its framing.
    pub(crate) body: Vec<u8>,
    /// What follows the last chunk, without the empty line.
    pub(crate) trailers: String,
}

impl Message {
    pub(crate) fn status(&self) -> u16 {
        let status = self.head.split(' ').nth(1).and_then(|s| s.trim().parse().ok());
        status.unwrap_or_else(|| panic!("{:?} is no answer", self.head))
    }

    /// The values of a field, in order.
    pub(crate) fn values(&self, name: &str) -> Vec<&str> {
        let fields = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        fields.filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.trim()).collect()
    }

    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.values(name).first().copied()
    }

    fn is_chunked(&self) -> bool {
        self.value("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked"))
    }
}

/// What a server records of a connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tap {
    pub(crate) bytes: Arc<Mutex<Vec<u8>>>,
    pub(crate) ended: Arc<Mutex<Option<End>>>,
}

pub(crate) struct RawConnection {
    stream: TcpStream,
    unread: Vec<u8>,
    pub(crate) tap: Tap,
}

impl RawConnection {
    pub(crate) fn connect(to: SocketAddr) -> Self {
        Self::new(TcpStream::connect(to).expect("the listener is there"), Tap::default())
    }

    pub(crate) fn new(stream: TcpStream, tap: Tap) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket has a timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("a socket has a timeout");
        stream.set_nodelay(true).expect("a TCP socket");
        Self { stream, unread: Vec::new(), tap }
    }

    /// For what the other methods do not do; what was read and not taken stays here.
    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    pub(crate) fn peer(&self) -> SocketAddr {
        self.stream.peer_addr().expect("connected")
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("the other side reads");
    }

    /// False when the other side no longer takes bytes.
    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).is_ok()
    }

    /// FIN; reading goes on.
    pub(crate) fn finish(&self) {
        self.stream.shutdown(Shutdown::Write).expect("a connected socket");
    }

    /// RST.
    pub(crate) fn reset(self) {
        SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).expect("a TCP socket");
    }

    /// Smallest buffers, so that the other side soon cannot write.
    pub(crate) fn narrow(&self) {
        SockRef::from(&self.stream).set_recv_buffer_size(4096).expect("a socket has buffers");
    }

    /// One read; how the other side ended if it did.
    fn fill(&mut self) -> Result<(), End> {
        let mut buffer = [0; 16 * 1024];
        let ended = match self.stream.read(&mut buffer) {
            Ok(0) => End::Fin,
            Ok(n) => {
                self.unread.extend_from_slice(&buffer[..n]);
                self.tap.bytes.lock().expect("no panic").extend_from_slice(&buffer[..n]);
                return Ok(());
            }
            Err(error) => match error.kind() {
                ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => End::Reset,
                ErrorKind::WouldBlock => {
                    panic!("nothing more came in time after {:?}", self.unread.escape_ascii())
                }
                _ => panic!("read: {error}"),
            },
        };
        *self.tap.ended.lock().expect("no panic") = Some(ended);
        Err(ended)
    }

    /// Up to and with `marker`.
    pub(crate) fn try_until(&mut self, marker: &[u8]) -> Result<Vec<u8>, End> {
        let mut from = 0;
        loop {
            let new = &self.unread[from..];
            if let Some(at) = new.windows(marker.len()).position(|w| w == marker) {
                return Ok(self.unread.drain(..from + at + marker.len()).collect());
            }
            from = self.unread.len().saturating_sub(marker.len() - 1);
            self.fill()?;
        }
    }

    pub(crate) fn until(&mut self, marker: &[u8]) -> String {
        let read = self.try_until(marker);
        let bytes = read.unwrap_or_else(|end| {
            panic!("{end:?} before {:?}: {:?}", marker.escape_ascii(), self.unread.escape_ascii())
        });
        text(bytes)
    }

    pub(crate) fn try_exactly(&mut self, n: usize) -> Result<Vec<u8>, End> {
        while self.unread.len() < n {
            self.fill()?;
        }
        Ok(self.unread.drain(..n).collect())
    }

    pub(crate) fn exactly(&mut self, n: usize) -> Vec<u8> {
        self.try_exactly(n).unwrap_or_else(|end| {
            panic!("{end:?} within {n} bytes: {:?}", self.unread.escape_ascii())
        })
    }

    /// Whether not a byte comes for so long.
    pub(crate) fn is_silent_for(&mut self, time: Duration) -> bool {
        self.stream.set_read_timeout(Some(time)).expect("a socket");
        let silent = self.unread.is_empty() && self.stream.peek(&mut [0]).is_err();
        self.stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        silent
    }

    /// All up to the other side's end.
    pub(crate) fn rest(&mut self) -> (Vec<u8>, End) {
        loop {
            if let Err(end) = self.fill() {
                return (std::mem::take(&mut self.unread), end);
            }
        }
    }

    /// Start line and fields.
    pub(crate) fn head(&mut self) -> Message {
        Message { head: self.until(b"\r\n\r\n"), ..Message::default() }
    }

    /// A message with its body, as far as its head says that it has one.
    pub(crate) fn try_message(&mut self) -> Result<Message, End> {
        // A target may have any bytes.
        let head = String::from_utf8_lossy(&self.try_until(b"\r\n\r\n")?).into_owned();
        let mut message = Message { head, ..Message::default() };
        if message.is_chunked() {
            self.chunks(&mut message)?;
        } else if let Some(length) = message.value("content-length") {
            let length = length.parse().expect("a number");
            message.body = self.try_exactly(length)?;
        }
        Ok(message)
    }

    pub(crate) fn message(&mut self) -> Message {
        self.try_message().unwrap_or_else(|end| {
            panic!("{end:?} instead of a message: {:?}", self.unread.escape_ascii())
        })
    }

    fn chunks(&mut self, message: &mut Message) -> Result<(), End> {
        loop {
            let size = text(self.try_until(b"\r\n")?);
            let size = usize::from_str_radix(size.trim(), 16).expect("a chunk's size");
            if size == 0 {
                break;
            }
            message.body.extend(self.try_exactly(size)?);
            assert_eq!(self.try_exactly(2)?, b"\r\n", "a chunk's end");
        }
        loop {
            let line = text(self.try_until(b"\r\n")?);
            if line == "\r\n" {
                return Ok(());
            }
            message.trailers.push_str(&line);
        }
    }

    /// Sends a request and reads the response.
    pub(crate) fn request(&mut self, request: impl AsRef<[u8]>) -> Message {
        self.send(request);
        self.message()
    }
}
